"""The page of `compare`: the table, what the tests say, accuracy against popularity lift, and the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recdistill.report.compare_figures import ShownFigure, figures, milliseconds, quality_of, spots_of
from recdistill.report.comparison import Comparison, best, label
from recdistill.report.comparison_formats import difference_table, letters_of
from recdistill.report.html import render, signed, size
from recdistill.report.plots import Look
from recdistill.report.runs import Unfinished


@dataclass(frozen=True)
class ShownCell:
    """A value of the table, its deviation, whether it is the best, and the letters of rows that it is better than."""

    text: str
    deviation: str = ""
    best: bool = False
    letters: str = ""


@dataclass(frozen=True)
class ShownRow:
    """A row of the table; `marked` is the baseline's."""

    letter: str
    name: str
    kind: str
    settings: str
    look: Look
    cells: Sequence[ShownCell]
    marked: bool


@dataclass(frozen=True)
class Part:
    """One table of the page with what belongs to it."""

    title: str
    lead: str
    columns: Sequence[str]
    rows: Sequence[ShownRow]
    notes: Sequence[str]
    differences: tuple[str, list[str], list[list[str]]] | None
    figures: Sequence[ShownFigure]
    missing: Sequence[str]


def page(made: Sequence[Comparison], unfinished: Sequence[Unfinished]) -> str:
    """One HTML file that opens offline and holds no scripts."""
    names = list(dict.fromkeys(one.title.partition(":")[0] for one in made))
    rows = sum(len(one.rows) for one in made)
    return render(
        "compare.html.j2",
        headline=f"{', '.join(names)}: {rows} rows compared" if made else "No finished runs",
        parts=[_part(number, comparison) for number, comparison in enumerate(made)],
        unfinished=unfinished,
    )


def _part(number: int, comparison: Comparison) -> Part:
    spots = spots_of(comparison)
    metrics = [name for name in comparison.columns if any(row.cells[name].mean is not None for row in comparison.rows)]
    teachers = {row.teacher for row in comparison.rows if row.teacher}
    tuned = any(row.trials is not None for row in comparison.rows)
    timed = any(spot.milliseconds is not None for spot in spots)
    leaders = {metric: best(comparison, metric) for metric in metrics}
    columns = ["n", *["trials"] * tuned, *metrics, "size", *["latency"] * timed]
    rows = []
    for position, (row, spot) in enumerate(zip(comparison.rows, spots, strict=True)):
        cells = [ShownCell(f"{row.n}{row.marks}")]
        cells += [ShownCell("-" if row.trials is None else str(row.trials))] * tuned
        for metric in metrics:
            mean, _, deviation = str(row.cells[metric]).partition(" ± ")
            letters = letters_of(comparison, position, metric)
            cells.append(ShownCell(mean, deviation, position in leaders[metric], letters))
        cells += [ShownCell(size(spot.bytes))] + [ShownCell(milliseconds(spot.milliseconds))] * timed
        kind = row.student + (f", taught by {row.teacher}" if row.teacher and len(teachers) > 1 else "")
        marked = comparison.tests is not None and comparison.tests.baseline == position
        rows.append(ShownRow(spot.letter, row.method, kind, row.settings, spot.look, cells, marked))
    return Part(
        comparison.title,
        _lead(comparison),
        columns,
        rows,
        comparison.notes,
        None if comparison.tests is None else difference_table(comparison),
        list(figures(f"t{number}", comparison, spots)),
        [] if timed else ["Accuracy against latency: latency is not in these runs, an older version made them."],
    )


def _lead(comparison: Comparison) -> str:
    """The first metric's best student, and its difference to the baseline."""
    metric = quality_of(comparison)
    found = [] if metric is None else sorted(best(comparison, metric))
    if metric is None or not found:
        return "Mean over replicates."
    row, cell = comparison.rows[found[0]], comparison.rows[found[0]].cells[metric]
    text = f"Best {metric} among students: {label(found[0])} {row.method} with {cell.mean:.4f}"
    one = comparison.tests.differences.get(metric, {}).get(found[0]) if comparison.tests else None
    if one is None or comparison.tests is None:
        return f"{text}."
    baseline = comparison.rows[comparison.tests.baseline].method
    more = signed(one.value, ".4f")
    return f"{text}, {more} to {baseline} (95% interval {signed(one.low, '.4f')} to {signed(one.high, '.4f')})."
