from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.dataset.filters import Filter
from recdistill.dataset.loading import load
from recdistill.dataset.named import CiteULikeT, Named
from recdistill.dataset.splits import LeaveOneOut, Ratio, Split, TimeCut, UserHoldOut, argsort
from recdistill.dataset.table import Pairs, RawTable, contiguous
from recdistill.errors import DataError, SettingsError
from recdistill.types import Dataset

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the public data sets in ../shared/data")
ROWS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 40), st.integers(0, 9)), min_size=1, max_size=150)
SHARES = st.sampled_from([0.01, 0.1, 0.2, 0.3, 0.45])
SEEDS = st.integers(0, 5)
PER_USER = st.one_of(
    st.builds(
        Ratio,
        valid=SHARES,
        test=SHARES,
        rounding=st.sampled_from(["at_least_one", "floor", "ceil", "cumulative"]),
        order=st.sampled_from(["random", "time"]),
        seed=SEEDS,
    ),
    st.builds(LeaveOneOut, order=st.sampled_from(["random", "time"]), seed=SEEDS),
    st.builds(UserHoldOut, held_out=SHARES, valid_users=SHARES, seed=SEEDS),
)


def raw(rows: list[tuple[int, ...]]) -> RawTable:
    """A table of (user, item) or (user, item, time)."""
    user, item = (np.array([str(row[n]) for row in rows], dtype=object) for n in (0, 1))
    return RawTable.of(user, item, timestamp=np.array([row[2] for row in rows]) if len(rows[0]) == 3 else None)


def alone(n: int, time: list[int] | None = None) -> Pairs:
    """One user with n items."""
    return contiguous(raw([(0, item) if time is None else (0, item, time[item]) for item in range(n)]))


def original(pairs: Pairs) -> set[tuple[str, str]]:
    return set(zip(pairs.user_ids[pairs.user], pairs.item_ids[pairs.item], strict=True))


def named_parts(split: Split, pairs: Pairs) -> dict[tuple[str, str], int]:
    part = split.assign(pairs)
    assert part.dtype == np.int8
    return dict(zip(zip(pairs.user_ids[pairs.user], pairs.item_ids[pairs.item], strict=True), part, strict=True))


def sizes(split: Split, n: int) -> list[int]:
    """Train, valid and test items of a user with n."""
    return np.bincount(split.assign(alone(n)), minlength=3).tolist()


@settings(max_examples=150, deadline=None)
@given(rows=ROWS, split=PER_USER)
def test_parts_together_are_the_input_and_every_user_trains(rows: list[tuple[int, ...]], split: Split) -> None:
    pairs = contiguous(raw(rows))
    parts = named_parts(split, pairs)
    assert set(parts) == original(pairs) == {(str(user), str(item)) for user, item, _ in rows}
    assert set(parts.values()) <= {0, 1, 2}
    assert {user for (user, _), part in parts.items() if part == 0} == set(pairs.user_ids)


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, split=st.one_of(PER_USER, st.builds(TimeCut, valid=SHARES, test=SHARES)), data=st.data())
def test_the_order_of_rows_and_repeats_do_not_matter(
    rows: list[tuple[int, ...]], split: Split, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(rows)) + rows[:3]
    one, other = contiguous(raw(rows)), contiguous(raw(shuffled))
    for name in ("user", "item", "user_ids", "item_ids"):
        assert getattr(one, name).tolist() == getattr(other, name).tolist()
    assert named_parts(split, one) == named_parts(split, other)


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, split=st.one_of(PER_USER, st.builds(TimeCut, valid=SHARES, test=SHARES)))
def test_dropping_the_unseen_moves_nothing_else(rows: list[tuple[int, ...]], split: Any) -> None:
    pairs = contiguous(raw(rows))
    split.unseen = "keep"
    kept = split.assign(pairs)
    split.unseen = "drop"
    dropped = split.assign(pairs)
    trained = set(pairs.item[kept == 0].tolist()), set(pairs.user[kept == 0].tolist())
    for before, after, item, user in zip(kept, dropped, pairs.item, pairs.user, strict=True):
        seen = item in trained[0] and user in trained[1]
        assert after == (before if before == 0 or seen else -1)


