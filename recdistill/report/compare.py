"""One table over many runs: replicates are averaged, what differs is named, what failed is listed."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recdistill.errors import CacheError
from recdistill.report.record import SCHEMA_VERSION
from recdistill.store import read_json

# What may differ between replicates of one row without being a setting of the method; scratch makes the reference only.
NOT_SETTINGS = (
    "paths.",
    "device",
    "threads",
    "ranking_threads",
    "plugins",
    "skip_finished",
    "report",
    "scratch.",
    "dataset.",
    "evaluation.",
)
# The last cut-off selects the model, so cut-offs are a setting although the rest of the evaluation is none.
SETTINGS = ("evaluation.cutoffs",)
# The settings that make a reference model, by its role; the data set is the table's.
MADE_BY = {"teacher": ("teacher.",), "scratch": ("student.", "scratch.trainer.", "seed"), "mostpop": ()}
DATASET_KEYS = ("name", "fingerprint", "n_users", "n_items", "n_train")


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, results.json, its config flattened to dotted keys, and when it was done."""

    folder: Path
    results: Mapping[str, Any]
    config: Mapping[str, Any]
    time: str


@dataclass(frozen=True)
class Unfinished:
    """A run without results: its folder, state and what it said."""

    folder: Path
    state: str
    text: str


@dataclass(frozen=True)
class Cell:
    """Mean and sample standard deviation over replicates; None where no replicate has the value."""

    mean: float | None
    sd: float | None

    def __str__(self) -> str:
        """As in a table."""
        if self.mean is None:
            return "-"
        return f"{self.mean:.4f}" if self.sd is None else f"{self.mean:.4f} ± {self.sd:.4f}"


NO_CELL = Cell(None, None)


@dataclass(frozen=True)
class Row:
    """Replicates of one setting: method or reference, teacher, student, what else tells it apart, and its cells."""

    method: str
    teacher: str
    student: str
    settings: str
    n: int
    cells: Mapping[str, Cell]


@dataclass(frozen=True)
class Comparison:
    """Runs that may be compared with each other: one data set and split, one set of definitions."""

    title: str
    rows: Sequence[Row]


def find_runs(folders: Iterable[Path]) -> tuple[list[Run], list[Unfinished]]:
    """All runs below some folders; a folder that is a run itself counts too.

    Runs of another `schema_version`, and folders whose files cannot be read, are listed as unfinished.
    """
    runs: list[Run] = []
    unfinished: list[Unfinished] = []
    places = {place.resolve(): place for top in folders for place in _run_folders(top)}
    for folder in sorted(places.values()):
        try:
            one = _read(folder)
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


def _read(folder: Path) -> Run | Unfinished | None:
    """One run; None for a skipped one, whose results are those of the run it names."""
    status = read_json(folder / "status.json")
    if not isinstance(status, Mapping) or not isinstance(status.get("status"), str):
        raise _unreadable(folder / "status.json", "has no status")
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
    if version is None or not _is_whole(results):
        raise _unreadable(folder / "results.json", "does not hold what a finished run writes")
    return Run(folder, results, flatten(results["config"]), str(status.get("time", "")))


def _unreadable(path: Path, what: str) -> CacheError:
    return CacheError(f"{path} {what}", "it was edited or is of another program", "repeat the run")


def _is_whole(results: Mapping[str, Any]) -> bool:
    """Whether all that a comparison reads is there."""
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


def compare(
    runs: Sequence[Run], metrics: Sequence[str], over: Sequence[str] = ("seed",), sort: str | None = None
) -> list[Comparison]:
    """Average replicates and lay the rows of comparable runs side by side.

    Of runs that share all settings and replicate values, the one that was done last counts.

    Args:
        runs: finished runs.
        metrics: names as in results.json, such as `test/ndcg@20`.
        over: config keys whose values make replicates; runs that differ in any other setting are different rows.
        sort: a metric to sort by, falling (None: the first metric).

    Returns:
        One comparison per data set, split and set of definitions.
    """
    tables: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run.time, run.folder)):
        tables.setdefault(_table_key(run, over), []).append(run)
    titles = _titles(list(tables.values()))
    made = []
    for group, title in zip(tables.values(), titles, strict=True):
        rows = _method_rows(group, metrics, over)
        rows.sort(key=lambda row: _order(row.cells[sort or metrics[0]]))
        made.append(Comparison(title, _reference_rows(group, metrics, over) + rows))
    return made


def _order(cell: Cell) -> float:
    return float("inf") if cell.mean is None else -cell.mean


def _table_key(run: Run, over: Sequence[str]) -> str:
    if any(key.startswith("dataset.") for key in over):
        data: Any = {k: v for k, v in run.config.items() if k.startswith("dataset.") and k not in over}
    else:
        data = run.results["dataset"]["fingerprint"]
    return json.dumps([data, run.results["definitions"]], sort_keys=True)


def _titles(groups: Sequence[Sequence[Run]]) -> list[str]:
    """The data set's name and size; with the differing fields where several tables share a name."""
    firsts = [group[0] for group in groups]
    titles = []
    for run in firsts:
        data = run.results["dataset"]
        title = f"{data['name']}: {data['n_users']:,} users, {data['n_items']:,} items, {data['n_train']:,} train"
        others = [other for other in firsts if other is not run and other.results["dataset"]["name"] == data["name"]]
        if others:
            title += f" ({', '.join(_differing(run, others))})"
        titles.append(title)
    return titles


