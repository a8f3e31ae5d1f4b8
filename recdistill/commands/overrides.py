"""The words after `recdistill train`, checked before Hydra takes over and before torch is imported."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser  # Hydra's own words; there is no public parser
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from recdistill.commands.conf import GROUPS, conf_folder, members
from recdistill.errors import ConfigError, Problems, nearest

EXTRAS = {"hydra/sweeper/optuna": "tune", "hydra/launcher/joblib": "sweep"}  # of pyproject.toml
ROOM = 1 << 16  # bytes: more than Hydra, which knows none of our errors, writes before a run begins


class OverlayFirst(SearchPathPlugin):
    """Lay the user's --config-dir over ours: a file of the same name is taken from the user's folder."""

    folder: Path | None = None

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Put the folder before our config tree."""
        if self.folder is not None:
            search_path.prepend("--config-dir", f"file://{self.folder}", anchor="main")


Plugins.instance().register(OverlayFirst)


def parse(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Read Hydra's flags and the overrides, in any order.

    Returns:
        What the flags say, and the words in an order that Hydra's own parser takes: flags first.

    Raises:
        ConfigError: a flag is unknown or refused.
    """
    parser = get_args_parser()
    parser.prog, parser.exit_on_error = "recdistill train", False
    try:
        arguments, unknown = parser.parse_known_intermixed_args(list(words))
    except argparse.ArgumentError as error:
        raise ConfigError(str(error), "a flag was not understood", "recdistill train --help") from error
    if unknown:
        flags = [flag for action in parser._actions for flag in action.option_strings]
        raise ConfigError(
            f"there is no flag {unknown[0]}{nearest(unknown[0].partition('=')[0], flags)}",
            "recdistill train takes Hydra's flags; settings are written KEY=VALUE, without dashes",
            "recdistill train --hydra-help lists the flags, recdistill explain GROUP=NAME the settings",
        )
    if arguments.experimental_rerun is not None:  # read after parsing: argparse also takes `--exp`
        raise ConfigError(
            "--experimental-rerun is refused",
            "it unpickles a file, which can run any code",
            "repeat the run from its .hydra/overrides.yaml: recdistill train OVERRIDES",
        )
    if arguments.config_path is not None:
        raise ConfigError(
            "--config-path is refused",
            "it would replace recdistill's config tree, not add to it",
            "lay a folder of your own over it: --config-dir FOLDER",
        )
    overlay = Path(arguments.config_dir).resolve() if arguments.config_dir else None
    if overlay is not None and not overlay.is_dir():
        raise ConfigError(
            f"--config-dir {arguments.config_dir} is no folder", "its YAML files are laid over ours", "mend the path"
        )
    OverlayFirst.folder = overlay
    flags = [word for word in words if word not in arguments.overrides]
    return arguments, [*flags, *arguments.overrides]


def check(arguments: argparse.Namespace, *, full: bool) -> None:
    """Compose the config once per choice of a sweep; with `full`, construct its components too.

    Raises:
        ConfigError: with all that is off: first the names, and when those are right the values.
    """
    overrides = _parsed(arguments.overrides)
    name = arguments.config_name or "config"
    folders = (conf_folder(), *([OverlayFirst.folder] if OverlayFirst.folder else []), *_searched(overrides))
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"):
        variants = _variants(overrides, arguments.multirun)
        _check_names(name, variants, folders)
        if space := _space(name, overrides, arguments.multirun, full=full):
            variants = _variants([*space, *overrides], arguments.multirun)
            _check_names(name, variants, folders)
        configs = (compose(name, [o.input_line or "" for o in variant]) for variant in variants)
        for config in configs:
            if full:
                _check_components(config)


def _check_components(config: DictConfig) -> None:
    from recdistill import build  # the first import of torch
    from recdistill.store import ensure_folder

    with open_dict(config):
        node = config.pop("hydra")
    build.check_hydra(node, config.get("plugins"))
    build.check(config)
    ensure_folder(Path(config.paths.outputs), ROOM)


def _searched(overrides: list[Override]) -> list[Path]:
    """Folders that the user put on `hydra.searchpath`."""
    found: list[Path] = []
    for override in overrides:
        if override.key_or_group == "hydra.searchpath" and isinstance(value := override.value(), list):
            found += [Path(str(place).removeprefix("file://")) for place in value]
    return found


def _space(config_name: str, overrides: list[Override], multirun: bool, *, full: bool) -> list[Override]:
    """The overrides of a sweep's search space, which the sweeper puts before those of the command line."""
    if not multirun:
        if full and (chosen := [o.input_line for o in overrides if o.key_or_group.split("@")[0] == "sweep"]):
            raise ConfigError(
                f"{chosen[0]} is a search space, but this is one run",
                "its choices would be ignored",
                f"add -m to search it, or leave {chosen[0]} out",
            )
        return []
    config = compose(config_name, [o.input_line or "" for o in overrides if not o.is_sweep_override()])
    params = OmegaConf.select(config, "hydra.sweeper.params") or {}
    return _parsed([f"{key}={value}" for key, value in params.items()])


def _parsed(words: Sequence[str]) -> list[Override]:
    try:
        return OverridesParser.create().parse_overrides(list(words))
    except HydraException as error:
        raise ConfigError(
            f"cannot read an override: {first_line(error)}",
            "overrides are KEY=VALUE; values with spaces, commas or brackets need quotes",
            "put quotes around it: 'KEY=\"some, text\"'",
        ) from error


def _variants(overrides: list[Override], multirun: bool) -> list[list[Override]]:
    """The overrides with each sweep at its first choice, then with each other choice alone."""
    texts = [_choices(override, multirun) for override in overrides]
    variants = [[choices[0] for choices in texts if choices]]
    for place, choices in enumerate(texts):
        for choice in choices[1:]:
            variants.append([choice if n == place else some[0] for n, some in enumerate(texts) if some])
    return [_parsed(variant) for variant in variants]


def _choices(override: Override, multirun: bool) -> list[str]:
    """What one override stands for: itself, or each value of a sweep."""
    if not override.is_sweep_override():
        return [override.input_line or ""]
    name = override.get_key_element()
    if not multirun:
        raise ConfigError(
            f"{override.input_line} names several values, but this is one run",
            "a comma makes a sweep",
            f"add -m for one run per value, or write a list in brackets: {name}=[a,b]",
        )
    if not override.is_discrete_sweep():
        return []  # a sweeper's distribution: the sweeper checks it
    if isinstance(value := override.value(), Glob):
        options = GlobalHydra.instance().config_loader().get_group_options(override.key_or_group)
        return [f"{name}={option}" for option in value.filter(options)]
    return [f"{name}={value}" for value in override.sweep_string_iterator()]


def _check_names(config_name: str, variants: list[list[Override]], folders: tuple[Path, ...]) -> None:
    """Every group, member and key that is named must exist; all that do not are reported together."""
    problems: dict[str, str] = {}  # what is wrong to its fix
    bases: dict[tuple[str, ...], DictConfig] = {}
    for variant in variants:
        chosen = [override for override in variant if _is_group(override, folders)]
        good = [o.input_line or "" for o in variant if o.key_or_group == "hydra.searchpath"]
        for override in chosen:
            wrong = _member_problem(override, folders)
            if wrong is None:
                good.append(override.input_line or "")
            else:
                problems |= [wrong]
        if tuple(good) not in bases:
            bases[tuple(good)] = compose(config_name, good)
        for override in variant:
            if override not in chosen and (wrong := _key_problem(override, bases[tuple(good)])):
                problems |= [wrong]
    if problems:
        _raise(problems)


def _raise(problems: dict[str, str]) -> None:
    found = Problems()
    for what, fix in problems.items():
        found.found.append(
            ConfigError(what, "every name in the config belongs to a component; one nobody reads would be ignored", fix)
        )
    found.stop()


def compose(name: str, overrides: list[str]) -> DictConfig:
    """Compose, with the `hydra` node; Hydra's refusals become ours."""
    try:
        return hydra.compose(name, overrides, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        said = first_line(error)
        for part, extra in EXTRAS.items():
            if part in said:
                raise ConfigError(
                    said, f"{part} is in an extra that is not installed", f'pip install "recdistill[{extra}]"'
                ) from error
        raise ConfigError(
            said, "the config cannot be composed", "recdistill list names the groups and their members"
        ) from error


def _is_group(override: Override, folders: tuple[Path, ...]) -> bool:
    group = override.key_or_group.split("@")[0]
    if isinstance(override.value(), dict):
        return False  # values for a whole section
    return (
        group.startswith("hydra/")
        or "@" in override.key_or_group
        or group in GROUPS
        or any((folder / group).is_dir() and "." not in group for folder in folders)
    )


def _member_problem(override: Override, folders: tuple[Path, ...]) -> tuple[str, str] | None:
    group, value = override.key_or_group.split("@")[0], override.value()
    if group.startswith("hydra/") or override.is_delete() or isinstance(value, list):
        return None
    if override.key_or_group == "model" and not override.is_add():
        return "model is not chosen on its own: teacher and student each are one", f"teacher={value} or student={value}"
    known = members(group, folders)
    if value in known:
        return None
    names = ", ".join(known) or "none"
    if value is None:
        return f"{group}=null chooses nothing", f"~{group} takes a choice away; {group} is one of {names}"
    return (
        f"{group}={value}: there is no such {group}{nearest(str(value), known)}",
        f"{group} is one of {names}: recdistill list {group}",
    )


def _key_problem(override: Override, base: DictConfig) -> tuple[str, str] | None:
    """A key must exist, or, with `+`, lie in a component whose constructor will be asked."""
    key, known = override.key_or_group, _paths(base)
    if (nested := key.replace(".", "/")) in GROUPS and isinstance(override.value(), str):
        return f"{key} is a section of settings; its choices are taken with a slash", f"{nested}={override.value()}"
    if isinstance(value := override.value(), dict) and key in known:
        inner = (f"{key}.{name}" for name in value)
        key = next((path for path in inner if path not in known), key)
    if key.startswith("hydra.") or key in known:
        return None
    above = [key.rsplit(".", n)[0] for n in range(1, key.count(".") + 1)]
    if override.is_add() or override.is_force_add():
        parents = [OmegaConf.select(base, path, throw_on_missing=False) for path in above]
        if any(isinstance(parent, DictConfig) and "_target_" in parent for parent in parents):
            return None
    parent = next((path for path in above if path in known), "")
    siblings = {path for path in known if path.startswith(f"{parent}.")} if parent else known | set(GROUPS)
    groups = [path.replace(".", "/") for path in above if path.replace(".", "/") in GROUPS]
    fix = f"recdistill explain {groups[0]}=NAME lists its settings" if groups else "recdistill train --cfg job"
    return f"there is no key {key}{nearest(key, siblings)}", fix


def _paths(node: DictConfig, above: str = "") -> set[str]:
    found: set[str] = set()
    for key in map(str, node):
        if not above and key == "hydra":
            continue
        found.add(f"{above}{key}")
        inner: Any = node._get_node(key)
        if isinstance(inner, DictConfig) and not inner._is_interpolation() and not inner._is_none():
            found |= _paths(inner, f"{above}{key}.")
    return found


def first_line(error: Exception) -> str:
    """What an exception says, without the details below."""
    return (str(error).strip() or type(error).__name__).split("\n")[0]
