from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recdistill.dataset.readers import read
from recdistill.dataset.table import RawTable, table_hash
from recdistill.errors import DataError

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the public data sets in ../shared/data")
ROWS = [("u1", "a", 4.0, 100), ("u2", "b", 2.5, 90), ("u1", "c", 1.0, 80)]


def text(separator: str, header: str = "user_id,item_id,rating,timestamp") -> bytes:
    lines = [header, *(",".join(str(value) for value in row) for row in ROWS)]
    return "\n".join(lines).replace(",", separator).encode() + b"\n"


def write(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def pairs(table: RawTable) -> list[tuple[str, str]]:
    return list(zip(table.user.text().tolist(), table.item.text().tolist(), strict=True))


def assert_is_rows(table: RawTable) -> None:
    assert pairs(table) == [row[:2] for row in ROWS]
    assert table.rating is not None
    assert table.timestamp is not None
    assert table.rating.tolist() == [row[2] for row in ROWS]
    assert table.timestamp.tolist() == [row[3] for row in ROWS]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", text(",")),
        ("a.tsv", text("\t")),
        ("a.txt", text("\t")),
        ("a.csv.gz", gzip.compress(text(","), mtime=0)),
        ("a.tsv.gz", gzip.compress(text("\t"), mtime=0)),
        ("a.with.dots.csv", text(",")),
        ("a.inter", text("\t", "user_id:token,item_id:token,rating:float,timestamp:float")),
        ("windows.csv", text(",").replace(b"\n", b"\r\n")),
        ("excel.csv", b"\xef\xbb\xbf" + text(",")),
        ("other-words.csv", text(",", " User , ITEM,stars,ts")),
    ],
)
def test_every_text_format_gives_the_same_table(tmp_path: Path, name: str, content: bytes) -> None:
    assert_is_rows(read(write(tmp_path, name, content)))


def test_parquet_gives_the_same_table(tmp_path: Path) -> None:
    frame = pd.DataFrame(ROWS, columns=["user_id", "item_id", "rating", "timestamp"])
    frame.to_parquet(tmp_path / "a.parquet")
    assert_is_rows(read(tmp_path / "a.parquet"))


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
    ("value", "kind"), [(b"caf\xe9", "bytes"), ([1, 2], "ndarray"), ({"a": 1}, "dict")], ids=["bytes", "list", "dict"]
)
def test_ids_that_are_neither_text_nor_numbers_are_an_error_that_names_the_row(
    tmp_path: Path, value: object, kind: str
) -> None:
    pd.DataFrame({"user": ["a", "b"], "item": [None, value]}).to_parquet(tmp_path / "a.parquet")
    error = broken(tmp_path / "a.parquet", f"the item id in data row 2 is of type {kind}")
    assert "dataset.item_column" in error.fix


def test_columns_of_an_inter_file_can_be_named_as_its_header_spells_them(tmp_path: Path) -> None:
    path = write(tmp_path, "a.inter", b"who:token\twhat:token\n1\t2\n")
    assert pairs(read(path, "who:token", "what:token")) == pairs(read(path, "who", "what")) == [("1", "2")]
    broken(path, "no user column 'who:float'", user_column="who:float", item_column="what")


def test_one_column_cannot_be_both_user_and_item(tmp_path: Path) -> None:
    path = write(tmp_path, "a.inter", b"item:token\twhat:token\n1\t2\n")
    broken(path, "'item' would be both", user_column="item:token")


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", b"who,what,user\nx,y,z\n")
    assert pairs(read(path, "who", "what")) == [("x", "y")]


def test_of_repeated_columns_the_first_counts(tmp_path: Path) -> None:
    path = write(tmp_path, "a.inter", b"user_id:token\titem_id:token\tuser_id:float\n1\t2\t3\n")
    assert pairs(read(path)) == [("1", "2")]


