from __future__ import annotations

import gzip
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recdistill.dataset.readers import read
from recdistill.errors import ConfigError
from table_files import ROWS, broken, text, write, zstd


@pytest.mark.parametrize("format", [None, "csv", "users.dat", "parquet", "npz"])
def test_a_missing_file_is_named(tmp_path: Path, format: str | None) -> None:
    assert "dataset.path" in broken(tmp_path / "no.csv", "there is no file", format=format).fix


@pytest.mark.parametrize("format", [None, "csv", "users.dat", "parquet", "npz"])
def test_an_empty_file_is_an_error(tmp_path: Path, format: str | None) -> None:
    broken(write(tmp_path, "a.csv", b""), "is empty", format=format)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"\n\n"),
        ("a.csv", b"# user,item\n"),
        ("a.csv", b"user,item\n"),
        ("a.csv.gz", gzip.compress(b"", mtime=0)),
        ("users.dat", b"\n \n"),
        ("users.dat", b"0\n0\n"),
        ("train.txt", b"0 \n1 \n"),
    ],
)
def test_a_file_without_rows_is_empty(tmp_path: Path, name: str, content: bytes) -> None:
    broken(write(tmp_path, name, content), "is empty", format="adjacency" if name == "train.txt" else None)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv.gz", gzip.compress(text(",") * 100, mtime=0)[:-30]),
        ("a.csv.gz", text(",")),
        ("a.csv.zst", zstd(text(",") * 100)[:-9]),
        ("a.csv.zst", text(",")),
        ("a.npz", b"PK\x03\x04 and no more"),
    ],
)
def test_a_compressed_file_cut_short_or_not_compressed_is_an_error(tmp_path: Path, name: str, content: bytes) -> None:
    broken(write(tmp_path, name, content), "cut short or broken|cannot be read")


def test_a_parquet_file_cut_short_is_an_error(tmp_path: Path) -> None:
    pd.DataFrame(ROWS, columns=["user_id", "item_id", "rating", "timestamp"]).to_parquet(tmp_path / "whole.parquet")
    content = (tmp_path / "whole.parquet").read_bytes()
    broken(write(tmp_path, "cut.parquet", content[:-20]), "parse|cut short")


@pytest.mark.parametrize("name", ["a.csv", "u.data", "users.dat", "a.inter"])
@pytest.mark.parametrize("far", [False, True])
def test_text_that_is_not_utf8_is_an_error_that_says_how_to_convert_it(tmp_path: Path, name: str, far: bool) -> None:
    before = {
        "a.csv": "user,item\n1,2\n",
        "u.data": "1\t2\t3\t4\n",
        "users.dat": "1 5\n",
        "a.inter": "user\titem\n1\t2\n",
    }
    row = before[name].split("\n")[-2] + "\n"
    whole = before[name] + (row * 40_000 if far else "") + "café" + row[1:]
    assert "iconv" in broken(write(tmp_path, name, whole.encode("latin1")), "not UTF-8").fix


@pytest.mark.parametrize(
    ("encoding", "name"),
    [("utf-16", "utf-16"), ("utf-16-le", "utf-16le"), ("utf-16-be", "utf-16be"), ("utf-32", "utf-32")],
)
def test_utf_16_is_named(tmp_path: Path, encoding: str, name: str) -> None:
    content = ("user,item\n" + "u1,i1\n" * 5).encode(encoding)
    assert f"iconv -f {name} " in broken(write(tmp_path, "a.csv", content), "UTF-(16|32)").fix


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.pkl", b"anything"),
        ("a.pickle.gz", b"anything"),
        ("model.pth", b"anything"),
        ("a.npy", b"\x93NUMPY"),
        ("a.csv", pickle.dumps({"user": [1, 2]})),
        ("trn_mat.dat", pickle.dumps([1], protocol=4)),
    ],
)
def test_a_pickle_is_refused_with_the_reason_and_a_way_out(tmp_path: Path, name: str, content: bytes) -> None:
    error = broken(write(tmp_path, name, content), "it is not read")
    assert "runs whatever code" in error.why
    assert "save_npz" in error.fix


def test_a_model_of_torch_under_another_name_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.dat", "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    broken(tmp_path / "a.dat", "pickle")


def test_a_matrix_with_pickled_objects_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", data=np.array([{}], dtype=object))
    assert "runs whatever code" in broken(tmp_path / "a.npz", "pickled Python objects in 'data.npy'").why


def test_an_archive_is_an_error_that_says_what_is_in_it(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "ml.zip", "w") as archive:
        archive.writestr("ratings.csv", "1,2\n")
    broken(tmp_path / "ml.zip", "a zip archive of ratings.csv; .* unpack it")


def test_a_missing_column_names_those_that_are_there(tmp_path: Path) -> None:
    error = broken(write(tmp_path, "a.csv", b"person,item\n1,2\n"), "no user column; it has 'person', 'item'")
    assert "dataset.columns.user=NAME" in error.fix
    assert "user_id" in error.why


