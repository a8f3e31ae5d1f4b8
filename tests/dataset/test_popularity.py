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
