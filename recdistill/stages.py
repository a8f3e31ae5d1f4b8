"""The stages of a run: each takes values and returns a value."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recdistill.build import Plan
from recdistill.dataset.popularity import popularity_groups
from recdistill.evaluation.definitions import DEFINITIONS
from recdistill.evaluation.distillation import distillation
from recdistill.evaluation.evaluator import Evaluator
from recdistill.evaluation.measures import Ranked
from recdistill.models.base import Recommender
from recdistill.models.mostpop import MostPop
from recdistill.ranking import HeldOutRanks
from recdistill.report.progress import say, training_progress
from recdistill.report.record import (
    Catalogue,
    Lists,
    ModelRecord,
    Ranks,
    environment,
    write_curves,
    write_results,
    write_tables,
)
from recdistill.runtime import Runtime, device_record, generator, memory_line, peak_memory
from recdistill.soft_labels.cache import FORMAT_VERSION, soft_labels
from recdistill.soft_labels.extract import Layout
from recdistill.soft_labels.guard import refuse_other_split
from recdistill.store import file_hash, key_of, plugin_code, read_json, write_csv, write_json
from recdistill.training.alone import Recipe, TrainedModel, describe, prepared, trained_alone
from recdistill.training.checkpoint import save_weights
from recdistill.training.trainer import Fit, fit, resident_bytes
from recdistill.types import Dataset, Interactions, Knowledge, SoftLabels, TopK, Trajectory


@dataclass(frozen=True)
class Stage:
    """What every stage works with."""

    dataset: Dataset
    evaluator: Evaluator
    runtime: Runtime
    cache: Path
    folder: Path
    bars: bool


class Clock:
    """Wall seconds and CPU seconds (all threads) per stage."""

    def __init__(self) -> None:
        """Start empty."""
        self.seconds: dict[str, float] = {}
        self.cpu_seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Measure one stage."""
        started, used = time.perf_counter(), time.process_time()
        yield
        self.seconds[stage] = round(time.perf_counter() - started, 3)
        self.cpu_seconds[stage] = round(time.process_time() - used, 3)


def dataset_line(dataset: Dataset) -> str:
    """The data set in one line."""
    train = dataset.train
    return (
        f"{dataset.name}: {train.n_users:,} users, {train.n_items:,} items, "
        f"{len(train):,} train, {len(dataset.valid):,} valid, {len(dataset.test):,} test"
    )


def make_evaluator(plan: Plan, dataset: Dataset, runtime: Runtime) -> Evaluator:
    """The evaluator with the config's metrics."""
    settings = plan.config.evaluation
    return Evaluator(
        dataset,
        device=runtime.device,
        cutoffs=settings.cutoffs,
        metrics=settings.metrics,
        stored=settings.stored,
    )


def note_uses(stage: Stage, plan: Plan) -> None:
    """`uses.json`: which entries of the cache this run stands on, so that nobody prunes them.

    A run that lies elsewhere (hydra.run.dir) is found by a note in the cache.
    """
    fingerprint = stage.dataset.fingerprint
    recipes = [*plan.teachers.values(), plan.scratch]
    used = [stage.dataset.folder.name, *(recipe.key(fingerprint) for recipe in recipes)]
    used += [recipe.stored.name for recipe in recipes if recipe.stored is not None]
    write_json(stage.folder / "uses.json", sorted(set(used)))
    folder, outputs = stage.folder.resolve(), stage.cache.parent.resolve()
    if not folder.is_relative_to(outputs):
        write_json(stage.cache / "elsewhere" / f"{key_of(str(folder))}.json", str(folder))


def _note_use(stage: Stage, key: str) -> None:
    """One more, before it is opened or made."""
    uses = stage.folder / "uses.json"
    write_json(uses, sorted({*read_json(uses), key}))


def teacher_key(recipe: Recipe, fingerprint: str) -> str:
    """The key of a teacher on a data set; of a stored one the key that it was stored with."""
    return recipe.key(fingerprint) if recipe.stored is None else str(read_json(recipe.stored / "model.json")["key"])


