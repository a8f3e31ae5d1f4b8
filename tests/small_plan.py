"""The plan of a run that takes a second."""

from __future__ import annotations

from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra

from recdistill.build import Plan, check
from recdistill.commands.conf import conf_folder

PLUGIN = Path(__file__).parent / "plugin" / "conf"
SMALL = [
    "dataset=synthetic", "dataset.n_users=60", "dataset.n_items=80", "dataset.n_interactions=1200",
    "soft_labels.depth=12", "distill=rrd", "distill.depth=12", "distill.interesting=6", "device=cpu",
    "student.dim=4", "teacher.dim=6", "evaluation.stored=20",
    *(f"{part}.{key}" for part in ("trainer", "scratch.trainer", "teacher.trainer")
      for key in ("epochs=4", "eval_every=2", "batch_size=256", "learning_rate=0.02")),
]  # fmt: skip


def plan(outputs: Path, *overrides: str) -> Plan:
    """Compose the tree in `conf`, with that of the plug-in laid over it; the later of two overrides of a key wins."""
    given = {line.split("=", 1)[0].lstrip("+~"): line for line in (*SMALL, *overrides)}
    lines = [line for line in given.values() if not line.startswith("~")]
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"):
        search = f"hydra.searchpath=[file://{PLUGIN}]"
        return check(hydra.compose("config", [search, *lines, f"paths.outputs={outputs}", "plugins=[plugin]"]))
