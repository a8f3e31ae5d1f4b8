"""LightGCN: matrix factorisation on vectors that are smoothed over the interaction graph."""

from __future__ import annotations

import mmap
import sys
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from recdistill.errors import require
from recdistill.losses import distinct
from recdistill.models.base import LOSSES, InnerProductScorer, Recommender, Scorer, normal_table, own_loss, row_penalty
from recdistill.types import Batch, Interactions

HUGE_PAGE = 1 << 21  # bytes
Graph = tuple[tuple[Tensor, Tensor, Tensor, Tensor | None], ...]  # of the users, of the items; see _Side


class LightGCN(Recommender):
    """LightGCN: vectors are the mean of layers 0..L of A^l E with A = D^-1/2 R D^-1/2; score is their inner product.

    Source: He et al., SIGIR 2020, equations 3 to 8. Differs from the authors' code: weight decay acts on the layer-0
    rows of a batch through `trainer.weight_decay`; nodes without an edge keep their layer 0 (degree 0 counts as 1).

    Args:
        dim: length of the vectors.
        layers: L, propagations per step.
        loss: `bpr` or `softmax`.
        init_std: standard deviation of the initial entries.
    """

    provides: ClassVar[frozenset[str]] = frozenset({"ranking", "scores", "vectors", "trajectory", "live"})

    user_start: Tensor
    user_items: Tensor
    user_scale: Tensor
    item_start: Tensor
    item_users: Tensor
    item_scale: Tensor

    def __init__(self, *, dim: int = 64, layers: int = 2, loss: str = "bpr", init_std: float = 0.1) -> None:
        """Check the settings."""
        super().__init__()
        require(dim >= 1, "dim", dim, ">= 1")
        require(layers >= 0, "layers", layers, ">= 0")
        require(loss in LOSSES, "loss", loss, f"one of {', '.join(LOSSES)}")
        require(init_std > 0, "init_std", init_std, "> 0")
        self.dim, self.layers, self.loss_kind, self.init_std = dim, layers, loss, init_std

    def prepare(self, interactions: Interactions, generator: torch.Generator) -> None:
        """Draw the tables and build both halves of the graph."""
        self.user_table = normal_table(interactions.n_users, self.dim, self.init_std, generator)
        self.item_table = normal_table(interactions.n_items, self.dim, self.init_std, generator)
        start, item = interactions.csr()
        by_item = interactions.item.argsort(stable=True)
        count = interactions.popularity()
        item_start = count.new_zeros(len(count) + 1)
        item_start[1:] = count.cumsum(0)
        graph = {
            "user_start": _narrow(start),
            "user_items": _narrow(item),
            "item_start": _narrow(item_start),
            "item_users": _narrow(interactions.user[by_item]),
            "user_scale": start.diff().clamp(min=1).rsqrt().unsqueeze(1),
            "item_scale": count.clamp(min=1).rsqrt().unsqueeze(1),
        }
        for name, value in graph.items():  # not persistent: the interactions make the graph, not the checkpoint
            self.register_buffer(name, value, persistent=False)

    def scorer(self) -> InnerProductScorer:
        """Propagate once."""
        return self._propagated(None, None)

    def batch_scorer(self, batch: Batch) -> InnerProductScorer:
        """Propagate once, the last layer for the rows of the batch alone where they are few; the others are NaN.

        On the CPU: elsewhere how many edges they have would have to be waited for. A subclass may score other rows.
        """
        here = batch.user.device.type == "cpu" and type(self) is LightGCN
        if self.loss_kind != "bpr" or self.layers == 0 or not here:
            return self.scorer()
        item = torch.cat([batch.positive, batch.negative.flatten()])
        return self._propagated(_few(batch.user, self.user_start), _few(item, self.item_start))

    def _propagated(self, user: Tensor | None, item: Tensor | None) -> InnerProductScorer:
        graph = (
            (self.user_scale, self.user_items, self.user_start, user),
            (self.item_scale, self.item_users, self.item_start, item),
        )
        users, items = _Propagate.apply(self.user_table, self.item_table, self.layers, graph)  # type: ignore[no-untyped-call]  # torch's apply has no types
        return InnerProductScorer(users, items)

    def loss(self, scorer: InnerProductScorer, batch: Batch) -> Tensor:  # type: ignore[override]  # its own scorer
        """BPR or softmax on the propagated vectors."""
        return own_loss(self.loss_kind, scorer, batch)

    def penalty(self, scorer: Scorer, batch: Batch) -> Tensor:
        """Squared norms of the layer-0 rows of a batch."""
        return row_penalty(self.loss_kind, self.user_table, self.item_table, batch)


