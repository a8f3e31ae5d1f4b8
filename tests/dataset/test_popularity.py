from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.dataset.popularity import popularity_groups
from recdistill.errors import SettingsError

COUNTS = [6, 4, 3, 2, 2, 1, 1, 1]


@pytest.mark.parametrize(
    ("counts", "groups", "expected"),
    [
        (COUNTS, 2, [0, 0, 1, 1, 1, 1, 1, 1]),
        (COUNTS, 4, [0, 1, 2, 2, 3, 3, 3, 3]),
        ([3, 3, 3, 1], 2, [0, 0, 1, 1]),
        (COUNTS, 1, [0] * 8),
    ],
)
def test_the_partition_has_the_worked_groups(counts: list[int], groups: int, expected: list[int]) -> None:
    assert popularity_groups(torch.tensor(counts), groups).tolist() == expected


def test_items_without_interactions_are_in_the_last_group() -> None:
    assert popularity_groups(torch.tensor([0, 4, 0, 4]), 2).tolist() == [1, 0, 1, 1]


def test_equally_popular_items_are_taken_by_index() -> None:
    assert popularity_groups(torch.tensor([2, 2, 2, 2]), 2).tolist() == [0, 0, 1, 1]


def test_one_item_that_holds_almost_everything_leaves_no_group_empty() -> None:
    assert popularity_groups(torch.tensor([1, 1000, 1, 1]), 4).tolist() == [1, 0, 2, 3]
    assert popularity_groups(torch.tensor([1000, 1, 1, 0]), 3).tolist() == [0, 1, 2, 2]


@settings(max_examples=100, deadline=None)
@given(counts=st.lists(st.integers(0, 50), min_size=1, max_size=30).filter(any), data=st.data())
def test_no_group_is_empty_and_groups_fall_in_popularity(counts: list[int], data: st.DataObject) -> None:
    groups = data.draw(st.integers(1, sum(count > 0 for count in counts)))
    group = popularity_groups(torch.tensor(counts), groups).tolist()
    seen = [number for number, count in zip(group, counts, strict=True) if count > 0]
    assert set(seen) == set(range(groups))  # not empty even without the items nobody had
    assert all(number == groups - 1 for number, count in zip(group, counts, strict=True) if count == 0)
    order = sorted(range(len(counts)), key=lambda item: (-counts[item], item))
    assert [group[item] for item in order] == sorted(group)


def test_more_groups_than_items_with_interactions_is_an_error_that_says_how_many_there_are() -> None:
    with pytest.raises(SettingsError, match="groups=3") as caught:
        popularity_groups(torch.tensor([5, 0, 2, 0]), 3)
    assert "the 2 items with training interactions" in caught.value.why


def test_the_greedy_partition_has_the_worked_groups_and_can_give_one_too_many() -> None:
    assert popularity_groups(torch.tensor(COUNTS), 2, "greedy").tolist() == [0, 0, 1, 1, 1, 1, 1, 1]
    assert popularity_groups(torch.tensor(COUNTS), 4, "greedy").tolist() == [0, 1, 2, 2, 3, 3, 3, 3]
    assert popularity_groups(torch.tensor([3, 3, 3, 1]), 2, "greedy").tolist() == [0, 1, 2, 2]


def test_the_greedy_partition_gives_an_item_above_its_share_a_group_of_its_own() -> None:
    assert popularity_groups(torch.tensor([1, 1000, 1, 1, 0]), 4, "greedy").tolist() == [0, 0, 0, 0, 0]
    assert popularity_groups(torch.tensor([10, 6, 3, 1]), 3, "greedy").tolist() == [0, 1, 2, 2]


@settings(max_examples=100, deadline=None)
@given(counts=st.lists(st.integers(0, 50), min_size=1, max_size=30).filter(any), data=st.data())
def test_the_greedy_partition_equals_the_rule_as_it_is_told(counts: list[int], data: st.DataObject) -> None:
    groups = data.draw(st.integers(1, sum(count > 0 for count in counts)))
    order = sorted((item for item in range(len(counts)) if counts[item]), key=lambda item: (-counts[item], item))
    target, made, current, mass = sum(counts) / groups, [], [], 0
    for item in order:
        current, mass = [*current, item], mass + counts[item]
        if mass > target and len(current) == 1:
            made, current, mass = [*made, current], [], 0
        elif mass > target:
            made, current, mass = [*made, current[:-1]], [item], counts[item]
    if current and (mass > target / 2 or not made):
        made = [*made, current]
    elif current:
        made[-1] = made[-1] + current
    group = popularity_groups(torch.tensor(counts), groups, "greedy").tolist()
    assert {g: [i for i in order if group[i] == g] for g in range(len(made))} == dict(enumerate(made))


def test_equal_counts_are_equal_counts_of_items_with_interactions() -> None:
    group = popularity_groups(torch.tensor([9, 0, 8, 7, 3, 2, 1, 0]), 3, "equal_count").tolist()
    assert group == [0, 2, 0, 1, 1, 2, 2, 2]


def test_another_partition_is_refused() -> None:
    with pytest.raises(SettingsError, match="partition='random'"):
        popularity_groups(torch.tensor([1, 2]), 2, "random")
