"""No distillation: the student alone."""

from __future__ import annotations

from torch import Tensor

from recdistill.distill.base import Distiller
from recdistill.models.base import Scorer
from recdistill.types import Batch


class NoDistillation(Distiller):
    """The student trained on its own loss; the reference that every method must beat.

    Cost per step: nothing.
    """

    teachers = None
    asks_scorer = False

    def forward(self, scorer: Scorer, batch: Batch) -> dict[str, Tensor]:
        """No terms."""
        return {}
