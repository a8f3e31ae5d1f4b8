from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.evaluation.catalogue import Items, Users
from recdistill.evaluation.distillation import (
    PERSISTENCE,
    against_scratch,
    distillation,
    gain_shares,
    gap_closed,
    lifts_over_teacher,
    overlap,
    rank_biased_overlap,
)
from recdistill.evaluation.measures import Ranked, measure

N_ITEMS = 8
ITEMS = Items.of(np.array([9, 7, 5, 4, 3, 2, 1, 1]), np.array([0, 0, 1, 1, 1, 1, 1, 1]))


def lists(*rows: list[int], width: int | None = None, wanted: dict[int, list[int]] | None = None) -> Ranked:
    """Users 0, 1, ... with lists; `wanted`: their relevant items (none: the first of the list)."""
    width = width or max(len(row) for row in rows)
    item = np.array([row + [0] * (width - len(row)) for row in rows])
    length = np.array([len(row) for row in rows])
    pairs = [(row, one) for row, some in (wanted or {n: row[:1] for n, row in enumerate(rows)}).items() for one in some]
    row, relevant = np.array(pairs, int).reshape(-1, 2).T
    hit = np.zeros(item.shape, bool)
    for user, one in pairs:
        hit[user, : length[user]] |= item[user, : length[user]] == one
    return Ranked(np.arange(len(rows)), item, length, hit, row, relevant, None)


def test_the_gap_closed_is_the_students_share_of_the_teachers_lead() -> None:
    scratch = np.array([0.1, 0.2, 0.3])
    assert gap_closed(scratch + 0.15, scratch, scratch + 0.2) == pytest.approx(0.75)


def test_a_student_beyond_the_teacher_closes_more_than_the_gap_and_one_below_scratch_less_than_nothing() -> None:
    scratch = np.array([0.1, 0.2, 0.3])
    assert gap_closed(scratch + 0.3, scratch, scratch + 0.2) == pytest.approx(1.5)
    assert gap_closed(scratch - 0.1, scratch, scratch + 0.2) == pytest.approx(-0.5)


@pytest.mark.parametrize("lead", [0.0, -0.1])
def test_the_gap_closed_is_null_where_the_teacher_is_not_better(lead: float) -> None:
    scratch = np.array([0.1, 0.2, 0.3])
    assert gap_closed(scratch + 0.1, scratch, scratch + lead) is None


def test_the_gap_closed_is_null_below_two_standard_errors_of_the_paired_difference() -> None:
    scratch = np.zeros(4)
    spread = np.array([0.3, -0.3, 0.3, -0.3])  # standard error sqrt(0.12) / 2 = 0.1732
    assert gap_closed(scratch, scratch, spread + 0.34) is None
    assert gap_closed(scratch, scratch, spread + 0.35) == pytest.approx(0.0)


def test_the_standard_error_is_of_the_pairs_not_of_the_two_samples() -> None:
    scratch = np.array([0.0, 100.0, -50.0, 7.0])  # users differ far more than models
    assert gap_closed(scratch + 0.01, scratch, scratch + 0.02) == pytest.approx(0.5)


def test_the_gap_closed_is_null_for_one_user() -> None:
    assert gap_closed(np.array([0.5]), np.array([0.1]), np.array([0.9])) is None


def test_overlap_is_the_mean_share_of_common_items_whatever_their_order() -> None:
    one, other = lists([1, 2, 3], [4, 5, 6]), lists([3, 1, 5], [7, 2, 0])
    assert overlap(one, one, 3) == 1
    assert overlap(one, other, 3) == pytest.approx((2 / 3 + 0) / 2)
    assert overlap(one, other, 1) == 0


def test_padding_never_overlaps() -> None:
    assert overlap(lists([5], width=2), lists([6], width=2), 2) == 0
    assert overlap(lists([5], width=2), lists([0, 6]), 2) == 0
    assert overlap(lists([0, 6]), lists([5], width=2), 2) == 0


def slow_overlap_at(depth: int, one: list[int], other: list[int]) -> float:
    return len(set(one[:depth]) & set(other[:depth])) / depth


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_rank_biased_overlap_is_the_extrapolated_sum_of_agreements(data: st.DataObject) -> None:
    length = data.draw(st.integers(1, 6))
    one, other = (data.draw(st.permutations(range(N_ITEMS)))[:length] for _ in range(2))
    k = data.draw(st.integers(1, 6))
    depth, p = min(k, length), 0.9
    terms = sum(slow_overlap_at(d, one, other) * p**d for d in range(1, depth + 1))
    expected = slow_overlap_at(depth, one, other) * p**depth + (1 - p) / p * terms
    assert rank_biased_overlap(lists(one, width=6), lists(other, width=6), k) == pytest.approx(expected)


def test_rank_biased_overlap_is_one_for_the_same_order_and_none_for_nothing_in_common() -> None:
    assert rank_biased_overlap(lists([1, 2, 3]), lists([1, 2, 3]), 3) == pytest.approx(1)
    assert rank_biased_overlap(lists([1, 2, 3]), lists([4, 5, 6]), 3) == 0
    assert PERSISTENCE == 0.9


def test_agreement_at_the_top_weighs_more_than_agreement_below() -> None:
    base = lists([1, 2, 3, 4])
    top, below = (rank_biased_overlap(base, lists(other), 4) for other in ([1, 2, 4, 3], [2, 1, 3, 4]))
    assert top is not None
    assert below is not None
    assert top > below
    assert overlap(base, lists([1, 2, 4, 3]), 4) == overlap(base, lists([2, 1, 3, 4]), 4) == 1


