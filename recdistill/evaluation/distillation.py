"""What distillation bought: how much of the teacher's lead, whose lists, and for which items and users.

Lists of two models are compared row by row, so both must be of the same users (`Ranked.user`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from recdistill.evaluation import popularity_bias as bias
from recdistill.evaluation.accuracy import METRICS, ndcg
from recdistill.evaluation.catalogue import Items, Users
from recdistill.evaluation.measures import Ranked, Values, lifts

Array = np.ndarray
PERSISTENCE = 0.9  # of rank-biased overlap: the first ten places carry about 86 % of its weight


def gap_closed(student: Array, scratch: Array, teacher: Array) -> float | None:
    """(student - scratch) / (teacher - scratch) of a metric's means over users.

    None where the teacher is not better than scratch, or not by two standard errors of the paired difference.

    Shapes:
        student, scratch, teacher: [n] values of the same users.
    """
    gap = teacher - scratch
    error = gap.std(ddof=1) / np.sqrt(len(gap)) if len(gap) > 1 else np.inf
    if gap.mean() <= 0 or gap.mean() < 2 * error:
        return None
    return float((student.mean() - scratch.mean()) / gap.mean())


def common_depths(one: Ranked, other: Ranked, k: int) -> tuple[Array, Array]:
    """Row and depth [c] of every item that two models' first k places of a user have in common.

    The depth is the later of its two places, from 1: from there on it belongs to the overlap.
    """
    pairs = []
    mine, theirs = (np.where(bias.inside(some.item, some.length), some.item, -1)[:, :k] for some in (one, other))
    for place in range(theirs.shape[1]):
        wanted = theirs[:, place, None]
        row, found = ((mine == wanted) & (wanted >= 0)).nonzero()
        pairs.append((row, np.maximum(found, place) + 1))
    rows, depths = zip(*pairs, strict=True)
    return np.concatenate(rows), np.concatenate(depths)


def overlap(one: Ranked, other: Ranked, k: int) -> float:
    """Mean over users of the common items of two models' first k, over k."""
    row, _ = common_depths(one, other, k)
    return len(row) / (k * len(one.user))


def rank_biased_overlap(one: Ranked, other: Ranked, k: int, p: float = PERSISTENCE) -> float | None:
    """Mean over users of rank-biased overlap of the first k, extrapolated: agreement at the end is taken to go on.

    RBO = A_L p^L + (1 - p) / p * sum_{d <= L} A_d p^d, A_d = common items of the first d / d; 1 = the same order. L is
    the length of the user's lists, at most k; users with an empty list are left out. Source: Webber et al., TOIS 2010,
    equation 32.

    Returns:
        None without users.

    Raises:
        ValueError: the two lists of a user differ in length: they are not of the same candidates.
    """
    length = np.minimum(one.length, k)
    if (length != np.minimum(other.length, k)).any():
        raise ValueError("rank-biased overlap compares lists of the same candidates, hence of the same length")
    row, depth = common_depths(one, other, k)
    joined = np.zeros((len(length), k))
    np.add.at(joined, (row, depth - 1), 1)
    d = np.arange(1, k + 1)
    weight = p**d
    agreement = joined.cumsum(1) / d
    inside = d <= length[:, None]
    summed = (agreement * weight * inside).sum(1) * (1 - p) / p
    has = length > 0
    last = agreement[np.arange(len(length)), length - 1] * p ** length.astype(np.float64)
    return bias.mean(np.where(has, last + summed, np.nan))


def gain_shares(student: Ranked, scratch: Ranked, items: Items, k: int) -> Values:
    """Share of the student's gain in hits over scratch that falls on each item group, by the suffix of its key.

    A family of groups sums to 1; a share can be negative or above 1. None where the student has no more hits.
    """
    more = _hits_by_item(student, items, k) - _hits_by_item(scratch, items, k)
    gain = int(more.sum())
    return {name: int(more[part].sum()) / gain if gain > 0 else None for name, part in items.strata().items()}


def _hits_by_item(ranked: Ranked, items: Items, k: int) -> Array:
    return np.bincount(ranked.item[:, :k][ranked.hit[:, :k]], minlength=len(items.popularity))


def against_scratch(student: Ranked, scratch: Ranked, items: Items, cutoffs: Sequence[int]) -> Values:
    """Where the gain in hits falls, and how many users have a better, worse and equal NDCG than with scratch."""
    found: Values = {}
    for k in cutoffs:
        found |= {f"gain_share@{k}/{name}": share for name, share in gain_shares(student, scratch, items, k).items()}
        more = ndcg(student.hit[:, :k], student.n_relevant) - ndcg(scratch.hit[:, :k], scratch.n_relevant)
        counts = {"better": more > 0, "worse": more < 0, "equal": more == 0}
        found |= {f"users_{name}@{k}": int(users.sum()) for name, users in counts.items()}
    return found


def against_teacher(student: Ranked, teacher: Ranked, cutoffs: Sequence[int]) -> Values:
    """How much the student's lists are the teacher's."""
    found: Values = {}
    for k in cutoffs:
        found[f"overlap@{k}"] = overlap(student, teacher, k)
        found[f"rbo@{k}"] = rank_biased_overlap(student, teacher, k)
    return found


def lifts_over_teacher(model: Ranked, teacher: Ranked, items: Items, users: Users, cutoffs: Sequence[int]) -> Values:
    """Popularity lift of a model's lists over the teacher's, overall and for each group of users."""
    found: Values = {}
    groups = users.splits(model.user)
    for k in cutoffs:
        own, base = (
            bias.list_means(items.popularity, some.item[:, :k], np.minimum(some.length, k)) for some in (model, teacher)
        )
        found |= lifts(f"poplift_vs_teacher@{k}", own, base, groups)
    return found


def distillation(
    rankings: Mapping[str, Ranked],
    per_user: Mapping[str, Mapping[str, Array]],
    items: Items,
    users: Users,
    cutoffs: Sequence[int],
) -> tuple[dict[str, Values], dict[str, object]]:
    """What is told of the student beside its teacher and scratch on test; with several teachers only of scratch.

    Args:
        rankings: by model.
        per_user: by model, metric to [n] values.
        items: the catalogue.
        users: all users.
        cutoffs: list lengths.

    Returns:
        By model what joins its metrics; and what joins the `distillation` section of results.json.
    """
    student, teacher, scratch = (rankings.get(name) for name in ("student", "teacher", "scratch"))
    more: dict[str, Values] = {}
    found: dict[str, object] = {}
    if student is None:
        return more, found
    if scratch is not None:
        found |= against_scratch(student, scratch, items, cutoffs)
    if teacher is not None:
        found |= against_teacher(student, teacher, cutoffs)
        more = {
            name: lifts_over_teacher(one, teacher, items, users, cutoffs)
            for name, one in rankings.items()
            if name != "teacher"
        }
    if teacher is not None and scratch is not None:
        found["gap_closed"] = {
            f"test/{name}": gap_closed(value, per_user["scratch"][name], per_user["teacher"][name])
            for name, value in per_user["student"].items()
            if name.partition("@")[0] in METRICS
        }
    return more, found
