from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from contracts import toys
from recdistill.config import TrainerConfig
from recdistill.distill.none import NoDistillation
from recdistill.runtime import generator
from recdistill.training.optimizers import RowAdam, make_optimizer, summed_rows
from recdistill.training.trainer import fit

ROWS = torch.tensor([[0, 3, 3, 1], [3, 4, 0, 0], [1, 1, 1, 1], [4, 3, 4, 0]])  # row 2 is never touched


def table() -> nn.Parameter:
    return nn.Parameter(torch.randn(5, 3, generator=generator(0, "table")))


def trained(optimizer: Any, parameter: nn.Parameter, *, sparse: bool, rows: Tensor = ROWS) -> nn.Parameter:
    """Steps on a loss whose gradient is another one in every step."""
    for row in rows:
        optimizer.zero_grad()
        (nn.functional.embedding(row, parameter, sparse=sparse).square() * torch.arange(1.0, 4.0)).sum().backward()
        optimizer.step()
    return parameter


def test_row_adam_moves_touched_rows_only_and_keeps_the_moments_of_the_others() -> None:
    parameter, before = table(), table()
    optimizer = RowAdam([parameter], lr=0.1)
    trained(optimizer, parameter, sparse=True, rows=ROWS[:1])
    first = {name: value.clone() for name, value in optimizer.state[parameter].items()}
    assert parameter[[2, 4]].equal(before[[2, 4]])
    assert (parameter[[0, 1, 3]] != before[[0, 1, 3]]).all()
    trained(optimizer, parameter, sparse=True, rows=torch.tensor([[1, 1]]))
    assert optimizer.state[parameter]["exp_avg"][[0, 3]].equal(first["exp_avg"][[0, 3]])
    assert optimizer.state[parameter]["exp_avg_sq"][[0, 3]].equal(first["exp_avg_sq"][[0, 3]])


def test_row_adam_agrees_with_torchs_sparse_adam() -> None:
    one, other = table(), table()
    # SparseAdam adds epsilon before the bias correction, so the two agree only where epsilon is small
    found = trained(RowAdam([one], lr=0.1, eps=1e-12), one, sparse=True)
    expected = trained(torch.optim.SparseAdam([other], lr=0.1, eps=1e-12), other, sparse=True)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_row_adam_differs_from_adam_where_rows_rest() -> None:
    one, other = table(), table()
    found = trained(RowAdam([one], lr=0.1), one, sparse=True)
    expected = trained(torch.optim.Adam([other], lr=0.1), other, sparse=False)
    assert (found - expected).abs().max() > 0.01


def test_row_adam_is_adam_when_every_step_touches_every_row() -> None:
    one, other = table(), table()
    rows = torch.arange(5).repeat(6, 2)
    found = trained(RowAdam([one], lr=0.1), one, sparse=True, rows=rows)
    expected = trained(torch.optim.Adam([other], lr=0.1), other, sparse=False, rows=rows)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_a_dense_gradient_gets_plain_adam() -> None:
    one, other = table(), table()
    found = trained(RowAdam([one], lr=0.1), one, sparse=False)
    expected = trained(torch.optim.Adam([other], lr=0.1), other, sparse=False)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=20), st.booleans())
def test_rows_are_summed_and_places_left_over_repeat_the_last_row(rows: list[int], static: bool) -> None:
    row, value = torch.tensor(rows), torch.randn(len(rows), 2, generator=generator(1, "value"))
    found, total = summed_rows(row, value, static=static)
    expected = torch.zeros(7, 2).index_add_(0, row, value)
    assert found.unique().tolist() == sorted(set(rows))
    assert len(found) == (len(rows) if static else len(set(rows)))
    torch.testing.assert_close(total, expected[found])


def test_the_static_form_updates_as_the_short_one(monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for static in (False, True):
        monkeypatch.setitem(summed_rows.__kwdefaults__, "static", static)
        parameter = table()
        results.append(trained(RowAdam([parameter], lr=0.1), parameter, sparse=True))
    torch.testing.assert_close(*results)


def test_training_under_row_adam_leaves_the_rows_of_absent_users_alone_and_learns() -> None:
    student, before = toys.model(), toys.model()
    trainer = TrainerConfig(
        epochs=40, batch_size=16, learning_rate=0.05, eval_every=40, patience=40, optimizer="row_adam", weight_decay=0.0
    )
    done = fit(
        student, NoDistillation(), toys.interactions(), trainer,
        seed=0, device=torch.device("cpu"), validate=lambda model: 0.0,
    )  # fmt: skip
    assert student.user_table[toys.LONELY_USER].equal(before.user_table[toys.LONELY_USER])
    assert done.history[-1]["base"] < 0.8 * done.history[0]["base"]


def test_the_two_names_give_the_two_optimizers() -> None:
    assert type(make_optimizer("adam", [table()], 0.1)) is torch.optim.Adam
    assert type(make_optimizer("row_adam", [table()], 0.1)) is RowAdam


def test_row_adam_counts_its_steps_on_the_host_wherever_the_table_lies() -> None:
    parameter = nn.Parameter(torch.zeros(5, 3, device="meta"))
    optimizer = RowAdam([parameter], lr=0.1)
    for count in (1, 2):
        parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        assert optimizer.state[parameter]["step"] == count  # on the meta device it would have no value
