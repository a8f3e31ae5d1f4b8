from __future__ import annotations

import torch

from contracts import toys
from contracts.recommender import RecommenderContract
from recdistill.dataset.sampling import SeenItems
from recdistill.models.mostpop import MostPop
from recdistill.ranking import top_k
from recdistill.runtime import generator


class TestMostPop(RecommenderContract):
    def make(self) -> MostPop:
        return MostPop()


def mostpop() -> MostPop:
    model = MostPop()
    model.prepare(toys.interactions(), generator(0, "model"))
    return model


def test_the_score_is_the_number_of_training_users() -> None:
    score = mostpop().scorer().all_scores(torch.tensor([0, 5]))
    expected = [sum(item == i for item in toys.interactions().item.tolist()) for i in range(toys.N_ITEMS)]
    assert score.tolist() == [expected, expected]


def test_ranking_one_user_does_not_change_the_counts() -> None:
    model, seen = mostpop(), SeenItems(toys.interactions())
    before = model.scorer().all_scores(torch.tensor([0])).clone()
    top_k(model.scorer(), seen, torch.tensor([toys.FULL_USER]), toys.N_ITEMS, 3)
    assert model.scorer().all_scores(torch.tensor([0])).equal(before)


def test_there_is_nothing_to_train() -> None:
    assert not mostpop().trainable
    assert "live" not in MostPop.provides
