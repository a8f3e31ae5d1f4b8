"""One table over many runs: replicates are averaged, what differs is named, what is unequal is marked."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from recdistill.report.comparison import NO_CELL, OTHER_BUDGET, OTHER_SEEDS, Cell, Comparison, Member, Row, metric_name
from recdistill.report.runs import Run, flatten

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
CHOSEN_BY = ("evaluation.cutoffs", "matmul")
MADE_BY = {
    "teacher": ("teacher.", *CHOSEN_BY),
    "scratch": ("student.", "scratch.trainer.", "seed", *CHOSEN_BY),
    "mostpop": (),
}


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
        tables.setdefault(_table_key(run, metrics, over), []).append(run)
    titles = _titles(list(tables.values()), metrics)
    made = []
    for group, title in zip(tables.values(), titles, strict=True):
        rows = _method_rows(group, metrics, over)
        rows.sort(key=lambda row: _order(row.cells[sort or metrics[0]]))
        made.append(Comparison(title, *_marked(_reference_rows(group, metrics, over) + rows, over)))
    return made


def _order(cell: Cell) -> float:
    return float("inf") if cell.mean is None else -cell.mean


def _table_key(run: Run, metrics: Sequence[str], over: Sequence[str]) -> str:
    if any(key.startswith("dataset.") for key in over):
        data: Any = {k: v for k, v in run.config.items() if k.startswith("dataset.") and k not in over}
    else:
        data = run.results["dataset"]["fingerprint"]
    return _text([data, _definitions(run, metrics)])


def _definitions(run: Run, metrics: Sequence[str]) -> dict[str, Any]:
    """What the metrics' names mean in a run; what other metrics mean there does not tell its runs apart."""
    names = {"ranking", "average", "gap_closed"} | {metric_name(metric) for metric in metrics}
    of_items = [metric for metric in metrics if "/group=" in metric or "/items=" in metric]
    if of_items:
        names |= {"item_groups"} | {f"group_{metric_name(metric)}" for metric in of_items}
    if any("/users=" in metric for metric in metrics):
        names.add("user_groups")
    known = {name: value for name, value in run.results["definitions"].items() if name in names}
    groups = {"evaluation.groups": run.config.get("evaluation.groups")} if of_items else {}
    return flatten(known, "definitions.") | groups


def _titles(groups: Sequence[Sequence[Run]], metrics: Sequence[str]) -> list[str]:
    """The data set's name and size; with the differing fields where several tables share a name."""
    firsts = [group[0] for group in groups]
    titles = []
    for run in firsts:
        data = run.results["dataset"]
        title = f"{data['name']}: {data['n_users']:,} users, {data['n_items']:,} items, {data['n_train']:,} train"
        others = [other for other in firsts if other is not run and other.results["dataset"]["name"] == data["name"]]
        if others:
            title += f" ({', '.join(_differing(run, others, metrics))})"
        titles.append(title)
    return titles


def _differing(run: Run, others: Sequence[Run], metrics: Sequence[str]) -> list[str]:
    mine, theirs = _identity(run, metrics), [_identity(other, metrics) for other in others]
    fields = {key for other in theirs for key in mine.keys() | other.keys() if mine.get(key) != other.get(key)}
    return [f"{key}={mine.get(key)}" for key in sorted(fields)]


def _identity(run: Run, metrics: Sequence[str]) -> dict[str, Any]:
    data = {key: value for key, value in run.config.items() if key.startswith("dataset.")}
    return data | _definitions(run, metrics) | {"fingerprint": run.results["dataset"]["fingerprint"]}


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


def _replicate(run: Run, over: Sequence[str]) -> str:
    return ", ".join(f"{key}={run.config.get(key)}" for key in over)


def _method_rows(runs: Sequence[Run], metrics: Sequence[str], over: Sequence[str]) -> list[Row]:
    groups: dict[str, dict[str, Run]] = {}
    for run in runs:  # by time: a later one takes the place of its like
        groups.setdefault(_text(_settings(run, over)), {})[_replicate(run, over)] = run
    by_method: dict[str, list[dict[str, Any]]] = {}
    for group in groups.values():
        first = next(iter(group.values()))
        by_method.setdefault(first.results["distillation"]["name"], []).append(_settings(first, over))
    telling = {name: _differing_keys(rivals) for name, rivals in by_method.items()}
    rows = []
    for group in groups.values():
        first = next(iter(group.values()))
        name = first.results["distillation"]["name"]
        members = [Member(run, "student") for run in group.values()]
        cells = {metric: _cell(one.entry["metrics"].get(metric) for one in members) for metric in metrics}
        cells["gap closed"] = _cell(_gap(run, metrics[0]) for run in group.values())
        told = _told(_settings(first, over), telling[name])
        student = _model(first.results["models"]["student"])
        rows.append(Row(name, _teacher(first), student, told, cells, members, frozenset(group), _trials(members)))
    return rows


def _gap(run: Run, metric: str) -> float | None:
    gaps: Mapping[str, float | None] = run.results["distillation"].get("gap_closed", {})
    return gaps.get(metric)


