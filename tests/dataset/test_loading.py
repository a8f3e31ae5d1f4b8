from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock, Timeout

from recdistill.dataset import loading
from recdistill.dataset.catalog import File, Say, Synthetic
from recdistill.dataset.filters import Filter
from recdistill.dataset.loading import load
from recdistill.dataset.named import Named
from recdistill.dataset.splits import LeaveOneOut, Ratio
from recdistill.dataset.table import Pairs, RawTable
from recdistill.errors import DataError, SettingsError
from recdistill.store import file_hash
from recdistill.types import Dataset

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the public data sets in ../shared/data")


class Counted(Synthetic):
    """Synthetic data that count how often they are made."""

    made = 0

    def table(self, data: Path, downloads: Path, say: Say) -> RawTable:
        self.made += 1
        return super().table(data, downloads, say)


def counted(**settings: Any) -> Counted:
    common: dict[str, Any] = {"filter": Filter(), "split": Ratio()}
    return Counted(n_users=20, n_items=30, n_interactions=200, **(common | settings))


def opened(source: Any, folder: Path, groups: int = 2, say: Say = lambda line: None) -> Dataset:
    return load(source, data=folder / "data", cache=folder / "cache", groups=groups, say=say)


def csv(folder: Path, rows: str, **settings: Any) -> File:
    (folder / "mine.csv").write_text("user,item\n" + rows)
    common: dict[str, Any] = {"filter": Filter(), "split": Ratio()}
    return File(name=None, path=str(folder / "mine.csv"), **(common | settings))


def pairs(part: Any) -> list[tuple[int, int]]:
    return list(zip(part.user.tolist(), part.item.tolist(), strict=True))


def assert_same(one: Dataset, other: Dataset) -> None:
    assert one.fingerprint == other.fingerprint
    for part in ("train", "valid", "test"):
        assert pairs(getattr(one, part)) == pairs(getattr(other, part))
    assert one.user_ids.tolist() == other.user_ids.tolist()
    assert one.item_ids.tolist() == other.item_ids.tolist()


@needs_shared
def test_citeulike_t_of_users_with_five_items_has_the_size_that_the_papers_give(tmp_path: Path) -> None:
    source = Named(name="citeulike-t", path=None, filter=Filter(user_min=5), split=Ratio())
    found = load(source, data=SHARED, cache=tmp_path, groups=2, say=lambda line: None)
    assert (found.train.n_users, found.train.n_items) == (5_219, 25_181)
    assert len(found.train) + len(found.valid) + len(found.test) == 125_580


def test_a_data_set_has_its_parts_ids_counts_and_groups(tmp_path: Path) -> None:
    rows = [(f"u{user}", f"i{(user + step) % 7}") for user in range(4) for step in range(5)]
    found = opened(csv(tmp_path, "\n".join(",".join(row) for row in rows)), tmp_path)
    named = [
        (found.user_ids[user], found.item_ids[item])
        for part in (found.train, found.valid, found.test)
        for user, item in pairs(part)
    ]
    assert sorted(named) == sorted(rows)
    assert [len(part) for part in (found.train, found.valid, found.test)] == [12, 4, 4]
    assert pairs(found.train) == sorted(pairs(found.train))
    assert found.popularity.tolist() == [
        sum(i == item for _, i in pairs(found.train)) for item in range(found.train.n_items)
    ]
    assert set(found.group.tolist()) == {0, 1}
    assert found.training_view() is found.train


def test_a_second_load_reads_from_the_cache(tmp_path: Path) -> None:
    source = counted()
    first = opened(source, tmp_path)
    assert_same(first, opened(source, tmp_path))
    assert_same(first, opened(counted(), tmp_path))
    assert source.made == 1


PROGRAM = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_loading import Counted, Ratio, counted, opened
class Fetched(Counted):
    def table(self, data, downloads, say):
        downloads.mkdir(parents=True, exist_ok=True)
        (downloads / "archive.zip").touch(exist_ok=False)
        time.sleep(1)
        (downloads / "archive.zip").unlink()
        return super().table(data, downloads, say)
