"""UnKD: unbiased knowledge distillation by popularity strata."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from recdistill.distill.base import Distiller, device_of
from recdistill.distill.sampling import allocate, draw_pairs
from recdistill.errors import require
from recdistill.losses import distinct, pairwise
from recdistill.models.base import Recommender, Scorer
from recdistill.types import Batch, GroupLists, Interactions, Knowledge


class UnKD(Distiller):
    """Unbiased knowledge distillation: learn the teacher's order only among items of like popularity.

    Paper: Chen et al., "Unbiased Knowledge Distillation for Recommendation", WSDM 2023, section 4. Items are split
    into groups of equal summed popularity; S_ug are pairs (i+, i-) of user u in group g, i+ above i- in the teacher's
    ranking, both ranks drawn with probability proportional to exp(-rank / mu):

        loss(u) = mean over g and (i+, i-) in S_ug of softplus( -(s(u, i+) - s(u, i-)) )

    Pairs are drawn anew every epoch. Averaged over the distinct users of a batch, equal to the mean over users only
    in expectation.

    Differs from the paper: a mean over pairs, as in the authors' code, where the paper sums (its lambda is `weight`
    divided by `pairs`). Differs from the authors' code: a pair is always two different items (theirs has a defect
    that makes about half of the pairs one item twice, so their kd_weight 1 is about 0.5 here); the number of pairs
    is exact; a (user, group) with fewer than two items is skipped and counted instead of looping for ever; groups
    come from midpoint quantiles, which always give the number that was asked for.

    Args:
        weight: factor on this term.
        groups: number of popularity groups.
        pairs: pairs per user and epoch, shared equally among the groups.
        mu: flatness of the draw, in ranks.
        depth: how many items of each group's ranking are kept per user.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"ranking"})

    def __init__(
        self, *, weight: float = 0.05, groups: int = 4, pairs: int = 30, mu: float = 20.0, depth: int = 1000
    ) -> None:
        """Check the settings."""
        super().__init__()
        require(weight >= 0, "weight", weight, ">= 0")
        require(groups >= 1, "groups", groups, ">= 1")
        require(pairs >= groups, "pairs", pairs, f">= groups={groups}")
        require(mu > 0, "mu", mu, "> 0")
        require(depth >= 2, "depth", depth, ">= 2")
        self.weight, self.groups, self.pairs, self.mu = weight, groups, pairs, mu
        self.group_lists = GroupLists(groups, depth)

    def prepare(
        self, knowledge: Knowledge, interactions: Interactions, student: Recommender, generator: torch.Generator
    ) -> None:
        """Take the teacher's lists per group, and count the cells that are too short for a pair."""
        labels, device = knowledge.one(), device_of(student)
        assert labels.group_item is not None  # requested by `group_lists`
        assert labels.group_length is not None
        self.lists = labels.group_item.to(device)  # [U, G, M]
        self.length = labels.group_length.to(device).long()  # [U, G]
        self.skipped = int((labels.group_length < 2).sum())
        self.per_group = allocate(self.pairs, [1.0] * self.groups)

    def on_epoch_start(self, epoch: int, student: Recommender, generator: torch.Generator) -> None:
        """Draw every user's pairs."""
        better, worse, valid = [], [], []
        for g, number in enumerate(self.per_group):
            length, ranked = self.length[:, g], self.lists[:, g]
            high, low = draw_pairs(length, number, self.mu, generator)
            last = ranked.shape[1] - 1
            better.append(ranked.gather(1, high.clamp(0, last)))
            worse.append(ranked.gather(1, low.clamp(0, last)))
            valid.append((length >= 2).unsqueeze(1).expand_as(high))
        self.better = torch.cat(better, 1).long()  # [U, P]
        self.worse = torch.cat(worse, 1).long()
        self.valid = torch.cat(valid, 1)

    def forward(self, scorer: Scorer, batch: Batch) -> dict[str, Tensor]:
        """The pairwise loss over the distinct users of the batch."""
        if self.weight == 0:
            return {}
        user, weight = distinct(batch.user)
        score = scorer.pair_scores(user, torch.cat([self.better[user], self.worse[user]], 1))
        better, worse = score.chunk(2, 1)
        return {"unkd": self.weight * pairwise(better, worse, self.valid[user], weight)}

    def to_record(self) -> dict[str, float]:
        """How many (user, group) cells had fewer than two items."""
        return {"skipped_cells": self.skipped}
