"""Every model and distiller that the configs name, at toy size: a new one is covered without anybody remembering."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from plugin.curriculum import Curriculum
from plugin.together import Together
from plugin.vectors import VectorMatch
from recdistill.distill.base import Distiller
from recdistill.distill.combined import Combined
from recdistill.models.base import LOSSES, Recommender

CONF = Path(__file__).parents[2] / "conf"
TOY = {  # at most these
    **{"dim": 4, "depth": 8, "interesting": 4, "uninteresting": 3, "pairs": 8, "groups": 3},
    **{"items": 4, "pool": 8, "draws": 5, "warm_up": 1, "company": 3, "corrections": 3},
    **{"interesting_users": 3, "uninteresting_users": 2, "user_depth": 6, "items_per_step": 5},
}

DRAWN = {"draw": "sampled", "rest": "sampled"}


def models() -> dict[str, Callable[[], Recommender]]:
    """Name (with its base loss, where it has several) to constructor."""
    found: dict[str, Callable[[], Recommender]] = {}
    for name, cls, settings in _members("model"):
        if "loss" in inspect.signature(cls).parameters:
            found |= {f"{name}-{loss}": partial(cls, **(settings | {"loss": loss})) for loss in LOSSES}
        else:
            found[name] = partial(cls, **settings)
    return found


def distillers() -> dict[str, Callable[[], Distiller]]:
    """Name to constructor; with the plug-ins of the tests, and other forms of methods that have several."""
    found = {name: partial(cls, **settings) for name, cls, settings in _members("distill")}
    made = {
        "rrd-published": partial(found["rrd"], **DRAWN),
        "unkd-quirks": partial(found["unkd"], per="row", reference_quirks=True),
        "cd-teacher": partial(found["cd"], guide="teacher"),
        "cd-random": partial(found["cd"], guide="random"),
        "ce_kd-ranks": partial(found["ce_kd"], guide="teacher", signal="ranks"),
        "ir_rrd-published": partial(found["ir_rrd"], **DRAWN),
        "dcd-published": partial(found["dcd"], **DRAWN),
        "strata-published": partial(found["strata"], mix=0.5, **DRAWN),
        "strata-mixed": partial(found["strata"], mix=0.5),
        "combined": lambda: Combined(parts={"list": found["rrd"](), "strata": found["unkd"]()}),
    }
    return found | made | {"vectors": VectorMatch, "together": Together, "curriculum": Curriculum}


def _members(group: str) -> list[tuple[str, type[Any], dict[str, Any]]]:
    made = []
    for file in sorted((CONF / group).glob("*.yaml")):
        node = yaml.safe_load(file.read_text(encoding="utf-8"))
        module, _, name = node.pop("_target_").rpartition(".")
        settings = {key: min(value, TOY[key]) if key in TOY else value for key, value in node.items()}
        made.append((file.stem, getattr(importlib.import_module(module), name), settings))
    return made
