from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.dataset import readers
from recdistill.dataset.columns import Columns
from recdistill.dataset.readers import read
from recdistill.dataset.table import RawTable, contiguous, table_hash
from recdistill.errors import SettingsError
from table_files import ROWS, SHARED, broken, needs_shared, pairs, text, write, zstd


def assert_is_rows(table: RawTable) -> None:
    assert pairs(table) == [row[:2] for row in ROWS]
    assert table.rating is not None
    assert table.timestamp is not None
    assert table.rating.tolist() == [row[2] for row in ROWS]
    assert table.timestamp.tolist() == [row[3] for row in ROWS]


def recognised(path: Path, **settings: str) -> str:
    """What reading says that the file is, without its name."""
    said: list[str] = []
    read(path, say=said.append, **settings)
    return said[0].removeprefix(f"{path.name}: read as ")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", text(",")),
        ("a.tsv", text("\t")),
        ("a.txt", text("\t")),
        ("a.dat", text("\t")),
        ("excel-german.csv", text(";")),
        ("bars.txt", text("|")),
        ("blanks.txt", text(" ")),
        ("a.csv.gz", gzip.compress(text(","), mtime=0)),
        ("a.tsv.gz", gzip.compress(text("\t"), mtime=0)),
        ("a.csv.zst", zstd(text(","))),
        ("a.csv", gzip.compress(text(","), mtime=0)),
        ("a.with.dots.csv", text(",")),
        ("a.inter", text("\t", "user_id:token,item_id:token,rating:float,timestamp:float")),
        ("any-ending.train", text("\t", "user_id:token,item_id:token,rating:float,timestamp:float")),
        ("windows.csv", text(",").replace(b"\n", b"\r\n")),
        ("old-mac.csv", text(",").replace(b"\n", b"\r")),
        ("excel.csv", b"\xef\xbb\xbf" + text(",")),
        ("other-words.csv", text(",", " User , ITEM,stars,ts")),
        ("quoted.csv", text(",", '"user","item","rating","time"').replace(b"u1", b'"u1"')),
        ("comments.csv", b"# of my shop\n\n% 2026\n" + text(",")),
        ("blank-lines.csv", text(",").replace(b"\n", b"\n\n")),
    ],
)
def test_every_table_with_a_header_gives_the_same_rows(tmp_path: Path, name: str, content: bytes) -> None:
    assert_is_rows(read(write(tmp_path, name, content)))


def test_parquet_gives_the_same_rows(tmp_path: Path) -> None:
    frame = pd.DataFrame(ROWS, columns=["user_id", "item_id", "rating", "timestamp"])
    frame.to_parquet(tmp_path / "a.parquet")
    assert_is_rows(read(tmp_path / "a.parquet"))
    frame.astype({"user_id": "category"}).to_parquet(tmp_path / "b.parquet")
    assert_is_rows(read(tmp_path / "b.parquet"))


NUMBERS = [("1", "10", 4.0, 5), ("2", "7", 2.0, 3), ("1", "7", 1.0, 9)]


def lines(separator: str, width: int) -> bytes:
    rows = [separator.join(str(int(value)) for value in row[:width]) for row in NUMBERS]
    return "\n".join(rows).encode() + b"\n"


