"""The values that flow between stages: frozen dataclasses with named fields and stated shapes.

Letters: `U` users, `I` items, `B` rows, `N` negatives, `D` stored depth, `G` popularity groups, `K` cut-off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recdistill.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

SCORE_BYTES = 1 << 26  # of gathered item vectors in `SoftLabels.score_at`


@dataclass(frozen=True)
class Interactions:
    """Distinct (user, item) pairs, sorted by user and then item.

    Shapes:
        user, item: [n] int64 on the CPU. timestamp: [n] int64 seconds, or None.
    """

    user: Tensor
    item: Tensor
    n_users: int
    n_items: int
    timestamp: Tensor | None = None

    def __len__(self) -> int:
        """Number of interactions."""
        return len(self.user)

    def csr(self) -> tuple[Tensor, Tensor]:
        """Row pointers [U + 1] and items [n]: the items of user u are `item[start[u]:start[u + 1]]`."""
        count = self.user.bincount(minlength=self.n_users)
        start = count.new_zeros(self.n_users + 1)
        start[1:] = count.cumsum(0)
        return start, self.item

    def none(self) -> Interactions:
        """No interactions, between the same users and items."""
        return Interactions(self.user[:0], self.item[:0], self.n_users, self.n_items)

    def transposed(self) -> Interactions:
        """The same interactions with users and items exchanged, sorted by item and then user; without times."""
        order = (self.item * self.n_users + self.user).argsort()
        return Interactions(self.item[order], self.user[order], self.n_items, self.n_users)

    def popularity(self) -> Tensor:
        """[I] int64: distinct users of each item."""
        return self.item.bincount(minlength=self.n_items)


@dataclass(frozen=True)
class Dataset:
    """One data set, split; ids are contiguous from 0.

    Shapes:
        popularity: [I] int64, distinct training users. group: [I] int8, popularity group, 0 = head.
        user_ids: [U], item_ids: [I], the original ids as text.
    """

    name: str
    train: Interactions
    valid: Interactions
    test: Interactions
    popularity: Tensor
    group: Tensor
    user_ids: np.ndarray[Any, Any]
    item_ids: np.ndarray[Any, Any]
    fingerprint: str
    folder: Path

    def training_view(self) -> Interactions:
        """All that models and distillers may see: the training interactions."""
        return self.train


@dataclass(frozen=True)
class Batch:
    """Rows of one step.

    Shapes:
        user, positive: [B] int64. negative: [B, N] int64.
    """

    user: Tensor
    positive: Tensor
    negative: Tensor


@dataclass(frozen=True)
class GroupLists:
    """A request for one ranked list per popularity group beside the overall one.

    Args:
        groups: number of popularity groups, by equal summed training interactions.
        depth: how many items to keep per user and group.
        partition: how items are grouped; see `recdistill.dataset.popularity.popularity_groups`.
    """

    groups: int
    depth: int
    partition: str = "quantile"


@dataclass(frozen=True)
class SoftLabels:
    """What one checkpoint of one teacher hands over: ranked unseen items of every user.

    Shapes:
        item: [U, D] int32, best first, seen items excluded, padded with 0. length: [U] int32, valid entries of a row.
        score: [U, D] float32 raw scores. group_item: [U, G, Dg] int32 and group_length: [U, G] int32, or None.
        user_vectors: [U, d] and item_vectors: [I, d] float32, or None.

    `transposed` is the same with users and items exchanged (its `item` [I, D'] ranks users for every item, training
    users excluded), where a distiller asked for it by `user_depth`; without group lists and vectors.
    """

    item: Tensor
    length: Tensor
    score: Tensor
    teacher: str
    epoch: int
    key: str
    group_item: Tensor | None = None
    group_length: Tensor | None = None
    user_vectors: Tensor | None = None
    item_vectors: Tensor | None = None
    transposed: SoftLabels | None = None

    def to(self, device: torch.device, depth: int) -> SoftLabels:
        """The first `depth` places with their scores and the vectors on a device; without group lists and `transposed`.

        A row that ends earlier keeps its length.
        """
        return replace(
            self,
            item=self.item[:, :depth].to(device),
            score=self.score[:, :depth].to(device),
            length=self.length.clamp(max=depth).to(device),
            user_vectors=None if self.user_vectors is None else self.user_vectors.to(device),
            item_vectors=None if self.item_vectors is None else self.item_vectors.to(device),
            group_item=None,
            group_length=None,
            transposed=None,
        )

    def score_at(self, user: Tensor, item: Tensor) -> Tensor:
        """Teacher's raw scores of arbitrary items.

        Shapes:
            user: [B] int64. item: [B, M] int64. Returns: [B, M] float32, on the device of the vectors. Rows go in
            chunks: beside the result, at most SCORE_BYTES (or one row's vectors) are held.

        Raises:
            ConfigError: the teacher has no vectors to compute them from.
        """
        if self.user_vectors is None or self.item_vectors is None:
            raise ConfigError(
                f"teacher {self.teacher} has no vectors, so scores of arbitrary items are not stored",
                "scores outside the ranked list are computed from user and item vectors",
                "choose a teacher with vectors (teacher=mf, teacher=lightgcn) or a ranking distiller (distill=rrd)",
            )
        users, items = self.user_vectors, self.item_vectors
        chunk = max(1, SCORE_BYTES // (4 * items.shape[1] * max(item.shape[1], 1)))
        score = users.new_empty(item.shape)
        for first in range(0, len(user), chunk):
            rows = slice(first, first + chunk)
            score[rows] = (items[item[rows]] @ users[user[rows]].unsqueeze(2)).squeeze(2)
        return score


@dataclass(frozen=True)
class Trajectory:
    """Checkpoints of one teacher, early to late; the last one is the best model."""

    name: str
    checkpoints: tuple[SoftLabels, ...]

    @property
    def last(self) -> SoftLabels:
        """The teacher itself."""
        return self.checkpoints[-1]


@dataclass(frozen=True)
class Knowledge:
    """All teachers of a run; `live` builds a trainable copy of a teacher for methods that train it too."""

    teachers: Mapping[str, Trajectory]
    live: Mapping[str, Callable[[], Any]]

    def one(self) -> SoftLabels:
        """The soft labels of the only teacher.

        Raises:
            ConfigError: there are several teachers.
        """
        if len(self.teachers) != 1:
            raise ConfigError(
                f"this distiller takes one teacher, but got {len(self.teachers)}: {', '.join(self.teachers)}",
                "its loss is defined on a single teacher's ranking",
                "choose one teacher (teacher=mf) or a distiller for several teachers",
            )
        return next(iter(self.teachers.values())).last


@dataclass(frozen=True)
class TopK:
    """Ranked unseen items of some users.

    Shapes:
        user: [n] int64. item: [n, K] int64, best first. score: [n, K] float32. length: [n] int64, valid entries.
    """

    user: Tensor
    item: Tensor
    score: Tensor
    length: Tensor


@dataclass(frozen=True)
class EvalResult:
    """Metrics of one model on one split.

    `overall` is flat, `METRIC@K[/group=G]` to a number or None; `per_user` holds one float64 array [n] per metric
    for the users in `user` [n].
    """

    overall: Mapping[str, float | None]
    per_user: Mapping[str, np.ndarray[Any, Any]]
    user: np.ndarray[Any, Any]
    users_without_relevant: int
