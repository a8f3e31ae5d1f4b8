from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from contracts import toys
from contracts.ranking import RankingContract, slopes
from recdistill.distill.dcd import DCD
from recdistill.distill.rrd import RRD
from recdistill.losses import relaxed_ranking
from recdistill.models.mf import MF
from recdistill.runtime import generator
from recdistill.types import Batch

CROWD = 100_000
SMALL: dict[str, Any] = {"corrections": 3, "interesting": 4, "depth": 8, "user_depth": 6}
PUBLISHED: dict[str, Any] = SMALL | {"uninteresting": 2, "draw": "sampled", "rest": "sampled"}


class TestDCDWithTheLargestErrors(RankingContract):
    refused: ClassVar[list[dict[str, Any]]] = [
        {"weight": -0.1},
        {"ranking_share": -1.0},
        {"user_share": -1.0},
        {"item_share": -1.0},
        {"corrections": 0},
        {"steepness": 0.0},
        {"refresh_every": 0},
        {"depth": 1},
        {"user_depth": 1},
        {"interesting": 9},
        {"draw": "best"},
        {"rest": "none"},
    ]

    def make(self, **settings: Any) -> DCD:
        return DCD(**(SMALL | settings))

    def allowed(self, batch: Batch) -> Sequence[int]:
        return batch.positive.tolist()


class TestDCDAsPublished(RankingContract):
    def make(self, **settings: Any) -> DCD:
        return DCD(**(PUBLISHED | settings))

    def allowed(self, batch: Batch) -> Sequence[int]:
        return batch.positive.tolist()


class TestDCDWithoutTheRankingTerm(RankingContract):
    def make(self, **settings: Any) -> DCD:
        return DCD(**(SMALL | {"ranking_share": 0.0, "refresh_every": 2} | settings))

    def allowed(self, batch: Batch) -> Sequence[int]:
        return batch.positive.tolist()


def started(student: MF, seed: int = 0, **settings: Any) -> DCD:
    distiller = DCD(**(SMALL | settings))
    distiller.prepare(toys.knowledge(), toys.interactions(), student, generator(seed, "distiller"))
    distiller.on_epoch_start(0, student, generator(seed, "distiller", 1))
    return distiller


def slow_list_loss(interesting: list[float], rest: list[float]) -> float:
    total = 0.0
    for k in range(len(interesting)):
        mass = sum(math.exp(value) for value in interesting[k:]) + sum(math.exp(value) for value in rest)
        total += math.log(mass) - interesting[k]
    return total


TEACHER, PLACES = [4.0, 3.0, 2.0, 1.0], [3.0, 5.0, 2.0, 4.0]  # items A to D: the student's places are 2, 0, 3, 1
UNDER, OVER = [0.197375, 0.0, 0.099668, 0.0], [0.0, 0.099668, 0.0, 0.197375]


def test_the_worked_example() -> None:
    knowledge, data, student = toys.crowd(TEACHER, PLACES)
    distiller = DCD(weight=1.0, ranking_share=0.0, item_share=0.0, corrections=2, depth=4, interesting=4, user_depth=2)
    distiller.prepare(knowledge, data, student, generator(0, "distiller"))
    distiller.on_epoch_start(0, student, generator(0, "distiller", 1))
    assert distiller.users.student_place[0].tolist() == [2, 0, 3, 1]
    error = torch.tensor([[2, 0, 1, 0]])
    assert torch.tanh(0.1 * error)[0].tolist() == pytest.approx(UNDER, abs=1e-6)
    assert distiller.users.under[0].tolist() == [0, 2]  # A before C, the teacher's order
    assert sorted(distiller.users.over[0].tolist()) == [1, 3]
    with torch.no_grad():
        student.item_table[:, 0] = torch.tensor([0.1, 0.6, -0.3, 0.4])
    batch = Batch(torch.tensor([0]), torch.tensor([0]), torch.tensor([[1]]))
    term = distiller(student.scorer(), batch)["user_correction"].item()
    assert term == pytest.approx(3.240815, abs=1e-6)
    assert relaxed_ranking(torch.tensor([[0.1, -0.3]]), torch.tensor([[0.6, 0.4]])).item() == pytest.approx(term)


@pytest.mark.parametrize("side", ["under", "over"])
def test_drawn_corrections_follow_the_stated_law(side: str) -> None:
    """Many users who are all alike: one correction of each kind."""
    knowledge, data, student = toys.crowd(TEACHER, PLACES, CROWD)
    distiller = DCD(corrections=1, depth=4, interesting=4, user_depth=2, draw="sampled", rest="sampled")
    distiller.prepare(knowledge, data, student, generator(0, "distiller"))
    distiller.on_epoch_start(0, student, generator(0, "distiller", 1))
    law = np.array(UNDER if side == "under" else OVER)
    law /= law.sum()
    assert sorted(law)[2:] == pytest.approx([0.335534, 0.664466], abs=1e-5)
    count = getattr(distiller.users, side).flatten().bincount(minlength=4).numpy()
    possible = law > 0
    assert count[~possible].sum() == 0
    assert chisquare(count[possible], CROWD * law[possible]).pvalue > 1e-6