@pytest.mark.parametrize("role", ["item", "rating", "timestamp", "split"])
def test_a_named_column_that_is_missing_names_itself_and_those_that_are_there(tmp_path: Path, role: str) -> None:
    path = write(tmp_path, "a.csv", b"user,item\n1,2\n")
    broken(path, f"no {role} column 'thing'; it has 'user', 'item'", **{role: "thing"})


@pytest.mark.parametrize("bad", ["", "  ", "NaN", "nan"])
def test_an_empty_or_nan_id_is_an_error_that_names_the_row(tmp_path: Path, bad: str) -> None:
    path = write(tmp_path, "a.csv", f"user,item\n1,2\n{bad},2\n3,{bad}\n{bad},4\n".encode())
    broken(path, "2 rows without a user id, first in data row 2")


def test_an_empty_id_in_parquet_is_an_error(tmp_path: Path) -> None:
    pd.DataFrame({"user": ["a", None], "item": [1, 2]}).to_parquet(tmp_path / "a.parquet")
    broken(tmp_path / "a.parquet", "1 rows without a user id, first in data row 2")


@pytest.mark.parametrize("content", [b"user,item\n1,2\n4,5,6\n", b"user,item\n1,2,3\n4,5,6\n", b"user,item\n4,5\n1\n"])
def test_a_row_with_more_or_fewer_fields_than_the_header_is_an_error(tmp_path: Path, content: bytes) -> None:
    assert "separator" in broken(write(tmp_path, "a.csv", content), r"cannot be parsed: .*Row #\d").fix


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_two_columns_of_one_name_are_an_error(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, name, b"user,user,item\n1,2,3\n")
    if name == "a.parquet":
        pq.write_table(pa.Table.from_arrays([pa.array(["1"])] * 3, names=["user", "user", "item"]), path)
    assert "rename" in broken(path, "has 2 columns 'user'").fix


@pytest.mark.parametrize("bad", ["yesterday", "inf", "nan", "", "1e300"])
@pytest.mark.parametrize("named", [True, False])
def test_a_time_that_is_no_number_is_an_error_if_it_was_asked_for_and_else_said(
    tmp_path: Path, bad: str, named: bool
) -> None:
    path = write(tmp_path, "a.csv", f"user,item,timestamp\n1,2,3\n1,3,{bad}\n".encode())
    what = f"timestamp '{bad}' in data row 2 is not a number"
    if named:
        broken(path, what, timestamp="timestamp")
        return
    said: list[str] = []
    assert read(path, say=said.append).timestamp is None
    assert what in said[1]
    assert "dataset.columns.timestamp=NAME" in said[1]


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.xlsx", b"PK"), ("a.csv", b"a line\n"), ("notes.md", b"# Notes\nSome words.\nMore\n"), ("a.txt", b"1\n2\n3\n"),
     ("a.bin", bytes(range(1, 32)) * 9), ("a.bin", b"a\x00b\n")],
)  # fmt: skip
def test_a_file_of_no_known_format_is_an_error_that_lists_those_that_are(
    tmp_path: Path, name: str, content: bytes
) -> None:
    error = broken(write(tmp_path, name, content), "no format that is known|no user column")
    assert "dataset.format=" in error.fix


def test_a_format_that_there_is_not_is_an_error_that_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"dataset.format=adjacencies is not a format; did you mean adjacency"):
        read(write(tmp_path, "a.csv", b"1,2\n"), format="adjacencies")


@pytest.mark.parametrize("content", [b"1\t2\t3\n", b"1\t2\t3\t4\t5\n", b"1\t2\t3\t4\n1\t2\t3\t4\t5\n"])
def test_u_data_with_other_than_four_columns_is_an_error(tmp_path: Path, content: bytes) -> None:
    broken(write(tmp_path, "u.data", content), "columns, not 4|cannot be parsed")


@pytest.mark.parametrize(("row", "what"), [("1\t2", "cannot be parsed"), ("1\t2\t3\t", "timestamp '' in data row 2")])
def test_u_data_with_a_ragged_row_is_an_error(tmp_path: Path, row: str, what: str) -> None:
    broken(write(tmp_path, "u.data", f"1\t2\t3\t4\n{row}\n".encode()), what)


def test_a_single_colon_in_ratings_dat_is_an_error(tmp_path: Path) -> None:
    broken(write(tmp_path, "ratings.dat", b"1::2::3::4\n1:2::3::4:5\n"), "single ':'|cannot be parsed")


@pytest.mark.parametrize("line", ["3 1 2", "1 1 2", "x 1", "² 1 2", "-1"])
def test_users_dat_with_a_count_that_does_not_match_is_an_error_that_names_the_line(tmp_path: Path, line: str) -> None:
    path = write(tmp_path, "users.dat", f"1 5\n{line}\n".encode())
    broken(path, f"line 2: the count says '{line.split()[0]}'")
