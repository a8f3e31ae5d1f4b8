from __future__ import annotations

import numpy as np
import pytest
import torch

from contracts import toys
from recdistill.dataset.popularity import popularity_groups
from recdistill.dataset.sampling import SeenItems
from recdistill.errors import ConfigError
from recdistill.models.base import Recommender
from recdistill.models.mostpop import MostPop
from recdistill.runtime import generator
from recdistill.soft_labels.extract import Layout, extract
from recdistill.types import SoftLabels

EVERYBODY = torch.arange(toys.N_USERS)


def group() -> torch.Tensor:
    popularity = toys.interactions().popularity()
    return torch.where(popularity > 0, popularity_groups(popularity, 3), -1)


def fields(model: Recommender, layout: Layout, user: torch.Tensor = EVERYBODY) -> dict[str, np.ndarray]:
    with torch.no_grad():
        return extract(model.scorer(), SeenItems(toys.interactions()), user, layout)


def unseen(user: int) -> list[int]:
    data = toys.interactions()
    seen = set(data.item[data.user == user].tolist())
    return [item for item in range(toys.N_ITEMS) if item not in seen]


def slow_order(model: Recommender, user: int, among: list[int]) -> list[int]:
    """By score falling, equal scores by item rising."""
    score = model.scorer().all_scores(torch.tensor([user]))[0].tolist()
    return sorted(among, key=lambda item: (-score[item], item))


def mostpop() -> MostPop:
    model = MostPop()
    model.prepare(toys.interactions(), generator(0, "model"))
    return model


@pytest.mark.parametrize("depth", [1, 5, 12, 17, 100])
@pytest.mark.parametrize("make", [toys.model, mostpop])  # the second with many ties
def test_lists_equal_a_slow_sort_of_the_unseen_items(make: type[Recommender], depth: int) -> None:
    model = make()
    found = fields(model, Layout(toys.N_ITEMS, depth))
    width = min(depth, toys.N_ITEMS)
    assert found["item"].shape == found["score"].shape == (toys.N_USERS, width)
    for user in range(toys.N_USERS):
        expected = slow_order(model, user, unseen(user))[:width]
        n = int(found["length"][user])
        assert n == len(expected)
        assert found["item"][user, :n].tolist() == expected
        scores = model.scorer().all_scores(torch.tensor([user]))[0, expected].detach().numpy()
        np.testing.assert_allclose(found["score"][user, :n], scores, rtol=1e-5, atol=1e-6)


def test_rows_with_few_unseen_items_are_padded_with_zeros() -> None:
    found = fields(toys.model(), Layout(toys.N_ITEMS, 12))
    assert found["length"][toys.FULL_USER] == 2
    assert not found["item"][toys.FULL_USER, 2:].any()
    assert not found["score"][toys.FULL_USER, 2:].any()
    assert found["length"][toys.LONELY_USER] == 12
    assert np.isfinite(found["score"]).all()


def test_dtypes_are_those_of_the_store() -> None:
    layout = Layout(toys.N_ITEMS, 12, group(), 5)
    found = fields(toys.model(), layout)
    for name, (shape, dtype) in layout.fields().items():
        assert found[name].dtype == np.dtype(dtype)
        assert found[name].shape == (toys.N_USERS, *shape)


@pytest.mark.parametrize("depth", [2, 5, 100])
def test_lists_per_group_equal_a_slow_sort_within_the_group(depth: int) -> None:
    model, label = toys.model(), group()
    found = fields(model, Layout(toys.N_ITEMS, 12, label, depth))
    widest = max(int((label == g).sum()) for g in range(3))
    assert found["group_item"].shape == (toys.N_USERS, 3, min(depth, widest))
    for user in range(toys.N_USERS):
        for g in range(3):
            members = [item for item in unseen(user) if label[item] == g]
            expected = slow_order(model, user, members)[:depth]
            n = int(found["group_length"][user, g])
            assert n == len(expected)
            assert found["group_item"][user, g, :n].tolist() == expected
            assert not found["group_item"][user, g, n:].any()


def test_an_item_without_interactions_is_in_the_overall_list_only() -> None:
    found = fields(toys.model(), Layout(toys.N_ITEMS, toys.N_ITEMS, group(), 100))
    inside = np.arange(found["group_item"].shape[2]) < found["group_length"][:, :, None]
    assert toys.LONELY_ITEM not in found["group_item"][inside]
    assert all(toys.LONELY_ITEM in found["item"][user, : found["length"][user]] for user in range(toys.N_USERS))


def test_a_block_of_users_gives_their_rows() -> None:
    model, layout, some = toys.model(), Layout(toys.N_ITEMS, 12, group(), 5), torch.tensor([7, 2])
    every, part = fields(model, layout), fields(model, layout, some)
    for name in every:
        np.testing.assert_allclose(part[name], every[name][some], rtol=1e-6)


def test_scores_of_arbitrary_items_come_from_the_vectors() -> None:
    model = toys.model()
    labels, user = toys.labels(model), torch.tensor([3, 0])
    item = torch.tensor([[0, 16, 5], [2, 2, 9]])
    torch.testing.assert_close(labels.score_at(user, item), model.scorer().pair_scores(user, item).detach())


def test_the_score_store_of_the_list_agrees_with_scores_of_arbitrary_items() -> None:
    labels = toys.labels(toys.model())
    listed = labels.score_at(EVERYBODY, labels.item.long())
    inside = torch.arange(12) < labels.length.unsqueeze(1)
    torch.testing.assert_close(labels.score[inside], listed[inside], rtol=1e-5, atol=1e-6)


def test_without_vectors_scores_of_arbitrary_items_are_refused() -> None:
    labels: SoftLabels = toys.labels(mostpop())
    with pytest.raises(ConfigError, match="has no vectors"):
        labels.score_at(torch.tensor([0]), torch.tensor([[1]]))


def test_scores_of_many_pairs_are_computed_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = toys.model()
    labels, item = toys.labels(model), torch.arange(toys.N_ITEMS).expand(toys.N_USERS, -1)
    whole = labels.score_at(EVERYBODY, item)
    for most in (1, 600):
        monkeypatch.setattr("recdistill.types.SCORE_BYTES", most)
        torch.testing.assert_close(labels.score_at(EVERYBODY, item), whole)
    torch.testing.assert_close(whole, model.scorer().all_scores(EVERYBODY).detach())


def test_transposed_interactions_are_the_same_pairs_sorted_by_item() -> None:
    data = toys.interactions()
    other = data.transposed()
    assert (other.n_users, other.n_items) == (data.n_items, data.n_users)
    pairs = list(zip(other.item.tolist(), other.user.tolist(), strict=True))
    assert sorted(pairs) == list(zip(data.user.tolist(), data.item.tolist(), strict=True))
    again = list(zip(other.user.tolist(), other.item.tolist(), strict=True))
    assert again == sorted(again)
    assert len(data.none()) == 0
