from __future__ import annotations

import math
from typing import Any, ClassVar

import pytest
import torch

from contracts import toys
from contracts.ranking import RankingContract
from recdistill.distill.rrd import RRD
from recdistill.errors import ConfigError
from recdistill.losses import plackett_luce, relaxed_ranking
from recdistill.models.mf import MF
from recdistill.runtime import generator
from recdistill.types import Batch, Interactions, Knowledge


class TestRRDWithTopItemsAboveAllOthers(RankingContract):
    refused: ClassVar[list[dict[str, Any]]] = [
        {"weight": -0.1},
        {"interesting": 0},
        {"interesting": 9, "depth": 8},
        {"uninteresting": 0},
        {"temperature": 0.0},
        {"draw": "best"},
        {"rest": "none"},
    ]

    def make(self, **settings: Any) -> RRD:
        return RRD(**({"interesting": 4, "depth": 8} | settings))


class TestRRDAsPublished(RankingContract):
    def make(self, **settings: Any) -> RRD:
        common: dict[str, Any] = {"interesting": 3, "uninteresting": 2, "depth": 6, "temperature": 3.0}
        return RRD(**(common | {"draw": "sampled", "rest": "sampled"} | settings))


class TestRRDWithDrawnItemsAboveAllOthers(RankingContract):
    def make(self, **settings: Any) -> RRD:
        return RRD(**({"interesting": 3, "depth": 6, "draw": "sampled"} | settings))


def started(student: MF, seed: int = 0, **settings: Any) -> RRD:
    distiller = RRD(**settings)
    distiller.prepare(toys.knowledge(), toys.interactions(), student, generator(seed, "distiller"))
    distiller.on_epoch_start(0, student, generator(seed, "distiller", 1))
    return distiller


def seen_items() -> list[set[int]]:
    data = toys.interactions()
    return [set(data.item[data.user == user].tolist()) for user in range(toys.N_USERS)]


def slow_list_loss(interesting: list[float], rest: list[float]) -> float:
    total = 0.0
    for k in range(len(interesting)):
        mass = sum(math.exp(value) for value in interesting[k:]) + sum(math.exp(value) for value in rest)
        total += math.log(mass) - interesting[k]
    return total


def test_the_worked_example() -> None:
    interesting, rest = torch.tensor([[1.0, 0.5]]), torch.tensor([[0.0, -1.0]])
    assert relaxed_ranking(interesting, rest).item() == pytest.approx(1.350698, abs=1e-6)
    assert relaxed_ranking(interesting.flip(1), rest).item() == pytest.approx(1.654173, abs=1e-6)
    assert relaxed_ranking(interesting + 100, rest + 100).item() == pytest.approx(1.350698, abs=1e-4)
    assert plackett_luce(interesting, rest.logsumexp(1)).item() == pytest.approx(1.350698, abs=1e-6)


@pytest.mark.parametrize("draw", ["top", "sampled"])
def test_the_term_with_all_others_below_equals_a_slow_loop(draw: str) -> None:
    student = toys.model(seed=7).double()
    distiller = started(student, weight=0.3, interesting=5, depth=9, draw=draw)
    labels, seen, batch = toys.knowledge().one(), seen_items(), toys.batch()
    score = student.scorer().all_scores(torch.arange(toys.N_USERS)).tolist()
    losses = []
    for user in sorted(set(batch.user.tolist())):
        kept = distiller.kept[user][distiller.kept_valid[user]].tolist()
        if draw == "top":
            assert kept == labels.item[user, : min(5, labels.length[user])].tolist()
        rest = set(range(toys.N_ITEMS)) - seen[user] - set(kept)
        losses.append(slow_list_loss([score[user][i] for i in kept], [score[user][i] for i in rest]))
    expected = 0.3 * sum(losses) / len(losses)
    found = distiller(student.scorer(), batch)["rrd"]
    assert found.item() == pytest.approx(expected, rel=1e-6)  # the users' weights are float32


@pytest.mark.parametrize("draw", ["top", "sampled"])
def test_the_term_with_drawn_others_below_equals_a_slow_loop(draw: str) -> None:
    student = toys.model(seed=7).double()
    settings = {"interesting": 4, "uninteresting": 3, "depth": 6, "temperature": 3.0}
    distiller = started(student, weight=1.0, draw=draw, rest="sampled", **settings)
    batch = toys.batch()
    score = student.scorer().all_scores(torch.arange(toys.N_USERS)).tolist()
    losses = []
    for user in sorted(set(batch.user.tolist())):
        kept = distiller.kept[user][distiller.kept_valid[user]].tolist()
        below = distiller.below[user][distiller.below_valid[user]].tolist()
        losses.append(slow_list_loss([score[user][i] for i in kept], [score[user][i] for i in below]))
    found = distiller(student.scorer(), batch)["rrd"]
    assert found.item() == pytest.approx(sum(losses) / len(losses), rel=1e-6)


def test_the_gradient_with_all_others_below_is_that_of_the_plain_formula() -> None:
    student, twin, batch = (*(toys.model(seed=7).double() for _ in range(2)), toys.batch())
    distiller = started(student, weight=1.0, interesting=4, depth=8)
    distiller(student.scorer(), batch)["rrd"].backward()
    score, seen = twin.scorer().all_scores(torch.arange(toys.N_USERS)), seen_items()
    users = sorted(set(batch.user.tolist()))
    total = score.new_zeros(())
    for user in users:
        kept = distiller.kept[user][distiller.kept_valid[user]]
        rest = sorted(set(range(toys.N_ITEMS)) - seen[user] - set(kept.tolist()))
        for k in range(len(kept)):
            total = total + torch.cat([score[user, kept[k:]], score[user, rest]]).logsumexp(0) - score[user, kept[k]]
    (total / len(users)).backward()
    for mine, theirs in zip(student.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-6, atol=1e-8)


