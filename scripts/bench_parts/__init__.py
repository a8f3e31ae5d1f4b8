"""The parts of `scripts/bench.py`; importing them sets what numpy and torch read as they load.

One thread; passive waits and huge pages as `recdistill train` has them, for both sides of every loop.
"""

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"
os.environ |= {"OMP_WAIT_POLICY": "passive", "THP_MEM_ALLOC_ENABLE": "1"}
