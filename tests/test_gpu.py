"""What the CPU computes, a CUDA device computes too; run with `-m gpu`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from contracts import accelerator, cuda, toys
from contracts.accelerator import CONTROLS, DISTILLERS, trained
from recdistill import catalogue
from recdistill.dataset.sampling import SeenItems
from recdistill.runtime import free_memory, memory_line, start
from recdistill.training.feed import Feed

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
DEVICES = ("cpu", "cuda")
CASES = {name: case for name, case in accelerator.cases().items() if name not in CONTROLS}


@pytest.fixture(autouse=True)
def _as_a_run_begins() -> None:
    start("cuda", 1, 0)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_holds_on_the_pretend_accelerator_holds_here(
    case: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accelerator, "place", cuda)
    monkeypatch.setattr(catalogue, "DEVICE_BYTES", 5 * 4 * toys.N_ITEMS)
    case()


def test_torch_tells_of_a_step_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "place", cuda)
    with pytest.raises(RuntimeError, match="synchronizing"):
        accelerator.train("mf-bpr", "control-sync")


@pytest.mark.parametrize("distiller", DISTILLERS)
def test_with_the_draws_of_the_device_a_training_is_the_same_twice_but_for_the_order_of_sums(distiller: str) -> None:
    one, two = (trained("mf-bpr", distiller, "adam", torch.device("cuda:0")) for _ in range(2))
    accelerator.agree(one, two)


def test_memory_that_torch_keeps_is_free_and_the_line_tells_it() -> None:
    device = torch.device("cuda")
    before = free_memory(device)
    block = torch.empty(1 << 28, dtype=torch.uint8, device=device)
    assert free_memory(device) <= before - (1 << 28)
    del block
    assert abs(free_memory(device) - before) < 1 << 26
    assert memory_line({"lists": 1}, device).endswith(" GB free on cuda")


def test_an_epoch_of_batches_holds_every_interaction_with_unseen_negatives() -> None:
    data = toys.interactions()
    seen = set(zip(data.user.tolist(), data.item.tolist(), strict=True))
    batches = list(Feed(data, batch_size=8, negatives=3, seed=0, device=torch.device("cuda")).epoch(1))
    key = torch.cat([batch.user * toys.N_ITEMS + batch.positive for batch in batches]).cpu()
    assert key.sort().values.equal(data.user * toys.N_ITEMS + data.item)
    for batch in batches:
        for user, negatives in zip(batch.user.tolist(), batch.negative.tolist(), strict=True):
            assert not seen & {(user, item) for item in negatives}


@pytest.mark.parametrize("rows", [list(range(12)), [11], [10], [3, 3, 11]])
def test_seen_pairs_agree_but_for_padding(rows: list[int]) -> None:
    pairs: list[set[tuple[int, int]]] = []
    for device in DEVICES:
        row, item = SeenItems(toys.interactions(), device).flat(torch.tensor(rows, device=device))
        pairs.append({pair for pair in zip(row.tolist(), item.tolist(), strict=True) if pair[0] < len(rows)})
    assert pairs[0] == pairs[1]
