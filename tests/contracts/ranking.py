"""The contract of distillers that act on scores alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from contracts import toys
from contracts.distiller import DistillerContract
from recdistill.distill.base import Distiller
from recdistill.runtime import generator
from recdistill.types import Batch, Interactions, Knowledge, Trajectory


class RankingContract(DistillerContract):
    """Subclass it as `TestFoo`; `list_user` is one whose teacher list is long."""

    list_user: ClassVar[int] = 3

    def gradients(self, distiller: Distiller, student: Any, batch: Batch | None = None) -> tuple[Tensor, Tensor]:
        """The sum of the terms, and its gradient along the items' table."""
        student.zero_grad()
        total = sum(self.terms(distiller, student, batch).values())
        total.backward()
        return total, student.item_table.grad

    def test_scores_of_plus_and_minus_100_give_a_finite_loss_and_a_gradient(self) -> None:
        distiller, student = self.started()
        with torch.no_grad():
            most = student.scorer().all_scores(torch.arange(toys.N_USERS)).abs().max()
            for table in (student.user_table, student.item_table):
                table.mul_((100 / most).sqrt())
        distiller.on_epoch_start(1, student, generator(0, "distiller", 2))
        total, slope = self.gradients(distiller, student)
        assert total.isfinite()
        assert slope.isfinite().all()
        assert slope.abs().sum() > 0

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
    def test_other_precisions_give_the_same_terms_and_a_finite_gradient(self, dtype: torch.dtype) -> None:
        distiller, student = self.started()
        expected = self.terms(distiller, student)
        student.to(dtype)
        found = self.terms(distiller, student)
        distiller.on_epoch_start(1, student, generator(0, "distiller", 2))  # some rank with such a student
        total, slope = self.gradients(distiller, student)
        assert total.isfinite()
        assert slope.isfinite().all()
        assert slope.abs().sum() > 0
        for name, value in found.items():
            torch.testing.assert_close(value.float(), expected[name], rtol=0.1, atol=0.05)

    def test_a_users_seen_items_get_no_gradient(self) -> None:
        distiller, student = self.started()
        data = toys.interactions()
        for user in range(toys.N_USERS):
            seen = data.item[data.user == user]
            positive = seen[:1] if len(seen) else torch.tensor([toys.LONELY_ITEM])
            one = Batch(torch.tensor([user]), positive, torch.tensor([[1, 2]]))
            _, slope = self.gradients(distiller, student, one)
            touched = set(slope.abs().sum(1).nonzero().squeeze(1).tolist())
            assert not touched & (set(seen.tolist()) - set(self.allowed(one)))

    def test_users_with_one_unseen_item_or_none_have_a_finite_loss_and_touch_no_seen_item(self) -> None:
        data = toys.interactions()
        seen = torch.zeros(toys.N_USERS, toys.N_ITEMS, dtype=torch.bool)
        seen[data.user, data.item] = True
        seen[:2] = True
        seen[0, 5] = False
        full = Interactions(*seen.nonzero(as_tuple=True), toys.N_USERS, toys.N_ITEMS)
        distiller, student = self.make(), toys.model()
        labels = toys.labels(toys.model(seed=1), request=distiller.group_lists, data=full)
        distiller.prepare(Knowledge({"toy": Trajectory("toy", (labels,))}, {}), full, student, generator(0, "d"))
        distiller.on_epoch_start(0, student, generator(0, "d", 1))
        for user in (0, 1):
            one = Batch(torch.tensor([user]), torch.tensor([3]), torch.tensor([[5]]))
            total, slope = self.gradients(distiller, student, one)
            assert total.isfinite()
            assert slope.isfinite().all()
            touched = set(slope.abs().sum(1).nonzero().squeeze(1).tolist())
            assert touched <= ({5} if user == 0 else set()) | set(self.allowed(one))

    def allowed(self, batch: Batch) -> Sequence[int]:
        """Seen items that a method may touch (an item side works on a batch's own items)."""
        return []

    def test_the_same_seed_draws_the_same(self) -> None:
        (one, _), (same, _) = self.started(seed=4), self.started(seed=4)
        for name, value in tensors(one).items():
            assert value.equal(tensors(same)[name]), name


def tensors(distiller: Distiller) -> dict[str, Tensor]:
    """All that a distiller keeps, by name."""
    return {
        f"{path}.{name}": value
        for path, module in distiller.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, Tensor)
    }


def slopes(distiller: Distiller, student: Any, user: int, positive: int = 0) -> Tensor:
    """How the terms of one user change as each item's score rises: [I], through the score of the items alone."""
    scorer = student.scorer()
    vectors = scorer.item_vectors.detach().clone().requires_grad_()
    scorer.item_vectors = vectors
    one = Batch(torch.tensor([user]), torch.tensor([positive]), torch.tensor([[1]]))
    sum(distiller(scorer, one).values()).backward()
    return vectors.grad @ scorer.user_vectors[user].detach()
