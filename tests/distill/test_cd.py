from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from contracts import toys
from contracts.ranking import RankingContract, slopes
from recdistill.distill.cd import CD
from recdistill.losses import soft_binary_cross_entropy
from recdistill.models.mf import MF
from recdistill.runtime import generator
from recdistill.types import Batch

GUIDES = ["student", "teacher", "random"]
CROWD = 100_000


class TestCDGuidedByTheStudent(RankingContract):
    refused: ClassVar[list[dict[str, Any]]] = [
        {"weight": -1.0},
        {"items": 0},
        {"pool": 49},
        {"rate": 0.0},
        {"temperature": 0.0},
        {"guide": "nobody"},
        {"per": "item"},
    ]

    def make(self, **settings: Any) -> CD:
        return CD(**settings) if settings.keys() & {"pool", "items"} else CD(items=4, pool=8, **settings)


class TestCDGuidedByTheTeacher(RankingContract):
    def make(self, **settings: Any) -> CD:
        return CD(**({"items": 4, "pool": 8, "guide": "teacher", "per": "row"} | settings))


class TestCDGuidedByNobody(RankingContract):
    def make(self, **settings: Any) -> CD:
        return CD(**({"items": 4, "pool": 8, "guide": "random"} | settings))


def started(student: MF, seed: int = 0, **settings: Any) -> CD:
    distiller = CD(**({"items": 4, "pool": 8} | settings))
    distiller.prepare(toys.knowledge(), toys.interactions(), student, generator(seed, "distiller"))
    distiller.on_epoch_start(0, student, generator(seed, "distiller", 1))
    return distiller


def test_the_worked_example() -> None:
    knowledge, data, student = toys.crowd([2.0, -1.0], [0.5, 0.5])
    distiller = CD(weight=1.0, items=2, pool=2)
    distiller.prepare(knowledge, data, student, generator(0, "distiller"))
    distiller.on_epoch_start(0, student, generator(0, "distiller", 1))
    assert sorted(distiller.target[0].tolist()) == pytest.approx([0.377541, 0.731059], abs=1e-6)
    term = distiller(student.scorer(), Batch(torch.tensor([0]), torch.tensor([0]), torch.tensor([[1]])))["cd"]
    assert term.item() == pytest.approx(0.696927, abs=1e-6)
    assert 2 * term.item() == pytest.approx(1.393854, abs=1e-6)  # the paper's sum
    first = soft_binary_cross_entropy(torch.tensor([[0.731059]]), torch.tensor([[0.5]]), torch.tensor([[True]]))
    assert first.item() == pytest.approx(0.608548, abs=1e-6)


@pytest.mark.parametrize("guide", GUIDES)
@pytest.mark.parametrize("per", ["user", "row"])
def test_the_term_equals_a_slow_loop(guide: str, per: str) -> None:
    student, batch = toys.model(seed=7), toys.batch()
    distiller = started(student, weight=0.3, temperature=1.5, shift=0.4, guide=guide, per=per)
    student.double()
    labels, everybody = toys.knowledge().one(), torch.arange(toys.N_USERS)
    score = student.scorer().all_scores(everybody).tolist()
    teacher = (labels.user_vectors.double() @ labels.item_vectors.double().T).tolist()
    losses = {}
    for user in set(batch.user.tolist()):
        terms = []
        for item in distiller.item[user][distiller.valid[user]].tolist():
            q, s = 1 / (1 + math.exp(-(teacher[user][item] + 0.4) / 1.5)), score[user][item]
            terms.append(q * math.log1p(math.exp(-s)) + (1 - q) * math.log1p(math.exp(s)))
        losses[user] = sum(terms) / max(len(terms), 1)
    counted = batch.user.tolist() if per == "row" else list(losses)
    expected = 0.3 * sum(losses[user] for user in counted) / len(counted)
    assert distiller(student.scorer(), batch)["cd"].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("guide", GUIDES)