def alone(stage: Stage, recipe: Recipe, name: str) -> TrainedModel:
    """A teacher or the scratch student, from the cache or trained now."""
    with training_progress(name, stage.bars) as on_epoch:
        return trained_alone(
            recipe,
            stage.cache / ("teachers" if recipe.role == "teacher" else "scratch"),
            name=name,
            fingerprint=stage.dataset.fingerprint,
            interactions=stage.dataset.training_view(),
            validate=stage.evaluator.validate,
            device=stage.runtime.device,
            say=say,
            on_epoch=on_epoch,
        )


def knowledge(stage: Stage, plan: Plan, teachers: dict[str, TrainedModel]) -> Knowledge:
    """The soft labels of every checkpoint of every teacher, and how to get a live copy of each."""
    dataset, request = stage.dataset, plan.distiller.group_lists
    layout = Layout(dataset.train.n_items, plan.config.soft_labels.depth)
    if request is not None:
        group = popularity_groups(dataset.popularity, request.groups, request.partition)
        group = torch.where(dataset.popularity > 0, group, -1)  # items without interactions are in no stratum
        layout = Layout(layout.n_items, layout.depth, group, request.depth, request)
    user_depth = plan.distiller.user_depth
    trajectories = {}
    for name, teacher in teachers.items():
        points: list[tuple[int, Path | None]] = [*teacher.snapshots]
        labels = [
            _labels(stage, name, teacher, *one, layout, user_depth) for one in points or [(teacher.best_epoch, None)]
        ]
        trajectories[name] = Trajectory(name, tuple(labels))
    live = {name: (lambda teacher=teacher: teacher.load(None).train()) for name, teacher in teachers.items()}
    return Knowledge(trajectories, live)


def _labels(
    stage: Stage, name: str, teacher: TrainedModel, epoch: int, weights: Path | None, layout: Layout, user_depth: int
) -> SoftLabels:
    """One checkpoint's soft labels, from the cache or extracted now; with ranked users per item where asked for."""
    interactions = stage.dataset.training_view()
    asked = layout.request  # not how many groups there are: greedy gives as many for other numbers, and not the same
    groups = None if asked is None else [asked.groups, asked.depth, asked.partition]
    made_by = file_hash(weights or teacher.weights)
    parts = {"weights": made_by, "teacher": teacher.key, "dataset": stage.dataset.fingerprint}

    def stored(layout: Layout, interactions: Interactions, what: dict[str, Any], transposed: bool) -> SoftLabels:
        key = key_of({"format_version": FORMAT_VERSION, "masked": "train", "ties": "item index"} | parts | what)
        _note_use(stage, key)
        labels = soft_labels(
            stage.cache / "soft_labels" / key,
            teacher=name,
            epoch=epoch,
            key=key,
            layout=layout,
            interactions=interactions,
            device=stage.runtime.device,
            model=lambda: teacher.load(weights),
            about={"teacher": teacher.key, "name": name, "epoch": epoch, **what},
            say=say,
            transposed=transposed,
        )
        return refuse_other_split(labels, interactions)

    labels = stored(layout, interactions, {"depth": layout.depth, "groups": groups}, False)
    if user_depth == 0:
        return labels
    users, what = Layout(interactions.n_users, user_depth), {"depth": user_depth, "groups": None, "transposed": True}
    return replace(labels, transposed=stored(users, interactions.transposed(), what, True))


def distilled(stage: Stage, plan: Plan, knowledge: Knowledge) -> tuple[Recommender, Fit]:
    """Train the student under the distiller."""
    interactions, distiller, device = stage.dataset.training_view(), plan.distiller, stage.runtime.device
    student = prepared(plan.student, interactions, device)
    distiller.prepare(knowledge, interactions, student, generator(stage.runtime.seed, "distiller"))
    distiller.to(device)
    say(memory_line(resident_bytes(student, distiller, interactions, plan.config.trainer.negatives), device))
    with training_progress("student", stage.bars) as on_epoch:
        done = fit(
            student,
            distiller,
            interactions,
            plan.config.trainer,
            seed=stage.runtime.seed,
            device=device,
            validate=stage.evaluator.validate,
            on_epoch=on_epoch,
            checkpoint=_checkpoint(stage, plan, knowledge),
        )
    return student, done


