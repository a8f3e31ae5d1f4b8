"""`recdistill train resume=RUN`: continue a killed run in its own folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from recdistill.commands.conf import conf_folder
from recdistill.commands.overrides import compose
from recdistill.errors import ConfigError
from recdistill.store import read_json

WORD = "resume="


def run_to_resume(words: Sequence[str]) -> Path | None:
    """The folder that `resume=` names, if it is among the words."""
    named = [word.removeprefix(WORD) for word in words if word.startswith(WORD)]
    return Path(named[-1]) if named else None


def words_of(run: Path, words: Sequence[str], given: Sequence[str], config_name: str) -> list[str]:
    """The words that continue a run: its own overrides, in its own folder.

    Args:
        run: the folder.
        words: all words of the command without `resume=`.
        given: the overrides among them; none, or those that the run was started with.
        config_name: the primary config.

    Raises:
        ConfigError: the folder is no run, the run is finished, or the overrides make another config.
    """
    _check(run)
    overrides = yaml.safe_load((run / ".hydra" / "overrides.yaml").read_text(encoding="utf-8")) or []
    own = [str(override) for override in overrides if not str(override).startswith("hydra.run.dir=")]
    _check_same(run, list(given) or own, config_name)
    flags = [word for word in words if word not in given]
    quoted = str(run).replace("\\", "\\\\").replace("'", "\\'")
    return [*flags, *own, f"hydra.run.dir='{quoted}'"]


def _check(run: Path) -> None:
    if not (run / "status.json").is_file() or not (run / ".hydra" / "overrides.yaml").is_file():
        raise ConfigError(
            f"{run} is not the folder of a run",
            "a run has a status.json and .hydra/overrides.yaml; one that was killed before it wrote them did nothing",
            "name a folder below outputs/runs, or start the run again without resume=",
        )
    status = read_json(run / "status.json")
    if not isinstance(status, dict) or "status" not in status:
        raise ConfigError(
            f"{run}/status.json does not say how the run stands", "it was edited or cut", "start it again"
        )
    if status.get("started_in", str(Path.cwd())) != str(Path.cwd()):
        raise ConfigError(
            f"{run} was started in {status['started_in']}, this is {Path.cwd()}",
            "relative paths such as outputs/ would mean other folders here",
            f"cd {status['started_in']} first",
        )
    if status["status"] == "done":
        raise ConfigError(
            f"{run} is finished",
            "there is nothing left to do in it but its page, if it was killed before that",
            f"recdistill report {run} makes the page; another run is started without resume=",
        )


def _check_same(run: Path, given: list[str], config_name: str) -> None:
    from recdistill.report.runs import flatten  # brings numpy and pyarrow, which a wrong word should not wait for

    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = compose(config_name, given)
    mine = flatten({key: value for key, value in _plain(config).items() if key != "hydra"})
    stored = flatten(_plain(OmegaConf.load(run / ".hydra" / "config.yaml")))
    different = sorted(key for key in mine.keys() | stored.keys() if mine.get(key) != stored.get(key))
    if different:
        key = different[0]
        raise ConfigError(
            f"{run} was started with {key}={stored.get(key)}, this command says {key}={mine.get(key)}",
            "a run continues with the config it began with, or its numbers would mean nothing",
            f"repeat the command as it was (with its --config-dir, if it had one) and add resume={run}",
        )


def _plain(config: Any) -> dict[str, Any]:
    plain = OmegaConf.to_container(config, resolve=False)
    return {str(key): value for key, value in plain.items()} if isinstance(plain, dict) else {}
