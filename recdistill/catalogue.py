"""Losses over whole catalogues: one pass over chunks of users x items gives values and gradients.

A chunk is some users and all items, since a user's gradient needs his whole mass. Its products are made in tiles, and a
tile of the scores and its rows of both tables fit a CPU's second-level cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import log
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_BYTES, DEVICE_BYTES = 8 << 20, 1 << 28  # of a chunk's scores, on the CPU and elsewhere
CHUNK_ROWS = 64  # at least: fewer make slow products, and so many scores are no more than a table of items that wide
TILE_ROWS, TILE_BYTES = 512, 2 << 20  # on the CPU; elsewhere a tile is the chunk
SLIM = 16  # columns: fewer make slow products unless they lie in the order of columns
# A row's slope along a part's mass counts as this share of the largest along a listed score there if it is smaller.
LEAST_SLOPE = 1e-12

Head = Callable[[Tensor, slice], Tensor]
ListHead = Callable[[Tensor, Tensor, slice], Tensor]


def catalogue_loss(
    user_vectors: Tensor,
    item_vectors: Tensor,
    head: Head,
    row: Tensor | None = None,
    column: Tensor | None = None,
    *,
    chunk: int | None = None,
    static: bool | None = None,
) -> Tensor:
    """A loss of each row's log sum_i exp(<user, item_i>) over the catalogue, some (row, item) entries left out.

    One pass over chunks of rows: scores, exp, and at once both products of the gradient, since `head` tells how the
    loss depends on a row's mass. No scores are kept or computed again; one chunk is the only memory.

    Args:
        user_vectors: [B, d].
        item_vectors: [I, d].
        head: takes masses [b] (logits; -inf where all of a row is left out) and the slice of rows they belong to, and
            returns the sum of those rows' losses. What else it depends on gets its gradient the usual way.
        row: [n] positions in 0..B-1 of left-out entries, in any order; a value of B or more is padding.
        column: [n] the items left out.
        chunk: rows whose scores are in memory at once (None: by memory, at least `CHUNK_ROWS`).
        static: force or forbid shapes and steps that do not depend on the data (None: by device).

    Shapes:
        Returns: scalar, head's sum over all rows.
    """
    done = _one_pass(
        user_vectors.detach(),
        item_vectors.detach(),
        lambda mass, _, rows: head(mass.squeeze(1), rows),
        _Entries(user_vectors.new_empty(len(user_vectors), 0, dtype=torch.int64), None, row, column),
        [len(item_vectors)],
        chunk,
        static,
    )
    nothing = user_vectors.new_zeros(1)
    carried = _carry(user_vectors, item_vectors, done, nothing)[0]
    return head(done.mass.squeeze(1), slice(0, len(user_vectors))) + carried


def listed_loss(
    user_vectors: Tensor,
    item_vectors: Tensor,
    head: ListHead,
    listed: Tensor,
    apart: Tensor,
    row: Tensor | None = None,
    column: Tensor | None = None,
    *,
    sizes: Sequence[int] | None = None,
    chunk: int | None = None,
    static: bool | None = None,
) -> Tensor:
    """As `catalogue_loss`, of the scores of listed items besides, and of masses of several parts of the catalogue.

    The listed scores are read from the chunk and their gradient to the items is written into it, so they take part in
    the products instead of being looked up.

    Args:
        user_vectors: [B, d].
        item_vectors: [I, d].
        head: takes masses [b, S] (logits; -inf where all is left out), the listed scores [b, N] and the slice of rows
            they belong to, and returns the sums of those rows' losses, terms [T]. It is called with detached values:
            what else it depends on gets no gradient.
        listed: [B, N] items whose scores the head takes; repeats within a row are allowed.
        apart: [B, N] bool, listed items that no mass contains.
        row: [n] positions in 0..B-1 of other entries that no mass contains; a value of B or more is padding.
        column: [n] the items of these entries.
        sizes: of the parts of the catalogue, in the order of its items (None: one part).
        chunk: rows whose scores are in memory at once (None: by memory, at least `CHUNK_ROWS`).
        static: force or forbid shapes and steps that do not depend on the data (None: by device).

    Shapes:
        Returns: [T], head's sums over all rows. Their sum is what may be differentiated: the terms share one gradient,
        which is NaN where they are scaled differently.
    """
    done = _one_pass(
        user_vectors.detach(),
        item_vectors.detach(),
        head,
        _Entries(listed, apart, row, column),
        [len(item_vectors)] if sizes is None else sizes,
        chunk,
        static,
    )
    return _carry(user_vectors, item_vectors, done, done.terms)


class _Carry(torch.autograd.Function):
    """Values whose common gradients are known beforehand: it carries them to two tensors, scaled by what comes back."""

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor, to_first: Tensor, to_second: Tensor, terms: Tensor) -> Tensor:
        ctx.save_for_backward(to_first, to_second)
        return terms.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, pull: Tensor) -> tuple[Tensor | None, ...]:
        to_first, to_second = ctx.saved_tensors
        scale = torch.where((pull == pull[0]).all(), pull[0], torch.nan)
        return scale * to_first, scale * to_second, None, None, None


def _carry(users: Tensor, items: Tensor, done: _Pass, terms: Tensor) -> Tensor:
    carried: Tensor = _Carry.apply(users, items, done.to_users, done.to_items, terms)  # type: ignore[no-untyped-call]  # torch's apply has no types
    return carried


@dataclass(frozen=True)
class _Entries:
    """Which entries of the users x items matrix are listed [B, N], listed and apart, or left out [n]."""

    listed: Tensor
    apart: Tensor | None
    row: Tensor | None
    column: Tensor | None


@dataclass(frozen=True)
class _Pass:
    """What one pass over the catalogue gives: masses [B, S], terms [T] and the gradients of their sum."""

    mass: Tensor
    terms: Tensor
    to_users: Tensor
    to_items: Tensor


def _one_pass(
    users: Tensor,
    items: Tensor,
    head: ListHead,
    entries: _Entries,
    sizes: Sequence[int],
    chunk: int | None,
    static: bool | None,
) -> _Pass:
    n_rows, n_items, on_cpu = len(users), len(items), users.device.type == "cpu"
    row_bytes = max(1, n_items * users.element_size())
    fitting = max(CHUNK_ROWS, (CHUNK_BYTES if on_cpu else DEVICE_BYTES) // row_bytes)
    chunk = chunk or max(1, min(n_rows, fitting))
    static = not on_cpu if static is None else static
    parts = [slice(*ends) for ends in pairwise(accumulate(sizes, initial=0))]
    part_of_item = _part_of(sizes, users.device)
    wide = [True] * n_rows if static else (_reach(users, items) > _narrow(users.dtype)).tolist()
    # One element behind the matrix takes the writes of ignored positions, so that their number need not be known.
    buffer = users.new_empty(chunk * n_items + 1)
    to_users, to_items = torch.empty_like(users), items.new_zeros(items.shape[1], n_items)
    by_width = _laid_out(items)
    masses, total = [], []
    left_out = _left_out(entries, n_rows, n_items, chunk, static)
    for first in range(0, n_rows, chunk):
        rows = slice(first, min(first + chunk, n_rows))
        of, listed = users[rows], entries.listed[rows]
        share = buffer[: len(of) * n_items].view(len(of), n_items)
        tiles = _tiles(share, parts) if on_cpu else [(s, slice(None), part) for s, part in enumerate(parts)]
        slot = torch.arange(len(of), device=of.device).unsqueeze(1) * n_items + listed
        apart = slot if entries.apart is None else torch.where(entries.apart[rows], slot, share.numel())
        dropped = [*next(left_out), apart.flatten()]
        for _, some, block in tiles:
            torch.mm(of[some], items[block].T, out=share[some, block])
        score = buffer.index_select(0, slot.flatten()).view_as(slot)
        shifted = any(wide[rows])
        peak = _shift(share, buffer, dropped, parts) if shifted else of.new_zeros(len(of), len(parts))
        share.exp_()
        for positions in dropped:
            buffer.index_fill_(0, positions, 0.0)
        sums = torch.stack([share[:, part].sum(1) for part in parts], 1)
        mass = sums.log() + peak
        terms, slope, pull = _slopes(head, mass, score, rows)
        part_of = part_of_item[listed]
        least = torch.zeros_like(slope).scatter_reduce_(1, part_of, LEAST_SLOPE * pull.abs(), "amax")
        slope = torch.where(slope.abs() < least, least, slope)
        scale = slope / torch.where(sums > 0, sums, 1.0)
        if pull.shape[1]:
            # Listed entries take part in the products below in the scale of their part's exponentials.
            own = scale.gather(1, part_of)
            buffer.index_add_(0, slot.flatten(), torch.where(own == 0, 0.0, pull / own).flatten())
        scaled = scale.T.unsqueeze(1) * of.T  # [S, d, b]
        mixed = _laid_out(of.new_zeros(len(parts), *of.shape))
        for s, some, block in tiles:
            mixed[s, some].addmm_(share[some, block], by_width[block])
            to_items[:, block].addmm_(scaled[s, :, some], share[some, block])
        to_users[rows] = torch.einsum("bs,sbd->bd", scale, mixed)
        masses.append(mass)
        total.append(terms)
    return _Pass(torch.cat(masses), torch.stack(total).sum(0), to_users, to_items.T.contiguous())


def _tiles(score: Tensor, parts: Sequence[slice]) -> list[tuple[int, slice, slice]]:
    """Which part of the catalogue, rows and items each product of a chunk [b, I] takes."""
    n_rows = len(score)
    height = min(n_rows, TILE_ROWS)
    width = max(1, TILE_BYTES // (height * score.element_size()))
    return [
        (s, slice(top, min(top + height, n_rows)), slice(left, min(left + width, part.stop)))
        for top in range(0, n_rows, height)
        for s, part in enumerate(parts)
        for left in range(part.start, part.stop, width)
    ]


def _laid_out(rows: Tensor) -> Tensor:
    """Rows [..., n, d] in the order in memory that suits products of that width (d = 8: two fifths of the time)."""
    return rows.mT.contiguous().mT if rows.shape[-1] < SLIM else rows


def _slopes(head: ListHead, mass: Tensor, score: Tensor, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
    """Terms [T], and the derivatives of their sum along mass [b, S] (0 where there is none) and score [b, N]."""
    with torch.enable_grad():
        mass, score = mass.detach().requires_grad_(), score.detach().requires_grad_()
        terms = head(mass, score, rows)
        slope, pull = torch.autograd.grad(terms.sum(), (mass, score), allow_unused=True, materialize_grads=True)
    return terms.detach(), torch.where(mass > -torch.inf, slope, 0), pull


def _reach(users: Tensor, items: Tensor) -> Tensor:
    """[B] what no score of a row exceeds in size."""
    longest = torch.linalg.vector_norm(items, dim=1).amax() if len(items) else items.new_zeros(())
    reach: Tensor = torch.linalg.vector_norm(users, dim=1) * longest
    return reach


def _narrow(dtype: torch.dtype) -> float:
    """Scores up to this size need no shift: their exponentials, sums and slopes are far inside the type's range."""
    return 0.56 * log(float(torch.finfo(dtype).max))  # 50 in float32


