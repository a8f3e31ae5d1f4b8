"""Draws of ranks: closed forms and static shapes, vectorised over users."""

from __future__ import annotations

import torch
from torch import Tensor

from recdistill.dataset.sampling import UnseenItems
from recdistill.types import Interactions


def draw_weighted(log_weight: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """`number` different positions per row, drawn with the weights given, in rising order.

    An exponential race: with E ~ Exp(1), the `number` smallest E / weight are a weighted sample without replacement.

    Args:
        log_weight: [B, D], any scale; -inf where a position cannot be drawn.
        number: K.
        generator: on the device of `log_weight`.

    Returns:
        [B, min(K, D)] int64 positions (0-based, rising); D marks missing draws.
    """
    depth = log_weight.shape[1]
    late = torch.rand(log_weight.shape, generator=generator, device=log_weight.device)
    # log(E / weight) = log(-log(uniform)) - log weight: no weight underflows.
    late.clamp_(min=torch.finfo(late.dtype).tiny).log_().neg_().log_().sub_(log_weight)
    value, drawn = late.topk(min(number, depth), dim=1, largest=False)
    return torch.where(value == torch.inf, depth, drawn).sort(1).values


def draw_by_rank(length: Tensor, depth: int, number: int, temperature: float, generator: torch.Generator) -> Tensor:
    """`number` different positions per user with weight exp(-rank / temperature), in rising order.

    Args:
        length: [B] int64, valid positions of each user's list.
        depth: D, positions that may be drawn at most.
        number: K.
        temperature: flatness of the draw, in ranks.
        generator: on the device of `length`.

    Returns:
        [B, K] int64 positions (0-based, rising); positions at or beyond a user's length mark missing draws.
    """
    place = torch.arange(depth, device=length.device)
    return draw_weighted(
        (-place / temperature).expand(len(length), depth).masked_fill(place >= length.unsqueeze(1), -torch.inf),
        number,
        generator,
    )


def draw_pairs(length: Tensor, number: int, mu: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pairs of different positions of a list, each pair by P(r < q) proportional to exp(-r / mu) exp(-q / mu).

    This is the law of two independent draws with ties rejected. For exponential weights it has a closed form: draw
    the first from the list, the second from a list that is one shorter, and move the second up by one if it is not
    below the first. Then P(r, q) + P(q, r) is proportional to exp(-(r + q) / mu), as it should be.

    Args:
        length: any shape, int64, items of each list; lists shorter than two give undefined pairs (mask them).
        number: P, pairs per list.
        mu: flatness of the draw, in ranks.
        generator: on the device of `length`.

    Returns:
        better, worse: [..., P] int64 positions (0-based), better < worse.
    """
    shape = (*length.shape, number)
    size = length.unsqueeze(-1)
    first = _truncated_exponential(size, shape, mu, generator)
    second = _truncated_exponential(size - 1, shape, mu, generator)
    second += second >= first
    return torch.minimum(first, second), torch.maximum(first, second)


def _truncated_exponential(size: Tensor, shape: tuple[int, ...], mu: float, generator: torch.Generator) -> Tensor:
    """Positions 0..size-1 with weight exp(-position / mu), by the inverse of the distribution function."""
    share = torch.rand(shape, generator=generator, dtype=torch.float64, device=size.device)
    reach = -torch.expm1(-size / mu)  # mass of the first `size` positions, in float64 by type promotion
    # In place, and log(1 - x) for log1p(-x): it is ten times as fast, and whole positions need no better precision.
    drawn = share.mul_(reach).neg_().add_(1).log_().mul_(-mu).long()
    return drawn.clamp_(max=(size - 1).clamp(min=0))


def outside_sampler(interactions: Interactions, top: Tensor, length: Tensor, device: torch.device) -> UnseenItems:
    """The items that are neither in training nor in the first `length` [U] entries of `top` [U, D]."""
    n_items = interactions.n_items
    listed = torch.arange(top.shape[1]) < length.unsqueeze(1)
    user = torch.repeat_interleave(torch.arange(interactions.n_users), length)
    key = torch.cat([interactions.user * n_items + interactions.item, user.mul_(n_items).add_(top[listed])])
    key.numpy().sort()  # in place, as what follows: of all that a run holds these are the largest values
    count = interactions.user.bincount(minlength=interactions.n_users) + length
    start = torch.cat([count.new_zeros(1), count.cumsum(0)])
    return UnseenItems(start.to(device), key.remainder_(n_items).to(device), n_items)


def allocate(total: int, share: list[float]) -> list[int]:
    """Whole numbers that sum to `total`, close to `total * share` (largest remainder; ties to the earlier)."""
    exact = [total * part / sum(share) for part in share]
    number = [int(part) for part in exact]
    by_remainder = sorted(range(len(share)), key=lambda g: (number[g] - exact[g], g))
    for g in by_remainder[: total - sum(number)]:
        number[g] += 1
    return number


def inverse_shares(mean: list[float], exponent: float, *, coarse: bool = False) -> list[float]:
    """Each group's share, the larger the less popular its items: proportional to (max m + min m - m) ** exponent.

    Args:
        mean: m of each group.
        exponent: 0 gives equal shares.
        coarse: round the shares to hundredths and lift them to 0.1 before the power, as in the code of UnKD.

    Example:
        >>> inverse_shares([5.0, 2.0, 1.0], 1.0)
        [0.1, 0.4, 0.5]
    """
    inverted = [max(mean) + min(mean) - one for one in mean]
    share = [one / sum(inverted) for one in inverted]
    if coarse:
        share = [max(round(one, 2), 0.1) for one in share]
    power = [one**exponent for one in share]
    return [one / sum(power) for one in power]