@settings(max_examples=60, deadline=None)
@given(rows=ROWS)
def test_the_quick_sort_is_the_exact_one_though_rounding_makes_keys_equal(rows: list[tuple[int, ...]]) -> None:
    user, item, time = (np.array([row[n] for row in rows]) for n in range(3))
    exact = (item, time, user)
    for rough in (user * 0.0, user * 1.0, user + time / 10):
        assert argsort(rough, exact).tolist() == np.lexsort(exact).tolist()


def test_ids_that_are_numbers_stand_in_the_order_of_numbers() -> None:
    pairs = contiguous(raw([(10, 2), (9, 10), (100, 1)]))
    assert pairs.user_ids.tolist() == ["9", "10", "100"]
    assert pairs.item_ids.tolist() == ["1", "2", "10"]
    assert (pairs.user.tolist(), pairs.item.tolist()) == ([0, 1, 2], [2, 1, 0])


def test_ids_that_are_words_stand_in_the_order_of_words() -> None:
    table = RawTable.of(np.array(["b", "a", "10"], dtype=object), np.array(["x", "x", "x"], dtype=object))
    assert contiguous(table).user_ids.tolist() == ["10", "a", "b"]


def test_of_repeated_pairs_the_earliest_time_and_the_highest_rating_count() -> None:
    user, item = np.array(["1", "1", "1"], dtype=object), np.array(["1", "2", "1"], dtype=object)
    pairs = contiguous(RawTable.of(user, item, np.array([3.0, 4.0, 5.0]), np.array([50, 20, 60])))
    assert pairs.timestamp is not None
    assert pairs.rating is not None
    assert (pairs.timestamp.tolist(), pairs.rating.tolist()) == ([50, 20], [5.0, 4.0])


# Ratio


@pytest.mark.parametrize(("n", "held"), [(1, 0), (2, 0), (3, 1), (9, 1), (10, 1), (19, 1), (20, 2), (29, 2), (105, 10)])
def test_by_default_a_tenth_rounded_down_but_at_least_one_is_held_out_for_each_part(n: int, held: int) -> None:
    assert sizes(Ratio(), n) == [n - 2 * held, held, held]


@pytest.mark.parametrize(
    ("rounding", "shares", "n", "expected"),
    [
        ("floor", (0.2, 0.2), 4, [4, 0, 0]),  # HetComp: int(.2 n) twice
        ("floor", (0.2, 0.2), 5, [3, 1, 1]),
        ("floor", (0.2, 0.2), 14, [10, 2, 2]),
        ("ceil", (0.2, 0.2), 1, [1, 0, 0]),  # one item is always left to train on
        ("ceil", (0.2, 0.2), 2, [1, 0, 1]),
        ("ceil", (0.2, 0.2), 5, [3, 1, 1]),
        ("ceil", (0.2, 0.2), 6, [2, 2, 2]),
        ("cumulative", (0.1, 0.1), 1, [1, 0, 0]),  # KDs: max(1, floor(.8 n)), then up to floor(.9 n)
        ("cumulative", (0.1, 0.1), 2, [1, 0, 1]),
        ("cumulative", (0.1, 0.1), 5, [4, 0, 1]),
        ("cumulative", (0.1, 0.1), 7, [5, 1, 1]),
        ("cumulative", (0.1, 0.1), 11, [8, 1, 2]),
        ("cumulative", (0.1, 0.1), 20, [16, 2, 2]),
        ("floor", (0.57, 0.4), 100, [3, 57, 40]),  # in floats 0.57 * 100 is below 57
        ("floor", (0.1, 0.2), 30, [21, 3, 6]),
        ("at_least_one", (0.01, 0.95), 10, [1, 1, 8]),
        ("at_least_one", (0.95, 0.01), 10, [1, 8, 1]),
        ("at_least_one", (0.1, 0.5), 2, [2, 0, 0]),
    ],
)
def test_shares_are_rounded_as_the_rule_says(
    rounding: str, shares: tuple[float, float], n: int, expected: list[int]
) -> None:
    assert sizes(Ratio(valid=shares[0], test=shares[1], rounding=rounding), n) == expected


