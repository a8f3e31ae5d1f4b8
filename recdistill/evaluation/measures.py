"""All metrics of one model on one split, from its lists and the ranks of held-out items.

Pure numpy: a live run and a run folder that is read again go through the same function.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from recdistill.evaluation import popularity_bias as bias
from recdistill.evaluation.accuracy import METRICS, discounts
from recdistill.evaluation.catalogue import Items, Users

Array = np.ndarray
Values = dict[str, float | None]


@dataclass(frozen=True)
class Ranked:
    """What one model did with the users of one split who have held-out items.

    Shapes:
        user: [n] int64, rising. item: [n, K] int64 lists, best first. length: [n], valid entries. hit: [n, K] bool.
        row, relevant, rank: [m] of every held-out item: its place in `user`, the item, and its rank among all unseen
        items; `rank` is None where only the lists are known.
    """

    user: Array
    item: Array
    length: Array
    hit: Array
    row: Array
    relevant: Array
    rank: Array | None

    @cached_property
    def n_relevant(self) -> Array:
        """[n] held-out items of each user."""
        return np.bincount(self.row, minlength=len(self.user))


def hits(row: Array, rank: Array, n: int, k: int) -> Array:
    """[n, k] bool: where the held-out items stand, from their ranks [m] and rows [m]."""
    hit = np.zeros((n, k), bool)
    near = rank <= k
    hit[row[near], rank[near] - 1] = True
    return hit


def measure(
    ranked: Ranked, items: Items, users: Users, cutoffs: Sequence[int], metrics: Sequence[str]
) -> tuple[Values, dict[str, Array]]:
    """Everything that is told of one model on one split.

    Args:
        ranked: lists at least as long as the largest cut-off or the catalogue.
        items: the catalogue.
        users: all users.
        cutoffs: list lengths.
        metrics: names of accuracy metrics.

    Returns:
        Values by `METRIC@K`, with `/group=G` or `/items=head|mid|tail` behind it for an item group and `/users=NAME`
        for a user group; `pru` and `pri` where ranks are known. And [n] float64 per user: accuracy, and `arp@K`.
    """
    overall: Values = {}
    per_user: dict[str, Array] = {}
    relevant = [_per_group(split, ranked.row, ranked.relevant, len(ranked.user)) for split in items.splits()]
    groups, profile = users.splits(ranked.user), users.profile[ranked.user]
    hit, item = np.asfortranarray(ranked.hit), np.asfortranarray(ranked.item)  # sums over places are sums of columns
    for k in cutoffs:
        accuracy = {f"{name}@{k}": METRICS[name](hit[:, :k], ranked.n_relevant) for name in metrics}
        overall |= {name: float(value.mean()) for name, value in accuracy.items()}
        lists = item[:, :k], np.minimum(ranked.length, k)
        recommended = bias.list_means(items.popularity, *lists)
        per_user |= accuracy | {f"arp@{k}": recommended}
        overall |= lifts(f"poplift@{k}", recommended, profile, groups)
        overall |= _of_lists(*lists, items, recommended, k)
        overall |= _of_groups(ranked, items, relevant, k)
    if ranked.rank is not None:
        overall["pru"] = bias.popularity_rank_correlation_by_user(
            items.popularity[ranked.relevant], ranked.row, ranked.rank
        )
        overall["pri"] = bias.popularity_rank_correlation_by_item(items.popularity, ranked.relevant, ranked.rank)
    return overall, per_user


def lifts(name: str, recommended: Array, base: Array, splits: Sequence[tuple[list[str], Array]]) -> Values:
    """Popularity lift of lists over a base [n], for all of some users and for each group of both their splits."""
    found = {name: bias.popularity_lift(recommended, base)}
    known = ~(np.isnan(recommended) | np.isnan(base))
    for groups, place in splits:
        counts = known & (place >= 0)
        shown, expected = (
            np.bincount(place[counts], value[counts], minlength=len(groups)).tolist() for value in (recommended, base)
        )
        found |= {
            f"{name}/{group}": None if under == 0 else over / under - 1
            for group, over, under in zip(groups, shown, expected, strict=True)
        }
    return found


def _of_lists(item: Array, length: Array, items: Items, recommended: Array, k: int) -> Values:
    """Catalogue-wide metrics of lists cut at k; the long tail is all but the head fifth of the items."""
    tail = items.tail > 0
    frequency = bias.frequencies(item, length, len(items.popularity))
    in_tail = bias.tail_counts(tail, item, length)
    arp, spread = bias.mean(recommended), bias.entropy(frequency)
    return {
        f"arp@{k}": arp,
        f"arp_relative@{k}": None if arp is None else arp / float(items.popularity.mean()),
        f"aplt@{k}": bias.mean(in_tail / np.maximum(length, 1)),
        f"aclt@{k}": bias.mean(in_tail),
        f"coverage@{k}": bias.coverage(frequency),
        f"tail_coverage@{k}": bias.coverage(frequency, tail),
        f"gini@{k}": bias.gini(frequency),
        f"entropy@{k}": spread,
        f"kl_uniform@{k}": bias.divergence_from_uniform(spread, len(frequency)),
    } | {f"exposure@{k}/{name}": bias.exposure(frequency, part) for name, part in items.strata().items()}


def _of_groups(ranked: Ranked, items: Items, relevant: Sequence[Array], k: int) -> Values:
    """Accuracy inside each item group: only its hits and relevant items count, at their places in the whole list.

    Args:
        ranked: the lists.
        items: the catalogue.
        relevant: per split of the catalogue [groups, n] relevant items of each user.
        k: the cut-off.
    """
    n = len(ranked.user)
    row, place = np.divmod(np.flatnonzero(ranked.hit[:, :k]), min(k, ranked.hit.shape[1]))
    item = ranked.item[row, place]
    discount = discounts(k)
    best = discount.cumsum()
    found: Values = {}
    for split, wanted in zip(items.splits(), relevant, strict=True):
        hit, gain = _per_group(split, row, item, n), _per_group(split, row, item, n, discount[place])
        values = {
            "recall": bias.group_recall(hit, wanted),
            "recall_micro": bias.group_recall_micro(hit, wanted),
            "recall_all_users": bias.group_recall_all_users(hit, wanted),
            "ndcg": bias.group_mean(gain / best[wanted.clip(1, k) - 1], wanted),
            "precision": np.where(wanted.any(1), hit.mean(1) / k, np.nan),
        }
        for g, name in enumerate(split[0]):
            found |= {f"{metric}@{k}/{name}": bias.value_or_none(value[g]) for metric, value in values.items()}
    return found


def _per_group(split: tuple[list[str], Array], row: Array, item: Array, n: int, weight: Array | None = None) -> Array:
    """[groups, n] how many entries (row, item) lie in each group of items, or the sum of their weights."""
    names, group = split
    cell = np.multiply(group[item], n, dtype=np.int64) + row
    return np.bincount(cell, weight, minlength=len(names) * n).reshape(len(names), n)
