"""Small things to run a model or a distiller on, in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from recdistill.dataset.popularity import popularity_groups
from recdistill.dataset.sampling import SeenItems
from recdistill.models.base import Recommender, Scorer
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


def labels(
    teacher: Recommender,
    depth: int = 12,
    request: GroupLists | None = None,
    epoch: int = 1,
    data: Interactions | None = None,
) -> SoftLabels:
    """The soft labels of a teacher, without a store; with ranked users per item where it has vectors."""
    data = interactions() if data is None else data
    layout = Layout(data.n_items, depth)
    if request is not None:
        group = popularity_groups(data.popularity(), request.groups, request.partition)
        layout = Layout(data.n_items, depth, torch.where(data.popularity() > 0, group, -1), request.depth)
    with torch.no_grad():
        scorer = teacher.scorer()
        made = _labels(scorer, data, layout, epoch)
        if scorer.user_vectors is None:
            return made
        other = _labels(scorer.transposed(), data.transposed(), Layout(data.n_users, depth), epoch)
        tables = {name: getattr(scorer, name).detach().clone() for name in ("user_vectors", "item_vectors")}
    return replace(made, transposed=other, **tables)


def _labels(scorer: Scorer, data: Interactions, layout: Layout, epoch: int) -> SoftLabels:
    fields = extract(scorer, SeenItems(data), torch.arange(data.n_users), layout)
    arrays: dict[str, Tensor] = {name: torch.from_numpy(value) for name, value in fields.items()}
    return SoftLabels(**arrays, teacher="toy", epoch=epoch, key="toy")


def crowd(
    teacher: Sequence[float], student: Sequence[float], n_users: int = 1, seen: Sequence[int] = ()
) -> tuple[Knowledge, Interactions, MF]:
    """`n_users` users who are all alike: what teacher and student score each item, and the items that all have seen."""
    user = torch.arange(n_users).repeat_interleave(len(seen))
    data = Interactions(user, torch.tensor(sorted(seen), dtype=torch.int64).repeat(n_users), n_users, len(teacher))
    models = []
    for scores in (teacher, student):
        made = MF(dim=1)
        made.prepare(data, generator(0, "model"))
        with torch.no_grad():
            made.user_table.fill_(1.0)
            made.item_table[:, 0] = torch.tensor(scores)
        models.append(made)
    one = labels(models[0], depth=len(teacher), data=data)
    return Knowledge({"toy": Trajectory("toy", (one,))}, {}), data, models[1]


def knowledge(teachers: int = 1, checkpoints: int = 1, depth: int = 12, request: GroupLists | None = None) -> Knowledge:
    """The soft labels of some teachers at some checkpoints, and live copies of the last."""
    trajectories, live = {}, {}
    for t in range(teachers):
        points = [labels(model(seed=10 * t + c + 1), depth, request, c + 1) for c in range(checkpoints)]
        trajectories[f"teacher{t}"] = Trajectory(f"teacher{t}", tuple(points))
        live[f"teacher{t}"] = lambda t=t: model(seed=10 * t + checkpoints)
    return Knowledge(trajectories, live)