def test_every_place_of_a_user_is_held_out_equally_often() -> None:
    n_users = 4000
    user, item = np.repeat(np.arange(n_users), 10), np.tile(np.arange(10), n_users)
    part = Ratio().assign(Pairs(user, item, np.arange(n_users), np.arange(10))).reshape(n_users, 10)
    assert np.abs((part == 2).mean(0) - 0.1).max() < 5 * np.sqrt(0.1 * 0.9 / n_users)


def test_another_seed_splits_differently_and_the_same_seed_alike() -> None:
    pairs = alone(30)
    for kind in (Ratio, LeaveOneOut, UserHoldOut):
        assert kind(seed=1).assign(pairs).tolist() == kind(seed=1).assign(pairs).tolist()
        assert kind(seed=1).assign(pairs).tolist() != kind(seed=2).assign(pairs).tolist()


def test_in_the_order_of_time_the_latest_items_are_test_and_those_before_valid() -> None:
    time = [50, 10, 90, 30, 70, 20, 80, 60, 40, 0]
    part = Ratio(valid=0.2, test=0.2, order="time").assign(alone(10, time))
    assert np.flatnonzero(part == 2).tolist() == [2, 6]
    assert np.flatnonzero(part == 1).tolist() == [4, 7]


def test_items_of_one_time_stand_in_random_order_and_not_in_that_of_their_ids() -> None:
    tested = {int(LeaveOneOut(order="time", seed=seed).assign(alone(4, [1, 2, 2, 2])).argmax()) for seed in range(30)}
    assert tested == {1, 2, 3}


# Leave one out


@pytest.mark.parametrize(("n", "expected"), [(1, [1, 0, 0]), (2, [2, 0, 0]), (3, [1, 1, 1]), (9, [7, 1, 1])])
def test_one_item_is_left_out_for_each_part_of_users_with_three(n: int, expected: list[int]) -> None:
    assert sizes(LeaveOneOut(), n) == expected


def test_the_latest_item_is_test_and_the_one_before_it_valid() -> None:
    assert LeaveOneOut(order="time").assign(alone(4, [5, 9, 1, 7])).tolist() == [0, 2, 0, 1]


# User hold-out


def test_held_out_items_are_valid_for_a_share_of_the_users_and_test_for_the_others() -> None:
    pairs = contiguous(raw([(user, item) for user in range(13) for item in range(6)]))
    part = UserHoldOut().assign(pairs).reshape(13, 6)
    assert ((part > 0).sum(1) == 2).all()  # ceil(1.2)
    kinds = [set(row[row > 0].tolist()) for row in part]
    assert kinds.count({1}) == 2  # floor(2.6)
    assert kinds.count({2}) == 11


def test_the_validation_users_do_not_depend_on_the_number_of_interactions() -> None:
    def users(n_items: int) -> set[int]:
        pairs = contiguous(raw([(user, item) for user in range(20) for item in range(n_items)]))
        return set(pairs.user[UserHoldOut().assign(pairs) == 1].tolist())

    assert users(5) == users(9)
    assert len(users(5)) == 4


# Time cut


def test_moments_cut_all_interactions_and_one_time_stays_together_on_the_later_side() -> None:
    rows = [(user, user * 10 + step, time) for user in range(2) for step, time in enumerate([1, 2, 3, 4, 5])]
    pairs = contiguous(raw(rows))
    part = TimeCut(valid=0.2, test=0.1, unseen="keep").assign(pairs)  # the tenth that is test is one of the two at 5
    assert part.tolist() == [0, 0, 0, 1, 2] * 2


