"""Users times a whole catalogue, by the library that is fast on this processor."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

import torch
from torch import Tensor


def inner_products(users: Tensor, items: Tensor) -> Tensor:
    """Every inner product of [B, d] and [I, d] vectors: [B, I].

    torch multiplies float32 matrices on the CPU by MKL, which on other processors than Intel's runs at about half their
    speed; there, and where no gradient is wanted, this is oneDNN's product. Its values are MKL's to the last bit or
    two; which of the two is used depends on nothing but the processor and torch.
    """
    plain = users.device.type == "cpu" and users.dtype == items.dtype == torch.float32
    if plain and users.numel() and items.numel() and not torch.is_grad_enabled() and onednn_is_faster():
        product: Tensor = torch.ops.mkldnn._linear_pointwise(users, items, None, "none", [], "")
        return product
    return users @ items.T


@cache
def onednn_is_faster() -> bool:
    """Whether this torch has MKL and oneDNN and the processor is an x86 one that Intel did not make."""
    if platform.machine().lower() not in ("x86_64", "amd64") or "intel" in _maker().lower():
        return False
    both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch's has no types
    return both and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _maker() -> str:
    """The processor's vendor, as Linux or Python tells it; where neither does, MKL's own maker is assumed."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    told = next((line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), "")
    return told or platform.processor() or "GenuineIntel"
