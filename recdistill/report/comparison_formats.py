"""A comparison as text: for the terminal, Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TextIO

from recdistill.report.comparison import Comparison, Row, best, label
from recdistill.report.runs import Unfinished
from recdistill.report.tables import console, natural_width, print_table
from recdistill.store import finite

DEFAULT_METRICS = ["test/ndcg@20", "test/recall@20", "test/poplift@20"]
TEX = {"\\": r"\textbackslash{}", "±": r"$\pm$", "†": r"\dag{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
       "<": r"$<$", ">": r"$>$", "*": r"$^*$"} | {letter: f"\\{letter}" for letter in "&%$#_{}"}  # fmt: skip


@dataclass(frozen=True)
class Shown:
    """A cell: its text, whether it is the best of its column, and the letters of rows that it is better than."""

    text: str
    best: bool = False
    letters: str = ""


def sheet(comparison: Comparison, *, narrow: bool = False) -> tuple[list[str], list[list[Shown]]]:
    """Columns and cells; columns that are empty everywhere are left out.

    Args:
        comparison: what is shown.
        narrow: without what `legend` says of each row, and metrics without the name of a split that they share.
    """
    short = comparison.columns
    if narrow and shared_split(comparison):
        short = [metric.removeprefix(f"{shared_split(comparison)}/") for metric in short]
    columns = ["", "method", "teacher", "student", "settings", "n", "trials", *short]
    leaders = {metric: best(comparison, metric) for metric in comparison.columns}
    rows = []
    for position, row in enumerate(comparison.rows):
        about = ["", "", ""] if narrow else [row.teacher, row.student, row.settings]
        lettered = label(position) if narrow or comparison.tests is not None else ""
        trials = "" if narrow or row.trials is None else str(row.trials)
        texts = [lettered, row.method, *about, str(row.n) + row.marks, trials]
        cells = [
            Shown(str(row.cells[metric]), position in leaders[metric], letters_of(comparison, position, metric))
            for metric in comparison.columns
        ]
        rows.append([*map(Shown, texts), *cells])
    used = [n for n in range(len(columns)) if any(row[n].text not in ("", "-") for row in rows)]
    return [columns[n] for n in used], [[row[n] for n in used] for row in rows]


def letters_of(comparison: Comparison, position: int, metric: str) -> str:
    """The letters of the rows that a row is significantly better than."""
    worse = comparison.tests.better.get(metric, {}).get(position, ()) if comparison.tests else ()
    return ("" if len(comparison.rows) <= 26 else ",").join(map(label, worse))


def as_rows(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """`sheet` as plain text."""
    columns, rows = sheet(comparison)
    return columns, [[cell.text for cell in row] for row in rows]


def shared_split(comparison: Comparison) -> str:
    """The split that all metrics are of; empty if they are of several."""
    splits = {metric.partition("/")[0] for metric in comparison.columns if "/" in metric}
    return splits.pop() if len(splits) == 1 else ""


def legend(comparison: Comparison) -> list[str]:
    """What each letter stands for."""
    return [f"{label(position)} {_about(row)}" for position, row in enumerate(comparison.rows)]


def _about(row: Row) -> str:
    taught = f"taught by {row.teacher}" if row.teacher else ""
    tuned = "" if row.trials is None else f"{row.trials} trials"
    return f"{row.method}: " + ", ".join(part for part in (row.student, taught, row.settings, tuned) if part)


def difference_table(comparison: Comparison) -> tuple[str, list[str], list[list[str]]]:
    """What the tests say: a title, columns, and a line per metric and tested row."""
    tests = comparison.tests
    assert tests is not None
    found = [(metric, n, one) for metric, rows in tests.differences.items() for n, one in rows.items()]
    users = sorted({one.n_users for _, _, one in found})
    columns = ["row", "metric", "difference", "95 % interval", "p", "p perm.", "dz", "users"]
    lines = []
    for metric, position, one in found:
        name = f"{label(position)} {comparison.rows[position].method}"
        interval = f"{one.low:+.4f}, {one.high:+.4f}"
        dz = "-" if one.dz is None else f"{one.dz:+.2f}"
        texts = [f"{one.value:+.4f}", interval, _p(one.p), _p(one.p_permutation), dz, f"{one.n_users:,}"]
        lines.append([name, metric.removeprefix("test/"), *texts])
    over = "users in common"
    if len(users) == 1:
        over, columns, lines = f"{users[0]:,} {over}", columns[:-1], [line[:-1] for line in lines]
    baseline = f"{label(tests.baseline)} {comparison.rows[tests.baseline].method}"
    title = f"Difference to {baseline}, paired over {over}, replicates averaged first"
    title += "; p after Holm, intervals uncorrected"
    return title, columns, lines


def _p(value: float) -> str:
    return "<0.0001" if value < 0.0001 else f"{value:.4f}"


def print_comparison(comparison: Comparison, stream: TextIO | None = None) -> None:
    """For people: on a terminal that is too narrow the settings go below the table."""
    columns, rows = as_rows(comparison)
    screen, below = console(stream), list(comparison.notes)
    title = comparison.title
    if natural_width(columns, rows) > screen.width:
        columns, cells = sheet(comparison, narrow=True)
        rows = [[cell.text.replace(" ± ", "±") for cell in row] for row in cells]
        split = shared_split(comparison)
        title, below = f"{title}; {split} metrics" if split else title, [*legend(comparison), *below]
    print_table(title, columns, rows, stream)
    for line in below:
        screen.print(line, highlight=False)
    if comparison.tests is not None:
        print_table(*difference_table(comparison), stream)


def print_unfinished(unfinished: Sequence[Unfinished], stream: TextIO | None = None) -> None:
    """Which runs are in no row, and why."""
    if unfinished:
        rows = [[str(one.folder), one.state, one.text] for one in unfinished]
        print_table("without results", ["folder", "state", "why"], rows, stream)


def table(made: Sequence[Comparison], unfinished: Sequence[Unfinished]) -> str:
    """What a terminal shows, whole width."""
    stream = io.StringIO()
    for comparison in made:
        print_comparison(comparison, stream)
    print_unfinished(unfinished, stream)
    return stream.getvalue()


def markdown(made: Sequence[Comparison], unfinished: Sequence[Unfinished]) -> str:
    """Tables for a README or an issue."""
    blocks = []
    for comparison in made:
        columns, rows = sheet(comparison)
        blocks.append(f"**{comparison.title}**\n\n" + _md_table(columns, [[_md(cell) for cell in row] for row in rows]))
        blocks.extend(_md_text(note) for note in comparison.notes)
        if comparison.tests is not None:
            title, columns, lines = difference_table(comparison)
            blocks.append(f"{title}\n\n" + _md_table(columns, [[_md_text(text) for text in line] for line in lines]))
    if unfinished:
        named = [_md_text(f"- {one.folder}: {one.state} {one.text}") for one in unfinished]
        blocks.append("\n".join(["Without results:", "", *named]))
    return "\n\n".join(blocks) + "\n"


def _md_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [columns, ["---"] * len(columns), *rows])


def _md(cell: Shown) -> str:
    text = _md_text(cell.text)
    return (f"**{text}**" if cell.best else text) + (f"<sup>{cell.letters}</sup>" if cell.letters else "")


def _md_text(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")


def latex(made: Sequence[Comparison], unfinished: Sequence[Unfinished]) -> str:
    """Tables for a paper, with booktabs; settings and tests are below the table."""
    return (
        "% needs \\usepackage{booktabs}\n"
        + "\n".join(map(_latex_table, made))
        + "".join(f"% without results: {one.folder}: {one.state} {one.text}\n" for one in unfinished)
    )


def _latex_table(comparison: Comparison) -> str:
    columns, rows = sheet(comparison, narrow=True)
    split = shared_split(comparison)
    caption = _tex(comparison.title) + (f"; {split} metrics" if split else "")
    lines = [
        r"\begin{table}", r"\centering\footnotesize\setlength{\tabcolsep}{3pt}", rf"\caption{{{caption}}}",
        *_tabular("".join("r" if column == "n" else "l" for column in columns), columns,
                  [[_tex_cell(cell) for cell in row] for row in rows]),
        r"\par\medskip\raggedright\footnotesize",
        *(_tex(line) + r"\par" for line in [*legend(comparison), *comparison.notes]),
    ]  # fmt: skip
    if comparison.tests is not None:
        title, columns, texts = difference_table(comparison)
        lines.append(_tex(title) + r"\par\medskip")
        cells = [[*map(_tex, line[:2]), *(_tex(text).replace("-", "$-$") for text in line[2:])] for line in texts]
        lines += _tabular("ll" + "r" * (len(columns) - 2), columns, cells)
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _tabular(alignment: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    head, *body = (" & ".join(cells) + r" \\" for cells in [[_tex(column) for column in columns], *rows])
    return [
        rf"\begin{{tabular}}{{{alignment}}}",
        r"\toprule",
        head,
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
    ]


def _tex(text: str) -> str:
    return "".join(TEX.get(letter, letter) for letter in text)


def _tex_cell(cell: Shown) -> str:
    mean, pm, sd = cell.text.partition(" ± ")
    text = (rf"\textbf{{{_tex(mean)}}}" if cell.best else _tex(mean)) + (rf" {{\scriptsize$\pm$ {sd}}}" if pm else "")
    return text + (f"$^{{{cell.letters}}}$" if cell.letters else "")


def csv_table(made: Sequence[Comparison], unfinished: Sequence[Unfinished]) -> str:
    """A line per row, with every number in full; tests have columns where any table was tested."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    metrics = list(dict.fromkeys(metric for comparison in made for metric in comparison.columns))
    records = [_record(comparison, position) for comparison in made for position in range(len(comparison.rows))]
    parts = {
        metric: list(dict.fromkeys(part for r in records for part in r["metrics"].get(metric, ())))
        for metric in metrics
    }
    heads = [metric if part == "mean" else f"{metric} {part}" for metric in metrics for part in parts[metric]]
    about = ["data", "label", "method", "teacher", "student", "settings", "n", "trials", "marks", "baseline"]
    writer.writerow([*about, *heads])
    for record in records:
        cells = [record["metrics"].get(metric, {}).get(part) for metric in metrics for part in parts[metric]]
        cells = [" ".join(cell) if isinstance(cell, list) else cell for cell in cells]
        writer.writerow([*(record[key] for key in about), *cells])
    for run in unfinished:
        writer.writerow([str(run.folder), "", run.state, run.text])
    return stream.getvalue()