@pytest.mark.parametrize(
    ("name", "content", "kind", "width"),
    [
        ("u.data", lines("\t", 4), "MovieLens u.data (user, item, rating, timestamp)", 4),
        ("u1.base", lines("\t", 4), "MovieLens u.data (user, item, rating, timestamp)", 4),
        ("ratings.dat", lines("::", 4), "MovieLens ratings.dat (user, item, rating, timestamp)", 4),
        ("train.txt", lines(" ", 2), "pairs without a header (user, item)", 2),
        ("train.txt", lines("\t", 2), "pairs without a header (user, item)", 2),
        ("train.txt", lines(" ", 3), "triples without a header (user, item, rating)", 3),
        ("data1.txt", lines("\t", 3).replace(b"\n", b"\r\n"), "triples without a header (user, item, rating)", 3),
        ("a.csv", lines(",", 2), "CSV without a header (user, item)", 2),
        ("a.csv", lines(",", 4), "CSV without a header (user, item, rating, timestamp)", 4),
        ("a.csv", lines(";", 3), "CSV separated by ';' without a header (user, item, rating)", 3),
    ],
)
def test_numbers_without_a_header_are_recognised_and_that_is_said(
    tmp_path: Path, name: str, content: bytes, kind: str, width: int
) -> None:
    path = write(tmp_path, name, content)
    assert recognised(path) == kind
    table = read(path)
    assert pairs(table) == [row[:2] for row in NUMBERS]
    assert (table.rating is not None, table.timestamp is not None) == (width > 2, width > 3)
    if table.rating is not None:
        assert table.rating.tolist() == [row[2] for row in NUMBERS]
    if table.timestamp is not None:
        assert table.timestamp.tolist() == [row[3] for row in NUMBERS]


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("train.txt", b"0 1 2\n1 5\n", "LightGCN adjacency lists (user item item ...)"),
        ("train.txt", b"0 1 2\n1 5 6\n2 4 3\n", "LightGCN adjacency lists (user item item ...)"),
        ("train.txt", b"0 1 2 3\n4 5 6 7\n", "LightGCN adjacency lists (user item item ...)"),
        ("users.dat", b"1 5\n1 6\n", "CiteULike users.dat (count item item ...)"),
        ("citeulike.txt", b"2 5 7\n1 6\n", "CiteULike users.dat (count item item ...)"),
        ("train.txt", b"USER\tITEM\n1\t2\n", "TSV (USER, ITEM)"),
        ("a.dat", b"userID\tartistID\tweight\n2\t51\t13883\n", "TSV (userID, artistID, weight)"),
        ("a.txt", b"user_id:token\titem_id:token\n2\t51\n", "RecBole .inter (user_id:token, item_id:token)"),
    ],
)
def test_lists_and_headers_are_recognised_by_what_is_in_the_file(
    tmp_path: Path, name: str, content: bytes, kind: str
) -> None:
    assert recognised(write(tmp_path, name, content)) == kind


def test_a_format_that_is_named_overrules_what_the_file_looks_like(tmp_path: Path) -> None:
    path = write(tmp_path, "train.txt", b"3 1 2\n5 4 6\n")
    assert pairs(read(path)) == [("3", "1"), ("5", "4")]
    assert pairs(read(path, format="adjacency")) == [("3", "1"), ("3", "2"), ("5", "4"), ("5", "6")]
    words = write(tmp_path, "words.txt", b"anna,tea\nbob,milk\n")
    assert pairs(read(words, format="pairs")) == [("anna", "tea"), ("bob", "milk")]


def test_lists_may_be_empty_and_end_in_blanks(tmp_path: Path) -> None:
    path = write(tmp_path, "train.txt", b"0 1 2 \n1\n2 \n\n3 1  \r\n7 8 9")
    assert pairs(read(path)) == [("0", "1"), ("0", "2"), ("3", "1"), ("7", "8"), ("7", "9")]


def test_users_dat_takes_the_count_for_no_item_and_the_line_for_the_user(tmp_path: Path) -> None:
    path = write(tmp_path, "users.dat", b"2 5 7\n0\n1 2\n")
    assert pairs(read(path)) == [("0", "5"), ("0", "7"), ("2", "2")]


@pytest.mark.parametrize("kind", ["csr", "csc", "coo"])
def test_a_sparse_matrix_of_scipy_has_users_as_rows_and_zeros_do_not_count(tmp_path: Path, kind: str) -> None:
    matrix = scipy.sparse.coo_matrix(([4.0, 0.0, 2.0], ([1, 1, 0], [7, 0, 3])), shape=(3, 9))
    scipy.sparse.save_npz(tmp_path / "a.npz", matrix.asformat(kind))
    table = read(tmp_path / "a.npz")
    assert sorted(zip(pairs(table), table.rating, strict=True)) == [(("0", "3"), 2.0), (("1", "7"), 4.0)]


