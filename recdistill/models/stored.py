"""A model that an earlier run trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recdistill.errors import ConfigError, require
from recdistill.store import read_json


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
        self.description: dict[str, Any] = read_json(self.folder / "model.json")

    @staticmethod
    def _find(run: Path, model: str) -> Path:
        if not (run / "results.json").is_file():
            raise ConfigError(
                f"{run} is not the folder of a finished run",
                "a finished run has a results.json",
                "name a folder below outputs/runs: teacher.run=outputs/runs/...",
            )
        models = read_json(run / "results.json")["models"]
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
