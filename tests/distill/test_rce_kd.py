from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from contracts import toys
from contracts.ranking import RankingContract, slopes
from recdistill.distill.rce_kd import RCEKD
from recdistill.losses import soft_cross_entropy, soft_targets
from recdistill.models.mf import MF
from recdistill.runtime import generator
from recdistill.types import Batch

CROWD = 100_000


class TestRCEKD(RankingContract):
    refused: ClassVar[list[dict[str, Any]]] = [
        {"weight": -1.0},
        {"items": 0},
        {"company": 0},
        {"pool": 49},
        {"draw_temperature": 0.0},
        {"temperature": 0.0},
        {"beta": -1.0},
        {"per": "item"},
    ]

    def make(self, **settings: Any) -> RCEKD:
        small = {} if "pool" in settings else {"items": 4, "company": 3, "pool": 8}
        return RCEKD(**(small | settings))


class TestRCEKDPerRow(RankingContract):
    def make(self, **settings: Any) -> RCEKD:
        return RCEKD(**({"items": 4, "company": 6, "pool": 8, "temperature": 2.0, "per": "row"} | settings))


def started(student: MF, seed: int = 0, **settings: Any) -> RCEKD:
    distiller = RCEKD(**({"items": 4, "company": 3, "pool": 8} | settings))
    distiller.prepare(toys.knowledge(), toys.interactions(), student, generator(seed, "distiller"))
    distiller.on_epoch_start(0, student, generator(seed, "distiller", 1))
    return distiller


TEACHER, STUDENT = [2.0, 1.5, 1.0, 0.2, -0.3], [0.1, 1.0, -0.2, 0.9, 0.8]  # items A to E


def test_the_worked_example() -> None:
    valid = torch.ones(1, 3, dtype=torch.bool)
    teacher, student = torch.tensor([TEACHER]), torch.tensor([STUDENT])
    own = [1, 3, 4]
    target = soft_targets(teacher[:, own], valid)
    assert target[0].tolist() == pytest.approx([0.695492, 0.189544, 0.114964], abs=1e-6)
    assert soft_cross_entropy(target, student[:, own], valid).item() == pytest.approx(1.043890, abs=1e-6)
    mixed, valid = [1, 3, 0, 2], torch.ones(1, 4, dtype=torch.bool)
    target = soft_targets(teacher[:, mixed], valid)
    assert target[0].tolist() == pytest.approx([0.283464, 0.077253, 0.467353, 0.171930], abs=1e-6)
    assert soft_cross_entropy(target, student[:, mixed], valid).item() == pytest.approx(1.595005, abs=1e-6)


def test_the_worked_example_comes_out_of_the_distiller() -> None:
    knowledge, data, student = toys.crowd(TEACHER, STUDENT)
    distiller = RCEKD(weight=1.0, items=3, company=2, pool=3)
    distiller.prepare(knowledge, data, student, generator(0, "distiller"))
    batch = Batch(torch.tensor([0]), torch.tensor([0]), torch.tensor([[1]]))
    for seed in range(50):
        distiller.on_epoch_start(0, student, generator(seed, "distiller", 1))
        if set(distiller.mixed[0, :2].tolist()) == {1, 3}:  # the company of the example: B and D
            break
    assert distiller.own[0].tolist() == [1, 3, 4]
    assert set(distiller.mixed[0][distiller.mixed_valid[0]].tolist()) == {0, 1, 2, 3}
    assert distiller.gamma.item() == pytest.approx(0.367879, abs=1e-6)
    assert distiller(student.scorer(), batch)["rce_kd"].item() == pytest.approx(1.246634, abs=1e-6)
    assert distiller.to_record() == {"mean_gamma": pytest.approx(0.367879, abs=1e-6)}


@pytest.mark.parametrize("quirks", [False, True])
@pytest.mark.parametrize("per", ["user", "row"])
def test_the_term_equals_a_slow_loop(per: str, quirks: bool) -> None:
    student, batch = toys.model(seed=7), toys.batch()
    distiller = started(student, weight=0.3, temperature=1.5, beta=2.0, per=per, reference_quirks=quirks)
    student.double()
    labels, data = toys.knowledge().one(), toys.interactions()
    seen = set() if quirks else set(zip(data.user.tolist(), data.item.tolist(), strict=True))
    ours = student.scorer().all_scores(torch.arange(toys.N_USERS)).tolist()
    theirs = (labels.user_vectors.double() @ labels.item_vectors.double().T).tolist()

    def cross_entropy(user: int, subset: set[int]) -> float:
        target = {item: math.exp(theirs[user][item] / 1.5) for item in subset}
        mass = math.log(sum(math.exp(ours[user][item] / 1.5) for item in subset))
        return -sum(target[i] / sum(target.values()) * (ours[user][i] / 1.5 - mass) for i in subset)

    losses = {}
    for user in set(batch.user.tolist()):
        unseen = [item for item in range(toys.N_ITEMS) if (user, item) not in seen]
        own = set(sorted(unseen, key=lambda item: -ours[user][item])[:4])
        top = set(sorted(unseen, key=lambda item: -theirs[user][item])[:4])
        company = set(distiller.mixed[user, :3][distiller.mixed_valid[user, :3]].tolist())
        assert company <= set(sorted(unseen, key=lambda item: -ours[user][item])[:8])
        assert len(company) == min(3, len(unseen))
        gamma = math.exp(-2.0 * len(top & company) / len(top))
        mixed = company | (top - company - own)
        losses[user] = (1 - gamma) * cross_entropy(user, own) + gamma * cross_entropy(user, mixed)
    counted = batch.user.tolist() if per == "row" else list(losses)
    expected = 0.3 * sum(losses[user] for user in counted) / len(counted)
    assert distiller(student.scorer(), batch)["rce_kd"].item() == pytest.approx(expected, rel=1e-5)


