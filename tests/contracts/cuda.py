"""A real CUDA device in the place of the pretend one: the same cases, with the draws of the CPU.

Without its own generators the device computes what the CPU computes, but for the order of sums. That no step waits is
what torch itself watches (`torch.cuda.set_sync_debug_mode`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from contracts.pretence import generators_made_by
from recdistill.runtime import generator

DEVICE = torch.device("cuda:0")


@contextmanager
def used() -> Iterator[torch.device]:
    """Let recdistill's generators for the device be made on the host, and what they draw be moved."""
    with generators_made_by(lambda seed, purpose, epoch=0, device="cpu": generator(seed, purpose, epoch)), _Draws():
        yield DEVICE


@contextmanager
def without_waiting(mode: str = "error") -> Iterator[None]:
    """Whatever makes the host wait raises."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


class _Draws(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        device = kwargs.get("device")
        if kwargs.get("generator") is None or device is None or torch.device(device).type != DEVICE.type:
            return func(*args, **kwargs)
        with without_waiting("default"):
            return func(*args, **(kwargs | {"device": "cpu"})).to(device)
