"""The two interfaces of every model: `Recommender`, which is trained, and its `Scorer`, which scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from recdistill.catalogue import Head, ListHead, catalogue_loss, listed_loss
from recdistill.errors import ConfigError
from recdistill.losses import distinct
from recdistill.models.rows import bpr_and_half_squares, half_squares, pair_scores
from recdistill.products import inner_products
from recdistill.types import Batch, Interactions


class Scorer(ABC):
    """Scores of one moment: made once per step, so that a graph model propagates once. Higher is better; raw logits."""

    user_vectors: Tensor | None = None  # [U, d], for models whose score is an inner product
    item_vectors: Tensor | None = None  # [I, d]

    @abstractmethod
    def pair_scores(self, user: Tensor, item: Tensor) -> Tensor:
        """[B] users and [B, M] items to [B, M] scores."""

    @abstractmethod
    def all_scores(self, user: Tensor) -> Tensor:
        """[B] users to [B, I] scores."""

    def catalogue_loss(self, user: Tensor, head: Head, row: Tensor | None = None, item: Tensor | None = None) -> Tensor:
        """A loss of log sum_i exp(score) over the catalogue, without the (row, item) pairs given.

        Shapes:
            user: [B]. head: masses [b] and their slice of rows to the sum of those rows' losses. row: [n] positions
            in `user` (B or more: padding). item: [n]. Returns: scalar.
        """
        score = _left_out(self.all_scores(user), row, item)
        return head(score.logsumexp(1), slice(0, len(user)))

    def listed_loss(
        self,
        user: Tensor,
        head: ListHead,
        listed: Tensor,
        apart: Tensor,
        row: Tensor | None = None,
        item: Tensor | None = None,
        *,
        sizes: Sequence[int] | None = None,
    ) -> Tensor:
        """A loss of listed scores and of log sum_i exp(score) over parts of the catalogue, some pairs left out.

        Shapes:
            user: [B]. head: masses [b, S], listed scores [b, N] and their slice of rows to the sums of those rows'
            losses, terms [T]. listed: [B, N] items. apart: [B, N] bool, those that no mass contains. row: [n]
            positions in `user` (B or more: padding) and item: [n], other pairs that no mass contains. sizes: of the
            S parts, in the order of the items (None: one part). Returns: [T], of which the sum may be differentiated.
        """
        score = self.all_scores(user)
        rows = torch.arange(len(user), device=user.device).unsqueeze(1).expand_as(listed)
        rest = _left_out(score, torch.where(apart, rows, len(user)).flatten(), listed.flatten())
        parts = torch.split(_left_out(rest, row, item), [score.shape[1]] if sizes is None else list(sizes), 1)
        mass = torch.stack([part.logsumexp(1) for part in parts], 1)
        return head(mass, score.gather(1, listed), slice(0, len(user)))

    def among(self, item: Tensor) -> Scorer:
        """The scorer of a part of the catalogue: its item j is `item[j]`, [J] different items."""
        return _Among(self, item)

    def transposed(self) -> Scorer:
        """The same scores with users and items exchanged: `pair_scores(item [B], user [B, M])` and so on.

        Raises:
            ConfigError: the scores are not made from vectors.
        """
        raise ConfigError(
            f"{type(self).__name__} cannot score the users of an item",
            "an item side needs scores that are inner products of user and item vectors",
            "choose models with vectors (mf, lightgcn) or a distiller without an item side (distill=rrd)",
        )


def _left_out(score: Tensor, row: Tensor | None, item: Tensor | None) -> Tensor:
    """Scores [B, I] with the lowest number at some entries; rows of B or more are padding."""
    if row is None or item is None:
        return score
    left_out = torch.zeros(score.numel() + 1, dtype=torch.bool, device=score.device)
    slot = torch.where(row < len(score), row * score.shape[1] + item, score.numel())
    left_out.index_fill_(0, slot, True)
    return score.masked_fill(left_out[:-1].view_as(score), torch.finfo(score.dtype).min)


class _Among(Scorer):
    """Some items of another scorer."""

    def __init__(self, scorer: Scorer, item: Tensor) -> None:
        self.scorer, self.item = scorer, item

    def pair_scores(self, user: Tensor, item: Tensor) -> Tensor:
        return self.scorer.pair_scores(user, self.item[item])

    def all_scores(self, user: Tensor) -> Tensor:
        return self.scorer.all_scores(user).index_select(1, self.item)


class InnerProductScorer(Scorer):
    """score(u, i) = <user vector, item vector>."""

    user_vectors: Tensor
    item_vectors: Tensor

    def __init__(
        self, user_vectors: Tensor, item_vectors: Tensor, *, by_rows: bool = False, items_too: bool = True
    ) -> None:
        """Hold [U, d] and [I, d]; `by_rows`: both are parameters whose look-ups give sparse gradients.

        Without `items_too` only the users' are.
        """
        self.user_vectors = user_vectors
        self.item_vectors = item_vectors
        self.by_rows, self.items_too = by_rows, items_too
        self._batch: tuple[Batch, tuple[Tensor, Tensor | None]] | None = None

    def pair_scores(self, user: Tensor, item: Tensor) -> Tensor:
        """[B, M] inner products."""
        tables = self.user_vectors, self.item_vectors
        return pair_scores(*tables, user, item, by_rows=self.by_rows, items_too=self.items_too)

    def bpr(self, batch: Batch, *, squares: bool = False) -> tuple[Tensor, Tensor | None]:
        """BPR of a batch and, where asked for, half the mean squared norms of its rows.

        They are looked up once for both, if the `squares` are asked for before the loss alone.

        Shapes:
            Returns: a scalar, and another or None; see `recdistill.models.rows.bpr_and_half_squares`.
        """
        if self._batch is None or self._batch[0] is not batch or (squares and self._batch[1][1] is None):
            given = self.user_vectors, self.item_vectors, batch.user, batch.positive, batch.negative
            self._batch = batch, bpr_and_half_squares(*given, by_rows=self.by_rows, squares=squares)
        return self._batch[1]

    def all_scores(self, user: Tensor) -> Tensor:
        """One matrix product."""
        return inner_products(self.user_vectors[user], self.item_vectors)

    def catalogue_loss(self, user: Tensor, head: Head, row: Tensor | None = None, item: Tensor | None = None) -> Tensor:
        """One pass in chunks; see `recdistill.catalogue.catalogue_loss` for cost and memory."""
        users = nn.functional.embedding(user, self.user_vectors, sparse=self.by_rows)
        return catalogue_loss(users, self.item_vectors, head, row, item)

    def listed_loss(
        self,
        user: Tensor,
        head: ListHead,
        listed: Tensor,
        apart: Tensor,
        row: Tensor | None = None,
        item: Tensor | None = None,
        *,
        sizes: Sequence[int] | None = None,
    ) -> Tensor:
        """One pass in chunks; see `recdistill.catalogue.listed_loss`."""
        users = nn.functional.embedding(user, self.user_vectors, sparse=self.by_rows)
        return listed_loss(users, self.item_vectors, head, listed, apart, row, item, sizes=sizes)

    def among(self, item: Tensor) -> InnerProductScorer:
        """The rows of those items."""
        rows = nn.functional.embedding(item, self.item_vectors)
        return InnerProductScorer(self.user_vectors, rows, by_rows=self.by_rows, items_too=False)

    def transposed(self) -> InnerProductScorer:
        """The tables exchanged."""
        return InnerProductScorer(self.item_vectors, self.user_vectors, by_rows=self.by_rows and self.items_too)


class Recommender(nn.Module, ABC):
    """A model that ranks items for users. The constructor takes settings only; data arrive by `prepare`."""

    provides: ClassVar[frozenset[str]] = frozenset({"ranking", "scores"})
    touches_rows: ClassVar[bool] = False  # whether a step changes only the rows of its batch, so that row_adam pays
    by_rows: bool = False  # set by training under row_adam: look-ups give sparse gradients

    @abstractmethod
    def prepare(self, interactions: Interactions, generator: torch.Generator) -> None:
        """Make tables (and a graph) for these training interactions.

        Args:
            interactions: training interactions only.
            generator: on the CPU; the same state gives the same initial weights on every device.
        """

    @abstractmethod
    def scorer(self) -> Scorer:
        """What scores pairs with the weights of this moment."""

    def batch_scorer(self, batch: Batch) -> Scorer:
        """What `loss` and `penalty` need for one batch alone: a model may leave out the rows that are not in it."""
        return self.scorer()

    @abstractmethod
    def loss(self, scorer: Scorer, batch: Batch) -> Tensor:
        """The model's own training objective, a mean over rows."""

    def penalty(self, scorer: Scorer, batch: Batch) -> Tensor:
        """Half the squared norms of the parameters that a batch's rows touch, a mean over rows; weight decay scales it.

        For a model without parameters this is 0.
        """
        return torch.zeros((), device=batch.user.device)

    @property
    def trainable(self) -> bool:
        """Whether there is anything to train."""
        return any(True for _ in self.parameters())


