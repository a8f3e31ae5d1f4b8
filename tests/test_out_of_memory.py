"""Ranking where memory really runs out: in a process of its own, whose address space is limited."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from contracts import toys
from recdistill.dataset.sampling import SeenItems
from recdistill.models.base import InnerProductScorer
from recdistill.ranking import by_chunk
from recdistill.runtime import is_out_of_memory

if not sys.platform.startswith("linux"):
    pytest.skip("only Linux keeps a limit on the address space", allow_module_level=True)

from short_of_memory import CHUNK_BYTES, CHUNK_ROWS, N_ITEMS, World

PROGRAM = Path(__file__).parent / "short_of_memory.py"


def limited(n_items: int, more: int) -> tuple[dict[str, Any], str]:
    """What the rankings were in a process with so many bytes to spare, and what it said."""
    words = [sys.executable, str(PROGRAM), str(n_items), str(more)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def test_a_chunk_that_memory_does_not_hold_is_halved_for_the_rest_of_the_run_and_no_result_changes() -> None:
    found, said = limited(N_ITEMS, CHUNK_BYTES * 3 // 4)
    rows = found.pop("rows")
    assert rows < CHUNK_ROWS
    assert f"memory does not hold {CHUNK_ROWS} users x 200,000 scores: chunks of {CHUNK_ROWS // 2} from here on" in said
    assert said.count("memory does not hold") == (CHUNK_ROWS // rows).bit_length() - 1
    assert found == World(N_ITEMS).rankings()


def test_with_memory_to_spare_no_chunk_is_halved() -> None:
    found, said = limited(N_ITEMS, 40 * CHUNK_BYTES)
    assert (found["rows"], said) == (None, "")


def test_where_not_even_one_user_fits_the_error_says_how_much_is_needed_and_what_to_do() -> None:
    found, said = limited(10 * N_ITEMS, 4 << 20)
    assert "1 users" not in said
    what, why, fix = found["error"].splitlines()
    assert what == "OutOfMemory: the scores of one user for 2,000,000 items do not fit into the memory of cpu"
    assert "they take 8.0 MB" in why
    assert "dataset.filter.item_min" in fix


def test_another_error_while_ranking_is_not_taken_for_a_lack_of_memory() -> None:
    def broken(user: torch.Tensor, score: torch.Tensor) -> None:
        raise RuntimeError("something else")

    scorer = InnerProductScorer(torch.ones(toys.N_USERS, 2), torch.ones(toys.N_ITEMS, 2))
    with pytest.raises(RuntimeError, match="something else"):
        by_chunk(scorer, SeenItems(toys.interactions()), torch.arange(toys.N_USERS), toys.N_ITEMS, broken)


def test_torch_numpy_and_cuda_each_say_in_their_own_way_that_memory_ran_out() -> None:
    with pytest.raises(RuntimeError) as of_torch:
        torch.empty(1 << 60)
    with pytest.raises(MemoryError) as of_numpy:
        torch.empty(0).numpy().repeat(0).resize(1 << 58)
    assert is_out_of_memory(of_torch.value)
    assert is_out_of_memory(of_numpy.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert is_out_of_memory(RuntimeError("CUDA error: out of memory"))  # AcceleratorError is one
    assert is_out_of_memory(RuntimeError("could not create a primitive"))  # oneDNN, for its own working memory
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
