"""From config to objects, and the check before it: every component is really constructed before data are read."""

from __future__ import annotations

import importlib
import inspect
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from recdistill.config import RunConfig, TrainerConfig
from recdistill.dataset.catalog import Source
from recdistill.distill.base import Distiller
from recdistill.errors import NeedsNotMet, Problems, RecDistillError, SettingsError, nearest
from recdistill.models.base import Recommender
from recdistill.models.stored import Stored
from recdistill.training.alone import Recipe

ROLE_KEYS = ("seed", "trainer", "checkpoints")
HYDRA_OWN = (  # what Hydra's own launchers, sweepers and log handlers are made of
    "hydra._internal.core_plugins", "hydra.experimental.callbacks", "hydra_plugins", "optuna.samplers",
    "logging.StreamHandler", "logging.FileHandler", "logging.NullHandler", "logging.handlers",
    "colorlog.ColoredFormatter", "rich.logging.RichHandler",
)  # fmt: skip
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
    problems = Problems()
    plain = _plain(config, problems)
    _refuse_foreign(plain, "", plain.get("plugins"), problems)
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
    scratch = replace(student, trainer=skeleton.scratch.trainer)
    plan = Plan(skeleton, source, made, student, scratch, distiller)
    _check_needs(plan, problems)
    trained = {"trainer": student, **{f"{paths[name]}.trainer": made[name] for name in made}}
    _check_optimizers(trained | ({"scratch.trainer": scratch} if skeleton.scratch.enabled else {}), problems)
    problems.stop()
    return plan


def check_hydra(node: Any, plugins: Any) -> None:
    """Refuse what Hydra itself would import on behalf of a config: launchers, sweepers, callbacks, log handlers.

    Args:
        node: the `hydra` node of a composed config.
        plugins: the root's `plugins`.

    Raises:
        ConfigError: a class is neither Hydra's nor Python's logging nor ours nor a plugin's.
    """
    problems = Problems()
    plain = OmegaConf.to_container(node, resolve=False)
    names = _plugin_names(plugins)
    for path, target in _targets(plain, "hydra", keys=("_target_", "class", "()")):
        if not _is_within(target, [*HYDRA_OWN, *names]):
            problems.add(path, f"{target!r} is outside Hydra, recdistill and the plugins {names[:-1]}", _ADD_PLUGIN)
    for path, text in _walk(plain, "hydra"):
        if isinstance(text, str) and text.startswith("ext://") and not text.startswith("ext://sys."):
            problems.add(path, f"{text!r} would import a module")
    problems.stop()


def _plugin_names(plugins: Any) -> list[str]:
    return [*map(str, plugins if isinstance(plugins, list | ListConfig) else []), "recdistill"]


def _is_within(target: Any, packages: list[str]) -> bool:
    return isinstance(target, str) and any(f"{target}.".startswith(f"{name}.") for name in packages)


def _refuse_foreign(node: Any, path: str, plugins: Any, problems: Problems) -> None:
    """Nothing foreign is ever imported: stop at a `_target_` that is neither ours nor a plugin's."""
    names = _plugin_names(plugins)
    for where, target in _targets(node, path):
        if not _is_within(target, names):
            problems.add(where, f"_target_ {target!r} is outside recdistill and the plugins {names[:-1]}", _ADD_PLUGIN)
    problems.stop()


_ADD_PLUGIN = "choose one of recdistill's, or, if you trust the package, name it: plugins=[PACKAGE]"


def _plain(config: DictConfig, problems: Problems) -> dict[str, Any]:
    """Plain values, with interpolations resolved and no value missing."""
    try:
        for key in sorted(OmegaConf.missing_keys(config)):
            problems.add(key, f"needs a value: {key}=...", f"add {key}=...")
        problems.stop()
        return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
    except OmegaConfBaseException as error:
        problems.add(error.full_key or "config", _first_line(error))
    problems.stop()
    raise AssertionError("stop raises")


