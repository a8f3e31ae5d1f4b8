"""UnKD: unbiased knowledge distillation by popularity strata."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from recdistill.dataset.popularity import PARTITIONS, popularity_groups
from recdistill.distill.base import Distiller, device_of
from recdistill.distill.sampling import allocate, draw_pairs, inverse_shares
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
    in expectation, or over its rows.

    Differs from the paper: a mean over pairs, as in the authors' code, where the paper sums (its lambda is `weight`
    divided by `pairs`). Differs from the authors' code: a pair is always two different items (theirs has a defect
    that makes about half of the pairs one item twice, so their kd_weight 1 is about 0.5 here; see `reference_quirks`);
    the number of pairs is exact; a (user, group) with fewer than two items is skipped and counted instead of looping
    for ever; groups come from midpoint quantiles, which always give the number that was asked for.

    Cost per step: B x 2 P pairs for the B distinct users of a batch.

    Args:
        weight: factor on this term.
        groups: number of popularity groups.
        pairs: P, pairs per user and epoch, shared among the groups.
        mu: flatness of the draw, in ranks.
        depth: how many items of each group's ranking are kept per user.
        partition: how items are grouped: `quantile` or `greedy` (equal summed popularity; the second as the authors do,
            which can give one group too many) or `equal_count` (equal numbers of items).
        allocation: 0 shares the pairs equally; at 1 a group's share falls with the mean popularity of its items; it is
            an exponent (the authors' lamda).
        per: `user` weighs the distinct users of a batch equally, `row` each by its rows (the authors' way).
        reference_quirks: as the authors' code: a drawn pair that is out of order becomes its better item twice, and
            each group's number of pairs is rounded on its own (32 instead of 30 with 4 groups).
    """

    requires: ClassVar[frozenset[str]] = frozenset({"ranking"})

    def __init__(
        self,
        *,
        weight: float = 0.05,
        groups: int = 4,
        pairs: int = 30,
        mu: float = 20.0,
        depth: int = 1000,
        partition: str = "quantile",
        allocation: float = 0.0,
        per: str = "user",
        reference_quirks: bool = False,
    ) -> None:
        """Check the settings."""
        super().__init__()
        require(weight >= 0, "weight", weight, ">= 0")
        require(groups >= 1, "groups", groups, ">= 1")
        require(pairs >= groups, "pairs", pairs, f">= groups={groups}")
        require(mu > 0, "mu", mu, "> 0")
        require(depth >= 2, "depth", depth, ">= 2")
        require(partition in PARTITIONS, "partition", partition, f"one of {', '.join(PARTITIONS)}")
        require(allocation >= 0, "allocation", allocation, ">= 0")
        require(per in ("user", "row"), "per", per, "user or row")
        self.weight, self.groups, self.pairs, self.mu = weight, groups, pairs, mu
        self.allocation, self.per, self.quirks = allocation, per, reference_quirks
        self.group_lists = GroupLists(groups, depth, partition)

    def prepare(
        self, knowledge: Knowledge, interactions: Interactions, student: Recommender, generator: torch.Generator
    ) -> None:
        """Take the teacher's lists per group, and count the cells that are too short for a pair."""
        labels, device = knowledge.one(), device_of(student)
        assert labels.group_item is not None  # requested by `group_lists`
        assert labels.group_length is not None
        assert self.group_lists is not None
        depth = self.group_lists.depth  # a store may hold more, for another part of a combination
        self.lists = labels.group_item[:, :, :depth].to(device)  # [U, G, M]
        self.length = labels.group_length.to(device).long().clamp(max=depth)  # [U, G]
        self.skipped = int((labels.group_length < 2).sum())
        self.per_group = self._numbers(interactions.popularity())

    def _numbers(self, popularity: Tensor) -> list[int]:
        """Pairs of each group."""
        assert self.group_lists is not None
        group = popularity_groups(popularity, self.groups, self.group_lists.partition)
        held = [popularity[(group == g) & (popularity > 0)] for g in range(self.lists.shape[1])]
        share = inverse_shares([float(one.double().mean()) for one in held], self.allocation, coarse=self.quirks)
        if not self.quirks:
            return allocate(self.pairs, share)
        number = [round(self.pairs * part) for part in share]
        short = self.pairs - sum(number)
        return [one + (g < short) for g, one in enumerate(number)]

    def on_epoch_start(self, epoch: int, student: Recommender, generator: torch.Generator) -> None:
        """Draw every user's pairs."""
        better, worse, valid = [], [], []
        for g, number in enumerate(self.per_group):
            length, ranked = self.length[:, g], self.lists[:, g]
            high, low = draw_pairs(length, number, self.mu, generator)
            if self.quirks:  # either of two draws is the first equally often
                swapped = torch.rand(low.shape, generator=generator, device=low.device) < 0.5
                low = torch.where(swapped, high, low)
            last = ranked.shape[1] - 1  # which draws from lists that are too short may pass
            better.append(ranked.gather(1, high.clamp_(max=last)))
            worse.append(ranked.gather(1, low.clamp_(max=last)))
            valid.append((length >= 2).unsqueeze(1).expand_as(high))
        self.better, self.worse = torch.cat(better, 1), torch.cat(worse, 1)  # [U, P], as the lists in int32
        self.valid = torch.cat(valid, 1)

    def forward(self, scorer: Scorer, batch: Batch) -> dict[str, Tensor]:
        """The pairwise loss over the distinct users of the batch."""
        if self.weight == 0:
            return {}
        user, weight = distinct(batch.user, per_row=self.per == "row")
        score = scorer.pair_scores(user, torch.cat([self.better[user], self.worse[user]], 1).long())
        better, worse = score.chunk(2, 1)
        return {"unkd": self.weight * pairwise(better, worse, self.valid[user], weight)}

    def to_record(self) -> dict[str, float]:
        """How many (user, group) cells had fewer than two items."""
        return {"skipped_cells": self.skipped}