def own_loss(kind: str, scorer: InnerProductScorer, batch: Batch) -> Tensor:
    """The base loss of a model.

    `bpr`: each row's positive above its drawn negatives. `softmax`: cross-entropy of each row's positive against the
    whole catalogue; the log-sum-exp is taken once per distinct user of the batch.

    Shapes:
        Returns: scalar, nats per row (softmax) or per pair (bpr).
    """
    if kind == "bpr":
        return scorer.bpr(batch)[0]
    score = scorer.pair_scores(batch.user, batch.positive.unsqueeze(1))
    user, weight = distinct(batch.user, per_row=True)
    mass = scorer.catalogue_loss(user, lambda mass, rows: (weight[rows] * mass).sum())
    return mass - score.mean()


LOSSES = ("bpr", "softmax")


def row_penalty(kind: str, users: Tensor, items: Tensor, batch: Batch, *, by_rows: bool = False) -> Tensor:
    """Half the squared norms of a batch's user, positive and (for bpr) negative rows, a mean over the batch.

    Shapes:
        users: [U, d] table. items: [I, d] table. Returns: scalar. `by_rows`: with sparse gradients.
    """
    item, weight = batch.positive, None
    if kind == "bpr":
        item = torch.cat([item, batch.negative.flatten()])
        weight = torch.ones(len(item), 1, device=item.device)
        weight[len(batch.positive) :] = 1 / batch.negative.shape[1]
    total = half_squares(users, batch.user, by_rows=by_rows) + half_squares(items, item, weight, by_rows=by_rows)
    return total / len(batch.user)


def normal_table(rows: int, dim: int, std: float, generator: torch.Generator) -> nn.Parameter:
    """An embedding table [rows, dim] with entries N(0, std^2)."""
    return nn.Parameter(torch.empty(rows, dim).normal_(0.0, std, generator=generator))
