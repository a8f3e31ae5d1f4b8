"""A table of interactions: as read (`RawTable`), and as distinct pairs with contiguous ids (`Pairs`)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from recdistill.errors import DataError

PARTS = ("train", "valid", "test")


@dataclass(frozen=True)
class Ids:
    """A column of ids: the distinct ones as text, and which of them stands in each row.

    Shapes:
        code: [n] int32, places in `names`. names: [N] text, distinct, each of some row, in any order.
    """

    code: np.ndarray
    names: np.ndarray

    @classmethod
    def of(cls, text: Iterable[str] | np.ndarray) -> Ids:
        """The column of a text id per row."""
        code, names = pd.factorize(np.asarray(text, dtype=object))
        return cls(code.astype(np.int32), np.asarray(names, dtype=object))

    @classmethod
    def of_numbers(cls, number: np.ndarray) -> Ids:
        """The column of a number per row; whole ones stored as float, as 1.0, are the numbers they mean."""
        code, found = pd.factorize(number)
        found = np.asarray(found)
        if found.dtype.kind == "f" and np.isfinite(found).all() and (found == found.round()).all():
            names = [str(int(value)) for value in found]
        else:
            names = [str(value) for value in found.tolist()]
        return cls(code.astype(np.int32), np.array(names, dtype=object))

    @classmethod
    def joined(cls, parts: Sequence[Ids]) -> Ids:
        """Several columns, one below the other."""
        place: dict[str, int] = {}
        moved = [np.array([place.setdefault(name, len(place)) for name in part.names], np.int32) for part in parts]
        codes = [new[part.code] for new, part in zip(moved, parts, strict=True)]
        return cls(np.concatenate(codes), np.array(list(place), dtype=object))

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.code)

    def text(self) -> np.ndarray:
        """[n] text: the id of each row."""
        text: np.ndarray = self.names[self.code]
        return text


@dataclass(frozen=True)
class RawTable:
    """Interactions as read, one row each, repeats included.

    Shapes:
        user, item: [n] ids. rating: [n] float64 or None. timestamp: [n] int64, seconds in most sources, or None.
        part: [n] int8 or None, the part of a split of one's own: 0 train, 1 valid, 2 test.

    Attributes:
        format: what the file was read as, as `dataset.format` names it; None if there was no file.
    """

    user: Ids
    item: Ids
    rating: np.ndarray | None = None
    timestamp: np.ndarray | None = None
    part: np.ndarray | None = None
    format: str | None = None

    @classmethod
    def of(
        cls,
        user: Iterable[str] | np.ndarray,
        item: Iterable[str] | np.ndarray,
        rating: np.ndarray | None = None,
        timestamp: np.ndarray | None = None,
        part: np.ndarray | None = None,
    ) -> RawTable:
        """The table of a text user and item id per row."""
        return cls(Ids.of(user), Ids.of(item), rating, timestamp, part)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.user)


@dataclass(frozen=True)
class Pairs:
    """Distinct (user, item) pairs with contiguous ids, sorted by user and item.

    Shapes:
        user, item: [n] int64. user_ids: [U], item_ids: [I] text, in the order of the contiguous ids.
        timestamp: [n] int64 or None. rating: [n] float64 or None. part: [n] int8 or None, as in `RawTable`.
    """

    user: np.ndarray
    item: np.ndarray
    user_ids: np.ndarray
    item_ids: np.ndarray
    timestamp: np.ndarray | None = None
    rating: np.ndarray | None = None
    part: np.ndarray | None = None

    def rows(self, chosen: np.ndarray) -> Pairs:
        """The pairs at some places ([m] int64, or [n] bool) under the same ids."""
        time, rating, part = (None if c is None else c[chosen] for c in (self.timestamp, self.rating, self.part))
        return Pairs(self.user[chosen], self.item[chosen], self.user_ids, self.item_ids, time, rating, part)


def contiguous(table: RawTable) -> Pairs:
    """Distinct pairs with ids from 0 in the natural order of the original ids; the order of rows does not matter.

    Of a repeated pair the earliest time and the highest rating count: when the user first met the item, and the best
    that they ever said of it.

    Raises:
        DataError: a pair is in two parts of the table's own split.
    """
    key, user_ids, item_ids = _keys(table)
    columns: list[tuple[np.ndarray | None, np.ufunc]] = [
        (table.timestamp, np.minimum),
        (table.rating, np.maximum),
        (table.part, np.minimum),
        (table.part, np.maximum),
    ]
    del table  # at 20M rows what is no longer needed is half of the memory
    key, (time, rating, part, last) = _distinct(key, columns)
    user = key // len(item_ids)
    key -= user * len(item_ids)
    pairs = Pairs(user, key, user_ids, item_ids, time, rating, part)
    if part is not None and last is not None:
        _check_disjoint(pairs, part, last)
    return pairs


def _check_disjoint(pairs: Pairs, part: np.ndarray, last: np.ndarray) -> None:
    """The lowest and the highest part of each pair must be one."""
    if (both := part != last).any():
        one = int(both.argmax())
        user, item = pairs.user_ids[pairs.user[one]], pairs.item_ids[pairs.item[one]]
        raise DataError(
            f"{int(both.sum())} pairs are in two parts of the split: user {user!r} has item {item!r} "
            f"in both {PARTS[part[one]]} and {PARTS[last[one]]}",
            "a model that has seen a test interaction reports a leak, not a recommendation",
            "make train, valid and test disjoint, or let recdistill split one table",
        )


def _distinct(
    key: np.ndarray, columns: list[tuple[np.ndarray | None, np.ufunc]]
) -> tuple[np.ndarray, list[np.ndarray | None]]:
    """Sorted keys without repeats, and each column with one value per key, chosen among those of its rows.

    `columns` is emptied, so that a column can go when it has been used.
    """
    order = None
    if any(column is not None for column, _ in columns):
        order = _sort(key)
    else:
        key.sort()
    new = np.ones(len(key), dtype=bool)
    np.not_equal(key[1:], key[:-1], out=new[1:])
    key = key[new]
    if order is None:
        return key, [None for _ in columns]
    again = np.flatnonzero(~new)  # rows, in this order, whose key came before
    place = again - np.arange(len(again)) - 1  # and where it stands among the distinct ones
    first, later = order[new], order[again]
    del order, new
    values: list[np.ndarray | None] = []
    while columns:
        column, choose = columns.pop(0)
        value = None if column is None else column[first]
        if column is not None and value is not None:
            choose.at(value, place, column[later])
        values.append(value)
    return key, values


def _keys(table: RawTable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One number per row that stands for its pair, and the ids of users and items in natural order."""
    user, user_ids = _natural(table.user)
    item, item_ids = _natural(table.item)
    key = user.astype(np.int64)
    key *= len(item_ids)
    key += item
    return key, user_ids, item_ids