def _differing(run: Run, others: Sequence[Run]) -> list[str]:
    mine = _identity(run)
    fields = {key for other in others for key, value in _identity(other).items() if mine.get(key) != value}
    return [f"{key}={mine.get(key)}" for key in sorted(fields)] or [f"fingerprint={mine['fingerprint']}"]


def _identity(run: Run) -> dict[str, Any]:
    data = {key: value for key, value in run.config.items() if key.startswith("dataset.")}
    definitions = flatten(run.results["definitions"], "definitions.")
    return data | definitions | {"fingerprint": run.results["dataset"]["fingerprint"]}


def _settings(run: Run, over: Sequence[str]) -> dict[str, Any]:
    """What makes a row: the config without replicates, places and devices, and without the reference's settings."""
    mine = {key: value for key, value in run.config.items() if key in SETTINGS or not key.startswith(NOT_SETTINGS)}
    return {key: value for key, value in mine.items() if key not in over}


def _text(values: Any) -> str:
    return json.dumps(values, sort_keys=True, default=str)


def _model(entry: Mapping[str, Any]) -> str:
    return " ".join(str(part) for part in (entry["kind"], entry.get("dim")) if part is not None)


def _teacher(run: Run) -> str:
    models = run.results["models"]
    return " + ".join(_model(models[name]) for name in models if name.split(".")[0] == "teacher")


def _method_rows(runs: Sequence[Run], metrics: Sequence[str], over: Sequence[str]) -> list[Row]:
    groups: dict[str, dict[str, Run]] = {}
    for run in runs:  # by time: a later one takes the place of its like
        replicate = _text([run.config.get(key) for key in over])
        groups.setdefault(_text(_settings(run, over)), {})[replicate] = run
    by_method: dict[str, list[dict[str, Any]]] = {}
    for group in groups.values():
        first = next(iter(group.values()))
        by_method.setdefault(first.results["distillation"]["name"], []).append(_settings(first, over))
    rows = []
    for group in groups.values():
        first = next(iter(group.values()))
        name = first.results["distillation"]["name"]
        cells = {
            metric: _cell(run.results["models"]["student"]["metrics"].get(metric) for run in group.values())
            for metric in metrics
        }
        cells["gap closed"] = _cell(_gap(run, metrics[0]) for run in group.values())
        told = _told_apart(_settings(first, over), by_method[name])
        student = _model(first.results["models"]["student"])
        rows.append(Row(name, _teacher(first), student, told, len(group), cells))
    return rows


def _gap(run: Run, metric: str) -> float | None:
    gaps: Mapping[str, float | None] = run.results["distillation"].get("gap_closed", {})
    return gaps.get(metric)


def _told_apart(mine: Mapping[str, Any], rivals: Sequence[Mapping[str, Any]]) -> str:
    """The settings in which a row differs from others of the same method or role."""
    keys = {key for rival in rivals for key in mine.keys() | rival.keys() if mine.get(key) != rival.get(key)}
    return " ".join(f"{key}={mine.get(key)}" for key in sorted(keys) if not key.endswith("_target_"))


def _reference_rows(runs: Sequence[Run], metrics: Sequence[str], over: Sequence[str]) -> list[Row]:
    """Teachers, scratch and MostPop: a row per settings that make them, each replicate counted once."""
    groups: dict[tuple[str, str, str], dict[str, Mapping[str, Any]]] = {}
    settings: dict[tuple[str, str, str], dict[str, Any]] = {}
    for run in runs:
        for name, entry in run.results["models"].items():
            role = name.split(".")[0]
            if role in MADE_BY:
                made_by = {key: value for key, value in run.config.items() if key.startswith(MADE_BY[role])}
                mine = {key: value for key, value in made_by.items() if key not in over}
                place = (name, _model(entry), _text(mine))
                settings[place] = mine
                splits = [run.config.get(key) for key in over if key.startswith("dataset.")]
                replicate = _text([{key: made_by.get(key) for key in over}, splits])
                known = groups.setdefault(place, {})
                known[replicate] = _merged(known.get(replicate), entry)
    rows = []
    for role in MADE_BY:
        for place, entries in groups.items():
            if place[0].split(".")[0] == role:
                cells = {m: _cell(entry["metrics"].get(m) for entry in entries.values()) for m in metrics}
                told = _told_apart(settings[place], [settings[other] for other in groups if other[0] == place[0]])
                rows.append(Row(f"({place[0]})", "", place[1], told, len(entries), cells | {"gap closed": NO_CELL}))
    return rows


def _merged(before: Mapping[str, Any] | None, entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """An entry with what an earlier run read of the same stored model."""
    if before is None or before.get("key") != entry.get("key"):
        return entry
    return {**entry, "metrics": {**before["metrics"], **entry["metrics"]}}


def _cell(values: Iterable[float | None]) -> Cell:
    there = [value for value in values if value is not None]
    if not there:
        return Cell(None, None)
    return Cell(statistics.fmean(there), statistics.stdev(there) if len(there) > 1 else None)


def as_rows(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Columns and cells as text; columns that are empty everywhere are left out."""
    metrics = list(comparison.rows[0].cells) if comparison.rows else []
    columns = ["method", "teacher", "student", "settings", "n", *metrics]
    rows = [
        [row.method, row.teacher, row.student, row.settings, str(row.n), *(str(row.cells[m]) for m in metrics)]
        for row in comparison.rows
    ]
    used = [n for n in range(len(columns)) if any(row[n] not in ("", "-") for row in rows)]
    return [columns[n] for n in used], [[row[n] for n in used] for row in rows]
