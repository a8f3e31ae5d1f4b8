"""Runs the product on a pretend accelerator and on the CPU: in a process of its own, which the device holds for.

Every case runs the product's own functions in both places and compares what they give; the draws are the same, as the
generators are. On the device nothing may mix places, and no draws, no step and no chunk of a ranking may wait.
Prints a JSON object of case to error ("" for none).
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from contracts import pretence, shelf, toys
from recdistill import catalogue, pipeline, ranking
from recdistill.config import TrainerConfig
from recdistill.dataset.popularity import popularity_groups
from recdistill.dataset.sampling import SeenItems
from recdistill.distill.base import Distiller
from recdistill.distill.none import NoDistillation
from recdistill.evaluation.accuracy import METRICS
from recdistill.evaluation.evaluator import Evaluator
from recdistill.models.base import Recommender
from recdistill.ranking import by_chunk, top_k
from recdistill.runtime import Runtime, generator
from recdistill.soft_labels import extract as extraction
from recdistill.training import trainer
from recdistill.training.feed import Feed
from recdistill.training.trainer import fit, train_step
from recdistill.types import Dataset, Interactions
from small_plan import plan

MODELS = shelf.models()
DISTILLERS = shelf.distillers()
CPU = torch.device("cpu")
EPOCHS, EVAL_EVERY = 3, 2
Found = dict[str, Tensor]
place: Any = pretence  # where the device is; tests on a real one put `contracts.cuda` here


def made(name: str) -> Recommender:
    model = MODELS[name]()
    model.prepare(toys.interactions(), generator(0, "model"))
    return model


class Stopped(Exception):
    """A training was interrupted."""


def trained(model: str, distiller: str, optimizer: str, device: torch.device, stop: int = 0, **more: Any) -> Found:
    """What `fit` makes of a student: the history's terms, and the weights."""
    student, method = made(model).to(device), (DISTILLERS | CONTROLS)[distiller]()
    several = distiller == "curriculum"
    with torch.no_grad():
        knowledge = toys.knowledge(2 if several else 1, 3 if several else 1, request=method.group_lists)
    method.prepare(knowledge, toys.interactions(), student, generator(0, "distiller"))
    method.to(device)
    method.on_epoch_start = unwaiting(method.on_epoch_start)  # type: ignore[method-assign]
    values = iter((0.1, 0.0)) if stop or "checkpoint" not in more else iter((0.0,))  # best after the first evaluation

    def on_epoch(epoch: int, *_: Any) -> None:
        if epoch == stop:
            raise Stopped

    settings = TrainerConfig(EPOCHS, 16, 0.01, 0.01, 2, optimizer, EVAL_EVERY)
    done = fit(
        student,
        method,
        toys.interactions(),
        settings,
        seed=0,
        device=device,
        validate=lambda _: next(values),
        on_epoch=on_epoch,
        **more,
    )
    assert done.best_epoch == EVAL_EVERY
    terms = [[row[name] for name in row if name not in ("valid", "seconds")] for row in done.history]
    weights = {name: placed(value, device) for name, value in student.state_dict().items()}
    return {"history": torch.tensor(terms), **weights}


def placed(value: Tensor, device: torch.device) -> Tensor:
    """A tensor brought to the CPU, if it was where it should be."""
    assert value.device == device, f"{value.device} instead of {device}"
    return value.cpu()


def train(model: str, distiller: str, optimizer: str = "adam") -> None:
    """A training on the device gives what it gives on the CPU."""
    with on_device() as device:
        found = trained(model, distiller, optimizer, device)
    agree(found, trained(model, distiller, optimizer, CPU))


def resume(first: str, second: str, distiller: str, optimizer: str) -> None:
    """A training that is interrupted in one place and continued in another is the uninterrupted one."""
    words = "mf-bpr", distiller, optimizer
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "checkpoint.safetensors"
        with on_device() as device:
            places = {"cpu": CPU, "device": device}
            try:
                trained(*words, places[first], stop=EVAL_EVERY, checkpoint=checkpoint)
            except Stopped:
                found = trained(*words, places[second], checkpoint=checkpoint)
    agree(found, trained(*words, CPU))


