from __future__ import annotations

import math
from typing import Any, ClassVar

import pytest
import torch

from contracts import toys
from contracts.ranking import RankingContract, slopes
from recdistill.distill.ce_kd import CEKD
from recdistill.losses import soft_cross_entropy, soft_targets
from recdistill.models.mf import MF
from recdistill.runtime import generator
from recdistill.types import Batch

GUIDES, SIGNALS = ["student", "teacher"], ["scores", "ranks"]


class TestCEKDGuidedByTheStudent(RankingContract):
    refused: ClassVar[list[dict[str, Any]]] = [
        {"weight": -1.0},
        {"items": 0},
        {"temperature": 0.0},
        {"guide": "random"},
        {"signal": "vectors"},
        {"rank_temperature": 0.0},
        {"per": "item"},
    ]

    def make(self, **settings: Any) -> CEKD:
        return CEKD(**({"items": 5} | settings))


class TestCEKDGuidedByTheTeacher(RankingContract):
    def make(self, **settings: Any) -> CEKD:
        return CEKD(**({"items": 5, "guide": "teacher", "temperature": 2.0, "per": "row"} | settings))


class TestCEKDOfATeacherThatOnlyRanks(RankingContract):
    def make(self, **settings: Any) -> CEKD:
        return CEKD(**({"items": 5, "guide": "teacher", "signal": "ranks", "rank_temperature": 3.0} | settings))


def started(student: MF, **settings: Any) -> CEKD:
    distiller = CEKD(**({"items": 5} | settings))
    distiller.prepare(toys.knowledge(), toys.interactions(), student, generator(0, "distiller"))
    distiller.on_epoch_start(0, student, generator(0, "distiller", 1))
    return distiller


def test_the_worked_example() -> None:
    teacher, student = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[0.5, 1.0, -0.5]])
    valid = torch.ones(1, 3, dtype=torch.bool)
    target = soft_targets(teacher, valid)
    assert target[0].tolist() == pytest.approx([0.665241, 0.244728, 0.090031], abs=1e-6)
    loss = soft_cross_entropy(target, student, valid).item()
    assert loss == pytest.approx(1.071797, abs=1e-6)
    entropy = -(target * target.log()).sum().item()
    assert loss - entropy == pytest.approx(0.239401, abs=1e-6)


@pytest.mark.parametrize("guide", GUIDES)
def test_the_worked_example_comes_out_of_the_distiller(guide: str) -> None:
    knowledge, data, student = toys.crowd([2.0, 1.0, 0.0, -9.0], [0.5, 1.0, -0.5, -9.0])
    distiller = CEKD(weight=1.0, items=3, guide=guide)
    distiller.prepare(knowledge, data, student, generator(0, "distiller"))
    distiller.on_epoch_start(0, student, generator(0, "distiller", 1))
    term = distiller(student.scorer(), Batch(torch.tensor([0]), torch.tensor([0]), torch.tensor([[1]])))["ce_kd"]
    assert term.item() == pytest.approx(1.071797, abs=1e-6)


@pytest.mark.parametrize("quirks", [False, True])
@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("guide", GUIDES)
def test_the_term_equals_a_slow_loop(guide: str, signal: str, quirks: bool) -> None:
    student, batch = toys.model(seed=7), toys.batch()
    settings: dict[str, Any] = {"temperature": 1.5, "guide": guide, "signal": signal, "reference_quirks": quirks}
    distiller = started(student, weight=0.3, **settings)
    student.double()
    labels, data = toys.knowledge().one(), toys.interactions()
    seen = set() if quirks else set(zip(data.user.tolist(), data.item.tolist(), strict=True))
    ours = student.scorer().all_scores(torch.arange(toys.N_USERS)).tolist()
    theirs = (labels.user_vectors.double() @ labels.item_vectors.double().T).tolist()
    losses = []
    for user in sorted(set(batch.user.tolist())):
        unseen = [item for item in range(toys.N_ITEMS) if (user, item) not in seen]
        guiding = (theirs if guide == "teacher" else ours)[user]
        subset = sorted(unseen, key=lambda item: -guiding[item])[:5]
        by_teacher = sorted(subset, key=lambda item: -theirs[user][item])
        signals = {i: -(by_teacher.index(i) + 1) / 10.0 if signal == "ranks" else theirs[user][i] for i in subset}
        target = {item: math.exp(value / 1.5) for item, value in signals.items()}
        mass = math.log(sum(math.exp(ours[user][item] / 1.5) for item in subset))
        total = sum(target.values())
        losses.append(-sum(target[item] / total * (ours[user][item] / 1.5 - mass) for item in subset))
    expected = 0.3 * sum(losses) / len(losses)
    assert distiller(student.scorer(), batch)["ce_kd"].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("guide", GUIDES)
def test_raising_an_item_that_the_teacher_wants_higher_lowers_the_loss(guide: str) -> None:
    student, user = toys.model(seed=7), 2
    distiller = started(student, guide=guide)
    slope = slopes(distiller, student, user)
    score = student.scorer().pair_scores(torch.tensor([user]), distiller.item[[user]])
    own = score[0].softmax(0)
    for item, wanted, has in zip(distiller.item[user].tolist(), distiller.target[user], own, strict=True):
        assert (slope[item] < 0) == bool(wanted > has)
    rest = set(range(toys.N_ITEMS)) - set(distiller.item[user].tolist())
    assert all(slope[item] == 0 for item in rest)


@pytest.mark.parametrize("guide", GUIDES)
def test_a_student_that_scores_as_the_teacher_has_no_gradient(guide: str) -> None:
    student = toys.model(seed=1)
    distiller = started(student, guide=guide)
    distiller(student.scorer(), toys.batch())["ce_kd"].backward()
    assert student.item_table.grad.abs().max() < 1e-6


def test_the_students_list_is_renewed_every_epoch_and_the_teachers_is_not() -> None:
    for guide in GUIDES:
        student = toys.model(seed=7)
        distiller = started(student, guide=guide)
        before = distiller.item
        with torch.no_grad():
            student.user_table.neg_()
        distiller.on_epoch_start(1, student, generator(0, "distiller", 2))
        assert distiller.item.equal(before) == (guide == "teacher")


def test_a_user_with_one_candidate_has_loss_zero_and_one_with_fewer_than_k_a_short_list() -> None:
    knowledge, data, student = toys.crowd([2.0, 1.0, 0.0], [0.5, 1.0, -0.5], seen=[0, 2])
    for guide in GUIDES:
        distiller = CEKD(weight=1.0, items=3, guide=guide)
        distiller.prepare(knowledge, data, student, generator(0, "distiller"))
        distiller.on_epoch_start(0, student, generator(0, "distiller", 1))
        assert distiller.valid.tolist() == [[True, False, False]]
        assert distiller.item[0, 0] == 1
        term = distiller(student.scorer(), Batch(torch.tensor([0]), torch.tensor([0]), torch.tensor([[1]])))["ce_kd"]
        assert term == 0


def test_a_teacher_that_only_ranks_is_enough_for_its_own_list() -> None:
    assert CEKD(guide="teacher", signal="ranks").requires == {"ranking"}
    assert CEKD(guide="teacher").requires == {"ranking", "scores"}
    assert CEKD().requires == {"ranking", "scores", "vectors"}
    assert [CEKD(guide=guide, items=70).depth for guide in GUIDES] == [0, 70]
