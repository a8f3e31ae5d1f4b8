"""Strata: a list loss inside each popularity group."""

from __future__ import annotations

from itertools import accumulate
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from recdistill.dataset.popularity import popularity_groups
from recdistill.distill.base import Distiller, device_of, inside
from recdistill.distill.rrd import RRD
from recdistill.distill.sampling import allocate
from recdistill.errors import require
from recdistill.losses import distinct, joined_masses, plackett_luce
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

    Cost per step: that of RRD with the same K for the B distinct users (its items are shared among the groups); with
    0 < mix < 1 twice the pairs where `rest: sampled`, and the same one pass over the catalogue where `rest: all`.

    Args:
        weight: factor on both terms.
        mix: share of the list over the whole catalogue; 0 is strata alone, 1 is RRD.
        groups: G, number of popularity groups.
        interesting: K, items kept in order per user, shared equally among the groups.
        uninteresting: items kept below per user, shared equally among the groups (`rest: sampled` only).
        depth: how far down the teacher's ranking of each group, and of all, to look (not used by
            `draw: top` with `rest: all`).
        temperature: flatness of the draw, in ranks (`draw: sampled` only).
        draw: `top` or `sampled`, as in RRD.
        rest: `all` or `sampled`, as in RRD; sampled ones come from outside the training items and the top K/G of the
            group (`draw: sampled`: its top `depth`); those of the whole list from outside its top `depth`.
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
        members = [(group == g).nonzero().squeeze(1) for g in range(self.groups)]
        for g, (part, member) in enumerate(zip(self._parts(), members, strict=True)):
            place[member] = torch.arange(len(member))
            held = group[interactions.item] == g
            inner = Interactions(
                interactions.user[held], place[interactions.item[held]], interactions.n_users, len(member)
            )
            ranked, length = labels.group_item[:, g].long(), labels.group_length[:, g]
            inside_list = torch.arange(ranked.shape[1]) < length.unsqueeze(1)
            part.hold(torch.where(inside_list, place[ranked], 0), length, inner, device)
        self.members = [member.to(device) for member in members]
        # The catalogue in another order, the groups one after the other and then what is in none.
        nowhere = (group < 0).nonzero().squeeze(1)
        order = torch.cat([*members, nowhere])
        self.sizes = [*map(len, members), len(nowhere)]
        self.group = torch.where(group < 0, self.groups, group).to(torch.int16).to(device)  # [I]
        self.order, self.place = order.to(device), order.argsort().to(device)
        if self.mixed and self.whole.draw == "top":
            self._compare_lists()

    @property
    def mixed(self) -> bool:
        """Whether both terms are there and share one pass over the catalogue."""
        return 0 < self.mix < 1 and self.whole.rest == "all"

    def _parts(self) -> list[RRD]:
        return [part for part in self.parts if isinstance(part, RRD)]

    def on_epoch_start(self, epoch: int, student: Recommender, generator: torch.Generator) -> None:
        """Redraw what is drawn."""
        for part in (self.whole, *self._parts()):
            part.on_epoch_start(epoch, student, generator)
        if self.mixed and self.whole.draw == "sampled":
            self._compare_lists()

    def _compare_lists(self) -> None:
        """Which group's rest an item of the whole list is in (G: none, or listed there); the other way round."""
        own, own_valid = self._group_lists(self.whole.user)
        own, own_valid = own.flatten(1), own_valid.flatten(1)
        whole, n_items = self.place[self.whole.kept], len(self.order)
        listed = inside(whole, self.whole.kept_valid, own, own_valid, n_items)
        self.in_rest_of = self.group[self.whole.kept].masked_fill_(
            listed | ~self.whole.kept_valid, self.groups
        )  # [U, K]
        self.only_own = own_valid & ~inside(own, own_valid, whole, self.whole.kept_valid, n_items)

    def _group_lists(self, user: Tensor) -> tuple[Tensor, Tensor]:
        """Each group's list of some users, as places in `order`, and which are valid: [B, G, K], the longest group's K.

        What is short is filled up at the end.
        """
        parts = self._parts()
        k = max(part.kept.shape[1] for part in parts)
        first = [0, *accumulate(self.sizes)]
        kept, valid = [], []
        for part, start in zip(parts, first[: self.groups], strict=True):
            missing = 0, k - part.kept.shape[1]
            kept.append(functional.pad(part.kept[user] + start, missing))
            valid.append(functional.pad(part.kept_valid[user], missing))
        return torch.stack(kept, 1), torch.stack(valid, 1)

    def forward(self, scorer: Scorer, batch: Batch) -> dict[str, Tensor]:
        """The list losses of the groups and of the whole catalogue."""
        if self.weight == 0:
            return {}
        if self.mix == 1:
            return {"whole": self.weight * self.whole.list_loss(scorer, batch.user)}
        if self.whole.rest == "all":
            names = ["strata", "whole"] if self.mixed else ["strata"]
            return dict(zip(names, self.weight * self._one_pass(scorer, batch.user), strict=True))
        losses = [
            part.list_loss(scorer.among(member), batch.user)
            for part, member in zip(self._parts(), self.members, strict=True)
        ]
        terms = {"strata": self.weight * (1 - self.mix) * torch.stack(losses).sum()}
        if self.mix > 0:
            terms["whole"] = self.weight * self.mix * self.whole.list_loss(scorer, batch.user)
        return terms

    def _one_pass(self, scorer: Scorer, ids: Tensor) -> Tensor:
        """Both losses over all other items [T], without `weight`.

        The groups' masses, of items in no list, make up the mass of the whole; a list's rest is the masses and the
        items that only other lists hold. Nothing is ever subtracted from a mass.
        """
        user, weight = distinct(ids)
        own, own_valid = self._group_lists(user)
        n_own = own.shape[1] * own.shape[2]
        listed, apart = [own.flatten(1)], [own_valid.flatten(1)]
        if self.mixed:
            listed.append(self.place[self.whole.kept[user]])
            apart.append(self.whole.kept_valid[user])
            in_rest_of, only_own = self.in_rest_of[user].long(), self.only_own[user]

        def head(mass: Tensor, score: Tensor, rows: slice) -> Tensor:
            share = weight[rows]
            rest = mass[:, : self.groups]
            if self.mixed:
                of_whole = score[:, n_own:]
                rest = joined_masses(rest, of_whole, in_rest_of[rows])
            lists = score[:, :n_own].reshape(-1, own.shape[2])
            each = share.unsqueeze(1).expand_as(rest).flatten()
            loss = (1 - self.mix) * plackett_luce(lists, rest.flatten(), own_valid[rows].flatten(0, 1), each)
            if not self.mixed:
                return loss.unsqueeze(0)
            # The lowest number instead of -inf, whose log-sum-exp has no gradient.
            lowest = torch.finfo(mass.dtype).min
            others = score[:, :n_own].masked_fill(~only_own[rows], lowest)
            rest = torch.cat([mass.clamp(min=lowest), others], 1).logsumexp(1)
            return torch.stack([loss, self.mix * plackett_luce(of_whole, rest, apart[1][rows], share)])

        row, item = self.whole.seen.flat(user, weight > 0)
        return scorer.among(self.order).listed_loss(
            user, head, torch.cat(listed, 1), torch.cat(apart, 1), row, self.place[item], sizes=self.sizes
        )
