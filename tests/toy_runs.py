"""Run folders as small as the readers of results need them."""

import json
from pathlib import Path
from typing import Any


def write_run(folder: Path, *, seed: int = 0, ndcg: float | None = 0.3, **changes: Any) -> Path:
    """A finished run's status.json and results.json, as small as compare needs them."""
    metrics = {"test/ndcg@20": ndcg, "test/recall@20": 0.4, "test/poplift@20": 0.2}
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
        },
        "models": {
            "teacher": {"kind": "mf", "dim": 64, "key": "t", "metrics": {"test/ndcg@20": 0.5}},
            "scratch": model | {"metrics": {"test/ndcg@20": 0.2}},
            "student": model,
            "mostpop": {"kind": "mostpop", "dim": None, "metrics": {"test/ndcg@20": 0.1}},
        },
        "distillation": {
            "name": changes.get("method", "rrd"),
            "gap_closed": {"test/ndcg@20": changes.get("gap", 0.5)},
        },
        "definitions": {"ndcg": {"ideal": changes.get("ideal", "min(k, relevant)")}},
    }
    folder.mkdir(parents=True)
    (folder / "status.json").write_text(json.dumps({"status": "done"}))
    (folder / "results.json").write_text(json.dumps(results))
    return folder
