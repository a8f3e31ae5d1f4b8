"""The interface of every distiller: a loss with needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from recdistill.models.base import Recommender, Scorer
from recdistill.types import Batch, GroupLists, Interactions, Knowledge


class Distiller(nn.Module, ABC):
    """A distillation method. The constructor takes settings only; data arrive by `prepare`.

    What it keeps: static tensors of soft labels as plain attributes (never parameters), its trainable modules as
    children, and what must survive a checkpoint (per-user progress, say) as buffers.

    Attributes:
        requires: what the teacher must provide, of {"ranking", "scores", "vectors", "trajectory", "live"}.
        depth: how many items of the teacher's ranking it reads; at most `soft_labels.depth`.
        user_depth: how many users of the teacher's ranking of users for each item it reads (0: there is none).
        group_lists: a request for ranked lists per popularity group, or None.
        teachers: the number of teachers it takes, or None for any number.
        replaces_base_loss: whether the student's own loss is left out.
        asks_scorer: whether it asks the student's scorer for anything.
    """

    requires: ClassVar[frozenset[str]] = frozenset()
    depth: int = 0
    user_depth: int = 0
    group_lists: GroupLists | None = None
    teachers: int | None = 1
    replaces_base_loss: bool = False
    asks_scorer: ClassVar[bool] = True

    def prepare(
        self, knowledge: Knowledge, interactions: Interactions, student: Recommender, generator: torch.Generator
    ) -> None:
        """Build what does not change during training.

        Args:
            knowledge: the soft labels of all teachers, on the CPU.
            interactions: training interactions.
            student: prepared and on its device.
            generator: on the CPU, for initial weights.
        """

    def on_epoch_start(self, epoch: int, student: Recommender, generator: torch.Generator) -> None:
        """Resample, anneal, move a curriculum; `generator` is on the student's device, keyed by seed and epoch."""

    @abstractmethod
    def forward(self, scorer: Scorer, batch: Batch) -> dict[str, Tensor]:
        """Named, weighted, scalar loss terms; the same names in every step of an epoch."""

    def trained_models(self, student: Recommender) -> dict[str, Recommender]:
        """The models that training changes, by name; the first is the one that is selected and stored."""
        return {"student": student}

    def to_record(self) -> dict[str, float]:
        """Numbers worth keeping in the run's record, such as counts of what was skipped."""
        return {}


def device_of(student: Recommender) -> torch.device:
    """Where a student's parameters lie."""
    return next(student.parameters()).device


def inside(item: Tensor, valid: Tensor, other: Tensor, other_valid: Tensor, n_items: int) -> Tensor:
    """Which valid items also stand among the valid ones of another list of the same row.

    Shapes:
        item: [B, M] int64, below `n_items`. valid: [B, M] bool. other: [B, K] int64. other_valid: [B, K] bool.
        Returns: [B, M] bool.
    """
    held = torch.where(other_valid, other, n_items).sort(1).values
    place = torch.searchsorted(held, item).clamp(max=held.shape[1] - 1)
    return valid & (held.gather(1, place) == item)
