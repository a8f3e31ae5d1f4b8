"""Items and users as popularity metrics see them: training counts, and the groups that are made of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray
TAILS = ("head", "mid", "tail")
KINDS = ("niche", "diverse", "blockbuster")
BINS = 10


@dataclass(frozen=True)
class Items:
    """The catalogue.

    Shapes:
        popularity: [I] int64 distinct training users. group: [I] int8 groups of equal training mass, 0 = head (those
        of the distiller when it asks for as many). tail: [I] int8 place in `TAILS`, a split by numbers of items.
    """

    popularity: Array
    group: Array
    tail: Array

    @classmethod
    def of(cls, popularity: Array, group: Array) -> Items:
        """From training counts [I] and mass groups [I]."""
        return cls(popularity, group, head_mid_tail(popularity))

    def columns(self) -> dict[str, Array]:
        """As `items.parquet` holds them."""
        return {"popularity": self.popularity, "group": self.group, "tail": np.array(TAILS, object)[self.tail]}

    def strata(self) -> dict[str, Array]:
        """[I] bool of every item group, by the suffix of its keys: `group=0`, ..., `items=head`, ..."""
        return {name: place == n for names, place in self.splits() for n, name in enumerate(names)}

    def splits(self) -> list[tuple[list[str], Array]]:
        """Both splits into item groups: the suffixes of their keys, and the place of each item [I] among them."""
        mass = [f"group={g}" for g in range(int(self.group.max()) + 1)]
        return [(mass, self.group), ([f"items={name}" for name in TAILS], self.tail)]

    def shares(self, relevant: Array | None = None) -> dict[str, dict[str, float | None]]:
        """Of every item group: how many `items`, and its shares of `train` interactions and of `relevant` items [m]."""
        weights = {"train": self.popularity}
        if relevant is not None:
            weights["relevant"] = np.bincount(relevant, minlength=len(self.popularity))
        return {
            name: {"items": int(part.sum())}
            | {key: float(count[part].sum() / count.sum()) if part.any() else None for key, count in weights.items()}
            for name, part in self.strata().items()
        }


@dataclass(frozen=True)
class Users:
    """All users, by what they trained with.

    Shapes:
        n_train: [U] int64 training items. profile: [U] float64 mean popularity of them, NaN without any.
        kind: [U] int8 place in `KINDS`. bin: [U] int8 from 0 to 9. Both are -1 without training items.
    """

    n_train: Array
    profile: Array
    kind: Array
    bin: Array

    @classmethod
    def of(cls, items: Items, user: Array, item: Array, n_users: int) -> Users:
        """From training interactions (user, item: [n] int64)."""
        count = np.bincount(user, minlength=n_users)
        profile = profile_means(items.popularity, user, item, n_users)
        share = profile_means((items.tail == 0).astype(np.int64), user, item, n_users)
        return cls(count, profile, user_kinds(share, profile), user_bins(profile))

    def columns(self) -> dict[str, Array]:
        """As `users.parquet` holds them; masked or None where a user has no training items."""
        kind = np.array([*KINDS, None], object)[self.kind]
        absent = np.isnan(self.profile)
        return {
            "n_train": self.n_train,
            "profile": np.ma.array(self.profile, mask=absent),
            "kind": kind,
            "bin": np.ma.array(self.bin, mask=absent),
        }

    def splits(self, user: Array) -> list[tuple[list[str], Array]]:
        """Both splits into user groups: suffixes of their keys, and some users' places [n] among them (-1: none)."""
        kinds, bins = [f"users={name}" for name in KINDS], [f"users=bin{n}" for n in range(BINS)]
        return [(kinds, self.kind[user]), (bins, self.bin[user])]


def head_mid_tail(popularity: Array) -> Array:
    """[I] int8: 0 for the fifth of the items (rounded up) with the most training users, 2 for the last fifth, else 1.

    A split by numbers of items, so it does not depend on any distiller's groups. Equal counts go by item index.

    Example:
        >>> head_mid_tail(np.array([8, 6, 3, 2, 1])).tolist()
        [0, 1, 1, 1, 2]
    """
    n = len(popularity)
    tail = np.ones(n, np.int8)
    order = np.argsort(-popularity, kind="stable")
    tail[order[: -(-n // 5)]] = 0  # in integers: a rounded product can be off by one
    tail[order[n - n // 5 :]] = 2
    return tail


def profile_means(value: Array, user: Array, item: Array, n_users: int) -> Array:
    """Mean over each user's training items of a value per item; NaN for a user without any.

    Shapes:
        value: [I]. user, item: [n] training interactions. Returns: [U] float64.
    """
    count = np.bincount(user, minlength=n_users)
    total = np.bincount(user, value[item].astype(np.float64), minlength=n_users)
    mean: Array = np.divide(total, count, out=np.full(n_users, np.nan), where=count > 0)
    return mean


def user_kinds(share: Array, profile: Array) -> Array:
    """[U] int8: 0 for the fifth of the users with the smallest share of head items, 2 for the largest, else 1.

    Equal shares go by mean profile popularity, then by user index. Users without a profile are -1.
    Source: Abdollahpouri et al., RMSE 2019 (niche, diverse, blockbuster).

    Shapes:
        share: [U] share of head items in the profile. profile: [U] mean popularity; both NaN without a profile.
    """
    order = np.lexsort((profile, share))[: int((~np.isnan(profile)).sum())]  # NaN sorts last
    kind = np.full(len(share), -1, np.int8)
    fifth = len(order) // 5
    kind[order] = 1
    kind[order[:fifth]] = 0
    kind[order[len(order) - fifth :]] = 2
    return kind


def user_bins(profile: Array) -> Array:
    """[U] int8: ten bins of equally many users by mean profile popularity, 0 = least popular; -1 without a profile.

    Source: Abdollahpouri et al., RecSys 2020.
    """
    order = np.argsort(profile, kind="stable")[: int((~np.isnan(profile)).sum())]
    bins = np.full(len(profile), -1, np.int8)
    bins[order] = np.arange(len(order)) * BINS // max(len(order), 1)
    return bins
