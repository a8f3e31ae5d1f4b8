from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from recdistill.evaluation.catalogue import profile_means
from recdistill.evaluation.popularity_bias import (
    coverage,
    divergence_from_uniform,
    entropy,
    exposure,
    frequencies,
    gini,
    group_recall,
    group_recall_all_users,
    group_recall_micro,
    list_means,
    mean,
    popularity_lift,
    popularity_rank_correlation_by_item,
    popularity_rank_correlation_by_user,
    tail_counts,
)

POPULARITY = np.array([8, 6, 3, 2, 1])  # items a to e
PROFILES = [(0, 0), (0, 1), (1, 2), (1, 3), (2, 0), (2, 4)]
LISTS = np.array([[0, 2], [0, 1], [1, 2]])
FULL = np.array([2, 2, 2])
TAIL = np.array([False, False, True, True, True])


def profile() -> np.ndarray:
    user, item = np.array(PROFILES).T
    return profile_means(POPULARITY, user, item, 3)


def test_means_of_lists_and_profiles_have_the_worked_values() -> None:
    assert profile() / 10 == pytest.approx([0.7, 0.25, 0.45])
    assert list_means(POPULARITY, LISTS, FULL) / 10 == pytest.approx([0.55, 0.7, 0.45])


@pytest.mark.parametrize(("users", "expected"), [([0, 1, 2], 0.214286), ([0, 2], -0.130435), ([1], 1.8)])
def test_popularity_lift_has_the_worked_values_overall_and_by_user_group(users: list[int], expected: float) -> None:
    lift = popularity_lift(list_means(POPULARITY, LISTS, FULL)[users], profile()[users])
    assert lift == pytest.approx(expected, abs=1e-6)


def test_popularity_lift_does_not_depend_on_the_scale_of_popularity() -> None:
    recommended = list_means(POPULARITY, LISTS, FULL)
    assert popularity_lift(recommended / 10, profile() / 10) == pytest.approx(popularity_lift(recommended, profile()))


def test_recommending_the_profile_itself_lifts_nothing() -> None:
    assert popularity_lift(profile(), profile()) == 0


def test_entries_behind_a_lists_end_do_not_count() -> None:
    item = np.array([[0, 2, 0], [1, 0, 0], [0, 0, 0]])
    means = list_means(POPULARITY, item, np.array([2, 1, 0]))
    assert means[:2].tolist() == [5.5, 6.0]
    assert np.isnan(means[2])


def test_users_without_a_list_or_a_profile_are_dropped_from_both_means() -> None:
    recommended = np.array([4.0, np.nan, 100.0, 6.0])
    profiles = np.array([2.0, 50.0, np.nan, 3.0])
    assert popularity_lift(recommended, profiles) == pytest.approx(1.0)


def test_a_user_without_training_items_has_no_profile() -> None:
    means = profile_means(POPULARITY, np.array([1]), np.array([0]), 3)
    assert np.isnan(means[[0, 2]]).all()
    assert means[1] == 8


@pytest.mark.parametrize("profiles", [[np.nan, np.nan], [0.0, 0.0]])
def test_popularity_lift_is_none_without_anybody_or_without_popularity(profiles: list[float]) -> None:
    assert popularity_lift(np.array([1.0, 2.0]), np.array(profiles)) is None


def test_average_popularity_and_the_share_of_the_tail_have_the_worked_values() -> None:
    assert mean(list_means(POPULARITY, LISTS, FULL)) == pytest.approx(5.666667, abs=1e-6)
    in_tail = tail_counts(TAIL, LISTS, FULL)
    assert mean(in_tail / FULL) == pytest.approx(0.333333, abs=1e-6)  # APLT
    assert mean(in_tail) == pytest.approx(0.666667, abs=1e-6)  # ACLT


def test_an_empty_list_has_no_tail_and_is_left_out() -> None:
    counts = tail_counts(TAIL, np.array([[2, 0], [0, 0]]), np.array([1, 0]))
    assert counts[0] == 1
    assert np.isnan(counts[1])
    assert mean(counts) == 1
    assert mean(np.array([np.nan])) is None


def test_exposure_of_the_catalogue_has_the_worked_values() -> None:
    frequency = frequencies(LISTS, FULL, 5)
    assert frequency.tolist() == [2, 2, 2, 0, 0]
    assert coverage(frequency) == pytest.approx(0.6)
    assert coverage(frequency, TAIL) == pytest.approx(1 / 3)
    assert gini(frequency) == pytest.approx(0.4)
    assert gini(frequency) * 5 / 4 == pytest.approx(0.5)  # its unbiased form
    assert entropy(frequency) == pytest.approx(1.098612, abs=1e-6)
    assert divergence_from_uniform(entropy(frequency), len(frequency)) == pytest.approx(0.510826, abs=1e-6)
    assert exposure(frequency, ~TAIL) == pytest.approx(0.666667, abs=1e-6)
    assert exposure(frequency, TAIL) == pytest.approx(0.333333, abs=1e-6)


def test_entries_behind_a_lists_end_are_not_shown() -> None:
    assert frequencies(np.array([[3, 0], [0, 0]]), np.array([1, 0]), 5).tolist() == [0, 0, 0, 1, 0]


