"""Popularity groups: runs of items of falling popularity, by default with about the same interactions in each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recdistill.errors import require

if TYPE_CHECKING:
    from torch import Tensor

PARTITIONS = ("quantile", "greedy", "equal_count")


def partitioned(popularity: np.ndarray, groups: int, partition: str = "quantile") -> np.ndarray:
    """Split items into groups by popularity; group 0 is the head.

    Items are sorted by (popularity falling, index rising) and cut into runs. Partitions:

    `quantile`: equal summed popularity: with the running mass C before item i,
    g(i) = min(G - 1, floor(G (C + c_i / 2) / total)), and boundaries move on so that no group is empty.
    `greedy`: equal summed popularity as in the code of UnKD: a group takes items until the next would carry it over
    total / G; a leftover of more than half that mass is a group of its own. Gives G groups or one more or fewer.
    `equal_count`: equal numbers of items, among those with an interaction.

    Source: Chen et al., "UnKD", WSDM 2023, for groups of equal summed popularity.

    Args:
        popularity: [I] int64 training interactions of each item.
        groups: number of groups, at most the number of items with an interaction.
        partition: one of the three.

    Returns:
        [I] int64 group of each item. Items without interactions are in the last group.

    Raises:
        SettingsError: more groups than items with interactions.

    Example:
        >>> partitioned(np.array([6, 4, 3, 2, 2, 1, 1, 1]), 4).tolist()
        [0, 1, 2, 2, 3, 3, 3, 3]
    """
    n_seen = int((popularity > 0).sum())
    require(1 <= groups <= max(n_seen, 1), "groups", groups, f"from 1 to the {n_seen} items with training interactions")
    require(partition in PARTITIONS, "partition", partition, f"one of {', '.join(PARTITIONS)}")
    order = np.argsort(-popularity, kind="stable")
    if partition == "greedy":
        boundary = np.array(_greedy(popularity[order][:n_seen].tolist(), groups), dtype=np.int64)
    elif partition == "equal_count":
        boundary = np.arange(1, groups) * n_seen // groups
    else:
        boundary = _quantiles(popularity[order].astype(np.float64), groups, n_seen)
    group = np.empty(len(order), np.int64)
    group[order] = np.searchsorted(boundary, np.arange(len(order)), side="right")
    return group


def popularity_groups(popularity: Tensor, groups: int, partition: str = "quantile") -> Tensor:
    """`partitioned` of a tensor on the CPU."""
    import torch  # here, so that data are described without it

    return torch.from_numpy(partitioned(popularity.numpy(), groups, partition))


def _quantiles(mass: np.ndarray, groups: int, n_seen: int) -> np.ndarray:
    """First position of each group but the head."""
    midpoint = mass.cumsum() - mass / 2
    label = np.minimum(np.floor(groups * midpoint / max(mass.sum(), 1)), groups - 1)
    boundary = np.searchsorted(label[:n_seen], np.arange(1, groups))
    for g in range(groups - 1):  # each boundary at least one item after the previous, and room for those to come
        floor = int(boundary[g - 1]) + 1 if g else 1
        boundary[g] = min(max(int(boundary[g]), floor), n_seen - (groups - 1 - g))
    return boundary


def _greedy(counts: list[int], groups: int) -> list[int]:
    """First position of each group but the head; counts fall."""
    target = sum(counts) / groups
    starts, mass = [0], 0
    for place, count in enumerate(counts):
        alone = place == starts[-1]
        if mass + count <= target:
            mass += count
        elif alone:  # more than a share by itself
            starts.append(place + 1)
            mass = 0
        else:
            starts.append(place)
            mass = count
    if mass <= target / 2 and len(starts) > 1:  # also where nothing is left
        starts.pop()
    return starts[1:]
