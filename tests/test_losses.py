from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from recdistill.catalogue import Head, catalogue_loss
from recdistill.errors import ShapeError
from recdistill.losses import (
    bpr,
    distinct,
    joined_masses,
    pairwise,
    plackett_luce,
    relaxed_ranking,
    weighted_mean,
)

INTERESTING = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
UNINTERESTING = torch.tensor([[0.0, -1.0]], dtype=torch.float64)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_list_loss(interesting: Tensor, uninteresting: Tensor, weight: Tensor, valid: Tensor, rest: Tensor) -> float:
    """The formula in loops: sum over rows and positions of log(later interesting + uninteresting) - own score."""
    total = 0.0
    for b in range(len(interesting)):
        for k in range(interesting.shape[1]):
            if not valid[b, k]:
                continue
            mass = 0.0
            for j in range(k, interesting.shape[1]):
                mass += math.exp(interesting[b, j]) if valid[b, j] else 0.0
            for j in range(uninteresting.shape[1]):
                mass += math.exp(uninteresting[b, j]) if rest[b, j] else 0.0
            total += float(weight[b]) * (math.log(mass) - float(interesting[b, k]))
    return total


def prefix_mask(lengths: list[int], width: int) -> Tensor:
    return torch.arange(width) < torch.tensor(lengths).unsqueeze(1)


def test_relaxed_ranking_has_the_worked_value() -> None:
    assert relaxed_ranking(INTERESTING, UNINTERESTING).item() == pytest.approx(1.350698, abs=1e-6)


def test_relaxed_ranking_of_the_reversed_order_has_the_worked_value() -> None:
    assert relaxed_ranking(INTERESTING.flip(1), UNINTERESTING).item() == pytest.approx(1.654173, abs=1e-6)


@pytest.mark.parametrize("shift", [100.0, -100.0])
def test_relaxed_ranking_does_not_change_when_all_scores_of_a_user_shift(shift: float) -> None:
    assert relaxed_ranking(INTERESTING + shift, UNINTERESTING + shift).item() == pytest.approx(1.350698, abs=1e-6)


def test_relaxed_ranking_ignores_the_order_of_uninteresting_items() -> None:
    interesting, uninteresting = randn(3, 4), randn(3, 6, seed=1)
    shuffled = uninteresting[:, torch.tensor([3, 1, 5, 0, 2, 4])]
    torch.testing.assert_close(
        relaxed_ranking(interesting, uninteresting), relaxed_ranking(interesting, shuffled), rtol=1e-12, atol=0
    )


def test_raising_an_uninteresting_score_raises_relaxed_ranking() -> None:
    uninteresting = randn(3, 6).requires_grad_()
    relaxed_ranking(randn(3, 4, seed=1), uninteresting).backward()
    assert (uninteresting.grad > 0).all()


def test_bpr_has_the_worked_value() -> None:
    assert bpr(torch.tensor([0.7]), torch.tensor([[0.0]])).item() == pytest.approx(0.403186, abs=1e-6)


def test_pairwise_has_the_worked_value_of_unkd() -> None:
    better = torch.tensor([[0.5, -0.2]], dtype=torch.float64)
    loss = pairwise(better, torch.zeros(1, 2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.bool))
    assert loss.item() == pytest.approx(0.636108, abs=1e-6)


def test_relaxed_ranking_equals_the_formula_in_loops() -> None:
    interesting, uninteresting = randn(5, 4), randn(5, 7, seed=1)
    weight = torch.tensor([0.1, 0.4, 0.0, 0.3, 0.2], dtype=torch.float64)
    valid = prefix_mask([4, 2, 3, 1, 0], 4)
    rest_valid = prefix_mask([7, 0, 3, 1, 7], 7)
    loss = relaxed_ranking(interesting, uninteresting, weight, valid, rest_valid)
    assert loss.item() == pytest.approx(
        slow_list_loss(interesting, uninteresting, weight, valid, rest_valid), rel=1e-12
    )


