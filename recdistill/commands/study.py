"""`recdistill study`: tune every method with the same budget, then run the chosen settings over seeds."""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, RangeSweep

from recdistill.commands.compare import DEFAULT_METRICS, FORMATS
from recdistill.commands.conf import conf_folder
from recdistill.errors import ConfigError, RecDistillError
from recdistill.report.compare import as_rows, compare, find_runs
from recdistill.report.tables import print_table
from recdistill.store import atomic, ensure_folder, key_of, locked, read_json

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


@dataclass(frozen=True)
class Job:
    """One `recdistill train`, and where its run lands."""

    phase: str
    dataset: str
    method: str
    number: int
    settings: list[str]
    words: list[str]
    folder: Path

    def command(self) -> str:
        """As a user would type it."""
        return shlex.join(["recdistill", "train", *self.words])


def study(words: Sequence[str]) -> int:
    """Run a study from its YAML; what is in its ledger is not run again.

    Raises:
        ConfigError: the YAML is off.
        RecDistillError: a job failed; the others were run.
    """
    parser = argparse.ArgumentParser("recdistill study", description="Tune with equal budgets, then run over seeds.")
    parser.add_argument("file", type=Path, help="a study's YAML, or the name of one in conf/study")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="the outputs folder (default: outputs)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (default: 1)")
    parser.add_argument("--commands", action="store_true", help="print the commands of the trials and stop")
    arguments = parser.parse_args(list(words))
    plan = read_study(arguments.file)
    folder = arguments.outputs / "studies" / plan.name
    if arguments.commands:
        for job in tuning_jobs(plan, folder, arguments.outputs):
            print(job.command())
        return 0
    ensure_folder(folder)
    with locked(folder / "study", f"the study {plan.name}", lambda line: print(line, file=sys.stderr)):
        ledger = Ledger(folder / "ledger.jsonl")
        _run_all(list(tuning_jobs(plan, folder, arguments.outputs)), ledger, arguments.jobs)
        chosen = choose(plan, ledger)
        _run_all(list(final_jobs(plan, folder, arguments.outputs, chosen)), ledger, arguments.jobs)
    return _report(plan, folder, chosen)


class Ledger:
    """One JSON line per finished job: what it was, what it gave, how long it took. Appended, never rewritten."""

    def __init__(self, path: Path) -> None:
        """Read what is there; a last line that a kill cut short is ignored."""
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    self.rows.append(json.loads(line))
                except json.JSONDecodeError:
                    continue

    def value(self, job: Job) -> float | None:
        """The validation value of a job that is done, else None."""
        for row in self.rows:
            if row["command"] == job.command():
                return float(row["value"])
        return None

    def add(self, job: Job, value: float, seconds: float) -> None:
        """Write one row through to the disk."""
        row = {
            "phase": job.phase,
            "dataset": job.dataset,
            "method": job.method,
            "number": job.number,
            "settings": job.settings,
            "value": value,
            "seconds": round(seconds, 1),
            "run": str(job.folder),
            "command": job.command(),
        }
        self.rows.append(row)
        torn = self.path.is_file() and self.path.read_bytes()[-1:] not in (b"", b"\n")  # a kill cut the last line short
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(("\n" if torn else "") + json.dumps(row) + "\n")
            stream.flush()
            os.fsync(stream.fileno())


def read_study(file: Path) -> Study:
    """Parse and check a study's YAML.

    Raises:
        ConfigError: a key is missing or unknown, or a method has no search space.
    """
    path = file if file.suffix == ".yaml" else conf_folder() / "study" / f"{file}.yaml"
    if not path.is_file():
        raise ConfigError(f"there is no study {path}", "a study is a YAML file", "name a file, or one of conf/study")
    try:
        node = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        raise ConfigError(f"{path} cannot be read: {text}", "a study is a YAML file", "mend that place") from error
    wanted = {"datasets", "methods", "trials", "seeds"}
    known = wanted | {"overrides"}
    if not isinstance(node, dict) or wanted - node.keys() or node.keys() - known:
        given = sorted(node) if isinstance(node, dict) else node
        raise ConfigError(
            f"{path} has the keys {given}", f"a study has {sorted(wanted)}, and may have overrides", "mend its keys"
        )
    methods = [_method(path, name, about or {}) for name, about in node["methods"].items()]
    if SCRATCH not in node["methods"]:
        raise ConfigError(
            f"{path} has no method {SCRATCH}",
            "every gain is measured from the undistilled student, tuned with the same budget",
            f"add methods.{SCRATCH}: {{overrides: [distill=none]}}",
        )
    if not isinstance(node["trials"], int) or node["trials"] < 1 or not node["seeds"]:
        raise ConfigError(
            f"{path}: trials and seeds must not be empty", "each method needs a trial and a seed", "set them"
        )
    datasets = {name: list((about or {}).get("overrides", [])) for name, about in node["datasets"].items()}
    return Study(path.stem, datasets, methods, list(node.get("overrides", [])), node["trials"], list(node["seeds"]))


def _method(path: Path, name: str, about: Mapping[str, Any]) -> Method:
    """A method with its search space: its own `space`, else the file in conf/sweep that it names or is named after."""
    overrides = list(about.get("overrides", []))
    if "space" in about:
        params = dict(about["space"])
    else:
        file = conf_folder() / "sweep" / f"{about.get('sweep', name)}.yaml"
        if not file.is_file():
            raise ConfigError(
                f"{path}: method {name} has no search space",
                "every method is tuned over a space of its own",
                f"add methods.{name}.space, or methods.{name}.sweep with the name of a file in conf/sweep",
            )
        params = yaml.safe_load(file.read_text(encoding="utf-8"))["hydra"]["sweeper"]["params"]
    return Method(name, overrides, {key: _choices(key, str(value)) for key, value in params.items()})


