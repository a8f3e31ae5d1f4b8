"""The popularity baseline."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from recdistill.models.base import Recommender, Scorer
from recdistill.types import Batch, Interactions


class MostPop(Recommender):
    """MostPop: the score of an item is its number of distinct training users, the same for everybody."""

    provides: ClassVar[frozenset[str]] = frozenset({"ranking", "scores"})

    def prepare(self, interactions: Interactions, generator: torch.Generator) -> None:
        """Count."""
        self.register_buffer("popularity", interactions.popularity().to(torch.float32))

    def scorer(self) -> Scorer:
        """The counts."""
        return _PopularityScorer(self.get_buffer("popularity"))

    def loss(self, scorer: Scorer, batch: Batch) -> Tensor:
        """Nothing to train."""
        return torch.zeros((), device=batch.user.device)


class _PopularityScorer(Scorer):
    def __init__(self, popularity: Tensor) -> None:
        self.popularity = popularity

    def pair_scores(self, user: Tensor, item: Tensor) -> Tensor:
        return self.popularity[item]

    def all_scores(self, user: Tensor) -> Tensor:
        return self.popularity.repeat(len(user), 1)  # a copy: who ranks writes -inf into it