def _trials(members: Sequence[Member]) -> int | None:
    """The largest tuning budget of a row's members; None if it is unknown of one."""
    counts = [member.run.trials.get(member.model) for member in members]
    known = [count for count in counts if count is not None]
    return max(known) if len(known) == len(counts) else None


def _differing_keys(rivals: Sequence[Mapping[str, Any]]) -> list[str]:
    """The settings that are not the same in all rows of one method or role, sorted."""
    keys = {key for rival in rivals for key in rival}
    return sorted(
        key
        for key in keys
        if not key.endswith("_target_") and any(rival.get(key) != rivals[0].get(key) for rival in rivals)
    )


def _told(mine: Mapping[str, Any], keys: Sequence[str]) -> str:
    return " ".join(f"{key}={mine.get(key)}" for key in keys)


def _reference_rows(runs: Sequence[Run], metrics: Sequence[str], over: Sequence[str]) -> list[Row]:
    """Teachers, scratch and MostPop: a row per settings that make them, each replicate counted once."""
    groups: dict[tuple[str, str, str], dict[str, Mapping[str, Any]]] = {}
    members: dict[tuple[str, str, str], dict[str, Member]] = {}
    stands_for: dict[tuple[str, str, str], set[str]] = {}
    settings: dict[tuple[str, str, str], dict[str, Any]] = {}
    for run in runs:
        for name, entry in run.results["models"].items():
            role = name.split(".")[0]
            if role in MADE_BY:
                made_by = made_of(run, role)
                mine = {key: value for key, value in made_by.items() if key not in over}
                place = (name, _model(entry), _text(mine))
                settings[place] = mine
                stands_for.setdefault(place, set()).add(_replicate(run, over))
                splits = [run.config.get(key) for key in over if key.startswith("dataset.")]
                replicate = _text([{key: made_by.get(key) for key in over}, splits])
                known = groups.setdefault(place, {})
                known[replicate] = _merged(known.get(replicate), entry)
                at = members.setdefault(place, {})
                if replicate not in at or entry["metrics"].keys() >= set(metrics):
                    at[replicate] = Member(run, name)
    rows = []
    for role in MADE_BY:
        for place, entries in groups.items():
            if place[0].split(".")[0] == role:
                cells = {m: _cell(entry["metrics"].get(m) for entry in entries.values()) for m in metrics}
                telling = _differing_keys([settings[other] for other in groups if other[0] == place[0]])
                told = _told(settings[place], telling)
                cells["gap closed"] = NO_CELL
                replicates, mine_at = frozenset(stands_for[place]), list(members[place].values())
                rows.append(Row(f"({place[0]})", "", place[1], told, cells, mine_at, replicates, _trials(mine_at)))
    return rows


def made_of(run: Run, role: str) -> dict[str, Any]:
    """The settings of a run that make its reference model of a role."""
    return {key: value for key, value in run.config.items() if key.startswith(MADE_BY[role])}


def _merged(before: Mapping[str, Any] | None, entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """An entry with what an earlier run read of the same stored model."""
    if before is None or before.get("key") != entry.get("key"):
        return entry
    return {**entry, "metrics": {**before["metrics"], **entry["metrics"]}}


def _cell(values: Iterable[float | None]) -> Cell:
    there = [value for value in values if value is not None]
    if not there:
        return NO_CELL
    return Cell(statistics.fmean(there), statistics.stdev(there) if len(there) > 1 else None, len(there))


def _marked(rows: Sequence[Row], over: Sequence[str]) -> tuple[list[Row], list[str]]:
    """Rows with their marks, and the notes that explain them.

    Teachers and MostPop are no rivals: they have neither the replicates nor the budget of the students.
    """
    rivals = [row for row in rows if row.role in (None, "scratch")]
    everything = frozenset().union(*(row.replicates for row in rivals))
    budgets = {row.trials for row in rivals}
    fewer = [row for row in rivals if row.replicates != everything]
    notes = []
    if fewer:
        told = "; ".join(f"{row.name} lacks {_listed(everything - row.replicates)}" for row in fewer)
        notes.append(f"{OTHER_SEEDS} unequal replicates ({', '.join(over)}): {told}")
    if len(budgets) > 1:
        counts = "; ".join(f"{row.name} {'unknown' if row.trials is None else row.trials}" for row in rivals)
        notes.append(f"{OTHER_BUDGET} unequal tuning budgets, in trials: {counts}")
    partial = [
        f"{metric} of {row.name}, {cell.n} of {row.n}"
        for row in rows
        for metric, cell in row.cells.items()
        if 0 < cell.n < row.n
    ]
    if partial:
        notes.append(f"mean of the replicates that have the value: {'; '.join(partial)}")
    marked = []
    for row in rows:
        seeds = OTHER_SEEDS if row in fewer else ""
        budget = OTHER_BUDGET if row in rivals and len(budgets) > 1 else ""
        marked.append(replace(row, marks=seeds + budget))
    return marked, notes


def _listed(replicates: Iterable[str]) -> str:
    named = sorted(replicates)
    return ", ".join(named[:4]) + (f" and {len(named) - 4} more" if len(named) > 4 else "")
