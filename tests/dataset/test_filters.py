from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.dataset.filters import Filter
from recdistill.dataset.splits import TimeCut
from recdistill.dataset.table import Pairs, RawTable, contiguous
from recdistill.errors import DataError, SettingsError

ROWS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 12)), min_size=1, max_size=60)


def table(rows: list[tuple[int, int]], rating: list[float] | None = None, time: list[int] | None = None) -> Pairs:
    user, item = (np.array([str(row[n]) for row in rows], dtype=object) for n in (0, 1))
    columns = (None if column is None else np.array(column) for column in (rating, time))
    return contiguous(RawTable.of(user, item, *columns))


def original(pairs: Pairs) -> set[tuple[int, int]]:
    return {
        (int(user), int(item))
        for user, item in zip(pairs.user_ids[pairs.user], pairs.item_ids[pairs.item], strict=True)
    }


def one_pass(rows: set[tuple[int, int]], user_min: int, item_min: int) -> set[tuple[int, int]]:
    users = Counter(user for user, _ in rows)
    rows = {row for row in rows if users[row[0]] >= user_min}
    items = Counter(item for _, item in rows)
    return {row for row in rows if items[row[1]] >= item_min}


@settings(max_examples=150, deadline=None)
@given(rows=ROWS, user_min=st.integers(1, 4), item_min=st.integers(1, 4), iterative=st.booleans())
def test_users_and_then_items_are_dropped_once_or_until_nothing_falls_out(
    rows: list[tuple[int, int]], user_min: int, item_min: int, iterative: bool
) -> None:
    expected = one_pass(set(rows), user_min, item_min)
    while iterative and (again := one_pass(expected, user_min, item_min)) != expected:
        expected = again
    keep = Filter(user_min=user_min, item_min=item_min, iterative=iterative)
    if not expected:
        with pytest.raises(
            DataError, match=f"the filter leaves none of {len(set(rows))} interactions: dataset.filter."
        ):
            keep.apply(table(rows))
        return
    kept = keep.apply(table(rows))
    assert original(kept) == expected
    for code, ids in ((kept.user, kept.user_ids), (kept.item, kept.item_ids)):
        assert np.unique(code).tolist() == list(range(len(ids)))
    assert kept.user_ids.tolist() == sorted(kept.user_ids.tolist(), key=int)
    assert (np.diff(kept.user * len(kept.item_ids) + kept.item) > 0).all()


def test_one_pass_may_leave_a_user_below_the_minimum_and_the_core_does_not() -> None:
    rows = [(1, 1), (1, 2), (2, 1), (2, 3), (3, 1), (3, 2)]
    assert original(Filter(user_min=2, item_min=2).apply(table(rows))) == {(1, 1), (1, 2), (2, 1), (3, 1), (3, 2)}
    core = Filter(user_min=2, item_min=2, iterative=True).apply(table(rows))
    assert original(core) == {(1, 1), (1, 2), (3, 1), (3, 2)}


def test_a_date_against_times_in_milliseconds_is_an_error_and_keeps_nobody_in_silence() -> None:
    pairs = table([(0, 0), (1, 1)], time=[1_420_000_000_000, 1_420_000_000_001])
    for key in ("time_from", "time_to"):
        with pytest.raises(DataError, match=f"dataset.filter.{key}=1451606400 is in seconds"):
            Filter(**{key: "2016-01-01"}).apply(pairs)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"dataset.split.test_from=1451606400 is in seconds"):
        TimeCut(test_from="2016-01-01").assign(pairs)
    assert len(Filter(time_from=1_420_000_000_001).apply(pairs).user) == 1


def test_the_filter_counts_distinct_items() -> None:
    with pytest.raises(DataError, match=r"the filter leaves none of 1 interactions: dataset.filter.user_min=2\n"):
        Filter(user_min=2).apply(table([(1, 1), (1, 1)]))


def test_ratings_from_the_threshold_on_are_positives_before_users_are_counted() -> None:
    pairs = table([(1, 1), (1, 2), (2, 1), (2, 2)], rating=[4, 5, 3.5, 5])
    kept = Filter(rating_min=4, user_min=2).apply(pairs)
    assert original(kept) == {(1, 1), (1, 2)}
    assert kept.rating is not None
    assert kept.rating.tolist() == [4, 5]


def test_a_window_of_time_holds_its_first_moment_and_not_its_last() -> None:
    pairs = table([(1, item) for item in range(4)], time=[0, 86_400, 100_000, 172_800])
    for window in ({"time_from": 86_400, "time_to": 172_800}, {"time_from": "1970-01-02", "time_to": "1970-01-03"}):
        kept = Filter(**window).apply(pairs)
        assert original(kept) == {(1, 1), (1, 2)}
        assert kept.timestamp is not None
        assert kept.timestamp.tolist() == [86_400, 100_000]
    later = Filter(time_from="1970-01-02T01:00+01:00").apply(pairs)
    assert original(later) == {(1, 1), (1, 2), (1, 3)}


@pytest.mark.parametrize(
    ("setting", "column"),
    [({"rating_min": 4}, "rating"), ({"time_from": 5}, "timestamp"), ({"time_to": 5}, "timestamp")],
)
def test_a_setting_that_reads_what_the_table_lacks_is_an_error(setting: dict[str, Any], column: str) -> None:
    with pytest.raises(DataError, match=rf"dataset\.filter\.{next(iter(setting))}=\d needs a {column}"):
        Filter(**setting).apply(table([(1, 1)]))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"user_min": 0}, "user_min=0"),
        ({"item_min": 0}, "item_min=0"),
        ({"time_from": 5, "time_to": 5}, "time_to=5"),
        ({"time_from": "yesterday"}, "time_from='yesterday' is neither a number nor a date"),
    ],
)
def test_settings_out_of_range_are_named(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Filter(**setting)


def test_a_setting_that_came_later_counts_in_the_fingerprint_only_where_it_is_used() -> None:
    assert Filter(user_min=5).made_by() == ["Filter", {"user_min": 5}]
    assert Filter(item_min=2, time_from="1970-01-02").made_by() == [
        "Filter",
        {"user_min": 1, "item_min": 2, "time_from": 86_400},
    ]
