"""The files of a run folder."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recdistill import __version__
from recdistill.errors import CacheError
from recdistill.store import atomic, read_csv, read_json, timestamp, write_csv, write_json

SCHEMA_VERSION = 1
PACKAGES = ("torch", "hydra-core", "omegaconf", "numpy", "pandas", "pyarrow", "safetensors", "rich")


def finished_runs(outputs: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Folder and results.json of every finished run of this schema below an outputs folder; others are passed over."""
    shelves = [outputs / shelf for shelf in ("runs", "sweeps", "studies")]
    for path in sorted(path for shelf in shelves for path in shelf.glob("**/status.json")):
        try:
            status, results = read_json(path), read_json(path.parent / "results.json")
        except CacheError:
            continue
        done = isinstance(status, dict) and status.get("status") == "done"
        if done and isinstance(results, dict) and results.get("schema_version") == SCHEMA_VERSION:
            yield path.parent, results


def write_status(folder: Path, state: str, **more: Any) -> None:
    """`status.json`: running, done or failed, and since when."""
    write_json(
        folder / "status.json",
        {
            "status": state,
            "time": timestamp(),
            "process": os.getpid(),
            "host": socket.gethostname(),
            "started_in": str(Path.cwd()),
        }
        | more,
    )


def versions() -> dict[str, str | None]:
    """Versions of recdistill, Python and the packages that shape results; the commit when run from a clone."""
    found: dict[str, str | None] = {"recdistill": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found | {"commit": _commit()}


def _commit() -> str | None:
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    except OSError:
        return None
    return done.stdout.strip() or None


def environment() -> dict[str, Any]:
    """Where a run happened."""
    return {
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "command": sys.argv,
        "folder": str(Path.cwd()),
        "versions": versions(),
    }


def write_parquet(path: Path, tables: Iterable[pa.Table]) -> None:
    """Write tables of one schema into one Parquet file, table by table; it appears whole at the end."""
    with atomic(path) as temporary:
        writer: pq.ParquetWriter | None = None
        try:
            for table in tables:
                writer = writer or pq.ParquetWriter(temporary, table.schema)
                writer.write_table(table)
        finally:
            if writer is not None:
                writer.close()


@dataclass(frozen=True)
class Lists:
    """Stored top-K lists: user [n], item [n, K], score [n, K], length [n]."""

    user: np.ndarray
    item: np.ndarray
    score: np.ndarray
    length: np.ndarray


@dataclass(frozen=True)
class Ranks:
    """Ranks of held-out items: user, item, rank, each [n]."""

    user: np.ndarray
    item: np.ndarray
    rank: np.ndarray


@dataclass(frozen=True)
class ModelRecord:
    """One model of a run.

    Attributes:
        about: kind, dim, parameters, bytes, epochs and so on, as results.json shows them.
        metrics: flat, `SPLIT/METRIC@K`.
        users: by split, [n].
        per_user: by split, metric to [n] values.
        lists, ranks: of the test users, where test was read.
    """

    about: Mapping[str, Any]
    metrics: Mapping[str, float | None]
    users: Mapping[str, np.ndarray]
    per_user: Mapping[str, Mapping[str, np.ndarray]]
    lists: Lists | None
    ranks: Ranks | None


@dataclass(frozen=True)
class Catalogue:
    """Users and items of a run: their original ids, and a column [U] or [I] for each thing known of them."""

    user_ids: np.ndarray
    item_ids: np.ndarray
    users: Mapping[str, np.ndarray]
    items: Mapping[str, np.ndarray]


def write_tables(folder: Path, models: Mapping[str, ModelRecord], catalogue: Catalogue) -> None:
    """The Parquet files of a run: `per_user`, `users`, `items`, and where test was read `topk` and `ranks`.

    Without the models and the cache, all metrics of the test part can be computed from them again.
    """
    user_ids, item_ids = catalogue.user_ids, catalogue.item_ids
    for name, ids, columns in (("user", user_ids, catalogue.users), ("item", item_ids, catalogue.items)):
        table = {f"{name}_id": pa.array(ids, pa.string())} | {key: pa.array(value) for key, value in columns.items()}
        write_parquet(folder / f"{name}s.parquet", [pa.table(table)])
    write_parquet(
        folder / "per_user.parquet",
        (
            per_user_table(name, split, model.users[split], model.per_user[split], user_ids)
            for name, model in models.items()
            for split in model.users
        ),
    )
    lists = [(name, model.lists) for name, model in models.items() if model.lists is not None]
    ranks = [(name, model.ranks) for name, model in models.items() if model.ranks is not None]
    if lists:
        write_parquet(folder / "topk.parquet", (lists_table(*one, user_ids, item_ids) for one in lists))
        write_parquet(folder / "ranks.parquet", (ranks_table(*one, user_ids, item_ids) for one in ranks))


def write_curves(folder: Path, models: Mapping[str, ModelRecord]) -> None:
    """`curves.csv`: the epochs of the models that were trained before the student, from the folders that keep them."""
    rows = [
        {"model": name, **row}
        for name, model in models.items()
        if "folder" in model.about
        for row in read_csv(Path(model.about["folder"]) / "history.csv")
    ]
    write_csv(folder / "curves.csv", rows)


def write_results(folder: Path, models: Mapping[str, ModelRecord], rest: Mapping[str, Any]) -> dict[str, Any]:
    """`results.json`: the models' records between the run's and the data set's, and what else is known."""
    results = {
        "schema_version": SCHEMA_VERSION,
        **rest,
        "models": {name: {**model.about, "metrics": dict(model.metrics)} for name, model in models.items()},
        "versions": versions(),
    }
    write_json(folder / "results.json", results)
    return results


def ids_column(position: np.ndarray, ids: np.ndarray) -> pa.DictionaryArray:
    """Original ids, dictionary-encoded."""
    return pa.DictionaryArray.from_arrays(pa.array(position.astype(np.int32)), pa.array(ids, pa.string()))


def text_column(text: str, n: int) -> pa.DictionaryArray:
    """The same text n times, dictionary-encoded."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array([text]))


def lists_table(model: str, lists: Lists, user_ids: np.ndarray, item_ids: np.ndarray) -> pa.Table:
    """One model's lists in long form: model, split, user_id, rank (1-based), item_id, score."""
    inside = np.arange(lists.item.shape[1]) < lists.length[:, None]
    row, place = inside.nonzero()
    return pa.table(
        {
            "model": text_column(model, len(row)),
            "split": text_column("test", len(row)),
            "user_id": ids_column(lists.user[row], user_ids),
            "rank": pa.array((place + 1).astype(np.int32)),
            "item_id": ids_column(lists.item[inside], item_ids),
            "score": pa.array(lists.score[inside].astype(np.float32)),
        }
    )


def ranks_table(model: str, ranks: Ranks, user_ids: np.ndarray, item_ids: np.ndarray) -> pa.Table:
    """One model's ranks of all held-out test items."""
    n = len(ranks.user)
    return pa.table(
        {
            "model": text_column(model, n),
            "split": text_column("test", n),
            "user_id": ids_column(ranks.user, user_ids),
            "item_id": ids_column(ranks.item, item_ids),
            "rank": pa.array(ranks.rank.astype(np.int32)),
        }
    )


def per_user_table(
    model: str, split: str, user: np.ndarray, values: Mapping[str, np.ndarray], user_ids: np.ndarray
) -> pa.Table:
    """One model's metrics of each user of a split."""
    columns: dict[str, Any] = {
        "model": text_column(model, len(user)),
        "split": text_column(split, len(user)),
        "user_id": ids_column(user, user_ids),
    }
    return pa.table(columns | {name: pa.array(value) for name, value in values.items()})
