"""IR-RRD: relaxed ranking distillation with item-side regularisation."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from recdistill.distill.base import Distiller, device_of
from recdistill.distill.rrd import RRD
from recdistill.errors import require
from recdistill.models.base import Recommender, Scorer
from recdistill.types import Batch, Interactions, Knowledge


class IRRRD(Distiller):
    """Relaxed ranking distillation on both sides: items per user, and users per item.

    Paper: Kang, Hwang, Kweon and Yu, "Item-side Ranking Regularized Distillation for Recommender System", Information
    Sciences 2021. With L the list loss of RRD (interesting ones in the teacher's order above the uninteresting ones):

        loss = L over the items of each user + item_share * L over the users of each item

    The item side takes the items that the user side has just used: the union of the lists of the batch's users, at most
    `items_per_step` of them (those chosen change every epoch). For an item, the teacher ranks the users who have not
    interacted with it. Each side is averaged over its distinct ids.

    Differs from the authors' code: means instead of sums, here and in the base loss, so `item_share` does not grow with
    the number of items; the number of items is bounded; the defaults take top items and all others, as in RRD.

    Cost per step: that of RRD for the B distinct users of a batch, and again for at most `items_per_step` items: each
    P + N pairs (`rest: sampled`) or one pass over U scores (`rest: all`).

    Args:
        weight: factor on both terms.
        item_share: factor on the item side besides (the paper's lambda_I / lambda_U, times items / users of a step).
        interesting: K, items kept in order per user.
        uninteresting: items kept below per user (`rest: sampled` only).
        depth: how far down the teacher's ranking of items to look; at most `soft_labels.depth`.
        temperature: flatness of the draws on both sides, in ranks (`draw: sampled` only).
        draw: `top` or `sampled`, on both sides.
        rest: `all` or `sampled`, on both sides.
        interesting_users: P, users kept in order per item.
        uninteresting_users: N, users kept below per item (`rest: sampled` only).
        user_depth: how far down the teacher's ranking of users to look.
        items_per_step: most items of a step's item side.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"ranking", "vectors"})

    def __init__(
        self,
        *,
        weight: float = 0.1,
        item_share: float = 0.5,
        interesting: int = 40,
        uninteresting: int = 40,
        depth: int = 200,
        temperature: float = 10.0,
        draw: str = "top",
        rest: str = "all",
        interesting_users: int = 20,
        uninteresting_users: int = 20,
        user_depth: int = 200,
        items_per_step: int = 1024,
    ) -> None:
        """Check the settings."""
        super().__init__()
        require(item_share >= 0, "item_share", item_share, ">= 0")
        require(uninteresting_users >= 1, "uninteresting_users", uninteresting_users, ">= 1")
        require(user_depth >= 1, "user_depth", user_depth, ">= 1")
        require(1 <= interesting_users <= user_depth, "interesting_users", interesting_users, f"from 1 to {user_depth}")
        require(items_per_step >= 1, "items_per_step", items_per_step, ">= 1")
        self.users = RRD(
            weight=weight,
            interesting=interesting,
            uninteresting=uninteresting,
            depth=depth,
            temperature=temperature,
            draw=draw,
            rest=rest,
        )
        self.items = RRD(
            interesting=interesting_users,
            uninteresting=uninteresting_users,
            depth=user_depth,
            temperature=temperature,
            draw=draw,
            rest=rest,
        )
        self.weight, self.item_share, self.items_per_step = weight, item_share, items_per_step
        self.depth, self.user_depth = depth, user_depth

    def prepare(
        self, knowledge: Knowledge, interactions: Interactions, student: Recommender, generator: torch.Generator
    ) -> None:
        """Take the teacher's rankings of both sides."""
        labels, device = knowledge.one(), device_of(student)
        assert labels.transposed is not None  # requested by `user_depth`
        self.users.hold(labels.item, labels.length, interactions, device)
        self.items.hold(labels.transposed.item, labels.transposed.length, interactions.transposed(), device)
        self.n_items = interactions.n_items

    def on_epoch_start(self, epoch: int, student: Recommender, generator: torch.Generator) -> None:
        """Redraw what is drawn, and which items come first where a step has too many."""
        self.users.on_epoch_start(epoch, student, generator)
        self.items.on_epoch_start(epoch, student, generator)
        self.turn = torch.rand(self.n_items, generator=generator, device=device_of(student))  # [I]

    def forward(self, scorer: Scorer, batch: Batch) -> dict[str, Tensor]:
        """The list loss of both sides."""
        if self.weight == 0:
            return {}
        terms = {"rrd": self.weight * self.users.list_loss(scorer, batch.user)}
        if self.item_share > 0:
            item, found = self._used(batch.user)
            loss = self.items.list_loss(scorer.transposed(), item) * found
            terms["ir"] = self.weight * self.item_share * loss
        return terms

    def _used(self, user: Tensor) -> tuple[Tensor, Tensor]:
        """The items [M] in the lists of some users, filled up with repeats, and whether there is any.

        One mark per item of the catalogue instead of a sort of all entries: its shape is known without a sync.
        """
        used = self.turn.new_zeros(self.n_items + 1, dtype=torch.bool)
        entries = [(self.users.kept, self.users.kept_valid)]
        if self.users.rest == "sampled":
            entries.append((self.users.below, self.users.below_valid))
        for item, valid in entries:
            used.index_fill_(0, torch.where(valid[user], item[user], self.n_items).flatten(), True)
        turn = torch.where(used[:-1], self.turn, 2.0)  # unused ones last
        value, chosen = turn.topk(min(self.items_per_step, self.n_items), largest=False, sorted=True)
        return torch.where(value < 2.0, chosen, chosen[0]), value[0] < 2.0
