"""Popularity metrics, from lists and training counts only."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def list_means(popularity: Array, item: Array, length: Array) -> Array:
    """Mean popularity of each list; NaN for an empty one.

    Shapes:
        popularity: [I]. item: [n, K]. length: [n], valid entries. Returns: [n] float64.
    """
    inside = np.arange(item.shape[1]) < length[:, None]
    total = (popularity[item] * inside).sum(1, dtype=np.float64)
    mean: Array = np.divide(total, length, out=np.full(len(length), np.nan), where=length > 0)
    return mean


def popularity_lift(recommended: Array, profile: Array) -> float | None:
    """(GAP_q - GAP_p) / GAP_p: a ratio of means over users, not a mean of ratios; positive = amplified popularity.

    Source: Abdollahpouri et al., RecSys 2020. Users with an empty list or profile are dropped from both means.

    Shapes:
        recommended, profile: [n] mean popularity of each user's list and of the training items.
        Returns: None if nobody is left.

    Example:
        >>> round(popularity_lift(np.array([0.55, 0.7, 0.45]), np.array([0.7, 0.25, 0.45])), 6)
        0.214286
    """
    both = ~np.isnan(recommended) & ~np.isnan(profile)
    if not both.any() or profile[both].mean() == 0:
        return None
    return float(recommended[both].mean() / profile[both].mean() - 1)


def group_recall(hit_in_group: Array, relevant_in_group: Array) -> float | None:
    """Macro recall inside a popularity group: mean over users who have a relevant item in it; None without such users.

    Shapes:
        hit_in_group, relevant_in_group: [n] int.
    """
    has = relevant_in_group > 0
    return float((hit_in_group[has] / relevant_in_group[has]).mean()) if has.any() else None
