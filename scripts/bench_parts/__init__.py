"""The parts of `scripts/bench.py`; importing them limits numpy and torch to one thread, read as they load."""

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"
