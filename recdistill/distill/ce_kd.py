"""CE-KD: cross-entropy between teacher and student over a few top items."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from recdistill.dataset.sampling import SeenItems
from recdistill.distill.base import Distiller, device_of
from recdistill.errors import require
from recdistill.losses import distinct, soft_cross_entropy, soft_targets, weighted_mean
from recdistill.models.base import InnerProductScorer, Recommender, Scorer
from recdistill.ranking import top_k
from recdistill.types import Batch, Interactions, Knowledge, SoftLabels


class CEKD(Distiller):
    """Cross-entropy distillation on a subset: the teacher's softmax over K items of each user.

    Source: the classical loss of Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015, on a
    top-K subset; the form that Zhu and Zhang (ICLR 2026; see RCE-KD) start from. With s and t the raw
    scores of student and teacher and J_u the first K items of the guide's ranking of unseen items:

        loss(u) = - sum_{i in J_u} softmax_J(t / temperature)_i log softmax_J(s / temperature)_i

    The guide is the student as it is at the start of each epoch, or the teacher. `signal: ranks` uses
    -place / rank_temperature in place of t, place 1 being the teacher's favourite in J_u: for a teacher that only
    ranks. Averaged over the distinct users of a batch, or over its rows.

    Differs from the published code: the softmax is stable; training items are left out of J_u (see `reference_quirks`);
    means instead of sums, here and in the base loss.

    Cost per step: B x K pairs for the B distinct users of a batch. Per epoch, for `guide: student`: the student's
    ranking of all U x I scores, one chunk in memory, and the teacher's scores of U x K pairs.

    Args:
        weight: factor on this term.
        items: K.
        temperature: of both softmaxes; no factor temperature^2, so gradients shrink as it grows.
        guide: whose top K form the subset: `student` or `teacher`.
        signal: what the teacher says about them: `scores` or `ranks`.
        rank_temperature: flatness of the targets made from ranks (`signal: ranks` only).
        per: `user` weighs the distinct users of a batch equally, `row` each by its rows.
        reference_quirks: leave training items among the guide's top K, as the published code does.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"ranking", "scores", "vectors"})

    def __init__(
        self,
        *,
        weight: float = 1.0,
        items: int = 50,
        temperature: float = 1.0,
        guide: str = "student",
        signal: str = "scores",
        rank_temperature: float = 10.0,
        per: str = "user",
        reference_quirks: bool = False,
    ) -> None:
        """Check the settings."""
        super().__init__()
        require(weight >= 0, "weight", weight, ">= 0")
        require(items >= 1, "items", items, ">= 1")
        require(temperature > 0, "temperature", temperature, "> 0")
        require(guide in ("student", "teacher"), "guide", guide, "student or teacher")
        require(signal in ("scores", "ranks"), "signal", signal, "scores or ranks")
        require(rank_temperature > 0, "rank_temperature", rank_temperature, "> 0")
        require(per in ("user", "row"), "per", per, "user or row")
        self.weight, self.items, self.temperature, self.guide = weight, items, temperature, guide
        self.signal, self.rank_temperature, self.per, self.quirks = signal, rank_temperature, per, reference_quirks
        if guide == "teacher" and not reference_quirks:
            self.depth = items
            signals = {"ranking"} if signal == "ranks" else {"ranking", "scores"}
            self.requires = frozenset(signals)  # type: ignore[misc]  # arbitrary items are asked for otherwise

    def prepare(
        self, knowledge: Knowledge, interactions: Interactions, student: Recommender, generator: torch.Generator
    ) -> None:
        """Take the teacher's vectors, or its top items and their targets."""
        labels, device = knowledge.one(), device_of(student)
        self.n_items = interactions.n_items
        self.everybody = torch.arange(interactions.n_users, device=device)
        self.seen = SeenItems(interactions.none() if self.quirks else interactions, device)
        self.labels: SoftLabels = labels.to(device, self.depth)
        if self.guide == "teacher" and not self.quirks:
            item = self.labels.item[:, : self.items].long()
            self._hold(item, self.labels.length, self.labels.score[:, : self.items])
        elif self.guide == "teacher":
            assert labels.user_vectors is not None  # required
            assert labels.item_vectors is not None
            teacher = InnerProductScorer(labels.user_vectors.to(device), labels.item_vectors.to(device))
            self._hold_top_of(teacher)

    def on_epoch_start(self, epoch: int, student: Recommender, generator: torch.Generator) -> None:
        """Rank with the student."""
        if self.guide == "student":
            with torch.no_grad():
                self._hold_top_of(student.scorer())

    def _hold_top_of(self, guide: Scorer) -> None:
        top = top_k(guide, self.seen, self.everybody, self.n_items, self.items)
        self._hold(top.item, top.length, self.labels.score_at(self.everybody, top.item))

    def _hold(self, item: Tensor, length: Tensor, score: Tensor) -> None:
        """Keep the subset [U, K] and the teacher's probabilities on it."""
        self.item, self.valid = item, torch.arange(item.shape[1], device=item.device) < length.unsqueeze(1)
        if self.signal == "ranks":
            held = score.masked_fill(~self.valid, -torch.inf)
            place = held.argsort(dim=1, descending=True, stable=True).argsort(dim=1) + 1
            score = -place / self.rank_temperature
        self.target = soft_targets(score, self.valid, self.temperature)

    def forward(self, scorer: Scorer, batch: Batch) -> dict[str, Tensor]:
        """The cross-entropy over each user's subset."""
        if self.weight == 0:
            return {}
        user, share = distinct(batch.user, per_row=self.per == "row")
        score = scorer.pair_scores(user, self.item[user])
        loss = soft_cross_entropy(self.target[user], score, self.valid[user], self.temperature)
        return {"ce_kd": self.weight * weighted_mean(loss, share)}
