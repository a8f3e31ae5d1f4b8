"""What a teacher would hand over, made directly: soft labels whose lists have the right shape and exclusions."""

from __future__ import annotations

import torch
from torch import Tensor

from bench_parts.data import Scale
from recdistill.dataset.popularity import popularity_groups
from recdistill.dataset.sampling import SeenItems, unseen_sampler
from recdistill.distill.base import Distiller
from recdistill.soft_labels.extract import Layout, extract
from recdistill.types import Knowledge, SoftLabels, Trajectory


def spread_labels(scale: Scale, depth: int, groups: int = 0) -> Knowledge:
    """Lists of different unseen items per user in an order without meaning: enough for draws, and quick at any scale.

    Group lists hold the same items, cut into `groups` lists of `depth`.
    """
    sampler = unseen_sampler(scale.train)
    width = depth * max(groups, 1)
    user = torch.arange(scale.n_users)
    nth = (user.unsqueeze(1) * 13 + torch.arange(width)) % sampler.n_unseen.unsqueeze(1)
    order = torch.randperm(width)
    item = sampler.nth_unseen(user.unsqueeze(1).expand_as(nth), nth)[:, order].int()
    length = sampler.n_unseen.clamp(max=width).int()
    full = torch.full((scale.n_users, groups), depth, dtype=torch.int32)
    labels = SoftLabels(
        item[:, :depth].contiguous(),
        length.clamp(max=depth),
        torch.zeros(scale.n_users, depth),
        "bench",
        1,
        "bench",
        group_item=item.view(scale.n_users, groups, depth) if groups else None,
        group_length=full if groups else None,
    )
    return Knowledge({"bench": Trajectory("bench", (labels,))}, {})


def teacher_labels(scale: Scale, method: Distiller) -> Knowledge:
    """Soft labels extracted from a matrix factorisation, all that a distiller may ask for."""
    teacher, data = scale.model(), scale.train
    depth, request = max(method.depth, 1), method.group_lists
    layout = Layout(scale.n_items, depth)
    if request is not None:
        group: Tensor = popularity_groups(data.popularity(), request.groups)
        layout = Layout(scale.n_items, depth, torch.where(data.popularity() > 0, group, -1), request.depth)
    with torch.no_grad():
        scorer = teacher.scorer()
        arrays = extract(scorer, SeenItems(data), torch.arange(scale.n_users), layout)
    fields = {name: torch.from_numpy(value) for name, value in arrays.items()}
    vectors = {"user_vectors": teacher.user_table.detach(), "item_vectors": teacher.item_table.detach()}
    other = None
    if method.user_depth:
        with torch.no_grad():
            of_items = Layout(scale.n_users, method.user_depth)
            seen = SeenItems(data.transposed())
            arrays = extract(scorer.transposed(), seen, torch.arange(scale.n_items), of_items)
        users = {name: torch.from_numpy(value) for name, value in arrays.items()}
        other = SoftLabels(**users, teacher="bench", epoch=1, key="bench")
    labels = SoftLabels(**fields, **vectors, teacher="bench", epoch=1, key="bench", transposed=other)
    names = [f"teacher{n}" for n in range(method.teachers or 1)]
    points = (labels, labels, labels) if "trajectory" in method.requires else (labels,)
    return Knowledge({name: Trajectory(name, points) for name in names}, dict.fromkeys(names, scale.model))
