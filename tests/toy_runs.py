"""Run folders as small as the readers of results need them."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from recdistill.report.record import Catalogue, Lists, ModelRecord, Ranks, write_tables


def write_run(folder: Path, *, seed: int = 0, ndcg: float | None = 0.3, **changes: Any) -> Path:
    """A finished run's status.json and results.json, as small as compare needs them."""
    metrics = {"test/ndcg@20": ndcg, "test/recall@20": 0.4, "test/poplift@20": 0.2, "valid/ndcg@20": 0.25}
    if not changes.get("test", True):
        metrics = {name: value for name, value in metrics.items() if name.startswith("valid/")}
    read = metrics.keys()
    model = {"kind": "mf", "dim": 8, "key": f"s{seed}", "metrics": metrics}
    results = {
        "schema_version": changes.get("schema_version", 1),
        "dataset": {
            "name": "toy",
            "fingerprint": changes.get("fingerprint", "f"),
            "n_users": 10,
            "n_items": 20,
            "n_train": 30,
        },
        "config": {
            "seed": seed,
            "paths": {"outputs": str(folder)},
            "distill": {"_target_": changes.get("method", "rrd"), "weight": changes.get("weight", 0.1)},
            "dataset": {"split": {"seed": changes.get("split", 0)}},
            "evaluation": {
                "test": changes.get("test", True),
                "cutoffs": changes.get("cutoffs", [10, 20]),
                "groups": changes.get("groups", 2),
            },
            "teacher": {"dim": 64, "seed": changes.get("teacher_seed", 0)},
            "student": {"dim": 8},
            "scratch": {"trainer": {"weight_decay": changes.get("decay", 0.02)}},
        },
        "models": {
            "teacher": {"kind": "mf", "dim": 64, "key": "t", "metrics": _of(read, {"test/ndcg@20": 0.5})},
            "scratch": model | {"metrics": _of(read, {"test/ndcg@20": changes.get("scratch", 0.2)})},
            "student": model,
            "mostpop": {"kind": "mostpop", "dim": None, "metrics": _of(read, {"test/ndcg@20": 0.1})},
        },
        "distillation": {
            "name": changes.get("method", "rrd"),
            "gap_closed": {"test/ndcg@20": changes.get("gap", 0.5)},
        },
        "definitions": {"ndcg": {"ideal": changes.get("ideal", "min(k, relevant)")}},
    }
    folder.mkdir(parents=True)
    (folder / "status.json").write_text(json.dumps({"status": "done", "time": changes.get("time", "")}))
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def _of(read: Collection[str], metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name in read}


def write_users(
    folder: Path,
    ndcg: Mapping[str, np.ndarray],
    *,
    users: np.ndarray | None = None,
    lists: Mapping[str, np.ndarray] | None = None,
    popularity: np.ndarray | None = None,
    profile: np.ndarray | None = None,
) -> Path:
    """The Parquet files of a run: test/ndcg@20 of each model and user, and where given each model's lists [n, K].

    `users` are positions among `profile`'s users (default: all), `popularity` is of the items in the lists.
    """
    n = len(next(iter(ndcg.values())))
    user = np.arange(n) if users is None else users
    popularity = np.ones(20) if popularity is None else popularity
    profile = np.ones(user.max() + 1) if profile is None else profile
    none = np.zeros(0, np.int64)
    models = {}
    for name, values in ndcg.items():
        item = None if lists is None else lists[name]
        top = item if item is None else Lists(user, item, np.zeros(item.shape), np.full(n, item.shape[1]))
        ranks = None if item is None else Ranks(none, none, none)
        models[name] = ModelRecord({}, {}, {"test": user}, {"test": {"ndcg@20": values}}, top, ranks)
    ids = {kind: np.array([f"{kind}{one}" for one in range(size)]) for kind, size in
           (("u", len(profile)), ("i", len(popularity)))}  # fmt: skip
    write_tables(folder, models, Catalogue(ids["u"], ids["i"], {"profile": profile}, {"popularity": popularity}))
    return folder
