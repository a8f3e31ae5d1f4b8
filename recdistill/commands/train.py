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

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from recdistill.commands.conf import conf_folder
from recdistill.commands.overrides import check as check_words
from recdistill.commands.overrides import first_line, parse
from recdistill.commands.resume import WORD, run_to_resume, words_of
from recdistill.errors import ConfigError, RecDistillError
from recdistill.store import ensure_folder, exclusive, key_of

log = logging.getLogger("recdistill")


def slug(text: str) -> str:
    """A folder name of at most 80 characters out of a sweep's overrides, told apart by a hash when it was cut."""
    plain = "".join(letter if letter.isalnum() or letter in "=.,-_" else "-" for letter in text)
    return plain if plain == text and len(plain) <= 80 else f"{plain[:80]}-{key_of(text)[:8]}"


def register_resolvers() -> None:
    """What the config's folder names are made of; also needed in a launcher's worker processes."""
    OmegaConf.register_new_resolver("recdistill.unique", lambda: uuid.uuid4().hex[:6], use_cache=True, replace=True)
    OmegaConf.register_new_resolver("recdistill.slug", slug, replace=True)


register_resolvers()
PARENT = "RECDISTILL_PARENT_PROCESS"  # how a launcher's worker knows that it is one
_failed: list[tuple[Path, RecDistillError]] = []


def train(words: Sequence[str]) -> int:
    """Run an experiment or a sweep.

    Args:
        words: Hydra's overrides and flags.

    Returns:
        The exit code.

    Raises:
        RecDistillError: an override names nothing that exists, a component's settings are off, or the run failed.
    """
    run = run_to_resume(words)
    arguments, words = parse([word for word in words if not word.startswith(WORD)])
    if run is not None:
        if arguments.multirun:
            raise ConfigError("resume= and -m together", "one run is continued at a time", "leave one of them out")
        config_name = arguments.config_name or "config"
        arguments, words = parse(words_of(run, words, arguments.overrides, config_name))
    if arguments.shell_completion:
        from recdistill.commands.completion import completion

        return completion(arguments.overrides)
    if not (arguments.help or arguments.hydra_help):
        check_words(arguments, full=not (arguments.cfg or arguments.info))
    _failed.clear()
    os.environ[PARENT] = str(os.getpid())
    with _as_hydra_expects(words):
        try:
            hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")(job)()
        except SystemExit as done:  # after --help
            if done.code:
                raise
        except RecDistillError as error:
            if not arguments.multirun:
                raise
            print(
                f"a job of the sweep failed: {error.what}", file=sys.stderr
            )  # its three lines were printed by the job
            return 1
        except HydraException as error:
            raise ConfigError(first_line(error), "Hydra refused it", "recdistill train --help") from error
    if _failed and not arguments.multirun:
        raise _failed[0][1]
    for folder, _ in _failed:
        print(f"failed: {folder}", file=sys.stderr)
    return 1 if _failed else 0


@contextmanager
def _as_hydra_expects(words: Sequence[str]) -> Iterator[None]:
    """Hydra reads sys.argv; HYDRA_FULL_ERROR lets exceptions reach our own handler instead of Hydra's print."""
    argv, before = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv, os.environ["HYDRA_FULL_ERROR"] = ["recdistill train", *words], "1"
    try:
        yield
    finally:
        sys.argv = argv
        del os.environ["HYDRA_FULL_ERROR"]
        if before is not None:
            os.environ["HYDRA_FULL_ERROR"] = before


def job(config: DictConfig) -> float:
    """One run; its folder is Hydra's. Returns the student's valid/ndcg at the largest cut-off, for sweepers."""
    hydra_config = HydraConfig.get()
    folder = ensure_folder(Path(hydra_config.runtime.output_dir))
    single = hydra_config.mode == RunMode.RUN
    try:
        with exclusive(folder):
            return _run_in(folder, config, bars=single)
    except RecDistillError as error:
        if not single:
            log.error(str(error))
            if not _counted_here(str(OmegaConf.select(hydra_config.sweeper, "_target_"))):
                raise  # the launcher or sweeper must learn of it
        _failed.append((_shown(folder), error))
        return math.nan


def _run_in(folder: Path, config: DictConfig, *, bars: bool) -> float:
    """Run in a folder that is held, and keep its status."""
    from recdistill.build import check
    from recdistill.pipeline import finished_before, run
    from recdistill.report.record import write_status
    from recdistill.report.tables import print_table, run_rows

    try:
        plan = check(config)
        if config.skip_finished and (done := finished_before(plan, folder)) is not None:
            write_status(folder, "skipped", same_as=str(done[0]))
            print(f"{_shown(folder)} was done before in {done[0]}", flush=True)
            return done[1]
        write_status(folder, "running")
        results = run(plan, _shown(folder), bars=bars)
    except BaseException as error:
        text = str(error) if isinstance(error, RecDistillError) else f"{type(error).__name__}: {error}"
        write_status(folder, "failed", error=text)
        raise
    write_status(folder, "done")
    k, split = max(config.evaluation.cutoffs), "test" if config.evaluation.test else "valid"
    print_table(f"{results['dataset']['name']}, {split}", *run_rows(results, k))
    if config.report and config.evaluation.test:
        from recdistill.report.run_page import write_report  # matplotlib is loaded only where a page is made

        write_report(folder)
    value = results["models"]["student"]["metrics"][f"valid/ndcg@{k}"]
    print(f"{_shown(folder)} valid/ndcg@{k}={value:.4f}", flush=True)
    return float(value)


def _counted_here(sweeper: str) -> bool:
    """Whether `train` itself sees the failures of a sweep's jobs: they run in its process, and no sweeper learns."""
    return os.environ.get(PARENT) == str(os.getpid()) and sweeper.endswith(".BasicSweeper")


def _shown(folder: Path) -> Path:
    """The folder as a user would type it."""
    try:
        return folder.relative_to(Path.cwd())
    except ValueError:
        return folder