print(opened(Fetched(n_users=20, n_items=30, n_interactions=200, filter=counted().filter,
    split=Ratio(seed=int(sys.argv[3]))), Path(sys.argv[1])).fingerprint)
"""


def test_two_processes_with_two_splits_do_not_fetch_at_once(tmp_path: Path) -> None:
    def process(seed: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(Path(__file__).parent), str(seed)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    said = [process.communicate(timeout=120) for process in [process(0), process(1)]]
    assert [error for _, error in said] == ["", ""]
    assert len({fingerprint for fingerprint, _ in said}) == 2


def test_a_data_set_is_written_under_the_lock_of_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, held = loading._store, []

    def store(folder: Path, *rest: Any) -> None:
        with pytest.raises(Timeout):
            FileLock(folder.with_name(f".{folder.name}.lock")).acquire(timeout=0)
        held.append(folder)
        real(folder, *rest)

    monkeypatch.setattr(loading, "_store", store)
    assert [opened(counted(), tmp_path).folder] == held


def test_a_named_data_sets_checksum_is_checked_though_the_file_was_read_as_another_source(tmp_path: Path) -> None:
    rows = [f"{user}\t{item}" for user in range(5) for item in range(6)]
    (tmp_path / "a.inter").write_text("\n".join(["user\titem", *rows]))
    common: dict[str, Any] = {"path": str(tmp_path / "a.inter"), "filter": Filter(), "split": Ratio()}
    opened(File(name="mine", **common), tmp_path)
    opened(Named(name="ml-1m", **common), tmp_path)  # of which no checksum is known
    with pytest.raises(DataError, match="SHA-256"):
        opened(Named(name="ml-100k", **common), tmp_path)


def test_another_number_of_groups_uses_the_same_stored_data_set(tmp_path: Path) -> None:
    source = counted()
    opened(source, tmp_path)
    assert set(opened(source, tmp_path, groups=3).group.tolist()) == {0, 1, 2}
    assert source.made == 1


@pytest.mark.parametrize("name", ["train.npy", "test.npy", "valid.parquet", "users.parquet"])
def test_a_stored_file_cut_short_or_gone_is_found_and_made_again(tmp_path: Path, name: str) -> None:
    source = counted()
    first = opened(source, tmp_path)
    stored = first.folder / name
    whole = stored.read_bytes()
    stored.write_bytes(whole[:-1])
    assert_same(first, opened(source, tmp_path))
    assert stored.read_bytes() == whole
    stored.unlink()
    assert_same(first, opened(source, tmp_path))
    assert source.made == 3


def test_a_stored_file_that_was_altered_is_found_and_made_again(tmp_path: Path) -> None:
    source = counted()
    first = opened(source, tmp_path)
    stored = first.folder / "test.npy"
    whole = stored.read_bytes()
    stored.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # of the same size
    os.utime(stored, ns=(0, 0))
    assert_same(first, opened(source, tmp_path))
    assert (stored.read_bytes(), source.made) == (whole, 2)


def test_a_stored_file_is_hashed_again_only_when_its_time_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, hashed = counted(), []
    first = opened(source, tmp_path)
    monkeypatch.setattr(loading, "file_hash", lambda path: hashed.append(path.name) or file_hash(path))
    assert_same(first, opened(source, tmp_path))
    assert hashed == []
    os.utime(first.folder / "test.npy", ns=(0, 0))  # as after a copy
    for _ in range(2):
        assert_same(first, opened(source, tmp_path))
    assert len(hashed) == len(set(hashed)) > 3
    assert source.made == 1


def test_another_filter_or_split_is_another_data_set(tmp_path: Path) -> None:
    fingerprints = {
        opened(source, tmp_path).fingerprint
        for source in (
            counted(),
            counted(filter=Filter(user_min=2)),
            counted(split=Ratio(seed=1)),
            counted(seed=1),
        )
    }
    assert len(fingerprints) == 4


def test_the_order_of_a_files_rows_is_irrelevant(tmp_path: Path) -> None:
    rows = [f"{user},{item}" for user in range(5) for item in range(user, user + 6)]
    first = opened(csv(tmp_path, "\n".join(rows)), tmp_path)
    assert_same(first, opened(csv(tmp_path, "\n".join(rows[::-1] + rows[:4])), tmp_path))


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    rows = [f"{user},{item}" for user in range(5) for item in range(6)]
    first = opened(csv(tmp_path, "\n".join(rows)), tmp_path)
    second = opened(csv(tmp_path, "\n".join([*rows, "5,0", "5,1"])), tmp_path)
    assert (first.train.n_users, second.train.n_users) == (5, 6)


def test_a_file_that_was_replaced_by_one_of_the_same_size_and_time_is_read_again(tmp_path: Path) -> None:
    rows = "\n".join(f"{user},{item}" for user in range(5) for item in range(6))
    source = csv(tmp_path, rows)
    first, path = opened(source, tmp_path), Path(str(source.path))
    status = path.stat()
    path.write_text(path.read_text().replace("0,5", "0,7"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as `cp -p`, rsync and tar do
    assert opened(source, tmp_path).fingerprint != first.fingerprint


def test_what_a_file_became_while_it_was_read_is_not_taken_for_what_was_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("user,item\n" + "\n".join(f"{user},{item}" for user in range(5) for item in range(6)))

    class Replaced(File):
        def table(self, data: Path, downloads: Path, say: Say) -> RawTable:
            table = super().table(data, downloads, say)
            path.write_text(path.read_text().replace("0,5", "0,7"))
            return table

    source = Replaced(path=str(path), filter=Filter(), split=Ratio())
    assert "7" not in opened(source, tmp_path).item_ids
    assert "7" in opened(source, tmp_path).item_ids


def test_what_another_version_read_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = counted()
    opened(source, tmp_path)
    monkeypatch.setattr(loading, "__version__", "0.0.9")
    opened(source, tmp_path)
    assert source.made == 2


def test_the_stored_parts_can_be_read_with_the_original_ids(tmp_path: Path) -> None:
    found = opened(csv(tmp_path, "\n".join(f"u{user},i{item}" for user in range(3) for item in range(4))), tmp_path)
    frame = pd.read_parquet(found.folder / "test.parquet")
    expected = [(found.user_ids[user], found.item_ids[item]) for user, item in pairs(found.test)]
    assert list(frame.itertuples(index=False, name=None)) == expected


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ("a,1\na,2\na,3\n", "has 1 user"),
        ("a,1\nb,1\nc,1\n", "has 1 item"),
        ("a,1\na,2\nb,1\n", "has no valid interactions after the split"),
    ],
)
def test_a_table_that_nothing_can_be_learned_from_is_an_error(tmp_path: Path, rows: str, what: str) -> None:
    for _ in range(2):  # a failure stores nothing that a second try would take for the data set
        with pytest.raises(DataError, match=f"mine {what}") as caught:
            opened(csv(tmp_path, rows), tmp_path)
        assert caught.value.fix


def test_a_filter_that_drops_everybody_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"leaves none of 2 interactions: dataset.filter.user_min=9"):
        opened(csv(tmp_path, "a,1\nb,2\n", filter=Filter(user_min=9)), tmp_path)


def test_too_many_popularity_groups_are_an_error_that_says_how_many_there_can_be(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="groups=31") as caught:
        opened(counted(), tmp_path, groups=31)
    assert "items with training interactions" in caught.value.why


def test_ratings_that_changed_are_another_data_set_where_the_filter_reads_them_and_only_there(tmp_path: Path) -> None:
    path = tmp_path / "rated.csv"

    def fingerprint(rating: int, keep: Filter) -> str:
        rows = [f"{user},{item},{rating if item == 9 else 5}" for user in range(4) for item in range(10)]
        path.write_text("\n".join(["user,item,rating", *rows]))
        found = opened(File(path=str(path), filter=keep, split=Ratio()), tmp_path)
        assert found.train.n_items == (9 if keep.rating_min and rating < keep.rating_min else 10)
        return found.fingerprint

    assert fingerprint(2, Filter()) == fingerprint(11, Filter())
    assert fingerprint(2, Filter(rating_min=3)) != fingerprint(11, Filter(rating_min=3))
    assert fingerprint(11, Filter()) != fingerprint(11, Filter(rating_min=3))


def test_a_file_of_ones_own_is_split_by_its_times(tmp_path: Path) -> None:
    rows = [f"{user},{item},{100 - item}" for user in range(4) for item in range(5)]
    (tmp_path / "timed.csv").write_text("\n".join(["user,item,timestamp", *rows]))
    source = File(path=str(tmp_path / "timed.csv"), filter=Filter(), split=LeaveOneOut(order="time"))
    found = opened(source, tmp_path)
    assert pairs(found.test) == [(user, 0) for user in range(4)]
    assert pairs(found.valid) == [(user, 1) for user in range(4)]


def test_how_many_held_out_interactions_were_dropped_is_said_each_time(tmp_path: Path) -> None:
    rows = [f"{user},{item}" for user in range(6) for item in range(5)] + [f"{user},{90 + user}" for user in range(6)]
    said: list[str] = []
    for _ in range(2):
        source = csv(tmp_path, "\n".join(rows), split=Ratio(valid=0.3, test=0.3, unseen="drop"))
        found = opened(source, tmp_path, say=said.append)
    held = 36 - len(found.train) - len(found.valid) - len(found.test)
    assert held > 0
    line = f"{held} held-out interactions of items or users without training interactions were dropped"
    assert said.count(line) == 2
    trained = set(found.train.item.tolist())
    assert set(found.valid.item.tolist()) | set(found.test.item.tolist()) <= trained


class KeepsAll(Ratio):
    """User 0 trains on everything; the others are split."""

    def assign(self, pairs: Pairs) -> np.ndarray:
        return np.where(pairs.user == 0, 0, super().assign(pairs)).astype(np.int8)


def test_a_user_who_has_seen_every_item_is_warned_about(tmp_path: Path) -> None:
    rows = [f"0,{item}" for item in range(5)] + [f"{user},{item}" for user in (1, 2) for item in range(4)]
    said: list[str] = []
    found = opened(csv(tmp_path, "\n".join(rows), split=KeepsAll()), tmp_path, say=said.append)
    assert torch.bincount(found.train.user).tolist()[0] == 5
    assert said[1:] == ["warning: 1 users have seen every item; they are left out of training triples"]


def test_a_column_that_only_looks_like_a_rating_does_not_matter_in_a_file_of_ones_own(tmp_path: Path) -> None:
    rows = [f"u{n % 4},i{n % 7},2026-11-24,good" for n in range(28)]
    (tmp_path / "own.csv").write_text("user,item,timestamp,score\n" + "\n".join(rows) + "\n")
    source = File(path=str(tmp_path / "own.csv"), filter=Filter(), split=Ratio())
    said: list[str] = []
    table = source.table(tmp_path, tmp_path, said.append)
    assert (len(table), table.rating) == (28, None)
    assert table.timestamp is not None
    assert "rating 'good' in data row 1 is not a number: the column is left out" in said[-1]


def test_a_wrong_path_of_a_named_data_set_is_noticed_though_the_data_set_is_in_the_cache(tmp_path: Path) -> None:
    source = Named(name="ml-100k", path=str(tmp_path / "nowhere"), filter=Filter(), split=Ratio())
    assert source.signature(tmp_path, tmp_path) is None


@pytest.mark.parametrize("text", ["{}", "[]", '{"files', ""])
def test_a_manifest_or_memo_that_is_torn_is_made_again(tmp_path: Path, text: str) -> None:
    source = Synthetic(filter=Filter(), split=Ratio())
    first = load(source, data=tmp_path, cache=tmp_path / "cache", groups=2, say=lambda line: None)
    (memo,) = (tmp_path / "cache" / "datasets" / "memo").iterdir()
    for path in (first.folder / "manifest.json", memo):
        path.write_text(text)
    again = load(source, data=tmp_path, cache=tmp_path / "cache", groups=2, say=lambda line: None)
    assert again.fingerprint == first.fingerprint
