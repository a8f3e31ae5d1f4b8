"""CPU seconds of functions that run in turn, their memory, and what a loop's result consists of."""

from __future__ import annotations

import ctypes
import gc
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

Work = Callable[[], object]
STEADY = 0.01  # seconds of calls one after the other


@dataclass(frozen=True)
class Target:
    """A number that must be reached.

    Attributes:
        what: it is.
        value: measured.
        limit: `value` must be at least this, or at most where `at_most`.
    """

    what: str
    value: float
    limit: float
    at_most: bool = False

    @property
    def reached(self) -> bool:
        """Whether the limit is kept."""
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    def text(self) -> str:
        """The number and its limit."""
        return f"{self.what} {self.value:.3g} ({'at most' if self.at_most else 'at least'} {self.limit:g})"


@dataclass(frozen=True)
class Row:
    """One loop at one scale.

    Attributes:
        loop: its name.
        scale: S, M or L.
        unit: what the seconds are for.
        seconds: CPU seconds per unit of `ours`, `naive`, `floor` and whatever else was measured beside them.
        targets: what must be reached.
        memory: bytes that the product's side needed at its peak beyond what was there before, or None.
        note: how it was measured where that is not plain.
    """

    loop: str
    scale: str
    unit: str
    seconds: Mapping[str, float]
    targets: list[Target] = field(default_factory=list)
    memory: int | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Naive over ours."""
        return self.seconds["naive"] / self.seconds["ours"] if {"naive", "ours"} <= set(self.seconds) else None

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        targets = [vars(target) | {"reached": target.reached} for target in self.targets]
        return vars(self) | {"seconds": dict(self.seconds), "targets": targets, "ratio": self.ratio}


def in_turn(
    works: Mapping[str, Work], rounds: int = 5, *, device: str = "cpu", steady: bool = False
) -> dict[str, float]:
    """Median seconds of each function, called in turn so that a busy machine slows all of them alike.

    CPU seconds of this process (one thread); on another device wall seconds with the device waited for. `steady` is for
    steps, which in training follow their like: in each turn a function is called once for the caches, which the one
    before it has filled with its own, and then timed over several calls.
    """
    taken: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds + 1):
        for name, work in works.items():
            seconds = (_steady if steady else _once)(work, device)
            if turn:  # the first call warms up caches and allocators
                taken[name].append(seconds)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def _steady(work: Work, device: str) -> float:
    work()
    taken = [_once(work, device)]
    while sum(taken) < STEADY:
        taken.append(_once(work, device))
    return statistics.fmean(taken)


def _once(work: Work, device: str) -> float:
    clock = time.process_time
    if device != "cpu":
        clock = time.perf_counter
        torch.cuda.synchronize(device)
    started = clock()
    work()
    if device != "cpu":
        torch.cuda.synchronize(device)
    return clock() - started


def peak(work: Work, device: str = "cpu") -> int | None:
    """Bytes that a call needs beyond what is held before it; None where the system does not tell."""
    gc.collect()
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return int(torch.cuda.max_memory_allocated(device) - before)
    if sys.platform != "linux":
        return None
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)  # what earlier calls freed would otherwise be used again unseen
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    before = _status("VmHWM")
    work()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0
