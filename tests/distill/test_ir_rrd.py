from __future__ import annotations

import math
from typing import Any, ClassVar

import pytest
import torch

from contracts import toys
from contracts.ranking import RankingContract
from recdistill.distill.ir_rrd import IRRRD
from recdistill.distill.rrd import RRD
from recdistill.losses import relaxed_ranking
from recdistill.models.mf import MF
from recdistill.runtime import generator
from recdistill.types import Batch, Knowledge

SMALL: dict[str, Any] = {"interesting": 4, "depth": 8, "interesting_users": 3, "user_depth": 6}
PUBLISHED: dict[str, Any] = SMALL | {"uninteresting": 2, "uninteresting_users": 2, "draw": "sampled", "rest": "sampled"}


class TestIRRRDWithTopUsersAboveAllOthers(RankingContract):
    refused: ClassVar[list[dict[str, Any]]] = [
        {"weight": -0.1},
        {"item_share": -1.0},
        {"interesting": 9},
        {"interesting_users": 0},
        {"interesting_users": 7},
        {"uninteresting_users": 0},
        {"user_depth": 0},
        {"items_per_step": 0},
        {"draw": "best"},
    ]

    def make(self, **settings: Any) -> IRRRD:
        return IRRRD(**(SMALL | settings))


class TestIRRRDAsPublished(RankingContract):
    def make(self, **settings: Any) -> IRRRD:
        return IRRRD(**(PUBLISHED | settings))


def started(student: MF, seed: int = 0, **settings: Any) -> IRRRD:
    distiller = IRRRD(**settings)
    distiller.prepare(toys.knowledge(), toys.interactions(), student, generator(seed, "distiller"))
    distiller.on_epoch_start(0, student, generator(seed, "distiller", 1))
    return distiller


def slow_list_loss(interesting: list[float], rest: list[float]) -> float:
    total = 0.0
    for k in range(len(interesting)):
        mass = sum(math.exp(value) for value in interesting[k:]) + sum(math.exp(value) for value in rest)
        total += math.log(mass) - interesting[k]
    return total


def test_the_worked_example() -> None:
    """Three users: the first two have not seen the item, and the teacher prefers them in this order."""
    assert relaxed_ranking(torch.tensor([[0.8, 0.2]]), torch.tensor([[-0.4]])).item() == pytest.approx(
        1.052677, abs=1e-6
    )
    knowledge, data, student = toys.crowd([1.0], [1.0], n_users=3)
    labels = knowledge.one()
    labels.transposed.item[0] = torch.tensor([0])
    distiller = IRRRD(
        weight=1.0, item_share=1.0, interesting=1, depth=1, interesting_users=1, user_depth=1, uninteresting_users=1
    )
    distiller.prepare(knowledge, data, student, generator(0, "distiller"))
    distiller.items.kept = torch.tensor([[0, 1]])
    distiller.items.kept_valid = torch.ones(1, 2, dtype=torch.bool)
    distiller.turn = torch.zeros(1)
    with torch.no_grad():
        student.user_table[:, 0] = torch.tensor([0.8, 0.2, -0.4])
    term = distiller(student.scorer(), Batch(torch.tensor([0]), torch.tensor([0]), torch.tensor([[0]])))["ir"]
    assert term.item() == pytest.approx(1.052677, abs=1e-6)


@pytest.mark.parametrize("settings", [SMALL, PUBLISHED], ids=["all", "sampled"])
@pytest.mark.parametrize("most", [100, 3])
def test_the_item_side_equals_a_slow_loop(settings: dict[str, Any], most: int) -> None:
    student, batch = toys.model(seed=7).double(), toys.batch(rows=3)
    distiller = started(student, weight=0.3, item_share=0.4, items_per_step=most, **settings)
    data = toys.interactions()
    score = student.scorer().all_scores(torch.arange(toys.N_USERS)).tolist()
    used: set[int] = set()
    for user in set(batch.user.tolist()):
        used |= set(distiller.users.kept[user][distiller.users.kept_valid[user]].tolist())
        if settings is PUBLISHED:
            used |= set(distiller.users.below[user][distiller.users.below_valid[user]].tolist())
    chosen = sorted(used, key=lambda item: distiller.turn[item].item())[:most]
    assert len(chosen) == min(most, len(used)) > 2
    losses = []
    for item in chosen:
        kept = distiller.items.kept[item][distiller.items.kept_valid[item]].tolist()
        if settings is PUBLISHED:
            below = distiller.items.below[item][distiller.items.below_valid[item]].tolist()
        else:
            below = sorted(set(range(toys.N_USERS)) - set(kept) - set(data.user[data.item == item].tolist()))
        losses.append(slow_list_loss([score[u][item] for u in kept], [score[u][item] for u in below]))
    found = distiller(student.scorer(), batch)
    assert found["ir"].item() == pytest.approx(0.3 * 0.4 * sum(losses) / len(losses), rel=1e-6)


