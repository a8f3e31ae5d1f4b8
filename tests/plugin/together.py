"""A distiller that trains the teacher too (as BD does)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from recdistill.distill.base import Distiller, device_of
from recdistill.errors import require
from recdistill.models.base import Recommender, Scorer
from recdistill.types import Batch, Interactions, Knowledge


class Together(Distiller):
    """Each model learns the other's probabilities of a row's items; the teacher keeps its own loss as well."""

    requires: ClassVar[frozenset[str]] = frozenset({"live"})

    def __init__(self, *, weight: float = 0.5) -> None:
        super().__init__()
        require(weight >= 0, "weight", weight, ">= 0")
        self.weight = weight

    def prepare(
        self, knowledge: Knowledge, interactions: Interactions, student: Recommender, generator: torch.Generator
    ) -> None:
        (live,) = knowledge.live.values()
        self.teacher: Recommender = live().to(device_of(student))

    def forward(self, scorer: Scorer, batch: Batch) -> dict[str, Tensor]:
        if self.weight == 0:
            return {}
        teacher = self.teacher.scorer()
        item = torch.cat([batch.positive.unsqueeze(1), batch.negative], 1)
        ours, theirs = scorer.pair_scores(batch.user, item), teacher.pair_scores(batch.user, item)
        return {
            "to_student": self.weight * binary_cross_entropy_with_logits(ours, theirs.detach().sigmoid()),
            "to_teacher": self.weight * binary_cross_entropy_with_logits(theirs, ours.detach().sigmoid()),
            "teacher_base": self.weight * self.teacher.loss(teacher, batch),
        }

    def trained_models(self, student: Recommender) -> dict[str, Recommender]:
        return {"student": student, "teacher": self.teacher}