def test_relaxed_ranking_without_weights_is_the_mean_over_rows() -> None:
    interesting, uninteresting = randn(4, 3), randn(4, 5, seed=1)
    everything = torch.ones(4, 5, dtype=torch.bool)
    weight = torch.full((4,), 0.25)
    expected = slow_list_loss(interesting, uninteresting, weight, everything[:, :3], everything)
    assert relaxed_ranking(interesting, uninteresting).item() == pytest.approx(expected, rel=1e-12)


def test_plackett_luce_equals_the_formula_in_loops() -> None:
    score, rest = randn(4, 5), randn(4, 1, seed=1)
    valid = prefix_mask([5, 3, 1, 4], 5)
    weight = torch.full((4,), 0.25)
    expected = slow_list_loss(score, rest, weight, valid, torch.ones(4, 1, dtype=torch.bool))
    assert plackett_luce(score, rest.squeeze(1), valid).item() == pytest.approx(expected, rel=1e-12)


def test_plackett_luce_without_a_rest_is_the_likelihood_of_the_order_alone() -> None:
    score = randn(2, 3).requires_grad_()
    loss = plackett_luce(score, torch.full((2,), -torch.inf, dtype=torch.float64))
    everything = torch.ones(2, 3, dtype=torch.bool)
    expected = slow_list_loss(score.detach(), torch.zeros(2, 0), torch.full((2,), 0.5), everything, everything)
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    loss.backward()
    assert score.grad.isfinite().all()


def test_plackett_luce_gives_padded_entries_no_gradient_whatever_they_hold() -> None:
    score = torch.tensor([[1.0, 0.0, 1e30], [1.0, torch.inf, -torch.inf]], requires_grad=True)
    loss = plackett_luce(score, torch.zeros(2), prefix_mask([2, 1], 3))
    loss.backward()
    assert loss.isfinite()
    assert score.grad[0, 2] == 0
    assert score.grad[1, 1:].tolist() == [0, 0]
    assert (score.grad[:, 0] < 0).all()


@pytest.mark.parametrize("size", [1.0, 300.0])
def test_joined_masses_and_their_gradient_equal_a_logsumexp_per_group(size: float) -> None:
    mass, score = (size * randn(5, 3)).requires_grad_(), (size * randn(5, 6, seed=1)).requires_grad_()
    group = torch.randint(4, (5, 6), generator=torch.Generator().manual_seed(2))  # 3: none
    members = [(group == g).unsqueeze(1) for g in range(3)]
    others = [score.unsqueeze(1).masked_fill(~member, -1e300).squeeze(1) for member in members]
    expected = torch.stack([torch.cat([mass[:, g : g + 1], others[g]], 1).logsumexp(1) for g in range(3)], 1)
    found = joined_masses(mass, score, group)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    weight = randn(5, 3, seed=4)
    mine, wanted = (torch.autograd.grad((weight * one).sum(), (mass, score)) for one in (found, expected))
    torch.testing.assert_close(mine, wanted, rtol=1e-12, atol=1e-12)


def test_a_group_that_nothing_is_in_has_the_lowest_mass_and_no_gradient() -> None:
    mass = torch.tensor([[-torch.inf, 0.0]], requires_grad=True)
    score = torch.tensor([[2.0]], requires_grad=True)
    found = joined_masses(mass, score, torch.tensor([[1]]))
    found.sum().backward()
    assert found[0, 0].item() == torch.finfo(torch.float32).min
    assert mass.grad[0, 0] == 0
    assert score.grad.item() == pytest.approx(1 / (1 + math.exp(-2)))


def test_bpr_equals_the_formula_in_loops() -> None:
    positive, negative = randn(4), randn(4, 3, seed=1)
    terms = [
        math.log1p(math.exp(float(negative[b, n] - positive[b]))) for b in range(4) for n in range(negative.shape[1])
    ]
    assert bpr(positive, negative).item() == pytest.approx(sum(terms) / 12, rel=1e-12)


