"""The straight line: dataset, teachers, soft labels, student, evaluation, record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recdistill import stages
from recdistill.build import Plan
from recdistill.dataset.loading import load
from recdistill.report.progress import say
from recdistill.runtime import start
from recdistill.store import ensure_folder, read_json


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
    stages.note_uses(stage, plan)
    with clock("teacher"):
        teachers = {name: stages.alone(stage, recipe, name) for name, recipe in plan.teachers.items()}
    with clock("soft_labels"):
        knowledge = stages.knowledge(stage, plan, teachers)
        stages.note_uses(stage, plan, knowledge)
    with clock("scratch"):
        scratch = stages.alone(stage, plan.scratch, "scratch") if config.scratch.enabled else None
    with clock("student"):
        student, history = stages.distilled(stage, plan, knowledge)
    with clock("evaluation"):
        models = stages.evaluated(stage, plan, teachers, scratch, student, history)
    return stages.recorded(stage, plan, models, teachers, knowledge, student, history, clock)


def finished_before(plan: Plan, folder: Path) -> tuple[Path, float] | None:
    """A finished run of the same config under the outputs folder, and its validation value.

    Runs are told by the config's fingerprint; places, device and plug-ins do not count.
    """
    config = plan.config
    outputs, wanted = Path(config.paths.outputs), stages.config_fingerprint(plan)
    metric = f"valid/ndcg@{max(config.evaluation.cutoffs)}"
    for status in sorted(
        path for shelf in ("runs", "sweeps", "studies") for path in outputs.glob(f"{shelf}/**/status.json")
    ):
        other = status.parent
        if other.resolve() == folder.resolve() or not (other / "results.json").is_file():
            continue
        if read_json(status)["status"] == "done":
            results = read_json(other / "results.json")
            if results["fingerprints"]["config"] == wanted:
                return other, float(results["models"]["student"]["metrics"][metric])
    return None
