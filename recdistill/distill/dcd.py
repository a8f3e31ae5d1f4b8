"""DCD: dual correction distillation."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from recdistill.distill.base import Distiller, device_of
from recdistill.distill.rrd import RRD
from recdistill.distill.sampling import draw_weighted
from recdistill.errors import require
from recdistill.losses import distinct, relaxed_ranking
from recdistill.models.base import Recommender, Scorer
from recdistill.types import Batch, Interactions, Knowledge

CHUNK_ROWS = 1024  # of a ranking by the student


class DCD(Distiller):
    """Dual correction: what the student ranks too low goes above what it ranks too high, for users and for items.

    Paper: Lee and Kim, "Dual Correction Strategy for Ranking Distillation in Top-N Recommender System", CIKM 2021. With
    r_T and r_S the places (from 0) of an item among the teacher's top `depth` of a user, by teacher and by student:

        under = tanh( max(0, steepness (r_S - r_T)) ),  over = tanh( max(0, steepness (r_T - r_S)) )
        L_user = list loss of RRD with the underestimated items, in the teacher's order, above the overestimated ones
        loss = ranking_share * RRD + user_share * L_user + item_share * L_item

    L_item is the same with users in place of items, for the positive items of a batch. Corrections: `corrections` each
    of the largest errors (`draw: top`), or drawn without repeats in proportion to the error, anew every epoch (`draw:
    sampled`, as published). Errors are renewed every `refresh_every` epochs. Each side is averaged over its distinct
    ids.

    Differs from the authors' code: means instead of sums, here and in the base loss; draws are made per epoch, not per
    batch; an id with fewer errors than corrections has shorter lists, down to none where student and teacher agree; the
    ranking term of the paper is there (their training file leaves it out: `ranking_share: 0`).

    Cost per step: that of RRD, and 2 C pairs for each of the B distinct users (with `rest: all` they are part of the
    one pass over the catalogue) and of the distinct items of a batch. At each refresh: U x depth + I x user_depth
    pairs.

    Args:
        weight: factor on all terms.
        ranking_share: factor on the RRD term besides.
        user_share: factor on the correction of items per user besides.
        item_share: factor on the correction of users per item besides.
        corrections: C, underestimated and overestimated ones each.
        steepness: how fast an error's weight rises with the distance of the places (the authors' epsilon).
        refresh_every: epochs between two rankings of the lists by the student.
        interesting: items kept in order per user, in the RRD term.
        uninteresting: items kept below per user, in the RRD term (`rest: sampled` only).
        depth: the teacher's items whose errors count, and how far RRD looks; at most `soft_labels.depth`.
        user_depth: the teacher's users whose errors count.
        temperature: flatness of RRD's draw, in ranks (`draw: sampled` only).
        draw: `top` or `sampled`, of the corrections and in the RRD term.
        rest: `all` or `sampled`, in the RRD term.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"ranking", "vectors"})

    def __init__(
        self,
        *,
        weight: float = 0.1,
        ranking_share: float = 1.0,
        user_share: float = 1.0,
        item_share: float = 0.5,
        corrections: int = 40,
        steepness: float = 0.1,
        refresh_every: int = 3,
        interesting: int = 40,
        uninteresting: int = 40,
        depth: int = 200,
        user_depth: int = 200,
        temperature: float = 10.0,
        draw: str = "top",
        rest: str = "all",
    ) -> None:
        """Check the settings."""
        super().__init__()
        require(ranking_share >= 0, "ranking_share", ranking_share, ">= 0")
        require(user_share >= 0, "user_share", user_share, ">= 0")
        require(item_share >= 0, "item_share", item_share, ">= 0")
        require(corrections >= 1, "corrections", corrections, ">= 1")
        require(steepness > 0, "steepness", steepness, "> 0")
        require(refresh_every >= 1, "refresh_every", refresh_every, ">= 1")
        require(depth >= 2, "depth", depth, ">= 2")
        require(user_depth >= 2, "user_depth", user_depth, ">= 2")
        self.ranking = RRD(
            weight=weight,
            interesting=interesting,
            uninteresting=uninteresting,
            depth=depth,
            temperature=temperature,
            draw=draw,
            rest=rest,
        )
        self.users = _Correction(corrections, steepness, sampled=draw == "sampled")
        self.items = _Correction(corrections, steepness, sampled=draw == "sampled")
        self.weight, self.ranking_share, self.user_share = weight, ranking_share, user_share
        self.item_share, self.refresh_every, self.depth, self.user_depth = item_share, refresh_every, depth, user_depth

    def prepare(
        self, knowledge: Knowledge, interactions: Interactions, student: Recommender, generator: torch.Generator
    ) -> None:
        """Take the teacher's rankings of both sides."""
        labels, device = knowledge.one(), device_of(student)
        assert labels.transposed is not None  # requested by `user_depth`
        self.ranking.hold(labels.item, labels.length, interactions, device)
        self.users.hold(labels.item, labels.length, self.depth, device)
        self.items.hold(labels.transposed.item, labels.transposed.length, self.user_depth, device)

    def on_epoch_start(self, epoch: int, student: Recommender, generator: torch.Generator) -> None:
        """Renew the errors when it is time, and draw."""
        self.ranking.on_epoch_start(epoch, student, generator)
        if epoch % self.refresh_every == 0:
            with torch.no_grad():
                scorer = student.scorer()
                self.users.refresh(scorer)
                self.items.refresh(scorer.transposed())
        self.users.select(generator)
        self.items.select(generator)

    def forward(self, scorer: Scorer, batch: Batch) -> dict[str, Tensor]:
        """RRD and both corrections."""
        if self.weight == 0:
            return {}
        terms: dict[str, Tensor] = {}
        if self.ranking_share > 0 and self.user_share > 0 and self.ranking.rest == "all":
            user, share = distinct(batch.user)

            def corrections(score: Tensor, rows: slice) -> Tensor:
                return self.user_share * self.users.loss_of(score, user[rows], share[rows])

            names, items = ("rrd", "user_correction"), self.users.chosen(user)
            losses = self.ranking.whole_loss(scorer, user, share, self.ranking_share, items, corrections)
            terms |= dict(zip(names, losses, strict=True))
        else:
            if self.ranking_share > 0:
                terms["rrd"] = self.ranking_share * self.ranking.list_loss(scorer, batch.user)
            if self.user_share > 0:
                terms["user_correction"] = self.user_share * self.users.list_loss(scorer, batch.user)
        if self.item_share > 0:
            terms["item_correction"] = self.item_share * self.items.list_loss(scorer.transposed(), batch.positive)
        return {name: self.weight * term for name, term in terms.items()}