def _choices(key: str, text: str) -> list[str]:
    override = OverridesParser.create().parse_override(f"{key}={text}")
    if override.is_sweep_override() and isinstance(override.value(), ChoiceSweep | RangeSweep):
        return [str(value) for value in override.sweep_string_iterator()]
    if override.is_sweep_override():
        raise ConfigError(
            f"{key}: {text} is not a list of choices",
            "a study draws from choice(...) or range(...)",
            "write choice(a,b,c)",
        )
    return [text]


def settings_of_trials(method: Method, trials: int) -> list[list[str]]:
    """The settings that are tried: distinct points of the space's grid, in a random order that never changes.

    Where the grid has fewer points than trials, all of it is tried.
    """
    grid: list[list[str]] = [[]]
    for key, choices in method.space.items():
        grid = [[*point, f"{key}={choice}"] for point in grid for choice in choices]
    random.Random(key_of([method.name, grid])).shuffle(grid)
    return grid[:trials]


def tuning_jobs(plan: Study, folder: Path, outputs: Path) -> Iterator[Job]:
    """Every trial: one seed, no test, no reference rows."""
    for dataset, own in plan.datasets.items():
        for method in plan.methods:
            for number, settings in enumerate(settings_of_trials(method, plan.trials)):
                where = folder / "trials" / dataset / method.name / str(number)
                common = [f"dataset={dataset}", *plan.overrides, *own, *method.overrides, *settings]
                words = [*common, f"seed={plan.seeds[0]}", "evaluation.test=false", "scratch.enabled=false"]
                yield _job("trial", dataset, method.name, number, settings, words, where, outputs)


def final_jobs(plan: Study, folder: Path, outputs: Path, chosen: Mapping[tuple[str, str], list[str]]) -> Iterator[Job]:
    """The chosen settings of every method over all seeds, with the tuned scratch as the reference."""
    for dataset, own in plan.datasets.items():
        reference = [f"scratch.{setting}" for setting in chosen[dataset, SCRATCH] if setting.startswith("trainer.")]
        scratch = next(method for method in plan.methods if method.name == SCRATCH)
        reference += [f"scratch.{text}" for text in scratch.overrides if text.startswith("trainer.")]
        for method in plan.methods:
            settings = chosen[dataset, method.name]
            for seed in plan.seeds:
                where = folder / "final" / dataset / method.name / f"seed-{seed}"
                words = [f"dataset={dataset}", *plan.overrides, *own, *method.overrides, *settings, *reference]
                yield _job("final", dataset, method.name, seed, settings, [*words, f"seed={seed}"], where, outputs)


def _job(
    phase: str,
    dataset: str,
    method: str,
    number: int,
    settings: list[str],
    words: list[str],
    where: Path,
    outputs: Path,
) -> Job:
    places = [f"paths.outputs={outputs}", f"hydra.run.dir={where}"]
    return Job(phase, dataset, method, number, settings, [*words, *places], where)


def choose(plan: Study, ledger: Ledger) -> dict[tuple[str, str], list[str]]:
    """The settings with the best validation value, per data set and method."""
    best: dict[tuple[str, str], tuple[float, list[str]]] = {}
    for row in ledger.rows:
        place = (row["dataset"], row["method"])
        if row["phase"] == "trial" and (place not in best or row["value"] > best[place][0]):
            best[place] = (row["value"], row["settings"])
    wanted = [(dataset, method.name) for dataset in plan.datasets for method in plan.methods]
    return {place: best[place][1] for place in wanted}


def _run_all(jobs: list[Job], ledger: Ledger, at_a_time: int) -> None:
    todo = [job for job in jobs if ledger.value(job) is None]
    if not todo:
        return
    print(f"{jobs[0].phase}: {len(todo)} of {len(jobs)} runs to do", file=sys.stderr, flush=True)
    with ThreadPoolExecutor(at_a_time) as pool:
        failures = [text for text in pool.map(lambda job: _run(job, ledger), todo) if text is not None]
    if failures:
        raise RecDistillError(
            f"{len(failures)} of {len(todo)} runs failed; the first: {failures[0]}",
            "a study compares methods on complete sets of runs",
            "mend the cause and repeat the same command: what is done is not run again",
        )


def _run(job: Job, ledger: Ledger) -> str | None:
    """Run one job in a process of its own; returns what it said if it failed."""
    started = time.perf_counter()
    print(job.command(), file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "recdistill", "train", *job.words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        return f"{job.command()}\n{done.stderr.strip()[-2000:]}"
    metrics = read_json(job.folder / "results.json")["models"]["student"]["metrics"]
    name = [metric for metric in metrics if metric.startswith("valid/ndcg@")][-1]
    ledger.add(job, metrics[name], time.perf_counter() - started)
    print(f"  {name}={metrics[name]:.4f} in {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    return None


def _report(plan: Study, folder: Path, chosen: Mapping[tuple[str, str], list[str]]) -> int:
    runs, unfinished = find_runs([folder / "final"])
    made = compare(runs, DEFAULT_METRICS)
    with atomic(folder / "table.md") as temporary:
        temporary.write_text(FORMATS["md"](made, unfinished), encoding="utf-8")
    for comparison in made:
        print_table(comparison.title, *as_rows(comparison))
    print_table(
        f"chosen of {plan.trials} trials",
        ["data", "method", "settings"],
        [[*k, " ".join(v)] for k, v in chosen.items()],
    )
    print(folder / "table.md")
    return 0
