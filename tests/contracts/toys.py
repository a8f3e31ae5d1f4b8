"""Small things to run a model or a distiller on, in memory."""

from __future__ import annotations

import torch
from torch import Tensor

from recdistill.dataset.popularity import popularity_groups
from recdistill.dataset.sampling import SeenItems
from recdistill.models.base import Recommender
from recdistill.models.mf import MF
from recdistill.runtime import generator
from recdistill.soft_labels.extract import Layout, extract
from recdistill.types import Batch, GroupLists, Interactions, Knowledge, SoftLabels, Trajectory

N_USERS, N_ITEMS = 12, 17
LONELY_USER, LONELY_ITEM, FULL_USER = 10, 16, 11


def interactions() -> Interactions:
    """12 users, 17 items; user 10 has no item, user 11 all but two, and item 16 has no user."""
    taken = torch.rand(N_USERS, N_ITEMS, generator=generator(3, "toy")) < 0.3
    taken[:, LONELY_ITEM] = False
    taken[LONELY_USER] = False
    taken[FULL_USER, :15] = True
    taken[FULL_USER, 15] = False
    user, item = taken.nonzero(as_tuple=True)
    return Interactions(user.contiguous(), item.contiguous(), N_USERS, N_ITEMS)


def batch(negatives: int = 2, rows: int | None = None) -> Batch:
    """Some training rows with drawn negatives; users occur more than once."""
    data = interactions()
    order = torch.randperm(len(data), generator=generator(1, "toy"))[:rows]
    negative = torch.randint(0, N_ITEMS, (len(order), negatives), generator=generator(2, "toy"))
    return Batch(data.user[order], data.item[order], negative)


def model(cls: type[Recommender] = MF, seed: int = 0, **settings: object) -> Recommender:
    """A prepared model on the toy interactions with spread-out scores."""
    made = cls(**({"dim": 4, "init_std": 0.7} | settings))
    made.prepare(interactions(), generator(seed, "model"))
    return made


def labels(teacher: Recommender, depth: int = 12, request: GroupLists | None = None, epoch: int = 1) -> SoftLabels:
    """The soft labels of a teacher, without a store."""
    data = interactions()
    layout = Layout(N_ITEMS, depth)
    if request is not None:
        group = popularity_groups(data.popularity(), request.groups)
        layout = Layout(N_ITEMS, depth, torch.where(data.popularity() > 0, group, -1), request.depth)
    with torch.no_grad():
        scorer = teacher.scorer()
        fields = extract(scorer, SeenItems(data), torch.arange(N_USERS), layout)
    arrays: dict[str, Tensor] = {name: torch.from_numpy(value) for name, value in fields.items()}
    for name in ("user_vectors", "item_vectors"):
        if (table := getattr(scorer, name)) is not None:
            arrays[name] = table.detach().clone()
    return SoftLabels(**arrays, teacher="toy", epoch=epoch, key="toy")


def knowledge(teachers: int = 1, checkpoints: int = 1, depth: int = 12, request: GroupLists | None = None) -> Knowledge:
    """The soft labels of some teachers at some checkpoints, and live copies of the last."""
    trajectories, live = {}, {}
    for t in range(teachers):
        points = [labels(model(seed=10 * t + c + 1), depth, request, c + 1) for c in range(checkpoints)]
        trajectories[f"teacher{t}"] = Trajectory(f"teacher{t}", tuple(points))
        live[f"teacher{t}"] = lambda t=t: model(seed=10 * t + checkpoints)
    return Knowledge(trajectories, live)
