from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from recdistill.models import rows
from recdistill.models.rows import half_squares, pair_scores, scores_and_squares


def tables() -> tuple[Tensor, Tensor]:
    made = torch.Generator().manual_seed(0)
    users, items = (torch.randn(n, 3, generator=made, dtype=torch.float64) for n in (5, 7))
    return users.requires_grad_(), items.requires_grad_()


USER = torch.tensor([0, 3, 3, 1, 0])
ITEM = torch.tensor([[0, 1], [6, 6], [2, 0], [0, 0], [5, 1]])


@pytest.mark.parametrize("block", [1, 100, 1 << 19])
@pytest.mark.parametrize("by_rows", [False, True])
def test_pair_scores_and_their_gradients_are_those_of_plain_look_ups(
    block: int, by_rows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "BLOCK_BYTES", block)
    users, items = tables()
    pull = torch.randn(5, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    score = pair_scores(users, items, USER, ITEM, by_rows=by_rows)
    found = torch.autograd.grad((score * pull).sum(), (users, items))
    plain = (nn.functional.embedding(USER, users).unsqueeze(1) * nn.functional.embedding(ITEM, items)).sum(2)
    expected = torch.autograd.grad((plain * pull).sum(), (users, items))
    torch.testing.assert_close(score, plain)
    for one, other in zip(found, expected, strict=True):
        assert one.is_sparse is by_rows
        torch.testing.assert_close(one.to_dense(), other)


def test_a_table_that_needs_no_gradient_gets_none() -> None:
    users, items = tables()
    pair_scores(users.detach(), items, USER, ITEM).sum().backward()
    assert users.grad is None
    assert items.grad is not None


@pytest.mark.parametrize("block", [1, 1 << 19])
@pytest.mark.parametrize("by_rows", [False, True])
@pytest.mark.parametrize("used", [(1, 1, 1), (1, 0, 0), (0, 1, 1), (1, 0, 1), (0, 1, 0)])
def test_scores_and_squares_come_from_one_look_up_with_the_gradients_of_plain_ones(
    block: int, by_rows: bool, used: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "BLOCK_BYTES", block)
    users, items = tables()
    of_user, of_item = nn.functional.embedding(USER, users), nn.functional.embedding(ITEM, items)
    plain = (of_item * of_user.unsqueeze(1)).sum(2), of_user.square().sum(1), of_item.square().sum(2)
    found = scores_and_squares(users, items, USER, ITEM, by_rows=by_rows)
    draws = torch.Generator().manual_seed(2)
    pulls = [torch.randn(value.shape, generator=draws, dtype=torch.float64) for value in plain]
    totals = []
    for values in (found, plain):
        totals.append(sum((value * pull).sum() for value, pull, use in zip(values, pulls, used, strict=True) if use))
    for one, other in zip(found, plain, strict=True):
        torch.testing.assert_close(one, other)
    gradients = [torch.autograd.grad(total, (users, items), allow_unused=True) for total in totals]
    for one, other, table in zip(*gradients, (users, items), strict=True):
        zero = torch.zeros_like(table)  # what a table that was not used has for a gradient
        torch.testing.assert_close(zero if one is None else one.to_dense(), zero if other is None else other)


@pytest.mark.parametrize("weighted", [False, True])
def test_half_squares_count_every_row_as_often_as_it_is_named(weighted: bool) -> None:
    table, _ = tables()
    weight = torch.tensor([1.0, 0.5, 2.0, 1.0, 0.0], dtype=torch.float64).unsqueeze(1)
    total = half_squares(table, USER, weight if weighted else None)
    picked = nn.functional.embedding(USER, table)
    plain = (picked.square() * (weight if weighted else 1)).sum() / 2
    torch.testing.assert_close(total, plain)
    (found,), (expected,) = torch.autograd.grad(3 * total, table), torch.autograd.grad(3 * plain, table)
    torch.testing.assert_close(found, expected)