def _checkpoint(stage: Stage, plan: Plan, knowledge: Knowledge) -> Path:
    """Where the student's training keeps its state: named by all that shapes it, so nothing else is continued."""
    labels = [one.key for trajectory in knowledge.teachers.values() for one in trajectory.checkpoints]
    key = key_of([config_fingerprint(plan), stage.dataset.fingerprint, labels])
    return stage.folder / f"checkpoint.{key}.safetensors"


@dataclass(frozen=True)
class Evaluated:
    """What is recorded of every model, and what joins the run's `distillation` section."""

    models: dict[str, ModelRecord]
    distillation: dict[str, Any]


def evaluated(
    stage: Stage,
    plan: Plan,
    teachers: dict[str, TrainedModel],
    scratch: TrainedModel | None,
    student: Recommender,
    history: Fit,
) -> Evaluated:
    """Every model on valid and test; one stored model at a time is in memory."""
    kept = {"teacher" if len(teachers) == 1 else f"teacher.{name}": model for name, model in teachers.items()}
    if scratch is not None:
        kept["scratch"] = scratch
    splits = ("valid", "test") if plan.config.evaluation.test else ("valid",)
    records, rankings = {}, {}

    def keep(name: str, model: Recommender, about: dict[str, Any]) -> None:
        records[name], rankings[name] = _record(stage, model, splits, about)

    for name, trained in kept.items():
        where = {"key": trained.key, "folder": str(trained.folder), "seconds": trained.seconds}
        epochs = {"epochs": trained.epochs, "best_epoch": trained.best_epoch}
        keep(name, trained.load(None), epochs | where)
    for name, model in plan.distiller.trained_models(student).items():
        epochs = {"epochs": history.epochs, "best_epoch": history.best_epoch}
        keep(name if name == "student" else f"trained.{name}", model, epochs)
    mostpop = MostPop()
    mostpop.prepare(stage.dataset.training_view(), generator(0, "mostpop"))
    keep("mostpop", mostpop.to(stage.runtime.device), {"epochs": 0})
    if splits[-1] != "test":
        return Evaluated(records, {})
    per_user = {name: record.per_user["test"] for name, record in records.items()}
    evaluator = stage.evaluator
    more, bought = distillation(rankings, per_user, evaluator.items, evaluator.users, evaluator.cutoffs)
    for name, values in more.items():
        metrics = {**records[name].metrics, **{f"test/{metric}": value for metric, value in values.items()}}
        records[name] = replace(records[name], metrics=metrics)
    return Evaluated(records, bought)


def _record(
    stage: Stage, model: Recommender, splits: Sequence[str], about: dict[str, Any]
) -> tuple[ModelRecord, Ranked]:
    """A model's record, and its lists and ranks on the last split."""
    parameters = list(model.parameters())
    found = {split: stage.evaluator.evaluate(model, split) for split in splits}
    last = found[splits[-1]]
    record = ModelRecord(
        about={
            "kind": type(model).__name__.lower(),
            "dim": getattr(model, "dim", None),
            "parameters": sum(p.numel() for p in parameters),
            "bytes": sum(p.numel() * p.element_size() for p in parameters),
            "users_without_relevant": last.result.users_without_relevant,
            "users_per_second": len(last.result.user) / last.seconds,
            "latency": stage.evaluator.latency(model),
            **about,
        },
        metrics={
            f"{split}/{name}": value for split, one in found.items() for name, value in one.result.overall.items()
        },
        users={split: one.result.user for split, one in found.items()},
        per_user={split: one.result.per_user for split, one in found.items()},
        lists=None if last.ranks is None else Lists(*_arrays(last.lists)),
        ranks=None if last.ranks is None else Ranks(*_arrays(last.ranks)),
    )
    return record, last.ranked


