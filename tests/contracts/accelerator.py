"""Runs the product's steps on a pretend accelerator: a program of its own, since the pretence holds for the process.

Tensors have shapes, types and places but no values. Mixing devices raises, and so does whatever would make a real
device wait: reading a value, or an operation whose result's shape depends on values. Prints a JSON object of case to
error ("" for none).
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

sys.path.insert(0, str(Path(__file__).parents[1]))

import recdistill.training.feed
from contracts import shelf, toys
from recdistill.dataset.popularity import popularity_groups
from recdistill.dataset.sampling import SeenItems, UnseenItems
from recdistill.distill.none import NoDistillation
from recdistill.models.base import Recommender
from recdistill.ranking import by_chunk, select_top, top_k
from recdistill.runtime import generator
from recdistill.soft_labels import extract as extraction
from recdistill.training.feed import Feed
from recdistill.training.objective import Objective
from recdistill.training.optimizers import make_optimizer
from recdistill.training.trainer import train_step
from recdistill.types import SoftLabels

MODELS = shelf.models()
DISTILLERS = shelf.distillers()
HOLDERS = (nn.Module, UnseenItems, SeenItems, SoftLabels, Feed)  # objects whose tensors move


class Device:
    """The pretend accelerator; objects are made on the CPU with values and moved here without them."""

    def __init__(self) -> None:
        self.mode = FakeTensorMode()
        self.device = torch.device("fakecuda:0")
        self.moved: dict[int, tuple[Any, Any]] = {}

    def move(self, value: Any) -> Any:
        """The same thing with all its tensors on the device; objects are changed in place."""
        if id(value) in self.moved:
            return self.moved[id(value)][1]
        result: Any = value
        if isinstance(value, Tensor):
            result = self.mode.from_tensor(value.detach()).to(self.device)
            if isinstance(value, nn.Parameter):
                result = nn.Parameter(result)
        elif isinstance(value, dict):
            for key, inner in value.items():
                value[key] = self.move(inner)
        elif isinstance(value, list | tuple):
            result = type(value)(self.move(inner) for inner in value)
        elif isinstance(value, torch.device):
            result = self.device
        self.moved[id(value)] = (value, result)
        if isinstance(value, HOLDERS):
            for key, inner in vars(value).items():
                vars(value)[key] = self.move(inner)
        return result


def made(name: str) -> Recommender:
    model = MODELS[name]()
    model.prepare(toys.interactions(), generator(0, "model"))
    return model


def cpu_draws(seed: int, purpose: str, epoch: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """There are no generators on the pretend device; one of the CPU serves, as no values are drawn."""
    return generator(seed, purpose, epoch)


DENSE_AND_SPARSE = "the pretence cannot add a dense and a sparse gradient of one table"


def gradients_are_sparse(objective: Objective) -> bool:
    """Whether a step, made on the CPU, gives every table of the student a sparse gradient."""
    objective.distiller.on_epoch_start(0, objective.student, generator(0, "distiller", 0))
    torch.stack(list(objective(toys.batch()).values())).sum().backward()
    sparse = all(parameter.grad.is_sparse for parameter in objective.student.parameters())
    objective.zero_grad()
    return sparse


def step(model: str, distiller: str, optimizer: str = "adam") -> None:
    """Two epochs' starts and steps, as `fit` makes them."""
    student, method = made(model), (DISTILLERS | CONTROLS)[distiller]()
    student.by_rows = optimizer == "row_adam"
    several = distiller == "curriculum"
    knowledge = toys.knowledge(2 if several else 1, 3 if several else 1, request=method.group_lists)
    method.prepare(knowledge, toys.interactions(), student, generator(0, "distiller"))
    data = toys.interactions()
    feed = Feed(data, batch_size=16, negatives=2, seed=0, device=torch.device("cpu"))
    if student.by_rows and not gradients_are_sparse(Objective(student, method, 0.01)):
        raise NotImplementedError(DENSE_AND_SPARSE)
    device = Device()
    objective, feed = device.move(Objective(student, method, 0.01)), device.move(feed)
    with device.mode:
        update = make_optimizer(optimizer, objective.parameters(), 0.01)
        for epoch in range(2):
            method.on_epoch_start(epoch, student, generator(0, "distiller", epoch))
            for batch in feed.epoch(epoch):
                assert batch.user.device == device.device
                _, values = train_step(objective, update, batch)
                assert values.device == device.device