def extract(model: str) -> None:
    """Soft labels of every user, overall and per group."""
    group = popularity_groups(toys.interactions().popularity(), 3)
    layout = extraction.Layout(toys.N_ITEMS, 12, group, 5)

    def fields(device: torch.device) -> Found:
        recommender, seen = made(model).to(device), SeenItems(toys.interactions(), device)
        with torch.no_grad():
            arrays = extraction.extract(recommender.scorer(), seen, everybody(device), layout)
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    with on_device() as device:
        found = fields(device)
    agree(found, fields(CPU))


def rank(model: str) -> None:
    """Lists in chunks of five users, the last of them short."""

    def lists(device: torch.device) -> Found:
        recommender, seen = made(model).to(device), SeenItems(toys.interactions(), device)
        with torch.no_grad():
            found = top_k(recommender.scorer(), seen, everybody(device), toys.N_ITEMS, 6, 5)
        return {name: placed(value, device) for name, value in vars(found).items()}

    with on_device() as device:
        found = lists(device)
    agree(found, lists(CPU))


def evaluate(model: str) -> None:
    """All metrics on both splits, with the ranks of held-out items; the value that models are selected by; latency."""

    def metrics(device: torch.device) -> Found:
        recommender = made(model).to(device)
        evaluator = Evaluator(split(), device=device, cutoffs=[2, 5], metrics=list(METRICS), stored=8)
        assert evaluator.latency(recommender)["batch"]["users"] > 1
        with torch.no_grad():
            found = {"validate": torch.tensor(evaluator.validate(recommender))}
        for name in ("valid", "test"):
            done = evaluator.evaluate(recommender, name)
            found |= {f"{name}/{key}": torch.tensor(value) for key, value in done.result.overall.items() if value}
            found[f"{name}/item"] = torch.from_numpy(done.ranked.item)
        assert done.ranks is not None
        return found | {f"ranks/{name}": value for name, value in vars(done.ranks).items()}

    with on_device(ranks_wait=True) as device:
        found = metrics(device)
    agree(found, metrics(CPU))


def run(*overrides: str) -> None:
    """A whole run, from the data set to the record."""

    def metrics(device: torch.device) -> Found:
        with tempfile.TemporaryDirectory() as folder:
            made = plan(Path(folder), *overrides)
            pipeline.start = lambda *_, **__: Runtime(device, 1, 0)
            done = pipeline.run(made, Path(folder) / "runs" / "one", bars=False)
        models = done["models"].items()
        return {
            f"{name}/{key}": torch.tensor(value)
            for name, model in models
            for key, value in model["metrics"].items()
            if value is not None
        }

    with on_device(ranks_wait=True) as device:
        found = metrics(device)
    agree(found, metrics(CPU))


def split() -> Dataset:
    """The toy interactions with a fifth of them in either of the other parts."""
    data = toys.interactions()
    part = torch.arange(len(data)) % 5
    train, valid, test = (
        Interactions(data.user[rows], data.item[rows], data.n_users, data.n_items)
        for rows in (part < 3, part == 3, part == 4)
    )
    popularity = train.popularity()
    ids = torch.arange(toys.N_USERS).numpy().astype(str), torch.arange(toys.N_ITEMS).numpy().astype(str)
    group = popularity_groups(popularity, 2)
    return Dataset("toy", train, valid, test, popularity, group, *ids, "toy", Path())


def everybody(device: torch.device) -> Tensor:
    return torch.arange(toys.N_USERS, device=device)


