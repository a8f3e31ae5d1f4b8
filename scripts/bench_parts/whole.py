"""The peak memory of a whole distillation, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bench_parts.data import Scale
from bench_parts.measure import Row, Target

BATCH = 65_536  # large, so that the single epochs of this measurement are short; memory grows with it, if at all


def train_memory(scale: Scale, device: str) -> Row:
    """`recdistill train distill=rrd distill.rest=sampled`, matrix factorisation of width 64, from file to report."""
    train = scale.train
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "pairs.parquet"
        pq.write_table(pa.table({"user_id": train.user.numpy(), "item_id": train.item.numpy()}), table)
        words = [
            *("dataset=file", f"dataset.path={table}"),
            *("teacher=mf", "teacher.dim=64", "student=mf", "student.dim=64"),
            *("distill=rrd", "distill.draw=sampled", "distill.rest=sampled", "scratch.enabled=false"),
            *(f"{role}trainer.{key}={value}" for role in ("", "teacher.") for key, value in _SHORT.items()),
            *(f"device={device}", f"paths.outputs={folder}/outputs"),
        ]
        seconds, peak = _run([sys.executable, "-m", "recdistill", "train", *words])
    targets = [Target("GB at the peak", peak / 1e9, 3.0, at_most=True)] if scale.name == "L" else []
    note = f"one epoch each, batches of {BATCH}"
    return Row("train-rrd-sampled", scale.name, "whole run", {"ours": seconds}, targets, peak, note)


_SHORT = {"epochs": 1, "eval_every": 1, "patience": 1, "negatives": 1, "batch_size": BATCH}


def _run(command: list[str]) -> tuple[float, int]:
    """CPU seconds and peak bytes of a program.

    Raises:
        RuntimeError: it failed; with what it said.
    """
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"{' '.join(command)} failed:\n{said.read()}")
    scale = 1 if sys.platform == "darwin" else 1024
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * scale


def machine() -> dict[str, object]:
    """What was measured on: versions, processor, and the floors of products and copies."""
    import platform

    import numpy as np
    import torch

    from bench_parts.measure import in_turn

    a, b = torch.rand(2048, 2048), torch.rand(2048, 2048)
    big = torch.rand(64 << 20)
    other = torch.empty_like(big)
    taken = in_turn({"gemm": lambda: torch.mm(a, b), "copy": lambda: other.copy_(big)}, 5)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "sgemm GF/s": round(2 * 2048**3 / taken["gemm"] / 1e9),
        "copy GB/s": round(2 * big.numel() * 4 / taken["copy"] / 1e9, 1),
    }


def processor() -> str:
    """What the system calls it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
