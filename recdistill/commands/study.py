"""`recdistill study`: tune every method with the same budget, then run the chosen settings over seeds."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml
from filelock import FileLock, Timeout
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

from recdistill.commands.overrides import check, parse
from recdistill.commands.parser import Parser
from recdistill.commands.study_file import SCRATCH, Study, read_study, settings_of_trials
from recdistill.errors import CacheError, ConfigError, RecDistillError
from recdistill.report.compare import compare
from recdistill.report.comparison import Comparison
from recdistill.report.comparison_formats import DEFAULT_METRICS, markdown, print_comparison
from recdistill.report.runs import Run, find_runs, ledger_rows, with_metrics
from recdistill.report.significance import against
from recdistill.report.tables import print_table
from recdistill.store import atomic, cannot_write, ensure_folder, locked, read_json


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
    parser = Parser("recdistill study", description="Tune with equal budgets, then run over seeds.")
    parser.add_argument("file", type=Path, help="a study's YAML, or the name of one in conf/study")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="the outputs folder (default: outputs)")
    parser.add_argument("--quick", action="store_true", help="the small form of the study, as its YAML's quick says")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (default: 1)")
    parser.add_argument(
        "--commands",
        action="store_true",
        help="print the commands and stop; of the final runs once all trials are done",
    )
    arguments = parser.parse_args(list(words))
    if arguments.jobs < 1:
        raise ConfigError(f"--jobs {arguments.jobs}", "at least one run goes on at a time", "write --jobs 1 or more")
    plan = read_study(arguments.file, arguments.quick)
    outputs, folder = arguments.outputs, arguments.outputs / "studies" / plan.name
    trials = list(tuning_jobs(plan, folder, outputs))
    if arguments.commands:
        ledger = Ledger(folder / "ledger.jsonl")
        jobs = list(trials)
        if all(map(ledger.has, trials)):
            for dataset in plan.datasets:
                jobs += final_jobs(plan, dataset, folder, outputs, choose(trials, ledger))
        print("\n".join(job.command() for job in jobs))
        return 0
    ensure_folder(folder)
    with locked(folder / "study", f"the study {plan.name}", _say):
        ledger = Ledger(folder / "ledger.jsonl")
        ahead = list(dict.fromkeys(job.dataset for job in trials if not ledger.has(job)))
        if ahead:
            _say(f"checking every word of {len(plan.methods)} methods on {', '.join(ahead)}")
            _check(plan, ahead, outputs)
        chosen: dict[tuple[str, str], list[str]] = {}
        finals: list[Job] = []
        for dataset in plan.datasets:  # one after the other, so that a long study has something to show early
            tried = [job for job in trials if job.dataset == dataset]
            _run_all(tried, ledger, arguments.jobs)
            chosen |= choose(tried, ledger)
            finals += final_jobs(plan, dataset, folder, outputs, chosen)
            _run_all([job for job in finals if job.dataset == dataset], ledger, arguments.jobs)
            made = _table(folder, finals)
    return _report(plan, folder, made, chosen)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Ledger:
    """One JSON line per finished job: what it was, what it gave, how long it took. Appended, never rewritten."""

    def __init__(self, path: Path) -> None:
        """Read what is there; a last line that a kill cut short is ignored."""
        self.path = path
        self.rows = ledger_rows(path)

    def has(self, job: Job) -> bool:
        """Whether a job is done."""
        return any(row["command"] == job.command() for row in self.rows)

    def value(self, job: Job) -> float:
        """The validation value of a job; minus infinity where it has none."""
        found = [row["value"] for row in self.rows if row["command"] == job.command()]
        return float(found[-1]) if found and isinstance(found[-1], int | float) else float("-inf")

    def made_by(self, dataset: str) -> dict[str, str] | None:
        """What made the rows of a data set that are there: the data's fingerprint and the version."""
        return next((row["made_by"] for row in self.rows if row["dataset"] == dataset and "made_by" in row), None)

    def add(self, job: Job, value: float | None, seconds: float, made_by: Mapping[str, str]) -> None:
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
            "made_by": dict(made_by),
        }
        self.rows.append(row)
        try:
            torn = self.path.is_file() and self.path.read_bytes()[-1:] not in (b"", b"\n")  # a kill cut it short
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(("\n" if torn else "") + json.dumps(row) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise cannot_write(self.path, error) from error


def tuning_jobs(plan: Study, folder: Path, outputs: Path) -> Iterator[Job]:
    """Every trial: one seed, no test, no reference rows."""
    for dataset, own in plan.datasets.items():
        for method in plan.methods:
            for number, settings in enumerate(settings_of_trials(method, plan.trials)):
                where = folder / "trials" / dataset / method.name / str(number)
                common = [f"dataset={dataset}", *plan.overrides, *own, *method.overrides, *settings]
                words = [*common, f"seed={plan.seeds[0]}", "evaluation.test=false", "scratch.enabled=false"]
                yield _job("trial", dataset, method.name, number, settings, words, where, outputs)


def _check(plan: Study, datasets: Sequence[str], outputs: Path) -> None:
    """Check every word that a trial may have, as for a sweep: a slip in the last method must not cost a night."""
    for dataset in datasets:
        for method in plan.methods:
            space = [f"{key}={','.join(choices)}" for key, choices in method.space.items()]
            words = [f"dataset={dataset}", *plan.overrides, *plan.datasets[dataset], *method.overrides, *space]
            arguments, _ = parse(["-m", *words, _word("paths.outputs", outputs)])
            try:
                check(arguments, full=True)
            except ConfigError as error:
                raise ConfigError(f"method {method.name} on {dataset}: {error.what}", error.why, error.fix) from error


def final_jobs(
    plan: Study, dataset: str, folder: Path, outputs: Path, chosen: Mapping[tuple[str, str], list[str]]
) -> Iterator[Job]:
    """The chosen settings of every method on a data set over all seeds, with the tuned scratch as the reference.

    A method whose student is another one, such as one with another base loss, has no reference: scratch was not tuned
    for it.
    """
    scratch, own = next(method for method in plan.methods if method.name == SCRATCH), plan.datasets[dataset]
    tuned = [*plan.overrides, *own, *scratch.overrides, *chosen[dataset, SCRATCH]]
    for method in plan.methods:
        settings = chosen[dataset, method.name]
        same = _student([*plan.overrides, *own, *method.overrides, *settings]) == _student(tuned)
        reference = _reference(tuned) if same else ["scratch.enabled=false"]
        for seed in plan.seeds:
            where = folder / "final" / dataset / method.name / f"seed-{seed}"
            words = [f"dataset={dataset}", *plan.overrides, *own, *method.overrides, *settings, *reference]
            yield _job("final", dataset, method.name, seed, settings, [*words, f"seed={seed}"], where, outputs)


def _student(words: Sequence[str]) -> list[str]:
    """The words that make the student."""
    return [word for word in words if re.match(r"[+~]*(student|model@student)([.=@]|$)", word)]


def _reference(words: Sequence[str]) -> list[str]:
    """What makes the reference's trainer that of the scratch method: its words in its order, the last one wins."""
    own = [re.sub(r"^(\+*)trainer(?=[.=])", r"\1scratch.trainer", word) for word in words]
    return [
        word.replace("scratch.trainer=", "trainer@scratch.trainer=", 1) if word.startswith("scratch.trainer=") else word
        for word, before in zip(own, words, strict=True)
        if word != before
    ]


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
    places = [_word("paths.outputs", outputs), _word("hydra.run.dir", where)]
    return Job(phase, dataset, method, number, settings, [*words, *places], where)


def _word(key: str, path: Path) -> str:
    """An override whose value is a path, quoted where Hydra would read something else."""
    try:
        plain = OverridesParser.create().parse_override(f"{key}={path}").value() == str(path)
    except HydraException:
        plain = False
    return f"{key}={path if plain else QuotedString(str(path), Quote.single).with_quotes()}"


def choose(trials: Sequence[Job], ledger: Ledger) -> dict[tuple[str, str], list[str]]:
    """The settings with the best validation value, per data set and method; of equals the first."""
    best: dict[tuple[str, str], Job] = {}
    for job in trials:
        rival = best.setdefault((job.dataset, job.method), job)
        if ledger.value(job) > ledger.value(rival):
            best[job.dataset, job.method] = job
    return {place: job.settings for place, job in best.items()}


def _run_all(jobs: list[Job], ledger: Ledger, at_a_time: int) -> None:
    # A final run's folder is read again for the table; other chosen settings may have been run in it since.
    todo = [job for job in jobs if not ledger.has(job) or (job.phase == "final" and not _is_finished(job))]
    if not todo:
        return
    _say(f"{jobs[0].phase}: {len(todo)} of {len(jobs)} runs to do")
    with ThreadPoolExecutor(at_a_time) as pool:
        failures = [text for text in pool.map(lambda job: _run(job, ledger), todo) if text is not None]
    if failures:
        raise RecDistillError(
            f"{len(failures)} of {len(todo)} runs failed; the first: {failures[0]}",
            "a study compares methods on complete sets of runs",
            "mend the cause and repeat the same command: what is done is not run again",
        )


def _run(job: Job, ledger: Ledger) -> str | None:
    """Run one job in a process of its own, unless its folder has it; returns what it said if it failed."""
    started = time.perf_counter()
    _say(job.command())
    _wait_for(job.folder)
    if not _is_finished(job):
        done = run_child([sys.executable, "-m", "recdistill", "train", *job.words])
        if done.returncode != 0:
            return f"{job.command()}\n{done.stderr.strip()[-2000:]}"
    results = read_json(job.folder / "results.json")
    made_by = {"dataset": results["dataset"]["fingerprint"], "recdistill": results["versions"]["recdistill"]}
    before = ledger.made_by(job.dataset) or made_by
    if before != made_by:
        changed = "the data" if before["dataset"] != made_by["dataset"] else "the version of recdistill"
        return f"{changed} changed since the study began on {job.dataset}; begin it anew with other --outputs"
    metrics = results["models"]["student"]["metrics"]
    name = f"valid/ndcg@{largest_cutoff(metrics)}"
    ledger.add(job, metrics[name], time.perf_counter() - started, made_by)
    shown = "none" if metrics[name] is None else f"{metrics[name]:.4f}"
    _say(f"  {name}={shown} in {time.perf_counter() - started:.0f} s")
    return None


def run_child(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; on Linux it dies with this process, whatever ends that."""
    return subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, preexec_fn=_dying_with_parent()
    )


def _dying_with_parent() -> Callable[[], None] | None:
    """What a child does before its program starts; None where the system has no such thing."""
    if sys.platform != "linux":
        return None
    parent, prctl = os.getpid(), ctypes.CDLL(None).prctl  # looked up here: a forked child should do little

    def tie() -> None:
        prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return tie


def _wait_for(folder: Path) -> None:
    """Wait until nobody holds a run's folder: a study that was killed may have left a run at work."""
    if not folder.is_dir():
        return
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _say(f"waiting for the process that is at work in {folder}")
        lock.acquire()
    lock.release()


def _is_finished(job: Job) -> bool:
    """Whether a job's folder holds a finished run of its very words."""
    status, given = job.folder / "status.json", job.folder / ".hydra" / "overrides.yaml"
    try:
        state, words = read_json(status), yaml.safe_load(given.read_text(encoding="utf-8"))
        later = status.stat().st_mtime_ns >= given.stat().st_mtime_ns  # else a later run began and did not get far
    except (CacheError, OSError, yaml.YAMLError, UnicodeDecodeError):
        return False
    done = isinstance(state, dict) and state.get("status") == "done" and (job.folder / "results.json").is_file()
    return done and later and words == [word for word in job.words if not word.startswith("hydra.")]


def largest_cutoff(metrics: Iterable[str]) -> int:
    """The cut-off whose overall valid/ndcg models and settings are selected by; 20 where there is none."""
    found = (re.fullmatch(r"valid/ndcg@(\d+)", metric) for metric in metrics)
    return max((int(match[1]) for match in found if match), default=20)


def _metrics(runs: Sequence[Run]) -> list[str]:
    """The metrics of `compare`; at the largest cut-off where the study has others."""
    has = [metric for run in runs for metric in run.results["models"]["student"]["metrics"]]
    if set(DEFAULT_METRICS) <= set(has):
        return DEFAULT_METRICS
    k = largest_cutoff(has)
    return [f"{metric.rpartition('@')[0]}@{k}" for metric in DEFAULT_METRICS]


def _table(folder: Path, finals: Sequence[Job]) -> list[Comparison]:
    """Compare the final runs of the data sets that are done, and write the table beside the ledger."""
    runs, unfinished = find_runs([job.folder for job in finals])
    metrics = _metrics(runs)
    runs, without = with_metrics(runs, metrics)
    made = [_against_scratch(comparison) for comparison in compare(runs, metrics)]
    with atomic(folder / "table.md") as temporary:
        temporary.write_text(markdown(made, [*unfinished, *without]), encoding="utf-8")
    return made


def _report(plan: Study, folder: Path, made: Sequence[Comparison], chosen: Mapping[tuple[str, str], list[str]]) -> int:
    for comparison in made:
        print_comparison(comparison)
    print_table(
        f"chosen of {plan.trials} trials",
        ["data", "method", "settings"],
        [[*k, " ".join(v)] for k, v in chosen.items()],
    )
    print(folder / "table.md")
    return 0


def _against_scratch(comparison: Comparison) -> Comparison:
    """Tested against the tuned scratch that every final run carries, where the study has left it on."""
    if sum(row.role == "scratch" for row in comparison.rows) != 1:
        return comparison
    return against([comparison], ["scratch"])[0]