def test_pairwise_equals_the_formula_in_loops() -> None:
    better, worse = randn(4, 5), randn(4, 5, seed=1)
    valid = torch.rand(4, 5, generator=torch.Generator().manual_seed(2)) < 0.6
    valid[2] = False
    weight = torch.tensor([0.5, 0.2, 0.2, 0.1], dtype=torch.float64)
    rows = []
    for b in range(4):
        terms = [math.log1p(math.exp(float(worse[b, p] - better[b, p]))) for p in range(5) if valid[b, p]]
        rows.append(sum(terms) / len(terms) if terms else 0.0)
    assert pairwise(better, worse, valid).item() == pytest.approx(sum(rows) / 4, rel=1e-12)
    expected = sum(row * float(w) for row, w in zip(rows, weight, strict=True))
    assert pairwise(better, worse, valid, weight).item() == pytest.approx(expected, rel=1e-12)


def test_the_losses_gradients_equal_numerical_ones() -> None:
    valid, rest_valid = prefix_mask([3, 2], 3), prefix_mask([4, 1], 4)
    some = [randn(2, 3).requires_grad_(), randn(2, 4, seed=1).requires_grad_()]
    weight = torch.tensor([0.3, 0.7], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda a, c: relaxed_ranking(a, c, weight, valid, rest_valid), some)
    assert torch.autograd.gradcheck(
        lambda a, c: plackett_luce(a, c, valid), [some[0], randn(2, seed=3).requires_grad_()]
    )
    assert torch.autograd.gradcheck(bpr, [randn(2).requires_grad_(), some[1]])
    worse = randn(2, 3, seed=4).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: pairwise(a, b, valid, weight), [some[0], worse])


def weighted(weight: Tensor) -> Head:
    """The weighted sum of masses, as a loss of them."""
    return lambda mass, rows: (weight[rows] * mass).sum()


@pytest.mark.parametrize("chunk", [None, 1, 2])
def test_catalogue_loss_gradients_equal_numerical_ones(chunk: int | None) -> None:
    row, column = torch.tensor([0, 2, 0, 3]), torch.tensor([1, 0, 4, 2])  # row 3 is padding
    tables = [randn(3, 2).requires_grad_(), randn(5, 2, seed=1).requires_grad_()]
    kept = randn(3, 4, seed=2).requires_grad_()

    def loss(users: Tensor, items: Tensor, kept: Tensor) -> Tensor:
        def head(mass: Tensor, rows: slice) -> Tensor:
            return plackett_luce(kept[rows], mass, weight=torch.ones(len(mass), dtype=torch.float64))

        return catalogue_loss(users, items, head, row, column, chunk=chunk)

    assert torch.autograd.gradcheck(loss, [*tables, kept])


def left_out() -> tuple[Tensor, Tensor]:
    """Entries of 6 rows and 9 items in no order; row 4 stays whole, rows of 6 and more are padding."""
    row = torch.tensor([5, 0, 0, 2, 3, 1, 5, 5, 6, 17, 0])
    column = torch.tensor([8, 0, 3, 2, 7, 1, 0, 4, 5, 0, 8])
    return row, column


def plain_mass(users: Tensor, items: Tensor, row: Tensor, column: Tensor) -> Tensor:
    score = users @ items.T
    mask = torch.zeros_like(score, dtype=torch.bool)
    for r, c in zip(row.tolist(), column.tolist(), strict=True):
        if r < len(users):
            mask[r, c] = True
    return score.masked_fill(mask, -torch.inf).logsumexp(1)


@pytest.mark.parametrize("chunk", [None, 1, 4, 6, 100])
def test_catalogue_loss_equals_a_plain_logsumexp_in_value_and_gradient(chunk: int | None) -> None:
    row, column = left_out()
    weight = randn(6, seed=3)
    tables = [randn(6, 4).requires_grad_(), randn(9, 4, seed=1).requires_grad_()]
    value = catalogue_loss(*tables, weighted(weight), row, column, chunk=chunk)
    expected = (weight * plain_mass(*tables, row, column)).sum()
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    found = torch.autograd.grad(3 * value, tables)
    wanted = torch.autograd.grad(3 * expected, tables)
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-12)