def test_gini_of_one_item_shown_alone_has_the_worked_value() -> None:
    frequency = np.array([0, 0, 0, 6])
    assert gini(frequency) == pytest.approx(0.75)
    assert gini(frequency) * 4 / 3 == pytest.approx(1.0)


@pytest.mark.parametrize("n", [1, 3, 10])
def test_equal_exposure_has_no_gini_the_highest_entropy_and_no_divergence(n: int) -> None:
    frequency = np.full(n, 4)
    assert gini(frequency) == pytest.approx(0)
    assert entropy(frequency) == pytest.approx(math.log(n))
    assert divergence_from_uniform(entropy(frequency), len(frequency)) == pytest.approx(0)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30).filter(any))
def test_gini_is_half_the_mean_difference_over_the_mean(counts: list[int]) -> None:
    frequency, n = np.array(counts), len(counts)
    expected = np.abs(frequency[:, None] - frequency).sum() / (2 * n * n * frequency.mean())
    assert gini(frequency) == pytest.approx(expected, abs=1e-12)
    assert 0 <= expected < 1


def test_what_does_not_exist_is_none_and_not_zero() -> None:
    nothing, nobody = np.zeros(3, int), np.zeros(3, bool)
    assert gini(nothing) is entropy(nothing) is divergence_from_uniform(None, 3) is None
    assert coverage(np.array([1, 1, 0]), nobody) is None
    assert exposure(np.array([1, 1, 0]), nobody) is None
    assert exposure(nothing, ~nobody) is None
    assert coverage(nothing) == 0  # nothing shown of a catalogue is a value


@pytest.mark.parametrize(
    ("hits", "relevant", "all_users", "macro", "micro"),
    [([1, 1, 0], [1, 1, 0], 0.666667, 1.0, 1.0), ([1, 0, 1], [1, 1, 1], 0.666667, 0.666667, 0.666667)],
)
def test_group_recall_has_the_worked_values_in_its_three_aggregations(
    hits: list[int], relevant: list[int], all_users: float, macro: float, micro: float
) -> None:
    hit, wanted = np.array(hits), np.array(relevant)
    assert group_recall_all_users(hit, wanted) == pytest.approx(all_users, abs=1e-6)
    assert group_recall(hit, wanted) == pytest.approx(macro, abs=1e-6)
    assert group_recall_micro(hit, wanted) == pytest.approx(micro, abs=1e-6)


def test_the_three_aggregations_weigh_users_differently() -> None:
    hit, wanted = np.array([1, 0, 0]), np.array([1, 4, 0])
    assert group_recall(hit, wanted) == pytest.approx(0.5)
    assert group_recall_micro(hit, wanted) == pytest.approx(0.2)
    assert group_recall_all_users(hit, wanted) == pytest.approx(1 / 3)


@pytest.mark.parametrize("recall", [group_recall, group_recall_micro, group_recall_all_users])
def test_the_recall_of_a_group_that_nobody_wants_is_not_a_number_and_others_stand_beside_it(recall: object) -> None:
    assert callable(recall)
    assert np.isnan(recall(np.array([0, 0]), np.array([0, 0])))
    of_two = recall(np.array([[0, 0], [1, 1]]), np.array([[0, 0], [2, 2]]))
    assert np.isnan(of_two[0])
    assert of_two[1] == 0.5


def test_the_correlations_of_popularity_and_rank_have_the_worked_values() -> None:
    popularity = np.array([9, 5, 2])
    assert popularity_rank_correlation_by_user(popularity, np.zeros(3, int), np.array([1, 4, 3])) == pytest.approx(0.5)
    item, rank = np.array([0, 0, 1, 2]), np.array([1, 2, 2, 4])  # mean ranks 1.5, 2, 4
    assert popularity_rank_correlation_by_item(popularity, item, rank) == pytest.approx(1.0)


def test_users_without_a_correlation_are_left_out_and_nobody_left_is_none() -> None:
    popularity = np.array([9, 5, 2, 7, 4, 4])
    row, rank = np.array([0, 0, 0, 1, 2, 2]), np.array([1, 4, 3, 1, 1, 2])
    assert popularity_rank_correlation_by_user(popularity, row, rank) == pytest.approx(0.5)
    assert popularity_rank_correlation_by_user(popularity[3:], row[3:] - 1, rank[3:]) is None
    assert popularity_rank_correlation_by_item(np.array([3, 3]), np.array([0, 1]), np.array([1, 2])) is None
    assert popularity_rank_correlation_by_item(np.array([3, 3]), np.array([0]), np.array([1])) is None


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 4), st.integers(1, 6)), min_size=1, max_size=7), min_size=1, max_size=5
    ).filter(lambda users: any(len({p for p, _ in some}) > 1 and len({r for _, r in some}) > 1 for some in users))
)
def test_the_correlation_by_user_is_scipys_with_ties_at_their_mean_rank(users: list[list[tuple[int, int]]]) -> None:
    found = []
    for some in users:
        popularity, rank = zip(*some, strict=True)
        if len(set(popularity)) > 1 and len(set(rank)) > 1:
            found.append(spearmanr(popularity, rank).statistic)
    row = np.repeat(np.arange(len(users)), [len(some) for some in users])
    popularity, rank = np.array([pair for some in users for pair in some]).T
    value = popularity_rank_correlation_by_user(popularity, row, rank)
    assert value == pytest.approx(-np.mean(found), abs=1e-9)
