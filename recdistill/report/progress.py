"""What a user sees while a run works: bars on a terminal, plain lines elsewhere; all on standard error."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

log = logging.getLogger("recdistill")
LINE_SECONDS = 10.0


def say(line: str) -> None:
    """One line to the user and into the run's log."""
    log.info(line)


@contextmanager
def training_progress(name: str, bars: bool) -> Iterator[Callable[[int, int, float | None, float], None]]:
    """Yield the callback that a training reports its epochs to.

    Args:
        name: of the model.
        bars: whether a live bar may be drawn (not in a sweep, where jobs would fight for the line).
    """
    started = time.perf_counter()
    last = {"epoch": 0, "best": float("nan"), "line": time.perf_counter()}
    if bars and sys.stderr.isatty():
        columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"), TimeElapsedColumn()
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(name, total=None, note="")

            def draw(epoch: int, epochs: int, value: float | None, best: float) -> None:
                last.update(epoch=epoch, best=best)
                bar.update(task, total=epochs, completed=epoch, note=f"epoch {epoch}, best valid/ndcg {best:.4f}")

            yield draw
    else:

        def write(epoch: int, epochs: int, value: float | None, best: float) -> None:
            last.update(epoch=epoch, best=best)
            if value is not None and time.perf_counter() - last["line"] > LINE_SECONDS:
                last["line"] = time.perf_counter()
                say(f"{name}: epoch {epoch}, valid/ndcg {value:.4f}, best {best:.4f}")

        yield write
    if last["epoch"]:
        seconds = time.perf_counter() - started
        say(f"{name}: {last['epoch']:.0f} epochs in {seconds:.1f} s, best valid/ndcg {last['best']:.4f}")