def test_no_scores_are_kept_for_the_backward_pass() -> None:
    users, items = randn(6, 4).requires_grad_(), randn(9, 4, seed=1).requires_grad_()
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        catalogue_loss(users, items, weighted(randn(6, seed=2)), chunk=2)
    assert {tuple(tensor.shape) for tensor in saved} >= {(6, 4), (9, 4)}
    assert all(tensor.shape[-1] != 9 for tensor in saved)


def test_masses_far_below_the_rows_best_score_are_counted_and_cost_no_accuracy() -> None:
    users, items = torch.ones(1, 1, dtype=torch.float64), torch.tensor([[0.0], [-20.0], [-200.0]], dtype=torch.float64)
    value = catalogue_loss(users, items, weighted(torch.ones(1, dtype=torch.float64)))
    assert value.item() == pytest.approx(math.log(1 + math.exp(-20)), rel=1e-12)


def test_a_row_that_is_all_padding_counts_nothing_and_gets_no_gradient() -> None:
    score = randn(2, 3).requires_grad_()
    rest = randn(2, seed=1).requires_grad_()
    plackett_luce(score, rest, prefix_mask([0, 2], 3), torch.tensor([0.5, 0.5], dtype=torch.float64)).backward()
    assert score.grad[0].tolist() == [0, 0, 0]
    assert rest.grad[0] == 0
    assert score.grad[1, :2].abs().min() > 0


def masses(users: Tensor, items: Tensor, row: Tensor | None = None, column: Tensor | None = None) -> list[float]:
    """The masses that a head is given over all rows."""
    seen: list[Tensor] = []

    def head(mass: Tensor, rows: slice) -> Tensor:
        seen.append(mass.detach())
        return mass.sum()

    catalogue_loss(users, items, head, row, column)
    return seen[-1].tolist()


def test_the_masses_equal_sums_of_exponentials_in_loops() -> None:
    users, items = randn(3, 2), randn(4, 2, seed=1)
    row, column = torch.tensor([1, 1, 2]), torch.tensor([0, 3, 2])
    skipped = set(zip(row.tolist(), column.tolist(), strict=True))
    for b, value in enumerate(masses(users, items, row, column)):
        mass = 0.0
        for i in range(4):
            score = sum(float(users[b, d] * items[i, d]) for d in range(2))
            mass += 0.0 if (b, i) in skipped else math.exp(score)
        assert value == pytest.approx(math.log(mass), rel=1e-12)


def test_a_row_without_any_item_has_mass_minus_infinity_and_no_gradient() -> None:
    users, items = randn(2, 3).requires_grad_(), randn(4, 3, seed=1).requires_grad_()
    row, column = torch.zeros(4, dtype=torch.long), torch.arange(4)
    assert masses(users, items, row, column)[0] == -torch.inf
    assert masses(users, items, row, column)[1] == pytest.approx((users[1] @ items.T).logsumexp(0).item())
    catalogue_loss(users, items, lambda mass, rows: mass.logaddexp(torch.zeros(())).sum(), row, column).backward()
    assert users.grad.isfinite().all()
    assert items.grad.isfinite().all()
    assert users.grad[0].tolist() == [0, 0, 0]
    assert users.grad[1].abs().sum() > 0


def test_an_empty_rest_from_the_catalogue_passes_no_nan_through_the_list_loss() -> None:
    users, items = randn(1, 3).requires_grad_(), randn(4, 3, seed=1).requires_grad_()
    score = users @ items.T
    loss = catalogue_loss(
        users,
        items,
        lambda rest, rows: plackett_luce(score[rows], rest),
        torch.zeros(4, dtype=torch.long),
        torch.arange(4),
    )
    loss.backward()
    assert loss.isfinite()
    assert users.grad.isfinite().all()
    assert users.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [100.0, 1e4])
