"""One table over many runs: replicates are averaged, what differs is named, what failed is listed."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recdistill.errors import CacheError
from recdistill.report.record import SCHEMA_VERSION
from recdistill.store import read_json

# What may differ between replicates of one row without being a setting of the method.
NOT_SETTINGS = ("paths.", "device", "threads", "plugins", "skip_finished", "scratch.enabled")


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, results.json, and its config flattened to dotted keys."""

    folder: Path
    results: Mapping[str, Any]
    config: Mapping[str, Any]


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
    runs, unfinished = [], []
    markers = {path.parent for folder in folders for path in folder.rglob("status.json") if "cache" not in path.parts}
    for folder in sorted(markers):
        try:
            status = read_json(folder / "status.json")
            if status["status"] == "skipped":
                continue  # its results are those of the run it names
            if status["status"] != "done":
                unfinished.append(Unfinished(folder, status["status"], str(status.get("error", "")).split("\n")[0]))
                continue
            results = read_json(folder / "results.json")
            if results["schema_version"] != SCHEMA_VERSION:
                text = f"schema_version {results['schema_version']}, this recdistill reads {SCHEMA_VERSION}"
                unfinished.append(Unfinished(folder, "another version", text))
                continue
            runs.append(Run(folder, results, flatten(results["config"])))
        except (CacheError, KeyError) as error:
            unfinished.append(Unfinished(folder, "unreadable", str(error).split("\n")[0]))
    return runs, unfinished


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

    Args:
        runs: finished runs.
        metrics: names as in results.json, such as `test/ndcg@20`.
        over: config keys whose values make replicates; runs that differ in any other setting are different rows.
        sort: a metric to sort by, falling (None: the first metric).

    Returns:
        One comparison per data set, split and set of definitions.
    """
    tables: dict[str, list[Run]] = {}
    for run in runs:
        tables.setdefault(_table_key(run, over), []).append(run)
    titles = _titles(list(tables.values()))
    made = []
    for group, title in zip(tables.values(), titles, strict=True):
        rows = _method_rows(group, metrics, over)
        rows.sort(key=lambda row: _order(row.cells[sort or metrics[0]]))
        made.append(Comparison(title, _reference_rows(group, metrics) + rows))
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
    left_out = (*NOT_SETTINGS, "evaluation.", "dataset.")
    return {k: v for k, v in run.config.items() if k not in over and not k.startswith(left_out)}


def _model(entry: Mapping[str, Any]) -> str:
    return " ".join(str(part) for part in (entry["kind"], entry.get("dim")) if part is not None)


def _teacher(run: Run) -> str:
    models = run.results["models"]
    return " + ".join(_model(models[name]) for name in models if name.split(".")[0] == "teacher")


def _method_rows(runs: Sequence[Run], metrics: Sequence[str], over: Sequence[str]) -> list[Row]:
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(json.dumps(_settings(run, over), sort_keys=True, default=str), []).append(run)
    by_method: dict[str, list[Run]] = {}
    for group in groups.values():
        by_method.setdefault(group[0].results["distillation"]["name"], []).append(group[0])
    rows = []
    for group in groups.values():
        first = group[0]
        name = first.results["distillation"]["name"]
        cells = {
            metric: _cell(run.results["models"]["student"]["metrics"].get(metric) for run in group)
            for metric in metrics
        }
        gaps = (_gap(run, metrics[0]) for run in group)
        cells["gap closed"] = _cell(gaps)
        told = _told_apart(first, by_method[name], over)
        student = _model(first.results["models"]["student"])
        rows.append(Row(name, _teacher(first), student, told, len(group), cells))
    return rows


def _gap(run: Run, metric: str) -> float | None:
    gaps: Mapping[str, float | None] = run.results["distillation"].get("gap_closed", {})
    return gaps.get(metric)


def _told_apart(run: Run, rivals: Sequence[Run], over: Sequence[str]) -> str:
    """The settings in which a row differs from others of the same method."""
    mine = _settings(run, over)
    keys = {
        key
        for rival in rivals
        for key in mine.keys() | _settings(rival, over).keys()
        if mine.get(key) != _settings(rival, over).get(key)
    }
    return " ".join(f"{key}={mine.get(key)}" for key in sorted(keys) if not key.endswith("_target_"))


def _reference_rows(runs: Sequence[Run], metrics: Sequence[str]) -> list[Row]:
    """Teachers, scratch and MostPop, each stored model counted once."""
    found: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for run in runs:
        for name, entry in run.results["models"].items():
            role = name.split(".")[0]
            if role in ("teacher", "scratch", "mostpop"):
                found.setdefault((role, _model(entry)), {})[str(entry.get("key"))] = entry
    rows = []
    for role in ("teacher", "scratch", "mostpop"):
        for (name, model), entries in found.items():
            if name == role:
                cells = {m: _cell(entry["metrics"].get(m) for entry in entries.values()) for m in metrics}
                rows.append(Row(f"({name})", "", model, "", len(entries), cells | {"gap closed": Cell(None, None)}))
    return rows


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
