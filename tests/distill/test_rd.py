from __future__ import annotations

import math
from typing import Any, ClassVar

import pytest
import torch
from scipy.stats import chisquare
from torch.nn import functional

from contracts import toys
from contracts.ranking import RankingContract, slopes
from recdistill.distill.rd import RD
from recdistill.losses import rank_discrepancy
from recdistill.models.mf import MF
from recdistill.runtime import generator
from recdistill.training.objective import Objective
from recdistill.types import Batch, Interactions


class TestRDInItsWarmUp(RankingContract):
    refused: ClassVar[list[dict[str, Any]]] = [
        {"weight": -0.1},
        {"items": 0},
        {"temperature": 0.0},
        {"steepness": 0.0},
        {"draws": 0},
        {"warm_up": -1},
        {"per": "item"},
    ]

    def make(self, **settings: Any) -> RD:
        return RD(**({"items": 5, "draws": 6} | settings))


class TestRDWithDynamicWeights(RankingContract):
    def make(self, **settings: Any) -> RD:
        return RD(**({"items": 5, "draws": 6, "warm_up": 0, "temperature": 3.0, "per": "row"} | settings))


def started(student: MF, seed: int = 0, **settings: Any) -> RD:
    distiller = RD(**({"items": 5, "draws": 6} | settings))
    distiller.prepare(toys.knowledge(), toys.interactions(), student, generator(seed, "distiller"))
    distiller.on_epoch_start(0, student, generator(seed, "distiller", 1))
    return distiller


SCORE, DRAWN = torch.tensor([[0.5, -0.3, 1.2]]), torch.tensor([[0.1, 0.7, -0.5, 1.5]])


def test_the_worked_example() -> None:
    place = torch.tensor([[math.exp(-k) for k in (1, 2, 3)]])
    place = place / place.sum()
    assert place[0].tolist() == pytest.approx([0.665241, 0.244728, 0.090031], abs=1e-6)
    term = functional.softplus(-SCORE)
    assert (place * term).sum().item() == pytest.approx(0.548164, abs=1e-6)
    dynamic = rank_discrepancy((DRAWN.unsqueeze(1) > SCORE.unsqueeze(2)).sum(2), 4, 11, 0.1)
    assert dynamic[0].tolist() == pytest.approx([0.462117, 0.537050, 0.0], abs=1e-6)
    assert (place * dynamic * term).sum().item() == pytest.approx(0.258029, abs=1e-6)
    again = place * dynamic / (place * dynamic).sum()
    assert (again * term).sum().item() == pytest.approx(0.587966, abs=1e-6)


