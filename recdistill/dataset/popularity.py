"""Popularity groups: items split so that each group holds about the same number of training interactions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recdistill.errors import require

if TYPE_CHECKING:
    from torch import Tensor


def equal_mass_groups(popularity: np.ndarray, groups: int) -> np.ndarray:
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
        >>> equal_mass_groups(np.array([6, 4, 3, 2, 2, 1, 1, 1]), 4).tolist()
        [0, 1, 2, 2, 3, 3, 3, 3]
    """
    n_seen = int((popularity > 0).sum())
    require(1 <= groups <= max(n_seen, 1), "groups", groups, f"from 1 to the {n_seen} items with training interactions")
    order = np.argsort(-popularity, kind="stable")
    mass = popularity[order].astype(np.float64)
    midpoint = mass.cumsum() - mass / 2
    label = np.minimum(np.floor(groups * midpoint / max(mass.sum(), 1)), groups - 1)
    boundary = np.searchsorted(label[:n_seen], np.arange(1, groups))
    for g in range(groups - 1):  # each boundary at least one item after the previous, and room for those to come
        floor = int(boundary[g - 1]) + 1 if g else 1
        boundary[g] = min(max(int(boundary[g]), floor), n_seen - (groups - 1 - g))
    group = np.empty(len(order), np.int64)
    group[order] = np.searchsorted(boundary, np.arange(len(order)), side="right")
    return group


def popularity_groups(popularity: Tensor, groups: int) -> Tensor:
    """`equal_mass_groups` of a tensor on the CPU."""
    import torch  # here, so that data are described without it

    return torch.from_numpy(equal_mass_groups(popularity.numpy(), groups))
