"""`recdistill train`: check the words, then hand over to Hydra."""

from __future__ import annotations

import logging
import math
import os
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser  # Hydra's own words; there is no public parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from recdistill.commands.conf import GROUPS, conf_folder, members
from recdistill.errors import ConfigError, RecDistillError
from recdistill.store import ensure_folder, key_of

HYDRA_GROUPS = ("hydra/launcher", "hydra/sweeper", "hydra/job_logging", "hydra/hydra_logging", "hydra/output")


def slug(text: str) -> str:
    """A folder name of at most 80 characters out of a sweep's overrides, told apart by a hash when it was cut."""
    plain = "".join(letter if letter.isalnum() or letter in "=.,-_" else "-" for letter in text)
    return plain if plain == text and len(plain) <= 80 else f"{plain[:80]}-{key_of(text)[:8]}"


def register_resolvers() -> None:
    """What the config's folder names are made of; also needed in a launcher's worker processes."""
    OmegaConf.register_new_resolver("recdistill.unique", lambda: uuid.uuid4().hex[:6], use_cache=True, replace=True)
    OmegaConf.register_new_resolver("recdistill.slug", slug, replace=True)


register_resolvers()
_failures: list[RecDistillError] = []


def train(words: Sequence[str]) -> int:
    """Run an experiment or a sweep.

    Args:
        words: Hydra's overrides and flags.

    Returns:
        The exit code.

    Raises:
        ConfigError: an override names nothing that exists, or a component's settings are off.
    """
    if any(word.startswith("--experimental-rerun") for word in words):
        raise ConfigError(
            "--experimental-rerun is refused",
            "it unpickles a file, which can run any code",
            "repeat the run from its .hydra/overrides.yaml: recdistill train OVERRIDES",
        )
    arguments = get_args_parser().parse_args(list(words))
    if not (arguments.help or arguments.hydra_help or arguments.shell_completion):
        _check(arguments, full=not (arguments.cfg or arguments.info))
    _failures.clear()
    argv, sys.argv = sys.argv, ["recdistill train", *words]
    full_error = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions reach our own handler instead of Hydra's print
    try:
        hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")(job)()
    except HydraException as error:
        raise ConfigError(_first(error), "Hydra refused it", "recdistill train --help") from error
    finally:
        sys.argv = argv
        if full_error is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full_error
    if _failures:
        raise _failures[0]
    return 0


def job(config: DictConfig) -> float:
    """One run; its folder is Hydra's. Returns the student's valid/ndcg at the largest cut-off, for sweepers."""
    from recdistill.build import check
    from recdistill.pipeline import run
    from recdistill.report.record import write_status
    from recdistill.report.tables import print_table, run_rows

    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    single = hydra_config.mode == RunMode.RUN
    with _log_in(folder):
        write_status(folder, "running")
        try:
            results = run(check(config), _shown(folder), bars=single)
        except RecDistillError as error:
            write_status(folder, "failed", error=str(error))
            if not single:
                logging.getLogger("recdistill").error(str(error))
                raise
            _failures.append(error)
            return math.nan
        except BaseException as error:
            write_status(folder, "failed", error=f"{type(error).__name__}: {error}")
            raise
        k = max(config.evaluation.cutoffs)
        write_status(folder, "done")
    columns, rows = run_rows(results, k)
    print_table(f"{results['dataset']['name']}, test", columns, rows)
    value = results["models"]["student"]["metrics"][f"valid/ndcg@{k}"]
    print(f"{_shown(folder)} valid/ndcg@{k}={value:.4f}", flush=True)
    return float(value)


@contextmanager
def _log_in(folder: Path) -> Iterator[None]:
    """Nothing to do but to make sure that a job's log goes to its own folder, also in a reused process."""
    ensure_folder(folder)
    yield


def _shown(folder: Path) -> Path:
    """The folder as a user would type it."""
    try:
        return folder.relative_to(Path.cwd())
    except ValueError:
        return folder


def _check(arguments: Any, *, full: bool) -> None:
    """Compose the config and construct its components, once per choice of a sweep, before Hydra takes over."""
    overlay = Path(arguments.config_dir) if arguments.config_dir else None
    if overlay is not None and not overlay.is_dir():
        raise ConfigError(f"--config-dir {overlay} is no folder", "its YAML files are laid over ours", "mend the path")
    folders = (conf_folder(), *([overlay] if overlay else []))
    try:
        overrides = OverridesParser.create().parse_overrides(arguments.overrides)
    except HydraException as error:
        raise ConfigError(
            f"cannot read an override: {_first(error)}",
            "overrides are KEY=VALUE; values with spaces, commas or brackets need quotes",
            "put quotes around it: 'KEY=\"some, text\"'",
        ) from error
    for variant in _variants(overrides, bool(arguments.multirun)):
        config = _compose(variant, folders, arguments.config_name, overrides)
        if full:
            from recdistill.build import check

            check(config)
            ensure_folder(Path(config.paths.outputs))


