from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contracts import shelf, toys
from recdistill.dataset.sampling import SeenItems
from recdistill.distill.base import Distiller
from recdistill.distill.none import NoDistillation
from recdistill.errors import ConfigError
from recdistill.models.base import InnerProductScorer
from recdistill.ranking import top_k, top_k_and_ranks
from recdistill.runtime import (
    device_record,
    faster_ranking_threads,
    for_ranking,
    free_memory,
    generator,
    memory_line,
    peak_memory,
    start,
)
from recdistill.soft_labels.extract import Layout, extract
from recdistill.training.trainer import resident_bytes
from recdistill.types import Interactions


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    start("cpu", before, 0)


def test_starting_on_the_cpu_sets_threads_and_says_so_in_one_line() -> None:
    runtime = start("cpu", 2, 7)
    assert torch.get_num_threads() == 2
    assert runtime.line() == "device=cpu, dtype=float32, threads=2, seed=7"


def test_ranking_has_its_own_threads_and_is_strict_and_training_goes_on_as_before() -> None:
    runtime = start("cpu", 1, 7, ranking_threads=2, matmul="fast")
    training = torch.get_float32_matmul_precision()
    assert "threads=1 (ranking: 2), matmul=" in runtime.line()
    with for_ranking():
        assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == (2, "highest")
    assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == (1, training)


def test_lists_are_ranked_and_extracted_with_the_settings_of_ranking() -> None:
    start("cpu", 1, 0, ranking_threads=2)
    seen: list[int] = []

    class Watched(InnerProductScorer):
        def all_scores(self, user: torch.Tensor) -> torch.Tensor:
            seen.append(torch.get_num_threads())
            return super().all_scores(user)

    data = toys.interactions()
    scorer = Watched(torch.ones(toys.N_USERS, 2), torch.ones(toys.N_ITEMS, 2))
    user = torch.arange(toys.N_USERS)
    top_k(scorer, SeenItems(data), user, toys.N_ITEMS, 3)
    top_k_and_ranks(scorer, SeenItems(data), data, user, toys.N_ITEMS, 3)
    extract(scorer, SeenItems(data), user, Layout(toys.N_ITEMS, 3))
    assert seen == [2, 2, 2]


def test_ranking_takes_one_thread_or_all_cores_and_leaves_the_threads_of_training_alone() -> None:
    before = torch.get_num_threads()
    assert faster_ranking_threads("cpu") in (None, len(os.sched_getaffinity(0)))
    assert torch.get_num_threads() == before
    assert faster_ranking_threads("cuda") is None  # there the host only waits


@pytest.mark.parametrize("dim", [8, 64, 200])
@pytest.mark.parametrize("n_items", [1_682, 20_000])
def test_lists_ranks_and_soft_labels_are_the_same_bits_with_one_thread_and_with_two(n_items: int, dim: int) -> None:
    draws = torch.Generator().manual_seed(0)
    users, items = (torch.randn(rows, dim, generator=draws) for rows in (300, n_items))
    user, scorer = torch.arange(300), InnerProductScorer(users, items)
    held_out = Interactions(user, user * 2, 300, n_items)
    seen = SeenItems(Interactions(user, user * 2 + 1, 300, n_items))
    found = []
    for threads in (1, 2):
        start("cpu", 1, 0, ranking_threads=threads)
        lists, ranks = top_k_and_ranks(scorer, seen, held_out, user, n_items, 20)
        labels = extract(scorer, seen, user, Layout(n_items, 100))
        found.append([lists.item, lists.score, ranks.rank, *map(torch.from_numpy, labels.values())])
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


def test_a_fast_product_is_used_only_where_it_is_faster_and_as_exact() -> None:
    found = start("cpu", 1, 0, matmul="fast").matmul
    assert found is not None
    assert torch.get_float32_matmul_precision() == found.used
    assert (found.used == "medium") == (found.speedup >= 1.5 and found.fast_error <= 2 * found.error)
    assert 0 < found.error < 1e-3
    assert start("cpu", 1, 0).matmul is None
    assert torch.get_float32_matmul_precision() == "highest"