def test_the_worked_example_comes_out_of_the_distiller() -> None:
    """One user, eleven items, the teacher's first three in order, and the example's scores."""
    found = {}
    for name, settings in {
        "static": {"warm_up": 1},
        "hybrid": {"warm_up": 0},
        "renormalised": {"warm_up": 0, "renormalise": True},
        "quirks": {"warm_up": 0, "reference_quirks": True},
    }.items():
        distiller = RD(weight=1.0, items=3, draws=4, **settings)
        student = MF(dim=1)
        nobody = Interactions(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), 1, 11)
        student.prepare(nobody, generator(0, "model"))
        with torch.no_grad():
            student.user_table.fill_(1.0)
            student.item_table[:7, 0] = torch.cat([SCORE, DRAWN], 1)
        knowledge = toys.knowledge()
        labels = knowledge.one()
        labels.item[0, :3] = torch.tensor([0, 1, 2])
        distiller.prepare(knowledge, nobody, student, generator(0, "distiller"))
        distiller.on_epoch_start(0, student, generator(0, "distiller", 1))
        distiller.drawn = torch.tensor([[3, 4, 5, 6]])
        batch = Batch(torch.tensor([0]), torch.tensor([0]), torch.tensor([[1]]))
        found[name] = distiller(student.scorer(), batch)["rd"].item()
    assert found["static"] == pytest.approx(0.548164, abs=1e-6)
    assert found["hybrid"] == pytest.approx(0.258029, abs=1e-6)
    assert found["renormalised"] == pytest.approx(0.587966, abs=1e-6)
    quirk = [a * math.tanh(0.1 * (r + 1 - k)) for k, (a, r) in enumerate([(0.665241, 5), (0.244728, 7), (0.090031, 2)])]
    terms = functional.softplus(-SCORE)[0].tolist()
    expected = sum(w * t for w, t in zip(quirk, terms, strict=True)) / sum(quirk) / 3
    assert found["quirks"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("per", ["user", "row"])
@pytest.mark.parametrize("warm_up", [0, 3])
def test_the_term_equals_a_slow_loop(warm_up: int, per: str) -> None:
    student, batch = toys.model(seed=7).double(), toys.batch()
    distiller = started(student, weight=0.3, warm_up=warm_up, temperature=2.0, steepness=0.2, per=per)
    labels = toys.knowledge().one()
    score = student.scorer().all_scores(torch.arange(toys.N_USERS)).tolist()
    losses: dict[int, float] = {}
    for user in set(batch.user.tolist()):
        listed = labels.item[user, : min(5, int(labels.length[user]))].tolist()
        place = [math.exp(-k / 2.0) for k in range(1, len(listed) + 1)]
        losses[user] = 0.0
        for k, item in enumerate(listed):
            weight = place[k] / sum(place)
            if warm_up == 0:
                above = sum(score[user][q] > score[user][item] for q in distiller.drawn[user].tolist())
                rank = (toys.N_ITEMS - 1) * above // 6
                weight *= max(0.0, math.tanh(0.2 * (rank - k)))
            losses[user] += weight * math.log1p(math.exp(-score[user][item]))
    counted = batch.user.tolist() if per == "row" else list(losses)
    expected = 0.3 * sum(losses[user] for user in counted) / len(counted)
    assert distiller(student.scorer(), batch)["rd"].item() == pytest.approx(expected, rel=1e-6)


def test_raising_an_item_of_the_teachers_list_lowers_the_loss() -> None:
    student, user = toys.model(seed=7), 2
    distiller = started(student)
    slope = slopes(distiller, student, user)
    listed = set(distiller.top[user].tolist())
    assert all((slope[item] < 0) == (item in listed) for item in range(toys.N_ITEMS))


def test_an_item_that_the_student_ranks_lower_weighs_more() -> None:
    low, high = rank_discrepancy(torch.tensor([[47, 3]]), 50, 101, 0.01)[0].tolist()
    assert low > high > 0


def test_a_student_who_agrees_gets_no_weight_and_a_finite_loss() -> None:
    for renormalise in (False, True):
        student = toys.model(seed=1)  # the teacher itself
        distiller = started(student, items=1, warm_up=0, renormalise=renormalise, draws=200)
        rows = toys.batch()
        term = distiller(student.scorer(), rows)["rd"]
        term.backward()
        assert term == 0
        assert student.item_table.grad.isfinite().all()


def test_warm_up_ends_with_its_last_epoch() -> None:
    student = toys.model()
    distiller = started(student, warm_up=2)
    dynamic = []
    for epoch in range(4):
        distiller.on_epoch_start(epoch, student, generator(0, "distiller", epoch + 1))
        dynamic.append(distiller.dynamic)
    assert dynamic == [False, False, True, True]


def test_place_weights_sum_to_one_for_short_lists_too() -> None:
    distiller = started(toys.model(), items=8, temperature=4.0)
    assert toys.knowledge().one().length[toys.FULL_USER] == 2
    assert distiller.by_place.sum(1).tolist() == pytest.approx([1.0] * toys.N_USERS)
    assert (distiller.by_place[toys.FULL_USER, 2:] == 0).all()


def test_drawn_items_are_unseen_and_uniform() -> None:
    draws = 20_000
    distiller = started(toys.model(), draws=draws)
    data = toys.interactions()
    for user in range(toys.N_USERS):
        seen = data.item[data.user == user]
        count = distiller.drawn[user].bincount(minlength=toys.N_ITEMS)
        assert count[seen].sum() == 0
        unseen = torch.ones(toys.N_ITEMS, dtype=torch.bool).index_fill(0, seen, False)
        assert chisquare(count[unseen].numpy()).pvalue > 1e-6


def test_the_base_loss_is_kept_unless_the_quirks_of_a_published_comparison_are_asked_for() -> None:
    student = toys.model()
    assert list(Objective(student, started(student), 0.0)(toys.batch())) == ["base", "rd"]
    assert list(Objective(student, started(student, reference_quirks=True), 0.0)(toys.batch())) == ["rd"]
    nothing = started(student, reference_quirks=True, weight=0.0)
    assert list(Objective(student, nothing, 0.1)(toys.batch())) == ["base", "weight_decay"]
