"""The distillers of `tests/plugin` keep the contract too, so that it is one that such methods can keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch

from contracts import toys
from contracts.distiller import DistillerContract
from plugin.curriculum import Curriculum
from plugin.together import Together
from plugin.vectors import VectorMatch
from recdistill.training.checkpoint import TrainState, load_checkpoint, save_checkpoint
from recdistill.training.objective import Objective


class TestVectorMatch(DistillerContract):
    refused: ClassVar[list[dict[str, Any]]] = [{"weight": -1.0}]

    def make(self, **settings: Any) -> VectorMatch:
        return VectorMatch(**settings)


class TestTogether(DistillerContract):
    refused: ClassVar[list[dict[str, Any]]] = [{"weight": -1.0}]

    def make(self, **settings: Any) -> Together:
        return Together(**settings)


class TestCurriculum(DistillerContract):
    refused: ClassVar[list[dict[str, Any]]] = [{"keep": 1}, {"weight": 0.0}]
    n_teachers = 2
    n_checkpoints = 3

    def make(self, **settings: Any) -> Curriculum:
        return Curriculum(**settings)

    def test_weight_zero_gives_no_terms(self) -> None:
        """Its terms are the whole loss, so weight 0 is refused."""

    def test_each_users_progress_survives_a_checkpoint(self, tmp_path: Path) -> None:
        distiller, student = self.started()
        assert 0 < distiller.stage.sum() < distiller.stage.numel() * 2
        objective = Objective(student, distiller, 0.0)
        optimizer = torch.optim.Adam(objective.parameters())
        save_checkpoint(tmp_path / "checkpoint", objective, optimizer, TrainState(1, 1, 0.0, [], {}))
        other = self.make()
        other.prepare(self.knowledge(other), toys.interactions(), toys.model(), torch.Generator())
        assert not other.stage.equal(distiller.stage)
        again = Objective(toys.model(), other, 0.0)
        load_checkpoint(tmp_path / "checkpoint", again, torch.optim.Adam(again.parameters()))
        assert other.stage.equal(distiller.stage)

    def test_the_students_own_loss_is_left_out(self) -> None:
        distiller, student = self.started()
        assert list(Objective(student, distiller, 0.0)(toys.batch())) == ["teacher0", "teacher1"]
