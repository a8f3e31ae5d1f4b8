"""The command line: a thin dispatcher. Heavy imports happen in the verb that needs them."""

from __future__ import annotations

import codecs
import io
import os
import sys
import traceback
from collections.abc import Sequence

from recdistill import __version__
from recdistill.errors import ConfigError, RecDistillError, nearest

VERBS = {
    "train": "run an experiment: recdistill train [GROUP=NAME] [KEY=VALUE] [-m]",
    "list": "the choices of a group: recdistill list [GROUP]",
    "compare": "one table over runs: recdistill compare [DIR ...]",
    "evaluate": "other cut-offs, metrics and conventions: recdistill evaluate RUN [--k 5,50]",
    "report": "the page of a run, made again: recdistill report RUN",
    "study": "tune with equal budgets, then run over seeds: recdistill study FILE",
    "explain": "every setting of one choice: recdistill explain GROUP=NAME",
    "datasets": "data sets by name and files of your own: recdistill datasets ls|describe|fetch",
    "cache": "what is stored and shared between runs: recdistill cache ls|verify|prune",
    "doctor": "versions, device, threads, memory and writable folders",
}

PLAIN = {"±": "+-", "†": "+", "µ": "u", "\N{MINUS SIGN}": "-", "…": "..."}  # what a stream of few letters shows

HELP = """usage: recdistill VERB ...

Knowledge distillation for top-K recommenders, one run from one config.

{verbs}

  recdistill VERB --help    what a verb takes
  recdistill --version      the version
  --debug                   with any verb: show tracebacks

First run: recdistill train    (real data, a teacher, a student, a report; debug=smoke for seconds)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        argv: the words after `recdistill` (None: the process's own).

    Returns:
        The exit code: 0 ok, 1 the run failed, 2 the user's words or config are off, 130 interrupted.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        codecs.register_error("recdistill.plain", _plain)
        sys.stdout.reconfigure(errors="recdistill.plain")
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP.format(verbs="\n".join(f"  {verb:<9} {text}" for verb, text in VERBS.items())), end="")
        return 0
    if words[0] == "--version":
        print(f"recdistill {__version__}")
        return 0
    try:
        return _dispatch(words[0], words[1:])
    except RecDistillError as error:
        if debug:
            traceback.print_exception(error)
        else:
            print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        if debug:
            raise
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Instead of what standard output cannot encode: letters that mean the same, else a question mark."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(PLAIN.get(letter, "?") for letter in error.object[error.start : error.end]), error.end


def _dispatch(verb: str, words: list[str]) -> int:
    if verb in ("-sc", "--shell-completion"):
        from recdistill.commands.completion import completion

        return completion(words, tuple(VERBS))
    if verb == "train":
        # Read once, when torch loads: passive waits keep several threads usable on a shared machine, and huge pages
        # halve the price of fresh buffers.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
        from recdistill.commands.train import train

        return train(words)
    if verb == "compare":
        from recdistill.commands.compare import compare_runs

        return compare_runs(words)
    if verb == "evaluate":
        from recdistill.commands.evaluate import evaluate

        return evaluate(words)
    if verb == "report":
        from recdistill.commands.report import report

        return report(words)
    if verb == "study":
        from recdistill.commands.study import study

        return study(words)
    if verb in ("list", "explain"):
        from recdistill.commands.choices import explain, list_choices

        return (list_choices if verb == "list" else explain)(words)
    if verb == "datasets":
        from recdistill.commands.datasets import datasets

        return datasets(words)
    if verb == "cache":
        from recdistill.commands.cache import cache

        return cache(words)
    if verb == "doctor":
        from recdistill.commands.doctor import doctor

        return doctor(words)
    raise ConfigError(
        f"there is no verb {verb}{nearest(verb, VERBS)}",
        f"recdistill knows {', '.join(VERBS)}",
        "recdistill --help",
    )