def _record(comparison: Comparison, position: int) -> dict[str, Any]:
    """A row as plain values."""
    row, tests = comparison.rows[position], comparison.tests
    metrics: dict[str, dict[str, Any]] = {}
    for metric, cell in row.cells.items():
        metrics[metric] = {"mean": cell.mean, "sd": cell.sd}
        if tests is not None and metric in tests.differences:
            one = tests.differences[metric].get(position)
            if one is not None:
                metrics[metric] |= {
                    ("difference" if key == "value" else key): value for key, value in asdict(one).items()
                }
            if metric in tests.better:
                metrics[metric]["better_than"] = [label(n) for n in tests.better[metric].get(position, ())]
    return {
        "data": comparison.title,
        "label": label(position),
        "method": row.method,
        "teacher": row.teacher,
        "student": row.student,
        "settings": row.settings,
        "n": row.n,
        "trials": row.trials,
        "marks": row.marks,
        "baseline": comparison.rows[tests.baseline].name if tests is not None else None,
        "metrics": metrics,
    }


def json_text(made: Sequence[Comparison], unfinished: Sequence[Unfinished]) -> str:
    """Everything, for programs."""
    tables = []
    for comparison in made:
        rows = [_record(comparison, position) for position in range(len(comparison.rows))]
        rows = [{key: value for key, value in row.items() if key != "data"} for row in rows]
        tables.append({"title": comparison.title, "notes": list(comparison.notes), "rows": rows})
    without = [{"folder": str(run.folder), "state": run.state, "why": run.text} for run in unfinished]
    return json.dumps(finite({"tables": tables, "without_results": without}), indent=2) + "\n"


FORMATS: dict[str, Callable[[Sequence[Comparison], Sequence[Unfinished]], str]] = {
    "table": table,
    "md": markdown,
    "csv": csv_table,
    "json": json_text,
    "latex": latex,
}
