"""Functions of table rows with their gradients written out: what every training step spends its time on.

Autograd's own look-up keeps every gathered row for the backward pass. Here those of a distiller's many items are not
kept, and made in blocks that fit a CPU's cache; those of a BPR step, which are few, are kept. Gradients are added to
the table's where they are made.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from recdistill.losses import bpr

FEW = 8  # rows from which on a batched product is faster than a pass for each
BLOCK_BYTES = 1 << 19  # of gathered rows on the CPU, half of a usual second-level cache
AT_ONCE_BYTES = 1 << 22  # so few are one block: the calls of several cost more than the cache saves


def pair_scores(
    users: Tensor, items: Tensor, user: Tensor, item: Tensor, *, by_rows: bool = False, items_too: bool = True
) -> Tensor:
    """Inner products of user rows with item rows.

    Shapes:
        users: [U, d]. items: [I, d]. user: [B]. item: [B, M]. Returns: [B, M]. The gradients are dense, or sparse with
        `by_rows` (both tables are then parameters; without `items_too` that of the users alone is and has them).
    """
    if by_rows:
        of_user = nn.functional.embedding(user, users, sparse=True)
        of_item = nn.functional.embedding(item, items, sparse=items_too)
        return (of_item * of_user.unsqueeze(1)).sum(2)
    score: Tensor = _PairScores.apply(users, items, user, item)  # type: ignore[no-untyped-call]  # torch's apply has no types
    return score


def bpr_and_half_squares(
    users: Tensor,
    items: Tensor,
    user: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    by_rows: bool = False,
    squares: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """The two terms of a BPR step as one node of autograd's graph: the loss, and what weight decay scales.

    The loss is `recdistill.losses.bpr`, whose slope towards a negative's score is sigmoid(gap) / (B N). The other is
    half the squared norms of the rows, a mean over the batch; a row's negatives count as one together.

    Shapes:
        users: [U, d]. items: [I, d]. user, positive: [B]. negative: [B, N]. Returns: two scalars, or without `squares`
        one and None. The gradients are dense, or sparse with `by_rows` (both tables are then parameters).
    """
    found: tuple[Tensor, Tensor | None] = _BPR.apply(users, items, user, positive, negative, by_rows, squares)  # type: ignore[no-untyped-call]  # as above
    return found


def half_squares(table: Tensor, row: Tensor, weight: Tensor | None = None, *, by_rows: bool = False) -> Tensor:
    """Half the (weighted) sum of the squared norms of some rows.

    Shapes:
        table: [n, d]. row: [m]. weight: [m, 1] or None for ones. Returns: scalar. The gradient is dense, or sparse with
        `by_rows` (the table is then a parameter).
    """
    total: Tensor = _HalfSquares.apply(table, row, weight, by_rows)  # type: ignore[no-untyped-call]  # as above
    return total


class _PairScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, users: Tensor, items: Tensor, user: Tensor, item: Tensor) -> Tensor:
        ctx.save_for_backward(users, items, user, item)
        parts = [
            # A row by a matrix: half the time of a matrix by a column.
            torch.bmm(users.index_select(0, of).unsqueeze(1), _gathered(items, some).transpose(1, 2)).squeeze(1)
            for of, some in _blocks(users, item.shape[1], user, item)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, pull: Tensor) -> tuple[Tensor | None, ...]:
        users, items, user, item = ctx.saved_tensors
        to_users = to_items = None
        if ctx.needs_input_grad[0]:
            # Sums the weighted rows as it reads them: an eighth of the time of a look-up and a product.
            first = torch.arange(len(item), device=item.device) * item.shape[1]
            pulled = nn.functional.embedding_bag(
                item.flatten(), items, first, mode="sum", per_sample_weights=pull.flatten()
            )
            to_users = torch.zeros_like(users).index_add_(0, user, pulled)
        if ctx.needs_input_grad[1]:
            to_items = torch.zeros_like(items)
            for of, some, slope in _blocks(users, item.shape[1], user, item, pull):
                rows = slope.unsqueeze(2) * users.index_select(0, of).unsqueeze(1)
                to_items.index_add_(0, some.flatten(), rows.flatten(0, 1))
        return to_users, to_items, None, None


class _BPR(torch.autograd.Function):
    # On usual tables an operation's overhead is as large as its arithmetic: what counts here is how few there are.
    @staticmethod
    def forward(
        ctx: Any,
        users: Tensor,
        items: Tensor,
        user: Tensor,
        positive: Tensor,
        negative: Tensor,
        by_rows: bool,
        squares: bool,
    ) -> tuple[Tensor, Tensor | None]:
        of_user, of_positive = users.index_select(0, user), items.index_select(0, positive)
        of_negative = _gathered(items, negative)
        apart = torch.sub(of_negative, of_positive.unsqueeze(1), out=None if squares else of_negative)
        gap = torch.linalg.vecdot(apart, of_user.unsqueeze(1))
        kept = (of_positive, of_negative) if squares else (None, None)
        ctx.save_for_backward(users, items, user, positive, negative, of_user, *kept, apart, gap)
        ctx.by_rows = by_rows
        ctx.set_materialize_grads(False)
        if not squares:
            return bpr(gap), None
        total = _square(of_user) + _square(of_positive) + _square(of_negative) / negative.shape[1]
        return bpr(gap), total / (2 * len(user))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_loss: Tensor | None, to_squares: Tensor | None) -> tuple[Tensor | None, ...]:
        users, items, user, positive, negative, of_user, of_positive, of_negative, apart, gap = ctx.saved_tensors
        slope = torch.zeros_like(gap) if to_loss is None else gap.sigmoid().mul_(to_loss / gap.numel())
        share = None if to_squares is None else to_squares / len(user)
        to_users = to_items = None
        if ctx.needs_input_grad[0]:
            rows = _mixed(slope, apart)
            if share is not None:
                rows.addcmul_(of_user, share)
            to_users = _gradient(users, (user, rows), by_rows=ctx.by_rows)
        if ctx.needs_input_grad[1]:
            high, low = of_user * -slope.sum(1, keepdim=True), slope.unsqueeze(2) * of_user.unsqueeze(1)
            if share is not None:
                high.addcmul_(of_positive, share)
                low.addcmul_(of_negative, share / negative.shape[1])
            to_items = _gradient(items, (positive, high), (negative.flatten(), low.flatten(0, 1)), by_rows=ctx.by_rows)
        return to_users, to_items, None, None, None, None, None


class _HalfSquares(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, row: Tensor, weight: Tensor | None, by_rows: bool) -> Tensor:
        rows = table.index_select(0, row)
        weighted = rows if weight is None else rows * weight
        ctx.save_for_backward(table, weighted, row)
        ctx.by_rows = by_rows
        return torch.dot(rows.flatten(), weighted.flatten()) / 2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, pull: Tensor) -> tuple[Tensor | None, ...]:
        table, weighted, row = ctx.saved_tensors
        return _gradient(table, (row, weighted * pull), by_rows=ctx.by_rows), None, None, None


def _gradient(table: Tensor, *parts: tuple[Tensor, Tensor], by_rows: bool) -> Tensor:
    """The gradient [n, d] of a table from those [m, d] of rows [m], which may repeat: dense, or sparse with repeats."""
    if by_rows:
        row, value = (torch.cat(column) for column in zip(*parts, strict=True))
        return torch.sparse_coo_tensor(row.unsqueeze(0), value, table.shape, check_invariants=False)
    gradient = torch.zeros_like(table)
    for row, value in parts:
        gradient.index_add_(0, row, value)
    return gradient


def _blocks(table: Tensor, width: int, *columns: Tensor) -> list[tuple[Tensor, ...]]:
    """The rows of a batch in blocks whose gathered item rows, `width` for each, fit the cache; off the CPU at once."""
    row_bytes = max(1, width * table.shape[1] * table.element_size())
    if table.device.type != "cpu" or len(columns[0]) * row_bytes <= AT_ONCE_BYTES:
        return [columns]
    size = max(1, BLOCK_BYTES // row_bytes)
    return list(zip(*(torch.split(column, size) for column in columns), strict=True))


def _gathered(table: Tensor, item: Tensor) -> Tensor:
    return table.index_select(0, item.reshape(-1)).view(*item.shape, table.shape[1])


def _mixed(weight: Tensor, rows: Tensor) -> Tensor:
    """sum_m weight_m rows_m: [B, M] and [B, M, d] to [B, d]."""
    if not 0 < rows.shape[1] < FEW:
        return torch.bmm(weight.unsqueeze(1), rows).squeeze(1)
    # Faster than a product of so small matrices, by two to ten times, and than a sum over the middle dimension.
    (first, share), *rest = zip(rows.unbind(1), weight.unsqueeze(2).unbind(1), strict=True)
    total = first * share
    for row, share in rest:
        total.addcmul_(row, share)
    return total


def _square(rows: Tensor) -> Tensor:
    return torch.dot(rows.flatten(), rows.flatten())
