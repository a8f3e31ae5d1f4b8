from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recdistill.evaluation.catalogue import BINS, Items, Users, head_mid_tail, user_bins, user_kinds

POPULARITY = np.array([8, 6, 3, 2, 1])
GROUP = np.array([0, 1, 1, 1, 1])


def test_head_is_the_most_popular_fifth_of_the_items_rounded_up_and_tail_the_last_fifth() -> None:
    counts = np.array([1, 5, 5, 9, 0, 2, 3])
    assert head_mid_tail(counts).tolist() == [1, 0, 1, 0, 2, 1, 1]  # of the two with 5 the first one


def test_a_catalogue_of_two_has_a_head_and_no_tail() -> None:
    assert head_mid_tail(np.array([1, 2])).tolist() == [1, 0]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60))
def test_no_item_is_lost_and_none_of_the_tail_is_more_popular_than_one_of_the_head(counts: list[int]) -> None:
    popularity = np.array(counts)
    tail = head_mid_tail(popularity)
    assert (tail == 0).sum() == -(-len(counts) // 5)
    assert (tail == 2).sum() == len(counts) // 5
    for near, far in ((0, 1), (1, 2), (0, 2)):
        if (tail == near).any() and (tail == far).any():
            assert popularity[tail == near].min() >= popularity[tail == far].max()


def test_the_two_outer_fifths_of_the_users_are_niche_and_blockbuster() -> None:
    share = np.array([0.5, 0.1, np.nan, 0.9, 0.5, 0.4])
    profile = np.array([3.0, 1.0, np.nan, 9.0, 2.0, 2.0])
    assert user_kinds(share, profile).tolist() == [1, 0, -1, 2, 1, 1]


def test_equal_shares_go_by_the_popularity_of_the_profile_and_then_by_index() -> None:
    share = np.zeros(5)
    assert user_kinds(share, np.array([2.0, 1.0, 3.0, 3.0, 2.0])).tolist() == [1, 0, 1, 2, 1]


def test_four_users_are_too_few_for_outer_fifths() -> None:
    assert user_kinds(np.arange(4.0), np.arange(4.0)).tolist() == [1, 1, 1, 1]


@given(st.lists(st.floats(0, 100), min_size=BINS, max_size=50), st.integers(0, 5))
def test_bins_hold_equally_many_users_and_rise_with_popularity(means: list[float], without: int) -> None:
    profile = np.array(means + [np.nan] * without)
    bins = user_bins(profile)
    assert (bins[len(means) :] == -1).all()
    sizes = np.bincount(bins[: len(means)], minlength=BINS)
    assert sizes.max() - sizes.min() <= 1
    assert (np.diff(bins[: len(means)][np.argsort(means, kind="stable")]) >= 0).all()


def test_users_know_their_training_items_and_those_without_any_are_in_no_group() -> None:
    items = Items.of(POPULARITY, GROUP)
    user, item = np.array([0, 0, 1, 1, 3]), np.array([0, 1, 2, 3, 4])
    users = Users.of(items, user, item, 4)
    assert users.n_train.tolist() == [2, 2, 0, 1]
    assert users.profile[[0, 1, 3]].tolist() == [7, 2.5, 1]
    assert np.isnan(users.profile[2])
    assert users.kind[2] == users.bin[2] == -1
    columns = users.columns()
    assert columns["kind"][2] is None
    assert columns["bin"].mask.tolist() == columns["profile"].mask.tolist() == [False, False, True, False]


def test_strata_of_items_are_named_by_their_suffix_and_each_family_covers_the_catalogue() -> None:
    strata = Items.of(POPULARITY, GROUP).strata()
    assert list(strata) == ["group=0", "group=1", "items=head", "items=mid", "items=tail"]
    for family in ("group", "items"):
        assert sum(mask.astype(int) for name, mask in strata.items() if name.startswith(family)).tolist() == [1] * 5


def test_groups_of_users_are_of_those_asked_for() -> None:
    items = Items.of(POPULARITY, GROUP)
    users = Users.of(items, np.arange(5), np.arange(5), 5)
    (kinds, kind), (bins, place) = users.splits(np.array([4, 0]))
    assert kinds == ["users=niche", "users=diverse", "users=blockbuster"]
    assert kind.tolist() == [0, 2]
    assert bins == [f"users=bin{n}" for n in range(BINS)]
    assert place.tolist() == [0, users.bin[0]]


@pytest.mark.parametrize("column", ["popularity", "group", "tail"])
def test_items_are_stored_with_all_that_is_known_of_them(column: str) -> None:
    stored = Items.of(POPULARITY, GROUP).columns()
    assert len(stored[column]) == 5
    assert stored["tail"].tolist() == ["head", "mid", "mid", "mid", "tail"]
