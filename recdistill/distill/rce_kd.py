"""RCE-KD: rejuvenated cross-entropy for knowledge distillation."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from recdistill.dataset.sampling import SeenItems
from recdistill.distill.base import Distiller, device_of, inside
from recdistill.distill.sampling import draw_weighted
from recdistill.errors import require
from recdistill.losses import distinct, soft_cross_entropy, soft_targets, weighted_mean
from recdistill.models.base import InnerProductScorer, Recommender, Scorer
from recdistill.ranking import top_k
from recdistill.types import Batch, Interactions, Knowledge, SoftLabels

MOST_BELOW = 50  # teacher's items below a position that count in the draw, as published


class RCEKD(Distiller):
    """Rejuvenated cross-entropy: exact on the student's top items, with company on the teacher's.

    Paper: Zhu and Zhang, "Rejuvenating Cross-Entropy Loss in KD for Recommender Systems", ICLR 2026. Cross-entropy over
    a subset bounds NDCG there only if every item that the student ranks above a member is a member. The student's own
    top K is closed in this sense; the teacher's is not, so items that the student ranks high join it. With J_S and J_T
    the top K of student and teacher among unseen items, and CE(J) the cross-entropy of the student's softmax over J
    against the teacher's (scores divided by `temperature`):

        A:  `company` different items of the student's first `pool`, drawn with probability proportional to
            exp( (c_p + 1) / draw_temperature ), c_p = min(50, teacher's top-K items in the pool at place p or below)
        loss(u) = (1 - gamma) CE(J_S) + gamma CE( A + (J_T without A and J_S) ),  gamma = exp(-beta |J_T and A| / K)

    J_S and A are renewed at the start of every epoch. Averaged over the distinct users of a batch, or over its rows.

    Differs from the published code: the softmax is stable; training items are left out of both lists (see
    `reference_quirks`); users instead of rows; means instead of sums, here and in the base loss; a teacher's list that
    is shorter than K counts with its own length in gamma.

    Cost per step: B x (2 K + company) pairs for the B distinct users of a batch. Per epoch: the student's ranking of
    all U x I scores, one chunk in memory, and the teacher's scores of U x (K + company) pairs.

    Args:
        weight: factor on this term.
        items: K.
        company: items of the student that join the teacher's (the paper's L).
        pool: how far down the student's ranking they are drawn.
        draw_temperature: flatness of that draw, in counted items.
        temperature: of the softmaxes.
        beta: how fast weight moves from the teacher's items to the student's as the two agree.
        per: `user` weighs the distinct users of a batch equally, `row` each by its rows.
        reference_quirks: leave training items in both lists, as the published code does.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"ranking", "scores", "vectors"})
    gamma: Tensor

    def __init__(
        self,
        *,
        weight: float = 1.0,
        items: int = 50,
        company: int = 50,
        pool: int = 200,
        draw_temperature: float = 10.0,
        temperature: float = 1.0,
        beta: float = 3.0,
        per: str = "user",
        reference_quirks: bool = False,
    ) -> None:
        """Check the settings."""
        super().__init__()
        require(weight >= 0, "weight", weight, ">= 0")
        require(items >= 1, "items", items, ">= 1")
        require(company >= 1, "company", company, ">= 1")
        require(pool >= max(items, company), "pool", pool, f">= items={items} and company={company}")
        require(draw_temperature > 0, "draw_temperature", draw_temperature, "> 0")
        require(temperature > 0, "temperature", temperature, "> 0")
        require(beta >= 0, "beta", beta, ">= 0")
        require(per in ("user", "row"), "per", per, "user or row")
        self.weight, self.items, self.company, self.pool, self.beta = weight, items, company, pool, beta
        self.draw_temperature, self.temperature, self.per, self.quirks = (
            draw_temperature,
            temperature,
            per,
            reference_quirks,
        )
        self.depth = items

    def prepare(
        self, knowledge: Knowledge, interactions: Interactions, student: Recommender, generator: torch.Generator
    ) -> None:
        """Take the teacher's vectors and top items."""
        labels, device = knowledge.one(), device_of(student)
        self.n_items = interactions.n_items
        self.everybody = torch.arange(interactions.n_users, device=device)
        self.seen = SeenItems(interactions.none() if self.quirks else interactions, device)
        self.labels: SoftLabels = labels.to(device, self.depth)
        if self.quirks:
            assert labels.user_vectors is not None  # required
            assert labels.item_vectors is not None
            teacher = InnerProductScorer(labels.user_vectors.to(device), labels.item_vectors.to(device))
            top = top_k(teacher, self.seen, self.everybody, self.n_items, self.items)
            self.top, self.top_score, length = top.item, top.score, top.length
        else:
            self.top = self.labels.item[:, : self.items].long()  # [U, K]
            self.top_score = self.labels.score[:, : self.items]
            length = self.labels.length.clamp(max=self.items)
        self.top_valid = _prefix(length, self.top.shape[1])
        # In the checkpoint: a run that was stopped behind its last epoch still tells of that epoch.
        self.register_buffer("gamma", torch.ones(len(self.top), device=device))

    @torch.no_grad()
    def on_epoch_start(self, epoch: int, student: Recommender, generator: torch.Generator) -> None:
        """Rank with the student, draw the company, and look up the teacher's probabilities of both subsets."""
        ranked = top_k(student.scorer(), self.seen, self.everybody, self.n_items, self.pool)
        ranked_valid = _prefix(ranked.length, ranked.item.shape[1])
        in_top = inside(ranked.item, ranked_valid, self.top, self.top_valid, self.n_items)  # [U, pool]
        below = in_top.flip(1).cumsum(1).flip(1).clamp(max=MOST_BELOW)
        log_weight = ((below + 1) / self.draw_temperature).masked_fill(~ranked_valid, -torch.inf)
        place = draw_weighted(log_weight, self.company, generator)
        company_valid = place < ranked.item.shape[1]
        place = place.clamp(max=ranked.item.shape[1] - 1)
        company = ranked.item.gather(1, place)

        self.own, self.own_valid = ranked.item[:, : self.items], ranked_valid[:, : self.items]
        own_score = self.labels.score_at(self.everybody, self.own)
        self.own_target = soft_targets(own_score, self.own_valid, self.temperature)

        taken = torch.cat([company, self.own], 1)
        taken_valid = torch.cat([company_valid, self.own_valid], 1)
        left = self.top_valid & ~inside(self.top, self.top_valid, taken, taken_valid, self.n_items)
        self.mixed, self.mixed_valid = torch.cat([company, self.top], 1), torch.cat([company_valid, left], 1)
        score = torch.cat([self.labels.score_at(self.everybody, company), self.top_score], 1)
        self.mixed_target = soft_targets(score, self.mixed_valid, self.temperature)

        shared = (in_top.gather(1, place) & company_valid).sum(1)
        self.gamma = torch.exp(-self.beta * shared / self.top_valid.sum(1).clamp(min=1))  # [U]

    def forward(self, scorer: Scorer, batch: Batch) -> dict[str, Tensor]:
        """Both cross-entropies, mixed per user."""
        if self.weight == 0:
            return {}
        user, share = distinct(batch.user, per_row=self.per == "row")
        own, mixed = self.own[user], self.mixed[user]
        score = scorer.pair_scores(user, torch.cat([own, mixed], 1))
        k = own.shape[1]
        on_own = soft_cross_entropy(self.own_target[user], score[:, :k], self.own_valid[user], self.temperature)
        on_mixed = soft_cross_entropy(self.mixed_target[user], score[:, k:], self.mixed_valid[user], self.temperature)
        gamma = self.gamma[user]
        return {"rce_kd": self.weight * weighted_mean((1 - gamma) * on_own + gamma * on_mixed, share)}

    def to_record(self) -> dict[str, float]:
        """How much of the last epoch's loss was on the teacher's items."""
        return {"mean_gamma": float(self.gamma.double().mean())}


def _prefix(length: Tensor, width: int) -> Tensor:
    """[B, width] bool: the first `length` [B] places of each row."""
    return torch.arange(width, device=length.device) < length.unsqueeze(1)
