"""Popularity metrics, from lists and training counts only; a value that does not exist is None, never 0."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def inside(item: Array, length: Array) -> Array:
    """[n, K] bool: which entries of padded lists are items."""
    mask: Array = (np.arange(item.shape[1])[:, None] < length).T  # column by column: `measure` has the lists so too
    return mask


def list_means(value: Array, item: Array, length: Array) -> Array:
    """Mean over each list of a value per item; NaN for an empty list.

    Shapes:
        value: [I]. item: [n, K]. length: [n], valid entries. Returns: [n] float64.
    """
    total = (value[item] * inside(item, length)).sum(1, dtype=np.float64)
    mean: Array = np.divide(total, length, out=np.full(len(length), np.nan), where=length > 0)
    return mean


def mean(value: Array) -> float | None:
    """Mean of what is not NaN; None where nothing is left."""
    there = value[~np.isnan(value)]
    return float(there.mean()) if len(there) else None


def value_or_none(value: float) -> float | None:
    """A value as Python's own; None for NaN."""
    return None if np.isnan(value) else float(value)


def popularity_lift(recommended: Array, base: Array) -> float | None:
    """(GAP_q - GAP_p) / GAP_p: a ratio of means over users, not a mean of ratios; positive = amplified popularity.

    Source: Abdollahpouri et al., RecSys 2020. Users with an empty list or profile are dropped from both means.

    Shapes:
        recommended: [n] mean popularity of each user's list. base: [n] that of the training items, or of another
        model's list. Returns: None if nobody is left.

    Example:
        >>> round(popularity_lift(np.array([0.55, 0.7, 0.45]), np.array([0.7, 0.25, 0.45])), 6)
        0.214286
    """
    lacking = np.isnan(recommended) | np.isnan(base)
    if lacking.any():
        recommended, base = recommended[~lacking], base[~lacking]
    expected = base.mean() if len(base) else 0
    return None if expected == 0 else float(recommended.mean() / expected - 1)


def frequencies(item: Array, length: Array, n_items: int) -> Array:
    """[I] int64: in how many lists each item stands."""
    shown = np.where(inside(item, length), item, n_items).ravel("K")  # what lies behind a list's end counts as no item
    return np.bincount(shown, minlength=n_items + 1)[:n_items]


def tail_counts(tail: Array, item: Array, length: Array) -> Array:
    """[n] float64: items of each list that lie in the long tail (`tail`: [I] bool); NaN for an empty list."""
    count = (tail[item] & inside(item, length)).sum(1)
    return np.where(length > 0, count, np.nan)


def coverage(frequency: Array, part: Array | None = None) -> float | None:
    """Share of the catalogue, or of a part of it ([I] bool), that stands in any list; None for an empty part."""
    shown = frequency > 0 if part is None else (frequency > 0) & part
    size = len(frequency) if part is None else np.count_nonzero(part)
    return np.count_nonzero(shown) / size if size else None


def gini(frequency: Array) -> float | None:
    """Gini index of exposure: sum_j (2j - n - 1) x_j / (n sum x), x rising; 0 = equal, items never shown included.

    None without exposure; 0 for one item. Times n / (n - 1) it would reach 1.

    Example:
        >>> round(gini(np.array([2, 2, 2, 0, 0])), 6)
        0.4
    """
    total, n = frequency.sum(), len(frequency)
    if total == 0:
        return None
    return float((2 * np.arange(1, n + 1) - n - 1) @ np.sort(frequency) / (n * total))


def entropy(frequency: Array) -> float | None:
    """-sum p log p of exposure shares, in nats, with 0 log 0 = 0; None without exposure."""
    if frequency.sum() == 0:
        return None
    share = frequency[frequency > 0] / frequency.sum()
    return float(-(share * np.log(share)).sum())


def divergence_from_uniform(entropy: float | None, n_items: int) -> float | None:
    """Kullback-Leibler divergence of exposure from equal exposure: log I - entropy; None without exposure."""
    return None if entropy is None else float(np.log(n_items) - entropy)


def exposure(frequency: Array, part: Array) -> float | None:
    """Share of all places in lists that a part of the catalogue takes; None for an empty part or without exposure.

    Shapes:
        frequency: [I]. part: [I] bool.
    """
    total = frequency.sum()
    return float((frequency * part).sum() / total) if total > 0 and part.any() else None


