"""From a trained recommender to the rows of soft labels of a block of users."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recdistill.dataset.sampling import SeenItems
from recdistill.models.base import Scorer
from recdistill.ranking import by_chunk, select_top
from recdistill.runtime import for_ranking
from recdistill.types import GroupLists


@dataclass(frozen=True)
class Layout:
    """The fields of a store of soft labels: name, shape of one user's row, and dtype.

    Args:
        n_items: size of the catalogue.
        depth: D, items kept per user (clipped to the catalogue).
        group: [I] popularity group of each item, or None; items of group -1 are in no list.
        group_depth: Dg, items kept per user and group.
        request: what the groups were made by, for the record.
    """

    n_items: int
    depth: int
    group: Tensor | None = None
    group_depth: int = 0
    request: GroupLists | None = None

    def fields(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Row shape and dtype by field."""
        depth = min(self.depth, self.n_items)
        fields: dict[str, tuple[tuple[int, ...], str]] = {
            "item": ((depth,), "<i4"),
            "score": ((depth,), "<f4"),
            "length": ((), "<i4"),
        }
        if self.group is not None:
            groups = int(self.group.max()) + 1
            widest = int(self.group[self.group >= 0].bincount().max())
            fields["group_item"] = ((groups, min(self.group_depth, widest)), "<i4")
            fields["group_length"] = ((groups,), "<i4")
        return fields


@for_ranking()
def extract(scorer: Scorer, seen: SeenItems, user: Tensor, layout: Layout) -> dict[str, np.ndarray]:
    """Ranked unseen items of some users, overall and per popularity group.

    Args:
        scorer: of the teacher.
        seen: the training items, which are left out; held-out items are not.
        user: [n] int64 on the scorer's device.
        layout: which fields.

    Returns:
        Field name to array [n, ...]; entries beyond a row's length are 0.
    """
    fields = layout.fields()
    members = _members(layout, user.device)

    def rows(_: Tensor, score: Tensor) -> dict[str, Tensor]:
        row = dict(zip(("item", "score", "length"), _padded(*select_top(score, layout.depth)), strict=True))
        if members:
            width = fields["group_item"][0][1]
            lists = [_group_list(score, member, width) for member in members]
            row["group_item"] = torch.stack([item for item, _ in lists], 1)
            row["group_length"] = torch.stack([length for _, length in lists], 1)
        return row

    parts = by_chunk(scorer, seen, user, layout.n_items, rows)
    joined = {name: torch.cat([part[name] for part in parts]) for name in fields}
    return {name: joined[name].cpu().numpy().astype(dtype) for name, (_, dtype) in fields.items()}


def _members(layout: Layout, device: torch.device) -> list[Tensor]:
    if layout.group is None:
        return []
    groups = int(layout.group.max()) + 1
    return [(layout.group == g).nonzero().squeeze(1).to(device) for g in range(groups)]


def _group_list(score: Tensor, member: Tensor, width: int) -> tuple[Tensor, Tensor]:
    column, value = select_top(score.index_select(1, member), width)
    item, _, length = _padded(member[column], value)
    missing = width - item.shape[1]
    return torch.nn.functional.pad(item, (0, missing)), length


def _padded(item: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Items and scores with the places behind a user's last unseen item set to 0, and the row lengths."""
    found = score != -torch.inf  # NaN stays, to be refused
    zero = torch.zeros((), device=score.device)
    return torch.where(found, item, zero.long()), torch.where(found, score, zero), found.sum(1)