def test_the_company_is_drawn_with_the_stated_law() -> None:
    """Many users who are all alike: of the teacher's top two, the student has one on place 2 and one on place 4."""
    knowledge, data, student = toys.crowd([0.0, 5, 1, 4, 2, 3], [5.0, 4, 3, 2, 1, 0], CROWD, seen=[4])
    distiller = RCEKD(items=2, company=1, pool=4, draw_temperature=2.0)
    distiller.prepare(knowledge, data, student, generator(0, "distiller"))
    distiller.on_epoch_start(0, student, generator(0, "distiller", 1))
    assert distiller.top[0].tolist() == [1, 3]
    law = np.exp((np.array([2, 2, 1, 1]) + 1) / 2.0)  # items 0, 1, 2, 3: teacher's items at that place or below
    count = distiller.mixed[:, 0].bincount(minlength=6).numpy()
    assert count[[4, 5]].sum() == 0
    assert chisquare(count[:4], CROWD * law / law.sum()).pvalue > 1e-6


def test_raising_the_teachers_favourite_lowers_the_loss() -> None:
    student = toys.model(seed=7)
    with torch.no_grad():
        student.user_table.mul_(0.1)  # near indifference: every softmax is flat
    distiller = started(student)
    for user in (0, 2, 3):
        assert slopes(distiller, student, user)[distiller.top[user, 0]] < 0


def test_as_the_two_agree_weight_moves_from_the_teachers_items_to_the_students() -> None:
    far, near = started(toys.model(seed=7), company=8), started(toys.model(seed=1), company=8)
    assert near.gamma.mean() < far.gamma.mean()
    assert near.gamma[3].item() == pytest.approx(math.exp(-3.0))
    assert started(toys.model(seed=7), beta=0.0).gamma.tolist() == [1.0] * toys.N_USERS


def test_a_student_that_scores_as_the_teacher_has_no_gradient() -> None:
    student = toys.model(seed=1)
    distiller = started(student)
    distiller(student.scorer(), toys.batch())["rce_kd"].backward()
    assert student.item_table.grad.abs().max() < 1e-6


def test_no_training_item_is_in_any_list_unless_the_quirks_of_the_published_code_are_asked_for() -> None:
    data, student = toys.interactions(), toys.model(seed=7)
    seen = set(zip(data.user.tolist(), data.item.tolist(), strict=True))
    for quirks in (False, True):
        found = 0
        for seed in range(5):
            distiller = started(student, seed, reference_quirks=quirks)
            for user in range(toys.N_USERS):
                lists = (distiller.own, distiller.own_valid), (distiller.mixed, distiller.mixed_valid)
                found += sum((user, item) in seen for one, valid in lists for item in one[user][valid[user]].tolist())
        assert (found > 0) == quirks


def test_users_with_one_or_two_candidates_have_a_finite_loss() -> None:
    student = toys.model()
    distiller = started(student)
    assert distiller.own_valid[toys.FULL_USER].sum() == 2
    one = Batch(torch.tensor([toys.FULL_USER]), torch.tensor([0]), torch.tensor([[1]]))
    distiller(student.scorer(), one)["rce_kd"].backward()
    assert student.item_table.grad.isfinite().all()
    knowledge, data, single = toys.crowd([2.0, 1.0, 0.0], [0.5, 1.0, -0.5], seen=[0, 2])
    alone = RCEKD(items=2, company=1, pool=2)
    alone.prepare(knowledge, data, single, generator(0, "distiller"))
    alone.on_epoch_start(0, single, generator(0, "distiller", 1))
    batch = Batch(torch.tensor([0]), torch.tensor([0]), torch.tensor([[1]]))
    assert alone(single.scorer(), batch)["rce_kd"].item() == pytest.approx(0.0, abs=1e-7)
