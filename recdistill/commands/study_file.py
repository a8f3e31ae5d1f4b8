"""What a study's YAML says: data sets, methods with their search spaces, trials and seeds."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, RangeSweep
from hydra.errors import HydraException

from recdistill.commands.conf import conf_folder, members
from recdistill.errors import ConfigError, nearest
from recdistill.store import key_of

SCRATCH = "scratch"


@dataclass(frozen=True)
class Method:
    """One row of a study: overrides that choose it, and the space that is searched (key to its choices)."""

    name: str
    overrides: list[str]
    space: Mapping[str, list[str]]


@dataclass(frozen=True)
class Study:
    """What a study's YAML says.

    Attributes:
        name: of the study; its folder.
        datasets: name to overrides that only this data set has.
        methods: the rows; one of them is `scratch`, whose settings also make the reference of all others.
        overrides: of every run.
        trials: settings tried per method and data set, the same number for all.
        seeds: of the final runs; the first is the one that settings are tuned with.
    """

    name: str
    datasets: Mapping[str, list[str]]
    methods: list[Method]
    overrides: list[str]
    trials: int
    seeds: list[int]


def read_study(file: Path, quick: bool = False) -> Study:
    """Parse and check a study's YAML; with `quick` its small form, a study of its own named NAME-quick.

    Raises:
        ConfigError: a key is missing or unknown, a value has another shape, a method has no search space that
            holds as many settings as there are trials, or the small form is asked for where there is none.
    """
    path = file if file.suffix == ".yaml" else conf_folder() / "study" / f"{file}.yaml"
    if not path.is_file():
        studies = members("study", (conf_folder(),))
        raise ConfigError(
            f"there is no study {file}{nearest(str(file), studies)}",
            f"a study is a YAML file or one of {', '.join(studies)}",
            "recdistill list study, or the path of a file that ends in .yaml",
        )
    wanted = {"datasets", "methods", "trials", "seeds"}
    known = wanted | {"overrides", "quick"}
    node = _parsed(path)
    if not isinstance(node, dict) or wanted - node.keys() or node.keys() - known:
        given = sorted(map(str, node)) if isinstance(node, dict) else node
        raise ConfigError(
            f"{path} has the keys {given}",
            f"a study has {sorted(wanted)}, and may have overrides and quick",
            "mend its keys",
        )
    if quick:
        node = _quick(path, node)
    methods = _sections(path, node, "methods", {"overrides", "space", "sweep"})
    if SCRATCH not in methods:
        raise ConfigError(
            f"{path} has no method {SCRATCH}",
            "every gain is measured from the undistilled student, tuned with the same budget",
            f"add methods.{SCRATCH}: {{overrides: [distill=none]}}",
        )
    trials, seeds = node["trials"], node["seeds"]
    if not _is_count(trials) or trials < 1 or not isinstance(seeds, list) or not seeds:
        raise ConfigError(
            f"{path}: trials and seeds must not be empty",
            "each method needs a trial and a seed",
            "set trials to a number and seeds to a list of numbers",
        )
    if not all(map(_is_count, seeds)) or len(set(seeds)) < len(seeds):
        raise _shape(path, "seeds", seeds, "a list of distinct whole numbers")
    datasets = _sections(path, node, "datasets", {"overrides"})
    return Study(
        f"{path.stem}-quick" if quick else path.stem,
        {name: _overrides(path, f"datasets.{name}", about) for name, about in datasets.items()},
        [_method(path, name, about, trials) for name, about in methods.items()],
        _overrides(path, "the study", node),
        trials,
        seeds,
    )


def _quick(path: Path, node: Mapping[str, Any]) -> dict[str, Any]:
    """A study with what its `quick` says in place of what it says itself; overrides come after its own."""
    quick, may_have = node.get("quick"), {"datasets", "methods", "trials", "seeds", "overrides"}
    if not isinstance(quick, dict) or not quick or quick.keys() - may_have:
        raise _shape(path, "quick", quick, f"a mapping with some of the keys {sorted(may_have)}")
    small = {**node, **quick, "overrides": _overrides(path, "the study", node) + _overrides(path, "quick", quick)}
    for key in ("datasets", "methods"):
        names, sections = quick.get(key), node[key]
        if names is not None and isinstance(sections, dict):
            if not isinstance(names, list) or not names or not set(names) <= sections.keys():
                raise _shape(path, f"quick.{key}", names, f"a list of some of {list(sections)}")
            small[key] = {name: sections[name] for name in names}
    return small


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _parsed(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        text = " ".join(str(error).split())
        raise ConfigError(f"{path} cannot be read: {text}", "a study is made of YAML files", "mend it") from error


def _shape(path: Path, key: str, value: Any, wanted: str) -> ConfigError:
    return ConfigError(f"{path}: {key} is {value!r}", f"{key} must be {wanted}", "see the files in conf/study")


def _sections(path: Path, node: Mapping[str, Any], key: str, known: set[str]) -> dict[str, Mapping[str, Any]]:
    """A mapping of names to what is known about each; a name is also a folder's."""
    sections = node[key]
    if not isinstance(sections, dict) or not sections:
        raise _shape(path, key, sections, "names with their settings, such as NAME: {overrides: [...]}")
    for name, about in sections.items():
        if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]*", name):
            raise _shape(path, f"a name in {key}", name, "a word of letters, digits, _, - and dots")
        if not isinstance(about, dict | None) or (about or {}).keys() - known:
            raise _shape(path, f"{key}.{name}", about, f"a mapping with the keys {sorted(known)}")
    return {name: about or {} for name, about in sections.items()}


