"""RRD: relaxed ranking distillation."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from recdistill.dataset.sampling import SeenItems
from recdistill.distill.base import Distiller, device_of
from recdistill.distill.sampling import draw_by_rank, outside_sampler
from recdistill.errors import require
from recdistill.losses import distinct, plackett_luce, relaxed_ranking
from recdistill.models.base import Recommender, Scorer
from recdistill.types import Batch, Interactions, Knowledge


class RRD(Distiller):
    """Relaxed ranking distillation: keep the order of interesting items above all uninteresting ones.

    Paper: Kang et al., "DE-RRD: A Knowledge Distillation Framework for Recommender System", CIKM 2020, section 4.2.
    With s the student's scores, pi the K interesting items in the teacher's order, Z the uninteresting ones:

        loss(u) = sum_{k=1..K} [ log( sum_{j>=k} exp s(pi_j) + sum_{z in Z} exp s(z) ) - s(pi_k) ]

    Interesting: the teacher's top K (`draw: top`, the authors' later advice) or K of its top `depth` drawn with
    probability proportional to exp(-rank / temperature), anew every epoch (`draw: sampled`, as published).
    Uninteresting: every other unseen item (`rest: all`), or `uninteresting` items drawn uniformly without replacement
    from outside the training items and the teacher's top `depth`, anew every epoch (`rest: sampled`, as published).
    Averaged over the distinct users of a batch, equal to the mean over users only in expectation.

    Differs from the authors' code: means instead of sums, here and in the base loss; the log-sum-exp is stable, so
    scores are not clamped; the paper's denominator counts the K-th item twice, their code and this one do not.

    Cost per step: B x (K + L) pairs (`rest: sampled`), or one pass over B x I scores (`rest: all`), for the B distinct
    users of a batch.

    Args:
        weight: factor on this term.
        interesting: K, items kept in order per user.
        uninteresting: items kept below per user (`rest: sampled` only).
        depth: how far down the teacher's ranking to look; at most `soft_labels.depth`.
        temperature: flatness of the draw, in ranks; larger draws deeper (`draw: sampled` only).
        draw: `top` or `sampled`.
        rest: `all` or `sampled`.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"ranking"})

    def __init__(
        self,
        *,
        weight: float = 0.1,
        interesting: int = 40,
        uninteresting: int = 40,
        depth: int = 200,
        temperature: float = 10.0,
        draw: str = "top",
        rest: str = "all",
    ) -> None:
        """Check the settings."""
        super().__init__()
        require(weight >= 0, "weight", weight, ">= 0")
        require(uninteresting >= 1, "uninteresting", uninteresting, ">= 1")
        require(depth >= 1, "depth", depth, ">= 1")
        require(1 <= interesting <= depth, "interesting", interesting, f"from 1 to depth={depth}")
        require(temperature > 0, "temperature", temperature, "> 0")
        require(draw in ("top", "sampled"), "draw", draw, "top or sampled")
        require(rest in ("all", "sampled"), "rest", rest, "all or sampled")
        self.weight, self.interesting, self.uninteresting = weight, interesting, uninteresting
        self.depth, self.temperature, self.draw, self.rest = depth, temperature, draw, rest

    def prepare(
        self, knowledge: Knowledge, interactions: Interactions, student: Recommender, generator: torch.Generator
    ) -> None:
        """Take the teacher's top items, and the complement of training and top items for the draws."""
        labels = knowledge.one()
        self.hold(labels.item, labels.length, interactions, device_of(student))

    def hold(self, item: Tensor, length: Tensor, interactions: Interactions, device: torch.device) -> None:
        """As `prepare`, from ranked lists: item [U, D] of any depth and length [U], on the CPU.

        Methods that apply this loss to another problem (users per item, the items of a group) call it.
        """
        depth = min(self.depth, item.shape[1])
        self.top = item[:, :depth].to(device).long()  # [U, D]
        self.length = length.to(device).long().clamp(max=depth)  # [U]
        self.user = torch.arange(interactions.n_users, device=device)
        k = min(self.interesting, depth)
        self.kept, self.kept_valid = self.top[:, :k], self.user.new_tensor(range(k)) < self.length.unsqueeze(1)
        if self.rest == "all":
            self.seen = SeenItems(interactions, device)
        else:
            self.outside = outside_sampler(interactions, item[:, :depth].long(), length.long(), device)

    def on_epoch_start(self, epoch: int, student: Recommender, generator: torch.Generator) -> None:
        """Redraw what is drawn."""
        if self.draw == "sampled":
            depth = self.top.shape[1]
            place = draw_by_rank(self.length, depth, self.interesting, self.temperature, generator)
            self.kept_valid = place < depth
            self.kept = self.top.gather(1, place.clamp(max=depth - 1))
        if self.rest == "sampled":
            self.below, self.below_valid = self.outside.draw_distinct(self.user, self.uninteresting, generator)

    def forward(self, scorer: Scorer, batch: Batch) -> dict[str, Tensor]:
        """The list loss over the distinct users of the batch."""
        if self.weight == 0:
            return {}
        return {"rrd": self.weight * self.list_loss(scorer, batch.user)}

    def list_loss(self, scorer: Scorer, ids: Tensor) -> Tensor:
        """The unweighted loss, averaged over the distinct users [B] given (of the problem that `hold` was told)."""
        user, weight = distinct(ids)
        if self.rest == "sampled":
            kept, valid = self.kept[user], self.kept_valid[user]
            score, below = scorer.pair_scores(user, kept), scorer.pair_scores(user, self.below[user])
            return relaxed_ranking(score, below, weight, valid, self.below_valid[user])
        return self.whole_loss(scorer, user, weight).squeeze(0)

    def whole_loss(
        self,
        scorer: Scorer,
        user: Tensor,
        weight: Tensor,
        share: float = 1.0,
        others: Tensor | None = None,
        loss_of: Callable[[Tensor, slice], Tensor] | None = None,
    ) -> Tensor:
        """The loss with `rest: all`, beside a loss of some more scores from the same pass over the catalogue.

        Shapes:
            user: [B] distinct users. weight: [B]. share: factor on the list loss. others: [B, M] items of the second
            loss. loss_of: their scores [b, M] and the slice of rows they belong to, to the sum of these rows' losses.
            Returns: [1], with a second loss [2]; their sum is what may be differentiated.
        """
        kept, valid = self.kept[user], self.kept_valid[user]
        k = kept.shape[1]

        def head(mass: Tensor, score: Tensor, rows: slice) -> Tensor:
            loss = share * plackett_luce(score[:, :k], mass.squeeze(1), valid[rows], weight[rows])
            return loss.unsqueeze(0) if loss_of is None else torch.stack([loss, loss_of(score[:, k:], rows)])

        row, item = self.seen.flat(user, weight > 0)
        if others is None:
            return scorer.listed_loss(user, head, kept, valid, row, item)
        # What is also kept is in no mass; the other ones are in the rest like any item.
        apart = torch.cat([valid, torch.zeros_like(others, dtype=torch.bool)], 1)
        return scorer.listed_loss(user, head, torch.cat([kept, others], 1), apart, row, item)
