from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recdistill.dataset.catalog import File
from recdistill.dataset.columns import Columns
from recdistill.dataset.filters import Filter
from recdistill.dataset.loading import load
from recdistill.dataset.splits import LeaveOneOut, Ratio, Split
from recdistill.errors import DataError, SettingsError
from recdistill.types import Dataset
from table_files import SHARED, needs_shared, write

PARTS = {
    "train": {
        ("a", "1"),
        ("a", "2"),
        ("a", "3"),
        ("b", "1"),
        ("b", "2"),
        ("b", "4"),
        ("c", "1"),
        ("c", "2"),
        ("c", "3"),
    },
    "valid": {("a", "4"), ("b", "3")},
    "test": {("a", "9"), ("d", "2")},
}


def opened(folder: Path, said: list[str] | None = None, **settings: Any) -> Dataset:
    common: dict[str, Any] = {"filter": Filter(), "split": Ratio()}
    source = File(**(common | settings))
    say = (lambda line: None) if said is None else said.append
    return load(source, data=folder, cache=folder / "cache", groups=2, say=say)


def named(dataset: Dataset, part: str) -> set[tuple[str, str]]:
    some = getattr(dataset, part)
    return set(zip(dataset.user_ids[some.user], dataset.item_ids[some.item], strict=True))


def rows(part: str, mark: str = ",") -> str:
    return "".join(f"{user}{mark}{item}\n" for user, item in sorted(PARTS[part]))


def folder_of(place: Path, pattern: str, header: str = "user,item\n", mark: str = ",", without: str = "") -> Path:
    folder = place / "mine"
    folder.mkdir()
    for part in PARTS:
        if part != without:
            (folder / pattern.format(part)).write_text(header + rows(part, mark))
    return folder


@pytest.mark.parametrize(
    ("pattern", "header", "mark"),
    [
        ("{}.csv", "user,item\n", ","),
        ("{}.tsv", "user\titem\n", "\t"),
        ("mine.{}.inter", "user_id:token\titem_id:token\n", "\t"),
    ],
)
def test_a_folder_with_three_parts_is_used_as_given(tmp_path: Path, pattern: str, header: str, mark: str) -> None:
    folder = folder_of(tmp_path, pattern, header, mark)
    (folder / "items.csv").write_text("item,title\n1,one\n")
    (folder / "config.yaml").write_text("start_idx: 0\n")
    said: list[str] = []
    found = opened(tmp_path, said, path=str(folder))
    assert found.name == "mine"
    for part, expected in PARTS.items():
        assert named(found, part) == expected
    assert "mine: 1 of 4 users occur only in valid or test; they are kept" in said
    assert "mine: 1 of 5 items occur only in valid or test; they are kept" in said


def test_the_parts_may_be_files_anywhere(tmp_path: Path) -> None:
    paths = {part: str(write(tmp_path, f"{name}.txt", rows(part, " ").encode())) for part, name in
             (("train", "data1"), ("valid", "held"), ("test", "test1"))}  # fmt: skip
    found = opened(tmp_path, format="pairs", **paths)
    assert {part: named(found, part) for part in PARTS} == PARTS


def test_a_column_may_say_the_part_of_each_row(tmp_path: Path) -> None:
    table = "".join(f"{user},{item},{part}\n" for part, pairs in PARTS.items() for user, item in sorted(pairs))
    path = write(tmp_path, "mine.csv", f"user,item,fold\n{table}".encode())
    found = opened(tmp_path, path=str(path), columns=Columns(split="fold"))
    assert {part: named(found, part) for part in PARTS} == PARTS


def test_a_split_in_files_and_in_a_column_is_one_data_set(tmp_path: Path) -> None:
    table = "".join(f"{user},{item},{part}\n" for part, pairs in PARTS.items() for user, item in sorted(pairs))
    path = write(tmp_path, "mine.csv", f"user,item,split\n{table}".encode())
    one = opened(tmp_path, path=str(path), columns=Columns(split="split"))
    assert one.fingerprint == opened(tmp_path, path=str(folder_of(tmp_path, "{}.csv"))).fingerprint
    assert one.fingerprint != opened(tmp_path, path=str(path)).fingerprint


@pytest.mark.parametrize("split", [Ratio(seed=1), LeaveOneOut()])
def test_a_split_that_would_not_be_used_because_all_parts_are_given_is_refused(tmp_path: Path, split: Split) -> None:
    folder = folder_of(tmp_path, "{}.csv")
    with pytest.raises(DataError, match=rf"has train, valid and test of its own, and {type(split).__name__}\("):
        opened(tmp_path, path=str(folder), split=split)


def test_a_missing_valid_is_taken_out_of_train_by_the_seed_and_that_is_said(tmp_path: Path) -> None:
    folder, said = folder_of(tmp_path, "{}.csv", without="valid"), []
    found = opened(tmp_path, said, path=str(folder))
    assert named(found, "test") == PARTS["test"]
    assert named(found, "train") | named(found, "valid") == PARTS["train"]
    assert len(found.valid) == 3  # one of each user with three or more
    assert any(
        "mine has no valid interactions of its own: 3 of 9 train interactions are taken" in line for line in said
    )
    assert any("seed=0" in line for line in said)
    others = [opened(tmp_path, path=str(folder), split=Ratio(seed=seed)) for seed in range(1, 6)]
    assert any(named(other, "valid") != named(found, "valid") for other in others)


