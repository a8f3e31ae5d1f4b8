"""LightGCN: matrix factorisation on vectors that are smoothed over the interaction graph."""

from __future__ import annotations

import mmap
import sys
from typing import ClassVar

import torch
from torch import Tensor, nn

from recdistill.errors import require
from recdistill.models.base import LOSSES, InnerProductScorer, Recommender, Scorer, normal_table, own_loss, row_penalty
from recdistill.types import Batch, Interactions

HUGE_PAGE = 1 << 21  # bytes


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
        graph = (
            *(self.get_buffer(name) for name in ("user_start", "user_items", "item_start", "item_users")),
            *(self.get_buffer(name) for name in ("user_scale", "item_scale")),
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
    for whatever L.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, users: Tensor, items: Tensor, layers: int, graph: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor]:
        ctx.layers, ctx.graph = layers, graph  # type: ignore[attr-defined]  # torch's way to pass constants
        return _propagate(users, items, layers, graph)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, users: Tensor, items: Tensor) -> tuple[Tensor | None, ...]:
        return *_propagate(users, items, ctx.layers, ctx.graph), None, None  # type: ignore[attr-defined]  # set in forward


def _propagate(users: Tensor, items: Tensor, layers: int, graph: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    user_start, user_items, item_start, item_users, user_scale, item_scale = graph
    if layers == 0:  # autograd functions must not return their inputs
        return users.clone(), items.clone()
    of_users = users, user_scale, user_items, user_start, _workspace(users)
    of_items = items, item_scale, item_users, item_start, _workspace(items)
    return _chain(of_users, of_items, layers), _chain(of_items, of_users, layers)


def _chain(last: tuple[Tensor, ...], other: tuple[Tensor, ...], layers: int) -> Tensor:
    """One side's mean of layers: its own vectors plus the sums over the other side's, which is one layer behind."""
    sides = (other, last) if layers % 2 else (last, other)
    own, scale, *_, source = sides[0]
    torch.mul(own, scale, out=source)
    for layer in range(1, layers + 1):
        own, scale, row, start, target = sides[layer % 2]
        near = nn.functional.embedding_bag(row, source, start, mode="sum", include_last_offset=True)
        vectors = torch.addcmul(own, scale, near, out=near)
        if layer < layers:
            source = torch.mul(vectors, scale, out=target)
    return vectors.div_(layers + 1)


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
