"""A table of interactions: as read (`RawTable`), and as distinct pairs with contiguous ids (`Pairs`)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class RawTable:
    """Interactions as read, one row each, repeats included.

    Shapes:
        user_id, item_id: [n] text. rating: [n] float64 or None. timestamp: [n] int64 or None.
    """

    user_id: np.ndarray
    item_id: np.ndarray
    rating: np.ndarray | None = None
    timestamp: np.ndarray | None = None


@dataclass(frozen=True)
class Pairs:
    """Distinct (user, item) pairs with contiguous ids, sorted by user and item.

    Shapes:
        user, item: [n] int64. user_ids: [U], item_ids: [I] text, in the order of the contiguous ids.
    """

    user: np.ndarray
    item: np.ndarray
    user_ids: np.ndarray
    item_ids: np.ndarray
    timestamp: np.ndarray | None = None


def contiguous(table: RawTable) -> Pairs:
    """Distinct pairs with ids from 0 in the natural order of the original ids; the order of rows does not matter."""
    user, user_ids = _codes(table.user_id)
    item, item_ids = _codes(table.item_id)
    key = user * len(item_ids) + item
    if table.timestamp is None:
        key = np.unique(key)
        time = None
    else:  # of repeated pairs the earliest counts
        order = np.lexsort((table.timestamp, key))
        first = order[np.r_[True, np.diff(key[order]) != 0]]
        key, time = key[first], table.timestamp[first]
    return Pairs(key // len(item_ids), key % len(item_ids), user_ids, item_ids, time)


def _codes(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    code, found = pd.factorize(ids)
    found = np.asarray(found, dtype=object)
    if all(text.isascii() and text.isdigit() for text in found):
        order = np.array(sorted(range(len(found)), key=lambda index: (int(found[index]), found[index])))
    else:
        order = np.argsort(found.astype(str), kind="stable")
    place = np.empty(len(found), np.int64)
    place[order] = np.arange(len(found))
    return place[code], found[order]


def table_hash(table: RawTable) -> str:
    """SHA-256 of a table's canonical form: independent of the order of rows and of the file format.

    Canonical: ids in natural order, one per line; then for each distinct pair, in order, user and item numbers as
    int32 and, where the table has time, the earliest timestamp as int64, little-endian.
    """
    pairs = contiguous(table)
    digest = hashlib.sha256()
    for ids in (pairs.user_ids, pairs.item_ids):
        digest.update("\n".join(ids).encode() + b"\n\n")
    for column in (pairs.user, pairs.item):
        digest.update(column.astype("<i4").tobytes())
    if pairs.timestamp is not None:
        digest.update(pairs.timestamp.astype("<i8").tobytes())
    return digest.hexdigest()