def _left_out(entries: _Entries, n_rows: int, n_items: int, chunk: int, static: bool) -> Iterator[list[Tensor]]:
    """For each chunk the flat positions in it that are left out.

    Where static, all of them each time: those of other rows then lie one behind the chunk.
    """
    firsts, row, column = range(0, n_rows, chunk), entries.row, entries.column
    if row is None or column is None:
        yield from ([] for _ in firsts)
        return
    if static:
        slot = torch.add(column, row, alpha=n_items)
        for first in firsts:
            size, here = min(chunk, n_rows - first) * n_items, slot - first * n_items
            yield [torch.where((here >= 0) & (here < size), here, size)]
        return
    if (row[1:] < row[:-1]).any():  # seldom: what is seen comes user by user
        row, order = row.sort()
        column = column[order]
    slot = torch.add(column, row, alpha=n_items)
    bounds = torch.searchsorted(row, row.new_tensor([*firsts, n_rows])).tolist()
    for first, (start, stop) in zip(firsts, pairwise(bounds), strict=True):
        yield [slot[start:stop].sub_(first * n_items)]


def _shift(score: Tensor, buffer: Tensor, dropped: Sequence[Tensor], parts: Sequence[slice]) -> Tensor:
    """Subtract the maxima [b, S] of each row's parts, and return them; entries that are dropped do not count.

    They are flat positions of `buffer`, which `score` [b, I] is a view of.
    """
    for positions in dropped:
        buffer.index_fill_(0, positions, -torch.inf)
    peak = score.new_full((len(score), len(parts)), torch.finfo(score.dtype).min)
    for s, part in enumerate(parts):
        if part.stop > part.start:
            # A row without any item has mass 0, not NaN.
            peak[:, s] = score[:, part].amax(1).clamp(min=torch.finfo(score.dtype).min)
            score[:, part].sub_(peak[:, s : s + 1])
    # exp of a number whose result underflows is forty times slower on the CPU; exp(-80) is nothing beside exp(0).
    score.clamp_(min=-80.0)
    return peak


def _part_of(sizes: Sequence[int], device: torch.device) -> Tensor:
    """[I] which part of the catalogue each item is in."""
    return torch.cat([torch.full((size,), s, device=device) for s, size in enumerate(sizes)])
