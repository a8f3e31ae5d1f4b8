"""The typed skeleton of the root config. Components (`_target_` nodes) are open and are checked by `build`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from recdistill.errors import require

MOST_GROUPS = 127  # a group's number is kept in a byte


@dataclass
class TrainerConfig:
    """How one model is trained.

    Args:
        epochs: at most this many passes over the training interactions.
        batch_size: rows (positives) per step.
        learning_rate: of the optimizer.
        weight_decay: factor on half the squared norms of a row's user, positive and negative vectors.
        negatives: drawn unseen items per positive (`loss: bpr`).
        optimizer: `adam` (fused, dense) or `row_adam` (only the rows that a step touches; another optimizer than Adam,
            for large catalogues).
        eval_every: epochs between evaluations on the validation part.
        patience: epochs without a better validation value after which training stops.
    """

    epochs: int = 1000
    batch_size: int = 1024
    learning_rate: float = 0.01
    weight_decay: float = 0.02
    negatives: int = 4
    optimizer: str = "adam"
    eval_every: int = 5
    patience: int = 50

    def check(self) -> None:
        """Check the ranges.

        Raises:
            SettingsError: a value is outside.
        """
        for name in ("epochs", "batch_size", "negatives", "eval_every", "patience"):
            value = getattr(self, name)
            require(value >= 1, name, value, ">= 1")
        limit = f">= eval_every={self.eval_every}, or training could stop before its first evaluation"
        require(self.patience >= self.eval_every, "patience", self.patience, limit)
        require(0 < self.learning_rate < float("inf"), "learning_rate", self.learning_rate, "> 0")
        require(0 <= self.weight_decay < float("inf"), "weight_decay", self.weight_decay, ">= 0")
        require(self.optimizer in ("adam", "row_adam"), "optimizer", self.optimizer, "adam or row_adam")


@dataclass
class ScratchConfig:
    """The reference row: this student trained without distillation.

    Args:
        enabled: whether it is trained (once, shared through the cache).
        trainer: its own settings, tuned with the same budget as the methods.
    """

    enabled: bool = True
    trainer: TrainerConfig = field(default_factory=TrainerConfig)


@dataclass
class SoftLabelsConfig:
    """What is extracted from a teacher.

    Args:
        depth: items kept of each user's ranking.
    """

    depth: int = 200

    def check(self) -> None:
        """Check the ranges."""
        require(self.depth >= 1, "depth", self.depth, ">= 1")


@dataclass
class EvaluationConfig:
    """What is measured.

    Args:
        cutoffs: list lengths; `ndcg` at the last one selects the model.
        metrics: accuracy metrics.
        groups: popularity groups of the report (2: the popular and the unpopular half of interactions).
        stored: how much of each test user's ranking is stored in `topk.parquet`.
        test: whether the test part is read at all; false while settings are tuned.
    """

    cutoffs: list[int] = field(default_factory=lambda: [10, 20])
    metrics: list[str] = field(default_factory=lambda: ["recall", "ndcg", "hit", "precision", "mrr", "map"])
    groups: int = 2
    stored: int = 100
    test: bool = True

    def check(self) -> None:
        """Check the ranges."""
        known = ("recall", "ndcg", "hit", "precision", "mrr", "map")
        require(bool(self.cutoffs) and min(self.cutoffs) >= 1, "cutoffs", list(self.cutoffs), "a list of numbers >= 1")
        require("ndcg" in self.metrics, "metrics", list(self.metrics), "a list with ndcg, which selects the model")
        require(set(self.metrics) <= set(known), "metrics", list(self.metrics), f"a list out of {', '.join(known)}")
        require(1 <= self.groups <= MOST_GROUPS, "groups", self.groups, f">= 1 and <= {MOST_GROUPS}")
        require(self.stored >= max(self.cutoffs), "stored", self.stored, f">= the largest cut-off {max(self.cutoffs)}")


@dataclass
class PathsConfig:
    """Where things lie.

    Args:
        outputs: runs, sweeps and caches.
        data: one's own copies of named data sets.
    """

    outputs: str = "outputs"
    data: str = "data"


@dataclass
class RunConfig:
    """The root: one run.

    Args:
        seed: of the student and the distiller.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        threads: threads of one operation.
        ranking_threads: the same while whole catalogues are ranked (null: all cores of this process where a probe finds
            them faster, else as `threads`; the results are the same, and the record says what was used).
        matmul: float32 products of training: `strict`, or `fast`, which permits reduced precision where a probe finds
            it faster and as exact. What is reported or stored is always computed strictly.
        skip_finished: whether a run whose config has a finished run under `paths.outputs` is skipped.
        report: whether `report.html` is written at the end (never where test is not read).
        plugins: importable packages whose classes a `_target_` may name.
        dataset: a source with its filter and split.
        teacher: a model with its role's keys (`seed`, `trainer`, `checkpoints`), or `members`, several of them by name.
        student: a model.
        distill: a distiller.
        trainer: how the student is trained.
        scratch: how the undistilled student is trained.
        soft_labels: what is extracted from the teacher.
        evaluation: what is measured.
        paths: where things lie.
    """

    seed: int = 0
    device: str = "auto"
    threads: int = 1
    ranking_threads: int | None = None
    matmul: str = "strict"
    skip_finished: bool = False
    report: bool = True
    plugins: list[str] = field(default_factory=list)
    dataset: dict[str, Any] = field(default_factory=dict)
    teacher: dict[str, Any] = field(default_factory=dict)
    student: dict[str, Any] = field(default_factory=dict)
    distill: dict[str, Any] = field(default_factory=dict)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    scratch: ScratchConfig = field(default_factory=ScratchConfig)
    soft_labels: SoftLabelsConfig = field(default_factory=SoftLabelsConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)
