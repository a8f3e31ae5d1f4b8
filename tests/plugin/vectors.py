"""A distiller with a trainable module of its own (as DE has)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from recdistill.distill.base import Distiller, device_of
from recdistill.errors import require
from recdistill.losses import distinct, weighted_mean
from recdistill.models.base import Recommender, Scorer
from recdistill.types import Batch, Interactions, Knowledge


class VectorMatch(Distiller):
    """Mean squared distance between the teacher's vectors and a linear map of the student's."""

    requires: ClassVar[frozenset[str]] = frozenset({"vectors"})

    def __init__(self, *, weight: float = 0.1) -> None:
        super().__init__()
        require(weight >= 0, "weight", weight, ">= 0")
        self.weight = weight

    def prepare(
        self, knowledge: Knowledge, interactions: Interactions, student: Recommender, generator: torch.Generator
    ) -> None:
        labels, device = knowledge.one(), device_of(student)
        self.users, self.items = labels.user_vectors.to(device), labels.item_vectors.to(device)
        own = student.scorer().user_vectors.shape[1]
        self.map = nn.Linear(own, self.users.shape[1], bias=False)
        with torch.no_grad():
            self.map.weight.normal_(0.0, 0.5, generator=generator)
        self.map.to(device)

    def forward(self, scorer: Scorer, batch: Batch) -> dict[str, Tensor]:
        if self.weight == 0:
            return {}
        terms = {}
        for name, ids, own, target in (
            ("user_vectors", batch.user, scorer.user_vectors, self.users),
            ("item_vectors", batch.positive, scorer.item_vectors, self.items),
        ):
            chosen, share = distinct(ids)
            distance = (self.map(nn.functional.embedding(chosen, own)) - target[chosen]).square().mean(1)
            terms[name] = self.weight * weighted_mean(distance, share)
        return terms
