"""From blocks of Arrow columns to a `RawTable`: memory is that of the final arrays and of one block."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recdistill.dataset.columns import Say
from recdistill.dataset.files import empty
from recdistill.dataset.table import Ids, RawTable
from recdistill.errors import DataError

PART_NAMES = {
    "train": 0, "training": 0,
    "valid": 1, "validation": 1, "val": 1, "dev": 1,
    "test": 2, "testing": 2,
}  # fmt: skip
Block = Mapping[str, pa.Array]


def collect(path: Path, blocks: Iterable[Block], strict: Iterable[str], say: Say) -> RawTable:
    """Read all blocks of a file.

    Args:
        path: named in errors.
        blocks: for each role (`user`, `item` and, where there are such, `rating`, `timestamp`, `split`) some rows.
        strict: roles whose numbers must be numbers; of others a column that is not is left out, and that is said.
        say: prints a line to the user.

    Raises:
        DataError: there are no rows, an id is missing or is neither text nor a number, a number is none.
    """
    user, item = _IdColumn(path, "user"), _IdColumn(path, "item")
    split = _IdColumn(path, "split")
    number = {role: _NumberColumn(path, role, strict=role in set(strict)) for role in ("rating", "timestamp")}
    n = 0
    for block in blocks:
        user.add(block["user"], n)
        item.add(block["item"], n)
        if "split" in block:
            split.add(block["split"], n)
        for role, column in number.items():
            if role in block:
                column.add(block[role], n)
        n += len(block["user"])
    if n == 0:
        raise empty(path)
    for column in number.values():
        if column.left_out:
            say(column.left_out)
    return RawTable(
        user.ids(), item.ids(), number["rating"].values(), number["timestamp"].values(), _parts(path, split)
    )


def _parts(path: Path, column: _IdColumn) -> np.ndarray | None:
    if not column.blocks:
        return None
    ids = column.ids()
    unknown = [name for name in ids.names if name.lower() not in PART_NAMES]
    if unknown:
        raise DataError(
            f"{path}: {unknown[0]!r} in the split column is no part",
            f"a row is of one of: {', '.join(PART_NAMES)}",
            "mend the column dataset.columns.split, or leave it out and let recdistill split",
        )
    part: np.ndarray = np.array([PART_NAMES[name.lower()] for name in ids.names], np.int8)[ids.code]
    return part


class _IdColumn:
    """Ids of blocks, as whole numbers while their text is that of whole numbers (3 times faster), else as text."""

    def __init__(self, path: Path, role: str) -> None:
        self.path, self.role = path, role
        self.blocks: list[np.ndarray | Ids] = []
        self.bad, self.first_bad = 0, 0

    def add(self, column: pa.Array, row: int) -> None:
        """Take the rows of a block that starts at `row`."""
        kind = column.type
        if pa.types.is_integer(kind) or pa.types.is_floating(kind):
            self._check(np.asarray(pc.is_null(column, nan_is_null=True)), row)
            number = column.drop_null().to_numpy(zero_copy_only=False)
            self.blocks.append(_compact(number))
            return
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind)):
            column = self._as_text(column, row)
        if pa.types.is_string(column.type) and (whole := _whole_numbers(column)) is not None:
            self.blocks.append(_compact(whole))
            return
        self._add_text(column, row)

    def _as_text(self, column: pa.Array, row: int) -> pa.Array:
        try:
            if not pa.types.is_binary(column.type):
                return pc.cast(column, pa.string())
        except pa.ArrowNotImplementedError:
            pass  # lists and records
        present = np.asarray(pc.is_valid(column))
        place = int(present.argmax()) + row + 1
        raise DataError(
            f"{self.path}: the {self.role} id in data row {place} is of type {column.type}",
            "an id is text or a number; bytes, lists and records have no one spelling",
            f"convert the column to text, or name another: dataset.columns.{self.role}=NAME",
        )

    def _add_text(self, column: pa.Array, row: int) -> None:
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        code = column.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        names = [("" if name is None else str(name)).strip() for name in column.dictionary.to_pylist()]
        ids = Ids.of([*names, ""])  # blanks around an id do not count; the last name is that of missing ids
        code = ids.code[code]
        missing = np.array([name == "" or name.lower() == "nan" for name in ids.names])
        self._check(missing[code], row)
        used, code = np.unique(code, return_inverse=True)  # a dictionary may hold more than is used
        self.blocks.append(Ids(code.astype(np.int32), ids.names[used]))

    def _check(self, bad: np.ndarray, row: int) -> None:
        if bad.any():
            self.first_bad = self.first_bad or row + int(bad.argmax()) + 1
            self.bad += int(bad.sum())

    def ids(self) -> Ids:
        """All blocks, one below the other."""
        if self.bad:
            raise DataError(
                f"{self.path} has {self.bad} rows without a {self.role} id, first in data row {self.first_bad}",
                "an empty or NaN id would become a user or an item of its own",
                "remove these rows or give them ids",
            )
        numbers = [block for block in self.blocks if isinstance(block, np.ndarray)]
        if len(numbers) == len(self.blocks):
            whole, self.blocks = np.concatenate(numbers), []
            return Ids.of_numbers(whole)
        return Ids.joined([block if isinstance(block, Ids) else Ids.of_numbers(block) for block in self.blocks])


class _NumberColumn:
    """Ratings as float64 or times as int64."""

    def __init__(self, path: Path, role: str, *, strict: bool) -> None:
        self.path, self.role, self.strict = path, role, strict
        self.blocks: list[np.ndarray] = []
        self.left_out = ""

    def add(self, column: pa.Array, row: int) -> None:
        """Take the rows of a block that starts at `row`."""
        if self.left_out:
            return
        number = _ratings(column) if self.role == "rating" else _times(column)
        if number is not None:
            self.blocks.append(number)
            return
        place = _first_that_is_no_number(column)
        what = f"{self.path}: {self.role} {str(column[place].as_py())[:60]!r} in data row {row + place + 1}"
        if self.strict:
            raise DataError(
                f"{what} is not a number",
                f"the {self.role} column holds numbers" + (" or ISO 8601 times" if self.role == "timestamp" else ""),
                "mend or remove that row",
            )
        self.left_out = f"{what} is not a number: the column is left out (dataset.columns.{self.role}=NAME insists)"
        self.blocks = []

    def values(self) -> np.ndarray | None:
        """All blocks, one below the other; None without any."""
        blocks, self.blocks = self.blocks, []
        return np.concatenate(blocks) if blocks else None


def _compact(number: np.ndarray) -> np.ndarray:
    """Whole numbers as int32 where they fit."""
    if number.dtype != np.int64 or len(number) == 0:
        return number
    limit = np.iinfo(np.int32)
    return number.astype(np.int32) if limit.min <= number.min() and number.max() <= limit.max else number


def _whole_numbers(text: pa.StringArray) -> np.ndarray | None:
    """The numbers that a text column spells, if it spells each without sign, blanks or leading zeros."""
    if len(text) == 0 or text.null_count or not str(text[0]).isdecimal():
        return None
    try:
        number = pc.cast(text, pa.int64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        return None
    if number.min() < 0:
        return None
    # no spelling of a number is shorter than the plain one: equal sums of lengths mean that every one is plain
    plain = len(number) + sum(int((number >= 10**power).sum()) for power in range(1, len(str(number.max()))))
    return number if plain == pc.sum(pc.binary_length(text)).as_py() else None


def _ratings(column: pa.Array) -> np.ndarray | None:
    """[n] float64; None if a value is not a finite number."""
    number = _cast(column, pa.float64())
    if number is None:
        return None
    value = number.to_numpy(zero_copy_only=False)
    return value if np.isfinite(value).all() else None


def _times(column: pa.Array) -> np.ndarray | None:
    """[n] int64: whole numbers as they are, fractions cut, dates as seconds since 1970; None if a value is neither."""
    kind = column.type
    if not (pa.types.is_temporal(kind) or pa.types.is_floating(kind)):
        whole = _cast(column, pa.int64())
        if whole is not None:
            return np.asarray(whole)
    if not pa.types.is_temporal(kind):
        number = _ratings(column)
        if number is not None:
            return number.astype(np.int64) if (np.abs(number) < 2.0**63).all() else None
    moment = _cast(column, pa.timestamp("us"))
    if moment is None:  # text with a zone, such as 2015-01-31T12:00Z
        moment = _cast(column, pa.timestamp("us", "UTC"))
    return None if moment is None else pc.cast(moment, pa.int64()).to_numpy(zero_copy_only=False) // 1_000_000


def _cast(column: pa.Array, kind: pa.DataType) -> pa.Array | None:
    """The column as another type without nulls, or None."""
    if column.null_count:
        return None
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    with suppress(pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return pc.cast(column, kind)
    with suppress(pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return pc.cast(pc.utf8_trim_whitespace(column), kind)
    return None


def _first_that_is_no_number(column: pa.Array) -> int:
    text = pd.Series([str(value) for value in column.to_pylist()], dtype=object)
    value = pd.to_numeric(text, errors="coerce").to_numpy(np.float64)
    bad = ~(np.abs(value) < 2.0**63)  # NaN too
    return int(bad.argmax())
