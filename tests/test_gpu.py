"""What the CPU computes, a CUDA device computes too; run with `-m gpu`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from contracts import toys
from contracts.accelerator import DISTILLERS, made
from recdistill.dataset.popularity import popularity_groups
from recdistill.dataset.sampling import SeenItems
from recdistill.ranking import top_k, top_k_and_ranks
from recdistill.runtime import generator
from recdistill.soft_labels.extract import Layout, extract
from recdistill.training.feed import Feed
from recdistill.training.objective import Objective
from recdistill.training.trainer import train_step
from recdistill.types import Batch

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
DEVICES = ("cpu", "cuda")
MODELS = ["mf-bpr", "mf-softmax", "lightgcn-bpr", "lightgcn-softmax"]


@pytest.fixture(autouse=True)
def _full_precision() -> None:
    torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("distiller", DISTILLERS)
@pytest.mark.parametrize("model", MODELS)
def test_terms_and_gradients_agree_and_a_step_never_waits(model: str, distiller: str) -> None:
    found: list[list[Tensor]] = []
    several = distiller == "curriculum"
    for device in DEVICES:
        student, method = made(model).to(device), DISTILLERS[distiller]()
        knowledge = toys.knowledge(2 if several else 1, 3 if several else 1, request=method.group_lists)
        method.prepare(knowledge, toys.interactions(), student, generator(0, "distiller"))
        method.to(device)
        method.on_epoch_start(0, student, generator(0, "distiller", 1, device))
        # Draws differ between devices: take those of the CPU.
        if device == "cpu":
            drawn = [{k: v for k, v in vars(m).items() if isinstance(v, Tensor)} for m in method.modules()]
        else:
            for module, values in zip(method.modules(), drawn, strict=True):
                vars(module).update({name: value.to(device) for name, value in values.items()})
        rows = toys.batch()
        batch = Batch(rows.user.to(device), rows.positive.to(device), rows.negative.to(device))
        objective = Objective(student, method, 0.1)
        terms = objective(batch)
        sum(terms.values()).backward()
        found.append([*terms.values(), *(p.grad for p in student.parameters())])
        optimizer = torch.optim.Adam(objective.parameters(), fused=True)
        train_step(objective, optimizer, batch)
        torch.cuda.set_sync_debug_mode("error" if device == "cuda" else "default")
        try:
            train_step(objective, optimizer, batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other.cpu(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", [*MODELS, "mostpop"])
def test_lists_and_ranks_agree(model: str) -> None:
    data = toys.interactions()
    layout = Layout(toys.N_ITEMS, 12, popularity_groups(data.popularity(), 3), 5)
    found: list[dict[str, np.ndarray]] = []
    for device in DEVICES:
        seen, user = SeenItems(data, device), torch.arange(toys.N_USERS, device=device)
        with torch.no_grad():
            scorer = made(model).to(device).scorer()
            fields = extract(scorer, seen, user, layout)
            lists, ranks = top_k_and_ranks(scorer, SeenItems(data, device), toys.interactions(), user, toys.N_ITEMS, 6)
            chunked = top_k(scorer, seen, user, toys.N_ITEMS, 6, 5)
        fields |= {"top": lists.item, "chunked": chunked.item, "n": lists.length, "rank": ranks.rank}
        found.append({name: torch.as_tensor(value).cpu().numpy() for name, value in fields.items()})
    for name, value in found[0].items():
        np.testing.assert_allclose(found[1][name], value, rtol=1e-5, atol=1e-6, err_msg=name)


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
