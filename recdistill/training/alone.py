"""Models that are trained on their own loss, once per key, and kept: teachers and the undistilled student."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from recdistill.config import TrainerConfig
from recdistill.distill.none import NoDistillation
from recdistill.errors import CacheError, ConfigError
from recdistill.models.base import Recommender
from recdistill.models.stored import described, verified, weights_file
from recdistill.runtime import generator
from recdistill.store import (
    cannot_write,
    ensure_folder,
    file_hash,
    key_of,
    locked,
    plugin_code,
    write_csv,
    write_json,
)
from recdistill.training.checkpoint import load_weights, save_weights
from recdistill.training.trainer import OnEpoch, Validate, fit
from recdistill.types import Interactions

FORMAT_VERSION = 3


@dataclass(frozen=True)
class Recipe:
    """What makes a model: everything that its key hashes.

    Attributes:
        role: `teacher` or `student`; part of the seed of the initial weights.
        node: `_target_` and settings.
        make: constructs the model from them.
        trainer: settings of the training.
        seed: of initial weights, batches and draws.
        checkpoints: how many snapshots, early to best, are kept.
        stored: the folder of a model that an earlier run trained, instead of training one.
        select: the validation metric whose best epoch is kept.
        matmul: precision of products in training, `strict` or `fast`.
    """

    role: str
    node: dict[str, Any]
    make: Callable[[], Recommender]
    trainer: TrainerConfig
    seed: int
    checkpoints: int = 1
    stored: Path | None = None
    select: str = "ndcg@20"
    matmul: str = "strict"

    def key(self, fingerprint: str) -> str:
        """The key on a data set."""
        parts = {"role": self.role, "node": self.node, "trainer": asdict(self.trainer), "seed": self.seed}
        return key_of(
            {"format_version": FORMAT_VERSION, "dataset": fingerprint, "checkpoints": self.checkpoints}
            | {"select": self.select}
            | ({} if self.matmul == "strict" else {"matmul": self.matmul})
            | plugin_code(self.node)
            | parts
        )


@dataclass(frozen=True)
class TrainedModel:
    """A model on disk.

    Attributes:
        folder: with model.json.
        weights: the file of its weights.
        key: of what made it.
        epochs: that were run; best_epoch: whose weights are kept.
        snapshots: epoch and file of each checkpoint, early to best.
        seconds: its training took, whenever that was.
    """

    folder: Path
    weights: Path
    key: str
    epochs: int
    best_epoch: int
    snapshots: list[tuple[int, Path]]
    seconds: float
    load: Callable[[Path | None], Recommender]


def prepared(recipe: Recipe, interactions: Interactions, device: torch.device) -> Recommender:
    """A fresh model with its initial weights."""
    model = recipe.make()
    model.prepare(interactions, generator(recipe.seed, recipe.role))
    return model.to(device)


def trained_alone(
    recipe: Recipe,
    shelf: Path,
    *,
    name: str,
    fingerprint: str,
    interactions: Interactions,
    validate: Validate,
    device: torch.device,
    say: Callable[[str], None],
    on_epoch: OnEpoch,
) -> TrainedModel:
    """The model of a recipe: from the cache, else trained now.

    Args:
        recipe: what makes it.
        shelf: the folder of its kind in the cache.
        name: what it is called in messages.
        fingerprint: of the data set.
        interactions: training interactions.
        validate: the model to its validation value.
        device: where to train.
        say: prints a line to the user.
        on_epoch: progress, see `fit`.

    Raises:
        ConfigError: a stored model is of another data set or split.
        CacheError: a stored model's files are missing or were changed.
    """
    if recipe.stored is not None:
        verified(recipe.stored)
        return _opened(recipe, recipe.stored, fingerprint, interactions, device)
    key = recipe.key(fingerprint)
    folder = shelf / key
    with locked(folder, f"{name} {key}", say):
        if not _cached(folder, f"{name} {key}", say):
            _train(recipe, ensure_folder(folder), key, fingerprint, interactions, validate, device, on_epoch)
    return _opened(recipe, folder, fingerprint, interactions, device)


def _cached(folder: Path, what: str, say: Callable[[str], None]) -> bool:
    """Whether a model is there and whole; the description of a damaged one is removed, so that it is made again."""
    if not (folder / "model.json").exists():
        return False
    try:
        _tidy(folder, verified(folder).get("snapshots", []))
    except CacheError as error:
        say(f"{what} in the cache is damaged and is trained again: {error.what}")
        try:
            (folder / "model.json").unlink()
        except OSError as denied:
            raise cannot_write(folder / "model.json", denied) from denied
        return False
    say(f"{what} is in the cache")
    return True


def _train(
    recipe: Recipe,
    folder: Path,
    key: str,
    fingerprint: str,
    interactions: Interactions,
    validate: Validate,
    device: torch.device,
    on_epoch: OnEpoch,
) -> None:
    model = prepared(recipe, interactions, device)

    def snapshot(epoch: int, current: Recommender) -> None:
        if recipe.checkpoints > 1:
            save_weights(folder / f"snapshot.{epoch}.safetensors", current.state_dict())

    progress = folder / "checkpoint.safetensors"
    done = None
    if model.trainable:
        done = fit(
            model,
            NoDistillation(),
            interactions,
            recipe.trainer,
            seed=recipe.seed,
            device=device,
            validate=validate,
            on_epoch=on_epoch,
            on_evaluation=snapshot,
            checkpoint=progress,
        )
        write_csv(folder / "history.csv", done.history)
    save_weights(folder / "model.safetensors", model.state_dict())
    kept = _chosen_snapshots(folder, recipe.checkpoints, done.best_epoch) if done is not None else []
    write_json(
        folder / "model.json",
        describe(recipe.node, interactions, fingerprint)
        | {
            "key": key,
            "sha256": file_hash(folder / "model.safetensors"),
            "trainer": asdict(recipe.trainer),
            "seed": recipe.seed,
            "select": recipe.select,
            "epochs": 0 if done is None else done.epochs,
            "best_epoch": 0 if done is None else done.best_epoch,
            "valid": None if done is None else done.best_value,
            "seconds": 0.0 if done is None else done.seconds,
            "snapshots": kept,
        },
    )
    _tidy(folder, kept)


def describe(node: dict[str, Any], interactions: Interactions, fingerprint: str) -> dict[str, Any]:
    """What is needed to rebuild a model beside its weights."""
    return {
        "format_version": FORMAT_VERSION,
        "model": node,
        "n_users": interactions.n_users,
        "n_items": interactions.n_items,
        "dataset": fingerprint,
    }


def _chosen_snapshots(folder: Path, number: int, best_epoch: int) -> list[int]:
    """Epochs of `number` snapshots evenly spaced over the evaluations up to the best."""
    epochs = sorted(int(path.name.split(".")[1]) for path in folder.glob("snapshot.*.safetensors"))
    upto = [epoch for epoch in epochs if epoch <= best_epoch]
    last = len(upto) - 1
    return sorted({upto[round(step * last / max(number - 1, 1))] for step in range(number)}) if upto else []


def _tidy(folder: Path, kept: list[int]) -> None:
    """Remove what only the training needed; after model.json is written, so that a kill here changes nothing."""
    names = {f"snapshot.{epoch}.safetensors" for epoch in kept}
    with suppress(OSError):
        (folder / "checkpoint.safetensors").unlink(missing_ok=True)
        for path in folder.glob("snapshot.*.safetensors"):
            if path.name not in names:
                path.unlink(missing_ok=True)


def _opened(
    recipe: Recipe, folder: Path, fingerprint: str, interactions: Interactions, device: torch.device
) -> TrainedModel:
    about = described(folder)
    if about["dataset"] != fingerprint:
        raise ConfigError(
            f"the stored model {folder} was trained on data set {about['dataset']}, this run uses {fingerprint}",
            "a teacher of another split has seen this split's test interactions",
            "use the same dataset and dataset.split.seed as that run",
        )
    weights = weights_file(folder)

    def load(path: Path | None) -> Recommender:
        model = prepared(recipe, interactions, device)
        found = load_weights(path or weights)
        try:
            model.load_state_dict({name: found[name] for name in model.state_dict()})
        except (KeyError, RuntimeError) as error:
            raise CacheError(
                f"the weights {path or weights} are not those of the model that model.json describes: {error}",
                "one of the two files was changed",
                f"remove {folder} and train the model again with the command that made it",
            ) from error
        return model.eval()

    snapshots = [(epoch, folder / f"snapshot.{epoch}.safetensors") for epoch in about.get("snapshots", [])]
    return TrainedModel(
        folder, weights, about["key"], about["epochs"], about["best_epoch"], snapshots, about["seconds"], load
    )
