"""A distiller over several teachers' checkpoints with progress per user (as HetComp has)."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from recdistill.distill.base import Distiller, device_of
from recdistill.errors import require
from recdistill.losses import distinct, plackett_luce
from recdistill.models.base import Recommender, Scorer
from recdistill.types import Batch, Interactions, Knowledge


class Curriculum(Distiller):
    """The list of each teacher's current checkpoint above all other items; users move on once they follow it."""

    requires: ClassVar[frozenset[str]] = frozenset({"ranking", "trajectory"})
    teachers = None
    replaces_base_loss = True

    def __init__(self, *, weight: float = 1.0, keep: int = 6) -> None:
        super().__init__()
        require(weight > 0, "weight", weight, "> 0")
        require(keep >= 2, "keep", keep, ">= 2")
        self.weight, self.keep, self.depth = weight, keep, keep

    def prepare(
        self, knowledge: Knowledge, interactions: Interactions, student: Recommender, generator: torch.Generator
    ) -> None:
        device = device_of(student)
        self.lists: list[Tensor] = []  # for each teacher [E, U, K]
        self.valid: list[Tensor] = []
        place = torch.arange(self.keep)
        for teacher in knowledge.teachers.values():
            items = torch.stack([one.item[:, : self.keep] for one in teacher.checkpoints])
            length = torch.stack([one.length for one in teacher.checkpoints])
            self.lists.append(items.long().to(device))
            self.valid.append((place < length.unsqueeze(2)).to(device))
        self.everybody = torch.arange(interactions.n_users, device=device)
        stage = torch.zeros(interactions.n_users, len(self.lists), dtype=torch.int64, device=device)
        self.register_buffer("stage", stage)

    def on_epoch_start(self, epoch: int, student: Recommender, generator: torch.Generator) -> None:
        with torch.no_grad():
            scorer = student.scorer()
            for t, lists in enumerate(self.lists):
                current = lists[self.stage[:, t], self.everybody]
                score = scorer.pair_scores(self.everybody, current)
                follows = score[:, 0] >= score[:, -1]
                self.stage[:, t] = (self.stage[:, t] + follows).clamp(max=len(lists) - 1)

    def forward(self, scorer: Scorer, batch: Batch) -> dict[str, Tensor]:
        user, share = distinct(batch.user)
        terms = {}
        for t, (lists, valid) in enumerate(zip(self.lists, self.valid, strict=True)):
            stage = self.stage[user, t]
            item, inside = lists[stage, user], valid[stage, user]
            row = torch.arange(len(user), device=user.device).unsqueeze(1).expand_as(item)
            row = torch.where(inside, row, len(user)).flatten()
            head = partial(_above, score=scorer.pair_scores(user, item), valid=inside, share=share)
            terms[f"teacher{t}"] = self.weight * scorer.catalogue_loss(user, head, row, item.flatten())
        return terms

    def to_record(self) -> dict[str, float]:
        return {"mean_stage": float(self.stage.double().mean())}


def _above(rest: Tensor, rows: slice, *, score: Tensor, valid: Tensor, share: Tensor) -> Tensor:
    return plackett_luce(score[rows], rest, valid[rows], share[rows])
