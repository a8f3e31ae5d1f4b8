from __future__ import annotations

import pytest
import torch
from torch import Tensor

from recdistill import catalogue
from recdistill.catalogue import listed_loss
from recdistill.losses import plackett_luce

B, ITEMS, DIM, SIZES = 6, 11, 4, [4, 0, 5, 2]
LISTED = torch.tensor([[0, 4, 4], [9, 3, 8], [5, 6, 7], [10, 0, 1], [2, 2, 2], [8, 9, 10]])  # with repeats
APART = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 0, 0], [1, 1, 0], [1, 1, 1], [1, 1, 1]]).bool()
ROW = torch.tensor([5, 0, 0, 2, 3, 1, 5, 5, 6, 17, 0])  # in no order; row 4 stays whole, 6 and more are padding
COLUMN = torch.tensor([7, 2, 3, 2, 7, 1, 0, 4, 5, 0, 10])
WEIGHT = torch.tensor([0.1, 0.4, 0.0, 0.3, 0.2, 0.5])


def tables(dtype: torch.dtype, size: float = 1.0) -> list[Tensor]:
    draws = torch.Generator().manual_seed(3)
    made = (size * torch.randn(rows, DIM, generator=draws, dtype=torch.float64) for rows in (B, ITEMS))
    return [table.to(dtype).requires_grad_() for table in made]


def head(mass: Tensor, score: Tensor, rows: slice) -> Tensor:
    """Two terms: the list above the third part, and the second listed score above all other masses."""
    weight = WEIGHT[rows].to(score.dtype)
    first = plackett_luce(score, mass[:, 2], weight=weight)
    others = mass[:, [0, 1, 3]].logsumexp(1)
    return torch.stack([first, 0.3 * plackett_luce(score[:, 1:2], others, weight=weight)])


def plain(users: Tensor, items: Tensor) -> Tensor:
    """The same with all scores in memory and autograd."""
    score = users @ items.T
    left_out = torch.zeros_like(score, dtype=torch.bool)
    left_out[ROW[ROW < B], COLUMN[ROW < B]] = True
    rows = torch.arange(B).unsqueeze(1).expand_as(LISTED)
    left_out[rows[APART], LISTED[APART]] = True
    parts = score.masked_fill(left_out, -torch.inf).split(SIZES, dim=1)
    # An empty part has no maximum; its mass is that of one item which is left out.
    masses = [torch.cat([part, part.new_full((B, 1), -1e300)], 1).logsumexp(1) for part in parts]
    return head(torch.stack(masses, 1), score.gather(1, LISTED), slice(0, B))


def limit_tiles(monkeypatch: pytest.MonkeyPatch, rows: int, size: int) -> None:
    monkeypatch.setattr(catalogue, "TILE_ROWS", rows)
    monkeypatch.setattr(catalogue, "TILE_BYTES", size)


@pytest.mark.parametrize("tile", [(6, 1), (4, 3 * 4 * 8), (3, 1 << 20)])  # rows, and bytes of 1, 3 and all items
@pytest.mark.parametrize("static", [None, False, True])
@pytest.mark.parametrize("chunk", [None, 1, 4])
def test_terms_and_their_common_gradient_equal_autograds_over_all_scores(
    chunk: int | None, static: bool | None, tile: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_tiles(monkeypatch, *tile)
    some = tables(torch.float64)
    found = listed_loss(*some, head, LISTED, APART, ROW, COLUMN, sizes=SIZES, chunk=chunk, static=static)
    expected = plain(*some)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)
    mine, wanted = (torch.autograd.grad(3 * value.sum(), some) for value in (found, expected))
    torch.testing.assert_close(mine, wanted, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("tile", [(1, 3 * 4), (512, 1 << 20)])
@pytest.mark.parametrize("size", [0.1, 4.0, 10.0, 20.0])
def test_scores_that_need_a_shift_and_those_that_do_not_are_as_exact(
    size: float, tile: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_tiles(monkeypatch, *tile)
    single, double = tables(torch.float32, size), tables(torch.float64, size)
    found = listed_loss(*single, head, LISTED, APART, ROW, COLUMN, sizes=SIZES, chunk=2)
    expected = plain(*double)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    mine = torch.autograd.grad(found.sum(), single)
    wanted = torch.autograd.grad(expected.sum(), double)
    for one, other in zip(mine, wanted, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=1e-4 * size)


def test_a_part_far_below_the_rows_best_score_keeps_its_own_mass() -> None:
    users = torch.ones(1, 1, requires_grad=True)
    items = torch.tensor([[100.0], [-100.0], [-100.0], [-101.0]], requires_grad=True)
    nothing = torch.empty(1, 0, dtype=torch.int64)
    found = listed_loss(users, items, lambda mass, _, rows: mass[:, 1:].sum(0), nothing, nothing.bool(), sizes=[1, 3])
    assert found.item() == pytest.approx(-100 + torch.tensor([0.0, 0.0, -1.0]).logsumexp(0).item(), rel=1e-6)
    found.sum().backward()
    torch.testing.assert_close(items.grad[1:, 0], torch.tensor([0.0, 0.0, -1.0]).softmax(0))


@pytest.mark.parametrize("size", [10.0, 100.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_rest_that_weighs_nothing_lets_the_listed_scores_gradient_through(dtype: torch.dtype, size: float) -> None:
    users = torch.ones(1, 1, dtype=dtype, requires_grad=True)
    items = torch.tensor([[size - 1], [size], [-size]], dtype=dtype, requires_grad=True)
    loss = listed_loss(
        users,
        items,
        lambda mass, score, rows: plackett_luce(score, mass.squeeze(1)).unsqueeze(0),
        torch.tensor([[0, 1]]),
        torch.ones(1, 2, dtype=torch.bool),
    )
    loss.sum().backward()
    assert items.grad[0].item() < -0.5
    assert items.grad[1].item() > 0.5
    assert 0 <= items.grad[2].item() < 1e-6
    assert users.grad.isfinite().all()


def test_left_out_entries_count_the_same_in_any_order() -> None:
    order = torch.argsort(ROW, stable=True)
    found = [
        listed_loss(*tables(torch.float64), head, LISTED, APART, *entries, sizes=SIZES, chunk=4)
        for entries in ((ROW, COLUMN), (ROW[order], COLUMN[order]))
    ]
    torch.testing.assert_close(found[0], found[1], rtol=1e-14, atol=0)


def test_terms_that_are_scaled_differently_have_no_common_gradient() -> None:
    some = tables(torch.float64)
    terms = listed_loss(*some, head, LISTED, APART, sizes=SIZES)
    (terms[0] + 2 * terms[1]).backward()
    assert some[0].grad.isnan().all()
    assert some[1].grad.isnan().all()
