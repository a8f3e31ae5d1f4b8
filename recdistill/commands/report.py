"""`recdistill report`: the page of a run, made again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from recdistill.commands.parser import Parser
from recdistill.report.run_page import write_report


def report(words: Sequence[str]) -> int:
    """Write `report.html` into the folders of finished runs and print where.

    Raises:
        ConfigError: a folder is no finished run.
        CacheError: a file cannot be read or written.
    """
    parser = Parser(
        "recdistill report", description="Write report.html into a run's folder again, from its stored files alone."
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a finished run")
    for folder in parser.parse_args(list(words)).runs:
        print(write_report(folder), flush=True)
    return 0