def unwaiting(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function; the host must not wait for the device in it."""

    def called(*args: Any, **kwargs: Any) -> Any:
        with place.without_waiting():
            return function(*args, **kwargs)

    return called


@contextmanager
def on_device(*, ranks_wait: bool = False) -> Iterator[torch.device]:
    """The pretend device; no epoch's draws, no step and no chunk of a ranking may wait for it.

    `ranks_wait`: rankings may, as ranks of held-out items are brought to the host chunk by chunk.
    """
    watched = [(trainer, "train_step", train_step), (Feed, "epoch", Feed.epoch)]
    watched += [
        (module, "by_chunk", by_chunk)
        for name, module in sys.modules.items()
        if name.startswith("recdistill.") and getattr(module, "by_chunk", None) is by_chunk
        if not (ranks_wait and module is ranking)
    ]
    for holder, name, function in watched:
        setattr(holder, name, unwaiting(function))
    try:
        with place.used() as device:
            yield device
    finally:
        for holder, name, function in watched:
            setattr(holder, name, function)


def agree(found: Found, expected: Found) -> None:
    """Whole numbers are equal, others nearly: sums are taken in another order."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


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


class Masks(NoDistillation):
    """A negative control: a boolean mask."""

    def forward(self, scorer: Any, batch: Any) -> dict[str, Tensor]:
        return {"term": scorer.user_vectors[batch.user[batch.user > 3]].sum()}


class Uploads(NoDistillation):
    """A negative control: numbers of the host become a tensor on the device."""

    def forward(self, scorer: Any, batch: Any) -> dict[str, Tensor]:
        return {
            "term": (scorer.user_vectors[batch.user] * batch.user.new_tensor([2] * scorer.user_vectors.shape[1])).sum()
        }


class Copies(NoDistillation):
    """A negative control: rows that are kept on the host are copied for each batch."""

    def forward(self, scorer: Any, batch: Any) -> dict[str, Tensor]:
        return {"term": (scorer.user_vectors[batch.user] * torch.ones(len(batch.user), 1).to(batch.user.device)).sum()}


class Indexes(NoDistillation):
    """A negative control: a table on the device is indexed from the host."""

    def forward(self, scorer: Any, batch: Any) -> dict[str, Tensor]:
        return {"term": scorer.user_vectors[torch.arange(3)].sum()}


class Draws(NoDistillation):
    """A negative control: the epoch's generator, which is one of the device, draws on the host."""

    def on_epoch_start(self, epoch: int, student: Recommender, generator: torch.Generator) -> None:
        torch.rand(3, generator=generator).to(next(student.parameters()).device)


CONTROLS: dict[str, Callable[[], Distiller]] = {
    "control-sync": Syncs,
    "control-mix": Mixes,
    "control-shape": Shapes,
    "control-mask": Masks,
    "control-upload": Uploads,
    "control-copy": Copies,
    "control-index": Indexes,
    "control-draw": Draws,
}


def cases() -> dict[str, Callable[[], None]]:
    """All of them by name."""
    found: dict[str, Callable[[], None]] = {}
    for model in MODELS:
        found[f"extract/{model}"] = lambda model=model: extract(model)
        found[f"rank/{model}"] = lambda model=model: rank(model)
        found[f"evaluate/{model}"] = lambda model=model: evaluate(model)
    for distiller in DISTILLERS:
        learners = [model for model in MODELS if "live" in MODELS[model]().provides]
        for model in ("lightgcn-softmax",) if distiller != "none" else learners:
            found[f"train/{model}/{distiller}"] = lambda m=model, d=distiller: train(m, d)
        found[f"train/by rows/{distiller}"] = lambda d=distiller: train("mf-bpr", d, "row_adam")
        found[f"resume/{distiller}"] = lambda d=distiller: resume("device", "device", d, "adam")
    for distiller, *overrides in (("rrd",), ("unkd", "~distill.interesting")):
        found[f"run/{distiller}"] = lambda d=distiller, o=overrides: run(f"distill={d}", *o)
    for optimizer in ("adam", "row_adam"):
        for places in (("device", "cpu"), ("cpu", "device")):
            name = f"move/{optimizer}/{' to '.join(places)}"
            found[name] = lambda p=places, o=optimizer: resume(*p, "dcd-published", o)
    for name in CONTROLS:
        found[name] = lambda name=name: train("mf-bpr", name)
    return found


def main(*wanted: str) -> None:
    """Run all cases, or those whose names begin with one of the words."""
    if pretence.begin() is None:
        print(json.dumps({}))
        return
    torch.set_num_threads(1)
    catalogue.DEVICE_BYTES = 5 * 4 * toys.N_ITEMS  # several chunks to a batch
    results = {}
    for name, case in cases().items():
        if wanted and not name.startswith(wanted):
            continue
        try:
            case()
            results[name] = ""
        except Exception:
            results[name] = traceback.format_exc()
    print(json.dumps(results), flush=True)
    os._exit(0)  # autograd's thread for the device may still run, which aborts an ordinary exit


if __name__ == "__main__":
    main(*sys.argv[1:])
