from __future__ import annotations

import math

import pytest
import torch

from contracts import toys
from recdistill.losses import distinct
from recdistill.models.base import InnerProductScorer, Scorer, own_loss


def double_scorer() -> InnerProductScorer:
    model = toys.model().double()
    return model.scorer()


def test_the_softmax_loss_equals_a_slow_loop() -> None:
    scorer, batch = double_scorer(), toys.batch()
    score = scorer.all_scores(torch.arange(toys.N_USERS)).tolist()
    total = 0.0
    for user, positive in zip(batch.user.tolist(), batch.positive.tolist(), strict=True):
        total += math.log(sum(math.exp(value) for value in score[user])) - score[user][positive]
    assert own_loss("softmax", scorer, batch).item() == pytest.approx(total / len(batch.user), rel=1e-6)


def test_the_softmax_loss_with_repeats_that_weigh_nothing_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = []
    for static in (False, True):
        monkeypatch.setitem(distinct.__kwdefaults__, "static", static)
        losses.append(own_loss("softmax", double_scorer(), toys.batch()))
    torch.testing.assert_close(*losses, rtol=1e-6, atol=1e-9)


def test_the_bpr_loss_equals_a_slow_loop() -> None:
    scorer, batch = double_scorer(), toys.batch(negatives=3)
    score = scorer.all_scores(torch.arange(toys.N_USERS)).tolist()
    total = 0.0
    for user, positive, negatives in zip(
        batch.user.tolist(), batch.positive.tolist(), batch.negative.tolist(), strict=True
    ):
        total += sum(math.log1p(math.exp(score[user][n] - score[user][positive])) for n in negatives) / 3
    assert own_loss("bpr", scorer, batch).item() == pytest.approx(total / len(batch.user), rel=1e-9)


def test_the_catalogue_loss_of_any_scorer_equals_that_of_an_inner_product() -> None:
    scorer, user = double_scorer(), torch.tensor([2, 7])
    row, item = torch.tensor([0, 1, 1, 2]), torch.tensor([3, 3, 9, 0])
    for pairs in ((), (row, item)):
        general = Scorer.catalogue_loss(scorer, user, lambda mass, rows: mass.exp().sum(), *pairs)
        torch.testing.assert_close(general, scorer.catalogue_loss(user, lambda mass, rows: mass.exp().sum(), *pairs))


def test_a_transposed_scorer_scores_users_of_items() -> None:
    scorer, user, item = double_scorer(), torch.tensor([[2, 7], [1, 0]]), torch.tensor([3, 16])
    score = scorer.all_scores(torch.arange(toys.N_USERS))
    torch.testing.assert_close(scorer.transposed().all_scores(item), score.T[item])
    torch.testing.assert_close(scorer.transposed().pair_scores(item, user), score.T[item].gather(1, user))


def test_the_scorer_of_some_items_scores_those() -> None:
    scorer, user, item = double_scorer(), torch.tensor([2, 7]), torch.tensor([9, 3, 16])
    score = scorer.all_scores(user)[:, item]
    pairs = torch.tensor([[2, 0], [1, 1]])
    for some in (scorer.among(item), Scorer.among(scorer, item)):
        torch.testing.assert_close(some.all_scores(user), score)
        torch.testing.assert_close(some.pair_scores(user, pairs), score.gather(1, pairs))
        mass = some.catalogue_loss(user, lambda mass, rows: mass.sum())
        torch.testing.assert_close(mass, score.logsumexp(1).sum())
