"""Losses as pure functions: tensors in, a scalar out; no state, no config, no random numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from recdistill.errors import ShapeError


def weighted_mean(value: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean over rows, or the sum of `weight * value` where weights [B] (that sum to one) are given."""
    return value.mean() if weight is None else (weight * value).sum()


def distinct(ids: Tensor, *, per_row: bool = False, static: bool | None = None) -> tuple[Tensor, Tensor]:
    """The distinct ids of a batch and their weights, without a device sync.

    On the CPU, where reading a value is free, repeats are dropped. Elsewhere the shape stays [B] and repeats weigh 0,
    so that no step waits for the device; both forms give every weighted sum the same value.

    Args:
        ids: [B] int64.
        per_row: weigh an id by its share of the rows instead of equally.
        static: force or forbid the static shape (None: by device).

    Shapes:
        Returns: ids sorted [M] int64 with M <= B, weights [M] float32 that sum to one.
    """
    if static is None:
        static = ids.device.type != "cpu"
    if not static:
        kept, count = torch.unique(ids, return_counts=True)
        return kept, count / len(ids) if per_row else torch.ones_like(count, dtype=torch.float32) / len(kept)
    ordered = ids.sort().values
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    if per_row:
        # The first row of a run carries the length of the run: the position behind its last row minus its own.
        last = ordered.roll(-1) != ordered
        last[-1] = True
        position = torch.arange(len(ordered), device=ids.device)
        behind = torch.where(last, position + 1, len(ordered))
        weight = torch.where(first, behind.flip(0).cummin(0).values.flip(0) - position, 0) / len(ordered)
    else:
        weight = first / first.sum()
    return ordered, weight.to(torch.float32)


def bpr(gap: Tensor) -> Tensor:
    """Bayesian personalised ranking: mean of softplus(gap), where a gap is a negative's score minus its positive's.

    Source: Rendle et al., UAI 2009, there a sum over triples.

    Shapes:
        gap: any. Returns: scalar, nats per pair.

    Example:
        >>> bpr(torch.tensor([[-0.7]])).item()
        0.4031...
    """
    return functional.softplus(gap).mean()


def pairwise(better: Tensor, worse: Tensor, valid: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean over each row's valid pairs of softplus(-(better - worse)), then the (weighted) mean over rows.

    Shapes:
        better, worse: [B, P] scores. valid: [B, P] bool; a row without valid pairs counts 0. weight: [B] or None.
        Returns: scalar, nats per pair.

    Example:
        >>> pairwise(torch.tensor([[0.5, -0.2]]), torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool)).item()
        0.6361...
    """
    term = functional.softplus(worse - better) * valid
    return weighted_mean(term.sum(1) / valid.sum(1).clamp(min=1), weight)


def plackett_luce(score: Tensor, rest: Tensor, valid: Tensor | None = None, weight: Tensor | None = None) -> Tensor:
    """Negative log-likelihood of a ranked list that stands above a rest whose order is free.

    loss = sum_{k=1..K} [ log( sum_{j>=k} exp(score_j) + exp(rest) ) - score_k ]

    Source: the list loss of Kang et al., CIKM 2020, and of Plackett and Luce; stable for any score.

    Shapes:
        score: [B, K] logits in target order, best first. rest: [B] log of the rest's summed exp; -inf for none.
        valid: [B, K] bool, a prefix of each row; the other entries count 0. weight: [B] or None.
        Returns: scalar, nats per row. Gradients flow to `score` and `rest`.

    Raises:
        ShapeError: the rows do not fit, or K is 0.
    """
    if score.ndim != 2 or score.shape[1] == 0 or rest.shape != score.shape[:1]:
        raise ShapeError(
            f"score {tuple(score.shape)} and rest {tuple(rest.shape)} do not fit",
            "score is [B, K] with K >= 1 and rest is [B]",
            "pass one row of ranked items and one rest mass per user",
        )
    loss: Tensor = _PlackettLuce.apply(score, rest, valid)  # type: ignore[no-untyped-call]  # torch's apply has no types
    return weighted_mean(loss, weight)


class _PlackettLuce(torch.autograd.Function):
    """Each row's loss [B]. With a_k = log( sum_{j>=k} exp(score_j) + exp(rest) ) its gradient is closed.

    d loss / d score_j = sum_{k<=j} exp(score_j - a_k) - 1 and d loss / d rest = sum_k exp(rest - a_k).
    """

    @staticmethod
    def forward(ctx: Any, score: Tensor, rest: Tensor, valid: Tensor | None) -> Tensor:
        held = score if valid is None else score.masked_fill(~valid, -torch.inf)
        # From the rest up, whose place is behind the list.
        mass = _logcumsumexp(torch.cat([rest.unsqueeze(1), held.flip(1)], 1))[:, 1:].flip(1)  # a [B, K]
        ctx.save_for_backward(score, rest, mass, valid)
        return _where_valid(mass - score, valid).sum(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, pull: Tensor) -> tuple[Tensor | None, ...]:
        score, rest, mass, valid = ctx.saved_tensors
        # A list is a prefix of its row, so what is not valid comes after all that counts.
        to_score = _where_valid((score + _logcumsumexp(-mass)).exp_().sub_(1), valid)
        to_rest = _where_valid((rest.unsqueeze(1) - mass).exp_(), valid).sum(1)
        return pull.unsqueeze(1) * to_score, pull * to_rest, None


def _logcumsumexp(value: Tensor) -> Tensor:
    """Along the rows [B, K]; on the CPU whole columns at a time, where torch's own takes seven times as long."""
    if value.device.type != "cpu":
        return value.logcumsumexp(1)
    column = value.T.clone(memory_format=torch.contiguous_format)
    for k in range(1, len(column)):
        torch.logaddexp(column[k - 1], column[k], out=column[k])
    return column.T


