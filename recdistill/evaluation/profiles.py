"""The accuracy formulas of other libraries, to see what a stored ranking is worth by their definitions.

A profile changes formulas and averages, never the ranking: which items were candidates was settled when the run ranked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from recdistill.evaluation.accuracy import METRICS, discounts

Array = np.ndarray
Formula = Callable[[Array, Array], Array]
"""(hit [n, k] bool, relevant [n]) to [n] values."""
ListFormula = Callable[[Array, Array], Array]
"""(hit [n, k] bool, length [n] of the lists, at most k) to [n] values."""
Average = Callable[[Array, Array, int], float]
"""(values [n], relevant [n] cut at k, number of all users) to one number."""


def capped_recall(hit: Array, relevant: Array) -> Array:
    """Hits / min(k, relevant)."""
    value: Array = hit.sum(1) / np.minimum(relevant, hit.shape[1])
    return value


def precision_of_list(hit: Array, length: Array) -> Array:
    """Hits / length of the list; 0 for an empty one."""
    value: Array = hit.sum(1) / np.maximum(length, 1)
    return value


def ndcg_of_all_places(hit: Array, relevant: Array) -> Array:
    """DCG over that of k hits, however few items are relevant."""
    discount = discounts(hit.shape[1])
    value: Array = (hit * discount).sum(1) / discount.sum()
    return value


def ndcg_from_the_third_place(hit: Array, relevant: Array) -> Array:
    """DCG with discount 1 / max(1, log2(rank)), which leaves the first two places whole, over that of the best list."""
    discount = 1 / np.maximum(np.log2(np.arange(1, hit.shape[1] + 1)), 1)
    value: Array = (hit * discount).sum(1) / discount.cumsum()[np.minimum(relevant, hit.shape[1]) - 1]
    return value


def over_users(value: Array, reachable: Array, n_users: int) -> float:
    """Mean over users with a relevant item."""
    return float(value.mean())


def over_all_users(value: Array, reachable: Array, n_users: int) -> float:
    """Mean over all users; those without a relevant item count 0."""
    return float(value.sum() / n_users)


def pooled(value: Array, reachable: Array, n_users: int) -> float:
    """All hits over all reachable ones: a mean weighted by min(k, relevant)."""
    return float((value * reachable).sum() / reachable.sum())


@dataclass(frozen=True)
class Profile:
    """One library's conventions.

    Attributes:
        formulas: by metric, where they differ from recdistill's; None where the library has no such metric.
        list_formulas: the same where a formula needs to know how long a list is.
        averages: by metric, where they differ from `average`.
        average: of the other metrics.
        notes: what differs and what cannot be changed, in sentences.
    """

    notes: tuple[str, ...]
    formulas: Mapping[str, Formula | None] = field(default_factory=dict)
    list_formulas: Mapping[str, ListFormula] = field(default_factory=dict)
    averages: Mapping[str, Average] = field(default_factory=dict)
    average: Average = over_users

    def value(self, metric: str, hit: Array, relevant: Array, length: Array, n_users: int) -> float | None:
        """One accuracy metric at k = hit.shape[1]; None where the library has none of that name.

        Shapes:
            hit: [n, k] bool. relevant, length: [n]; of `length` only `list_formulas` make use.
        """
        if metric in self.list_formulas:
            values = self.list_formulas[metric](hit, length)
        else:
            formula = self.formulas.get(metric, METRICS[metric])
            if formula is None:
                return None
            values = formula(hit, relevant)
        average = self.averages.get(metric, self.average)
        return average(values, np.minimum(relevant, hit.shape[1]), n_users)


RECDISTILL = Profile(notes=())
PROFILES = {
    "recbole": Profile(notes=("recbole: recdistill's formulas and averages are the same.",)),
    "lenskit": Profile(
        formulas={"recall": capped_recall, "ndcg": ndcg_from_the_third_place},
        list_formulas={"precision": precision_of_list},
        notes=(
            "lenskit: recall = hits / min(k, relevant); precision = hits / length of the list; the discount of ndcg is "
            "1 / max(1, log2(rank)).",
            "Not changed: the candidates, which LensKit leaves to its user (here: without train and valid items).",
        ),
    ),
    "rectools": Profile(
        formulas={"ndcg": ndcg_of_all_places},
        notes=(
            "rectools: the ideal of ndcg has hits at all k places (its default, divide_by_achievable=False).",
            "Not changed: the candidates, which RecTools filters by the data set it is given (here: without train and "
            "valid items).",
        ),
    ),
    "implicit": Profile(
        formulas={"recall": None, "precision": capped_recall},
        averages={"precision": pooled},
        notes=(
            "implicit: precision = all hits / sum over users of min(k, relevant); it has no recall.",
            "Not changed: the candidates; implicit masks the matrix it is given (here: train and valid items).",
        ),
    ),
    "kds": Profile(
        formulas={"precision": None},
        average=over_all_users,
        notes=(
            "kds: means are over all users, and those without a relevant item count 0; it has no precision.",
            "Not changed: the candidates; KDs leaves validation items in the test lists, these lists do not have them.",
        ),
    ),
}
