"""The contract of recommenders."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from contracts import toys
from recdistill.errors import SettingsError
from recdistill.models.base import Recommender
from recdistill.runtime import generator
from recdistill.training.checkpoint import load_weights, save_weights


class RecommenderContract:
    """Subclass it as `TestFoo` and say how a Foo is made; `refused` are settings out of range."""

    refused: ClassVar[list[dict[str, Any]]] = []

    def make(self) -> Recommender:
        raise NotImplementedError

    def prepared(self, seed: int = 0) -> Recommender:
        model = self.make()
        model.prepare(toys.interactions(), generator(seed, "model"))
        return model

    def test_all_scores_are_finite_and_of_shape_users_by_items(self) -> None:
        score = self.prepared().scorer().all_scores(torch.arange(toys.N_USERS))
        assert score.shape == (toys.N_USERS, toys.N_ITEMS)
        assert score.dtype == torch.float32
        assert score.isfinite().all()

    def test_pair_scores_agree_with_all_scores(self) -> None:
        scorer, user = self.prepared().scorer(), torch.tensor([3, 0, 3, toys.LONELY_USER])
        item = torch.tensor([[0, 16], [5, 5], [2, 1], [7, 3]])
        expected = scorer.all_scores(user).gather(1, item)
        torch.testing.assert_close(scorer.pair_scores(user, item), expected, rtol=1e-5, atol=1e-6)

    def test_what_scores_a_batch_alone_gives_its_loss_penalty_and_gradients(self) -> None:
        batch, found = toys.batch(rows=3), []
        for model in (self.prepared(), self.prepared()):
            scorer = model.batch_scorer(batch) if found else model.scorer()
            terms = torch.stack([model.penalty(scorer, batch), model.loss(scorer, batch)])
            if model.trainable:
                terms.sum().backward()
            found.append([terms.detach(), *(parameter.grad for parameter in model.parameters())])
        torch.testing.assert_close(*found)

    def test_one_user_is_scored_as_among_many(self) -> None:
        scorer = self.prepared().scorer()
        alone, among = scorer.all_scores(torch.tensor([4])), scorer.all_scores(torch.arange(toys.N_USERS))
        torch.testing.assert_close(alone, among[4:5], rtol=1e-5, atol=1e-6)

    def test_overwriting_scores_changes_no_later_scores(self) -> None:
        scorer = self.prepared().scorer()
        with torch.no_grad():
            for user in (torch.tensor([4]), torch.arange(toys.N_USERS)):
                before = scorer.all_scores(user).clone()
                scorer.all_scores(user).contiguous().fill_(-torch.inf)
                assert scorer.all_scores(user).equal(before)

    def test_a_catalogue_loss_and_its_gradient_are_those_of_the_logsumexp_of_all_scores(self) -> None:
        user, share = torch.tensor([1, 1, 8]), torch.tensor([0.2, 0.5, 1.5])
        self.same_loss_and_gradient(user, share, None, None)

    def test_a_catalogue_loss_leaves_out_the_pairs_named_and_ignores_padding(self) -> None:
        user, share = torch.tensor([1, 5, 8]), torch.tensor([0.2, 0.5, 1.5])
        row, item = torch.tensor([0, 2, 2, 3, 9]), torch.tensor([4, 0, 16, 1, 2])
        self.same_loss_and_gradient(user, share, row, item)

    def same_loss_and_gradient(self, user: Tensor, share: Tensor, row: Tensor | None, item: Tensor | None) -> None:
        """The loss sum of share * mass^2, by `catalogue_loss` and by hand."""
        one, other = self.prepared(), self.prepared()
        found = one.scorer().catalogue_loss(user, lambda mass, rows: (share[rows] * mass.square()).sum(), row, item)
        score = other.scorer().all_scores(user)
        if row is not None and item is not None:
            left_out = torch.zeros_like(score, dtype=torch.bool)
            left_out[row[row < len(user)], item[row < len(user)]] = True
            score = score.masked_fill(left_out, -torch.inf)
        expected = (share * score.logsumexp(1).square()).sum()
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        if one.trainable:
            found.backward()
            expected.backward()
            for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
                torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-5)

    def test_the_scores_are_the_inner_products_of_the_vectors_where_there_are_vectors(self) -> None:
        model = self.prepared()
        scorer = model.scorer()
        assert ("vectors" in model.provides) == (scorer.user_vectors is not None)
        if scorer.user_vectors is not None:
            assert scorer.item_vectors is not None
            everybody = torch.arange(toys.N_USERS)
            product = scorer.user_vectors @ scorer.item_vectors.T
            torch.testing.assert_close(product, scorer.all_scores(everybody), rtol=1e-5, atol=1e-6)

    def test_saved_and_loaded_weights_give_equal_scores(self, tmp_path: Path) -> None:
        model, other, user = self.prepared(), self.prepared(seed=1), torch.arange(toys.N_USERS)
        save_weights(tmp_path / "model.safetensors", model.state_dict())
        other.load_state_dict(load_weights(tmp_path / "model.safetensors"))
        assert other.scorer().all_scores(user).equal(model.scorer().all_scores(user))

    def test_the_same_generator_state_gives_the_same_weights_and_another_gives_others(self) -> None:
        one, same, other = (self.prepared(seed).state_dict() for seed in (0, 0, 1))
        assert all(one[name].equal(same[name]) for name in one)
        if self.make().provides >= {"live"}:
            assert any(not one[name].equal(other[name]) for name in one)

    def test_the_loss_is_a_finite_scalar_whose_gradient_is_finite(self) -> None:
        model, batch = self.prepared(), toys.batch()
        loss = model.loss(model.scorer(), batch)
        assert loss.shape == ()
        assert loss.isfinite()
        if model.trainable:
            loss.backward()
            gradients = [parameter.grad for parameter in model.parameters()]
            assert all(grad is not None and grad.isfinite().all() and grad.abs().sum() > 0 for grad in gradients)

    def test_the_loss_is_a_mean_so_that_repeating_every_row_changes_nothing(self) -> None:
        model, batch = self.prepared(), toys.batch()
        twice = type(batch)(*(torch.cat([value, value]) for value in (batch.user, batch.positive, batch.negative)))
        for value in (model.loss, model.penalty):
            torch.testing.assert_close(value(model.scorer(), twice), value(model.scorer(), batch))

    def test_a_batch_of_one_row_has_a_finite_loss(self) -> None:
        model = self.prepared()
        assert model.loss(model.scorer(), toys.batch(rows=1)).isfinite()

    def test_the_penalty_is_a_scalar_of_at_least_zero(self) -> None:
        model = self.prepared()
        penalty = model.penalty(model.scorer(), toys.batch())
        assert penalty.shape == ()
        assert (penalty > 0) if model.trainable else (penalty == 0)

    def test_settings_out_of_range_are_refused_by_name(self) -> None:
        for settings in self.refused:
            (key,) = settings
            with pytest.raises(SettingsError) as caught:
                type(self.make())(**settings)
            assert key in caught.value.what
