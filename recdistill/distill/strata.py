"""Strata: a list loss inside each popularity group."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from recdistill.dataset.popularity import popularity_groups
from recdistill.distill.base import Distiller, device_of
from recdistill.distill.rrd import RRD
from recdistill.distill.sampling import allocate
from recdistill.errors import require
from recdistill.models.base import Recommender, Scorer
from recdistill.types import Batch, GroupLists, Interactions, Knowledge


class Strata(Distiller):
    """The list loss of RRD inside each popularity group, alone or mixed with the one over the whole catalogue.

    UnKD (Chen et al., WSDM 2023) compares a teacher's items only with items of like popularity, in pairs; RRD (Kang et
    al., CIKM 2020) compares whole lists, with everything. This takes UnKD's groups and RRD's loss; it is recdistill's
    own. With L(pi; Z) the list loss of the items pi, in the teacher's order, above the items Z:

        loss(u) = (1 - mix) sum over groups g of L( top K/G of g; the other unseen items of g )
                + mix L( top K; all other unseen items )

    Averaged over the distinct users of a batch. Groups have equal summed popularity; an item without a training
    interaction is in no group.

    Cost per step: that of RRD with the same K for the B distinct users (its items are shared among the groups), and
    once more where 0 < mix < 1.

    Args:
        weight: factor on both terms.
        mix: share of the list over the whole catalogue; 0 is strata alone, 1 is RRD.
        groups: G, number of popularity groups.
        interesting: K, items kept in order per user, shared equally among the groups.
        uninteresting: items kept below per user, shared equally among the groups (`rest: sampled` only).
        depth: how far down the teacher's ranking of each group, and of all, to look (`draw: sampled` only).
        temperature: flatness of the draw, in ranks (`draw: sampled` only).
        draw: `top` or `sampled`, as in RRD.
        rest: `all` or `sampled`, as in RRD; sampled ones come from outside the training items and the top K/G of the
            group (`draw: sampled`: its top `depth`).
    """

    requires: ClassVar[frozenset[str]] = frozenset({"ranking"})

    def __init__(
        self,
        *,
        weight: float = 0.1,
        mix: float = 0.0,
        groups: int = 4,
        interesting: int = 40,
        uninteresting: int = 40,
        depth: int = 200,
        temperature: float = 10.0,
        draw: str = "top",
        rest: str = "all",
    ) -> None:
        """Check the settings."""
        super().__init__()
        require(weight >= 0, "weight", weight, ">= 0")
        require(0 <= mix <= 1, "mix", mix, "from 0 to 1")
        require(groups >= 1, "groups", groups, ">= 1")
        require(interesting >= groups, "interesting", interesting, f">= groups={groups}")
        require(uninteresting >= groups, "uninteresting", uninteresting, f">= groups={groups}")
        self.weight, self.mix, self.groups, self.depth = weight, mix, groups, depth
        self.whole = RRD(
            interesting=interesting,
            uninteresting=uninteresting,
            depth=depth,
            temperature=temperature,
            draw=draw,
            rest=rest,
        )
        equal = [1.0] * groups
        shares = zip(allocate(interesting, equal), allocate(uninteresting, equal), strict=True)
        self.parts = nn.ModuleList()
        for kept, below in shares:
            reach = kept if draw == "top" else depth
            self.parts.append(
                RRD(interesting=kept, uninteresting=below, depth=reach, temperature=temperature, draw=draw, rest=rest)
            )
        self.group_lists = GroupLists(groups, depth)

    def prepare(
        self, knowledge: Knowledge, interactions: Interactions, student: Recommender, generator: torch.Generator
    ) -> None:
        """Give every group its own small catalogue."""
        labels, device = knowledge.one(), device_of(student)
        assert labels.group_item is not None  # requested by `group_lists`
        assert labels.group_length is not None
        self.whole.hold(labels.item, labels.length, interactions, device)
        popularity = interactions.popularity()
        group = torch.where(popularity > 0, popularity_groups(popularity, self.groups), -1)
        place = torch.zeros_like(group)  # of an item in its group
        self.members: list[Tensor] = []
        for g, part in enumerate(self._parts()):
            member = (group == g).nonzero().squeeze(1)
            place[member] = torch.arange(len(member))
            held = group[interactions.item] == g
            inner = Interactions(
                interactions.user[held], place[interactions.item[held]], interactions.n_users, len(member)
            )
            ranked, length = labels.group_item[:, g].long(), labels.group_length[:, g]
            inside = torch.arange(ranked.shape[1]) < length.unsqueeze(1)
            part.hold(torch.where(inside, place[ranked], 0), length, inner, device)
            self.members.append(member.to(device))

    def _parts(self) -> list[RRD]:
        return [part for part in self.parts if isinstance(part, RRD)]

    def on_epoch_start(self, epoch: int, student: Recommender, generator: torch.Generator) -> None:
        """Redraw what is drawn."""
        for part in (self.whole, *self._parts()):
            part.on_epoch_start(epoch, student, generator)

    def forward(self, scorer: Scorer, batch: Batch) -> dict[str, Tensor]:
        """The list losses of the groups and of the whole catalogue."""
        if self.weight == 0:
            return {}
        terms = {}
        if self.mix < 1:
            losses = [
                part.list_loss(scorer.among(member), batch.user)
                for part, member in zip(self._parts(), self.members, strict=True)
            ]
            terms["strata"] = self.weight * (1 - self.mix) * torch.stack(losses).sum()
        if self.mix > 0:
            terms["whole"] = self.weight * self.mix * self.whole.list_loss(scorer, batch.user)
        return terms
