"""`recdistill cache`: what is stored under outputs/cache."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from recdistill.commands.parser import Parser
from recdistill.errors import ConfigError, RecDistillError
from recdistill.store import cannot_write, exclusive, file_hash, folder_size, read_json

SHELVES = {
    "datasets": "manifest.json",
    "teachers": "model.json",
    "scratch": "model.json",
    "soft_labels": "manifest.json",
}


def cache(words: Sequence[str]) -> int:
    """List, check or prune the entries of the cache.

    Returns:
        0, or 1 if `verify` found damage.
    """
    parser = Parser("recdistill cache", description="What runs store and share.")
    parser.add_argument(
        "action",
        choices=["ls", "verify", "prune"],
        help="ls: list the entries; verify: compare every file with its hash; prune: remove entries (only with --yes)",
    )
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="the outputs folder (default: outputs)")
    parser.add_argument("--unused", action="store_true", help="prune: only what no run stands on")
    parser.add_argument("--older", default="0d", help="prune: only what is older, such as 30d or 12h (default: 0d)")
    parser.add_argument("--yes", action="store_true", help="prune: really remove; without it the list is printed")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    arguments = parser.parse_args(list(words))
    entries = list_entries(arguments.outputs)
    if arguments.action == "verify":
        entries = [entry | {"damage": _damage(Path(entry["folder"]), entry)} for entry in entries]
    if arguments.action == "prune":
        entries = _prunable(entries, unused=arguments.unused, hours=_hours(arguments.older))
        if arguments.yes:
            entries = [entry for entry in entries if _remove(entry, arguments.outputs, unused=arguments.unused)]
    if arguments.json:
        print(json.dumps(entries, indent=2))
    else:
        _print(entries, arguments)
    return 1 if any(entry.get("damage") for entry in entries) else 0


def _print(entries: Sequence[dict[str, Any]], arguments: argparse.Namespace) -> None:
    if not entries:
        what = "to remove" if arguments.action == "prune" else "stored"
        print(f"nothing is {what} under {arguments.outputs / 'cache'}")
        return
    from recdistill.report.tables import print_table

    last = "damage" if arguments.action == "verify" else "used by"
    rows = [
        [
            entry["kind"],
            entry["key"],
            entry["what"],
            f"{entry['bytes'] / 1e6:.1f} MB",
            f"{entry['age_hours']:.1f} h",
            (entry["damage"] or "none") if last == "damage" else f"{len(entry['used_by'])} runs",
        ]
        for entry in entries
    ]
    print_table(str(arguments.outputs / "cache"), ["kind", "key", "what", "size", "age", last], rows)
    if arguments.action == "prune":
        size = sum(entry["bytes"] for entry in entries) / 1e6
        verb = "removed" if arguments.yes else "would be removed; --yes removes them"
        print(f"{len(entries)} entries, {size:.1f} MB {verb}")


def _hours(text: str) -> float:
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)([dh])", text):
        return float(match.group(1)) * (24 if match.group(2) == "d" else 1)
    raise ConfigError(
        f"--older {text} is no age", "an age is a number of days or hours", "write --older 30d or --older 12h"
    )


def _damage(folder: Path, entry: dict[str, Any]) -> str:
    """What of an entry does not have its hash; empty if all is well."""
    if not entry["complete"]:
        return str(entry["what"])
    about = read_json(folder / SHELVES[entry["kind"]])
    if entry["kind"] == "soft_labels":
        from recdistill.soft_labels.cache import damaged

        return ", ".join(damaged(folder))
    files = about["files"] if entry["kind"] == "datasets" else {"model.safetensors": about["sha256"]}
    return ", ".join(n for n, sha in files.items() if not (folder / n).is_file() or file_hash(folder / n) != sha)


def _prunable(entries: Sequence[dict[str, Any]], *, unused: bool, hours: float) -> list[dict[str, Any]]:
    """Entries that may go: old enough, unused if asked, and never one that a run at work stands on."""
    return [
        entry
        for entry in entries
        if entry["age_hours"] >= hours and not entry["in_use"] and not (unused and entry["used_by"])
    ]


def _remove(entry: dict[str, Any], outputs: Path, *, unused: bool) -> bool:
    """Remove an entry, unless a process is just building it or a run took it up since the entries were listed."""
    folder = Path(entry["folder"])
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))  # that of store.locked: whoever builds the entry holds it
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        runs = _uses(outputs).get(folder.name, [])
        if any(at_work for _, at_work in runs) or (unused and runs) or _undeclared(outputs):
            return False
        shutil.rmtree(folder)
    except OSError as error:
        raise cannot_write(folder, error) from error
    finally:
        lock.release()
    return True


def _uses(outputs: Path) -> dict[str, list[tuple[str, bool]]]:
    """For each key, the runs that stand on it and whether each is at work."""
    found: dict[str, list[tuple[str, bool]]] = {}
    for run in [*sorted(path.parent for path in outputs.glob("*/**/uses.json")), *_elsewhere(outputs)]:
        try:
            keys = read_json(run / "uses.json")
        except RecDistillError:
            continue
        for key in keys:
            found.setdefault(str(key), []).append((str(run), _at_work(run)))
    return found


def _elsewhere(outputs: Path) -> list[Path]:
    """Runs that stand on this cache and do not lie under the same outputs folder, as far as they are still there."""
    notes = sorted((outputs / "cache" / "elsewhere").glob("*.json"))
    return [run for run in (Path(str(read_json(note))) for note in notes) if run.is_dir()]


def _undeclared(outputs: Path) -> bool:
    """Whether a run at work has not said yet what it stands on: it may be reading any data set."""
    runs = (path.parent for path in outputs.glob("*/**/status.json"))  # one elsewhere is noted once it has declared
    return any(not (run / "uses.json").exists() and _at_work(run) for run in runs)


def _at_work(run: Path) -> bool:
    try:
        with exclusive(run):
            return False
    except RecDistillError:
        return True


def list_entries(outputs: Path) -> list[dict[str, Any]]:
    """One entry per key: kind, key, what it is, bytes, age in hours, whether it is whole, which runs use it."""
    entries = []
    folder, uses = outputs / "cache", _uses(outputs)
    for shelf, marker in SHELVES.items():
        for path in sorted((folder / shelf).glob("*/")):
            if path.name.startswith(".") or path.name == "memo":
                continue
            what, whole = _state(shelf, path / marker)
            entries.append(
                {
                    "kind": shelf,
                    "key": path.name,
                    "what": what,
                    "bytes": folder_size(path),
                    "age_hours": round((time.time() - path.stat().st_mtime) / 3600, 2),
                    "complete": whole,
                    "folder": str(path),
                    "used_by": [run for run, _ in uses.get(path.name, [])],
                    "in_use": any(at_work for _, at_work in uses.get(path.name, [])),
                }
            )
    return entries


def _state(shelf: str, marker: Path) -> tuple[str, bool]:
    """What an entry is, and whether it is whole; a damaged one must not hide the others."""
    if not marker.is_file():
        return "unfinished", False
    try:
        return _what(shelf, marker), True
    except (RecDistillError, LookupError, TypeError):
        return "damaged", False


def _what(shelf: str, marker: Path) -> str:
    about = read_json(marker)
    if shelf == "datasets":
        return f"{about['name']}, {about['n_users']:,} x {about['n_items']:,}"
    if shelf == "soft_labels":
        made_by = about["made_by"]
        groups = "" if made_by["groups"] is None else f", {made_by['groups'][0]} groups"
        side = ", users of items" if made_by.get("transposed") else ""
        return f"of {made_by['name']} {made_by['teacher'][:8]}, depth {made_by['depth']}{groups}{side}"
    node = about["model"]
    kind = str(node["_target_"]).rpartition(".")[2]
    return f"{kind} {node.get('dim', '')} seed {about['seed']} on {about['dataset'][:8]}"