def test_users_without_a_list_are_left_out_of_rank_biased_overlap() -> None:
    one = lists([1, 2], [], wanted={0: [1], 1: [3]})
    assert rank_biased_overlap(one, one, 2) == pytest.approx(1)
    empty = lists([], width=2, wanted={0: [1]})
    assert rank_biased_overlap(empty, empty, 2) is None


def test_lists_of_unlike_candidates_are_refused() -> None:
    with pytest.raises(ValueError, match="lists of the same candidates"):
        rank_biased_overlap(lists([1, 2]), lists([1], width=2), 2)


def test_the_gain_in_hits_is_shared_out_over_the_item_groups() -> None:
    wanted = {0: [0, 2], 1: [1, 3, 7]}
    scratch = lists([0, 4, 5], [4, 5, 6], wanted=wanted)  # one hit: item 0
    student = lists([0, 2, 5], [1, 3, 7], wanted=wanted)  # five: 0, 2, 1, 3, 7
    shares = gain_shares(student, scratch, ITEMS, 3)
    assert shares == {
        "group=0": 0.25, "group=1": 0.75, "items=head": 0.25, "items=mid": 0.5, "items=tail": 0.25,
    }  # fmt: skip


def test_hits_that_were_lost_on_the_head_make_its_share_negative() -> None:
    wanted = {0: [0, 2], 1: [3, 7]}
    scratch, student = lists([0, 4], [4, 5], wanted=wanted), lists([2, 4], [3, 5], wanted=wanted)
    assert gain_shares(student, scratch, ITEMS, 2)["items=head"] == -1


@pytest.mark.parametrize("student", [[4, 5, 6], [0, 4, 5]])
def test_without_more_hits_there_is_no_gain_to_share_out(student: list[int]) -> None:
    wanted = {0: [0, 2]}
    shares = gain_shares(lists(student, wanted=wanted), lists([0, 4, 5], wanted=wanted), ITEMS, 3)
    assert set(shares.values()) == {None}


def test_users_are_counted_by_whether_their_ndcg_rose() -> None:
    wanted = {0: [1], 1: [1], 2: [1], 3: [1]}
    scratch = lists([1, 2], [2, 1], [2, 3], [1, 2], wanted=wanted)
    student = lists([2, 1], [1, 2], [3, 4], [1, 3], wanted=wanted)
    found = against_scratch(student, scratch, ITEMS, [1, 2])
    assert (found["users_better@2"], found["users_worse@2"], found["users_equal@2"]) == (1, 1, 2)
    assert (found["users_better@1"], found["users_worse@1"], found["users_equal@1"]) == (1, 1, 2)


def users() -> Users:
    return Users.of(ITEMS, np.array([0, 0, 1, 1]), np.array([0, 1, 6, 7]), 2)


def test_lift_against_the_teacher_is_the_ratio_of_mean_list_popularities() -> None:
    student, teacher = lists([0, 1], [2, 3]), lists([1, 2], [4, 5])
    found = lifts_over_teacher(student, teacher, ITEMS, users(), [2])
    assert found["poplift_vs_teacher@2"] == pytest.approx((8 + 4.5) / (6 + 2.5) - 1)
    assert found["poplift_vs_teacher@2/users=niche"] is None  # two users have no outer fifth
    assert found["poplift_vs_teacher@2/users=diverse"] == found["poplift_vs_teacher@2"]
    assert found["poplift_vs_teacher@2/users=bin0"] == pytest.approx(4.5 / 2.5 - 1)  # user 1 has unpopular items


def told(**rankings: Ranked) -> tuple[dict[str, dict[str, float | None]], dict[str, object]]:
    per_user = {name: measure(one, ITEMS, users(), [2], ["ndcg", "hit"])[1] for name, one in rankings.items()}
    return distillation(rankings, per_user, ITEMS, users(), [2])


WANTED = {0: [1], 1: [2]}
STUDENT = lists([1, 0], [3, 2], wanted=WANTED)
SCRATCH = lists([4, 5], [4, 5], wanted=WANTED)
TEACHER = lists([1, 3], [2, 3], wanted=WANTED)


def test_the_student_is_told_beside_its_teacher_and_scratch() -> None:
    more, found = told(student=STUDENT, scratch=SCRATCH, teacher=TEACHER)
    assert set(more) == {"student", "scratch"}
    assert found["overlap@2"] == 0.75
    assert found["users_better@2"] == 2
    gap = found["gap_closed"]
    assert isinstance(gap, dict)
    assert gap == {"test/ndcg@2": pytest.approx((1 + 0.630930) / 2, abs=1e-6), "test/hit@2": 1.0}


def test_without_a_teacher_or_with_several_only_scratch_is_compared_with() -> None:
    more, found = told(student=STUDENT, scratch=SCRATCH, **{"teacher.one": TEACHER, "teacher.two": TEACHER})
    assert more == {}
    assert "users_better@2" in found
    assert not {"gap_closed", "overlap@2", "rbo@2"} & set(found)


def test_without_scratch_only_the_teacher_is_compared_with() -> None:
    more, found = told(student=STUDENT, teacher=TEACHER)
    assert set(more) == {"student"}
    assert set(found) == {"overlap@2", "rbo@2"}
