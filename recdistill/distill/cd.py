"""CD: collaborative distillation."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from recdistill.dataset.sampling import SeenItems, unseen_sampler
from recdistill.distill.base import Distiller, device_of
from recdistill.distill.sampling import draw_by_rank
from recdistill.errors import require
from recdistill.losses import distinct, soft_binary_cross_entropy, weighted_mean
from recdistill.models.base import Recommender, Scorer
from recdistill.ranking import by_chunk, select_top
from recdistill.runtime import for_ranking
from recdistill.types import Batch, Interactions, Knowledge, SoftLabels


class CD(Distiller):
    """Collaborative distillation: the teacher's soft probabilities of a rank-aware sample of unseen items.

    Paper: Lee, Choi, Lee and Shim, "Collaborative Distillation for Top-N Recommendation", ICDM 2019. With s the
    student's and t the teacher's raw scores, for a sample S_u of the user's unseen items:

        q(u, i) = sigmoid( (t(u, i) + shift) / temperature )
        loss(u) = mean over i in S_u of BCE( q(u, i), sigmoid s(u, i) )

    S_u: `items` different items, drawn anew every epoch from the first `pool` of the guide's ranking with probability
    proportional to exp(-rate * rank / pool). The guide is the student as it is at the start of the epoch, so that its
    own high mistakes are corrected, or the teacher, or nobody (`random`: uniform among all unseen items). Averaged over
    the distinct users of a batch, or over its rows.

    Differs from the paper: a mean over the sample where the paper sums (its lambda is `weight` divided by `items`).
    Differs from published ports: draws are without repeats and never training items; the decay is stated as a rate
    (theirs is 0.05, nearly flat, but they keep the better of two draws: about a rate of 2 over a pool of 3,000); the
    loss is not capped.

    Cost per step: B x n pairs for the B distinct users of a batch. Per epoch: the teacher's scores of U x n pairs, and
    for `guide: student` one pass over all U x I scores, one chunk in memory.

    Args:
        weight: factor on this term.
        items: n, unseen items per user and epoch.
        pool: how far down the guide's ranking to draw (the catalogue's size at most).
        rate: fall of the draw over the pool: its last item is exp(-rate) as likely as its first.
        temperature: of the soft probabilities.
        shift: added to the teacher's scores.
        guide: whose ranking the draw follows: `student`, `teacher` (then `soft_labels.depth` must reach `pool`) or
            `random`.
        per: `user` weighs the distinct users of a batch equally, `row` each by its rows.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"ranking", "vectors"})

    def __init__(
        self,
        *,
        weight: float = 1.0,
        items: int = 50,
        pool: int = 200,
        rate: float = 5.0,
        temperature: float = 2.0,
        shift: float = 0.0,
        guide: str = "student",
        per: str = "user",
    ) -> None:
        """Check the settings."""
        super().__init__()
        require(weight >= 0, "weight", weight, ">= 0")
        require(items >= 1, "items", items, ">= 1")
        require(pool >= items, "pool", pool, f">= items={items}")
        require(rate > 0, "rate", rate, "> 0")
        require(temperature > 0, "temperature", temperature, "> 0")
        require(guide in ("student", "teacher", "random"), "guide", guide, "student, teacher or random")
        require(per in ("user", "row"), "per", per, "user or row")
        self.weight, self.items, self.pool, self.rate = weight, items, pool, rate
        self.temperature, self.shift, self.guide, self.per = temperature, shift, guide, per
        self.depth = pool if guide == "teacher" else 0

    def prepare(
        self, knowledge: Knowledge, interactions: Interactions, student: Recommender, generator: torch.Generator
    ) -> None:
        """Take the teacher's vectors and what the guide draws from."""
        device = device_of(student)
        self.labels: SoftLabels = knowledge.one().to(device, self.depth)
        self.n_items = interactions.n_items
        self.reach = min(self.pool, self.n_items)
        self.everybody = torch.arange(interactions.n_users, device=device)
        self.seen, self.unseen = SeenItems(interactions, device), unseen_sampler(interactions, device)
        self.length = self.unseen.n_unseen.clamp(max=self.reach)  # [U]

    def on_epoch_start(self, epoch: int, student: Recommender, generator: torch.Generator) -> None:
        """Draw every user's items and look up their soft probabilities."""
        if self.guide == "random":
            self.item, self.valid = self.unseen.draw_distinct(self.everybody, self.items, generator)
        else:
            place = draw_by_rank(self.length, self.reach, self.items, self.reach / self.rate, generator)
            self.valid = place < self.reach  # [U, n]
            place = place.clamp(max=self.reach - 1)
            by_teacher = self.guide == "teacher"
            self.item = self.labels.item.long().gather(1, place) if by_teacher else self._ranked_at(student, place)
        score = self.labels.score_at(self.everybody, self.item)
        self.target = ((score + self.shift) / self.temperature).sigmoid()  # [U, n]

    @for_ranking()
    @torch.no_grad()
    def _ranked_at(self, student: Recommender, place: Tensor) -> Tensor:
        """[U, n] the items at some places of the student's ranking; whole rankings exist for one chunk of users."""

        def drawn(user: Tensor, score: Tensor) -> Tensor:
            return select_top(score, self.reach)[0].gather(1, place[user])

        return torch.cat(by_chunk(student.scorer(), self.seen, self.everybody, self.n_items, drawn))

    def forward(self, scorer: Scorer, batch: Batch) -> dict[str, Tensor]:
        """The pointwise loss of the drawn items."""
        if self.weight == 0:
            return {}
        user, share = distinct(batch.user, per_row=self.per == "row")
        score = scorer.pair_scores(user, self.item[user])
        loss = soft_binary_cross_entropy(self.target[user], score, self.valid[user])
        return {"cd": self.weight * weighted_mean(loss, share)}