def test_drawn_items_are_different_unseen_ones_from_the_guides_pool(guide: str) -> None:
    data, student = toys.interactions(), toys.model(seed=7)
    seen = set(zip(data.user.tolist(), data.item.tolist(), strict=True))
    guiding = (toys.model(seed=1) if guide == "teacher" else student).scorer().all_scores(torch.arange(toys.N_USERS))
    guiding = guiding.detach()
    for seed in range(10):
        distiller = started(student, seed, guide=guide)
        for user in range(toys.N_USERS):
            drawn = distiller.item[user][distiller.valid[user]].tolist()
            unseen = [item for item in range(toys.N_ITEMS) if (user, item) not in seen]
            pool = sorted(unseen, key=lambda item: -float(guiding[user, item]))[: 8 if guide != "random" else None]
            assert set(drawn) <= set(pool)
            assert len(set(drawn)) == len(drawn) == min(4, len(unseen))


@pytest.mark.parametrize("guide", GUIDES)
def test_the_draw_follows_the_stated_law(guide: str) -> None:
    """Many users who are all alike: one draw each."""
    student_scores, teacher_scores = [5.0, 4, 3, 2, 1, 0], [0.0, 1, 2, 3, 4, 5]
    knowledge, data, student = toys.crowd(teacher_scores, student_scores, CROWD, seen=[3])
    distiller = CD(items=1, pool=4, rate=2.0, guide=guide)
    distiller.prepare(knowledge, data, student, generator(0, "distiller"))
    distiller.on_epoch_start(0, student, generator(0, "distiller", 1))
    ranking = {"student": [0, 1, 2, 4], "teacher": [5, 4, 2, 1], "random": [0, 1, 2, 4, 5]}[guide]
    law = np.exp(-2.0 * np.arange(len(ranking)) / 4) if guide != "random" else np.ones(5)
    count = distiller.item.flatten().bincount(minlength=6).numpy()
    assert count[ranking].sum() == CROWD
    assert chisquare(count[ranking], CROWD * law / law.sum()).pvalue > 1e-6


def test_raising_an_item_above_the_teachers_probability_costs_and_below_it_pays() -> None:
    student = toys.model(seed=7)
    distiller = started(student)
    user = 2
    slope = slopes(distiller, student, user)
    score = student.scorer().all_scores(torch.tensor([user]))[0].sigmoid()
    drawn = distiller.item[user].tolist()
    for item, target in zip(drawn, distiller.target[user].tolist(), strict=True):
        assert (slope[item] < 0) == (score[item] < target)
    assert all(slope[item] == 0 for item in set(range(toys.N_ITEMS)) - set(drawn))


def test_a_student_that_gives_the_teachers_probabilities_has_no_gradient() -> None:
    student = toys.model(seed=1)
    distiller = started(student, temperature=1.0)
    distiller(student.scorer(), toys.batch())["cd"].backward()
    assert student.item_table.grad.abs().max() < 1e-6


@pytest.mark.parametrize("guide", GUIDES)
def test_a_user_with_fewer_unseen_items_than_wanted_draws_those(guide: str) -> None:
    student = toys.model()
    distiller = started(student, items=6, guide=guide)
    drawn = distiller.item[toys.FULL_USER][distiller.valid[toys.FULL_USER]]
    assert sorted(drawn.tolist()) == [15, 16]
    one = Batch(torch.tensor([toys.FULL_USER]), torch.tensor([0]), torch.tensor([[1]]))
    distiller(student.scorer(), one)["cd"].backward()
    assert student.item_table.grad[:15].abs().sum() == 0
    assert student.item_table.grad[15:].abs().sum() > 0


def test_only_a_draw_guided_by_the_teacher_needs_its_list_to_be_that_long() -> None:
    assert [CD(guide=guide).depth for guide in GUIDES] == [0, 200, 0]


def test_items_are_drawn_anew_every_epoch() -> None:
    student = toys.model()
    distiller = started(student)
    before = distiller.item
    distiller.on_epoch_start(1, student, generator(0, "distiller", 2))
    assert not distiller.item.equal(before)
