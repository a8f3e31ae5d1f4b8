"""Which interactions of a table are kept: by rating, by time, and by how much is left of a user or an item."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from recdistill.dataset.table import Pairs
from recdistill.errors import DataError, SettingsError, require

SECONDS = 10**11  # times from here on count milliseconds or less
# What was done before a setting existed. Only what differs counts in a fingerprint, so that older results keep theirs.
_BEFORE = {"rating_min": None, "item_min": 1, "iterative": False, "time_from": None, "time_to": None}


class Filter:
    """Which interactions are kept, in this order: by rating, by time, then users, then items.

    Args:
        rating_min: ratings from here on are positives (null: every row is one).
        user_min: users with fewer distinct items are dropped.
        item_min: items with fewer distinct users, counted after the users were dropped, are dropped.
        iterative: true repeats the two until nothing falls out (the k-core); false is one pass, which may leave users
            below `user_min`.
        time_from: earliest time kept: a number as in the data, or a date in UTC such as 2015-01-31.
        time_to: first time no longer kept, likewise.
    """

    def __init__(
        self,
        *,
        rating_min: float | None = None,
        user_min: int = 1,
        item_min: int = 1,
        iterative: bool = False,
        time_from: int | str | None = None,
        time_to: int | str | None = None,
    ) -> None:
        """Check the settings."""
        require(user_min >= 1, "user_min", user_min, ">= 1")
        require(item_min >= 1, "item_min", item_min, ">= 1")
        self.rating_min, self.user_min, self.item_min, self.iterative = rating_min, user_min, item_min, iterative
        self.time_from = None if time_from is None else as_time(time_from, "time_from")
        self.time_to = None if time_to is None else as_time(time_to, "time_to")
        if self.time_from is not None and self.time_to is not None:
            require(self.time_from < self.time_to, "time_to", time_to, f"later than time_from={time_from}")

    def made_by(self) -> list[Any]:
        """What names the filter in a data set's fingerprint, as JSON values."""
        return made_by(self, _BEFORE)

    def apply(self, pairs: Pairs) -> Pairs:
        """Drop interactions, then users and items that no longer occur.

        Raises:
            DataError: the table lacks a column that is asked for, or nothing is left.
        """
        keep = np.ones(len(pairs.user), bool)
        if self.rating_min is not None:
            keep &= column_of(pairs, "rating", f"dataset.filter.rating_min={self.rating_min}") >= self.rating_min
        if self.time_from is not None:
            keep &= times_of(pairs, self.time_from, "dataset.filter.time_from") >= self.time_from
        if self.time_to is not None:
            keep &= times_of(pairs, self.time_to, "dataset.filter.time_to") < self.time_to
        self._drop_short(pairs, keep)
        if not keep.any():
            _, given = made_by(self, _BEFORE | {"user_min": 1})
            settings = ", ".join(f"dataset.filter.{key}={value}" for key, value in given.items())
            raise DataError(
                f"the filter leaves none of {len(keep)} interactions: {settings}",
                "interactions below the minima or outside the window of time are dropped",
                "loosen these settings",
            )
        return _compact(pairs, keep)

    def _drop_short(self, pairs: Pairs, keep: np.ndarray) -> None:
        """Take users and items below the minima out of `keep` [n] bool, in place."""
        limits = ((pairs.user, self.user_min), (pairs.item, self.item_min))
        # a minimum of 1 drops nobody, but a round over both costs a second at 20M rows
        active = [(code, least) for code, least in limits if least > 1]
        left = -1
        while active and left != (left := int(keep.sum())):
            for code, least in active:
                keep &= (np.bincount(code[keep], minlength=code.max() + 1) >= least)[code]
            if not self.iterative:
                return


def made_by(component: object, before: dict[str, Any]) -> list[Any]:
    """A component's class and settings, without later settings that are as before they existed."""
    settings = {key: value for key, value in vars(component).items() if key not in before or value != before[key]}
    made = type(component)
    ours = made.__module__.partition(".")[0] == __name__.partition(".")[0]
    return [made.__qualname__ if ours else f"{made.__module__}.{made.__qualname__}", settings]


def as_time(value: int | str, setting: str) -> int:
    """A time as in the data: a number stays, a date (UTC where it names no zone) becomes Unix seconds.

    Raises:
        SettingsError: it is neither.

    Example:
        >>> as_time("1970-01-02", "time_from")
        86400
    """
    if isinstance(value, int):
        return value
    try:
        moment = datetime.fromisoformat(value)
    except ValueError as error:
        raise SettingsError(
            f"{setting}={value!r} is neither a number nor a date",
            f"{setting} must be a time as in the data, or a date such as 2015-01-31 or 2015-01-31T12:00",
            f"set {setting} to one of the two",
        ) from error
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def column_of(pairs: Pairs, column: str, setting: str) -> np.ndarray:
    """The `rating` or `timestamp` of each pair [n].

    Raises:
        DataError: the table has no such column; `setting` is what asks for it.
    """
    found: np.ndarray | None = getattr(pairs, column)
    if found is None:
        raise DataError(
            f"{setting} needs a {column} of each interaction, but the table has none",
            f"nothing stands in for a missing {column}: a made-up one would give a made-up data set",
            f"use data with a {column} column, or take the setting back",
        )
    return found


def times_of(pairs: Pairs, limit: int, setting: str) -> np.ndarray:
    """The timestamp of each pair [n], to be compared with a limit.

    Raises:
        DataError: the table has no times, or their unit is so much finer than the limit's that all are later.
    """
    time = column_of(pairs, "timestamp", f"{setting}={limit}")
    if limit < SECONDS <= (earliest := int(time.min())):
        raise DataError(
            f"{setting}={limit} is in seconds, but the earliest time of the data, {earliest}, is in a finer unit",
            f"a date becomes seconds since 1970; {SECONDS} seconds would be after the year 5000",
            "give the time as a number in the unit of the data",
        )
    return time


def _compact(pairs: Pairs, keep: np.ndarray) -> Pairs:
    """The kept pairs, with contiguous ids again."""
    kept = pairs if keep.all() else pairs.rows(keep)
    user, user_ids = _renumbered(kept.user, kept.user_ids)
    item, item_ids = _renumbered(kept.item, kept.item_ids)
    return replace(kept, user=user, item=item, user_ids=user_ids, item_ids=item_ids)


def _renumbered(code: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes without gaps, by a table of what occurs: sorting 20M codes takes seconds."""
    occurs = np.bincount(code, minlength=len(ids)) > 0
    return (code, ids) if occurs.all() else ((np.cumsum(occurs) - 1)[code], ids[occurs])
