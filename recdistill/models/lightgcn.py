"""LightGCN: matrix factorisation on vectors that are smoothed over the interaction graph."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from recdistill.errors import require
from recdistill.models.base import LOSSES, InnerProductScorer, Recommender, Scorer, normal_table, own_loss, row_penalty
from recdistill.types import Batch, Interactions


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
            "user_start": start,
            "user_items": item,
            "item_start": item_start,
            "item_users": interactions.user[by_item],
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

    Horner's form `y <- A y + E`, L times, then `y / (L + 1)`, needs two buffers instead of L + 1 layers.
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
    user_layer, item_layer = users, items
    for _ in range(layers):
        user_layer, item_layer = (
            torch.addcmul(users, user_scale, _bag_sum(item_scale * item_layer, user_items, user_start)),
            torch.addcmul(items, item_scale, _bag_sum(user_scale * user_layer, item_users, item_start)),
        )
    if layers == 0:  # autograd functions must not return their inputs
        return users.clone(), items.clone()
    return user_layer / (layers + 1), item_layer / (layers + 1)


def _bag_sum(table: Tensor, row: Tensor, start: Tensor) -> Tensor:
    """[n, d]: for each bag, the sum of the table's rows in `row[start[k]:start[k + 1]]`."""
    return nn.functional.embedding_bag(row, table, start, mode="sum", include_last_offset=True)