def _arrays(record: TopK | HeldOutRanks) -> Iterator[np.ndarray]:
    """A record's fields as arrays, in order."""
    return (getattr(record, field.name).cpu().numpy() for field in fields(record))


def recorded(
    stage: Stage,
    plan: Plan,
    evaluated: Evaluated,
    teachers: dict[str, TrainedModel],
    knowledge: Knowledge,
    student: Recommender,
    history: Fit,
    clock: Clock,
) -> dict[str, Any]:
    """Write the files of the run folder; results.json comes last."""
    dataset, runtime, folder = stage.dataset, stage.runtime, stage.folder
    models = dict(evaluated.models)
    write_csv(folder / "history.csv", history.history)
    write_curves(folder, models)
    users, items = stage.evaluator.users.columns(), stage.evaluator.items.columns()
    write_tables(folder, models, Catalogue(dataset.user_ids, dataset.item_ids, users, items))
    key = _write_student(folder, plan, stage, student, history)
    models["student"] = replace(models["student"], about={**models["student"].about, "key": key})
    write_json(folder / "env.json", environment())
    config = asdict(plan.config)
    results = write_results(
        folder,
        models,
        {
            "run": {
                "dir": str(folder),
                "seed": runtime.seed,
                **device_record(runtime.device),
                "dtype": "float32",
                "threads": runtime.threads,
                "ranking_threads": runtime.ranking_threads,
                "matmul": None if runtime.matmul is None else asdict(runtime.matmul),
                "seconds": clock.seconds,
                "cpu_seconds": clock.cpu_seconds,
                "resumed_after_epoch": history.resumed,
                "peak_bytes": peak_memory(),
            },
            "dataset": {
                "name": dataset.name,
                "fingerprint": dataset.fingerprint,
                "folder": str(dataset.folder),
                "n_users": dataset.train.n_users,
                "n_items": dataset.train.n_items,
                "n_train": len(dataset.train),
                "n_valid": len(dataset.valid),
                "n_test": len(dataset.test),
                "item_groups": stage.evaluator.items.shares(
                    dataset.test.item.numpy() if plan.config.evaluation.test else None
                ),
            },
            "config": config,
            "distillation": _distiller(plan) | evaluated.distillation,
            "definitions": DEFINITIONS,
            "fingerprints": {
                "config": config_fingerprint(plan),
                "teacher": {name: model.key for name, model in teachers.items()},
                "soft_labels": {name: one.last.key for name, one in knowledge.teachers.items()},
            },
        },
    )
    _checkpoint(stage, plan, knowledge).unlink(missing_ok=True)
    return results


def config_fingerprint(plan: Plan) -> str:
    """A hash of everything in the config that shapes a result."""
    config = asdict(plan.config)
    shapes_none = ("paths", "device", "plugins", "skip_finished", "report")
    return key_of({key: value for key, value in config.items() if key not in shapes_none} | plugin_code(config))


def _write_student(folder: Path, plan: Plan, stage: Stage, student: Recommender, history: Fit) -> str:
    """Weights and what rebuilds the model; with final vectors where it has them, so that serving needs no graph.

    Returns:
        The key of the student: a hash of its weights.
    """
    weights = student.state_dict()
    with torch.no_grad():
        scorer = student.scorer()
    for name, table in {"user_vectors": scorer.user_vectors, "item_vectors": scorer.item_vectors}.items():
        if table is not None and all(table is not parameter for parameter in student.parameters()):
            weights[name] = table
    save_weights(folder / "student.safetensors", weights)
    key = file_hash(folder / "student.safetensors")[:16]
    about = describe(plan.student.node, stage.dataset.training_view(), stage.dataset.fingerprint)
    more = {"key": key, "epochs": history.epochs, "best_epoch": history.best_epoch}
    write_json(folder / "model.json", about | more | {"seconds": history.seconds})
    return key


def _distiller(plan: Plan) -> dict[str, Any]:
    """The method's name, and what it tells of itself."""
    return {"name": type(plan.distiller).__module__.rpartition(".")[2], **plan.distiller.to_record()}
