"""Run folders as small as the readers of results need them."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any


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
            "evaluation": {"test": changes.get("test", True), "cutoffs": changes.get("cutoffs", [10, 20])},
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