def test_ids_are_text_and_keep_their_zeros(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", b"user,item\n007, NA \n7,null\n")
    assert pairs(read(path)) == [("007", "NA"), ("7", "null")]


def test_u_data_is_read_without_a_header(tmp_path: Path) -> None:
    path = write(tmp_path, "u.data", b"196\t242\t3\t881250949\n186\t302\t3\t891717742\n")
    table = read(path)
    assert pairs(table) == [("196", "242"), ("186", "302")]
    assert table.timestamp is not None
    assert table.timestamp.tolist() == [881250949, 891717742]


def test_users_dat_takes_the_count_for_no_item_and_the_line_for_the_user(tmp_path: Path) -> None:
    path = write(tmp_path, "users.dat", b"2 5 7\n0\n1 2\n")
    assert pairs(read(path)) == [("0", "5"), ("0", "7"), ("2", "2")]


@needs_shared
def test_users_dat_of_citeulike_t_holds_134860_pairs_and_not_142807() -> None:
    table = read(SHARED / "citeulike-t" / "original" / "users.dat")
    assert len(table.user_id) == 134_860
    assert len(np.unique(table.user_id.astype(str))) == 7_947
    assert len(np.unique(table.item_id.astype(str))) == 25_584


@needs_shared
def test_users_dat_and_the_table_with_a_header_are_one_data_set() -> None:
    folder = SHARED / "citeulike-t"
    table = read(folder / "interactions.tsv.gz")
    assert table_hash(table) == table_hash(read(folder / "original" / "users.dat"))


@needs_shared
def test_u_data_and_inter_of_ml_100k_have_one_fingerprint() -> None:
    folder = SHARED / "ml-100k" / "original"
    table = read(folder / "u.data")
    assert len(table.user_id) == 100_000
    assert table_hash(table) == table_hash(read(folder / "recbole" / "ml-100k" / "ml-100k.inter"))


def broken(path: Path, what: str, *, reader=read_table, **columns: str) -> DataError:
    """The error that reading gives; it names the file and what is wrong, and has a reason and a remedy."""
    with pytest.raises(DataError, match=what) as caught:
        reader(path, **columns)
    assert path.name in caught.value.what
    assert caught.value.why
    assert caught.value.fix
    return caught.value


@pytest.mark.parametrize("reader", [read_table, read_u_data, read_users_dat])
def test_a_missing_file_is_named(tmp_path: Path, reader) -> None:
    assert "dataset.path" in broken(tmp_path / "no.csv", "there is no file", reader=reader).fix


@pytest.mark.parametrize("reader", [read_table, read_u_data, read_users_dat])
def test_an_empty_file_is_an_error(tmp_path: Path, reader) -> None:
    broken(write(tmp_path, "a.csv", b""), "is empty", reader=reader)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.csv", b"\n\n"), ("a.csv", b"user,item\n"), ("a.csv.gz", gzip.compress(b"", mtime=0)), ("users.dat", b"\n \n")],
)
def test_a_file_without_rows_is_empty(tmp_path: Path, name: str, content: bytes) -> None:
    path = write(tmp_path, name, content)
    broken(path, "is empty", reader=read_users_dat if name == "users.dat" else read_table)


@pytest.mark.parametrize("content", [gzip.compress(text(",") * 100, mtime=0)[:-30], text(",")])
def test_a_gz_file_cut_short_or_not_compressed_is_an_error(tmp_path: Path, content: bytes) -> None:
    assert "again" in broken(write(tmp_path, "a.csv.gz", content), "cut short or broken").fix


def test_a_parquet_file_cut_short_is_an_error(tmp_path: Path) -> None:
    pd.DataFrame(ROWS, columns=["user_id", "item_id", "rating", "timestamp"]).to_parquet(tmp_path / "whole.parquet")
    content = (tmp_path / "whole.parquet").read_bytes()
    broken(write(tmp_path, "cut.parquet", content[:-20]), "parse|cut short")


