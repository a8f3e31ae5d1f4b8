"""Which users and items of a table are kept, and how its pairs are split."""

from __future__ import annotations

import numpy as np

from recdistill.dataset.table import Pairs
from recdistill.errors import DataError, require


class Filter:
    """Which users of the table are kept.

    Args:
        user_min: users with fewer distinct items are dropped (once, before the split).
    """

    def __init__(self, *, user_min: int = 1) -> None:
        """Check the setting."""
        require(user_min >= 1, "user_min", user_min, ">= 1")
        self.user_min = user_min

    def apply(self, pairs: Pairs) -> Pairs:
        """Drop short users, then users and items that no longer occur.

        Raises:
            DataError: nobody is left.
        """
        keep = np.bincount(pairs.user)[pairs.user] >= self.user_min
        if not keep.any():
            raise DataError(
                f"no user has {self.user_min} items",
                "filter.user_min drops shorter users",
                "lower dataset.filter.user_min",
            )
        user, user_index = np.unique(pairs.user[keep], return_inverse=True)
        item, item_index = np.unique(pairs.item[keep], return_inverse=True)
        time = None if pairs.timestamp is None else pairs.timestamp[keep]
        return Pairs(user_index, item_index, pairs.user_ids[user], pairs.item_ids[item], time)


class RandomPerUser:
    """A seeded random split of each user's items: max(1, floor(n / 10)) each for valid and test when n >= 3.

    Users with fewer than three items train only.

    Args:
        seed: of the permutation; the same table and seed give the same split.
    """

    def __init__(self, *, seed: int = 0) -> None:
        """Check the setting."""
        require(seed >= 0, "seed", seed, ">= 0")
        self.seed = seed

    def assign(self, user: np.ndarray) -> np.ndarray:
        """Part of each pair: 0 train, 1 valid, 2 test.

        Shapes:
            user: [n] int64, sorted. Returns: [n] int8.
        """
        count = np.bincount(user)
        held = np.where(count >= 3, np.maximum(1, count // 10), 0)
        order = np.lexsort((np.random.default_rng(self.seed).random(len(user)), user))
        place = np.arange(len(user)) - (np.cumsum(count) - count)[user[order]]
        size = held[user[order]]
        part = np.empty(len(user), np.int8)
        part[order] = np.where(place < size, 2, np.where(place < 2 * size, 1, 0))
        return part
