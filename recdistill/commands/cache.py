"""`recdistill cache`: what is stored under outputs/cache."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recdistill.errors import RecDistillError
from recdistill.store import folder_size, read_json

SHELVES = {
    "datasets": "manifest.json",
    "teachers": "model.json",
    "scratch": "model.json",
    "soft_labels": "manifest.json",
}


def cache(words: Sequence[str]) -> int:
    """Print the entries of the cache."""
    parser = argparse.ArgumentParser("recdistill cache", description="What runs store and share.")
    parser.add_argument("action", choices=["ls"], help="ls: list the entries")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="the outputs folder (default: outputs)")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    arguments = parser.parse_args(list(words))
    entries = list_entries(arguments.outputs / "cache")
    if arguments.json:
        print(json.dumps(entries, indent=2))
        return 0
    if not entries:
        print(f"nothing is stored under {arguments.outputs / 'cache'}")
        return 0
    from recdistill.report.tables import print_table

    rows = [
        [entry["kind"], entry["key"], entry["what"], f"{entry['bytes'] / 1e6:.1f} MB", f"{entry['age_hours']:.1f} h"]
        for entry in entries
    ]
    print_table(str(arguments.outputs / "cache"), ["kind", "key", "what", "size", "age"], rows)
    return 0


def list_entries(folder: Path) -> list[dict[str, Any]]:
    """One entry per key: kind, key, what it is, bytes, age in hours, whether it is whole."""
    entries = []
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
        return f"{len(about['shards'])} shards"
    node = about["model"]
    kind = str(node["_target_"]).rpartition(".")[2]
    return f"{kind} {node.get('dim', '')} seed {about['seed']} on {about['dataset'][:8]}"
