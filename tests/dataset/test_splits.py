from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.dataset.splits import Filter, RandomPerUser
from recdistill.dataset.table import Pairs, RawTable, contiguous
from recdistill.errors import DataError, SettingsError

ROWS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 40)), min_size=1, max_size=150)


def raw(rows: list[tuple[int, int]], timestamp: list[int] | None = None) -> RawTable:
    user, item = (np.array([str(row[n]) for row in rows], dtype=object) for n in (0, 1))
    return RawTable.of(user, item, timestamp=None if timestamp is None else np.array(timestamp))


def original(pairs: Pairs) -> set[tuple[str, str]]:
    return set(zip(pairs.user_ids[pairs.user], pairs.item_ids[pairs.item], strict=True))


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, seed=st.integers(0, 5))
def test_parts_are_disjoint_and_together_the_input_and_of_the_stated_size(
    rows: list[tuple[int, int]], seed: int
) -> None:
    pairs = contiguous(raw(rows))
    part = RandomPerUser(seed=seed).assign(pairs.user)
    sets = [set(zip(pairs.user[part == n].tolist(), pairs.item[part == n].tolist(), strict=True)) for n in range(3)]
    assert sum(len(some) for some in sets) == len(sets[0] | sets[1] | sets[2]) == len(pairs.user)
    assert original(pairs) == {(str(user), str(item)) for user, item in rows}
    for user in range(len(pairs.user_ids)):
        sizes = [sum(u == user for u, _ in some) for some in sets]
        n = sum(sizes)
        held = max(1, n // 10) if n >= 3 else 0
        assert sizes == [n - 2 * held, held, held]
        assert sizes[0] >= 1


@settings(max_examples=40, deadline=None)
@given(rows=ROWS, data=st.data())
def test_the_order_of_rows_and_repeats_do_not_matter(rows: list[tuple[int, int]], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(rows)) + rows[:3]
    one, other = contiguous(raw(rows)), contiguous(raw(shuffled))
    for name in ("user", "item", "user_ids", "item_ids"):
        assert getattr(one, name).tolist() == getattr(other, name).tolist()
    assert RandomPerUser().assign(one.user).tolist() == RandomPerUser().assign(other.user).tolist()


def test_ids_that_are_numbers_stand_in_the_order_of_numbers() -> None:
    pairs = contiguous(raw([(10, 2), (9, 10), (100, 1)]))
    assert pairs.user_ids.tolist() == ["9", "10", "100"]
    assert pairs.item_ids.tolist() == ["1", "2", "10"]
    assert (pairs.user.tolist(), pairs.item.tolist()) == ([0, 1, 2], [2, 1, 0])


def test_ids_that_are_words_stand_in_the_order_of_words() -> None:
    table = RawTable.of(np.array(["b", "a", "10"], dtype=object), np.array(["x", "x", "x"], dtype=object))
    assert contiguous(table).user_ids.tolist() == ["10", "a", "b"]


def test_of_repeated_pairs_the_earliest_time_counts() -> None:
    pairs = contiguous(raw([(1, 1), (1, 2), (1, 1)], timestamp=[50, 20, 30]))
    assert pairs.timestamp is not None
    assert pairs.timestamp.tolist() == [30, 20]


def test_another_seed_splits_differently_and_the_same_seed_alike() -> None:
    user = np.repeat(np.arange(5), 30)
    assert RandomPerUser(seed=1).assign(user).tolist() == RandomPerUser(seed=1).assign(user).tolist()
    assert RandomPerUser(seed=1).assign(user).tolist() != RandomPerUser(seed=2).assign(user).tolist()


@pytest.mark.parametrize(("n", "held"), [(1, 0), (2, 0), (3, 1), (9, 1), (10, 1), (19, 1), (20, 2), (29, 2), (105, 10)])
def test_a_tenth_rounded_down_but_at_least_one_is_held_out_for_each_of_valid_and_test(n: int, held: int) -> None:
    part = RandomPerUser().assign(np.zeros(n, np.int64))
    assert np.bincount(part, minlength=3).tolist() == [n - 2 * held, held, held]


def test_every_place_of_a_user_is_held_out_equally_often() -> None:
    user = np.repeat(np.arange(4000), 10)
    part = RandomPerUser().assign(user).reshape(4000, 10)
    share = (part == 2).mean(0)
    assert np.abs(share - 0.1).max() < 5 * np.sqrt(0.1 * 0.9 / 4000)


def test_the_filter_drops_short_users_once_and_the_items_that_only_they_had() -> None:
    pairs = contiguous(raw([(1, 1), (1, 2), (2, 3), (3, 2), (3, 4)]))
    kept = Filter(user_min=2).apply(pairs)
    assert original(kept) == {("1", "1"), ("1", "2"), ("3", "2"), ("3", "4")}
    assert kept.user_ids.tolist() == ["1", "3"]
    assert kept.item_ids.tolist() == ["1", "2", "4"]


def test_the_filter_counts_distinct_items() -> None:
    with pytest.raises(DataError, match="no user has 2 items") as caught:
        Filter(user_min=2).apply(contiguous(raw([(1, 1), (1, 1)])))
    assert "dataset.filter.user_min" in caught.value.fix


def test_settings_out_of_range_are_named() -> None:
    with pytest.raises(SettingsError, match="user_min=0"):
        Filter(user_min=0)
    with pytest.raises(SettingsError, match="seed=-1"):
        RandomPerUser(seed=-1)
