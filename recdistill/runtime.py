"""Device, threads and random numbers: settled here, handed on as values."""

from __future__ import annotations

import hashlib
import os
import resource
import sys
from dataclasses import dataclass

import torch
from torch import Tensor

from recdistill.errors import ConfigError


@dataclass(frozen=True)
class Runtime:
    """Where and with how many threads a run computes."""

    device: torch.device
    threads: int
    seed: int

    def line(self) -> str:
        """The one line that is printed at the start."""
        return f"device={self.device}, dtype=float32, threads={self.threads}, seed={self.seed}"


def start(device: str, threads: int, seed: int) -> Runtime:
    """Choose the device and set the number of threads.

    Args:
        device: `auto` (a GPU when there is one), `cpu`, `cuda` or `cuda:1`.
        threads: intra-operation threads of torch.
        seed: of the run; recorded, not set globally (all draws take their own generator).

    Raises:
        ConfigError: the device is unknown or absent.
    """
    torch.set_num_threads(threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.partition(":")[0] not in ("cpu", "cuda"):
        raise _no_device(device)
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise _no_device(device) from error
    if chosen.type == "cuda" and (not torch.cuda.is_available() or (chosen.index or 0) >= torch.cuda.device_count()):
        raise ConfigError(
            f"device={device} was asked for, but torch sees {torch.cuda.device_count()} CUDA devices here",
            f"torch {torch.__version__} found no usable GPU or no such number",
            "use device=auto or device=cpu, or install a CUDA build of torch and a driver",
        )
    # TF32 would move the third digit of a reported metric; training is bound by gathers, not by products.
    torch.set_float32_matmul_precision("highest")
    return Runtime(chosen, threads, seed)


def _no_device(device: str) -> ConfigError:
    return ConfigError(
        f"device={device} is no device here", "recdistill runs on cpu and cuda", "use device=auto, cpu, cuda or cuda:1"
    )


def generator(seed: int, purpose: str, epoch: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator keyed by (seed, purpose, epoch): a resumed epoch draws what the uninterrupted one drew."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{epoch}".encode()).digest()
    made = torch.Generator(device)
    made.manual_seed(int.from_bytes(digest[:7], "big"))
    return made


def n_gpus() -> int:
    """Number of CUDA devices that torch sees."""
    return torch.cuda.device_count()


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device (for the CPU: available memory of the machine)."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def peak_memory() -> int:
    """Bytes: the largest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Move a tensor; a no-op where it already lies."""
    return tensor.to(device, non_blocking=True)
