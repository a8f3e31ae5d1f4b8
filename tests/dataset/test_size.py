"""What reading a large table needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

N = 4_000_000
FINAL = N * (4 + 4 + 8 + 8)  # bytes: user and item as int32, rating as float64, time as int64
PROGRAM = """
import resource, sys
from pathlib import Path
from recdistill.dataset.readers import read
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
read(Path(sys.argv[1]), say=lambda line: None)
before = peak()
table = read(Path(sys.argv[2]), say=lambda line: None)
print(len(table), peak() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["", "u"])
def test_reading_needs_at_most_three_times_the_final_arrays(tmp_path: Path, prefix: str) -> None:
    random = np.random.default_rng(0)
    for name, n in (("small.csv", 10), ("large.csv", N)):
        frame = pd.DataFrame({"user": random.integers(0, 50_000, n), "item": random.integers(0, 20_000, n)})
        frame["rating"], frame["timestamp"] = random.integers(1, 6, n), random.integers(8e8, 15e8, n)
        frame["user"] = prefix + frame["user"].astype(str)
        frame.to_csv(tmp_path / name, index=False)
    files = [str(tmp_path / name) for name in ("small.csv", "large.csv")]
    said = subprocess.run([sys.executable, "-c", PROGRAM, *files], capture_output=True, text=True, check=True).stdout
    rows, needed = map(int, said.split())
    assert rows == N
    assert needed < 3 * FINAL