def _variants(overrides: list[Override], multirun: bool) -> Iterator[list[str]]:
    """The overrides with each sweep at its first choice, then with each other choice alone."""
    texts: list[list[str]] = []
    for override in overrides:
        if override.is_sweep_override():
            if not multirun:
                raise ConfigError(
                    f"{override.input_line} names several values, but this is one run",
                    "a comma makes a sweep",
                    f"add -m for one run per value, or quote a list: {override.key_or_group}=[a,b]",
                )
            if override.is_discrete_sweep():
                name = override.get_key_element()
                texts.append([f"{name}={value}" for value in override.sweep_string_iterator()])
            else:
                texts.append([])  # a sweeper's distribution: the sweeper checks it
        else:
            texts.append([override.input_line or ""])
    first = [choices[0] for choices in texts if choices]
    yield first
    for place, choices in enumerate(texts):
        for choice in choices[1:]:
            yield [choice if n == place else some[0] for n, some in enumerate(texts) if some]


def _compose(
    overrides: list[str], folders: tuple[Path, ...], config_name: str | None, all_overrides: list[Override]
) -> DictConfig:
    parsed = OverridesParser.create().parse_overrides(overrides)
    chosen = [override for override in parsed if _is_group(override, folders)]
    for override in chosen:
        _check_member(override, folders)
    GlobalHydra.instance().clear()
    search = [f"hydra.searchpath=[file://{folders[1].resolve()}]"] if len(folders) > 1 else []
    with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"):
        name = config_name or "config"
        base = _composed(name, search + [override.input_line or "" for override in chosen])
        for override in parsed:
            if override not in chosen:
                _check_key(override, base)
        return _composed(name, search + overrides)


def _composed(name: str, overrides: list[str]) -> DictConfig:
    try:
        return hydra.compose(name, overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(
            _first(error), "the config cannot be composed", "recdistill list names the groups and their members"
        ) from error


def _is_group(override: Override, folders: tuple[Path, ...]) -> bool:
    group = override.key_or_group.split("@")[0]
    if group in HYDRA_GROUPS or "@" in override.key_or_group:
        return True
    return group in GROUPS or any((folder / group).is_dir() and "." not in group for folder in folders)


def _check_member(override: Override, folders: tuple[Path, ...]) -> None:
    from recdistill.commands.choices import nearest

    group, value = override.key_or_group.split("@")[0], override.value()
    if group in HYDRA_GROUPS or not isinstance(value, str) or value == "null":
        return
    known = members(group, folders)
    if value not in known:
        raise ConfigError(
            f"{group}={value}: there is no such {group}{nearest(value, known)}",
            f"{group} is one of {', '.join(known) or 'none'}",
            f"recdistill list {group}",
        )


def _check_key(override: Override, base: DictConfig) -> None:
    """A key must exist, or, with `+`, lie in a component whose constructor will be asked."""
    from recdistill.commands.choices import nearest

    key = override.key_or_group
    if key.startswith("hydra."):
        return
    parent = key.rpartition(".")[0]
    if override.is_add() or override.is_force_add():
        node = OmegaConf.select(base, parent) if parent else None
        if isinstance(node, DictConfig) and (
            "_target_" in node or any("_target_" in base[k] for k in [parent.split(".")[0]])
        ):
            return
    elif OmegaConf.select(base, key, throw_on_missing=False) is not None or key in _paths(base):
        return
    known = _paths(base) | set(GROUPS)
    raise ConfigError(
        f"there is no key {key}{nearest(key, known)}",
        "every key of the config is a setting of some component; a key nobody reads would be ignored",
        "recdistill explain GROUP=NAME lists the settings",
    )


def _paths(node: DictConfig, above: str = "") -> set[str]:
    found = set()
    for key in map(str, node):
        path = f"{above}{key}"
        found.add(path)
        inner = OmegaConf.select(node, key, throw_on_missing=False)
        if isinstance(inner, DictConfig):
            found |= _paths(inner, f"{path}.")
    return found


def _first(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
