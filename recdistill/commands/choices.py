"""`recdistill list` and `recdistill explain`: read from YAML and source text, without importing torch."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recdistill.commands.conf import GROUPS, conf_folder, first_comment, members
from recdistill.commands.parser import Parser
from recdistill.errors import ConfigError, nearest

STUDY = "study"
ROOT = "# @package _global_"  # such a file sets keys of the whole config, not of a section named like its group


def list_choices(words: Sequence[str]) -> int:
    """Print the members of one group, or of all."""
    parser = Parser("recdistill list", description="The choices of a group.")
    parser.add_argument("group", nargs="?", help="one of " + ", ".join((*GROUPS, STUDY)))
    parser.add_argument("--config-dir", type=Path, help="a folder of your own YAML laid over ours")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    arguments = parser.parse_args(list(words))
    listed = (*GROUPS, STUDY)  # studies are no part of a run's config, and are chosen by `recdistill study NAME`
    if arguments.group is not None:
        _check_group(arguments.group, listed)
    folders = _folders(arguments.config_dir)
    groups = [arguments.group] if arguments.group else [group for group in listed if members(group, folders)]
    found = {group: {name: first_comment(path) for name, path in members(group, folders).items()} for group in groups}
    if arguments.json:
        print(json.dumps(found, indent=2))
        return 0
    for group, choices in found.items():
        print(group)
        width = max(14, *map(len, choices))
        for name, text in choices.items():
            print(f"  {name:<{width}} {text}")
    return 0


def explain(words: Sequence[str]) -> int:
    """Print every setting of one choice: default, meaning, source."""
    parser = Parser("recdistill explain", description="Every setting of one choice.")
    parser.add_argument("choice", metavar="GROUP=NAME")
    parser.add_argument("--config-dir", type=Path, help="a folder of your own YAML laid over ours")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    arguments = parser.parse_args(list(words))
    group, _, name = arguments.choice.partition("=")
    _check_group(group, GROUPS)
    known = members(group, _folders(arguments.config_dir))
    if name not in known:
        raise ConfigError(
            f"{group}={name}: there is no such {group}{nearest(name, known)}",
            f"{group} is one of {', '.join(known)}",
            f"recdistill list {group}",
        )
    node = _read(group, known[name], _folders(arguments.config_dir))
    about = _about(node)
    at_root = ROOT in known[name].read_text(encoding="utf-8")
    settings = (_choices(known[name]) if at_root else []) + _settings(node)
    if arguments.json:
        rows = {path: {"default": value, "meaning": meaning} for path, value, meaning in settings}
        plain = {"text": about.text if about else first_comment(known[name]), "settings": rows}
        print(json.dumps(plain | ({"attributes": about.attributes} if about else {}), indent=2))
        return 0
    print(f"{group}={name}\n")
    print(about.text if about else first_comment(known[name]))
    for key, value in (about.attributes if about else {}).items():
        print(f"\n{key}: {value}")
    print("\nsettings")
    section = "" if at_root else group.replace("/", ".") + "."
    words = [f"{section}{path}={_typed(value)}" for path, value, _ in settings]
    width = max(map(len, words), default=0)
    for word, (_, _, meaning) in zip(words, settings, strict=True):
        print(f"  {word:<{width}}  {meaning}".rstrip())
    return 0


def _typed(value: Any) -> str:
    """A value as a user types it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(frozen=True)
class _About:
    """What a class's source says: its docstring without the settings, their meanings, and `requires` or `provides`."""

    text: str
    meanings: dict[str, str]
    attributes: dict[str, str]


def _check_group(group: str, known: Sequence[str]) -> None:
    if group not in known:
        raise ConfigError(
            f"there is no group {group!r}{nearest(group, known)}",
            f"the groups are {', '.join(known)}",
            "recdistill list",
        )


def _folders(overlay: Path | None) -> tuple[Path, ...]:
    return (conf_folder(), *([overlay] if overlay else []))


