#!/usr/bin/env python3
"""How fast each hot loop is: against a naive way of writing it and against the machine's own floor.

    python3 scripts/env.py python scripts/bench.py --check

Runs recdistill's own functions on synthetic data of three sizes: S (6k users x 6k items x 110k pairs), M (6k x 3.7k x
1M), L (100k x 100k x 5M). Both sides have one thread and the same batch size and run in turn in this process; the times
are CPU seconds, the median of several calls. What is slow at L in its naive form is timed on a sample and scaled.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import bench_parts  # noqa: F401  # before numpy and torch, which read the number of threads as they load

# isort: split
import torch
from bench_parts import ranking_loops, sampling_loops, training_loops, whole
from bench_parts.data import SCALES, Scale
from bench_parts.measure import Row
from bench_parts.show import markdown, missed, print_rows

from recdistill.runtime import device_record, start

Loop = Callable[[Scale, str], Row | Iterator[Row]]
LOOPS: dict[str, tuple[str, Loop]] = {  # at which scales, and how
    "negatives": ("SML", sampling_loops.negatives),
    "feeding": ("SL", sampling_loops.feeding),
    "bpr-epoch": ("SML", training_loops.bpr_epoch),
    "lightgcn-step": ("SML", training_loops.lightgcn_step),
    "ranking": ("SML", ranking_loops.ranking),
    "soft-labels": ("SML", ranking_loops.soft_labels),
    "unkd-draws": ("SML", sampling_loops.unkd_draws),
    "rrd-draws": ("SML", sampling_loops.rrd_draws),
    "kd-step": ("SM", training_loops.kd_steps),
    "softmax": ("SML", ranking_loops.softmax),
    "rrd-rest-all": ("SML", ranking_loops.rrd_all),
    "train-rrd-sampled": ("L", whole.train_memory),
}
QUICK = "SM"


def main() -> int:
    """Run what was asked for.

    Returns:
        1 if `--check` found a target that was missed, else 0.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=LOOPS, help="this loop (may be repeated)")
    parser.add_argument("--scale", action="append", choices=SCALES, help="this scale (may be repeated)")
    parser.add_argument("--quick", action="store_true", help="scales S and M only, in about two minutes")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda; off the CPU wall seconds are taken")
    parser.add_argument("--check", action="store_true", help="exit 1 and name each target that is missed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    parser.add_argument(
        "--markdown", type=Path, metavar="JSON", help="print the tables of such a file, measure nothing"
    )
    asked = parser.parse_args()
    if asked.markdown:
        print(markdown(json.loads(asked.markdown.read_text())))
        return 0
    start(asked.device, threads=1, seed=0)  # as every run of recdistill begins; it holds for both sides
    started = time.perf_counter()
    about, rows = whole.machine(), []
    for scale in asked.scale or (QUICK if asked.quick else SCALES):
        for name in asked.only or LOOPS:
            scales, loop = LOOPS[name]
            if scale in scales:
                print(f"{name} at {scale} ...", file=sys.stderr, flush=True)
                made = loop(SCALES[scale], asked.device)
                rows += [made] if isinstance(made, Row) else list(made)
    about |= device_record(torch.device(asked.device)) | {"seconds": round(time.perf_counter() - started)}
    if asked.json:
        asked.json.write_text(json.dumps({"machine": about, "rows": [row.to_json() for row in rows]}, indent=1))
    print_rows(rows, about)
    lines = missed(rows)
    if asked.check:
        print("\n".join(lines) if lines else "every target is reached")
    return 1 if asked.check and lines else 0


if __name__ == "__main__":
    sys.exit(main())
