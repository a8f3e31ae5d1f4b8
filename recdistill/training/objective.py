"""Base loss and distillation terms as one module: what the optimizer sees and the checkpoint stores."""

from __future__ import annotations

from torch import Tensor, nn

from recdistill.distill.base import Distiller
from recdistill.errors import ConfigError
from recdistill.models.base import Recommender
from recdistill.types import Batch


class Objective(nn.Module):
    """The named, weighted loss terms of one batch.

    Args:
        student: prepared.
        distiller: prepared for this student.
        weight_decay: factor on the student's penalty.
    """

    def __init__(self, student: Recommender, distiller: Distiller, weight_decay: float) -> None:
        """Take both as children."""
        super().__init__()
        self.student = student
        self.distiller = distiller
        self.weight_decay = weight_decay

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Scalar terms by name; their sum is minimised."""
        # Once per step.
        scorer = self.student.scorer() if self.distiller.asks_scorer else self.student.batch_scorer(batch)
        # First: a model may then have it from the same look-ups as its loss.
        decay = self.weight_decay * self.student.penalty(scorer, batch) if self.weight_decay else None
        terms: dict[str, Tensor] = {}
        if not self.distiller.replaces_base_loss:
            terms["base"] = self.student.loss(scorer, batch)
        terms.update(self.distiller(scorer, batch))
        if decay is not None:
            terms["weight_decay"] = decay
        if not terms:
            raise ConfigError(
                f"{type(self.distiller).__name__} gives no loss term and replaces the base loss",
                "nothing would be trained",
                "give it a weight above 0",
            )
        return terms
