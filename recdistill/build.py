"""From config to objects, and the check before it: every component is really constructed before data are read."""

from __future__ import annotations

import difflib
import importlib
import inspect
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from recdistill.config import RunConfig, TrainerConfig
from recdistill.dataset.catalog import Source
from recdistill.distill.base import Distiller
from recdistill.errors import ConfigError, NeedsNotMet, RecDistillError, SettingsError
from recdistill.models.base import Recommender
from recdistill.models.stored import Stored
from recdistill.training.alone import Recipe

ROLE_KEYS = ("seed", "trainer", "checkpoints")
T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """All components of a run, constructed from their settings.

    Attributes:
        config: the typed skeleton.
        source: of the data set.
        teachers: recipe of each teacher, by name.
        student, scratch: recipes of the student with and without distillation's trainer settings.
        distiller: constructed.
    """

    config: RunConfig
    source: Source
    teachers: dict[str, Recipe]
    student: Recipe
    scratch: Recipe
    distiller: Distiller


def check(config: DictConfig) -> Plan:
    """Build every component of a composed config; report all problems together.

    Raises:
        ConfigError: with every problem found, one per line.
    """
    problems = _Problems()
    plain = _plain(config, problems)
    plugins = plain.get("plugins") or []
    allowed = {"recdistill", *(str(name).split(".")[0] for name in plugins)}
    for path, target in _targets(plain):
        if not isinstance(target, str) or target.split(".")[0] not in allowed:
            problems.add(path, f"_target_ {target!r} is outside recdistill and the plugins {list(plugins)}")
    problems.stop()  # nothing foreign is ever imported
    skeleton = _skeleton(plain, problems)
    source = _component(plain.get("dataset"), "dataset", Source, problems)
    distiller = _component(plain.get("distill"), "distill", Distiller, problems)
    student = _recipe(plain.get("student"), "student", "student", skeleton, problems)
    node = plain.get("teacher") or {}
    members = node.get("members", {"teacher": node})
    paths = {name: f"teacher.members.{name}" if "members" in node else "teacher" for name in members}
    teachers = {name: _recipe(inner, paths[name], "teacher", skeleton, problems) for name, inner in members.items()}
    problems.stop()
    assert skeleton and source and distiller and student  # a missing one is a problem
    made = {name: recipe for name, recipe in teachers.items() if recipe is not None}
    plan = Plan(skeleton, source, made, student, _with_trainer(student, skeleton.scratch.trainer), distiller)
    _check_needs(plan, problems)
    problems.stop()
    return plan


class _Problems:
    def __init__(self) -> None:
        self.found: list[RecDistillError | str] = []

    def add(self, path: str, text: str) -> None:
        self.found.append(f"{path}: {text}")

    def stop(self) -> None:
        if not self.found:
            return
        if len(self.found) == 1 and isinstance(self.found[0], RecDistillError):
            raise self.found[0]
        lines = [item.what if isinstance(item, RecDistillError) else item for item in self.found]
        fixes = [item.fix for item in self.found if isinstance(item, RecDistillError)]
        raise ConfigError(
            lines[0] if len(lines) == 1 else f"{len(lines)} problems:\n" + "\n".join(f"  - {line}" for line in lines),
            "the config is checked as a whole before any data are read",
            "; ".join(fixes) or "mend the keys named above; recdistill explain GROUP=NAME lists what there is",
        )


def nearest(word: str, known: typing.Iterable[str]) -> str:
    """Words that name the legal name closest to a wrong one; empty if none is near."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def _plain(config: DictConfig, problems: _Problems) -> dict[str, Any]:
    missing = sorted(OmegaConf.missing_keys(config))
    for key in missing:
        problems.add(key, f"needs a value: {key}=...")
    problems.stop()
    return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))


def _targets(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield path, node["_target_"]
        for key, inner in node.items():
            yield from _targets(inner, f"{path}.{key}" if path else str(key))


def _skeleton(plain: dict[str, Any], problems: _Problems) -> RunConfig | None:
    """The typed root; each section is checked on its own so that all problems are found."""
    known = {f.name for f in fields(RunConfig)}
    good: dict[str, Any] = {}
    for key, value in plain.items():
        if key not in known:
            problems.add(key, f"no such key{nearest(key, known)}")
            continue
        try:
            OmegaConf.merge(OmegaConf.structured(RunConfig), {key: value})
            good[key] = value
        except OmegaConfBaseException as error:
            problems.add(error.full_key or key, _first_line(error))
    try:
        made = cast(RunConfig, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RunConfig), good)))
    except OmegaConfBaseException as error:
        problems.add(error.full_key or "config", _first_line(error))
        return None
    sections: dict[str, Callable[[], None]] = {
        "trainer": made.trainer.check,
        "scratch.trainer": made.scratch.trainer.check,
        "soft_labels": made.soft_labels.check,
        "evaluation": made.evaluation.check,
    }
    for path, section in sections.items():
        _try(section, path, problems)
    if made.threads < 1:
        problems.add("threads", f"threads={made.threads} must be >= 1")
    return made


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0]


def _try(make: Callable[[], T], path: str, problems: _Problems) -> T | None:
    """Run a constructor; what it says about its settings becomes a problem at `path`."""
    try:
        return make()
    except SettingsError as error:  # names the key itself
        problems.found.append(f"{path}.{error.what} ({error.why})")
    except RecDistillError as error:
        problems.found.append(error)
    except (TypeError, ValueError) as error:
        problems.add(path, _first_line(error))
    return None


def _component(node: Any, path: str, base: Callable[..., T], problems: _Problems) -> T | None:
    """Construct the component of a `_target_` node, with nested components first."""
    if not isinstance(node, dict) or "_target_" not in node:
        problems.add(path, "has no _target_; choose a member of the group")
        return None
    cls = _class(node["_target_"], path, problems)
    if cls is None:
        return None
    if not issubclass(cls, cast(type, base)):
        problems.add(path, f"{node['_target_']} is not a {cast(type, base).__name__}")
        return None
    before = len(problems.found)
    settings: dict[str, Any] = {}
    for key, value in node.items():
        if key == "_target_":
            continue
        if isinstance(value, dict) and "_target_" in value:
            value = _component(value, f"{path}.{key}", object, problems)
        settings[key] = value
    _bind(cls, settings, path, problems)
    return cast(T | None, _try(lambda: cls(**settings), path, problems)) if len(problems.found) == before else None


def _class(target: str, path: str, problems: _Problems) -> type[Any] | None:
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        problems.add(path, f"_target_ {target} cannot be imported: {error}")
        return None
    if not isinstance(found, type):
        problems.add(path, f"_target_ {target} is not a class")
        return None
    return found


def _bind(cls: type[Any], settings: dict[str, Any], path: str, problems: _Problems) -> None:
    """Compare keys and types with the constructor's signature."""
    signature = inspect.signature(cls).parameters
    parameters = {name: p for name, p in signature.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    hints = typing.get_type_hints(cls.__init__)
    for key, value in settings.items():
        if key not in parameters:
            problems.add(f"{path}.{key}", f"{cls.__name__} has no setting {key}{nearest(key, parameters)}")
        elif not _fits(value, hints.get(key, Any)):
            problems.add(f"{path}.{key}", f"{value!r} is not of type {_type_name(hints[key])}")
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in settings:
            problems.add(f"{path}.{name}", f"needs a value: {path}.{name}=...")


def _fits(value: Any, hint: Any) -> bool:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return any(_fits(value, part) for part in typing.get_args(hint))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    plain = typing.get_origin(hint) or hint
    return isinstance(value, plain) if isinstance(plain, type) else True


def _type_name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint)