def slow_side(
    ranked: list[list[int]], score: list[list[float]], distiller: DCD, side: str, rows: set[int], sampled: bool
) -> float:
    chosen, losses = getattr(distiller, side), []
    for row in sorted(rows):
        by_student = sorted(ranked[row], key=lambda entry: -score[row][entry])
        error = {entry: by_student.index(entry) - ranked[row].index(entry) for entry in ranked[row]}
        under = chosen.under[row][chosen.under_valid[row]].tolist()
        over = chosen.over[row][chosen.over_valid[row]].tolist()
        assert under == sorted(under, key=ranked[row].index)
        assert all(error[entry] > 0 for entry in under)
        assert all(error[entry] < 0 for entry in over)
        assert len(under) == min(3, sum(value > 0 for value in error.values()))
        assert len(over) == min(3, sum(value < 0 for value in error.values()))
        if not sampled:
            assert sorted(error[e] for e in under) == sorted(v for v in error.values() if v > 0)[-3:]
            assert sorted(-error[e] for e in over) == sorted(-v for v in error.values() if v < 0)[-3:]
        losses.append(slow_list_loss([score[row][e] for e in under], [score[row][e] for e in over]))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("draw", ["top", "sampled"])
def test_both_corrections_equal_a_slow_loop(draw: str) -> None:
    student, batch = toys.model(seed=7).double(), toys.batch()
    distiller = started(student, weight=0.3, user_share=2.0, item_share=0.4, draw=draw)
    labels = toys.knowledge().one()
    score = student.scorer().all_scores(torch.arange(toys.N_USERS)).detach()
    items = [labels.item[u, : min(8, int(labels.length[u]))].tolist() for u in range(toys.N_USERS)]
    other = labels.transposed
    users = [other.item[i, : min(6, int(other.length[i]))].tolist() for i in range(toys.N_ITEMS)]
    found = distiller(student.scorer(), batch)
    expected = slow_side(items, score.tolist(), distiller, "users", set(batch.user.tolist()), draw == "sampled")
    assert found["user_correction"].item() == pytest.approx(0.3 * 2.0 * expected, rel=1e-6)
    expected = slow_side(users, score.T.tolist(), distiller, "items", set(batch.positive.tolist()), draw == "sampled")
    assert found["item_correction"].item() == pytest.approx(0.3 * 0.4 * expected, rel=1e-6)


def test_the_ranking_term_is_rrd_and_can_be_left_out() -> None:
    student, batch = toys.model(seed=7), toys.batch()
    plain = RRD(weight=0.3, interesting=4, depth=8)
    plain.prepare(toys.knowledge(), toys.interactions(), student, generator(0, "distiller"))
    terms = started(student, weight=0.3)(student.scorer(), batch)
    assert list(terms) == ["rrd", "user_correction", "item_correction"]
    assert terms["rrd"].equal(plain(student.scorer(), batch)["rrd"])
    assert list(started(student, ranking_share=0.0, item_share=0.0)(student.scorer(), batch)) == ["user_correction"]


def test_one_pass_gives_the_gradient_of_the_ranking_and_the_correction_one_by_one() -> None:
    student, batch = toys.model(seed=7).double(), toys.batch(rows=40)
    distiller = started(student, weight=0.3, ranking_share=0.7, user_share=2.0, item_share=0.0)
    terms = distiller(student.scorer(), batch)
    scorer = student.scorer()
    expected = {
        "rrd": 0.3 * 0.7 * distiller.ranking.list_loss(scorer, batch.user),
        "user_correction": 0.3 * 2.0 * distiller.users.list_loss(scorer, batch.user),
    }
    torch.testing.assert_close(terms, expected, rtol=1e-12, atol=1e-12)
    tables = student.user_table, student.item_table
    found, wanted = (torch.autograd.grad(sum(some.values()), tables) for some in (terms, expected))
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-12)


def test_raising_an_underestimated_item_lowers_the_loss_and_an_overestimated_one_raises_it() -> None:
    student, user = toys.model(seed=7), 3
    distiller = started(student, ranking_share=0.0, item_share=0.0)
    slope = slopes(distiller, student, user)
    under = distiller.users.under[user][distiller.users.under_valid[user]].tolist()
    over = distiller.users.over[user][distiller.users.over_valid[user]].tolist()
    assert len(under) > 1
    assert slope[under[0]] < 0
    assert all(slope[item] > 0 for item in over)
    assert all(slope[item] == 0 for item in set(range(toys.N_ITEMS)) - {*under, *over})


@pytest.mark.parametrize("draw", ["top", "sampled"])
def test_where_student_and_teacher_agree_there_is_nothing_to_correct(draw: str) -> None:
    student = toys.model(seed=1)
    distiller = started(student, ranking_share=0.0, draw=draw)
    assert not distiller.users.under_valid.any()
    assert not distiller.users.over_valid.any()
    terms = distiller(student.scorer(), toys.batch())
    sum(terms.values()).backward()
    assert [value.item() for value in terms.values()] == [0.0, 0.0]
    assert student.item_table.grad.isfinite().all()
    assert student.item_table.grad.abs().sum() == 0


def test_the_student_ranks_every_third_epoch_and_draws_are_new_every_epoch() -> None:
    student = toys.model(seed=7)
    distiller = started(student, draw="sampled", rest="sampled")
    places, draws = [distiller.users.student_place.clone()], [distiller.users.under]
    for epoch in range(1, 4):
        with torch.no_grad():
            student.user_table.neg_()
        distiller.on_epoch_start(epoch, student, generator(0, "distiller", epoch + 1))
        places.append(distiller.users.student_place.clone())
        draws.append(distiller.users.under)
    assert places[0].equal(places[1])
    assert places[0].equal(places[2])
    assert not places[0].equal(places[3])
    assert not draws[0].equal(draws[1])


def test_short_lists_are_corrected_within_what_they_have() -> None:
    student = toys.model()
    distiller = started(student)
    length = toys.knowledge().one().length
    assert length[toys.FULL_USER] == 2
    for valid in (distiller.users.under_valid, distiller.users.over_valid):
        assert valid[toys.FULL_USER].sum() <= 1
    entries = distiller.users.under[toys.FULL_USER][distiller.users.under_valid[toys.FULL_USER]]
    assert set(entries.tolist()) <= {15, 16}
