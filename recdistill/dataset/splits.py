"""How the interactions of a table are divided into train, valid and test; never by their position in a file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from fractions import Fraction
from typing import Any

import numpy as np

from recdistill.dataset.filters import as_time, column_of, made_by, times_of
from recdistill.dataset.table import Pairs
from recdistill.errors import require

TRAIN, VALID, TEST, DROPPED = 0, 1, 2, -1
ORDERS = ("random", "time")
UNSEEN = ("keep", "drop")


class Split(ABC):
    """A rule that gives every pair its part."""

    @abstractmethod
    def assign(self, pairs: Pairs) -> np.ndarray:
        """Part of each pair: 0 train, 1 valid, 2 test, -1 dropped.

        Shapes:
            Returns: [n] int8.

        Raises:
            DataError: the rule needs time, and the table has none.
        """

    def made_by(self) -> list[Any]:
        """What names the split in a data set's fingerprint, as JSON values."""
        return made_by(self, {})


class Ratio(Split):
    """A share of each user's items for valid and test, the rest for train; everybody keeps one item to train on.

    Roundings, with n the items of a user:

    - `at_least_one`: max(1, floor(share n)) each where n >= 3; users with fewer items only train.
    - `floor`: floor(share n) each, as HetComp does (valid=0.2 test=0.2).
    - `ceil`: ceil(share n) each, as UnKD does for its held-out items.
    - `cumulative`: train max(1, floor(train n)), then valid up to floor((train + valid) n), then test, as KDs does.

    Args:
        valid: share of each user's items.
        test: share of each user's items.
        rounding: `at_least_one`, `floor`, `ceil` or `cumulative`. Shares count as written: 0.7 of 10 is 7.
        order: `random`, or `time`: the latest items are test and those before them valid; items of one time stand in
            random order.
        unseen: `keep` or `drop` held-out interactions whose item nobody trains on.
        seed: of the random order; the same table and seed give the same split.
    """

    def __init__(
        self,
        *,
        valid: float = 0.1,
        test: float = 0.1,
        rounding: str = "at_least_one",
        order: str = "random",
        unseen: str = "keep",
        seed: int = 0,
    ) -> None:
        """Check the settings."""
        _check_shares(valid, test)
        roundings = ("at_least_one", "floor", "ceil", "cumulative")
        require(rounding in roundings, "rounding", rounding, f"one of {', '.join(roundings)}")
        _check_common(order, unseen, seed)
        self.valid, self.test, self.rounding = valid, test, rounding
        self.order, self.unseen, self.seed = order, unseen, seed

    def made_by(self) -> list[Any]:
        """Class and settings; with the defaults under the name that the first published results were split by."""
        defaults = {"valid": 0.1, "test": 0.1, "rounding": "at_least_one", "order": "random", "unseen": "keep"}
        name, settings = made_by(self, defaults)
        return ["RandomPerUser" if type(self) is Ratio else name, settings]

    def assign(self, pairs: Pairs) -> np.ndarray:
        """Part of each pair, as in `Split`."""
        count = np.bincount(pairs.user)
        n_valid, n_test = self._sizes(count)
        return _finished(pairs, _first(pairs, _places(pairs, self.order, self.seed), n_test, n_valid), self.unseen)

    def _sizes(self, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Items of each user for valid and for test, [U] each."""
        valid, test = _exact(self.valid), _exact(self.test)
        if self.rounding == "cumulative":
            train = np.maximum(_floor(1 - valid - test, count), 1)
            border = np.maximum(_floor(1 - test, count), train)
            return border - train, count - border
        least = np.zeros_like(count)
        rounded = _ceil if self.rounding == "ceil" else _floor
        n_valid, n_test = rounded(valid, count), rounded(test, count)
        if self.rounding == "at_least_one":
            least = np.where(count >= 3, 1, 0)
            n_valid, n_test = np.maximum(n_valid, 1) * least, np.maximum(n_test, 1) * least
        n_test = np.minimum(n_test, count - 1 - least)
        return np.minimum(n_valid, count - 1 - n_test), n_test


class LeaveOneOut(Split):
    """One test and one valid item for each user with at least three; the others only train.

    Args:
        order: `random`, or `time`: the latest item is test and the one before it valid; items of one time stand in
            random order.
        unseen: `keep` or `drop` held-out interactions whose item nobody trains on.
        seed: of the random order.
    """

    def __init__(self, *, order: str = "random", unseen: str = "keep", seed: int = 0) -> None:
        """Check the settings."""
        _check_common(order, unseen, seed)
        self.order, self.unseen, self.seed = order, unseen, seed

    def assign(self, pairs: Pairs) -> np.ndarray:
        """Part of each pair, as in `Split`."""
        one = np.where(np.bincount(pairs.user) >= 3, 1, 0)
        return _finished(pairs, _first(pairs, _places(pairs, self.order, self.seed), one, one), self.unseen)


class UserHoldOut(Split):
    """Items of every user are held out; those of some users are valid, those of all others test.

    ceil(held_out n) of a user's n items are held out, but one is left to train on; floor(valid_users U) random users
    are the validation users. So the users of valid and of test are disjoint. As in UnKD (Chen et al., WSDM 2023).

    Args:
        held_out: share of each user's items.
        valid_users: share of the users.
        order: `random`, or `time`: the latest items are held out; items of one time stand in random order.
        unseen: `keep` or `drop` held-out interactions whose item nobody trains on.
        seed: of the random order and of the validation users.
    """

    def __init__(
        self,
        *,
        held_out: float = 0.2,
        valid_users: float = 0.2,
        order: str = "random",
        unseen: str = "keep",
        seed: int = 0,
    ) -> None:
        """Check the settings."""
        require(0 < held_out < 1, "held_out", held_out, "a share between 0 and 1")
        require(0 < valid_users < 1, "valid_users", valid_users, "a share between 0 and 1")
        _check_common(order, unseen, seed)
        self.held_out, self.valid_users = held_out, valid_users
        self.order, self.unseen, self.seed = order, unseen, seed

    def assign(self, pairs: Pairs) -> np.ndarray:
        """Part of each pair, as in `Split`."""
        count = np.bincount(pairs.user)
        n_held_out = np.minimum(_ceil(_exact(self.held_out), count), count - 1)
        # a stream of its own: the validation users do not depend on the number of interactions
        users = np.random.default_rng([self.seed, 1]).permutation(len(count))
        target = np.full(len(count), TEST, np.int8)
        target[users[: int(_exact(self.valid_users) * len(count))]] = VALID
        held_out = _places(pairs, self.order, self.seed) < n_held_out[pairs.user]
        return _finished(pairs, target[pairs.user] * held_out, self.unseen)


class TimeCut(Split):
    """Two moments cut all interactions: train lies before the first, test from the second on, valid between.

    Interactions of one time stay together, on the later side of a cut.

    Args:
        valid: share of the interactions, the latest before test.
        test: share of the interactions, the latest.
        valid_from: first time of valid, a number as in the data or a date in UTC (null: by share).
        test_from: first time of test, likewise (null: by share).
        unseen: `keep` or `drop` held-out interactions whose item, or user, is not in train; a model without any
            training interaction of a user ranks for that user by chance.
    """

    def __init__(
        self,
        *,
        valid: float = 0.1,
        test: float = 0.1,
        valid_from: int | str | None = None,
        test_from: int | str | None = None,
        unseen: str = "drop",
    ) -> None:
        """Check the settings."""
        _check_shares(valid, test)
        require(unseen in UNSEEN, "unseen", unseen, f"one of {', '.join(UNSEEN)}")
        self.valid, self.test, self.unseen = valid, test, unseen
        self.valid_from = None if valid_from is None else as_time(valid_from, "valid_from")
        self.test_from = None if test_from is None else as_time(test_from, "test_from")
        if self.valid_from is not None and self.test_from is not None:
            require(self.valid_from < self.test_from, "test_from", test_from, f"later than valid_from={valid_from}")

    def assign(self, pairs: Pairs) -> np.ndarray:
        """Part of each pair, as in `Split`."""
        time = column_of(pairs, "timestamp", "dataset/split=time_cut")
        valid, test = _exact(self.valid), _exact(self.test)
        for limit, setting in ((self.valid_from, "valid_from"), (self.test_from, "test_from")):
            if limit is not None:
                times_of(pairs, limit, f"dataset.split.{setting}")
        first_test = _cut(time, 1 - test) if self.test_from is None else self.test_from
        first_valid = _cut(time, 1 - valid - test) if self.valid_from is None else self.valid_from
        part = np.full(len(time), TRAIN, np.int8)
        part[time >= first_valid] = VALID
        part[time >= first_test] = TEST
        return _finished(pairs, part, self.unseen)


def _check_common(order: str, unseen: str, seed: int) -> None:
    require(order in ORDERS, "order", order, f"one of {', '.join(ORDERS)}")
    require(unseen in UNSEEN, "unseen", unseen, f"one of {', '.join(UNSEEN)}")
    require(seed >= 0, "seed", seed, ">= 0")


def _check_shares(valid: float, test: float) -> None:
    require(0 < valid < 1, "valid", valid, "a share between 0 and 1")
    require(0 < test < 1, "test", test, "a share between 0 and 1")
    require(_exact(valid) + _exact(test) < 1, "test", test, f"below 1 - valid={valid}, or nothing is left to train")


def _exact(share: float) -> Fraction:
    """The decimal number that was written: in floats, 0.57 of 100 is less than 57."""
    return Fraction(str(share))


def _floor(share: Fraction, count: np.ndarray) -> np.ndarray:
    return count * share.numerator // share.denominator


def _ceil(share: Fraction, count: np.ndarray) -> np.ndarray:
    return -(-count * share.numerator // share.denominator)


def _cut(time: np.ndarray, share: Fraction) -> int:
    """The time before which a share of the interactions lies."""
    place = len(time) * share.numerator // share.denominator
    return int(np.partition(time, place)[place])


def _places(pairs: Pairs, order: str, seed: int) -> np.ndarray:
    """Each pair's place [n] among its user's, from 0: in random order, or the latest first and ties in random order.

    Pairs come sorted by user and item, so neither the order of rows nor that of ids within a line matters.
    """
    user, draw = pairs.user, np.random.default_rng(seed).random(len(pairs.user))
    exact: tuple[np.ndarray, ...] = (draw, user)
    rough = user + draw
    if order == "time":
        time = column_of(pairs, "timestamp", "dataset.split.order=time")
        age = time.max() - time.astype(np.float64)
        exact, rough = (draw, ~time, user), user + age / (age.max() + 1)
    by_user = argsort(rough, exact)
    count = np.bincount(user)
    place = np.empty(len(user), np.int32)  # half of int64: at 20M rows each such array counts
    place[by_user] = np.arange(len(user), dtype=np.int32)
    place -= (np.cumsum(count) - count).astype(np.int32)[user]
    return place


def argsort(rough: np.ndarray, exact: tuple[np.ndarray, ...]) -> np.ndarray:
    """What `np.lexsort(exact)` gives, from one sort of one float: eight times faster at 20M rows.

    Args:
        rough: [n], in the order of `exact` but for rounding, which may make neighbours equal; those are sorted again.
        exact: keys [n] each, the most important last.
    """
    order = np.argsort(rough)
    rough = rough[order]
    equal = np.flatnonzero(rough[1:] == rough[:-1])
    places = np.union1d(equal, equal + 1)
    some = np.sort(order[places])
    order[places] = some[np.lexsort([key[some] for key in exact])]
    return order


def _first(pairs: Pairs, place: np.ndarray, n_test: np.ndarray, n_valid: np.ndarray) -> np.ndarray:
    """Of a user's places test takes the first and valid the next; n_test, n_valid: [U]. Returns: [n] int8."""
    part = np.full(len(place), TRAIN, np.int8)
    part[place < (n_test + n_valid)[pairs.user]] = VALID
    part[place < n_test[pairs.user]] = TEST
    return part


def _finished(pairs: Pairs, part: np.ndarray, unseen: str) -> np.ndarray:
    """The parts, without held-out pairs whose user or item is not in train where those are to be dropped."""
    if unseen == "drop":
        train = part == TRAIN
        for code in (pairs.item, pairs.user):
            trained = np.bincount(code[train], minlength=int(code.max()) + 1) > 0
            part[~train & ~trained[code]] = DROPPED
    return part