def _recipe(node: Any, path: str, role: str, skeleton: RunConfig | None, problems: _Problems) -> Recipe | None:
    """A model with its role's keys."""
    node = dict(node or {})
    role_settings = {key: node.pop(key) for key in ROLE_KEYS if key in node}
    if node.get("_target_") == f"{Stored.__module__}.{Stored.__qualname__}":
        stored = _component(node, path, Stored, problems)
        if stored is None:
            return None
        inner = stored.description["model"]
        model = _component(inner, path, Recommender, problems)
        folder: Path | None = stored.folder
    else:
        inner, folder = node, None
        model = _component(inner, path, Recommender, problems)
    trainer = _trainer(role_settings.get("trainer"), f"{path}.trainer", problems) if role == "teacher" else None
    seed = role_settings.get("seed", 0) if role == "teacher" else (skeleton.seed if skeleton else 0)
    checkpoints = role_settings.get("checkpoints", 1)
    for key, value, least in (("seed", seed, 0), ("checkpoints", checkpoints, 1)):
        if not isinstance(value, int) or value < least:
            problems.add(f"{path}.{key}", f"{value!r} must be a whole number >= {least}")
    if model is None or (role == "teacher" and trainer is None):
        return None
    settings = trainer or (skeleton.trainer if skeleton else TrainerConfig())
    if role == "student" and "live" not in model.provides:
        problems.add(path, f"{type(model).__name__} has nothing to train, so it cannot be a student")
    cls = type(model)
    arguments = {key: value for key, value in inner.items() if key != "_target_"}
    return Recipe(role, inner, lambda: cls(**arguments), settings, seed, checkpoints, folder)


def _trainer(node: Any, path: str, problems: _Problems) -> TrainerConfig | None:
    try:
        merged = OmegaConf.merge(OmegaConf.structured(TrainerConfig), node or {})
    except OmegaConfBaseException as error:
        problems.add(f"{path}.{error.full_key}" if error.full_key else path, _first_line(error))
        return None
    made = cast(TrainerConfig, OmegaConf.to_object(merged))
    _try(made.check, path, problems)
    return made


def _with_trainer(recipe: Recipe, trainer: TrainerConfig) -> Recipe:
    return Recipe(recipe.role, recipe.node, recipe.make, trainer, recipe.seed)


def _check_needs(plan: Plan, problems: _Problems) -> None:
    """The distiller's requires against the teachers' provides, and the depth of the soft labels."""
    distiller = plan.distiller
    name = type(distiller).__name__
    if distiller.teachers is not None and len(plan.teachers) != distiller.teachers:
        problems.add("distill", f"{name} takes {distiller.teachers} teacher, but the config has {len(plan.teachers)}")
    for teacher, recipe in plan.teachers.items():
        model = recipe.make()
        if missing := distiller.requires - model.provides:
            kind = type(model).__name__
            problems.found.append(
                NeedsNotMet(
                    f"{name} needs {_quoted(missing)}, but teacher {kind} provides {_quoted(model.provides)}",
                    f"{name}'s loss is defined on the teacher's {' and '.join(sorted(missing))}, and {kind} has none",
                    "choose a teacher that provides it (teacher=mf, teacher=lightgcn) or a ranking distiller"
                    " (distill=rrd, distill=unkd)",
                )
            )
        elif "trajectory" in distiller.requires and recipe.checkpoints < 2:
            key = "teacher.checkpoints" if len(plan.teachers) == 1 else f"teacher.members.{teacher}.checkpoints"
            problems.add(key, f"{name} needs several checkpoints of each teacher: set {key}=4")
    depth = plan.config.soft_labels.depth
    if distiller.depth > depth:
        problems.add("soft_labels.depth", f"is {depth}, but distill.depth={distiller.depth} reads further down")


def _quoted(names: frozenset[str]) -> str:
    return ", ".join(repr(name) for name in sorted(names))
