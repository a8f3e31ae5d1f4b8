"""The optimizers by name: Adam, and an Adam that touches only the rows of a step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def make_optimizer(name: str, parameters: Iterable[nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
    """The optimizer that `trainer.optimizer` names.

    Args:
        name: `adam` (fused, dense) or `row_adam` (its look-ups must give sparse gradients: `Recommender.by_rows`).
        parameters: what is trained.
        learning_rate: step size.
    """
    if name == "row_adam":
        return RowAdam(parameters, lr=learning_rate)
    return torch.optim.Adam(parameters, lr=learning_rate, fused=True)


class RowAdam(torch.optim.Optimizer):
    """Adam on the rows that a step's sparse gradients touch; a parameter with a dense gradient gets plain Adam.

    It is another optimizer than Adam: the moments of untouched rows do not decay and untouched rows do not move, while
    bias correction counts all steps. A step costs the touched rows, not the table, which is what large catalogues need.

    Source: Kingma and Ba, ICLR 2015, with epsilon added after bias correction; lazy rows as in torch's SparseAdam.

    Args:
        params: tables and other parameters.
        lr: step size.
        betas: decay of the two moments.
        eps: added to the root of the corrected second moment.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        """Take the parameters."""
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # a closure is not supported
        """One update; waits for no device."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group["lr"], group["betas"], group["eps"])

    def _update(self, table: Tensor, gradient: Tensor, lr: float, betas: tuple[float, float], eps: float) -> None:
        keep, keep_square = betas
        state = self.state[table]
        if not state:
            # On the host, where counting launches nothing and where a checkpoint puts it.
            state["step"] = torch.zeros(())
            state["exp_avg"] = torch.zeros_like(table)
            state["exp_avg_sq"] = torch.zeros_like(table)
        step, mean, square = state["step"], state["exp_avg"], state["exp_avg_sq"]
        step += 1
        # 1 - keep^step, without the cancellation of float32
        size, root = -lr / torch.expm1(step * math.log(keep)), (-torch.expm1(step * math.log(keep_square))).sqrt()
        if not gradient.is_sparse:
            mean.lerp_(gradient, 1 - keep)
            square.mul_(keep_square).addcmul_(gradient, gradient, value=1 - keep_square)
            table.sub_(size * mean / (square.sqrt().div_(root).add_(eps)))
            return
        row, total = summed_rows(gradient._indices()[0], gradient._values())
        new_mean = mean.index_select(0, row).lerp_(total, 1 - keep)
        new_square = square.index_select(0, row).mul_(keep_square).addcmul_(total, total, value=1 - keep_square)
        mean.index_copy_(0, row, new_mean)
        square.index_copy_(0, row, new_square)
        change = new_mean.mul_(size).div_(new_square.sqrt_().div_(root).add_(eps))
        table.index_copy_(0, row, table.index_select(0, row).sub_(change))


def summed_rows(row: Tensor, value: Tensor, *, static: bool | None = None) -> tuple[Tensor, Tensor]:
    """The distinct rows of a sparse gradient, each with the sum of its values.

    On the CPU repeats are dropped. Elsewhere the shape stays [n], so that no step waits for the device: the places
    left over repeat the last row with the same sum, and writing one thing twice is harmless.

    Args:
        row: [n] int64, in any order.
        value: [n, d].
        static: force or forbid the static shape (None: by device).

    Shapes:
        Returns: rows [m] int64 sorted, sums [m, d], with m <= n.
    """
    ordered, order = row.sort()
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    if static is None:
        static = row.device.type != "cpu"
    place = torch.arange(len(row), device=row.device)
    if static:
        slot = first.cumsum(0) - 1
        start = torch.searchsorted(slot, place)  # n behind the last run: an empty bag
        last = slot[-1:]
        source = torch.minimum(place, last)
        total = nn.functional.embedding_bag(order, value, start, mode="sum").index_select(0, source)
        return ordered.index_select(0, start.index_select(0, source)), total
    start = place[first]
    return ordered[start], nn.functional.embedding_bag(order, value, start, mode="sum")
