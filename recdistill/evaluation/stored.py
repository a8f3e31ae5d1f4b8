"""A run folder read again: the lists and ranks of its models on test, its users and items. No model, no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recdistill.errors import CacheError
from recdistill.evaluation.catalogue import KINDS, TAILS, Items, Users
from recdistill.evaluation.distillation import distillation
from recdistill.evaluation.measures import Ranked, Values, hits, measure

Array = np.ndarray


@dataclass(frozen=True)
class StoredRun:
    """What a finished run stored, beside its results.json; tables are read when they are asked for."""

    folder: Path
    results: Mapping[str, Any]

    @cached_property
    def items(self) -> Items:
        """The catalogue, in the order of `items.parquet`."""
        table = self._table("items")
        tail = pc.index_in(table["tail"], pa.array(TAILS))
        return Items(*(_integers(column) for column in (table["popularity"], table["group"], tail)))

    @cached_property
    def users(self) -> Users:
        """All users, in the order of `users.parquet`."""
        table = self._table("users")
        profile = table["profile"].fill_null(np.nan).to_numpy()
        kind = pc.index_in(table["kind"], pa.array(KINDS))
        return Users(_integers(table["n_train"]), profile, _integers(kind), _integers(table["bin"]))

    @cached_property
    def depth(self) -> int:
        """How long the stored lists are at most."""
        return int(min(self.results["config"]["evaluation"]["stored"], self.results["dataset"]["n_items"]))

    def ranked(self, model: str) -> Ranked:
        """One model's lists, and the ranks of its held-out items."""
        user_ids, item_ids = (self._table(f"{name}s")[f"{name}_id"] for name in ("user", "item"))
        ranks, lists = self._table("ranks", model), self._table("topk", model)
        relevant, rank = _positions(ranks["item_id"], item_ids), _integers(ranks["rank"])
        user, row = np.unique(_positions(ranks["user_id"], user_ids), return_inverse=True)
        listed = np.searchsorted(user, _positions(lists["user_id"], user_ids))
        item = np.zeros((len(user), self.depth), np.int64)
        item[listed, _integers(lists["rank"]) - 1] = _positions(lists["item_id"], item_ids)
        length = np.bincount(listed, minlength=len(user))
        return Ranked(user, item, length, hits(row, rank, *item.shape), row, relevant, rank)

    def ranks(self, model: str) -> tuple[Array, Array]:
        """Row (0 to n - 1, a number per user) and rank [m] of every held-out item; runs of all versions have them."""
        table = self._table("ranks", model)
        codes = table["user_id"].unify_dictionaries().combine_chunks().indices.to_numpy()
        return np.unique(codes, return_inverse=True)[1], _integers(table["rank"])

    def _table(self, name: str, model: str | None = None) -> pa.Table:
        path = self.folder / f"{name}.parquet"
        try:
            return pq.read_table(path, filters=None if model is None else pc.field("model") == model)
        except (OSError, pa.ArrowInvalid) as error:
            raise CacheError(
                f"there is no {path}" if not path.is_file() else f"cannot read {path}: {error}",
                "metrics are made again from the tables that a run stores; earlier versions stored fewer",
                "repeat the run with this version, or ask only for metrics of ranks: --metrics ndcg,recall",
            ) from error


def remade(run: StoredRun, cutoffs: Sequence[int], metrics: Sequence[str]) -> tuple[dict[str, Values], dict[str, Any]]:
    """All metrics of all models on test, as a run writes them.

    Args:
        run: the stored run.
        cutoffs: list lengths, at most `run.depth`.
        metrics: names of accuracy metrics.

    Returns:
        By model the values by `METRIC@K...` (without `test/`), and what stands in the `distillation` section.
    """
    rankings = {name: run.ranked(name) for name in run.results["models"]}
    found = {name: measure(ranked, run.items, run.users, cutoffs, metrics) for name, ranked in rankings.items()}
    per_user = {name: values for name, (_, values) in found.items()}
    more, bought = distillation(rankings, per_user, run.items, run.users, cutoffs)
    return {name: overall | more.get(name, {}) for name, (overall, _) in found.items()}, bought


def _integers(column: pa.ChunkedArray) -> Array:
    """A column of integers; null becomes -1."""
    values: Array = pc.fill_null(column, -1).to_numpy().astype(np.int64)
    return values


def _positions(column: pa.ChunkedArray, ids: pa.ChunkedArray) -> Array:
    """[n] int64: where the ids of a dictionary-encoded column stand among `ids`."""
    encoded = column.unify_dictionaries().combine_chunks()
    place = pc.index_in(encoded.dictionary, ids.combine_chunks()).to_numpy(zero_copy_only=False)
    positions: Array = place[encoded.indices.to_numpy()].astype(np.int64)
    return positions
