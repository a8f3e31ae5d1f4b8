"""Functions of table rows with their gradients written out: what every training step spends its time on.

Autograd's own look-up keeps every gathered row for the backward pass. Here rows are gathered again, in blocks that fit
a CPU's cache, and their gradients are added to the table's where they are made.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

FEW = 8
BLOCK_BYTES = 1 << 19  # of gathered rows on the CPU, half of a usual second-level cache


def pair_scores(users: Tensor, items: Tensor, user: Tensor, item: Tensor, *, by_rows: bool = False) -> Tensor:
    """Inner products of user rows with item rows.

    Shapes:
        users: [U, d]. items: [I, d]. user: [B]. item: [B, M]. Returns: [B, M]. The gradients are dense, or sparse with
        `by_rows` (both tables are then parameters).
    """
    if by_rows:
        of_user = nn.functional.embedding(user, users, sparse=True)
        of_item = nn.functional.embedding(item, items, sparse=True)
        return (of_item * of_user.unsqueeze(1)).sum(2)
    score: Tensor = _PairScores.apply(users, items, user, item, False)  # type: ignore[no-untyped-call]  # torch's apply has no types
    return score


def scores_and_squares(
    users: Tensor, items: Tensor, user: Tensor, item: Tensor, *, by_rows: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """`pair_scores` with the squared norms of the rows, from one look-up and with one gradient per table.

    Shapes:
        As `pair_scores`. Returns: scores [B, M], squared norms of the user rows [B] and of the item rows [B, M].
    """
    if by_rows:
        of_user = nn.functional.embedding(user, users, sparse=True)
        of_item = nn.functional.embedding(item, items, sparse=True)
        score = (of_item * of_user.unsqueeze(1)).sum(2)
        return score, of_user.square().sum(1), of_item.square().sum(2)
    found: tuple[Tensor, Tensor, Tensor] = _PairScores.apply(users, items, user, item, True)  # type: ignore[no-untyped-call]  # as above
    return found


def half_squares(table: Tensor, row: Tensor, weight: Tensor | None = None) -> Tensor:
    """Half the (weighted) sum of the squared norms of some rows, with a dense gradient.

    Shapes:
        table: [n, d]. row: [m]. weight: [m, 1] or None for ones. Returns: scalar.
    """
    total: Tensor = _HalfSquares.apply(table, row, weight)  # type: ignore[no-untyped-call]  # torch's apply has no types
    return total


class _PairScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, users: Tensor, items: Tensor, user: Tensor, item: Tensor, squares: bool) -> Any:
        ctx.save_for_backward(users, items, user, item)
        ctx.set_materialize_grads(False)
        parts = []
        for of, some in _blocks(users, user, item):
            of_user, of_item = users.index_select(0, of), _gathered(items, some)
            score = torch.bmm(of_item, of_user.unsqueeze(2)).squeeze(2)
            parts.append(
                (score, torch.linalg.vecdot(of_user, of_user), torch.linalg.vecdot(of_item, of_item))
                if squares
                else (score,)
            )
        outputs = parts[0] if len(parts) == 1 else tuple(map(torch.cat, zip(*parts, strict=True)))
        return outputs if squares else outputs[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *pulls: Tensor | None) -> tuple[Tensor | None, ...]:
        users, items, user, item = ctx.saved_tensors
        to_users = torch.zeros_like(users) if ctx.needs_input_grad[0] else None
        to_items = torch.zeros_like(items) if ctx.needs_input_grad[1] else None
        pull, user_pull, item_pull = (*pulls, None, None)[:3]
        first = 0
        for of, some in _blocks(users, user, item):
            part = slice(first, first + len(of))
            first += len(of)
            of_user = users.index_select(0, of)
            of_item = _gathered(items, some)
            slope = of_item.new_zeros(some.shape) if pull is None else pull[part]
            if to_users is not None:
                if some.shape[1] > FEW:
                    rows = torch.bmm(slope.unsqueeze(1), of_item).squeeze(1)
                else:  # two to three times faster than a product of so small matrices
                    rows = (slope.unsqueeze(2) * of_item).sum(1)
                if user_pull is not None:
                    rows.addcmul_(of_user, user_pull[part].unsqueeze(1), value=2)
                to_users.index_add_(0, of, rows)
            if to_items is not None:
                rows = slope.unsqueeze(2) * of_user.unsqueeze(1)
                if item_pull is not None:
                    rows.addcmul_(of_item, item_pull[part].unsqueeze(2), value=2)
                to_items.index_add_(0, some.flatten(), rows.flatten(0, 1))
        return to_users, to_items, None, None, None


class _HalfSquares(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, row: Tensor, weight: Tensor | None) -> Tensor:
        rows = table.index_select(0, row)
        weighted = rows if weight is None else rows * weight
        ctx.save_for_backward(weighted, row)
        ctx.n_rows = len(table)
        return torch.dot(rows.flatten(), weighted.flatten()) / 2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, pull: Tensor) -> tuple[Tensor | None, ...]:
        weighted, row = ctx.saved_tensors
        gradient = weighted.new_zeros(ctx.n_rows, weighted.shape[1])
        return gradient.index_add_(0, row, weighted * pull), None, None


def _blocks(table: Tensor, user: Tensor, item: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Users and their items, in blocks whose gathered item rows fit the cache; elsewhere than on the CPU at once."""
    row_bytes = max(1, item.shape[1] * table.shape[1] * table.element_size())
    size = max(1, BLOCK_BYTES // row_bytes) if table.device.type == "cpu" else max(1, len(user))
    return list(zip(torch.split(user, size), torch.split(item, size), strict=True))


def _gathered(table: Tensor, item: Tensor) -> Tensor:
    return table.index_select(0, item.reshape(-1)).view(*item.shape, table.shape[1])
