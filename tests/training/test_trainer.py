from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from contracts import toys
from plugin.curriculum import Curriculum
from plugin.together import Together
from recdistill.config import TrainerConfig
from recdistill.distill.base import Distiller
from recdistill.distill.none import NoDistillation
from recdistill.distill.rrd import RRD
from recdistill.distill.unkd import UnKD
from recdistill.errors import OutOfMemory, SettingsError, TrainingError
from recdistill.models.base import Recommender, Scorer
from recdistill.models.mf import MF
from recdistill.runtime import generator
from recdistill.training.objective import Objective
from recdistill.training.trainer import Fit, fit, train_step
from recdistill.types import Batch

CPU = torch.device("cpu")
SETTINGS: dict[str, Any] = {"epochs": 6, "batch_size": 16, "learning_rate": 0.05, "eval_every": 2, "negatives": 2}


class Values:
    """A validation that returns given values one by one and keeps the weights that it saw."""

    def __init__(self, *values: float) -> None:
        self.values, self.seen = values, []

    def __call__(self, model: Recommender) -> float:
        assert not model.training
        assert not torch.is_grad_enabled()
        self.seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return self.values[min(len(self.seen), len(self.values)) - 1]


def fitted(
    student: Recommender, validate: Any, distiller: Distiller | None = None, more: Any = None, **settings: Any
) -> Fit:
    trainer = TrainerConfig(**(SETTINGS | settings))
    return fit(
        student, distiller or NoDistillation(), toys.interactions(), trainer,
        seed=0, device=CPU, validate=validate, **(more or {}),
    )  # fmt: skip


def distiller_for(name: str, student: Recommender) -> Distiller:
    made: Distiller = {
        "none": NoDistillation,
        "rrd": lambda: RRD(interesting=3, uninteresting=2, depth=8, draw="sampled", rest="sampled"),
        "unkd": lambda: UnKD(groups=3, pairs=8, depth=6),
        "curriculum": Curriculum,
    }[name]()
    knowledge = toys.knowledge(*((2, 3) if name == "curriculum" else (1, 1)), request=made.group_lists)
    made.prepare(knowledge, toys.interactions(), student, generator(0, "distiller"))
    return made


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(value.equal(other[name]) for name, value in one.items())


def test_the_weights_of_the_best_evaluation_are_restored() -> None:
    student, values = toys.model(), Values(0.1, 0.3, 0.2)
    done = fitted(student, values)
    assert (done.epochs, done.best_epoch, done.best_value) == (6, 4, 0.3)
    assert same(student.state_dict(), values.seen[1])
    assert not same(student.state_dict(), values.seen[2])
    assert not student.training


def test_the_first_of_two_equal_values_is_the_best() -> None:
    assert fitted(toys.model(), Values(0.3, 0.3, 0.3)).best_epoch == 2


def test_training_stops_when_nothing_has_been_better_for_as_long_as_patience() -> None:
    values = Values(0.1, 0.5, 0.2)
    done = fitted(toys.model(), values, epochs=100, patience=5)
    assert done.best_epoch == 4
    assert done.epochs == 9
    assert len(values.seen) == 4


def test_the_last_epoch_is_evaluated_too() -> None:
    done = fitted(toys.model(), Values(0.1, 0.2, 0.3, 0.4), epochs=5)
    assert [row["epoch"] for row in done.history if row["valid"] is not None] == [2, 4, 5]
    assert done.best_epoch == 5


def test_the_loss_falls() -> None:
    done = fitted(toys.model(), Values(0.1), epochs=20, weight_decay=0.0)
    assert done.history[-1]["base"] < 0.8 * done.history[0]["base"]


def test_history_has_a_row_per_epoch_with_terms_that_sum_to_the_loss() -> None:
    student = toys.model()
    done = fitted(student, Values(0.1), distiller_for("unkd", student), weight_decay=0.1)
    assert [row["epoch"] for row in done.history] == [1, 2, 3, 4, 5, 6]
    for row in done.history:
        assert set(row) == {"epoch", "loss", "base", "unkd", "weight_decay", "valid", "seconds"}
        assert row["loss"] == pytest.approx(row["base"] + row["unkd"] + row["weight_decay"], rel=1e-9)
        assert row["seconds"] > 0


