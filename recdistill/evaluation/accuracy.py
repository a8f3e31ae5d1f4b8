"""Accuracy metrics: one value per user, from where the relevant items stand in a ranked list.

All take `hit` [n, K] bool (is the item at this place relevant?) and `relevant` [n] int (held-out items of the user, at
least 1), and return [n] float64 within [0, 1]. Lists shorter than K are padded with misses.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Array = np.ndarray


def discounts(k: int) -> Array:
    """[k] float64: 1 / log2(rank + 1)."""
    value: Array = 1 / np.log2(np.arange(2, k + 2))
    return value


def recall(hit: Array, relevant: Array) -> Array:
    """Hits / relevant."""
    value: Array = hit.sum(1) / relevant
    return value


def precision(hit: Array, relevant: Array) -> Array:
    """Hits / K."""
    value: Array = hit.sum(1) / hit.shape[1]
    return value


def hit_rate(hit: Array, relevant: Array) -> Array:
    """1 if there is a hit."""
    return np.where(hit.any(1), 1.0, 0.0)


def ndcg(hit: Array, relevant: Array) -> Array:
    """DCG with discount 1 / log2(rank + 1) over that of min(K, relevant) hits at the top.

    Example:
        >>> round(float(ndcg(np.array([[1, 0, 1]], bool), np.array([2]))[0]), 6)
        0.919721
    """
    discount = discounts(hit.shape[1])
    ideal = discount.cumsum()
    value: Array = (hit * discount).sum(1) / ideal[np.minimum(relevant, hit.shape[1]) - 1]
    return value


def mrr(hit: Array, relevant: Array) -> Array:
    """1 / rank of the first hit, 0 without one."""
    return np.where(hit.any(1), 1 / (hit.argmax(1) + 1), 0.0)


def average_precision(hit: Array, relevant: Array) -> Array:
    """Mean precision at the hits, over min(K, relevant)."""
    row, place = hit.nonzero()  # few places are hits
    count = np.bincount(row, minlength=len(hit))
    so_far = np.arange(1, len(row) + 1) - (count.cumsum() - count)[row]
    value: Array = np.bincount(row, so_far / (place + 1), len(hit)) / np.minimum(relevant, hit.shape[1])
    return value


METRICS: dict[str, Callable[[Array, Array], Array]] = {
    "recall": recall,
    "ndcg": ndcg,
    "hit": hit_rate,
    "precision": precision,
    "mrr": mrr,
    "map": average_precision,
}