def _walk(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every mapping, list and value of a tree, with its path."""
    yield path, node
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in inner:
        yield from _walk(value, f"{path}.{key}" if path else str(key))


def _targets(node: Any, path: str = "", keys: tuple[str, ...] = ("_target_",)) -> Iterator[tuple[str, Any]]:
    for where, inner in _walk(node, path):
        if isinstance(inner, dict):
            yield from ((where, inner[key]) for key in keys if key in inner)


def _typed(schema: type[T], node: Any, path: str, problems: Problems) -> T | None:
    """A typed section; each key is converted on its own so that all problems are found."""
    good = _good(schema, {} if node is None else node, path, problems)
    if good is None:
        return None
    return cast(T, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), good)))


def _good(schema: type[Any], node: Any, path: str, problems: Problems) -> dict[str, Any] | None:
    """The keys of a section whose values have the right type; None if it is no mapping."""
    if not isinstance(node, dict):
        problems.add(path, f"{node!r} is not a mapping of settings")
        return None
    hints = typing.get_type_hints(schema)
    good: dict[str, Any] = {}
    for key, value in node.items():
        where = f"{path}.{key}" if path else str(key)
        if key not in hints:
            problems.add(where, f"no such key{nearest(str(key), hints)}")
        elif is_dataclass(hints[key]):
            good[key] = _good(hints[key], value, where, problems) or {}
        else:
            try:
                OmegaConf.merge(OmegaConf.structured(schema), {key: value})
                good[key] = value
            except OmegaConfBaseException as error:
                problems.add(where, _first_line(error))
    return good


def _skeleton(plain: dict[str, Any], problems: Problems) -> RunConfig | None:
    """The typed root."""
    made = _typed(RunConfig, plain, "", problems)
    if made is None:
        return None
    sections = {"trainer": made.trainer, "scratch.trainer": made.scratch.trainer}
    for path, section in {**sections, "soft_labels": made.soft_labels, "evaluation": made.evaluation}.items():
        _section(section, path, problems)
    counts = {"seed": (made.seed, 0), "threads": (made.threads, 1), "ranking_threads": (made.ranking_threads or 1, 1)}
    for key, (value, least) in counts.items():
        if value < least:
            problems.add(key, f"{key}={value} must be >= {least}")
    if made.matmul not in ("strict", "fast"):
        problems.add("matmul", f"{made.matmul!r} is neither strict nor fast", "set matmul=strict or matmul=fast")
    return made


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0]


def _section(section: Any, path: str, problems: Problems) -> None:
    """The ranges of a typed section."""
    cls = type(section)
    _made(lambda settings: cls(**settings).check(), vars(section), vars(cls()), path, problems)


def _made(
    make: Callable[[dict[str, Any]], T],
    settings: dict[str, Any],
    defaults: dict[str, Any],
    path: str,
    problems: Problems,
) -> T | None:
    """Construct; a setting that is refused is noted and takes its default, so that the others are found too."""
    off: dict[str, Any] = {}
    try:
        while True:
            try:
                made = make(settings | off)
                return None if off else made
            except SettingsError as error:  # names the key as the constructor spells it
                key = error.what.partition("=")[0]
                if key not in off and not any(f"{name}=" in error.why for name in off):  # else a default is to blame
                    problems.note(error, path)
                if key in off or key not in defaults:
                    return None
                off[key] = defaults[key]
    except RecDistillError as error:
        problems.note(error, path)
    except (TypeError, ValueError) as error:
        problems.add(path, _first_line(error))
    return None


def _component(node: Any, path: str, base: Callable[..., T], problems: Problems) -> T | None:
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
    hints = typing.get_type_hints(cls.__init__)
    given = {key: value for key, value in node.items() if key != "_target_"}
    settings = {key: _setting(value, f"{path}.{key}", hints.get(key), problems) for key, value in given.items()}
    defaults = _bind(cls, settings, path, problems)
    if len(problems.found) > before:
        return None
    return cast(T | None, _made(lambda settings: cls(**settings), settings, defaults, path, problems))


def _setting(value: Any, path: str, hint: Any, problems: Problems) -> Any:
    """A plain value as it is; a component, or a mapping of names to components, constructed."""
    if isinstance(value, dict) and "_target_" in value:
        made = _component(value, path, hint if isinstance(hint, type) else object, problems)
        return _BROKEN if made is None else made
    if isinstance(value, dict) and typing.get_origin(hint) is dict:
        inner = typing.get_args(hint)[1]
        made = {key: _setting(one, f"{path}.{key}", inner, problems) for key, one in value.items()}
        return _BROKEN if _BROKEN in made.values() else made
    return value


_BROKEN = object()  # stands for a nested component whose problems were already noted


def _class(target: str, path: str, problems: Problems) -> type[Any] | None:
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # a user's own module may raise anything while it is imported
        absent = isinstance(error, ModuleNotFoundError) and error.name in (module, module.partition(".")[0])
        fix = f"install {module} (pip install -e .), or name its folder: PYTHONPATH=. recdistill ..." if absent else ""
        problems.add(path, f"_target_ {target} cannot be imported: {type(error).__name__}: {error}", fix)
        return None
    if not isinstance(found, type):
        problems.add(path, f"_target_ {target} is not a class")
        return None
    return found


def _bind(cls: type[Any], settings: dict[str, Any], path: str, problems: Problems) -> dict[str, Any]:
    """Compare keys and types with the constructor's signature; returns its defaults."""
    signature = inspect.signature(cls).parameters
    parameters = {name: p for name, p in signature.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    hints = typing.get_type_hints(cls.__init__)
    for key, value in settings.items():
        if key not in parameters:
            problems.add(f"{path}.{key}", f"{cls.__name__} has no setting {key}{nearest(key, parameters)}")
        elif value is not _BROKEN and not _fits(value, hints.get(key, Any)):
            name = hints[key].__name__ if isinstance(hints[key], type) else hints[key]
            problems.add(f"{path}.{key}", f"{value!r} is not of type {name}")
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in settings:
            problems.add(f"{path}.{name}", f"needs a value: {path}.{name}=...")
    return {name: p.default for name, p in parameters.items() if p.default is not p.empty}


def _fits(value: Any, hint: Any) -> bool:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return any(_fits(value, part) for part in typing.get_args(hint))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    plain = typing.get_origin(hint) or hint
    return isinstance(value, plain) if isinstance(plain, type) else True


def _recipe(node: Any, path: str, role: str, skeleton: RunConfig | None, problems: Problems) -> Recipe | None:
    """A model with its role's keys."""
    node = dict(node or {})
    own = ROLE_KEYS if role == "teacher" else ()  # a student has the root's trainer and seed
    role_settings = {key: node.pop(key) for key in own if key in node}
    if node.get("_target_") == f"{Stored.__module__}.{Stored.__qualname__}":
        if role == "student":
            problems.add(
                path,
                "a stored model cannot be the student: a student starts from fresh weights",
                "choose its kind and size (student=mf student.dim=8), or use the stored model as teacher=stored",
            )
            return None
        stored = _component(node, path, Stored, problems)
        if stored is None:
            return None
        inner, kept = stored.description["model"], max(1, len(stored.description.get("snapshots", [])))
        _refuse_foreign(inner, f"{path}.run", skeleton.plugins if skeleton else [], problems)
        model = _component(inner, path, Recommender, problems)
        folder: Path | None = stored.folder
    else:
        inner, folder, kept = node, None, 1
        model = _component(inner, path, Recommender, problems)
    trainer = _trainer(role_settings.get("trainer"), f"{path}.trainer", problems) if role == "teacher" else None
    seed = role_settings.get("seed", 0) if role == "teacher" else (skeleton.seed if skeleton else 0)
    checkpoints = role_settings.get("checkpoints", kept)
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
    cutoffs = skeleton.evaluation.cutoffs if skeleton else []
    select = f"ndcg@{max(cutoffs, default=20)}"
    matmul = skeleton.matmul if skeleton else "strict"
    return Recipe(role, inner, lambda: cls(**arguments), settings, seed, checkpoints, folder, select, matmul)


def _trainer(node: Any, path: str, problems: Problems) -> TrainerConfig | None:
    made = _typed(TrainerConfig, node, path, problems)
    if made is not None:
        _section(made, path, problems)
    return made


def _check_needs(plan: Plan, problems: Problems) -> None:
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
        problems.add("soft_labels.depth", f"is {depth}, but {name} reads {distiller.depth} items of a ranking")


def _check_optimizers(recipes: dict[str, Recipe], problems: Problems) -> None:
    for path, recipe in recipes.items():
        if recipe.trainer.optimizer == "row_adam" and not recipe.make().touches_rows:
            kind = recipe.node["_target_"].rpartition(".")[2]
            why = f"row_adam moves the rows that a batch touches, and each step of {kind} moves all of them"
            problems.add(f"{path}.optimizer", why, f"set {path}.optimizer=adam")


def _quoted(names: frozenset[str]) -> str:
    return ", ".join(repr(name) for name in sorted(names))
