"""The straight line: dataset, teachers, soft labels, student, evaluation, record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recdistill import __version__, stages
from recdistill.build import Plan
from recdistill.dataset.loading import load
from recdistill.report.progress import say
from recdistill.report.record import finished_runs
from recdistill.runtime import faster_ranking_threads, start
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
    ranking_threads = config.ranking_threads or faster_ranking_threads(config.device)
    runtime = start(config.device, config.threads, config.seed, ranking_threads=ranking_threads, matmul=config.matmul)
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
    with clock("scratch"):
        scratch = stages.alone(stage, plan.scratch, "scratch") if config.scratch.enabled else None
    with clock("student"):
        student, history = stages.distilled(stage, plan, knowledge)
    with clock("evaluation"):
        found = stages.evaluated(stage, plan, teachers, scratch, student, history)
    return stages.recorded(stage, plan, found, teachers, knowledge, student, history, clock)


def finished_before(plan: Plan, folder: Path) -> tuple[Path, float] | None:
    """A finished run of the same config on the same data under the outputs folder, and its validation value.

    Runs are told by the config's fingerprint (places, device and plug-ins do not count), the data set's and the
    teachers' keys, and the version. A neighbour that cannot be read is passed over.
    """
    config = plan.config
    outputs, wanted = Path(config.paths.outputs), stages.config_fingerprint(plan)
    metric = f"valid/ndcg@{max(config.evaluation.cutoffs)}"
    same = [run for run in finished_runs(outputs) if _find(run[1], "fingerprints", "config") == wanted]
    same = [run for run in same if run[0].resolve() != folder.resolve()]
    if not same:
        return None
    data, cache = Path(config.paths.data), ensure_folder(outputs / "cache")
    dataset = load(plan.source, data=data, cache=cache, groups=config.evaluation.groups, say=say)
    teachers = {name: stages.teacher_key(recipe, dataset.fingerprint) for name, recipe in plan.teachers.items()}
    for other, results in same:
        value = _find(results, "models", "student", "metrics", metric)
        if (
            _find(results, "dataset", "fingerprint") == dataset.fingerprint
            and _find(results, "fingerprints", "teacher") == teachers
            and _find(results, "versions", "recdistill") == __version__
            and isinstance(value, float)
        ):
            return other, value
    return None


def _find(node: Any, *keys: str) -> Any:
    """An inner value of nested mappings, or None."""
    for key in keys:
        node = node.get(key) if isinstance(node, dict) else None
    return node
