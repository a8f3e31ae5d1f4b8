#!/usr/bin/env python3
"""An epoch of training beside RecBole's: the same pairs of ml-100k, the same settings, one thread each.

    python3 scripts/env.py python scripts/compare_recbole.py

BPR matrix factorisation and LightGCN (2 layers) of width 64, batches of 2048, one negative, Adam. Each side is a
process of its own and runs its own training loop without an evaluation; the two take turns. CPU seconds per epoch: the
median over all epochs but the first of each process. RecBole does not install beside this project's lock, so the first
call makes an environment for it in `.venv-recbole`, with versions that its release works with and this project's torch.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from env import ROOT, bin_folder, install

FOLDER = ROOT / ".venv-recbole"
# Newer ones break it: np.float is gone from numpy 1.24, dok_matrix._update from scipy 1.13.
PINS = ("recbole==1.2.1", "numpy==1.23.5", "scipy==1.10.1", "pandas==2.0.3", "setuptools==80.9.0")
DIM, BATCH, LAYERS, RATE, DECAY = 64, 2048, 2, 0.001, 1e-5  # RecBole's defaults; the decay is of its LightGCN alone
MODELS = {"BPR": 3.0, "LightGCN": 6.0}  # how many times fewer CPU seconds are wanted
Timed = dict[str, dict[str, Any]]


def main() -> int:
    """Measure both sides and print what came of it.

    Returns:
        1 if `--check` found a target that was missed, else 0.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="processes of each side")
    parser.add_argument("--epochs", type=int, default=7, help="of each process; the first is not counted")
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    parser.add_argument("--side", choices=("recdistill", "recbole"), help=argparse.SUPPRESS)
    parser.add_argument("--pairs", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.epochs < 2 or asked.rounds < 1:
        parser.error("at least two epochs and one round are needed")
    if asked.side:
        with contextlib.redirect_stdout(sys.stderr):  # RecBole prints on standard output
            found = (ours if asked.side == "recdistill" else theirs)(asked.pairs, asked.epochs)
        print(json.dumps(found))
        return 0
    prepare()
    with tempfile.TemporaryDirectory() as folder:
        pairs = Path(folder) / "pairs.npy"
        rounds = [
            {side: run(side, pairs, asked.epochs) for side in ("recbole", "recdistill")} for _ in range(asked.rounds)
        ]
    rows = [row(name, rounds) for name in MODELS]
    from bench_parts.whole import processor  # here: RecBole's side has no recdistill

    about = {"date": time.strftime("%Y-%m-%d"), "processor": processor(), "cores": os.cpu_count(), "threads": 1}
    about |= {side: rounds[0][side]["versions"] for side in rounds[0]}
    if asked.json:
        asked.json.write_text(json.dumps({"machine": about, "rows": rows}, indent=1))
    show(rows, about)
    return int(asked.check and not all(one["reached"] for one in rows))


def prepare() -> None:
    """Make RecBole's environment unless it is there."""
    torch = next(line for line in (ROOT / "requirements.lock").read_text().splitlines() if line.startswith("torch=="))
    wanted, stamp = "\n".join((*PINS, torch, sys.version)), FOLDER / "recbole.stamp"
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    if sys.version_info[:2] != (3, 11):
        sys.exit(
            f"RecBole needs numpy 1.23, which is there for Python 3.11 at most; this is {platform.python_version()}"
        )
    print(f"setting up {FOLDER} (once; needs a minute and about 1.8 GB)", file=sys.stderr, flush=True)
    install(FOLDER, [[*PINS, torch]])
    stamp.write_text(wanted)


def run(side: str, pairs: Path, epochs: int) -> Timed:
    """What a side measured in a process of its own."""
    python = sys.executable if side == "recdistill" else str(bin_folder(FOLDER) / "python")
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    words = [python, __file__, "--side", side, "--pairs", str(pairs), "--epochs", str(epochs)]
    # RecBole writes logs into its working folder.
    done = subprocess.run(
        words, env=os.environ | threads, cwd=pairs.parent, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{side} failed:\n{done.stderr}")
    found: Timed = json.loads(done.stdout.splitlines()[-1])
    return found


def theirs(pairs: Path, epochs: int) -> Timed:
    """RecBole's `Trainer.fit` on its own ml-100k and split; leaves the training pairs for the other side."""
    import numpy as np
    import recbole
    import torch
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_seed

    torch.set_num_threads(1)
    sys.argv = sys.argv[:1]  # RecBole reads it
    settings = {"embedding_size": DIM, "train_batch_size": BATCH, "learning_rate": RATE, "epochs": epochs}
    # Of the table only what both sides need; further columns would be cut into batches too.
    settings |= {"use_gpu": False, "load_col": {"inter": ["user_id", "item_id"]}}
    found: Timed = {"versions": {"recbole": recbole.__version__, "torch": torch.__version__, "numpy": np.__version__}}
    for name in MODELS:
        config = Config(
            model=name, dataset="ml-100k", config_dict=settings | ({"n_layers": LAYERS} if name != "BPR" else {})
        )
        init_seed(config["seed"], config["reproducibility"])
        dataset = create_dataset(config)
        train, _, _ = data_preparation(config, dataset)
        model = get_model(name)(config, train.dataset)
        seconds: list[float] = []

        trainer = get_trainer(config["MODEL_TYPE"], name)(config, model)
        trainer._train_epoch = timed(trainer._train_epoch, seconds)  # all of an epoch, negatives too
        trainer.fit(train, verbose=False, saved=False, show_progress=False)
        inter = train.dataset.inter_feat
        # Its ids start at 1: 0 is padding.
        np.save(pairs, np.stack([inter["user_id"].numpy(), inter["item_id"].numpy()]) - 1)
        found[name] = {
            "seconds": seconds,
            "triplets": len(inter),
            "users": dataset.user_num - 1,
            "items": dataset.item_num - 1,
        }
    return found


def timed(work: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    """The same function, which notes the CPU seconds of each call."""

    def call(*words: Any, **more: Any) -> Any:
        started = time.process_time()
        result = work(*words, **more)
        seconds.append(time.process_time() - started)
        return result

    return call


def ours(pairs: Path, epochs: int) -> Timed:
    """The student's training of `recdistill train distill=none`, on the pairs that RecBole trained on."""
    # As the command line does before torch loads.
    os.environ |= {"OMP_WAIT_POLICY": "passive", "THP_MEM_ALLOC_ENABLE": "1"}
    import numpy as np
    import torch

    from recdistill import __version__
    from recdistill.config import TrainerConfig
    from recdistill.distill.none import NoDistillation
    from recdistill.models.lightgcn import LightGCN
    from recdistill.models.mf import MF
    from recdistill.runtime import generator, start
    from recdistill.training.trainer import fit
    from recdistill.types import Interactions

    device = start("cpu", threads=1, seed=0).device
    user, item = torch.from_numpy(np.load(pairs)).long()
    order = (user * (int(item.max()) + 1) + item).argsort()
    data = Interactions(user[order], item[order], int(user.max()) + 1, int(item.max()) + 1)
    models = {"BPR": (MF(dim=DIM), 0.0), "LightGCN": (LightGCN(dim=DIM, layers=LAYERS), DECAY)}
    found: Timed = {"versions": {"recdistill": __version__, "torch": torch.__version__, "numpy": np.__version__}}
    for name, (model, decay) in models.items():
        model.prepare(data, generator(0, "student"))
        settings = TrainerConfig(
            epochs=epochs, batch_size=BATCH, learning_rate=RATE, weight_decay=decay, negatives=1, eval_every=epochs
        )
        at = [time.process_time()]
        fit(
            model,
            NoDistillation(),
            data,
            settings,
            seed=0,
            device=device,
            validate=lambda model: 0.0,
            on_epoch=lambda *_, at=at: at.append(time.process_time()),
        )
        seconds = [after - before for before, after in itertools.pairwise(at)]
        found[name] = {"seconds": seconds, "triplets": len(data), "users": data.n_users, "items": data.n_items}
    return found


def row(name: str, rounds: list[dict[str, Timed]]) -> dict[str, Any]:
    """One model: both medians, their ratio and the target."""
    sides = {side: [one[side][name] for one in rounds] for side in ("recbole", "recdistill")}
    triplets = {one["triplets"] for runs in sides.values() for one in runs}
    if len(triplets) != 1:
        sys.exit(f"the sides trained on different numbers of triplets: {sorted(triplets)}")
    median = {side: statistics.median([s for one in runs for s in one["seconds"][1:]]) for side, runs in sides.items()}
    ratio = median["recbole"] / median["recdistill"]
    return {
        "model": name,
        "triplets": triplets.pop(),
        "seconds": median,
        "ratio": ratio,
        "target": MODELS[name],
        "reached": ratio >= MODELS[name],
        "epochs": {side: [one["seconds"] for one in runs] for side, runs in sides.items()},
    }


def show(rows: list[dict[str, Any]], about: dict[str, Any]) -> None:
    """The table."""
    print(", ".join(f"{name} {value}" for name, value in about.items() if not isinstance(value, dict)))
    for side in ("recbole", "recdistill"):
        print(", ".join(f"{name} {value}" for name, value in about[side].items()))
    print(f"\n{'epoch of':10}{'triplets':>10}{'RecBole s':>12}{'recdistill s':>14}{'times':>8}  target")
    for one in rows:
        theirs, ours = one["seconds"]["recbole"], one["seconds"]["recdistill"]
        verdict = "reached" if one["reached"] else "MISSED"
        print(
            f"{one['model']:10}{one['triplets']:10,}{theirs:12.3f}{ours:14.3f}{one['ratio']:8.2f}"
            f"  at least {one['target']:g}: {verdict}"
        )


if __name__ == "__main__":
    sys.exit(main())