def _where_valid(value: Tensor, valid: Tensor | None) -> Tensor:
    return value if valid is None else torch.where(valid, value, 0)


def joined_masses(mass: Tensor, score: Tensor, group: Tensor) -> Tensor:
    """Log of summed exponentials of groups that some more scores join; stable for any score.

    Shapes:
        mass: [B, G] logits; -inf for none. score: [B, K] logits. group: [B, K] int64, which group each joins; G: none.
        Returns: [B, G]; where nothing is in a group, the lowest number, without a gradient.

    Example:
        >>> joined_masses(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 5.0]]), torch.tensor([[0, 2]]))
        tensor([[0.6931, 1.0000]])
    """
    mass = functional.pad(mass, (0, 1), value=-torch.inf)
    peak = mass.detach().scatter_reduce(1, group, score.detach(), "amax").clamp(min=torch.finfo(mass.dtype).min)
    share = (mass - peak).exp().scatter_add(1, group, (score - peak.gather(1, group)).exp())
    return (peak + share.clamp(min=torch.finfo(mass.dtype).tiny).log())[:, :-1]


def relaxed_ranking(
    interesting: Tensor,
    uninteresting: Tensor,
    weight: Tensor | None = None,
    valid: Tensor | None = None,
    rest_valid: Tensor | None = None,
) -> Tensor:
    """List-wise loss that orders `interesting` and keeps it above `uninteresting` (order there is free).

    Source: Kang et al., "DE-RRD", CIKM 2020, section 4.2: there a likelihood, here its negative logarithm, averaged.

    Shapes:
        interesting: [B, K] logits, best first. uninteresting: [B, L] logits, any order. weight: [B] or None.
        valid: [B, K] and rest_valid: [B, L] bool or None. Returns: scalar, nats per row.

    Raises:
        ShapeError: the two have different numbers of rows, or K is 0.

    Example:
        >>> relaxed_ranking(torch.tensor([[2.0, 1.0]]), torch.tensor([[0.0]])).item()    # 0.4076 + 0.3133
        0.7208...
    """
    if rest_valid is not None:
        uninteresting = uninteresting.masked_fill(~rest_valid, torch.finfo(uninteresting.dtype).min)
    return plackett_luce(interesting, uninteresting.logsumexp(1), valid, weight)


def soft_targets(score: Tensor, valid: Tensor, temperature: float = 1.0) -> Tensor:
    """softmax(score / temperature) over each row's valid entries; 0 elsewhere, and in rows without any.

    Shapes:
        score: [B, K] logits. valid: [B, K] bool. Returns: [B, K].

    Example:
        >>> soft_targets(torch.tensor([[2.0, 1.0, 9.0]]), torch.tensor([[True, True, False]]))
        tensor([[0.7311, 0.2689, 0.0000]])
    """
    held = (score / temperature).masked_fill(~valid, torch.finfo(score.dtype).min)
    return held.softmax(1).masked_fill(~valid, 0.0)


def soft_cross_entropy(target: Tensor, score: Tensor, valid: Tensor, temperature: float = 1.0) -> Tensor:
    """Cross-entropy of each row's softmax(score / temperature) over its valid entries against soft targets.

    No factor temperature^2: gradients shrink as it grows.

    Shapes:
        target: [B, K] probabilities, 0 where not valid; no gradient should flow to them. score: [B, K] logits.
        valid: [B, K] bool. Returns: [B] nats; 0 in rows without valid entries.
    """
    held = (score / temperature).masked_fill(~valid, torch.finfo(score.dtype).min)
    return -(target * held.log_softmax(1).masked_fill(~valid, 0.0)).sum(1)


def soft_binary_cross_entropy(target: Tensor, score: Tensor, valid: Tensor) -> Tensor:
    """Each row's mean over valid entries of the cross-entropy of sigmoid(score) against probabilities.

    Shapes:
        target: [B, K] in 0..1. score: [B, K] logits. valid: [B, K] bool. Returns: [B] nats per entry; 0 in rows
        without valid entries.
    """
    term = functional.binary_cross_entropy_with_logits(score, target.to(score.dtype), reduction="none")
    return term.masked_fill(~valid, 0.0).sum(1) / valid.sum(1).clamp(min=1)


def rank_discrepancy(above: Tensor, draws: int, n_items: int, steepness: float, *, first: int = 0) -> Tensor:
    """How much lower than the teacher the student ranks each item of the teacher's list, in 0..1.

    max(0, tanh( steepness (rank_k - k) )) with k the 0-based place in the list and
    rank_k = first + floor( (n_items - 1) above_k / draws ).

    Source: the dynamic weight of Tang and Wang, "Ranking Distillation", KDD 2018.

    Shapes:
        above: [B, K] int64, in the teacher's order: how many of `draws` uniformly drawn items the student scores higher
        than the item. Returns: [B, K] float32.

    Example:
        >>> rank_discrepancy(torch.tensor([[2, 3, 1]]), 4, 11, 0.1)
        tensor([[0.4621, 0.5370, 0.0000]])
    """
    # Whole numbers: a quotient that should be whole would otherwise be floored to the one below.
    rank = first + torch.div((n_items - 1) * above, draws, rounding_mode="floor")
    place = torch.arange(above.shape[1], device=above.device)
    return torch.tanh(steepness * (rank - place).to(torch.float32)).clamp(min=0.0)
