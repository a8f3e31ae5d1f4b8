from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from recdistill.errors import ConfigError
from recdistill.runtime import free_memory, generator, peak_memory, start


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_starting_on_the_cpu_sets_threads_and_says_so_in_one_line() -> None:
    runtime = start("cpu", 2, 7)
    assert torch.get_num_threads() == 2
    assert runtime.line() == "device=cpu, dtype=float32, threads=2, seed=7"


def test_auto_takes_a_gpu_only_where_there_is_one() -> None:
    assert start("auto", 1, 0).device.type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "", "mps", "meta"])
def test_a_device_that_recdistill_does_not_run_on_is_a_config_error_that_names_it(device: str) -> None:
    with pytest.raises(ConfigError, match=f"device={device} is no device") as caught:
        start(device, 1, 0)
    assert "device=auto" in caught.value.fix


def test_an_absent_gpu_is_a_config_error_that_names_it() -> None:
    with pytest.raises(ConfigError, match=r"device=cuda:99 was asked for") as caught:
        start("cuda:99", 1, 0)
    assert "device=cpu" in caught.value.fix


def draw(seed: int, purpose: str, epoch: int) -> list[int]:
    return torch.randint(1 << 40, (4,), generator=generator(seed, purpose, epoch)).tolist()


def test_a_generator_draws_the_same_for_the_same_seed_purpose_and_epoch() -> None:
    assert draw(3, "negatives", 2) == draw(3, "negatives", 2)


def test_a_generator_draws_differently_when_any_of_its_keys_differs() -> None:
    draws = [draw(3, "negatives", 2), draw(4, "negatives", 2), draw(3, "batches", 2), draw(3, "negatives", 3)]
    assert len({tuple(drawn) for drawn in draws}) == 4


def test_a_generator_leaves_the_global_one_alone() -> None:
    before = torch.get_rng_state()
    draw(0, "x", 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_memory_is_counted_in_bytes() -> None:
    assert peak_memory() > 10 << 20  # Python with torch is larger than 10 MiB
    assert free_memory(torch.device("cpu")) > 1 << 20
