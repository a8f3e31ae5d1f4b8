"""The one training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recdistill.config import TrainerConfig
from recdistill.dataset.sampling import SeenItems, UnseenItems
from recdistill.distill.base import Distiller
from recdistill.errors import OutOfMemory, TrainingError
from recdistill.models.base import Recommender
from recdistill.runtime import free_memory, generator, is_out_of_memory
from recdistill.training.checkpoint import TrainState, load_checkpoint, save_checkpoint
from recdistill.training.feed import Feed
from recdistill.training.objective import Objective
from recdistill.training.optimizers import make_optimizer
from recdistill.types import Interactions, SoftLabels


@dataclass(frozen=True)
class Fit:
    """What training gives beside the trained weights.

    Attributes:
        history: one row per epoch: loss, each term, validation value, seconds.
        epochs: how many were run.
        best_epoch: the one whose weights were restored.
        best_value: its validation value.
        resumed: the epoch after which this process went on, 0 where it began.
    """

    history: list[dict[str, Any]]
    epochs: int
    best_epoch: int
    best_value: float
    resumed: int = 0

    @property
    def seconds(self) -> float:
        """What the epochs took, those before an interruption too."""
        return float(sum(row["seconds"] for row in self.history))


Validate = Callable[[Recommender], float]
OnEpoch = Callable[[int, int, float | None, float], None]


def fit(
    student: Recommender,
    distiller: Distiller,
    interactions: Interactions,
    settings: TrainerConfig,
    *,
    seed: int,
    device: torch.device,
    validate: Validate,
    on_epoch: OnEpoch = lambda epoch, epochs, value, best: None,
    on_evaluation: Callable[[int, Recommender], None] = lambda epoch, model: None,
    checkpoint: Path | None = None,
) -> Fit:
    """Train a student under a distiller; stop early on validation; restore the best weights.

    Args:
        student: prepared, on `device`.
        distiller: prepared for this student, on `device`.
        interactions: training interactions.
        settings: epochs, batch size, learning rate and so on.
        seed: of batches, negatives and the distiller's draws.
        device: where everything lies.
        validate: the model to a validation value, higher is better.
        on_epoch: called after each epoch with (epoch, epochs at most, value or None, best value).
        on_evaluation: called with (epoch, model) after each evaluation.
        checkpoint: written at each evaluation; training continues from it when it exists.

    Raises:
        TrainingError: a loss term became NaN or infinite; the weights of the best evaluation so far are restored.
        OutOfMemory: memory does not hold an epoch's draws or a step.
    """
    objective = Objective(student, distiller, settings.weight_decay)
    trained = distiller.trained_models(student)
    for model in trained.values():
        model.by_rows = settings.optimizer == "row_adam"
    optimizer = make_optimizer(settings.optimizer, objective.parameters(), settings.learning_rate)
    feed = Feed(interactions, batch_size=settings.batch_size, negatives=settings.negatives, seed=seed, device=device)
    state = TrainState(0, 0, -math.inf, [], _weights(trained))
    if checkpoint is not None and checkpoint.is_file():
        state = load_checkpoint(checkpoint, objective, optimizer)
    resumed = state.epoch
    while state.epoch < settings.epochs and state.epoch - state.best_epoch < settings.patience:
        state.epoch += 1
        started = time.perf_counter()
        objective.train()
        try:
            distiller.on_epoch_start(state.epoch - 1, student, generator(seed, "distiller", state.epoch, device))
            row = _run_epoch(objective, optimizer, feed, state.epoch)
        except TrainingError:
            _restore(trained, state.best)
            raise
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                raise _too_large(settings, state.epoch, device) from error
            raise
        value = None
        if state.epoch % settings.eval_every == 0 or state.epoch == settings.epochs:
            objective.eval()
            with torch.no_grad():
                value = validate(student)
            on_evaluation(state.epoch, student)
            if value > state.best_value:
                state.best_epoch, state.best_value, state.best = state.epoch, value, _weights(trained)
        row |= {"valid": value, "seconds": time.perf_counter() - started}
        state.history.append(row)
        if value is not None and checkpoint is not None:
            save_checkpoint(checkpoint, objective, optimizer, state)
        on_epoch(state.epoch, settings.epochs, value, state.best_value)
    _restore(trained, state.best)
    objective.eval()
    return Fit(state.history, state.epoch, state.best_epoch, state.best_value, resumed)


def resident_bytes(
    student: Recommender, distiller: Distiller, interactions: Interactions, negatives: int
) -> dict[str, int]:
    """What a training keeps where the student lies, by kind; what a distiller draws in an epoch comes on top.

    Weights count five times: with their gradients, two moments and the best so far. An interaction counts seven
    numbers of 8 bytes (itself, its place in the sampler and in the batches) and three for each negative.
    """
    device = next(student.parameters()).device
    parameters = [value for module in (student, distiller) for value in module.parameters()]
    held = {storage.data_ptr(): storage.nbytes() for storage in _storages((student, distiller), device, set())}
    for value in parameters:
        held.pop(value.untyped_storage().data_ptr(), None)
    return {
        "weights and optimizer": 5 * sum(value.numel() * value.element_size() for value in parameters),
        "graph and lists": sum(held.values()),
        "interactions and an epoch of triplets": 8 * (7 + 3 * negatives) * len(interactions),
    }


def _storages(value: object, device: torch.device, known: set[int]) -> Iterator[torch.UntypedStorage]:
    """The memory of all tensors on a device that are reached from a value."""
    if id(value) in known:
        return
    known.add(id(value))
    inner: Iterable[object] = ()
    if isinstance(value, Tensor):
        if value.device == device:
            yield value.untyped_storage()
    elif isinstance(value, Mapping):
        inner = value.values()
    elif isinstance(value, list | tuple):
        inner = value
    elif isinstance(value, nn.Module | SeenItems | UnseenItems | SoftLabels):
        inner = vars(value).values()
    for one in inner:
        yield from _storages(one, device, known)


def train_step(objective: Objective, optimizer: torch.optim.Optimizer, batch: Any) -> tuple[list[str], Tensor]:
    """One update; returns the terms' names and their detached values [n_terms]. Waits for no device.

    Raises:
        TrainingError: no term has a gradient.
    """
    terms = objective(batch)
    learnt = [term for term in terms.values() if term.requires_grad]  # a penalty may be a constant
    if not learnt:
        raise TrainingError(
            f"no loss term has a gradient: {', '.join(terms)}",
            "nothing would be trained",
            "compute the terms from the scorer's scores without detach() or no_grad()",
        )
    for group in optimizer.param_groups:  # the optimizer's own zero_grad opens a profiler scope, 5 % of a small step
        for parameter in group["params"]:
            parameter.grad = None
    torch.autograd.backward(learnt)
    optimizer.step()
    return list(terms), torch.stack([term.detach() for term in terms.values()])


def _run_epoch(objective: Objective, optimizer: torch.optim.Optimizer, feed: Feed, epoch: int) -> dict[str, Any]:
    names: list[str] = []
    steps: list[Tensor] = []
    for batch in feed.epoch(epoch):
        names, values = train_step(objective, optimizer, batch)
        steps.append(values)
    terms = torch.stack(steps).double().cpu()  # the one wait of the epoch
    _check_finite(terms, names, epoch)
    mean = terms.mean(0)
    return {"epoch": epoch, "loss": float(mean.sum())} | {name: float(mean[n]) for n, name in enumerate(names)}


def _check_finite(terms: Tensor, names: Sequence[str], epoch: int) -> None:
    bad = (~terms.isfinite()).nonzero()
    if len(bad):
        step, term = (int(place) for place in bad[0])
        raise TrainingError(
            f"loss term {names[term]!r} is {float(terms[step, term])} in epoch {epoch}, step {step + 1}",
            "a loss that is not finite destroys the weights; the best weights so far are kept",
            "lower trainer.learning_rate or the weight of that term (distill.weight)",
        )


def _too_large(settings: TrainerConfig, epoch: int, device: torch.device) -> OutOfMemory:
    return OutOfMemory(
        f"the memory of {device} does not hold a training in batches of {settings.batch_size:,} rows (epoch {epoch})",
        f"a step needs room beside what stays there; {free_memory(device) / 1e6:,.1f} MB are free",
        "use a smaller trainer.batch_size, fewer trainer.negatives, a smaller dim or soft_labels.depth, or device=cpu",
    )


def _weights(models: dict[str, Recommender]) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": value.detach().clone()
        for name, model in models.items()
        for key, value in model.state_dict().items()
    }


def _restore(models: dict[str, Recommender], weights: dict[str, Tensor]) -> None:
    for name, model in models.items():
        prefix = f"{name}."
        model.load_state_dict(
            {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        )
