"""The straight line: dataset, teachers, soft labels, student, evaluation, record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recdistill import stages
from recdistill.build import Plan
from recdistill.dataset.loading import load
from recdistill.report.progress import say
from recdistill.runtime import start
from recdistill.store import ensure_folder


def run(plan: Plan, folder: Path, *, bars: bool = True) -> dict[str, Any]:
    """Run a plan and write its record into `folder`.

    Args:
        plan: checked components.
        folder: of the run.
        bars: whether live progress bars may be drawn.

    Returns:
        What is in results.json.
    """
    config = plan.config
    runtime = start(config.device, config.threads, config.seed)
    say(runtime.line())
    cache = ensure_folder(Path(config.paths.outputs) / "cache")
    clock = stages.Clock()

    with clock("dataset"):
        dataset = load(plan.source, data=Path(config.paths.data), cache=cache, groups=config.evaluation.groups, say=say)
        say(stages.dataset_line(dataset))
        evaluator = stages.make_evaluator(plan, dataset, runtime)
    stage = stages.Stage(dataset, evaluator, runtime, cache, folder, bars)
    with clock("teacher"):
        teachers = {name: stages.alone(stage, recipe, name) for name, recipe in plan.teachers.items()}
    with clock("soft_labels"):
        knowledge = stages.knowledge(stage, plan, teachers)
    with clock("scratch"):
        scratch = stages.alone(stage, plan.scratch, "scratch") if config.scratch.enabled else None
    with clock("student"):
        student, history = stages.distilled(stage, plan, knowledge)
    with clock("evaluation"):
        models = stages.evaluated(stage, plan, teachers, scratch, student, history)
    return stages.recorded(stage, plan, models, teachers, knowledge, student, history, clock)
