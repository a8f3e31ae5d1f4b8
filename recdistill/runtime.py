"""Device, threads and random numbers: settled here, handed on as values."""

from __future__ import annotations

import ctypes
import hashlib
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recdistill.errors import ConfigError
from recdistill.products import inner_products


@dataclass(frozen=True)
class Runtime:
    """Where and with how many threads a run computes."""

    device: torch.device
    threads: int
    seed: int
    ranking_threads: int = 1
    matmul: Matmul | None = None

    def line(self) -> str:
        """The one line that is printed at the start."""
        ranking = "" if self.ranking_threads == self.threads else f" (ranking: {self.ranking_threads})"
        matmul = "" if self.matmul is None else f", matmul={self.matmul.line()}"
        return f"device={self.device}, dtype=float32, threads={self.threads}{ranking}{matmul}, seed={self.seed}"


@dataclass(frozen=True)
class Matmul:
    """A matrix product of training probed in both precisions that torch offers for float32.

    Attributes:
        used: `highest`, or what `matmul=fast` chose.
        speedup: seconds of the strict product over seconds of the fast one.
        error: largest error of the strict product against float64.
        fast_error: the same of the fast one.
    """

    used: str
    speedup: float
    error: float
    fast_error: float

    def line(self) -> str:
        """For the line of the start."""
        return f"{self.used} (fast: {self.speedup:.1f}x, error {self.fast_error:.0e} against {self.error:.0e})"


_ranking_threads = 1  # of this process, as torch's own setting is
fitting_rows: dict[int, int] = {}  # by items per row: what halving left of a chunk of ranking, since `start`


def start(
    device: str, threads: int, seed: int, *, ranking_threads: int | None = None, matmul: str = "strict"
) -> Runtime:
    """Choose the device, set the number of threads and the precision of products in training.

    Args:
        device: `auto` (a GPU when there is one), `cpu`, `cuda` or `cuda:1`.
        threads: intra-operation threads of torch.
        seed: of the run; recorded, not set globally (all draws take their own generator).
        ranking_threads: the same while whole catalogues are ranked (None: as `threads`).
        matmul: `strict`, or `fast`: what permits reduced precision where a probe finds it faster and as exact.

    Raises:
        ConfigError: the device is unknown or absent.
    """
    global _ranking_threads
    fitting_rows.clear()
    keep_freed_memory()
    torch.set_num_threads(threads)
    _ranking_threads = ranking_threads or threads
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
    probe = probe_matmul(chosen) if matmul == "fast" else None
    # Strict unless asked otherwise: TF32 would move the third digit of a metric.
    torch.set_float32_matmul_precision("highest" if probe is None else probe.used)
    return Runtime(chosen, threads, seed, _ranking_threads, probe)


def keep_freed_memory() -> None:
    """Let glibc keep blocks of up to 64 MiB that are freed, for the next step's values of the same size.

    Handing them back and asking for them again costs a page fault per 4 KiB, which at the sizes of a step is as much as
    the arithmetic. Larger blocks still go back to the system. Elsewhere than with glibc nothing is changed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 64 << 20)
        mallopt(_M_TRIM_THRESHOLD, 256 << 20)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


@contextmanager
def for_ranking() -> Iterator[None]:
    """Strict products and the threads of ranking, for anything that is reported or stored; also a decorator."""
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(_ranking_threads)
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed; on the CPU, and in CUDA's libraries, torch says it in words only."""
    cpu = ("can't allocate memory", "std::bad_alloc", "could not create a primitive", "could not create a memory")
    cuda = ("STATUS_ALLOC_FAILED", "CUDA error: out of memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(word in str(error) for word in cpu + cuda)


def faster_ranking_threads(device: str) -> int | None:
    """All cores of this process where they rank faster than one, else None: as in training.

    A product of the shape of ranking (128 users x 64 x 20,000 items) is timed with either. How many threads share it
    does not change its bits, so this decides on seconds alone.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores == 1 or device.partition(":")[0] == "cuda" or (device == "auto" and torch.cuda.is_available()):
        return None
    before = torch.get_num_threads()
    left, right = (torch.randn(rows, 64, generator=generator(0, "probe")) for rows in (128, 20_000))
    seconds: dict[int, list[float]] = {1: [], cores: []}
    for _ in range(5):
        for threads, taken in seconds.items():
            torch.set_num_threads(threads)
            with torch.no_grad():
                taken.append(_seconds(lambda: inner_products(left, right)))
    torch.set_num_threads(before)
    one, all_of_them = (sorted(taken)[2] for taken in seconds.values())  # medians: on a busy machine the best is luck
    return cores if one >= _WORTH_IT * all_of_them else None


_WORTH_IT = 1.25  # of a product's speed-up: the rest of ranking gains less


def probe_matmul(device: torch.device) -> Matmul:
    """Time a product of the shape of a training step (256 x 64 x 2048) in both precisions, and compare with float64.

    The fast one is chosen where it takes at most two thirds of the time and errs at most twice as much.
    """
    left, right = (torch.randn(rows, 64, generator=generator(0, "probe")) for rows in (256, 2048))
    exact = left.double() @ right.double().T
    left, right = left.to(device), right.to(device)
    seconds, error = {}, {}
    fast = "medium" if device.type == "cpu" else "high"  # oneDNN's float32 on the CPU; TF32 elsewhere
    for name in ("highest", fast):
        torch.set_float32_matmul_precision(name)
        error[name] = float((left @ right.T).cpu().double().sub(exact).abs().max())
        seconds[name] = min(_seconds(lambda: left @ right.T) for _ in range(5))
    torch.set_float32_matmul_precision("highest")
    speedup = seconds["highest"] / seconds[fast]
    good = speedup >= 1.5 and error[fast] <= 2 * error["highest"]
    return Matmul(fast if good else "highest", speedup, error["highest"], error[fast])


def _seconds(multiply: Callable[[], Tensor]) -> float:
    started = time.perf_counter()
    for _ in range(4):
        product = multiply()
    float(product[0, 0])  # waits for a device
    return time.perf_counter() - started


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
    """Bytes that this process can still have on a device (for the CPU: available memory of the machine)."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by torch, for reuse
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    return int(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def device_record(device: torch.device) -> dict[str, Any]:
    """For the record: the device, and of a GPU its name, torch's CUDA version and the most that tensors took of it."""
    card = {}
    if device.type == "cuda":
        card = {
            "gpu": torch.cuda.get_device_name(device),
            "cuda": torch.version.cuda,
            "peak_gpu_bytes": torch.cuda.max_memory_allocated(device),
        }
    return {"device": str(device), **card}


def memory_line(needed: Mapping[str, int], device: torch.device) -> str:
    """What a training keeps resident, beside what is free.

    Args:
        needed: bytes by kind, those of what lies there already too.
        device: where it lies.

    Raises:
        ConfigError: more is needed than this process can have on an accelerator.
    """
    free, total = free_memory(device), sum(needed.values())
    room = free + (torch.cuda.memory_allocated(device) if device.type == "cuda" else 0)
    parts = ", ".join(f"{kind} {size / 1e6:,.1f} MB" for kind, size in needed.items())
    if device.type != "cpu" and total > room:
        raise ConfigError(
            f"{total / 1e9:.1f} GB are needed on {device}: {parts}; there are {room / 1e9:.1f} GB for this run",
            "what a step reads stays on the device, so that no step waits for a transfer",
            "use device=cpu, a smaller student.dim, fewer trainer.negatives or a smaller soft_labels.depth",
        )
    return f"memory: {parts}; {free / 1e9:,.1f} GB free on {device}"


def peak_memory() -> int:
    """Bytes: the largest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
