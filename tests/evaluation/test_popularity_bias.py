from __future__ import annotations

import numpy as np
import pytest

from recdistill.evaluation.catalogue import profile_means
from recdistill.evaluation.popularity_bias import group_recall, list_means, popularity_lift

POPULARITY = np.array([8, 6, 3, 2, 1])  # items a to e
PROFILES = [(0, 0), (0, 1), (1, 2), (1, 3), (2, 0), (2, 4)]
LISTS = np.array([[0, 2], [0, 1], [1, 2]])
FULL = np.array([2, 2, 2])


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


@pytest.mark.parametrize(
    ("hits", "relevant", "expected"), [([1, 1, 0], [1, 1, 0], 1.0), ([1, 0, 1], [1, 1, 1], 0.666667)]
)
def test_group_recall_has_the_worked_macro_values(hits: list[int], relevant: list[int], expected: float) -> None:
    assert group_recall(np.array(hits), np.array(relevant)) == pytest.approx(expected, abs=1e-6)


def test_group_recall_is_a_mean_over_users_and_not_over_items() -> None:
    assert group_recall(np.array([1, 0, 0]), np.array([1, 4, 0])) == pytest.approx(0.5)


def test_the_recall_of_a_group_that_nobody_wants_is_none() -> None:
    assert group_recall(np.array([0, 0]), np.array([0, 0])) is None
