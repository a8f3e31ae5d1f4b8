from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.dataset.describe import Description, Group, describe, gini, spread
from recdistill.dataset.readers import read
from recdistill.dataset.table import RawTable, contiguous

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the public data sets in ../shared/data")
ROW = re.compile(
    r"\| \[`(.+?)`\].*?\| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \| ([\d.]+)% \| ([\d.]+) \| ([\d.]+)% \| (yes|no) \|"
)


def published() -> dict[str, tuple[str, ...]]:
    """The table of ../shared/data/README.md, as it is printed there."""
    text = (SHARED / "README.md").read_text() if SHARED.is_dir() else ""
    return {name: tuple(facts) for name, *facts in ROW.findall(text)}


def table(*rows: tuple[str, str], time: list[int] | None = None) -> RawTable:
    users, items = zip(*rows, strict=True)
    return RawTable.of(list(users), list(items), timestamp=None if time is None else np.array(time))


def described(one: RawTable, groups: int = 2) -> Description:
    return describe(one, contiguous(one), groups=groups)


def warned(one: RawTable) -> str:
    return "\n".join(described(one).warnings)


def lists(lengths: list[int], *, ordered: bool) -> RawTable:
    """One list of items per user, in the order of their ids or against it."""
    rows = [
        (f"u{user}", str(item)) for user, n in enumerate(lengths) for item in range(10, 10 + n)[:: 1 if ordered else -1]
    ]
    return table(*rows)


@needs_shared
def test_all_six_data_sets_are_in_the_table_of_published_statistics() -> None:
    assert len(published()) == 6


@needs_shared
@pytest.mark.parametrize("name", published())
def test_the_statistics_are_those_published(name: str) -> None:
    found = described(read(SHARED / name / "interactions.tsv.gz", say=lambda line: None))
    assert (
        f"{found.n_users:,}",
        f"{found.n_items:,}",
        f"{found.n_interactions:,}",
        f"{100 * found.density:.3f}",
        f"{found.gini:.3f}",
        f"{100 * found.top20_share:.1f}",
        "no" if found.time is None else "yes",
    ) == published()[name]


def test_a_table_has_the_worked_statistics() -> None:
    found = described(table(("u", "a"), ("u", "b"), ("v", "a"), ("v", "a"), ("w", "a"), time=[0, 5, 9, 8, 86400]))
    assert (found.n_users, found.n_items, found.n_interactions, found.n_rows) == (3, 2, 4, 5)
    assert found.density == pytest.approx(4 / 6)
    assert found.gini == pytest.approx(0.25)  # |3 - 1| / (2 * 2 * 2)
    assert found.top20_share == 0.75
    assert (found.history.min, found.history.median, found.history.max) == (1, 1, 2)
    assert found.history.mean == pytest.approx(4 / 3)
    assert (found.popularity.min, found.popularity.max) == (1, 3)
    assert found.groups == (Group(1, 3, 3, 3), Group(1, 1, 1, 1))
    assert found.time == ("1970-01-01T00:00:00", "1970-01-02T00:00:00")


@pytest.mark.parametrize("factor", [1, 10**3, 10**6, 10**9])
def test_the_unit_of_time_is_told_by_its_size(factor: int) -> None:
    found = described(table(("u", "a"), ("v", "b"), time=[874_724_710 * factor, 893_286_638 * factor]))
    assert found.time == ("1997-09-20T03:05:10", "1998-04-22T23:10:38")


def test_a_filter_changes_the_statistics_and_not_the_traps_of_the_file() -> None:
    one = table(("u", "a"), ("u", "b"), ("v", "a"), ("v", "a"))
    kept = contiguous(table(("u", "a"), ("u", "b")))
    found = describe(one, contiguous(one), kept)
    assert (found.n_users, found.n_interactions, found.n_rows) == (1, 2, 4)
    assert "1 rows repeat a pair" in found.warnings[0]


def test_more_groups_than_items_are_as_many_as_there_are_items() -> None:
    assert len(described(table(("u", "a"), ("v", "b")), groups=5).groups) == 2


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=40).filter(any))
def test_gini_is_the_mean_absolute_difference_over_twice_the_mean(count: list[int]) -> None:
    slow = sum(abs(a - b) for a in count for b in count) / (2 * len(count) * sum(count))
    assert gini(np.array(count)) == pytest.approx(slow)
    assert 0 <= gini(np.array(count)) < 1


def test_a_spread_is_in_order() -> None:
    found = spread(np.array([4, 1, 3, 2, 100]))
    assert (found.min, found.q25, found.median, found.q75, found.max, found.mean) == (1, 2, 3, 4, 100, 22)
    assert found.q05 <= found.q25 <= found.q75 <= found.q95


def test_repeated_rows_and_users_with_everything_are_told() -> None:
    said = warned(table(("u", "a"), ("u", "a"), ("u", "b"), ("v", "a")))
    assert "1 rows repeat a pair of user and item" in said
    assert "1 users have every item" in said
    assert warned(table(("u", "a"), ("v", "b"))) == ""


def test_ids_that_are_sorted_inside_lines_are_told_as_such() -> None:
    lengths = [4 + n % 5 for n in range(20)]
    assert "the items of 100% of the users stand in the order of their ids" in warned(lists(lengths, ordered=True))
    assert "by id, not by time" in warned(lists(lengths, ordered=True))
    assert "order of their ids" not in warned(lists(lengths, ordered=False))


def test_sorted_numbers_are_compared_as_numbers() -> None:
    rows = [(f"u{user}", str(item)) for user in range(20) for item in (9 - user % 2, 10 + user, 100 + user)]
    assert "stand in the order of their ids" in warned(table(*rows))


def test_sorted_ids_do_not_matter_where_there_are_times_or_a_split_of_its_own() -> None:
    one = lists([5] * 20, ordered=True)
    assert "order of their ids" in warned(one)
    timed = RawTable(one.user, one.item, timestamp=np.arange(len(one)))
    split = RawTable(one.user, one.item, part=np.zeros(len(one), np.int8))
    assert "order of their ids" not in warned(timed) + warned(split)


@needs_shared
def test_citeulike_t_is_sorted_inside_its_lines_and_ml_100k_is_not() -> None:
    folder = SHARED / "citeulike-t" / "original"
    assert "order of their ids" in warned(read(folder / "users.dat", say=lambda line: None))
    assert warned(read(SHARED / "ml-100k" / "original" / "u.data", say=lambda line: None)) == ""


@needs_shared
def test_the_count_at_the_start_of_a_users_dat_line_is_told_when_it_was_read_as_a_user() -> None:
    said = warned(read(SHARED / "citeulike-t" / "original" / "users.dat", format="adjacency", say=lambda line: None))
    assert "divide the numbers of their items: they look like counts" in said
    assert "dataset.format=users.dat" in said


def test_a_count_at_the_start_of_each_list_is_told_when_it_was_read_as_an_item() -> None:
    rows = [
        (f"u{user}", item)
        for user in range(20)
        for n in (3 + user % 7,)
        for item in [str(n), *map(str, range(900, 900 + n))]
    ]
    assert "the first item of 100% of the users equals the number of items that follow" in warned(table(*rows))
    assert "looks like a count" not in warned(lists([5] * 20, ordered=False))
