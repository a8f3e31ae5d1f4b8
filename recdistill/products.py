"""Users times a whole catalogue, by the library that is fast on this processor."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

MKL_IS_SLOW_ON = ("AuthenticAMD", "HygonGenuine")


def inner_products(users: Tensor, items: Tensor) -> Tensor:
    """Every inner product of [B, d] and [I, d] vectors: [B, I].

    torch multiplies float32 matrices on the CPU by MKL, which has about half the speed that AMD's processors allow;
    there, and where no gradient is wanted, this is oneDNN's product. Measured: up to d = 192 both give the same bits;
    beyond, sums are ordered otherwise, and the error against float64 is 1.4 times MKL's. What decides is the processor,
    torch's build, the type and whether gradients are on, never a clock.
    """
    plain = users.device.type == "cpu" and users.dtype == items.dtype == torch.float32
    if plain and users.numel() and items.numel() and not torch.is_grad_enabled() and onednn_is_faster():
        product: Tensor = torch.ops.mkldnn._linear_pointwise(users, items, None, "none", [], "")
        return product
    return users @ items.T


@cache
def onednn_is_faster() -> bool:
    """Whether the processor is one for which MKL is slow and this torch has MKL and oneDNN."""
    if not any(maker in _processor() for maker in MKL_IS_SLOW_ON):
        return False
    both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch's has no types
    return both and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _processor() -> str:
    """What names its maker: a line of Linux's list of processors, elsewhere what Python is told."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line for line in lines if line.startswith("vendor_id")), platform.processor())