@pytest.mark.parametrize(
    ("name", "reader"), [("a.csv", read_table), ("u.data", read_u_data), ("users.dat", read_users_dat)]
)
def test_text_that_is_not_utf8_is_an_error_that_says_how_to_convert_it(tmp_path: Path, name: str, reader) -> None:
    path = write(tmp_path, name, "user,item\ncafé,1\n".encode("latin1"))
    assert "iconv" in broken(path, "not UTF-8", reader=reader).fix


def test_a_missing_column_names_those_that_are_there(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", b"person,item\n1,2\n")
    error = broken(path, "no user column; it has 'person', 'item'")
    assert "dataset.user_column=NAME" in error.fix
    assert "user_id" in error.why


def test_a_named_column_that_is_missing_names_itself_and_those_that_are_there(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", b"user,item\n1,2\n")
    broken(path, "no item column 'thing'; it has 'user', 'item'", item_column="thing")


@pytest.mark.parametrize("bad", ["", "  ", "NaN", "nan"])
def test_an_empty_or_nan_id_is_an_error_that_names_the_row(tmp_path: Path, bad: str) -> None:
    path = write(tmp_path, "a.csv", f"user,item\n1,2\n{bad},2\n3,{bad}\n{bad},4\n".encode())
    broken(path, "2 rows without a user id, first in data row 2")


def test_an_empty_id_in_parquet_is_an_error(tmp_path: Path) -> None:
    pd.DataFrame({"user": ["a", None], "item": [1, 2]}).to_parquet(tmp_path / "a.parquet")
    broken(tmp_path / "a.parquet", "1 rows without a user id, first in data row 2")


@pytest.mark.parametrize("content", [b"user,item\n1,2\n4,5,6\n", b"user,item\n1,2,3\n4,5,6\n"])
def test_a_row_with_more_fields_than_the_header_is_an_error(tmp_path: Path, content: bytes) -> None:
    assert "separator" in broken(write(tmp_path, "a.csv", content), "cannot be parsed").fix


def test_a_row_with_fewer_fields_than_the_header_is_an_error(tmp_path: Path) -> None:
    broken(write(tmp_path, "a.csv", b"user,item\n4,5\n1\n"), "1 rows without a item id, first in data row 2")


@pytest.mark.parametrize("bad", ["yesterday", "inf", "nan"])
def test_a_time_that_is_no_number_is_an_error_that_names_it(tmp_path: Path, bad: str) -> None:
    path = write(tmp_path, "a.csv", f"user,item,timestamp\n1,2,3\n1,3,{bad}\n".encode())
    broken(path, f"timestamp '{bad}' in data row 2 is not a number")


def test_an_ending_that_is_not_known_is_an_error_that_lists_those_that_are(tmp_path: Path) -> None:
    assert ".parquet" in broken(write(tmp_path, "a.xlsx", b"PK"), r"not known: \.xlsx").fix


@pytest.mark.parametrize("content", [b"1\t2\t3\n", b"1\t2\t3\t4\t5\n", b"1\t2\t3\t4\n1\t2\t3\t4\t5\n"])
def test_u_data_with_other_than_four_columns_is_an_error(tmp_path: Path, content: bytes) -> None:
    broken(write(tmp_path, "u.data", content), "columns, not 4|cannot be parsed", reader=read_u_data)


def test_u_data_with_a_ragged_row_is_an_error(tmp_path: Path) -> None:
    broken(write(tmp_path, "u.data", b"1\t2\t3\t4\n1\t2\n"), "in data row 2 is not a number", reader=read_u_data)


@pytest.mark.parametrize("line", ["3 1 2", "1 1 2", "x 1", "² 1 2", "-1"])
def test_users_dat_with_a_count_that_does_not_match_is_an_error_that_names_the_line(tmp_path: Path, line: str) -> None:
    path = write(tmp_path, "users.dat", f"1 5\n{line}\n".encode())
    broken(path, f"line 2: the count says '{line.split()[0]}'", reader=read_users_dat)
