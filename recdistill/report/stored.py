"""A finished run as its folder tells it: what the page of a run is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from recdistill.errors import CacheError, ConfigError
from recdistill.report.record import SCHEMA_VERSION
from recdistill.report.runs import is_whole, unreadable
from recdistill.report.tables import in_order
from recdistill.store import read_csv, read_json

Epochs = Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class StoredRun:
    """The files of a run's folder.

    Attributes:
        folder: of the run.
        results: what is in results.json.
        finished: when it was done.
        overrides: what the user typed.
        split: `test`, or `valid` where test was not read; k: the largest cut-off.
    """

    folder: Path
    results: Mapping[str, Any]
    finished: str
    overrides: Sequence[str]
    split: str
    k: int

    @property
    def models(self) -> dict[str, Mapping[str, Any]]:
        """Models by role in the order of the main table: teachers, scratch, student, others."""
        return {name: self.results["models"][name] for name in in_order(self.results["models"])}

    def metric(self, model: str, name: str) -> float | None:
        """A model's value of `METRIC[/STRATUM]` at the largest cut-off; None where there is none."""
        metric, slash, stratum = name.partition("/")
        value: float | None = self.models[model]["metrics"].get(f"{self.split}/{metric}@{self.k}{slash}{stratum}")
        return value

    def strata(self, metric: str, kind: str) -> list[str]:
        """Strata of a kind (`group`, `items`, `users`) that the student's metric was split by, in their order."""
        start = f"{self.split}/{metric}@{self.k}/{kind}="
        return [name.removeprefix(start) for name in self.models["student"]["metrics"] if name.startswith(start)]

    def per_user(self, metric: str) -> dict[str, np.ndarray]:
        """[n] values of each model for the users of the split, in one order of users."""
        table = self._table("per_user.parquet", ["model", "user_id", metric], [("split", "=", self.split)])
        if table is None:
            return {}
        found, users = {}, {}
        for name in self.models:
            rows = table.filter(pc.equal(table["model"], name))
            order = pc.sort_indices(rows["user_id"].cast(pa.string()))
            users[name] = rows["user_id"].cast(pa.string()).take(order)
            found[name] = rows[metric].take(order).to_numpy()
        student = users["student"]
        return {name: value for name, value in found.items() if users[name].equals(student)}

    def exposure(self) -> dict[str, np.ndarray]:
        """[I] number of top-k lists that hold an item, rising, for each model with stored lists."""
        n_items = self.results["dataset"]["n_items"]
        found = {}
        for name in self.models:
            wanted = [("model", "=", name), ("rank", "<=", self.k)]
            table = self._table("topk.parquet", ["item_id"], wanted)
            if table is None:
                return {}
            if len(table):
                count = pc.value_counts(table["item_id"].cast(pa.string())).field("counts").to_numpy()
                found[name] = np.sort(np.pad(count, (n_items - len(count), 0)))
        return found

    def popularity(self) -> np.ndarray | None:
        """[I] training users of each item, rising."""
        table = self._table("items.parquet", ["popularity"], None)
        return None if table is None else np.sort(table["popularity"].to_numpy())

    def curves(self) -> dict[str, Epochs]:
        """One row per epoch of each model that was trained; those of references only where the run kept them."""
        found: dict[str, list[Mapping[str, float]]] = {}
        for row in read_csv(self.folder / "curves.csv"):
            found.setdefault(row["model"], []).append(_numbers(row))
        found["student"] = [_numbers(row) for row in read_csv(self.folder / "history.csv")]
        return {name: found[name] for name in self.models if found.get(name)}

    def _table(self, name: str, columns: list[str], filters: list[tuple[str, str, Any]] | None) -> pa.Table | None:
        """Some columns of a Parquet file of the folder; None where the run has no such file."""
        path = self.folder / name
        if not path.is_file():
            return None
        try:
            return pq.read_table(path, columns=columns, filters=filters)
        except (OSError, pa.ArrowException) as error:
            raise CacheError(
                f"cannot read {path}: {error}", "the file was cut short or edited", "repeat the run"
            ) from error


def read_run(folder: Path) -> StoredRun:
    """A finished run.

    Raises:
        ConfigError: the folder is no run, the run is not finished, or it is of another `schema_version`.
        CacheError: a file cannot be read.
    """
    if not (folder / "status.json").is_file():
        raise ConfigError(
            f"{folder} is not the folder of a run", "a run has a status.json", "name a folder below outputs/runs"
        )
    status = read_json(folder / "status.json")
    if status.get("status") != "done":
        raise ConfigError(*_unfinished(folder, status))
    results = read_json(folder / "results.json")
    if results.get("schema_version") != SCHEMA_VERSION:
        raise ConfigError(
            f"{folder}/results.json has schema_version {results.get('schema_version')}",
            f"this recdistill reads {SCHEMA_VERSION}",
            "use the version that made the run, or repeat it",
        )
    if not is_whole(results):
        raise unreadable(folder / "results.json", "does not hold what a finished run writes")
    typed = folder / ".hydra" / "overrides.yaml"
    overrides = yaml.safe_load(typed.read_text(encoding="utf-8")) if typed.is_file() else None
    evaluation = results["config"]["evaluation"]
    return StoredRun(
        folder=folder,
        results=results,
        finished=str(status.get("time", "")),
        overrides=[str(word) for word in overrides or []],
        split="test" if evaluation["test"] else "valid",
        k=max(evaluation["cutoffs"]),
    )


def _unfinished(folder: Path, status: Mapping[str, Any]) -> tuple[str, str, str]:
    """What, why and fix for a run without results."""
    state = str(status.get("status"))
    if state == "skipped":
        other = status.get("same_as")
        return f"{folder} was skipped", f"{other} has its results", f"name {other}"
    said = str(status.get("error", "")).split("\n")[0]
    return (
        f"{folder} has no results: it is {state}{': ' if said else ''}{said}",
        "its numbers are what a finished run stores",
        "wait if it still runs; continue one that was stopped with recdistill train resume=" + str(folder),
    )


def _numbers(row: Mapping[str, str]) -> dict[str, float]:
    """The cells that hold numbers: validation is not in every epoch."""
    return {name: float(text) for name, text in row.items() if text and name != "model"}
