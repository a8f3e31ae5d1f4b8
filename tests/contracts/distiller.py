"""The contract of distillers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from contracts import toys
from recdistill.distill.base import Distiller
from recdistill.errors import SettingsError
from recdistill.losses import distinct
from recdistill.models.base import Recommender
from recdistill.runtime import generator
from recdistill.training.checkpoint import TrainState, load_checkpoint, save_checkpoint
from recdistill.training.objective import Objective
from recdistill.training.trainer import train_step
from recdistill.types import Batch, Knowledge


class DistillerContract:
    """Subclass it as `TestFoo` and say how a Foo is made; `refused` are settings out of range."""

    refused: ClassVar[list[dict[str, Any]]] = []
    n_teachers = 1
    n_checkpoints = 1

    def make(self, **settings: Any) -> Distiller:
        raise NotImplementedError

    def knowledge(self, distiller: Distiller) -> Knowledge:
        return toys.knowledge(self.n_teachers, self.n_checkpoints, request=distiller.group_lists)

    def started(self, seed: int = 0, **settings: Any) -> tuple[Distiller, Recommender]:
        """A distiller that is prepared and has begun its first epoch, and its student."""
        distiller, student = self.make(**settings), toys.model()
        distiller.prepare(self.knowledge(distiller), toys.interactions(), student, generator(seed, "distiller"))
        distiller.train()
        distiller.on_epoch_start(0, student, generator(seed, "distiller", 1))
        return distiller, student

    def terms(self, distiller: Distiller, student: Recommender, batch: Batch | None = None) -> dict[str, Tensor]:
        return distiller(student.scorer(), batch or toys.batch())

    def test_terms_are_named_finite_scalars(self) -> None:
        terms = self.terms(*self.started())
        assert terms
        for name, value in terms.items():
            assert isinstance(name, str)
            assert value.shape == ()
            assert value.isfinite()

    def test_the_gradient_reaches_the_student_and_is_finite(self) -> None:
        distiller, student = self.started()
        sum(self.terms(distiller, student).values()).backward()
        gradients = [parameter.grad for parameter in student.parameters()]
        assert all(grad is not None and grad.isfinite().all() for grad in gradients)
        assert any(grad.abs().sum() > 0 for grad in gradients)

    def test_no_gradient_and_no_update_reaches_the_soft_labels(self) -> None:
        distiller, student = self.make(), toys.model()
        knowledge = self.knowledge(distiller)
        labels = [one for teacher in knowledge.teachers.values() for one in teacher.checkpoints]
        tensors = [value for one in labels for value in vars(one).values() if isinstance(value, Tensor)]
        before = [value.clone() for value in tensors]
        distiller.prepare(knowledge, toys.interactions(), student, generator(0, "distiller"))
        distiller.on_epoch_start(0, student, generator(0, "distiller", 1))
        objective = Objective(student, distiller, 0.1)
        train_step(objective, torch.optim.Adam(objective.parameters(), lr=0.1), toys.batch())
        assert not any(value.requires_grad for value in tensors)
        assert all(value.equal(old) for value, old in zip(tensors, before, strict=True))
        held = {value.data_ptr() for value in tensors}
        assert not any(parameter.data_ptr() in held for parameter in objective.parameters())

    def test_weight_zero_gives_no_terms(self) -> None:
        if hasattr(self.make(), "weight"):
            assert self.terms(*self.started(weight=0.0)) == {}

    def test_terms_are_proportional_to_the_weight(self) -> None:
        if hasattr(self.make(), "weight"):
            one, two = (self.terms(*self.started(weight=weight)) for weight in (0.5, 1.0))
            for name, value in two.items():
                torch.testing.assert_close(value, 2 * one[name])

    def test_a_batch_of_one_row_is_finite(self) -> None:
        distiller, student = self.started()
        for user in range(toys.N_USERS):
            one = Batch(torch.tensor([user]), torch.tensor([0]), torch.tensor([[1, 2]]))
            student.zero_grad()
            total = sum(self.terms(distiller, student, one).values())
            total.backward()
            assert total.isfinite()
            assert all(p.grad is None or p.grad.isfinite().all() for p in student.parameters())

    def test_repeats_that_weigh_nothing_give_the_same_terms_and_gradient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """On a device the distinct ids of a batch keep its length; here both forms are compared."""
        found = []
        for static in (False, True):
            monkeypatch.setitem(distinct.__kwdefaults__, "static", static)
            distiller, student = self.started()
            terms = self.terms(distiller, student)
            sum(terms.values()).backward()
            found.append([*terms.values(), *(p.grad for p in student.parameters())])
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)

    def test_the_same_seed_gives_the_same_terms(self) -> None:
        one, same = self.terms(*self.started(seed=0)), self.terms(*self.started(seed=0))
        assert all(value.equal(same[name]) for name, value in one.items())

    def test_the_state_survives_a_checkpoint(self, tmp_path: Path) -> None:
        distiller, student = self.started()
        objective = Objective(student, distiller, 0.0)
        optimizer = torch.optim.Adam(objective.parameters(), lr=0.05, fused=True)
        for epoch in range(3):
            distiller.on_epoch_start(epoch, student, generator(0, "distiller", epoch + 1))
            train_step(objective, optimizer, toys.batch())
        save_checkpoint(tmp_path / "checkpoint", objective, optimizer, TrainState(3, 2, 0.5, [], {}))

        other, other_student = self.started(seed=5)
        continued = Objective(other_student, other, 0.0)
        other_optimizer = torch.optim.Adam(continued.parameters(), lr=0.05, fused=True)
        load_checkpoint(tmp_path / "checkpoint", continued, other_optimizer)
        assert other.to_record() == distiller.to_record()  # also of a run that was stopped after its last epoch
        for epoch in range(3, 6):
            values = []
            for one, rest in ((objective, optimizer), (continued, other_optimizer)):
                one.distiller.on_epoch_start(epoch, one.student, generator(0, "distiller", epoch + 1))
                values.append(train_step(one, rest, toys.batch())[1])
            assert values[0].equal(values[1])
        for name, value in objective.state_dict().items():
            assert value.equal(continued.state_dict()[name]), name

    def test_the_names_of_the_terms_are_the_same_for_every_batch_and_epoch(self) -> None:
        distiller, student = self.started()
        names = list(self.terms(distiller, student))
        for epoch in (1, 2):
            distiller.on_epoch_start(epoch, student, generator(0, "distiller", epoch + 1))
            for rows in (1, 7):
                assert list(self.terms(distiller, student, toys.batch(rows=rows))) == names

    def test_settings_out_of_range_are_refused_by_name(self) -> None:
        for settings in self.refused:
            key = next(iter(settings))
            with pytest.raises(SettingsError) as caught:
                self.make(**settings)
            assert caught.value.what.startswith(f"{key}=")

    def test_it_is_a_module_that_can_be_copied(self) -> None:
        distiller, student = self.started()
        twin = copy.deepcopy(distiller)
        assert isinstance(twin, nn.Module)
        assert all(value.equal(self.terms(twin, student)[n]) for n, value in self.terms(distiller, student).items())
