"""Popularity groups: items split so that each group holds about the same number of training interactions."""

from __future__ import annotations

import torch
from torch import Tensor

from recdistill.errors import require


def popularity_groups(popularity: Tensor, groups: int) -> Tensor:
    """Split items into groups of equal summed popularity; group 0 is the head.

    Items are sorted by (popularity falling, index rising); with the running mass C before item i,
    g(i) = min(G - 1, floor(G (C + c_i / 2) / total)), and boundaries move on so that no group is empty.
    Source: the equal-mass partition of Chen et al., "UnKD", WSDM 2023, by midpoint quantiles.

    Args:
        popularity: [I] int64 training interactions of each item.
        groups: number of groups, at most the number of items with an interaction.

    Returns:
        [I] int64 group of each item. Items without interactions are in the last group.

    Raises:
        SettingsError: more groups than items with interactions.

    Example:
        >>> popularity_groups(torch.tensor([6, 4, 3, 2, 2, 1, 1, 1]), 4).tolist()
        [0, 1, 2, 2, 3, 3, 3, 3]
    """
    n_seen = int((popularity > 0).sum())
    require(1 <= groups <= max(n_seen, 1), "groups", groups, f"from 1 to the {n_seen} items with training interactions")
    order = popularity.argsort(descending=True, stable=True)
    mass = popularity[order].to(torch.float64)
    midpoint = mass.cumsum(0) - mass / 2
    label = (groups * midpoint / mass.sum().clamp(min=1)).floor().long().clamp(max=groups - 1)
    boundary = torch.searchsorted(label[:n_seen].contiguous(), torch.arange(1, groups))
    for g in range(groups - 1):  # each boundary at least one item after the previous, and room for those to come
        floor = int(boundary[g - 1]) + 1 if g else 1
        boundary[g] = min(max(int(boundary[g]), floor), n_seen - (groups - 1 - g))
    position = torch.arange(len(order))
    group = torch.empty_like(order)
    group[order] = torch.searchsorted(boundary, position, right=True)
    return group
