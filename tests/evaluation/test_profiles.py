from __future__ import annotations

import numpy as np
import pytest

from recdistill.evaluation.accuracy import METRICS
from recdistill.evaluation.profiles import PROFILES, RECDISTILL, Profile


def value(
    profile: Profile, metric: str, ranks: list[int], relevant: int, k: int = 10, n_users: int = 1
) -> float | None:
    """Of one user with a full list."""
    hit = np.zeros((1, k), bool)
    hit[0, np.array(ranks, int) - 1] = True
    return profile.value(metric, hit, np.array([relevant]), np.array([k]), n_users)


def test_one_hit_at_the_top_of_two_relevant_items_is_worth_less_where_the_ideal_takes_all_places() -> None:
    assert value(RECDISTILL, "ndcg", [1], 2) == pytest.approx(0.613, abs=5e-4)
    assert value(PROFILES["rectools"], "ndcg", [1], 2) == pytest.approx(0.220, abs=5e-4)
    assert value(PROFILES["lenskit"], "ndcg", [1], 2) == pytest.approx(0.500)
    for name in ("recbole", "implicit", "kds"):
        assert value(PROFILES[name], "ndcg", [1], 2) == value(RECDISTILL, "ndcg", [1], 2)


def test_three_hits_of_thirty_relevant_items_are_worth_more_where_recall_is_capped() -> None:
    assert value(RECDISTILL, "recall", [2, 5, 9], 30) == pytest.approx(0.10)
    assert value(PROFILES["lenskit"], "recall", [2, 5, 9], 30) == pytest.approx(0.30)


@pytest.mark.parametrize(("ranks", "relevant", "worth"), [([2], 1, 1.0), ([1, 4], 3, 1.5 / (2 + 1 / np.log2(3)))])
def test_lenskit_discounts_from_the_third_place_on(ranks: list[int], relevant: int, worth: float) -> None:
    assert value(PROFILES["lenskit"], "ndcg", ranks, relevant) == pytest.approx(worth)


def test_lenskit_divides_hits_by_what_the_list_holds() -> None:
    hit = np.array([[True, False, False, False], [False] * 4])
    assert RECDISTILL.value("precision", hit, np.array([1, 1]), np.array([2, 0]), 2) == pytest.approx(1 / 8)
    found = PROFILES["lenskit"].value("precision", hit, np.array([1, 1]), np.array([2, 0]), 2)
    assert found == pytest.approx(1 / 4)  # a half, and 0 for the empty list


def test_implicit_pools_hits_and_what_could_be_hit() -> None:
    hit = np.array([[True, True], [False, False], [True, False]])
    relevant = np.array([5, 1, 1])
    found = PROFILES["implicit"].value("precision", hit, relevant, np.array([2, 2, 2]), 9)
    assert found == pytest.approx(3 / (2 + 1 + 1))


def test_kds_divides_by_all_users() -> None:
    hit = np.array([[True, False], [False, True]])
    relevant, length = np.array([1, 2]), np.array([2, 2])
    for metric in ("recall", "ndcg"):
        ours = RECDISTILL.value(metric, hit, relevant, length, 8)
        theirs = PROFILES["kds"].value(metric, hit, relevant, length, 8)
        assert theirs == pytest.approx(ours * 2 / 8)


@pytest.mark.parametrize(("name", "metric"), [("implicit", "recall"), ("kds", "precision")])
def test_what_a_library_does_not_have_is_none(name: str, metric: str) -> None:
    assert value(PROFILES[name], metric, [1], 2) is None


@pytest.mark.parametrize("metric", METRICS)
def test_recboles_formulas_are_recdistills(metric: str) -> None:
    assert value(PROFILES["recbole"], metric, [1, 4], 3) == value(RECDISTILL, metric, [1, 4], 3)
    assert value(RECDISTILL, metric, [1, 4], 3) == METRICS[metric](
        np.array([[place in (0, 3) for place in range(10)]]), np.array([3])
    )


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_says_what_it_changes(name: str) -> None:
    assert PROFILES[name].notes[0].startswith(f"{name}: ")