def test_given_moments_and_dates_cut_where_they_say() -> None:
    pairs = contiguous(raw([(0, item, item * 86400) for item in range(6)]))
    assert TimeCut(valid_from=2 * 86400, test_from="1970-01-05", unseen="keep").assign(pairs).tolist() == [
        0, 0, 1, 1, 2, 2,
    ]  # fmt: skip
    assert TimeCut(test_from="1970-01-06T00:00", valid=0.3, unseen="keep").assign(pairs).tolist()[-1] == 2


def test_a_time_cut_drops_users_that_start_after_it_unless_they_are_kept() -> None:
    pairs = contiguous(raw([(0, 0, 1), (0, 1, 2), (1, 0, 3), (0, 2, 3), (1, 1, 4), (0, 3, 1)]))
    assert named_parts(TimeCut(valid_from=3, test_from=4), pairs) == {
        ("0", "0"): 0, ("0", "1"): 0, ("0", "3"): 0, ("0", "2"): -1, ("1", "0"): -1, ("1", "1"): -1,
    }  # fmt: skip
    kept = named_parts(TimeCut(valid_from=3, test_from=4, unseen="keep"), pairs)
    assert (kept["1", "0"], kept["0", "2"], kept["1", "1"]) == (1, 1, 2)


# Errors