def test_the_user_side_is_rrd() -> None:
    student, batch = toys.model(seed=7), toys.batch()
    plain = RRD(weight=0.3, interesting=4, depth=8)
    plain.prepare(toys.knowledge(), toys.interactions(), student, generator(0, "distiller"))
    both = started(student, weight=0.3, **SMALL)
    assert both(student.scorer(), batch)["rrd"].equal(plain(student.scorer(), batch)["rrd"])
    alone = started(student, weight=0.3, item_share=0.0, **SMALL)
    assert list(alone(student.scorer(), batch)) == ["rrd"]


def test_the_users_of_an_item_are_those_the_teacher_scores_highest_and_never_those_who_have_it() -> None:
    data, student = toys.interactions(), toys.model()
    teacher = toys.model(seed=1).scorer().all_scores(torch.arange(toys.N_USERS)).detach()
    have = set(zip(data.user.tolist(), data.item.tolist(), strict=True))
    top = started(student, **SMALL)
    for item in range(toys.N_ITEMS):
        others = [user for user in range(toys.N_USERS) if (user, item) not in have]
        ranked = sorted(others, key=lambda user: -float(teacher[user, item]))
        assert top.items.kept[item][top.items.kept_valid[item]].tolist() == ranked[:3]
        for seed in range(3):
            drawn = started(student, seed, **PUBLISHED)
            kept = drawn.items.kept[item][drawn.items.kept_valid[item]].tolist()
            below = drawn.items.below[item][drawn.items.below_valid[item]].tolist()
            assert kept == sorted(kept, key=ranked.index)
            assert set(kept) <= set(ranked[:6])
            assert set(below) <= set(ranked[6:])
            assert len(kept) == min(3, len(ranked))
            assert len(below) == min(2, len(ranked[6:]))


def test_raising_a_user_whom_the_teacher_prefers_for_an_item_lowers_the_item_term() -> None:
    student = toys.model(seed=7)
    distiller = started(student, **SMALL)
    scorer = student.scorer()
    users = scorer.user_vectors.detach().clone().requires_grad_()
    scorer.user_vectors = users
    one = Batch(torch.tensor([2]), torch.tensor([0]), torch.tensor([[1]]))
    item = int(distiller.users.kept[2, 0])
    distiller.turn = torch.ones(toys.N_ITEMS).index_fill(0, torch.tensor([item]), 0.0)
    distiller.items_per_step = 1
    distiller(scorer, one)["ir"].backward()
    slope = users.grad @ scorer.item_vectors[item].detach()
    kept = distiller.items.kept[item].tolist()
    assert slope[kept[0]] < 0
    data = toys.interactions()
    have = data.user[data.item == item].tolist()
    assert all(slope[user] == 0 for user in have)
    assert all(slope[user] > 0 for user in set(range(toys.N_USERS)) - set(have) - set(kept))


def test_a_batch_whose_users_have_no_unseen_item_has_no_item_side() -> None:
    knowledge, data, student = toys.crowd([1.0, 2.0], [0.5, 0.3], seen=[0, 1])
    for settings in (SMALL, PUBLISHED):
        distiller = IRRRD(**(settings | {"depth": 4}))
        distiller.prepare(knowledge, data, student, generator(0, "distiller"))
        distiller.on_epoch_start(0, student, generator(0, "distiller", 1))
        terms = distiller(student.scorer(), Batch(torch.tensor([0]), torch.tensor([0]), torch.tensor([[1]])))
        sum(terms.values()).backward()
        assert [value.item() for value in terms.values()] == [0.0, 0.0]
        assert student.item_table.grad.isfinite().all()


def test_which_items_a_crowded_step_takes_changes_every_epoch() -> None:
    student = toys.model()
    distiller = started(student, items_per_step=2, **SMALL)
    found = set()
    for epoch in range(10):
        distiller.on_epoch_start(epoch, student, generator(0, "distiller", epoch))
        found.add(tuple(sorted(distiller._used(toys.batch().user)[0].tolist())))
    assert len(found) > 3


def test_it_asks_for_users_per_item() -> None:
    assert IRRRD().user_depth == 200
    assert "vectors" in IRRRD.requires
    knowledge: Knowledge = toys.knowledge()
    assert knowledge.one().transposed.item.shape == (toys.N_ITEMS, 12)
