"""What a table of interactions looks like: size, skew, histories, popularity groups, time, and what is odd about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from recdistill.dataset.popularity import partitioned
from recdistill.dataset.table import Pairs, RawTable

MOST = 0.9  # share of users from which a pattern is no accident
FEW = 10  # users below which no pattern is looked for


@dataclass(frozen=True)
class Spread:
    """Distribution of counts: smallest, quantiles (interpolated linearly), largest, mean."""

    min: float
    q05: float
    q25: float
    median: float
    q75: float
    q95: float
    max: float
    mean: float


@dataclass(frozen=True)
class Group:
    """A popularity group: its items, their interactions, and how many users its items have."""

    n_items: int
    n_interactions: int
    least_popular: int
    most_popular: int


@dataclass(frozen=True)
class Description:
    """Statistics of the distinct (user, item) pairs of a table.

    Attributes:
        n_users, n_items: those that occur. n_interactions: distinct pairs. n_rows: rows of the table.
        density: pairs / (users * items).
        gini: Gini coefficient of item popularity: 0 if all items have equally many users.
        top20_share: share of the interactions that falls on the most popular fifth of the items.
        history: distinct items of a user. popularity: distinct users of an item.
        groups: equal-mass popularity groups, head first.
        time: first and last moment, ISO 8601 in UTC, or None.
        warnings: what a reader of results on these data should know.
    """

    n_users: int
    n_items: int
    n_interactions: int
    n_rows: int
    density: float
    gini: float
    top20_share: float
    history: Spread
    popularity: Spread
    groups: tuple[Group, ...]
    time: tuple[str, str] | None
    warnings: tuple[str, ...]


def describe(table: RawTable, raw: Pairs, kept: Pairs | None = None, *, groups: int = 2) -> Description:
    """Describe a table.

    Args:
        table: as read, in the order of its rows, where the traps are seen.
        raw: its distinct pairs.
        kept: what a filter leaves of them (None: all).
        groups: number of popularity groups; fewer if there are fewer items.
    """
    pairs = raw if kept is None else kept
    history, popularity = np.bincount(pairs.user), np.bincount(pairs.item)
    total = len(pairs.user)
    top = -(-len(popularity) // 5)  # rounded up
    return Description(
        n_users=len(history),
        n_items=len(popularity),
        n_interactions=total,
        n_rows=len(table),
        density=total / (len(history) * len(popularity)),
        gini=gini(popularity),
        top20_share=float(np.sort(popularity)[-top:].sum() / total),
        history=spread(history),
        popularity=spread(popularity),
        groups=_groups(popularity, min(groups, len(popularity))),
        time=None if pairs.timestamp is None else (_moment(pairs.timestamp.min()), _moment(pairs.timestamp.max())),
        warnings=tuple(_warnings(table, raw, history, len(popularity))),
    )


def gini(count: np.ndarray) -> float:
    """Gini coefficient of non-negative counts: mean absolute difference over twice the mean.

    Shapes:
        count: [n], not all 0.

    Example:
        >>> gini(np.array([1, 1, 1])), gini(np.array([0, 0, 3]))
        (0.0, 0.6666666666666666)
    """
    ordered = np.sort(count).astype(np.float64)
    rank = np.arange(1, len(ordered) + 1)
    return float((2 * rank - len(ordered) - 1) @ ordered / (len(ordered) * ordered.sum()))


def spread(count: np.ndarray) -> Spread:
    """The distribution of counts.

    Shapes:
        count: [n], at least one.
    """
    least, q05, q25, median, q75, q95, most = np.quantile(count, [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1]).tolist()
    return Spread(least, q05, q25, median, q75, q95, most, float(count.mean()))


def _groups(popularity: np.ndarray, groups: int) -> tuple[Group, ...]:
    group = partitioned(popularity, groups)
    inside = [popularity[group == number] for number in range(groups)]
    return tuple(Group(len(one), int(one.sum()), int(one.min()), int(one.max())) for one in inside)


def _moment(stamp: int) -> str:
    """A time stamp as date and time; its unit is told by its size, since 10^11 seconds are 3,000 years."""
    per_second = next((10**power for power in (0, 3, 6) if abs(stamp) < 10 ** (11 + power)), 10**9)
    return str(np.int64(stamp // per_second).astype("datetime64[s]"))


def _warnings(table: RawTable, raw: Pairs, history: np.ndarray, n_items: int) -> list[str]:
    found = []
    if repeated := len(table) - len(raw.user):
        found.append(f"{repeated:,} rows repeat a pair of user and item; each pair counts once")
    if full := int((history >= n_items).sum()):
        found.append(f"{full:,} users have every item: they have no negatives, and nothing can be recommended to them")
    if len(raw.user_ids) < FEW:
        return found
    order = np.argsort(table.user.code, kind="stable")  # the rows of each user, in the order of the file
    user = table.user.code[order]
    starts = np.flatnonzero(np.r_[True, user[1:] != user[:-1]])
    count = np.diff(np.r_[starts, len(user)])
    if table.timestamp is None and table.part is None:
        found += _sorted_warning(raw, table.item.names, table.item.code[order], starts, count)
    first = table.item.names[table.item.code[order[starts]]]
    if (share := _share(_number(name) == n - 1 for name, n in zip(first, count, strict=True))) >= MOST:
        found.append(
            f"the first item of {share:.0%} of the users equals the number of items that follow: it looks like a "
            "count, not an item; CiteULike's users.dat is read with dataset.format=users.dat"
        )
    named = table.user.names[user[starts]]
    if (share := _share((u := _number(name)) > 1 and n % u == 0 for name, n in zip(named, count, strict=True))) >= MOST:
        found.append(
            f"the ids of {share:.0%} of the users divide the numbers of their items: they look like counts, not users; "
            "CiteULike's users.dat is read with dataset.format=users.dat"
        )
    return found


def _sorted_warning(
    raw: Pairs, names: np.ndarray, item: np.ndarray, starts: np.ndarray, count: np.ndarray
) -> list[str]:
    """Say so if users' items stand in the order of their ids: then an order in the file is none in time."""
    place = {name: number for number, name in enumerate(raw.item_ids)}
    rank = np.array([place[name] for name in names])[item]
    falls = np.r_[False, rank[1:] < rank[:-1]]
    falls[starts] = False  # the first item of a user follows nobody's
    falling = np.add.reduceat(falls, starts, dtype=np.int64)
    long = count >= 3
    share = float((falling[long] == 0).mean()) if long.any() else 0.0
    if share < MOST:
        return []
    return [
        f"the items of {share:.0%} of the users stand in the order of their ids: a split by position would be a split "
        "by id, not by time; split at random"
    ]


def _number(text: str) -> int:
    """A whole number that could be a count, or 0."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _share(claims: Iterable[bool]) -> float:
    held = list(claims)
    return sum(held) / len(held)