def test_numbers_as_ids_in_parquet_are_the_ids_of_the_text_file(tmp_path: Path) -> None:
    frame = pd.DataFrame({"user": [10, 2], "item": [7, 7]})
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_csv(tmp_path / "a.csv", index=False)
    assert table_hash(read(tmp_path / "a.parquet")) == table_hash(read(tmp_path / "a.csv"))


def test_whole_numbers_stored_as_float_in_parquet_are_the_numbers(tmp_path: Path) -> None:
    pd.DataFrame({"user": [1.0, 2.0], "item": [1e16, 0.0]}).to_parquet(tmp_path / "a.parquet")
    assert pairs(read(tmp_path / "a.parquet")) == [("1", "10000000000000000"), ("2", "0")]


def test_numbers_that_are_not_all_whole_stay_as_they_are(tmp_path: Path) -> None:
    pd.DataFrame({"user": [1.0, 2.5], "item": [1, 2]}).to_parquet(tmp_path / "a.parquet")
    assert pairs(read(tmp_path / "a.parquet")) == [("1.0", "1"), ("2.5", "2")]


def test_whole_numbers_with_a_gap_are_an_error_that_names_the_row(tmp_path: Path) -> None:
    pd.DataFrame({"user": [1.0, None], "item": [1, 2]}).to_parquet(tmp_path / "a.parquet")
    broken(tmp_path / "a.parquet", "1 rows without a user id, first in data row 2")


@pytest.mark.parametrize(
    ("value", "kind"), [(b"caf\xe9", "binary"), ([1, 2], "list"), ({"a": 1}, "struct")], ids=["bytes", "list", "dict"]
)
def test_ids_that_are_neither_text_nor_numbers_are_an_error_that_names_the_row(
    tmp_path: Path, value: object, kind: str
) -> None:
    pd.DataFrame({"user": ["a", "b"], "item": [None, value]}).to_parquet(tmp_path / "a.parquet")
    error = broken(tmp_path / "a.parquet", f"the item id in data row 2 is of type {kind}")
    assert "dataset.columns.item" in error.fix


def test_columns_of_an_inter_file_can_be_named_as_its_header_spells_them(tmp_path: Path) -> None:
    path = write(tmp_path, "a.inter", b"who:token\twhat:token\n1\t2\n")
    for names in ({"user": "who:token", "item": "what:token"}, {"user": "who", "item": "what"}):
        assert pairs(read(path, columns=Columns(**names))) == [("1", "2")]
    broken(path, "no user column 'who:float'", user="who:float", item="what")


def test_one_column_cannot_be_both_user_and_item(tmp_path: Path) -> None:
    path = write(tmp_path, "a.inter", b"item:token\twhat:token\n1\t2\n")
    broken(path, "'item' would be both", user="item:token")
    with pytest.raises(SettingsError, match="item='id'"):
        Columns(user="id", item="id")


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", b"who,what,user,stars,on\nx,y,z,3,2026-11-24\n")
    table = read(path, columns=Columns(user="who", item="what", timestamp="on"), extras=False)
    assert pairs(table) == [("x", "y")]
    assert table.rating is None
    assert table.timestamp is not None
    assert table.timestamp.tolist() == [pd.Timestamp("2026-11-24").timestamp()]


