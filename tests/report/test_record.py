from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recdistill.report.record import (
    Catalogue,
    Lists,
    ModelRecord,
    Ranks,
    versions,
    write_curves,
    write_parquet,
    write_results,
    write_status,
    write_tables,
)
from recdistill.store import read_csv, read_json, write_csv

USERS = np.array(["anna", "ben", "cleo"], dtype=object)
ITEMS = np.array(["x", "y", "z"], dtype=object)
CATALOGUE = Catalogue(
    USERS, ITEMS, {"n_train": np.array([1, 0, 2]), "bin": np.ma.array([3, -1, 5], mask=[False, True, False])},
    {"popularity": np.array([2, 1, 0]), "tail": np.array(["head", "mid", "mid"], dtype=object)},
)  # fmt: skip


def record() -> ModelRecord:
    user = np.array([0, 2])
    lists = Lists(user, np.array([[2, 0], [1, 0]]), np.array([[0.5, 0.25], [3.0, -np.inf]]), np.array([2, 1]))
    ranks = Ranks(np.array([0, 2]), np.array([0, 1]), np.array([2, 1]))
    values = {"ndcg@2": np.array([0.63, 1.0])}
    return ModelRecord(
        about={"kind": "mf", "dim": 8},
        metrics={"test/ndcg@2": 0.815, "test/poplift@2": float("nan")},
        users={"test": user, "valid": user},
        per_user={"test": values, "valid": values},
        lists=lists,
        ranks=ranks,
    )


def test_results_hold_models_versions_and_null_for_what_does_not_exist(tmp_path: Path) -> None:
    write_results(tmp_path, {"student": record()}, {"run": {"seed": 0}})
    results = read_json(tmp_path / "results.json")
    assert results["schema_version"] == 1
    assert results["run"] == {"seed": 0}
    assert results["models"]["student"] == {
        "kind": "mf",
        "dim": 8,
        "metrics": {"test/ndcg@2": 0.815, "test/poplift@2": None},
    }
    assert results["versions"]["torch"] == versions()["torch"] is not None


def test_stored_lists_are_long_with_original_ids_and_without_padding(tmp_path: Path) -> None:
    write_tables(tmp_path, {"student": record(), "teacher": record()}, CATALOGUE)
    rows = pq.read_table(tmp_path / "topk.parquet").to_pylist()
    assert len(rows) == 6
    assert [(row["model"], row["user_id"], row["rank"], row["item_id"], row["score"]) for row in rows[:3]] == [
        ("student", "anna", 1, "z", 0.5),
        ("student", "anna", 2, "x", 0.25),
        ("student", "cleo", 1, "y", 3.0),
    ]
    assert {row["model"] for row in rows[3:]} == {"teacher"}


def test_stored_ranks_and_per_user_values_have_original_ids(tmp_path: Path) -> None:
    write_tables(tmp_path, {"student": record()}, CATALOGUE)
    ranks = pq.read_table(tmp_path / "ranks.parquet").to_pylist()
    assert [(row["user_id"], row["item_id"], row["rank"]) for row in ranks] == [("anna", "x", 2), ("cleo", "y", 1)]
    values = pq.read_table(tmp_path / "per_user.parquet").to_pylist()
    assert [(row["split"], row["user_id"], row["ndcg@2"]) for row in values] == [
        ("test", "anna", 0.63), ("test", "cleo", 1.0), ("valid", "anna", 0.63), ("valid", "cleo", 1.0),
    ]  # fmt: skip


def test_users_and_items_have_their_ids_and_null_for_what_does_not_exist(tmp_path: Path) -> None:
    write_tables(tmp_path, {"student": record()}, CATALOGUE)
    assert pq.read_table(tmp_path / "users.parquet").to_pylist() == [
        {"user_id": "anna", "n_train": 1, "bin": 3},
        {"user_id": "ben", "n_train": 0, "bin": None},
        {"user_id": "cleo", "n_train": 2, "bin": 5},
    ]
    items = pq.read_table(tmp_path / "items.parquet").to_pylist()
    assert items[0] == {"item_id": "x", "popularity": 2, "tail": "head"}


def test_a_parquet_file_that_fails_half_way_does_not_appear(tmp_path: Path) -> None:
    def tables():
        yield pa.table({"a": [1]})
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        write_parquet(tmp_path / "a.parquet", tables())
    assert list(tmp_path.iterdir()) == []


def test_the_status_names_state_process_and_more(tmp_path: Path) -> None:
    write_status(tmp_path, "failed", error="what")
    status = read_json(tmp_path / "status.json")
    assert (status["status"], status["error"]) == ("failed", "what")
    assert status["process"] > 0


def test_the_epochs_of_models_that_the_cache_keeps_are_copied_under_their_roles(tmp_path: Path) -> None:
    kept = tmp_path / "teachers" / "key"
    write_csv(
        kept / "history.csv", [{"epoch": 1, "loss": 0.5, "valid": None}, {"epoch": 2, "loss": 0.25, "valid": 0.3}]
    )
    models = {"teacher": record(), "student": record()}
    models["teacher"] = replace(models["teacher"], about={"folder": str(kept)})
    write_curves(tmp_path, models)
    assert read_csv(tmp_path / "curves.csv") == [
        {"model": "teacher", "epoch": "1", "loss": "0.5", "valid": ""},
        {"model": "teacher", "epoch": "2", "loss": "0.25", "valid": "0.3"},
    ]


def test_a_run_of_nothing_trained_before_has_an_empty_file_of_curves(tmp_path: Path) -> None:
    write_curves(tmp_path, {"student": record()})
    assert read_csv(tmp_path / "curves.csv") == []
