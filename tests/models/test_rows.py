from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from recdistill.models import rows
from recdistill.models.base import InnerProductScorer
from recdistill.models.rows import bpr_and_half_squares, half_squares, pair_scores


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
    monkeypatch.setattr(rows, "AT_ONCE_BYTES", 0)
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


def test_some_items_of_a_table_keep_the_users_gradient_by_rows() -> None:
    users, items = tables()
    among = InnerProductScorer(users, items, by_rows=True).among(torch.tensor([6, 0, 2, 5, 1]))
    among.pair_scores(USER, ITEM.clamp(max=4)).sum().backward()
    assert users.grad is not None and users.grad.is_sparse
    assert items.grad is not None and not items.grad.is_sparse
    whole, copy = tables()
    dense = InnerProductScorer(whole, copy).among(torch.tensor([6, 0, 2, 5, 1]))
    dense.pair_scores(USER, ITEM.clamp(max=4)).sum().backward()
    torch.testing.assert_close(users.grad.to_dense(), whole.grad)
    torch.testing.assert_close(items.grad, copy.grad)


def test_a_table_that_needs_no_gradient_gets_none() -> None:
    users, items = tables()
    pair_scores(users.detach(), items, USER, ITEM).sum().backward()
    assert users.grad is None
    assert items.grad is not None


@pytest.mark.parametrize("few", [0, 1, 7, 8, 9])
def test_the_gradient_of_users_is_the_same_with_few_and_with_many_items(few: int) -> None:
    users, items = tables()
    item = torch.randint(7, (5, few), generator=torch.Generator().manual_seed(3))
    (found,) = torch.autograd.grad(pair_scores(users, items, USER, item).square().sum(), users)
    plain = (nn.functional.embedding(USER, users).unsqueeze(1) * nn.functional.embedding(item, items)).sum(2)
    (expected,) = torch.autograd.grad(plain.square().sum(), users)
    torch.testing.assert_close(found, expected)


def plain_bpr(users: Tensor, items: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    """The loss and half the mean squared norms, term by term, by autograd's own look-ups."""
    losses, squares = [], []
    for row, user in enumerate(USER):
        of_user, positive = users[user], items[POSITIVE[row]]
        squares += [of_user.square().sum(), positive.square().sum()]
        for bad in negative[row]:
            losses.append(-torch.log(torch.sigmoid(of_user @ positive - of_user @ items[bad])))
            squares.append(items[bad].square().sum() / negative.shape[1])
    return torch.stack(losses).mean(), torch.stack(squares).sum() / (2 * len(USER))


POSITIVE = torch.tensor([4, 6, 6, 1, 4])


@pytest.mark.parametrize("negatives", [1, 2, 9])
@pytest.mark.parametrize("by_rows", [False, True])
@pytest.mark.parametrize("weights", [(1.0, 0.01), (1.0, 0.0), (0.0, 2.0)])
def test_a_bpr_step_has_the_values_and_gradients_of_plain_look_ups(
    negatives: int, by_rows: bool, weights: tuple[float, float]
) -> None:
    users, items = tables()
    negative = torch.randint(7, (5, negatives), generator=torch.Generator().manual_seed(2))
    found = bpr_and_half_squares(users, items, USER, POSITIVE, negative, by_rows=by_rows)
    expected = plain_bpr(users, items, negative)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    gradients = []
    for terms in (found, expected):
        total = torch.stack([weight * term for weight, term in zip(weights, terms, strict=True) if weight]).sum()
        gradients.append(torch.autograd.grad(total, (users, items)))
    for one, other in zip(*gradients, strict=True):
        assert one.is_sparse is by_rows
        torch.testing.assert_close(one.to_dense(), other, rtol=1e-10, atol=1e-12)


def test_a_bpr_step_in_float32_has_the_gradients_of_float64_to_a_millionth() -> None:
    made = torch.Generator().manual_seed(0)
    users, items = (torch.randn(n, 64, generator=made, dtype=torch.float64) * 0.3 for n in (40, 50))
    user, positive = torch.randint(40, (300,), generator=made), torch.randint(50, (300,), generator=made)
    negative = torch.randint(50, (300, 1), generator=made)
    exact = [table.clone().requires_grad_() for table in (users, items)]
    of_user, of_positive, of_negative = exact[0][user], exact[1][positive], exact[1][negative[:, 0]]
    loss = -nn.functional.logsigmoid((of_user * of_positive).sum(1) - (of_user * of_negative).sum(1)).mean()
    squares = (of_user.square() + of_positive.square() + of_negative.square()).sum() / (2 * len(user))
    expected = torch.autograd.grad(loss + 0.001 * squares, exact)
    single = [table.float().requires_grad_() for table in (users, items)]
    base, penalty = bpr_and_half_squares(*single, user, positive, negative)
    for one, other in zip(torch.autograd.grad(base + 0.001 * penalty, single), expected, strict=True):
        assert (one.double() - other).norm() <= 1e-6 * other.norm()


@pytest.mark.parametrize("negatives", [1, 3])
@pytest.mark.parametrize("by_rows", [False, True])
def test_a_bpr_step_without_squares_has_the_same_loss_and_gradients(negatives: int, by_rows: bool) -> None:
    users, items = tables()
    negative = torch.randint(7, (5, negatives), generator=torch.Generator().manual_seed(2))
    alone, nothing = bpr_and_half_squares(users, items, USER, POSITIVE, negative, by_rows=by_rows, squares=False)
    both, _ = bpr_and_half_squares(users, items, USER, POSITIVE, negative, by_rows=by_rows)
    assert nothing is None
    assert alone.equal(both)
    for one, other in zip(*(torch.autograd.grad(loss, (users, items)) for loss in (alone, both)), strict=True):
        assert one.to_dense().equal(other.to_dense())


def test_a_bpr_step_gives_a_table_that_needs_no_gradient_none() -> None:
    for frozen in (0, 1):
        both = tables()
        both[frozen].requires_grad_(False)
        bpr_and_half_squares(*both, USER, POSITIVE, ITEM)[0].backward()
        assert both[frozen].grad is None
        assert both[1 - frozen].grad is not None


def test_a_bpr_step_on_vectors_made_of_parameters_hands_its_gradient_on() -> None:
    users, items = tables()
    base, penalty = bpr_and_half_squares(2 * users, 2 * items, USER, POSITIVE, ITEM)
    expected = plain_bpr(2 * users, 2 * items, ITEM)
    found = torch.autograd.grad(base + penalty, (users, items))
    torch.testing.assert_close(found, torch.autograd.grad(sum(expected), (users, items)))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("by_rows", [False, True])
def test_half_squares_count_every_row_as_often_as_it_is_named(weighted: bool, by_rows: bool) -> None:
    table, _ = tables()
    weight = torch.tensor([1.0, 0.5, 2.0, 1.0, 0.0], dtype=torch.float64).unsqueeze(1)
    total = half_squares(table, USER, weight if weighted else None, by_rows=by_rows)
    picked = nn.functional.embedding(USER, table)
    plain = (picked.square() * (weight if weighted else 1)).sum() / 2
    torch.testing.assert_close(total, plain)
    (found,), (expected,) = torch.autograd.grad(3 * total, table), torch.autograd.grad(3 * plain, table)
    assert found.is_sparse is by_rows
    torch.testing.assert_close(found.to_dense(), expected)