class Breaks(NoDistillation):
    """Its term is not a number (or infinite) in the third step of an epoch."""

    def __init__(self, epoch: int, value: float) -> None:
        super().__init__()
        self.bad_epoch, self.value = epoch, value

    def on_epoch_start(self, epoch: int, student: Recommender, generator: torch.Generator) -> None:
        self.epoch, self.step = epoch + 1, 0

    def forward(self, scorer: Scorer, batch: Batch) -> dict[str, Tensor]:
        self.step += 1
        value = self.value if (self.epoch, self.step) == (self.bad_epoch, 3) else 1.0
        return {"fragile": 0.001 * value * scorer.user_vectors.square().mean()}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_term_that_is_not_finite_is_named_with_its_place_and_the_best_weights_are_back(value: float) -> None:
    student, values = toys.model(), Values(0.5, 0.4)
    with pytest.raises(TrainingError) as caught:
        fitted(student, values, Breaks(5, value))
    assert f"'fragile' is {value} in epoch 5, step 3" in caught.value.what
    assert same(student.state_dict(), values.seen[0])


class Fails(NoDistillation):
    """Its step raises."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, scorer: Scorer, batch: Batch) -> dict[str, Tensor]:
        raise self.error


def test_a_step_that_memory_does_not_hold_says_what_would_be_smaller() -> None:
    with pytest.raises(OutOfMemory) as caught:
        fitted(toys.model(), Values(0.5), Fails(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")))
    assert caught.value.what == "the memory of cpu does not hold a training in batches of 16 rows (epoch 1)"
    assert "MB are free" in caught.value.why
    assert "trainer.batch_size" in caught.value.fix


def test_another_error_in_a_step_is_not_taken_for_a_lack_of_memory() -> None:
    with pytest.raises(RuntimeError, match="something else"):
        fitted(toys.model(), Values(0.5), Fails(RuntimeError("something else")))


def test_weights_before_any_evaluation_are_the_initial_ones() -> None:
    student = toys.model()
    initial = {name: value.clone() for name, value in student.state_dict().items()}
    with pytest.raises(TrainingError):
        fitted(student, Values(0.5), Breaks(1, float("nan")))
    assert same(student.state_dict(), initial)


class Stop(Exception):
    """Stands for a killed process."""


@pytest.mark.parametrize("method", ["none", "rrd", "unkd", "curriculum"])
@pytest.mark.parametrize("killed_in", [3, 4, 5])
@pytest.mark.parametrize("optimizer", ["adam", "row_adam"])
def test_training_continued_from_its_checkpoint_equals_the_uninterrupted_one(
    method: str, optimizer: str, killed_in: int, tmp_path: Path
) -> None:
    def value(model: Recommender) -> float:
        return float(model.scorer().all_scores(torch.arange(toys.N_USERS))[:, :4].mean())

    def kill(epoch: int, epochs: int, value: float | None, best: float) -> None:
        if epoch == killed_in:
            raise Stop

    def run(student: Recommender, more: dict[str, Any]) -> Fit:
        distiller = distiller_for(method, student)
        return fitted(student, value, distiller, more, weight_decay=0.02, optimizer=optimizer)

    straight = toys.model()
    expected = run(straight, {})
    checkpoint = {"checkpoint": tmp_path / "checkpoint"}
    with pytest.raises(Stop):
        run(toys.model(), checkpoint | {"on_epoch": kill})
    assert checkpoint["checkpoint"].is_file()
    student = toys.model(seed=9)  # its own weights do not matter
    found = run(student, checkpoint)
    assert 0 < found.resumed < killed_in or (found.resumed == killed_in and killed_in % 2 == 0)
    assert expected.resumed == 0
    assert same(student.state_dict(), straight.state_dict())
    assert (found.epochs, found.best_epoch, found.best_value) == (6, expected.best_epoch, expected.best_value)
    for row, other in zip(found.history, expected.history, strict=True):
        assert {**row, "seconds": 0} == {**other, "seconds": 0}


def test_a_finished_training_is_not_trained_again(tmp_path: Path) -> None:
    checkpoint = {"checkpoint": tmp_path / "checkpoint"}
    student = toys.model()
    fitted(student, Values(0.1, 0.5, 0.2), more=checkpoint)
    epochs: list[int] = []
    again = toys.model(seed=1)
    done = fitted(again, Values(9.0), more=checkpoint | {"on_epoch": lambda epoch, *rest: epochs.append(epoch)})
    assert epochs == []
    assert done.best_value == 0.5
    assert same(again.state_dict(), student.state_dict())


def test_progress_tells_epoch_and_values() -> None:
    told: list[tuple[Any, ...]] = []
    fitted(toys.model(), Values(0.1, 0.4, 0.2), more={"on_epoch": lambda *values: told.append(values)})
    assert [line[0] for line in told] == [1, 2, 3, 4, 5, 6]
    assert [line[2] for line in told] == [None, 0.1, None, 0.4, None, 0.2]
    assert [line[3] for line in told] == [float("-inf"), 0.1, 0.1, 0.4, 0.4, 0.4]


def test_a_step_returns_the_terms_and_moves_the_weights() -> None:
    student = toys.model()
    objective = Objective(student, NoDistillation(), 0.1)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    expected = objective(toys.batch())
    names, values = train_step(objective, torch.optim.Adam(objective.parameters()), toys.batch())
    assert names == ["base", "weight_decay"]
    assert values.tolist() == [expected["base"].item(), expected["weight_decay"].item()]
    assert not values.requires_grad
    assert not same(student.state_dict(), before)


class WithoutPenalty(MF):
    def penalty(self, scorer: Scorer, batch: Batch) -> Tensor:
        return Recommender.penalty(self, scorer, batch)


def test_a_penalty_that_is_a_constant_is_a_term_without_a_gradient() -> None:
    student = WithoutPenalty(dim=4)
    student.prepare(toys.interactions(), generator(0, "student"))
    objective = Objective(student, NoDistillation(), 0.1)
    names, values = train_step(objective, torch.optim.Adam(objective.parameters()), toys.batch())
    assert names == ["base", "weight_decay"]
    assert values[0] > values[1] == 0


class Detached(MF):
    def loss(self, scorer: Scorer, batch: Batch) -> Tensor:  # type: ignore[override]  # as a slip in a plug-in
        return super().loss(scorer, batch).detach()  # type: ignore[arg-type]  # its own scorer


def test_terms_without_any_gradient_are_an_error_not_a_training_of_nothing() -> None:
    student = Detached(dim=4)
    student.prepare(toys.interactions(), generator(0, "student"))
    objective = Objective(student, NoDistillation(), 0.0)
    with pytest.raises(TrainingError, match="base"):
        train_step(objective, torch.optim.Adam(objective.parameters()), toys.batch())


def test_the_module_of_a_distiller_is_trained_and_a_second_trained_model_is_restored_with_the_first() -> None:
    student, distiller = toys.model(), Together()
    distiller.prepare(toys.knowledge(), toys.interactions(), student, generator(0, "distiller"))
    seen: list[dict[str, Tensor]] = []

    def value(model: Recommender) -> float:
        seen.append({name: tensor.clone() for name, tensor in distiller.teacher.state_dict().items()})
        return (0.1, 0.5, 0.2)[len(seen) - 1]

    fitted(student, value, distiller)
    assert not same(seen[0], seen[1])
    assert same(distiller.teacher.state_dict(), seen[1])


class Listens(NoDistillation):
    """Keeps the first draw of every epoch's generator."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs: list[int] = []
        self.draws: list[float] = []

    def on_epoch_start(self, epoch: int, student: Recommender, generator: torch.Generator) -> None:
        self.epochs.append(epoch)
        self.draws.append(torch.rand(1, generator=generator).item())


def test_a_distillers_draws_differ_between_epochs_and_repeat_with_the_seed() -> None:
    one, same_seed = Listens(), Listens()
    fitted(toys.model(), Values(0.1), one)
    fitted(toys.model(seed=1), Values(0.1), same_seed)
    assert one.epochs == [0, 1, 2, 3, 4, 5]
    assert len(set(one.draws)) == 6
    assert one.draws == same_seed.draws


def test_patience_shorter_than_the_time_between_evaluations_is_refused() -> None:
    with pytest.raises(SettingsError, match="eval_every=60"):
        TrainerConfig(eval_every=60, patience=50).check()
