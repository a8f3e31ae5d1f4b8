"""Matrix factorisation."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from recdistill.errors import require
from recdistill.models.base import LOSSES, InnerProductScorer, Recommender, normal_table, own_loss, row_penalty
from recdistill.types import Batch, Interactions


class MF(Recommender):
    """Matrix factorisation: score(u, i) = <p_u, q_i>, without biases.

    Source: Rendle et al., "BPR", UAI 2009 (loss: bpr); cross-entropy over the catalogue with loss: softmax.

    Args:
        dim: length of the vectors.
        loss: `bpr` (one or more drawn negatives per positive) or `softmax` (the whole catalogue).
        init_std: standard deviation of the initial entries.
    """

    provides: ClassVar[frozenset[str]] = frozenset({"ranking", "scores", "vectors", "trajectory", "live"})
    touches_rows: ClassVar[bool] = True

    def __init__(self, *, dim: int = 64, loss: str = "bpr", init_std: float = 0.1) -> None:
        """Check the settings."""
        super().__init__()
        require(dim >= 1, "dim", dim, ">= 1")
        require(loss in LOSSES, "loss", loss, f"one of {', '.join(LOSSES)}")
        require(init_std > 0, "init_std", init_std, "> 0")
        self.dim, self.loss_kind, self.init_std = dim, loss, init_std

    def prepare(self, interactions: Interactions, generator: torch.Generator) -> None:
        """Draw both tables."""
        self.user_table = normal_table(interactions.n_users, self.dim, self.init_std, generator)
        self.item_table = normal_table(interactions.n_items, self.dim, self.init_std, generator)

    def scorer(self) -> InnerProductScorer:
        """The tables themselves."""
        return InnerProductScorer(self.user_table, self.item_table, by_rows=self.by_rows)

    def loss(self, scorer: InnerProductScorer, batch: Batch) -> Tensor:  # type: ignore[override]  # its own scorer
        """BPR or softmax."""
        return own_loss(self.loss_kind, scorer, batch)

    def penalty(self, scorer: InnerProductScorer, batch: Batch) -> Tensor:  # type: ignore[override]  # its own scorer
        """Squared norms of the rows of a batch; a row's negatives count as one item together."""
        if self.loss_kind == "bpr":
            half = scorer.bpr(batch, squares=True)[1]
            assert half is not None  # asked for
            return half
        return row_penalty(self.loss_kind, self.user_table, self.item_table, batch, by_rows=self.by_rows)