def test_what_a_training_keeps_is_told_beside_what_is_free() -> None:
    line = memory_line({"weights": 2_500_000, "lists": 1_000_000}, torch.device("cpu"))
    assert line.startswith("memory: weights 2.5 MB, lists 1.0 MB; ")
    assert line.endswith(" GB free on cpu")


def test_the_record_of_a_run_on_a_gpu_names_the_card_and_the_most_that_it_held(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_record(torch.device("cpu")) == {"device": "cpu"}
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"card of {device}")
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 5)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    found = device_record(torch.device("cuda:1"))
    assert found == {"device": "cuda:1", "gpu": "card of cuda:1", "cuda": "12.8", "peak_gpu_bytes": 5}


def test_what_torch_keeps_for_reuse_on_a_gpu_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"mem_get_info": (10, 100), "memory_reserved": 60, "memory_allocated": 25}.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert free_memory(torch.device("cuda")) == 10 + 60 - 25


def test_what_lies_on_a_gpu_already_is_not_needed_a_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    gb = 1_000_000_000
    for name, value in {"mem_get_info": (3 * gb, 0), "memory_reserved": 5 * gb, "memory_allocated": 5 * gb}.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    device = torch.device("cuda")
    assert memory_line({"lists": 7 * gb}, device) == "memory: lists 7,000.0 MB; 3.0 GB free on cuda"
    with pytest.raises(ConfigError, match=r"9.0 GB are needed on cuda: lists 9,000.0 MB; there are 8.0 GB") as caught:
        memory_line({"lists": 9 * gb}, device)
    assert "device=cpu" in caught.value.fix


def test_a_training_counts_its_weights_five_times_and_its_triplets_by_their_negatives() -> None:
    found = resident_bytes(toys.model(), NoDistillation(), toys.interactions(), negatives=3)
    assert found["weights and optimizer"] == 5 * 4 * 4 * (toys.N_USERS + toys.N_ITEMS)
    assert found["interactions and an epoch of triplets"] == 8 * (7 + 3 * 3) * len(toys.interactions())
    assert found["graph and lists"] == 0


@pytest.mark.parametrize("distiller", shelf.distillers())
def test_a_training_counts_every_tensor_that_its_distiller_holds_once(distiller: str) -> None:
    several = distiller == "curriculum"
    student, method = toys.model(), shelf.distillers()[distiller]()
    knowledge = toys.knowledge(2 if several else 1, 3 if several else 1, request=method.group_lists)
    method.prepare(knowledge, toys.interactions(), student, generator(0, "distiller"))
    found = resident_bytes(student, method, toys.interactions(), negatives=1)["graph and lists"]
    assert found == storages(method)


@pytest.mark.parametrize(("guide", "width"), [("student", 0), ("random", 0), ("teacher", 8)])
def test_of_a_ranking_only_what_a_distiller_reads_goes_to_the_device(guide: str, width: int) -> None:
    for name, settings in {"cd": {"items": 3, "pool": 8}, "ce_kd": {"items": 8}}.items():
        if name == "ce_kd" and guide == "random":
            continue
        method: Any = shelf.distillers()[name](guide=guide, **settings)
        method.prepare(toys.knowledge(), toys.interactions(), toys.model(), generator(0, "distiller"))
        assert method.labels.item.shape == method.labels.score.shape == (toys.N_USERS, width)
        assert method.labels.length.max() <= width


def storages(method: Distiller) -> int:
    """Bytes of all that is reached from an object, as the garbage collector follows it, without parameters."""
    reached, todo, sizes = set(), [method], {}
    while todo:
        one = todo.pop()
        if id(one) in reached or isinstance(one, type | ModuleType | FunctionType | nn.Parameter):
            continue
        reached.add(id(one))
        if isinstance(one, Tensor):
            sizes[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()
        todo += gc.get_referents(one)
    return sum(sizes.values())


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
