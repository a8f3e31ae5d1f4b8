"""`recdistill compare`: one table over runs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recdistill.commands.parser import Parser
from recdistill.errors import ConfigError, nearest
from recdistill.report.compare import Comparison, Unfinished, as_rows, compare, find_runs, with_metrics
from recdistill.report.tables import print_table
from recdistill.store import atomic

DEFAULT_METRICS = ["test/ndcg@20", "test/recall@20", "test/poplift@20"]


def compare_runs(words: Sequence[str]) -> int:
    """Print mean and deviation of runs that share all settings but the seed.

    Raises:
        ConfigError: a folder is missing, holds no run, or a metric is in none of them.
    """
    parser = Parser("recdistill compare", description="One table over runs: mean ± sd over seeds.")
    parser.add_argument("folders", nargs="*", type=Path, help="runs, sweeps or folders of them (default: outputs)")
    parser.add_argument("--metric", action="append", help=f"may be repeated (default: {', '.join(DEFAULT_METRICS)})")
    parser.add_argument(
        "--over", action="append", help="config key whose values are replicates (default: seed); teacher.seed, ..."
    )
    parser.add_argument("--sort", help="metric to sort by (default: the first)")
    parser.add_argument("--format", choices=["table", "md", "csv", "json"], default="table")
    parser.add_argument("--out", type=Path, help="write to a file instead of standard output")
    arguments = parser.parse_args(list(words))
    folders = arguments.folders or [Path("outputs")]
    if missing := [str(folder) for folder in folders if not folder.is_dir()]:
        raise ConfigError(
            f"there is no folder {', '.join(missing)}", "runs are read from folders", "name an outputs folder"
        )
    runs, unfinished = find_runs(folders)
    if not runs and not unfinished:
        raise ConfigError(
            f"no runs below {', '.join(map(str, folders))}", "a run has a status.json", "run recdistill train first"
        )
    metrics = arguments.metric or DEFAULT_METRICS
    _check_metrics([*metrics, *([arguments.sort] if arguments.sort else [])], runs)
    if arguments.sort and arguments.sort not in metrics:
        metrics = [*metrics, arguments.sort]
    runs, without = with_metrics(runs, metrics)
    unfinished = [*unfinished, *without]
    made = compare(runs, metrics, arguments.over or ["seed"], arguments.sort)
    if arguments.format == "table" and arguments.out is None:
        for comparison in made:
            print_table(comparison.title, *as_rows(comparison))
        _print_unfinished(unfinished)
        return 0
    text = FORMATS[arguments.format](made, unfinished)
    if arguments.out is None:
        print(text, end="")
    else:
        with atomic(arguments.out) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return 0


def _check_metrics(metrics: Sequence[str], runs: Sequence[Any]) -> None:
    known = sorted({name for run in runs for name in run.results["models"]["student"]["metrics"]})
    for metric in metrics:
        if runs and metric not in known:
            raise ConfigError(
                f"no run has the metric {metric}{nearest(metric, known)}",
                "metrics are named as in results.json: SPLIT/METRIC@K",
                f"choose of {', '.join(name for name in known if '/group' not in name)}",
            )


def _print_unfinished(unfinished: Sequence[Unfinished]) -> None:
    if unfinished:
        print_table(
            "without results", ["folder", "state", "why"], [[str(u.folder), u.state, u.text] for u in unfinished]
        )


def _markdown(made: Sequence[Comparison], unfinished: Sequence[Unfinished]) -> str:
    blocks = []
    for comparison in made:
        columns, rows = as_rows(comparison)
        lines = [f"**{comparison.title}**", "", _md(columns), _md(["---"] * len(columns)), *map(_md, rows)]
        blocks.append("\n".join(lines))
    if unfinished:
        blocks.append("\n".join(["Without results:", ""] + [f"- {u.folder}: {u.state} {u.text}" for u in unfinished]))
    return "\n\n".join(blocks) + "\n"


def _md(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _csv(made: Sequence[Comparison], unfinished: Sequence[Unfinished]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    metrics = list(dict.fromkeys(metric for c in made for row in c.rows for metric in row.cells))
    heads = [f"{metric}{part}" for metric in metrics for part in ("", " sd")]
    writer.writerow(["data", "method", "teacher", "student", "settings", "n", *heads])
    for comparison in made:
        for row in comparison.rows:
            cells = [value for metric in metrics for value in (row.cells[metric].mean, row.cells[metric].sd)]
            writer.writerow([comparison.title, row.method, row.teacher, row.student, row.settings, row.n, *cells])
    for run in unfinished:
        writer.writerow([str(run.folder), run.state, run.text])
    return stream.getvalue()


def _json(made: Sequence[Comparison], unfinished: Sequence[Unfinished]) -> str:
    tables = [
        {
            "title": comparison.title,
            "rows": [
                {
                    "method": row.method,
                    "teacher": row.teacher,
                    "student": row.student,
                    "settings": row.settings,
                    "n": row.n,
                    "metrics": {name: {"mean": cell.mean, "sd": cell.sd} for name, cell in row.cells.items()},
                }
                for row in comparison.rows
            ],
        }
        for comparison in made
    ]
    without = [{"folder": str(run.folder), "state": run.state, "why": run.text} for run in unfinished]
    return json.dumps({"tables": tables, "without_results": without}, indent=2) + "\n"


FORMATS = {"md": _markdown, "csv": _csv, "json": _json}
