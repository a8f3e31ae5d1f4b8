"""The users' values of a row: its replicates' averaged, so that a user is one row of every test."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from recdistill.errors import CacheError
from recdistill.report.comparison import Member, Row

LISTS = ("topk.parquet", "items.parquet", "users.parquet")


def tested_columns(rows: Sequence[Row], metrics: Sequence[str]) -> list[str]:
    """The metrics of the test split that have a value per user in every run of some rows."""
    held = [_columns(member.run.folder) for row in rows for member in row.members]
    has_lists = all((member.run.folder / file).is_file() for row in rows for member in row.members for file in LISTS)
    return [
        metric
        for metric in metrics
        if metric.startswith("test/")
        and (has_lists if is_lift(metric) else all(metric.removeprefix("test/") in columns for columns in held))
    ]


def is_lift(metric: str) -> bool:
    """Whether a metric is the popularity lift over all users, a ratio of two means."""
    return metric.startswith("test/poplift@") and metric.count("/") == 1


def row_values(row: Row, metric: str) -> pd.DataFrame:
    """A row's values of each user that all its replicates have, averaged over them.

    Returns:
        Indexed by user, with the column `value`; of a lift the mean popularity of a user's list, and `profile`, that
        of the items in training.

    Raises:
        CacheError: a file of a run cannot be read.
    """
    frames = [_lift_parts(one, metric) if is_lift(metric) else _metric(one, metric) for one in row.members]
    users = reduce(pd.Index.intersection, (frame.index for frame in frames))
    # Sorted: the same trainings in another order have the same mean to the last bit, and so are the same model.
    values = np.sort([frame.loc[users].to_numpy() for frame in frames], axis=0).mean(0)
    return pd.DataFrame(values, users, frames[0].columns)


def _metric(member: Member, metric: str) -> pd.DataFrame:
    name = metric.removeprefix("test/")
    table = _read(member.run.folder / "per_user.parquet", ["user_id", name], _of(member))
    return pd.DataFrame({"value": table[name].to_numpy()}, index=_ids(table, "user_id"))


def _lift_parts(member: Member, metric: str) -> pd.DataFrame:
    k, folder = int(metric.rpartition("@")[2]), member.run.folder
    lists = _read(folder / "topk.parquet", ["user_id", "item_id"], [*_of(member), ("rank", "<=", k)])
    items = _read(folder / "items.parquet", ["item_id", "popularity"])
    users = _read(folder / "users.parquet", ["user_id", "profile"])
    popularity = pd.Series(items["popularity"].to_numpy(), index=_ids(items, "item_id"))
    value = pd.Series(popularity.loc[_ids(lists, "item_id")].to_numpy()).groupby(_ids(lists, "user_id")).mean()
    profile = pd.Series(users["profile"].to_numpy(), index=_ids(users, "user_id"))
    return pd.DataFrame({"value": value, "profile": profile.reindex(value.index)})


def _of(member: Member) -> list[tuple[str, str, str | int]]:
    return [("model", "==", member.model), ("split", "==", "test")]


def _ids(table: pa.Table, column: str) -> pd.Index[str]:
    ids: pd.Index[str] = pd.Index(table[column].cast(pa.string()).to_numpy(zero_copy_only=False))
    return ids


def _columns(folder: Path) -> set[str]:
    try:
        return set(pq.read_schema(folder / "per_user.parquet").names)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(folder / "per_user.parquet", error) from error


def _read(path: Path, columns: list[str], filters: list[tuple[str, str, str | int]] | None = None) -> pa.Table:
    try:
        return pq.read_table(path, columns=columns, filters=filters)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> CacheError:
    return CacheError(
        f"cannot read {path}: {error}",
        "--baseline tests the values of each user, which every run keeps in its folder",
        "repeat the run, leave its folder out, or compare without --baseline",
    )