def _read(group: str, path: Path, folders: tuple[Path, ...]) -> dict[str, Any]:
    """A group's file with the files that its defaults list pulls in, those of nested groups too."""
    import yaml

    node: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    merged: dict[str, Any] = {}
    for entry in node.pop("defaults", []):
        if isinstance(entry, str) and entry in (known := members(group, folders)):
            merged = _merged(merged, _read(group, known[entry], folders))
        elif isinstance(entry, dict):
            (place, name), *_ = entry.items()
            if str(place).startswith("override "):
                continue
            inner_group, _, package = str(place).partition("@")
            inner_group = inner_group[1:] if inner_group.startswith("/") else f"{group}/{inner_group}"
            known = members(inner_group, folders)
            if name in known:
                inner = _read(inner_group, known[name], folders)
                merged |= inner if package == "_here_" else {package or inner_group.rpartition("/")[2]: inner}
    return _merged(merged, node)


def _choices(path: Path) -> list[tuple[str, Any, str]]:
    """The groups that a file chooses for the whole run."""
    import yaml

    node: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    chosen = [pair for entry in node.get("defaults", []) if isinstance(entry, dict) for pair in entry.items()]
    return [(str(place).removeprefix("override ").removeprefix("/"), name, "") for place, name in chosen]


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Values of `above` laid over `below`, section by section."""
    both = {key: _merged(below[key], above[key]) for key in below.keys() & above.keys()
            if isinstance(below[key], dict) and isinstance(above[key], dict)}  # fmt: skip
    return below | above | both


def _about(node: dict[str, Any]) -> _About | None:
    """Parse the class behind `_target_` without importing it."""
    module, _, name = str(node.get("_target_", "")).rpartition(".")
    source = _source(module) if module else None
    if source is None:
        return None
    for statement in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.ClassDef) and statement.name == name:
            about = _parse(statement)
            if inner := _required_inside(node):
                about.attributes.setdefault("requires", ", ".join(sorted(inner)))
            return about
    return None


def _required_inside(node: dict[str, Any]) -> set[str]:
    """What the components below a node require together."""
    found: set[str] = set()
    for below in node.values():
        if isinstance(below, dict):
            about = _about(below)
            said = about.attributes.get("requires") if about else None
            found |= set(said.split(", ")) if said else _required_inside(below)
    return found


def _source(module: str) -> Path | None:
    """A module's file; `find_spec` of a dotted name would import the packages above it."""
    top, *inner = module.split(".")
    found = importlib.util.find_spec(top)
    if found is None or found.origin is None:
        return None
    if not inner:
        return Path(found.origin) if found.origin.endswith(".py") else None
    place = Path(found.origin).parent.joinpath(*inner)
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)


def _parse(cls: ast.ClassDef) -> _About:
    text, _, arguments = (ast.get_docstring(cls) or "").partition("\nArgs:\n")
    meanings: dict[str, str] = {}
    last = ""
    for line in arguments.splitlines():
        if match := re.match(r"    (\w+): (.*)", line):
            last = match.group(1)
            meanings[last] = match.group(2)
        elif line.strip() and last:
            meanings[last] += " " + line.strip()
    attributes = {}
    for statement in cls.body:
        if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value):
            continue
        if statement.target.id in ("requires", "provides"):
            names = [n.value for n in ast.walk(statement.value) if isinstance(n, ast.Constant)]
            attributes[statement.target.id] = ", ".join(sorted(map(str, names))) or "nothing"
    return _About(text.strip(), meanings, attributes)


ROLE_MEANINGS = {
    "seed": "of the teacher's initial weights, batches and draws",
    "checkpoints": "snapshots kept, evenly spaced from the first evaluation to the best",
}


def _settings(node: dict[str, Any], above: str = "") -> list[tuple[str, Any, str]]:
    """(path, default, meaning) of every setting, nested components included."""
    about = _about(node)
    meanings = ROLE_MEANINGS | (about.meanings if about else _section_meanings(node))
    rows: list[tuple[str, Any, str]] = []
    for key, value in node.items():
        if key == "_target_":
            continue
        if isinstance(value, dict):
            rows += _settings(value, f"{above}{key}.")
        else:
            rows.append((f"{above}{key}", value, meanings.get(key, "")))
    return rows


def _section_meanings(node: dict[str, Any]) -> dict[str, str]:
    """Meanings of a typed section's keys: of the dataclass in config.py that has them all."""
    source = Path(__file__).parents[1] / "config.py"
    for statement in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.ClassDef) and set(node) <= set(_parse(statement).meanings):
            return _parse(statement).meanings
    return {}