def test_nothing_that_is_seen_or_in_the_teachers_list_is_drawn_as_uninteresting() -> None:
    student, labels, seen = toys.model(), toys.knowledge().one(), seen_items()
    for seed in range(5):
        distiller = started(student, seed, interesting=3, uninteresting=4, depth=6, draw="sampled", rest="sampled")
        for user in range(toys.N_USERS):
            listed = labels.item[user, : min(6, int(labels.length[user]))].tolist()
            kept = distiller.kept[user][distiller.kept_valid[user]].tolist()
            below = distiller.below[user][distiller.below_valid[user]].tolist()
            outside = set(range(toys.N_ITEMS)) - seen[user] - set(listed)
            assert len(kept) == min(3, len(listed))
            assert [i for i in listed if i in kept] == kept  # in the teacher's order
            assert len(set(below)) == len(below) == min(4, len(outside))
            assert set(below) <= outside


def test_draws_are_made_anew_every_epoch() -> None:
    student = toys.model()
    distiller = started(student, interesting=3, uninteresting=2, depth=8, draw="sampled", rest="sampled")
    kept, below = distiller.kept.clone(), distiller.below.clone()
    distiller.on_epoch_start(1, student, generator(0, "distiller", 2))
    assert not distiller.kept.equal(kept)
    assert not distiller.below.equal(below)


def test_raising_the_teachers_first_item_lowers_the_loss_and_raising_another_raises_it() -> None:
    student, labels = toys.model(seed=7), toys.knowledge().one()
    distiller, user = started(student, interesting=4, depth=8), 2
    one = Batch(torch.tensor([user]), torch.tensor([0]), torch.tensor([[1]]))
    first = int(labels.item[user, 0])
    kept = labels.item[user, :4].tolist()
    other = next(i for i in range(toys.N_ITEMS) if i not in kept and i not in seen_items()[user])
    scorer = student.scorer()
    vectors = scorer.item_vectors.detach().clone().requires_grad_()
    scorer.item_vectors = vectors
    distiller(scorer, one)["rrd"].backward()
    slope = vectors.grad @ scorer.user_vectors[user].detach()  # along the user's vector an item's score rises
    assert slope[first] < 0
    assert slope[other] > 0
    assert all(slope[i] == 0 for i in seen_items()[user])


@pytest.mark.parametrize("rest", ["all", "sampled"])
def test_users_with_fewer_unseen_items_than_wanted_have_a_finite_gradient(rest: str) -> None:
    student = toys.model()
    distiller = started(student, interesting=12, uninteresting=30, depth=12, rest=rest)
    assert distiller.kept_valid.sum(1)[toys.FULL_USER] == 2
    for user in (toys.FULL_USER, toys.LONELY_USER):
        student.zero_grad()
        term = distiller(student.scorer(), Batch(torch.tensor([user]), torch.tensor([0]), torch.tensor([[1]])))["rrd"]
        term.backward()
        assert term.isfinite()
        assert student.item_table.grad.isfinite().all()
        assert student.item_table.grad.abs().sum() > 0


@pytest.mark.parametrize("rest", ["all", "sampled"])
def test_a_user_who_has_seen_everything_adds_nothing(rest: str) -> None:
    data = toys.interactions()
    user = torch.cat([data.user[data.user != 0], torch.zeros(toys.N_ITEMS, dtype=torch.int64)])
    item = torch.cat([data.item[data.user != 0], torch.arange(toys.N_ITEMS)])
    order = (user * toys.N_ITEMS + item).argsort()
    full = Interactions(user[order], item[order], toys.N_USERS, toys.N_ITEMS)
    labels = toys.knowledge().one()
    labels.length[0] = 0
    labels.item[0] = 0
    student = toys.model()
    distiller = RRD(weight=1.0, interesting=4, uninteresting=3, depth=8, rest=rest)
    knowledge = toys.knowledge()
    object.__setattr__(next(iter(knowledge.teachers.values())), "checkpoints", (labels,))
    distiller.prepare(knowledge, full, student, generator(0, "distiller"))
    distiller.on_epoch_start(0, student, generator(0, "distiller", 1))
    term = distiller(student.scorer(), Batch(torch.tensor([0]), torch.tensor([0]), torch.tensor([[1]])))["rrd"]
    term.backward()
    assert term == 0
    assert student.item_table.grad.isfinite().all()
    assert student.item_table.grad.abs().sum() == 0


def test_repeated_rows_of_a_user_count_once() -> None:
    student = toys.model()
    distiller = started(student, interesting=4, depth=8)
    one = Batch(torch.tensor([1, 3]), torch.tensor([0, 0]), torch.tensor([[1], [1]]))
    many = Batch(torch.tensor([3, 1, 3, 3]), torch.tensor([0] * 4), torch.tensor([[1]] * 4))
    torch.testing.assert_close(distiller(student.scorer(), many), distiller(student.scorer(), one))


def test_several_teachers_are_refused() -> None:
    knowledge: Knowledge = toys.knowledge(teachers=2)
    with pytest.raises(ConfigError, match="one teacher, but got 2"):
        RRD(interesting=4, depth=8).prepare(knowledge, toys.interactions(), toys.model(), generator(0, "distiller"))