def test_losses_stay_finite_and_pull_where_extreme_scores_are_in_the_wrong_order(
    dtype: torch.dtype, size: float
) -> None:
    low, high = torch.full((2, 3), -size, dtype=dtype), torch.full((2, 3), size, dtype=dtype)
    everything = torch.ones(2, 3, dtype=torch.bool)
    for loss_of in (
        lambda better, worse: relaxed_ranking(better, worse),
        lambda better, worse: pairwise(better, worse, everything),
        lambda better, worse: bpr(better[:, 0], worse),
    ):
        better, worse = low.clone().requires_grad_(), high.clone().requires_grad_()
        loss = loss_of(better, worse)
        loss.backward()
        assert loss.isfinite()
        assert loss >= size
        assert better.grad.isfinite().all()
        assert worse.grad.isfinite().all()
        assert (better.grad[:, 0] < 0).all()
        assert (worse.grad > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [100.0, 1e4])
def test_losses_are_near_zero_where_extreme_scores_are_in_the_right_order(dtype: torch.dtype, size: float) -> None:
    better = torch.tensor([[size, 0.0]], dtype=dtype, requires_grad=True)
    loss = relaxed_ranking(better, torch.full((1, 2), -size, dtype=dtype))
    loss.backward()
    assert 0 <= loss.item() < 1e-6
    assert better.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [10.0, 100.0])
def test_catalogue_loss_stays_finite_at_extreme_scores(dtype: torch.dtype, size: float) -> None:
    users = torch.tensor([[size], [-size], [0.0]], dtype=dtype, requires_grad=True)
    items = torch.tensor([[size], [-size], [0.0]], dtype=dtype, requires_grad=True)
    catalogue_loss(users, items, weighted(torch.ones(3, dtype=dtype))).backward()
    assert masses(users, items)[:2] == pytest.approx([size * size] * 2, rel=1e-2)
    assert users.grad.isfinite().all()
    assert items.grad.isfinite().all()
    assert users.grad[:2].abs().min() > 0


@pytest.mark.parametrize("per_row", [False, True])
@pytest.mark.parametrize("ids", [[3, 1, 3, 3, 0, 1], [5], [2, 2, 2], [4, 3, 2, 1]])
def test_both_forms_of_distinct_give_every_weighted_sum_the_same_value(ids: list[int], per_row: bool) -> None:
    value = torch.arange(6, dtype=torch.float32) ** 2 + 1
    fixed, fixed_weight = distinct(torch.tensor(ids), per_row=per_row, static=True)
    compact, compact_weight = distinct(torch.tensor(ids), per_row=per_row, static=False)
    assert len(fixed) == len(ids)
    assert compact.tolist() == sorted(set(ids))
    assert (compact_weight > 0).all()
    assert weighted_mean(value[fixed], fixed_weight).item() == pytest.approx(
        weighted_mean(value[compact], compact_weight).item(), rel=1e-6
    )
    over = ids if per_row else sorted(set(ids))
    assert weighted_mean(value[compact], compact_weight).item() == pytest.approx(
        float(value[torch.tensor(over)].mean()), rel=1e-6
    )


def test_distinct_weights_an_id_by_its_share_of_the_rows() -> None:
    user, weight = distinct(torch.tensor([7, 2, 7, 7]), per_row=True)
    assert user.tolist() == [2, 7]
    assert weight.tolist() == [0.25, 0.75]


def test_rows_that_do_not_fit_are_a_shape_error_that_names_both_shapes() -> None:
    with pytest.raises(ShapeError, match=r"\(2, 3\) and rest \(4,\)") as caught:
        relaxed_ranking(torch.zeros(2, 3), torch.zeros(4, 5))
    assert "K >= 1" in caught.value.why


def test_an_empty_list_is_a_shape_error() -> None:
    with pytest.raises(ShapeError, match=r"\(2, 0\)"):
        plackett_luce(torch.zeros(2, 0), torch.zeros(2))
