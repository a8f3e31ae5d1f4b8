from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from contracts import toys
from recdistill.distill.none import NoDistillation
from recdistill.errors import CacheError
from recdistill.training.checkpoint import TrainState, load_checkpoint, load_weights, save_checkpoint, save_weights
from recdistill.training.objective import Objective
from recdistill.training.trainer import train_step


def objective(seed: int = 0) -> tuple[Objective, torch.optim.Optimizer]:
    made = Objective(toys.model(seed=seed), NoDistillation(), 0.0)
    return made, torch.optim.Adam(made.parameters(), lr=0.1, fused=True)


def state() -> TrainState:
    history = [{"epoch": 1, "loss": 0.1 + 0.2, "valid": None}, {"epoch": 2, "loss": 1e-300, "valid": 1 / 3}]
    return TrainState(2, 1, 1 / 3, history, {"student.user_table": torch.tensor([[0.1, math.pi]])})


def test_everything_comes_back_bit_for_bit(tmp_path: Path) -> None:
    one, optimizer = objective()
    for _ in range(3):
        train_step(one, optimizer, toys.batch())
    save_checkpoint(tmp_path / "c", one, optimizer, state())
    other, other_optimizer = objective(seed=1)
    found = load_checkpoint(tmp_path / "c", other, other_optimizer)
    assert (found.epoch, found.best_epoch, found.best_value, found.history) == (2, 1, 1 / 3, state().history)
    assert found.best["student.user_table"].equal(state().best["student.user_table"])
    for name, value in one.state_dict().items():
        assert value.equal(other.state_dict()[name])
    before, after = optimizer.state_dict()["state"], other_optimizer.state_dict()["state"]
    assert before.keys() == after.keys()
    for number, entry in before.items():
        assert entry.keys() == after[number].keys() == {"step", "exp_avg", "exp_avg_sq"}
        assert all(value.equal(after[number][key]) for key, value in entry.items())


def test_a_checkpoint_before_any_evaluation_has_no_best_value(tmp_path: Path) -> None:
    one, optimizer = objective()
    save_checkpoint(tmp_path / "c", one, optimizer, TrainState(0, 0, -math.inf, [], {}))
    assert load_checkpoint(tmp_path / "c", *objective()).best_value == -math.inf


def test_a_checkpoint_that_was_cut_short_is_refused_with_a_way_out(tmp_path: Path) -> None:
    one, optimizer = objective()
    save_checkpoint(tmp_path / "c", one, optimizer, state())
    content = (tmp_path / "c").read_bytes()
    for size in (0, 5, 100, len(content) - 1):
        (tmp_path / "c").write_bytes(content[:size])
        with pytest.raises(CacheError, match="cannot read the checkpoint"):
            load_checkpoint(tmp_path / "c", *objective())


def test_weights_alone_are_no_checkpoint(tmp_path: Path) -> None:
    save_weights(tmp_path / "w", {"a": torch.ones(2)})
    with pytest.raises(CacheError, match="cannot read the checkpoint"):
        load_checkpoint(tmp_path / "w", *objective())


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    one, optimizer = objective()
    save_checkpoint(tmp_path / "c", one, optimizer, state())
    other = Objective(toys.model(dim=5), NoDistillation(), 0.0)
    with pytest.raises(CacheError, match="cannot read the checkpoint"):
        load_checkpoint(tmp_path / "c", other, torch.optim.Adam(other.parameters()))


def test_weights_survive_and_views_are_stored_as_they_look(tmp_path: Path) -> None:
    table = torch.arange(6.0).view(2, 3)
    save_weights(tmp_path / "w", {"a": table, "b": nn.Parameter(table.T[:2])})
    found = load_weights(tmp_path / "w")
    assert found["a"].equal(table)
    assert found["b"].equal(table.T[:2])


def test_missing_or_broken_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="cannot read the weights"):
        load_weights(tmp_path / "none")
    (tmp_path / "broken").write_bytes(b"\x00" * 4)
    with pytest.raises(CacheError, match="cannot read the weights"):
        load_weights(tmp_path / "broken")
