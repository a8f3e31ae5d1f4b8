from __future__ import annotations

import pytest

from contracts import toys
from recdistill.distill.none import NoDistillation
from recdistill.distill.rd import RD
from recdistill.models.base import Scorer
from recdistill.models.mf import MF
from recdistill.runtime import generator
from recdistill.training.objective import Objective
from recdistill.types import Batch


class Asked(MF):
    """Notes which scorer it is asked for."""

    def scorer(self) -> Scorer:
        self.__dict__.setdefault("asked", []).append("whole")
        return super().scorer()

    def batch_scorer(self, batch: Batch) -> Scorer:
        self.__dict__.setdefault("asked", []).append(batch)
        return super().scorer()


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_a_student_alone_is_asked_for_the_rows_of_its_batch_and_one_with_a_teacher_for_all(decay: float) -> None:
    batch = toys.batch()
    alone, taught = toys.model(Asked), toys.model(Asked)
    Objective(alone, NoDistillation(), decay)(batch)
    assert alone.__dict__["asked"] == [batch]
    method = RD(items=4)
    method.prepare(toys.knowledge(), toys.interactions(), taught, generator(0, "distiller"))
    method.on_epoch_start(0, taught, generator(1, "distiller"))
    Objective(taught, method, decay)(batch)
    assert taught.__dict__["asked"] == ["whole"]
