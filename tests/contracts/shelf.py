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
from recdistill.distill.rrd import RRD
from recdistill.models.base import LOSSES, Recommender

CONF = Path(__file__).parents[2] / "conf"
TOY = {"dim": 4, "depth": 8, "interesting": 4, "uninteresting": 2, "pairs": 8, "groups": 3}  # at most these


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
    """Name to constructor; with the plug-ins of the tests and RRD's published form."""
    found = {name: partial(cls, **settings) for name, cls, settings in _members("distill")}
    published = {"interesting": 3, "uninteresting": 2, "depth": 8, "draw": "sampled", "rest": "sampled"}
    more = {"vectors": VectorMatch, "together": Together, "curriculum": Curriculum}
    return found | {"rrd-published": partial(RRD, **published)} | more


def _members(group: str) -> list[tuple[str, type[Any], dict[str, Any]]]:
    made = []
    for file in sorted((CONF / group).glob("*.yaml")):
        node = yaml.safe_load(file.read_text(encoding="utf-8"))
        module, _, name = node.pop("_target_").rpartition(".")
        settings = {key: min(value, TOY[key]) if key in TOY else value for key, value in node.items()}
        made.append((file.stem, getattr(importlib.import_module(module), name), settings))
    return made
