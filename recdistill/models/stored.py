"""A model that an earlier run trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recdistill.errors import CacheError, ConfigError, require
from recdistill.store import file_hash, read_json

NEEDED = ("model", "dataset", "key", "epochs", "best_epoch", "seconds")


class Stored:
    """A model of an earlier run, found by the run's folder.

    Args:
        run: the run's folder.
        model: which of its models: `teacher` (or `teacher.NAME`), `scratch` or `student`.
    """

    def __init__(self, *, run: str, model: str = "teacher") -> None:
        """Find the model's description.

        Raises:
            ConfigError: the folder is no finished run, or the model is not there.
        """
        require(bool(run), "run", run, "the folder of a finished run")
        self.folder = self._find(Path(run), model)
        self.description = described(self.folder, needed=("model",))  # the rest is checked with the weights

    @staticmethod
    def _find(run: Path, model: str) -> Path:
        if not (run / "results.json").is_file():
            raise ConfigError(
                f"{run} is not the folder of a finished run",
                "a finished run has a results.json",
                "name a folder below outputs/runs: teacher.run=outputs/runs/...",
            )
        results = read_json(run / "results.json")
        models = results.get("models") if isinstance(results, dict) else None
        if not isinstance(models, dict):
            raise _unusable(run / "results.json", "it names no models")
        if model not in models or models[model].get("key") is None:
            known = ", ".join(name for name, entry in models.items() if entry.get("key"))
            raise ConfigError(f"{run} has no stored model {model!r}", f"it has {known}", f"choose one of {known}")
        if model == "student":
            return run
        key, shelf = str(models[model]["key"]), "scratch" if model == "scratch" else "teachers"
        for parent in run.resolve().parents:
            if (parent / "cache" / shelf / key / "model.json").is_file():
                return parent / "cache" / shelf / key
        origin = Path(str(models[model].get("folder")))  # a teacher that was itself a stored model of another run
        if (origin / "model.json").is_file() and read_json(origin / "model.json").get("key") == key:
            return origin
        raise ConfigError(
            f"the {model} of {run} is no longer in the cache ({shelf}/{key})",
            "it was pruned or the run's folder was moved away from its outputs folder",
            "train it again with the settings in that run's .hydra/config.yaml",
        )


def described(folder: Path, needed: tuple[str, ...] = NEEDED) -> dict[str, Any]:
    """A stored model's `model.json`, with the keys that are needed.

    Raises:
        CacheError: it is missing, cut short or lacks a key.
    """
    about = read_json(folder / "model.json")
    if not isinstance(about, dict):
        raise _unusable(folder / "model.json", "it holds no keys")
    if missing := [key for key in needed if key not in about]:
        raise _unusable(folder / "model.json", f"it has no {', '.join(missing)}")
    return about


def weights_file(folder: Path) -> Path:
    """Where a model's weights lie: a run keeps its student's under the student's name."""
    student = folder / "student.safetensors"
    return student if student.is_file() else folder / "model.safetensors"


def verified(folder: Path) -> dict[str, Any]:
    """A stored model's `model.json`, if the weights beside it are those that it describes.

    Raises:
        CacheError: the description cannot be used, or the weights are missing or others.
    """
    about, weights = described(folder), weights_file(folder)
    expected = str(about.get("sha256", about["key"]))  # a student's key is the start of its weights' hash
    if not weights.is_file():
        raise _unusable(weights, "there is no such file")
    try:
        found = file_hash(weights)
    except OSError as error:
        raise _unusable(weights, error.strerror or str(error)) from error
    if not found.startswith(expected):
        raise _unusable(weights, f"its SHA-256 is {found[:16]}..., not {expected[:16]}...")
    for epoch in about.get("snapshots", []):
        if not (snapshot := folder / f"snapshot.{epoch}.safetensors").is_file():
            raise _unusable(snapshot, "there is no such file")
    return about


def _unusable(path: Path, because: str) -> CacheError:
    return CacheError(
        f"cannot use {path}: {because}",
        "the file was removed, cut short or changed after it was written",
        f"remove {path.parent} and train the model again with the command that made it",
    )