@pytest.mark.parametrize(
    "split", [Ratio(order="time"), LeaveOneOut(order="time"), UserHoldOut(order="time"), TimeCut()]
)
def test_an_order_of_time_without_times_is_an_error_that_names_the_setting(split: Split) -> None:
    with pytest.raises(DataError, match=r"needs a timestamp of each interaction, but the table has none") as caught:
        split.assign(alone(5))
    assert "dataset" in caught.value.what
    assert "dataset/split=time_cut" in caught.value.what or "dataset.split.order=time" in caught.value.what


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ratio(seed=-1), "seed=-1"),
        (lambda: Ratio(test=0.0), r"test=0\.0"),
        (lambda: Ratio(valid=1.0), r"valid=1\.0"),
        (lambda: Ratio(valid=0.3, test=0.7), r"test=0\.7"),
        (lambda: Ratio(rounding="up"), "rounding='up'"),
        (lambda: Ratio(order="file"), "order='file'"),
        (lambda: LeaveOneOut(unseen="maybe"), "unseen='maybe'"),
        (lambda: UserHoldOut(held_out=1.5), r"held_out=1\.5"),
        (lambda: UserHoldOut(valid_users=0), "valid_users=0"),
        (lambda: TimeCut(valid_from=5, test_from=5), "test_from=5"),
        (lambda: TimeCut(test_from="soon"), "test_from='soon'"),
    ],
)
def test_settings_out_of_range_are_named(make: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        make()


# Fingerprints


def test_a_setting_that_came_later_counts_only_where_it_differs() -> None:
    assert Ratio().made_by() == ["RandomPerUser", {"seed": 0}]
    assert Ratio(order="time", seed=3).made_by() == ["RandomPerUser", {"order": "time", "seed": 3}]
    assert LeaveOneOut().made_by() == ["LeaveOneOut", {"order": "random", "unseen": "keep", "seed": 0}]


class Mine(Ratio):
    """A split of one's own."""


def test_a_split_of_ones_own_has_its_own_name_in_fingerprints() -> None:
    assert Mine().made_by()[0] == f"{__name__}.Mine"
    theirs = type("LeaveOneOut", (LeaveOneOut,), {"__module__": "mypackage"})  # the name of one of ours
    assert theirs().made_by()[0] == "mypackage.LeaveOneOut"


def loaded(source: type[Any], folder: Path, split: Split, keep: Filter | None = None, **more: Any) -> Dataset:
    name = {CiteULikeT: "citeulike-t", Named: "ml-100k"}[source]
    made = source(name=name, path=None, filter=keep or Filter(), split=split, **more)
    return load(made, data=SHARED, cache=folder, groups=2, say=lambda line: None)


@needs_shared
@pytest.mark.parametrize(
    ("source", "keep", "fingerprint", "parts"),
    [
        (Named, Filter(), "36ae141ce35c2f90", "726d1b5fd670685c"),
        (CiteULikeT, Filter(user_min=5), "4da26553b6f3927c", "5b2920f818abddd0"),
    ],
)
def test_the_default_split_is_the_one_that_published_results_stand_on(
    tmp_path: Path, source: type[Any], keep: Filter, fingerprint: str, parts: str
) -> None:
    found = loaded(source, tmp_path, Ratio(), keep)
    assert found.fingerprint == fingerprint
    pairs = [np.stack([one.user, one.item], 1).astype("<i4") for one in (found.train, found.valid, found.test)]
    assert sha256(b"".join(one.tobytes() for one in pairs)).hexdigest()[:16] == parts


# Published statistics


@needs_shared
@pytest.mark.parametrize(
    ("split", "expected"),
    [
        (LeaveOneOut(), (115_142, 5_219, 5_219)),  # DE-RRD, HTD
        (Ratio(rounding="cumulative"), (98_405, 12_451, 14_724)),  # KDs
        (Ratio(valid=0.2, test=0.2, rounding="floor"), (78_958, 23_311, 23_311)),  # HetComp, before the drop
    ],
)
def test_citeulike_splits_have_the_published_sizes(
    tmp_path: Path, split: Split, expected: tuple[int, int, int]
) -> None:
    found = loaded(CiteULikeT, tmp_path, split, Filter(user_min=5))
    assert (found.train.n_users, found.train.n_items) == (5_219, 25_181)
    assert (len(found.train), len(found.valid), len(found.test)) == expected


@needs_shared
def test_unkd_has_its_validation_users_and_its_test_users(tmp_path: Path) -> None:
    found = loaded(CiteULikeT, tmp_path, UserHoldOut(), Filter(user_min=5))
    valid, test = set(found.valid.user.tolist()), set(found.test.user.tolist())
    assert (len(valid), len(test), valid & test) == (1_043, 4_176, set())
    assert len(found.train) == 98_405
    assert len(found.train) + len(found.valid) + len(found.test) == 125_580


@needs_shared
def test_the_five_core_of_citeulike_has_the_published_size(tmp_path: Path) -> None:
    found = loaded(CiteULikeT, tmp_path, Ratio(), Filter(user_min=5, item_min=5, iterative=True))
    assert (found.train.n_users, found.train.n_items) == (3_527, 6_339)
    assert len(found.train) + len(found.valid) + len(found.test) == 77_546


@needs_shared
def test_the_counts_of_bd_need_its_readers_defect(tmp_path: Path) -> None:
    quirks = CiteULikeT(name="citeulike-t", path=None, reference_quirks=True, filter=Filter(user_min=6), split=Ratio())
    table = quirks.table(SHARED, tmp_path, lambda line: None)
    kept = Filter(user_min=6).apply(contiguous(table))
    assert (len(kept.user_ids), len(kept.item_ids)) == (5_219, 25_187)
    rows = np.isin(table.user.text().astype(str), kept.user_ids.astype(str)).sum()
    assert (rows, len(kept.user)) == (130_799, 130_788)  # eleven lengths are also items of their users
    plain = CiteULikeT(name="citeulike-t", path=None, filter=Filter(), split=Ratio())
    assert plain.signature(tmp_path, tmp_path) != quirks.signature(tmp_path, tmp_path)


@needs_shared
def test_every_experiment_of_data_composes_to_a_split_that_its_paper_describes() -> None:
    kinds = {"data_unkd": UserHoldOut, "data_hetcomp": Ratio, "data_derrd": LeaveOneOut}
    for name, kind in kinds.items():
        source = composed_source(f"experiment={name}")
        assert type(source.split) is kind
        assert (source.name, source.filter.user_min) == ("citeulike-t", 5)
    assert composed_source("experiment=data_hetcomp").split.made_by()[1] == {
        "valid": 0.2, "test": 0.2, "rounding": "floor", "unseen": "drop", "seed": 0,
    }  # fmt: skip


def composed_source(*words: str) -> Any:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    import recdistill.commands.train  # noqa: F401  # registers the resolvers of folder names
    from recdistill import build
    from recdistill.commands.conf import conf_folder

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return build.check(compose("config", list(words))).source