def _sort(key: np.ndarray) -> np.ndarray:
    """Sort keys in place; returns what sorted them, ties in the order of rows.

    Key and row share one number where it has room for both: that is five times faster than an argsort.
    """
    bits = len(key).bit_length()
    if int(key.max()).bit_length() + bits < 64:
        key <<= bits
        key |= np.arange(len(key))
        key.sort()
        order: np.ndarray = np.bitwise_and(key, (1 << bits) - 1)
        key >>= bits
    else:
        order = np.argsort(key, kind="stable")
        key[:] = key[order]
    return order


def _natural(ids: Ids) -> tuple[np.ndarray, np.ndarray]:
    """Codes and names in natural order: ids that are all numbers by value, others as words."""
    names = ids.names
    together = "".join(names)
    if together.isascii() and together.isdigit():
        # by length without leading zeros, then as text: numbers of any size, which int() does not take
        bare = [text.lstrip("0") for text in names]
        order = np.array(sorted(range(len(names)), key=lambda index: (len(bare[index]), bare[index], names[index])))
    else:
        order = np.array(sorted(range(len(names)), key=names.__getitem__))
    place = np.empty(len(names), np.int32)
    place[order] = np.arange(len(names), dtype=np.int32)
    return place[ids.code], names[order]


def table_hash(table: RawTable) -> str:
    """`pairs_hash` of a table's distinct pairs."""
    return pairs_hash(contiguous(table))


def pairs_hash(pairs: Pairs, *, ratings: bool = False) -> str:
    """SHA-256 of a table's canonical form: independent of the order of rows and of the file format.

    Canonical: ids in natural order, one per line; then for each distinct pair, in order, user and item numbers as
    int32 and, where the table has them, the earliest timestamp as int64 and the part as int8, little-endian;
    with `ratings` also the highest rating as float64, which matters only where it decides what is kept.
    """
    digest = hashlib.sha256()
    for ids in (pairs.user_ids, pairs.item_ids):
        digest.update("\n".join(ids).encode() + b"\n\n")
    for column in (pairs.user, pairs.item):
        digest.update(column.astype("<i4").data)
    if pairs.timestamp is not None:
        digest.update(pairs.timestamp.astype("<i8", copy=False).data)
    if pairs.part is not None:
        digest.update(b"part" + pairs.part.astype("<i1", copy=False).tobytes())
    if ratings and pairs.rating is not None:
        digest.update(b"rating" + pairs.rating.astype("<f8", copy=False).tobytes())
    return digest.hexdigest()