class _Propagate(torch.autograd.Function):
    """Mean of A^l E over layers 0..L. A is symmetric, so the backward pass is the same map applied to the gradient.

    Horner's form `y <- A y + E`, L times, then `y / (L + 1)`. A crosses between users and items, so the users' vectors
    come from one chain of halves (items, users, items, ...) and the items' from the other: a chain needs two buffers
    for whatever L. Where few rows of the result are wanted, only they are summed in the last half, and in the first
    half of the backward pass, whose gradient is zero elsewhere, only they are read.
    """

    @staticmethod
    def forward(ctx: Any, users: Tensor, items: Tensor, layers: int, graph: Graph) -> tuple[Tensor, Tensor]:
        ctx.layers, ctx.graph = layers, graph
        if layers == 0:  # autograd functions must not return their inputs
            return users.clone(), items.clone()
        user, item = _sides(users, items, graph)
        return _chain(user, item, layers), _chain(item, user, layers)

    @staticmethod
    def backward(ctx: Any, users: Tensor, items: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.layers == 0:
            return users, items, None, None
        user, item = _sides(users, items, ctx.graph)
        both = _chain(user, item, ctx.layers, backward=True), _chain(item, user, ctx.layers, backward=True)
        return *both, None, None


@dataclass(frozen=True)
class _Side:
    """The users or the items: their own vectors, and where their neighbours are.

    Shapes:
        own: [n, d]. scale: [n, 1], degree^-1/2. near: [edges] neighbours. start: [n + 1] the first of each. few: [m]
        the rows that are wanted, or backwards those that are not zero; None: all. space: [n, d], overwritten.
    """

    own: Tensor
    scale: Tensor
    near: Tensor
    start: Tensor
    few: Tensor | None
    space: Tensor


def _sides(users: Tensor, items: Tensor, graph: Graph) -> list[_Side]:
    return [_Side(own, *rest, _workspace(own)) for own, rest in zip((users, items), graph, strict=True)]


def _chain(last: _Side, other: _Side, layers: int, *, backward: bool = False) -> Tensor:
    """One side's mean of layers: its own vectors plus the sums over the other side's, which is one layer behind."""
    sides = (other, last) if layers % 2 else (last, other)
    source = torch.mul(sides[0].own, sides[0].scale, out=sides[0].space)
    for layer in range(1, layers + 1):
        side = sides[layer % 2]
        if layer == layers and not backward and side.few is not None:
            return _rows_alone(side, side.few, source, layers)
        if layer == 1 and backward and sides[0].few is not None:
            near = _sums_of(side, source, sides[0].few)
        else:
            near = _sums(side.near, source, side.start)
        vectors = torch.addcmul(side.own, side.scale, near, out=near)
        if layer < layers:
            source = torch.mul(vectors, side.scale, out=side.space)
    return vectors.div_(layers + 1)


def _rows_alone(side: _Side, rows: Tensor, source: Tensor, layers: int) -> Tensor:
    """The last layer, NaN but for some rows."""
    first = side.start[rows]
    start = torch.zeros(len(rows) + 1, dtype=first.dtype)
    torch.cumsum(side.start[rows + 1] - first, 0, dtype=start.dtype, out=start[1:])
    place = torch.arange(int(start[-1]), dtype=first.dtype) + (first - start[:-1]).repeat_interleave(start.diff())
    near = _sums(side.near.index_select(0, place), source, start)
    vectors = torch.addcmul(side.own[rows], side.scale[rows], near, out=near).div_(layers + 1)
    return torch.full_like(side.own, torch.nan).index_copy_(0, rows, vectors)


def _sums_of(side: _Side, source: Tensor, rows: Tensor) -> Tensor:
    """The sums of a source that is zero but for some rows: read from a table of them, which fits a cache."""
    place = torch.zeros(len(source), dtype=side.near.dtype)
    place[rows] = torch.arange(1, len(rows) + 1, dtype=place.dtype)
    table = torch.cat([source.new_zeros(1, source.shape[1]), source.index_select(0, rows)])
    return _sums(place.index_select(0, side.near), table, side.start)


def _sums(near: Tensor, source: Tensor, start: Tensor) -> Tensor:
    return nn.functional.embedding_bag(near, source, start, mode="sum", include_last_offset=True)


def _few(ids: Tensor, start: Tensor) -> Tensor | None:
    """The distinct ids where they are at most a quarter of the rows with at most half of the edges, else None."""
    rows = distinct(ids)[0]
    edges = int((start[rows + 1] - start[rows]).sum())
    return rows if 4 * len(rows) < len(start) and 2 * edges <= int(start[-1]) else None


def _narrow(index: Tensor) -> Tensor:
    """int32 where that holds the numbers: half the bytes to read per edge."""
    return index.int() if len(index) == 0 or int(index.max()) < 2**31 else index


def _workspace(like: Tensor) -> Tensor:
    """An uninitialised tensor whose rows are read in random order, on huge pages where Linux grants them.

    With pages of 4 KiB most rows of a large table are behind one more look-up, that of the page itself.
    """
    size = like.numel() * like.element_size()
    if like.device.type != "cpu" or sys.platform != "linux" or size < HUGE_PAGE:
        return torch.empty_like(like)
    memory = mmap.mmap(-1, size + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    start = -torch.frombuffer(memory, dtype=torch.uint8).data_ptr() % HUGE_PAGE
    return torch.frombuffer(memory, dtype=like.dtype, count=like.numel(), offset=start).view(like.shape)
