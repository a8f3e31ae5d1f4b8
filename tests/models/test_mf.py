from __future__ import annotations

from typing import Any, ClassVar

import torch

from contracts import toys
from contracts.recommender import RecommenderContract
from recdistill.models.mf import MF


class TestMFWithBPR(RecommenderContract):
    refused: ClassVar[list[dict[str, Any]]] = [{"dim": 0}, {"loss": "hinge"}, {"init_std": 0.0}]

    def make(self) -> MF:
        return MF(dim=4)


class TestMFWithSoftmax(RecommenderContract):
    def make(self) -> MF:
        return MF(dim=4, loss="softmax")


def test_the_penalty_is_half_the_mean_squared_norm_of_the_rows_of_a_batch() -> None:
    model, batch = toys.model().requires_grad_(False), toys.batch(negatives=3)
    expected = 0.0
    for user, positive, negatives in zip(batch.user, batch.positive, batch.negative, strict=True):
        expected += float(model.user_table[user].square().sum() + model.item_table[positive].square().sum()) / 2
        expected += sum(float(model.item_table[n].square().sum()) for n in negatives) / 2 / 3
    torch.testing.assert_close(model.penalty(model.scorer(), batch), torch.tensor(expected / len(batch.user)))


def test_the_penalty_is_the_same_before_and_after_the_loss() -> None:
    model, batch = toys.model(), toys.batch(negatives=3)
    scorer = model.scorer()
    loss = model.loss(scorer, batch)
    after = model.penalty(scorer, batch)
    scorer = model.scorer()
    before = model.penalty(scorer, batch)
    assert model.loss(scorer, batch).equal(loss)
    assert after.equal(before)
    found, expected = (torch.autograd.grad(one, list(model.parameters())) for one in (after, before))
    assert all(map(torch.equal, found, expected))


def test_the_penalty_of_the_softmax_loss_leaves_the_unused_negatives_out() -> None:
    model, batch = toys.model(loss="softmax"), toys.batch()
    expected = model.user_table[batch.user].square().sum(1) + model.item_table[batch.positive].square().sum(1)
    torch.testing.assert_close(model.penalty(model.scorer(), batch), expected.mean() / 2)