def test_of_repeated_columns_the_first_counts(tmp_path: Path) -> None:
    path = write(tmp_path, "a.inter", b"user_id:token\titem_id:token\tuser_id:float\n1\t2\t3\n")
    assert pairs(read(path)) == [("1", "2")]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("007", "007"), ("7", "7"), (" 7 ", "7"), (" NA ", "NA"), ("null", "null"), ("-3", "-3"), ("-0", "-0"),
        ("1.0", "1.0"), ("0x1f", "0x1f"), ("1_0", "1_0"), ("9" * 30, "9" * 30), ("9" * 5000, "9" * 5000), ("٣", "٣"),
        ('"a,b"', "a,b"), ('"say ""hi"""', 'say "hi"'), ("#1", "#1"), ("true", "true"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("beside", ["5", "word"])
def test_an_id_is_the_text_in_the_file_without_blanks_around_it(
    tmp_path: Path, given: str, expected: str, beside: str
) -> None:
    path = write(tmp_path, "a.csv", f"user,item\n{beside},x\n{given},y\n".encode())
    assert pairs(read(path)) == [(beside, "x"), (expected, "y")]
    assert set(contiguous(read(path)).user_ids) == {beside, expected}


@pytest.mark.parametrize("time", ["1970-01-02T00:00:01Z", "1970-01-02 01:00:01+01:00", "1970-01-02T00:00:01.5"])
def test_times_of_iso_8601_may_name_their_zone(tmp_path: Path, time: str) -> None:
    path = write(tmp_path, "a.csv", f"user,item,timestamp\n1,2,{time}\n".encode())
    found = read(path, columns=Columns(timestamp="timestamp")).timestamp
    assert found is not None
    assert found.tolist() == [86401]


def test_a_header_may_quote_what_separates(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", b'"user, or who","say ""item"""\n1,2\n')
    assert pairs(read(path, columns=Columns(user="user, or who", item='say "item"'))) == [("1", "2")]


def test_a_quoted_field_may_hold_the_end_of_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "BLOCK", 1000)
    rows = "".join(f'{user},7,"one line\n{user},8\nand another"\n' for user in range(200))
    path = write(tmp_path, "a.csv", f"user,item,review\n{rows}".encode())
    assert pairs(read(path)) == [(str(user), "7") for user in range(200)]


def test_times_may_be_whole_numbers_fractions_or_dates(tmp_path: Path) -> None:
    for spelled, seconds in (
        ("881250949", 881250949),
        ("8.5e8", 850000000),
        ("12.9", 12),
        (" 7 ", 7),
        ("1970-01-02 00:00:01", 86401),
    ):
        table = read(write(tmp_path, "a.csv", f"user,item,time\n1,2,{spelled}\n".encode()))
        assert table.timestamp is not None
        assert table.timestamp.tolist() == [seconds]
    frame = pd.DataFrame({"user": [1], "item": [2], "datetime": [pd.Timestamp("1970-01-02", tz="UTC")]})
    frame.to_parquet(tmp_path / "a.parquet")
    table = read(tmp_path / "a.parquet")
    assert table.timestamp is not None
    assert table.timestamp.tolist() == [86400]


def test_a_split_column_is_used_only_when_it_is_named_and_its_presence_is_said(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", b"user,item,split\n1,2,train\n1,3,VAL\n1,4,test\n")
    said: list[str] = []
    assert read(path, say=said.append).part is None
    assert any("dataset.columns.split=" in line for line in said)
    table = read(path, columns=Columns(split="split"))
    assert table.part is not None
    assert table.part.tolist() == [0, 1, 2]
    broken(write(tmp_path, "b.csv", b"user,item,split\n1,2,fold3\n"), "'fold3' in the split column", split="split")


COUNTS = {
    "online-retail/interactions.tsv.gz": (4_334, 3_659, 266_221),
    "msweb/interactions.tsv.gz": (37_711, 286, 113_845),
    "ml-100k/interactions.tsv.gz": (943, 1_682, 100_000),
    "ml-100k/original/u.data": (943, 1_682, 100_000),
    "ml-100k/original/recbole/ml-100k/ml-100k.inter": (943, 1_682, 100_000),
    "citeulike-t/interactions.tsv.gz": (7_947, 25_584, 134_860),
    "citeulike-t/original/users.dat": (7_947, 25_584, 134_860),  # not the 142,807 numbers of its lines
    "citeulike-a/interactions.tsv.gz": (5_551, 16_980, 204_986),
    "citeulike-a/original/users.dat": (5_551, 16_980, 204_986),
    "lastfm-hetrec/interactions.tsv.gz": (1_892, 17_632, 92_834),
    "lastfm-hetrec/original/user_artists.dat.gz": (1_892, 17_632, 92_834),
}


@needs_shared
@pytest.mark.parametrize("name", COUNTS)
def test_public_data_have_the_counts_that_their_pages_state(name: str) -> None:
    found = contiguous(read(SHARED / name))
    assert (len(found.user_ids), len(found.item_ids), len(found.user)) == COUNTS[name]


@needs_shared
@pytest.mark.parametrize(
    "names",
    [
        ("ml-100k/original/u.data", "ml-100k/original/recbole/ml-100k/ml-100k.inter", "ml-100k/interactions.tsv.gz"),
        ("citeulike-t/original/users.dat", "citeulike-t/interactions.tsv.gz"),
        ("citeulike-a/original/users.dat", "citeulike-a/interactions.tsv.gz"),
        ("lastfm-hetrec/original/user_artists.dat.gz", "lastfm-hetrec/interactions.tsv.gz"),
    ],
)
def test_one_data_set_in_several_formats_has_one_fingerprint(names: tuple[str, ...]) -> None:
    assert len({table_hash(read(SHARED / name)) for name in names}) == 1


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=6).filter(
    lambda word: word.lower() != "nan" and not word.startswith(("#", "%", '"')) and not set(word) & set(',;|:"\\')
)
IDS = st.one_of(st.integers(0, 10**12).map(str), WORDS)
TABLES = st.lists(st.tuples(IDS, IDS, st.integers(-9, 9), st.integers(0, 2**40)), min_size=1, max_size=30)


def written(path: Path, format: str, rows: list[tuple[str, str, int, int]]) -> tuple[str, int]:
    """Write rows in a format; which columns it keeps."""
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "rating", "timestamp"])
    if format == "parquet":
        frame.to_parquet(path)
        return 4
    width = {"pairs": 2, "triples": 3}.get(format, 4)
    header = {
        "inter": "user_id:token,item_id:token,rating:float,timestamp:float",
        "csv": ",".join(frame),
        "tsv": ",".join(frame),
    }
    mark = {"csv": ",", "ratings.dat": "::"}.get(format, "\t")
    table = [*([header[format].split(",")] if format in header else []), *(map(str, row[:width]) for row in rows)]
    path.write_text("".join(mark.join(row) + "\n" for row in table), encoding="utf-8")
    return width


@pytest.mark.parametrize("format", ["inter", "pairs", "triples", "u.data", "ratings.dat", "csv", "tsv", "parquet"])
@settings(max_examples=40, deadline=None)
@given(rows=TABLES)
def test_rows_that_are_written_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, format: str, rows: list[tuple[str, str, int, int]]
) -> None:
    path = tmp_path_factory.mktemp("round") / "a"
    width = written(path, format, rows)
    table = read(path, format=format, say=lambda line: None)
    assert pairs(table) == [row[:2] for row in rows]
    for column, place in ((table.rating, 2), (table.timestamp, 3)):
        assert (None if column is None else column.tolist()) == ([r[place] for r in rows] if place < width else None)


LISTS = st.lists(st.lists(st.integers(0, 10**25), max_size=6), min_size=1, max_size=20)


@pytest.mark.parametrize("format", ["adjacency", "users.dat", "npz"])
@settings(max_examples=40, deadline=None)
@given(lists=LISTS)
def test_lists_that_are_written_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, format: str, lists: list[list[int]]
) -> None:
    path = tmp_path_factory.mktemp("round") / "a.npz"
    expected = [(str(user), str(item)) for user, items in enumerate(lists) for item in items]
    if format == "npz":
        lists = [sorted({item % 50 for item in items}) for items in lists]
        expected = [(str(user), str(item)) for user, items in enumerate(lists) for item in items]
        indptr = np.cumsum([0, *map(len, lists)])
        columns = [item for items in lists for item in items]
        scipy.sparse.save_npz(path, scipy.sparse.csr_matrix((np.ones(len(columns)), columns, indptr), (len(lists), 50)))
    else:
        first = [str(len(items)) if format == "users.dat" else str(user) for user, items in enumerate(lists)]
        rows = [" ".join([start, *map(str, items)]) for start, items in zip(first, lists, strict=True)]
        path.write_text("\n".join(rows) + "\n")
    if not expected:
        broken(path, "is empty", format=format)
        return
    assert pairs(read(path, format=format, say=lambda line: None)) == expected