class Fields(extraction.Layout):
    """A layout that was asked for its fields before the pretence began: its groups are on the CPU, with values."""

    known: dict[str, Any]

    def fields(self) -> dict[str, Any]:
        return self.known


def extract(model: str) -> None:
    """Soft labels of every user, overall and per group."""
    recommender, seen, data = made(model), SeenItems(toys.interactions()), toys.interactions()
    layout = Fields(toys.N_ITEMS, 12, popularity_groups(data.popularity(), 3), 5)
    object.__setattr__(layout, "known", extraction.Layout.fields(layout))
    members = extraction._members(layout, torch.device("cpu"))
    device = Device()
    user = torch.arange(toys.N_USERS)
    recommender, seen, members, user = (device.move(value) for value in (recommender, seen, members, user))
    torch.Tensor.numpy = lambda self: np.zeros(tuple(self.shape))  # type: ignore[method-assign]
    extraction._members = lambda layout, place: members
    with device.mode, torch.no_grad():
        fields = extraction.extract(recommender.scorer(), seen, user, layout)
    assert fields["group_item"].shape == (toys.N_USERS, 3, layout.known["group_item"][0][1])
    assert fields["item"].shape == (toys.N_USERS, 12)


def rank(model: str) -> None:
    """Top-K in chunks of five users, the last of them short."""
    recommender, seen = made(model), SeenItems(toys.interactions())
    device = Device()
    user = torch.arange(toys.N_USERS)
    recommender, seen, user = (device.move(value) for value in (recommender, seen, user))
    with device.mode, torch.no_grad():
        scorer = recommender.scorer()
        for column, value in by_chunk(scorer, seen, user, toys.N_ITEMS, lambda _, score: select_top(score, 6), 5):
            assert column.device == value.device == device.device
        lists = top_k(scorer, seen, user, toys.N_ITEMS, 6, 5)
        assert lists.item.shape == (toys.N_USERS, 6)
        assert lists.item.device == device.device


class Syncs(NoDistillation):
    """A negative control: it reads a value."""

    def forward(self, scorer: Any, batch: Any) -> dict[str, Tensor]:
        return {"term": scorer.user_vectors.sum() * float(batch.user.sum())}


class Mixes(NoDistillation):
    """A negative control: it mixes devices."""

    def forward(self, scorer: Any, batch: Any) -> dict[str, Tensor]:
        return {"term": (scorer.user_vectors[batch.user] + torch.ones(len(batch.user), 1)).sum()}


class Shapes(NoDistillation):
    """A negative control: the shape of its work depends on values."""

    def forward(self, scorer: Any, batch: Any) -> dict[str, Tensor]:
        return {"term": scorer.user_vectors[batch.user.unique()].sum()}


CONTROLS = {"control-sync": Syncs, "control-mix": Mixes, "control-shape": Shapes}


def cases() -> dict[str, Callable[[], None]]:
    """All of them by name."""
    found: dict[str, Callable[[], None]] = {}
    for model in MODELS:
        found[f"extract/{model}"] = lambda model=model: extract(model)
        found[f"rank/{model}"] = lambda model=model: rank(model)
    for distiller in DISTILLERS:
        trained = [model for model in MODELS if "live" in MODELS[model]().provides]
        for model in ("mf-bpr", "lightgcn-softmax") if distiller != "none" else trained:
            found[f"step/{model}/{distiller}"] = lambda m=model, d=distiller: step(m, d)
        found[f"step/by rows/{distiller}"] = lambda d=distiller: step("mf-bpr", d, "row_adam")
    for name in CONTROLS:
        found[name] = lambda name=name: step("mf-bpr", name)
    return found


def main() -> None:
    """Run all cases."""
    from torch.utils import backend_registration

    setup = getattr(backend_registration, "_setup_privateuseone_for_python_backend", None)
    if setup is None:
        print(json.dumps({}))
        return
    setup("fakecuda")
    torch.set_num_threads(1)
    recdistill.training.feed.generator = cpu_draws
    kept = torch.Tensor.numpy, extraction._members
    results = {}
    for name, case in cases().items():
        try:
            case()
            results[name] = ""
        except Exception:
            results[name] = traceback.format_exc()
        torch.Tensor.numpy, extraction._members = kept
    print(json.dumps(results), flush=True)
    os._exit(0)  # the pretence's autograd thread may still run, which aborts an ordinary exit


if __name__ == "__main__":
    main()