def _overrides(path: Path, key: str, about: Mapping[str, Any]) -> list[str]:
    overrides = about.get("overrides")
    if overrides is None:
        return []
    if not isinstance(overrides, list) or not all(isinstance(text, str) for text in overrides):
        raise _shape(path, f"overrides of {key}", overrides, "a list of words KEY=VALUE")
    return overrides


def _method(path: Path, name: str, about: Mapping[str, Any], trials: int) -> Method:
    """A method with its search space: its own `space`, else the file in conf/sweep that it names or is named after."""
    source, params = path, about.get("space")
    if "space" not in about:
        source = conf_folder() / "sweep" / f"{about.get('sweep', name)}.yaml"
        if not source.is_file():
            raise ConfigError(
                f"{path}: method {name} has no search space",
                "every method is tuned over a space of its own",
                f"add methods.{name}.space, or methods.{name}.sweep with the name of a file in conf/sweep",
            )
        params = _parsed(source)
        for key in ("hydra", "sweeper", "params"):
            params = params.get(key) if isinstance(params, dict) else None
    if not isinstance(params, dict):
        raise _shape(source, f"the space of {name}", params, "a mapping of keys to choices, such as KEY: choice(1,2)")
    method = Method(
        name,
        _overrides(path, f"methods.{name}", about),
        {str(key): _choices(str(key), str(value)) for key, value in params.items()},
    )
    points = math.prod(len(choices) for choices in method.space.values())
    if points < trials:
        raise ConfigError(
            f"{path}: the space of method {name} has {points} settings, trials is {trials}",
            "every method is tuned with the same number of trials",
            f"add choices to the space of {name}, or set trials to {points}",
        )
    return method


def _choices(key: str, text: str) -> list[str]:
    try:
        override = OverridesParser.create().parse_override(f"{key}={text}")
        if not override.is_sweep_override():
            return [text]
        if isinstance(override.value(), ChoiceSweep | RangeSweep):
            return list(dict.fromkeys(str(value) for value in override.sweep_string_iterator()))
        said = ""
    except HydraException as error:
        said = f": {' '.join(str(error).split())}"
    raise ConfigError(
        f"{key}: {text} is not a list of choices{said}",
        "a study draws from choice(...) or range(...)",
        "write choice(a,b,c)",
    )


def settings_of_trials(method: Method, trials: int) -> list[list[str]]:
    """The settings that are tried: distinct points of the space's grid, in a random order that never changes."""
    grid: list[list[str]] = [[]]
    for key, choices in method.space.items():
        grid = [[*point, f"{key}={choice}"] for point in grid for choice in choices]
    random.Random(key_of([method.name, grid])).shuffle(grid)
    return grid[:trials]