def test_a_pair_in_two_parts_is_an_error_that_shows_it(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "{}.csv")
    (folder / "test.csv").write_text("user,item\nb,4\na,9\n")
    with pytest.raises(
        DataError, match="1 pairs are in two parts of the split: user 'b' has item '4' in both train and test"
    ):
        opened(tmp_path, path=str(folder))


def test_a_pair_twice_in_one_part_counts_once(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "{}.csv")
    with (folder / "train.csv").open("a") as stream:
        stream.write(rows("train"))
    assert named(opened(tmp_path, path=str(folder)), "train") == PARTS["train"]


def test_a_filter_that_would_change_a_split_of_ones_own_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"mine has a split of its own, and filter.user_min=5 would change it"):
        opened(tmp_path, path=str(folder_of(tmp_path, "{}.csv")), filter=Filter(user_min=5))


def test_lists_of_one_length_are_lists_as_the_other_parts(tmp_path: Path) -> None:
    folder = tmp_path / "lists"
    folder.mkdir()
    (folder / "train.txt").write_text("0 1 2 3 \n1 1 2 \n2 \n3 4 5 6\n")
    (folder / "test.txt").write_text("1 5 6\n0 7 8\n2 1 3\n")  # alone it looks like triples
    found = opened(tmp_path, path=str(folder))
    assert named(found, "test") == {("1", "5"), ("1", "6"), ("0", "7"), ("0", "8"), ("2", "1"), ("2", "3")}


def test_parts_of_different_formats_are_an_error(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "{}.csv")
    (folder / "test.csv").write_text("1\t2\n")
    with pytest.raises(DataError, match=r"the parts of the split look different: .*train.csv like csv.*like pairs"):
        opened(tmp_path, path=str(folder))


def test_two_files_for_one_part_are_an_error(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "{}.csv")
    (folder / "train.tsv").write_text("user\titem\n1\t2\n")
    with pytest.raises(DataError, match=r"two files of train interactions: train.csv and train.tsv") as caught:
        opened(tmp_path, path=str(folder))
    assert "dataset.train=FILE" in caught.value.fix


@pytest.mark.parametrize("without", ["train", "test"])
def test_a_folder_without_train_or_test_is_an_error_that_says_what_is_there(tmp_path: Path, without: str) -> None:
    folder = folder_of(tmp_path, "{}.csv", without=without)
    with pytest.raises(DataError, match=f"has no {without} file; it has .*valid.csv"):
        opened(tmp_path, path=str(folder))


def test_a_folder_that_may_not_be_read_is_an_error_that_names_it(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "{}.csv")
    folder.chmod(0)
    if os.access(folder, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(DataError, match="mine cannot be read: Permission denied"):
        opened(tmp_path, path=str(folder))
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        opened(tmp_path, path=str(folder / "train.csv"))


def test_a_path_that_no_file_can_have_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file"):
        opened(tmp_path, path=str(tmp_path / ("long" * 100)))


def test_a_split_column_without_test_rows_is_an_error_that_does_not_speak_of_settings(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", b"user,item,part\n1,1,train\n1,2,train\n2,1,train\n2,3,valid\n")
    with pytest.raises(DataError, match=r"a has no test interactions\n") as caught:
        opened(tmp_path, path=str(path), columns=Columns(split="part"))
    assert "dataset.split" not in caught.value.fix


@pytest.mark.parametrize(
    "settings", [{}, {"path": "a", "test": "b"}, {"train": "a"}, {"test": "a"}, {"train": "a", "valid": "b"}]
)
def test_either_one_path_or_train_and_test_must_be_given(settings: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="path=") as caught:
        File(**settings, filter=Filter(), split=Ratio())
    assert "train=FILE and test=FILE" in caught.value.why


def test_a_change_of_any_part_is_noticed(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "{}.csv")
    before = opened(tmp_path, path=str(folder))
    (folder / "test.csv").write_text(f"user,item\n{rows('test')}c,9\n")
    after = opened(tmp_path, path=str(folder))
    assert named(after, "test") == PARTS["test"] | {("c", "9")}
    assert before.fingerprint != after.fingerprint
    (folder / "valid.csv").unlink()
    assert opened(tmp_path, path=str(folder)).fingerprint != after.fingerprint


@needs_shared
def test_the_split_that_de_rrd_published_is_used_as_given(tmp_path: Path) -> None:
    found = opened(tmp_path, path=str(SHARED / "citeulike-t" / "derrd_loo"))
    assert [len(part) for part in (found.train, found.valid, found.test)] == [115_142, 5_219, 5_219]
    assert (found.train.n_users, found.train.n_items) == (5_219, 25_181)
    assert int((found.popularity > 0).sum()) == 24_742
    for part in (found.valid, found.test):
        assert np.bincount(part.user, minlength=5_219).tolist() == [1] * 5_219


@needs_shared
@pytest.mark.parametrize(
    ("folder", "names", "sizes"),
    [
        ("lightgcn_adjacency", {}, (1_885, 17_388, 91_779)),
        ("lightgcn_triples", {"train": "data1.txt", "test": "test1.txt"}, (1_880, 4_489, 52_668)),
    ],
)
def test_published_splits_of_lastfm_have_the_counts_that_their_page_states(
    tmp_path: Path, folder: str, names: dict[str, str], sizes: tuple[int, int, int]
) -> None:
    place = SHARED / "lastfm-hetrec" / "original" / folder
    files = {part: str(place / name) for part, name in names.items()} or {"path": str(place)}
    found = opened(tmp_path, **files)
    n = sum(len(part) for part in (found.train, found.valid, found.test))
    assert (found.train.n_users, found.train.n_items, n) == sizes
