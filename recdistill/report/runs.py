"""Finds runs and reads their results; of a run in a study also how many settings were tried."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recdistill.errors import CacheError
from recdistill.report.record import SCHEMA_VERSION
from recdistill.store import read_json

DATASET_KEYS = ("name", "fingerprint", "n_users", "n_items", "n_train")


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: where it lies.
        results: results.json.
        config: flattened to dotted keys.
        time: when it was done.
        trials: settings tried on its data set before, by the method they were tried for: `student` is its own,
            `scratch` that of its reference. Empty outside a study: then nobody counted.
    """

    folder: Path
    results: Mapping[str, Any]
    config: Mapping[str, Any]
    time: str
    trials: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Unfinished:
    """A run without results: its folder, state and what it said."""

    folder: Path
    state: str
    text: str


def find_runs(folders: Iterable[Path]) -> tuple[list[Run], list[Unfinished]]:
    """All runs below some folders; a folder that is a run itself counts too.

    Runs of another `schema_version`, and folders whose files cannot be read, are listed as unfinished.
    """
    runs: list[Run] = []
    unfinished: list[Unfinished] = []
    places = {place.resolve(): place for top in folders for place in _run_folders(top)}
    ledgers: dict[Path, Counter[tuple[str, str]]] = {}
    for folder in sorted(places.values()):
        try:
            one = _read(folder, ledgers)
        except CacheError as error:
            one = Unfinished(folder, "unreadable", error.what.split("\n")[0])
        if isinstance(one, Run):
            runs.append(one)
        elif one is not None:
            unfinished.append(one)
    return runs, unfinished


def _run_folders(top: Path) -> Iterator[Path]:
    """Folders with a status.json at or below a folder; what is stored in a `cache` below it is not walked through."""
    for place, inner, files in os.walk(top):
        inner[:] = [name for name in inner if name != "cache"]
        if "status.json" in files:
            yield Path(place)


def _read(folder: Path, ledgers: dict[Path, Counter[tuple[str, str]]]) -> Run | Unfinished | None:
    """One run; None for a skipped one, whose results are those of the run it names."""
    status = read_json(folder / "status.json")
    if not isinstance(status, Mapping) or not isinstance(status.get("status"), str):
        raise unreadable(folder / "status.json", "has no status")
    if status["status"] == "skipped":
        return None
    if status["status"] != "done":
        return Unfinished(folder, status["status"], str(status.get("error", "")).split("\n")[0])
    results = read_json(folder / "results.json")
    version = results.get("schema_version") if isinstance(results, Mapping) else None
    if version is not None and version != SCHEMA_VERSION:
        return Unfinished(
            folder, "another version", f"schema_version {version}, this recdistill reads {SCHEMA_VERSION}"
        )
    if version is None or not is_whole(results):
        raise unreadable(folder / "results.json", "does not hold what a finished run writes")
    config, time = flatten(results["config"]), str(status.get("time", ""))
    return Run(folder, results, config, time, _trials(folder, ledgers))


def unreadable(path: Path, what: str) -> CacheError:
    """The error for a file of a run that is not what a run writes."""
    return CacheError(f"{path} {what}", "it was edited or is of another program", "repeat the run")


def is_whole(results: Mapping[str, Any]) -> bool:
    """Whether results.json has what its readers count on."""
    sections = [results.get(name) for name in ("dataset", "config", "models", "distillation", "definitions")]
    if not all(isinstance(section, Mapping) for section in sections):
        return False
    models = results["models"]
    return (
        all(key in results["dataset"] for key in DATASET_KEYS)
        and "name" in results["distillation"]
        and "student" in models
        and all(
            isinstance(one, Mapping) and "kind" in one and isinstance(one.get("metrics"), Mapping)
            for one in models.values()
        )
    )


def _trials(folder: Path, ledgers: dict[Path, Counter[tuple[str, str]]]) -> dict[str, int]:
    """The tuning budget of a study's final run, which lies in STUDY/final/DATASET/METHOD/seed-N."""
    places = folder.resolve().parents
    if len(places) < 4 or places[2].name != "final":
        return {}
    dataset, method, ledger = places[1].name, places[0].name, places[3] / "ledger.jsonl"
    if ledger not in ledgers:
        tried = {row["command"]: row for row in ledger_rows(ledger) if row.get("phase") == "trial"}.values()
        ledgers[ledger] = Counter((str(row.get("dataset")), str(row.get("method"))) for row in tried)
    counted = {"student": ledgers[ledger][dataset, method], "scratch": ledgers[ledger][dataset, "scratch"]}
    return {model: trials for model, trials in counted.items() if trials}


def ledger_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a study's ledger; none where there is no file, and a line that a kill cut short is passed over."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict) and {"command", "value"} <= row.keys():
            rows.append(row)
    return rows


def with_metrics(runs: Sequence[Run], metrics: Sequence[str]) -> tuple[list[Run], list[Unfinished]]:
    """The runs that have all of the metrics, and the others with the reason: an average is over all runs of its row."""
    there, without = [], []
    for run in runs:
        has = run.results["models"]["student"]["metrics"]
        missing = [metric for metric in metrics if metric not in has]
        if not missing:
            there.append(run)
            continue
        unread = missing[0].startswith("test/") and not any(name.startswith("test/") for name in has)
        without.append(Unfinished(run.folder, "done", "test was not read" if unread else f"it has no {missing[0]}"))
    return there, without


def flatten(node: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{above}{key}.")
        else:
            flat[f"{above}{key}"] = value
    return flat
