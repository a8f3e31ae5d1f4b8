"""`recdistill evaluate`: other cut-offs, metrics and conventions for a finished run, without its models."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from recdistill.commands.parser import Parser
from recdistill.evaluation.accuracy import METRICS
from recdistill.evaluation.profiles import PROFILES, RECDISTILL
from recdistill.evaluation.rescore import rescored
from recdistill.evaluation.stored import StoredRun
from recdistill.report.stored import read_run
from recdistill.report.tables import print_table

OF_LISTS = ("poplift", "coverage", "gini")


def evaluate(words: Sequence[str]) -> int:
    """Score the stored lists and ranks of a run's test users again.

    Raises:
        ConfigError: the folder is no finished run, a metric is unknown, or a cut-off is beyond what is stored.
        CacheError: a file of the run cannot be read.
    """
    parser = Parser("recdistill evaluate", description="Score a run's stored lists and ranks again: no model, no GPU.")
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--k", type=_numbers, help="cut-offs, such as 5,50 (default: the run's)")
    parser.add_argument(
        "--metrics",
        type=_names,
        help="such as ndcg,recall/group=0,poplift/users=niche (default: accuracy, and without --profile some of "
        "popularity); docs/metrics.md has them all",
    )
    parser.add_argument("--profile", choices=list(PROFILES), help="formulas and averages of another library")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(list(words))
    finished = read_run(arguments.run)
    run = StoredRun(finished.folder, finished.results)
    cutoffs = arguments.k or run.results["config"]["evaluation"]["cutoffs"]
    names = arguments.metrics or [*METRICS, *(() if arguments.profile else OF_LISTS)]
    profile = PROFILES[arguments.profile] if arguments.profile else RECDISTILL
    found = rescored(run, names, cutoffs, profile)
    notes = [*profile.notes]
    if arguments.profile and set(names) - {"recall", "ndcg", "precision"}:
        notes.append("Only recall, ndcg and precision were set beside the library's; other formulas are recdistill's.")
    if arguments.json:
        models = {name: {f"test/{key}": value for key, value in values.items()} for name, values in found.items()}
        about = {"run": str(arguments.run), "split": "test", "profile": arguments.profile, "notes": notes}
        print(json.dumps(about | {"models": models}, indent=2))
        return 0
    title = f"{run.results['dataset']['name']}, test"
    if arguments.profile:
        title += f", as {arguments.profile} computes it"
    keys = list(next(iter(found.values())))
    print_table(title, ["metric", *found], [[key, *(values[key] for values in found.values())] for key in keys])
    for note in notes:
        print(note)
    return 0


def _numbers(text: str) -> list[int]:
    try:
        return sorted({int(part) for part in text.split(",")})
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} is no list of cut-offs such as 5,50") from error


def _names(text: str) -> list[str]:
    return list(dict.fromkeys(part for part in text.split(",") if part))
