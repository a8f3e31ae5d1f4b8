"""RD: ranking distillation."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from recdistill.dataset.sampling import unseen_sampler
from recdistill.distill.base import Distiller, device_of
from recdistill.errors import require
from recdistill.losses import distinct, rank_discrepancy
from recdistill.models.base import Recommender, Scorer
from recdistill.types import Batch, Interactions, Knowledge


class RD(Distiller):
    """Ranking distillation: the teacher's top items as extra positives, weighted by place and by the student's error.

    Paper: Tang and Wang, "Ranking Distillation: Learning Compact Ranking Models With High Performance for Recommender
    System", KDD 2018. With s the student's scores and pi the teacher's top K:

        loss(u) = sum_{k=1..K} w_k softplus( -s(u, pi_k) )
        w_k = a_k during the first `warm_up` epochs, then a_k b_k
        a_k proportional to exp(-k / temperature), with sum 1
        b_k = max(0, tanh( steepness (rank_k - (k - 1)) ))
        rank_k = floor( (I - 1) #{q : s(u, q) > s(u, pi_k)} / Q )    over Q unseen items q, drawn anew every epoch

    The weights w are constants to the gradient. Averaged over the distinct users of a batch, or over its rows.

    Differs from the authors' code: a draw is made per user and epoch, not per training instance. The base loss is
    kept; `reference_quirks` says where a published comparison leaves it out.

    Cost per step: B x (K + Q) pairs, without gradient for the Q, for the B distinct users of a batch.

    Args:
        weight: factor on this term (the paper's alpha).
        items: K, how many of the teacher's top items are positives.
        temperature: flatness of the place weights, in ranks.
        steepness: how fast the dynamic weight rises with the student's error (the paper's mu), per rank.
        draws: Q, unseen items that estimate the student's ranks.
        warm_up: epochs with place weights only.
        renormalise: let the weights a_k b_k sum to 1 again for each user (0 where all are 0).
        per: `user` weighs the distinct users of a batch equally, `row` each by its rows.
        reference_quirks: RD as in the comparison code of UnKD: no base loss, a_k b_k renormalised, ranks one higher,
            and divided by K once more.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"ranking"})

    def __init__(
        self,
        *,
        weight: float = 0.1,
        items: int = 10,
        temperature: float = 1.0,
        steepness: float = 0.1,
        draws: int = 100,
        warm_up: int = 10,
        renormalise: bool = False,
        per: str = "user",
        reference_quirks: bool = False,
    ) -> None:
        """Check the settings."""
        super().__init__()
        require(weight >= 0, "weight", weight, ">= 0")
        require(items >= 1, "items", items, ">= 1")
        require(temperature > 0, "temperature", temperature, "> 0")
        require(steepness > 0, "steepness", steepness, "> 0")
        require(draws >= 1, "draws", draws, ">= 1")
        require(warm_up >= 0, "warm_up", warm_up, ">= 0")
        require(per in ("user", "row"), "per", per, "user or row")
        self.weight, self.depth, self.temperature, self.steepness = weight, items, temperature, steepness
        self.draws, self.warm_up, self.per, self.quirks = draws, warm_up, per, reference_quirks
        self.renormalise = renormalise or reference_quirks
        self.replaces_base_loss = reference_quirks and weight > 0  # a weight of 0 is no distillation

    def prepare(
        self, knowledge: Knowledge, interactions: Interactions, student: Recommender, generator: torch.Generator
    ) -> None:
        """Take the teacher's top items and their place weights."""
        labels, device = knowledge.one(), device_of(student)
        self.top = labels.item[:, : self.depth].to(device).long()  # [U, K]
        k = self.top.shape[1]
        valid = torch.arange(k, device=device) < labels.length.to(device).unsqueeze(1)
        place = torch.arange(k, dtype=torch.float32, device=device)
        share = torch.exp(-place / self.temperature) * valid
        self.by_place = share / share.sum(1, keepdim=True).clamp(min=1.0)  # [U, K]; a list's first weight is 1 before
        self.n_items = interactions.n_items
        self.everybody = torch.arange(interactions.n_users, device=device)
        self.unseen = unseen_sampler(interactions, device)

    def on_epoch_start(self, epoch: int, student: Recommender, generator: torch.Generator) -> None:
        """Draw the items that estimate ranks."""
        self.dynamic = epoch >= self.warm_up
        user = self.everybody.unsqueeze(1).expand(-1, self.draws)
        # A user who has seen everything draws -1; there is no list to weigh either.
        self.drawn = self.unseen.draw(user, generator).clamp(min=0)  # [U, Q]

    def forward(self, scorer: Scorer, batch: Batch) -> dict[str, Tensor]:
        """The weighted pointwise loss of the teacher's items."""
        if self.weight == 0:
            return {}
        user, share = distinct(batch.user, per_row=self.per == "row")
        score = scorer.pair_scores(user, self.top.index_select(0, user))
        weight = self.by_place.index_select(0, user)
        if self.dynamic:
            above = self._above(scorer, user, score.detach())
            weight = weight * rank_discrepancy(above, self.draws, self.n_items, self.steepness, first=self.quirks)
            if self.renormalise:
                weight = weight / weight.sum(1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny)
        factor = self.weight / score.shape[1] if self.quirks else self.weight
        # All constants first: with so few pairs each further step of autograd costs as much as one over the pairs.
        weight = weight * (factor * share).unsqueeze(1)
        return {"rd": (weight * functional.softplus(-score)).sum()}

    @torch.no_grad()
    def _above(self, scorer: Scorer, user: Tensor, score: Tensor) -> Tensor:
        """[B, K] how many of the user's drawn items score higher than each item of the list."""
        drawn = self.drawn[user]
        higher = scorer.pair_scores(user, drawn).unsqueeze(1) > score.unsqueeze(2)
        # The item itself may be drawn; its two scores may differ in their last bit.
        return (higher & (drawn.unsqueeze(1) != self.top[user].unsqueeze(2))).sum(2)
