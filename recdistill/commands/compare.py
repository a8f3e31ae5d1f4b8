"""`recdistill compare`: one table over runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from recdistill.commands.parser import Parser
from recdistill.errors import ConfigError, nearest
from recdistill.report.compare import compare
from recdistill.report.comparison_formats import DEFAULT_METRICS, FORMATS, print_comparison, print_unfinished
from recdistill.report.runs import Run, find_runs, with_metrics
from recdistill.store import atomic


def compare_runs(words: Sequence[str]) -> int:
    """Print mean and deviation of runs that share all settings but the seed.

    Raises:
        ConfigError: a folder is missing, holds no run, a metric is in none of them, or the baseline is no row.
        CacheError: a run's values of each user cannot be read.
    """
    arguments = _parser().parse_args(list(words))
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
    if arguments.baseline:
        from recdistill.report.significance import against  # scipy and pandas take a second

        made = against(made, arguments.baseline)
    if arguments.format == "table" and arguments.out is None:
        for comparison in made:
            print_comparison(comparison)
        print_unfinished(unfinished)
        return 0
    if arguments.format == "html":
        from recdistill.report.compare_page import page  # so does matplotlib

        text = page(made, unfinished)
    else:
        text = FORMATS[arguments.format](made, unfinished)
    if arguments.out is None:
        print(text, end="")
    else:
        with atomic(arguments.out) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return 0


def _parser() -> Parser:
    parser = Parser("recdistill compare", description="One table over runs: mean ± sd over seeds.")
    parser.add_argument("folders", nargs="*", type=Path, help="runs, sweeps or folders of them (default: outputs)")
    parser.add_argument("--metric", action="append", help=f"may be repeated (default: {', '.join(DEFAULT_METRICS)})")
    parser.add_argument(
        "--over", action="append", help="config key whose values are replicates (default: seed); teacher.seed, ..."
    )
    parser.add_argument("--sort", help="metric to sort by (default: the first)")
    parser.add_argument(
        "--baseline",
        action="append",
        metavar="NAME|KEY=VALUE",
        help="the row that all others are tested against, user by user: scratch, teacher, a method, or a setting such "
        "as distill=none; repeated, all must hold of it (default: no tests)",
    )
    parser.add_argument("--format", choices=[*FORMATS, "html"], default="table")
    parser.add_argument("--json", action="store_const", const="json", dest="format", help="as --format json")
    parser.add_argument("--out", type=Path, help="write to a file instead of standard output")
    return parser


def _check_metrics(metrics: Sequence[str], runs: Sequence[Run]) -> None:
    known = sorted({name for run in runs for name in run.results["models"]["student"]["metrics"]})
    for metric in metrics:
        if runs and metric not in known:
            raise ConfigError(
                f"no run has the metric {metric}{nearest(metric, known)}",
                "metrics are named as in results.json: SPLIT/METRIC@K",
                f"choose of {', '.join(name for name in known if name.count('/') == 1)}",
            )
