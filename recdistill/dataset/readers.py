"""Readers: one function per file format; each returns a `RawTable` of text ids."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa

from recdistill.dataset.table import RawTable
from recdistill.errors import DataError

T = TypeVar("T")


USER_COLUMNS = ("user_id", "user", "userid", "uid", "visitorid")
ITEM_COLUMNS = ("item_id", "item", "itemid", "iid", "movieid", "movie_id", "artistid")
RATING_COLUMNS = ("rating", "score", "stars", "weight")
TIME_COLUMNS = ("timestamp", "time", "ts", "unixtime")


def read_table(
    path: Path,
    user_column: str | None = None,
    item_column: str | None = None,
    *,
    extras: bool = True,
) -> RawTable:
    """Read a table with a header: `.csv`, `.tsv`, `.txt` (each also `.gz`), RecBole `.inter`, or `.parquet`.

    Column names are taken as given, else the common ones are recognised in any case. Rating and timestamp are read
    where there are such columns and `extras` asks for them.

    Raises:
        DataError: the file is missing, empty, cut short or not UTF-8, or a column is not there.
    """
    frame = _read_frame(path)
    # RecBole writes `name:type` in its header; a column may be asked for either way.
    short = {str(name): str(name).split(":")[0] for name in frame.columns}
    frame.columns = [short[str(name)] for name in frame.columns]
    frame = frame.loc[:, ~frame.columns.duplicated()]
    user = _column(frame, path, "user", short.get(user_column or "", user_column), USER_COLUMNS)
    item = _column(frame, path, "item", short.get(item_column or "", item_column), ITEM_COLUMNS)
    if user == item:
        raise DataError(
            f"{path}: {user!r} would be both the user and the item column",
            "every user would have one item, itself",
            "name two columns: dataset.user_column=NAME dataset.item_column=NAME",
        )
    rating = _column(frame, path, "rating", None, RATING_COLUMNS, optional=True) if extras else None
    time = _column(frame, path, "timestamp", None, TIME_COLUMNS, optional=True) if extras else None
    return _table(
        path,
        frame[user],
        frame[item],
        None if rating is None else frame[rating],
        None if time is None else frame[time],
    )


def read_u_data(path: Path) -> RawTable:
    """Read MovieLens `u.data`: tab-separated user, item, rating, timestamp without a header.

    Raises:
        DataError: as `read_table`.
    """
    frame = _guarded(path, lambda: pd.read_csv(path, sep="\t", header=None, dtype=str, keep_default_na=False))
    if frame.shape[1] != 4:
        raise DataError(
            f"{path} has {frame.shape[1]} columns, not 4",
            "u.data holds user, item, rating and timestamp separated by tabs",
            "point dataset.path at the original u.data, or use dataset=file for other formats",
        )
    return _table(path, frame[0], frame[1], frame[2], frame[3])


def read_users_dat(path: Path) -> RawTable:
    """Read CiteULike `users.dat`: line k holds the library of user k, `count item item ...`.

    The first number of a line is the library's size, not an item; it is checked against the line.

    Raises:
        DataError: the file is missing, empty, not UTF-8, or a line's count does not match.
    """
    lines = _guarded(path, lambda: path.read_text(encoding="utf-8")).splitlines()
    users: list[int] = []
    items: list[str] = []
    for number, line in enumerate(lines):
        tokens = line.split()
        if not tokens:
            continue
        if not tokens[0].isdecimal() or int(tokens[0]) != len(tokens) - 1:
            raise DataError(
                f"{path}, line {number + 1}: the count says {tokens[0][:20]!r}, but {len(tokens) - 1} items follow",
                "each line of users.dat starts with the number of items that follow",
                "the file is probably cut short or of another format: fetch it again, or use dataset=file",
            )
        users += [number] * (len(tokens) - 1)
        items += tokens[1:]
    if not users:
        raise _empty(path)
    return RawTable(np.array(users).astype(str).astype(object), np.array(items, dtype=object))


def _read_frame(path: Path) -> pd.DataFrame:
    suffixes = [suffix for suffix in path.suffixes if suffix != ".gz"]
    kind = suffixes[-1] if suffixes else ""
    if kind == ".parquet":
        return _guarded(path, lambda: pd.read_parquet(path))
    if kind not in {".csv", ".tsv", ".txt", ".inter"}:
        raise DataError(
            f"{path} has a file name ending that is not known: {kind or 'none'}",
            "the format is told by the ending",
            "use a .csv, .tsv, .txt (each also .gz), .inter or .parquet file with a header line",
        )
    separator = "," if kind == ".csv" else "\t"
    frame = _guarded(path, lambda: pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False))
    if not isinstance(frame.index, pd.RangeIndex):  # pandas takes surplus fields of the first row for an index
        raise _unparsable(path, f"the first row has more fields than the header's {frame.shape[1]}")
    return frame


def _guarded(path: Path, read: Callable[[], T]) -> T:
    """Run a reader and turn what can go wrong with a file into one clear error each."""
    if not path.is_file():
        raise DataError(
            f"there is no file {path}", "the data set is read from it", "mend dataset.path or put the file there"
        )
    if path.stat().st_size == 0:
        raise _empty(path)
    try:
        return read()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8: {error.reason} at byte {error.start}",
            "ids are read as UTF-8 text",
            f"convert it, for example: iconv -f latin1 -t utf-8 {path.name} > new{path.suffix}",
        ) from error
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(
            f"{path} is cut short or broken: {error}",
            "it ends in the middle or is not what its ending says",
            "copy or download it again",
        ) from error
    except pd.errors.EmptyDataError as error:
        raise _empty(path) from error
    except (pd.errors.ParserError, pa.ArrowInvalid) as error:
        raise _unparsable(path, str(error).strip()) from error


def _unparsable(path: Path, because: str) -> DataError:
    return DataError(
        f"{path} cannot be parsed: {because}",
        "a row has more fields than the header, or the file is of another format",
        "check that row and the separator (.csv: comma, .tsv and .txt: tab)",
    )


def _empty(path: Path) -> DataError:
    return DataError(f"{path} is empty", "there is nothing to learn from", "point dataset.path at a file with data")


def _column(
    frame: pd.DataFrame, path: Path, role: str, wanted: str | None, known: tuple[str, ...], optional: bool = False
) -> str | None:
    names = {str(name).strip().lower(): str(name) for name in frame.columns}
    if wanted is not None and wanted in frame.columns:
        return wanted
    if wanted is None:
        for name in known:
            if name in names:
                return names[name]
        if optional:
            return None
    raise DataError(
        f"{path} has no {role} column{'' if wanted is None else f' {wanted!r}'}; "
        f"it has {', '.join(map(repr, frame.columns))}",
        f"the {role} column is taken by name; known without saying: {', '.join(known)}",
        f"name it: dataset.{role}_column=NAME",
    )


def _table(path: Path, user: pd.Series, item: pd.Series, rating: pd.Series | None, time: pd.Series | None) -> RawTable:
    if len(user) == 0:
        raise _empty(path)
    return RawTable(
        _ids(path, user, "user"),
        _ids(path, item, "item"),
        None if rating is None else _numbers(path, rating, "rating").to_numpy(np.float64),
        None if time is None else _numbers(path, time, "timestamp").to_numpy(np.float64).astype(np.int64),
    )


def _ids(path: Path, column: pd.Series, role: str) -> np.ndarray:
    values = _plain(path, column, role)
    text = values.where(column.notna(), "").astype(str).str.strip()
    bad = (text == "") | (text.str.lower() == "nan")
    if bad.any():
        raise DataError(
            f"{path} has {int(bad.sum())} rows without a {role} id, "
            f"first in data row {int(bad.to_numpy().argmax()) + 1}",
            "an empty or NaN id would become a user or an item of its own",
            "remove these rows or give them ids",
        )
    return text.to_numpy(object)


def _plain(path: Path, column: pd.Series, role: str) -> pd.Series:
    """The values as objects whose text is an id; whole numbers stored as float, as 1.0, are the numbers they mean."""
    values = column.astype(object)
    if pd.api.types.is_float_dtype(column.dtype):
        number = column[column.notna()].astype(float)
        if np.isfinite(number).all() and (number == number.round()).all():
            return values.map(lambda value: value if pd.isna(value) else int(value))
    if pd.api.types.infer_dtype(values, skipna=True) != "string":
        nested = values.map(lambda value: isinstance(value, bytes | list | tuple | dict | set | np.ndarray))
        if nested.any():
            position = int(nested.to_numpy(bool).argmax())
            raise DataError(
                f"{path}: the {role} id in data row {position + 1} is of type {type(values.iloc[position]).__name__}",
                "an id is text or a number; bytes, lists and records have no one spelling",
                f"convert the column to text, or name another: dataset.{role}_column=NAME",
            )
    return values


def _numbers(path: Path, column: pd.Series, role: str) -> pd.Series:
    number = pd.to_numeric(column, errors="coerce")
    bad = ~np.isfinite(number.to_numpy(np.float64, na_value=np.nan))
    if bad.any():
        position = int(bad.argmax())
        raise DataError(
            f"{path}: {role} {column.iloc[position]!r} in data row {position + 1} is not a number",
            f"the {role} column holds numbers",
            "mend or remove that row",
        )
    return number