class _Correction(nn.Module):
    """One side: for each row of the teacher's lists, which entries the student ranks too low and too high."""

    student_place: Tensor

    def __init__(self, number: int, steepness: float, sampled: bool) -> None:
        super().__init__()
        self.number, self.steepness, self.sampled = number, steepness, sampled

    def hold(self, item: Tensor, length: Tensor, depth: int, device: torch.device) -> None:
        """Take ranked lists: item [U, D] and length [U]."""
        self.top = item[:, :depth].to(device)  # [U, Q] int32: two of them would be the largest thing held
        q = self.top.shape[1]
        self.place = torch.arange(q, device=device)
        self.inside = self.place < length.to(device).unsqueeze(1)
        self.everybody = torch.arange(len(self.top), device=device)
        # The student's places are renewed now and then, so a checkpoint must hold them.
        self.register_buffer("student_place", self.place.to(torch.int32).expand_as(self.top).clone())

    def refresh(self, scorer: Scorer) -> None:
        """Rank the lists' entries with the student."""
        for first in range(0, len(self.everybody), CHUNK_ROWS):
            rows = self.everybody[first : first + CHUNK_ROWS]
            score = scorer.pair_scores(rows, self.top[rows].long()).masked_fill(~self.inside[rows], -torch.inf)
            order = score.argsort(dim=1, descending=True, stable=True)
            self.student_place[rows] = order.argsort(dim=1).to(torch.int32)

    def select(self, generator: torch.Generator) -> None:
        """Choose the corrections of every row, in the teacher's order."""
        lower = (self.student_place - self.place) * self.inside
        self.under, self.under_valid = self._chosen(lower, generator)
        self.over, self.over_valid = self._chosen(-lower, generator)

    def _chosen(self, error: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        weight = torch.tanh(self.steepness * error.clamp(min=0).to(torch.float32))
        q = weight.shape[1]
        if self.sampled:
            place = draw_weighted(weight.log(), self.number, generator)
        else:
            # Whole numbers, equal ones by the teacher's order.
            place = (error.long() * q - self.place).topk(min(self.number, q), dim=1).indices
            place = torch.where(error.gather(1, place) > 0, place, q).sort(1).values
        return self.top.gather(1, place.clamp(max=q - 1)).long(), place < q

    def list_loss(self, scorer: Scorer, ids: Tensor) -> Tensor:
        """The unweighted loss, averaged over the distinct rows [B] given."""
        row, weight = distinct(ids)
        return self.loss_of(scorer.pair_scores(row, self.chosen(row)), row, weight)

    def chosen(self, row: Tensor) -> Tensor:
        """The corrections [B, 2 C] of some rows: underestimated, then overestimated ones."""
        return torch.cat([self.under[row], self.over[row]], 1)

    def loss_of(self, score: Tensor, row: Tensor, weight: Tensor) -> Tensor:
        """The loss of their scores [B, 2 C], weighted."""
        under, over = score.chunk(2, 1)
        return relaxed_ranking(under, over, weight, self.under_valid[row], self.over_valid[row])