def group_mean(value: Array, relevant_in_group: Array) -> Array:
    """Mean of a value over the users who have a relevant item in a popularity group; NaN without such users.

    Shapes:
        value: [..., n], 0 for the other users. relevant_in_group: [..., n] int. Returns: [...] float64.
    """
    return _over(value.sum(-1), (relevant_in_group > 0).sum(-1))


def group_recall(hit_in_group: Array, relevant_in_group: Array) -> Array:
    """Macro recall inside a popularity group: mean over users who have a relevant item in it; NaN without such users.

    Shapes:
        hit_in_group, relevant_in_group: [..., n] int. Returns: [...] float64.
    """
    return group_mean(hit_in_group / np.maximum(relevant_in_group, 1), relevant_in_group)


def group_recall_micro(hit_in_group: Array, relevant_in_group: Array) -> Array:
    """All hits in a group / all relevant items in it; shapes and NaN as in `group_recall`."""
    return _over(hit_in_group.sum(-1), relevant_in_group.sum(-1))


def group_recall_all_users(hit_in_group: Array, relevant_in_group: Array) -> Array:
    """As the authors of UnKD average: users without a relevant item in the group count 0; otherwise `group_recall`."""
    mean: Array = group_recall(hit_in_group, relevant_in_group) * (relevant_in_group > 0).mean(-1)
    return mean


def _over(total: Array, count: Array) -> Array:
    quotient: Array = np.divide(total, count, out=np.full(np.shape(count), np.nan), where=count > 0)
    return quotient


def popularity_rank_correlation_by_user(popularity: Array, row: Array, rank: Array) -> float | None:
    """PRU: minus the mean over users of Spearman's correlation of popularity and rank of the user's relevant items.

    Positive: of the relevant items the popular ones stand higher. Users whose correlation does not exist (one item,
    equal popularities) are left out. Source: Zhu et al., WSDM 2021.

    Shapes:
        popularity, rank: [m] of each relevant item. row: [m] its user.

    Example:
        >>> popularity_rank_correlation_by_user(np.array([9, 5, 2]), np.zeros(3, int), np.array([1, 4, 3]))
        0.5
    """
    found = mean(_spearman(row, popularity, rank))
    return None if found is None else -found


def popularity_rank_correlation_by_item(popularity: Array, item: Array, rank: Array) -> float | None:
    """PRI: minus Spearman's correlation, over items, of popularity and mean rank where the item is relevant.

    Source: Zhu et al., WSDM 2021.

    Shapes:
        popularity: [I]. item, rank: [m] of each relevant item.
    """
    count = np.bincount(item, minlength=len(popularity))
    relevant = count > 0
    mean_rank = np.bincount(item, rank, minlength=len(popularity))[relevant] / count[relevant]
    found = mean(_spearman(np.zeros(len(mean_rank), np.int64), popularity[relevant], mean_rank))
    return None if found is None else -found


def _spearman(row: Array, one: Array, other: Array) -> Array:
    """[rows] Spearman's correlation within each row of `one` and `other` [m]; NaN where it does not exist."""
    count = np.bincount(row)
    centred = [_average_ranks(row, value) - (count[row] + 1) / 2 for value in (one, other)]
    product = np.bincount(row, centred[0] * centred[1])
    norm = np.sqrt(np.bincount(row, centred[0] ** 2) * np.bincount(row, centred[1] ** 2))
    correlation: Array = np.divide(product, norm, out=np.full(len(count), np.nan), where=norm > 0)
    return correlation


def _average_ranks(row: Array, value: Array) -> Array:
    """[m] rank of each value within its row, from 1; equal values share their mean rank."""
    if not len(row):
        return np.zeros(0)
    order = np.lexsort((value, row))
    ordered_row, ordered = row[order], value[order]
    new = np.r_[True, (np.diff(ordered) != 0) | (np.diff(ordered_row) != 0)]
    run = new.cumsum() - 1
    first = new.nonzero()[0]
    last = np.r_[first[1:], len(row)] - 1
    start = np.searchsorted(ordered_row, ordered_row)
    ranks = np.empty(len(row))
    ranks[order] = (first[run] + last[run]) / 2 - start + 1
    return ranks
