from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from recdistill.dataset.popularity import popularity_groups
from recdistill.dataset.splits import LeaveOneOut, Ratio, Split, TimeCut, UserHoldOut
from recdistill.dataset.table import Pairs
from recdistill.errors import ConfigError
from recdistill.evaluation.accuracy import METRICS
from recdistill.evaluation.evaluator import Evaluator
from recdistill.models.base import Recommender, Scorer
from recdistill.models.mf import MF
from recdistill.types import Batch, Dataset, Interactions

CPU = torch.device("cpu")
N_USERS, N_ITEMS = 12, 15


class Fixed(Recommender):
    """A model with given scores."""

    def __init__(self, score: Tensor) -> None:
        super().__init__()
        self.score = score

    def prepare(self, interactions: Interactions, generator: torch.Generator) -> None:
        pass

    def scorer(self) -> Scorer:
        return FixedScorer(self.score)

    def loss(self, scorer: Scorer, batch: Batch) -> Tensor:
        return torch.zeros(())


class FixedScorer(Scorer):
    def __init__(self, score: Tensor) -> None:
        self.score = score

    def pair_scores(self, user: Tensor, item: Tensor) -> Tensor:
        return self.score[user.unsqueeze(1), item]

    def all_scores(self, user: Tensor) -> Tensor:
        return self.score[user]


def interactions(part: Tensor, number: int) -> Interactions:
    user, item = (part == number).nonzero(as_tuple=True)
    return Interactions(user, item, N_USERS, N_ITEMS)


def small(groups: int = 3) -> Dataset:
    """Twelve users and fifteen items; user 3 has no test and user 5 no valid items, user 7 has seen almost all."""
    generator = torch.Generator().manual_seed(4)
    part = torch.tensor([0, 1, 2, 3])[torch.randint(0, 4, (N_USERS, N_ITEMS), generator=generator)]
    part[3][part[3] == 2] = 3
    part[5][part[5] == 1] = 3
    part[7] = 0
    part[7, :2], part[7, 2] = 2, 1
    train, valid, test = (interactions(part, number) for number in range(3))
    names = np.array([str(n) for n in range(N_ITEMS)], dtype=object)
    popularity = train.popularity()
    return Dataset(
        name="small", train=train, valid=valid, test=test, popularity=popularity,
        group=popularity_groups(popularity, groups).to(torch.int8),
        user_ids=names[:N_USERS], item_ids=names, fingerprint="0", folder=Path(),
    )  # fmt: skip


def scores() -> Tensor:
    return torch.randint(-3, 4, (N_USERS, N_ITEMS), generator=torch.Generator().manual_seed(9)).float()


def evaluator(dataset: Dataset, cutoffs: tuple[int, ...] = (3, 10), stored: int = 12) -> Evaluator:
    return Evaluator(dataset, device=CPU, cutoffs=cutoffs, metrics=list(METRICS), stored=stored)


def items_of(part: Interactions, user: int) -> set[int]:
    return set(part.item[part.user == user].tolist())


def slow_lists(dataset: Dataset, score: Tensor, split: str) -> dict[int, list[int]]:
    """Full ranking of every user with held-out items, by Python's own sort."""
    lists = {}
    for user in range(N_USERS):
        if not items_of(getattr(dataset, split), user):
            continue
        seen = items_of(dataset.train, user) | (items_of(dataset.valid, user) if split == "test" else set())
        unseen = [item for item in range(N_ITEMS) if item not in seen]
        lists[user] = sorted(unseen, key=lambda item, user=user: (-float(score[user, item]), item))
    return lists


def slow_metrics(items: list[int], wanted: set[int], k: int) -> dict[str, float]:
    ranks = [rank for rank, item in enumerate(items[:k], start=1) if item in wanted]
    most = min(k, len(wanted))
    return {
        "recall": len(ranks) / len(wanted),
        "precision": len(ranks) / k,
        "hit": float(bool(ranks)),
        "mrr": 1 / ranks[0] if ranks else 0.0,
        "ndcg": sum(1 / math.log2(r + 1) for r in ranks) / sum(1 / math.log2(r + 1) for r in range(1, most + 1)),
        "map": sum((n + 1) / r for n, r in enumerate(ranks)) / most,
    }


def mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


@pytest.mark.parametrize("split", ["valid", "test"])
def test_all_metrics_equal_those_computed_slowly_from_sets(split: str) -> None:
    dataset, score = small(), scores()
    result = evaluator(dataset).evaluate(Fixed(score), split).result
    lists = slow_lists(dataset, score, split)
    held_out = {user: items_of(getattr(dataset, split), user) for user in lists}
    assert result.user.tolist() == sorted(lists)
    popularity, group = dataset.popularity.tolist(), dataset.group.tolist()
    expected: dict[str, float | None] = {}
    for k in (3, 10):
        rows = {user: slow_metrics(lists[user], held_out[user], k) for user in lists}
        for metric in METRICS:
            values = [rows[user][metric] for user in sorted(lists)]
            assert result.per_user[f"{metric}@{k}"].tolist() == pytest.approx(values)
            expected[f"{metric}@{k}"] = mean(values)
        profile = {user: mean([popularity[item] for item in items_of(dataset.train, user)]) for user in lists}
        recommended = {user: mean([popularity[item] for item in lists[user][:k]]) for user in lists}
        both = [user for user in lists if profile[user] is not None and recommended[user] is not None]
        over = mean([profile[user] for user in both])
        expected[f"poplift@{k}"] = (mean([recommended[user] for user in both]) - over) / over
        for g in range(3):
            wanted = {user: {item for item in held_out[user] if group[item] == g} for user in lists}
            recalls = [len(wanted[user] & set(lists[user][:k])) / len(wanted[user]) for user in lists if wanted[user]]
            expected[f"recall@{k}/group={g}"] = mean(recalls)
    assert {key: result.overall[key] for key in expected} == pytest.approx(expected)


def test_the_stored_lists_and_ranks_are_those_of_a_full_sort() -> None:
    dataset, score = small(), scores()
    found = evaluator(dataset).evaluate(Fixed(score), "test")
    lists = slow_lists(dataset, score, "test")
    stored = [row[:n] for row, n in zip(found.lists.item.tolist(), found.lists.length.tolist(), strict=True)]
    assert stored == [lists[user][:12] for user in sorted(lists)]
    assert found.ranks is not None
    ranks = zip(found.ranks.user.tolist(), found.ranks.item.tolist(), found.ranks.rank.tolist(), strict=True)
    assert list(ranks) == [
        (user, item, lists[user].index(item) + 1) for user in lists for item in sorted(items_of(dataset.test, user))
    ]


def test_valid_items_are_masked_on_test_and_candidates_on_valid() -> None:
    dataset = small()
    wanting_valid = torch.zeros(N_USERS, N_ITEMS)
    wanting_valid[dataset.valid.user, dataset.valid.item] = 1e6
    on_valid = evaluator(dataset).evaluate(Fixed(wanting_valid), "valid").result
    assert on_valid.overall["ndcg@10"] == pytest.approx(1.0)
    on_test = evaluator(dataset).evaluate(Fixed(wanting_valid), "test")
    for user, items, length in zip(
        on_test.lists.user.tolist(), on_test.lists.item.tolist(), on_test.lists.length.tolist(), strict=True
    ):
        assert not set(items[:length]) & (items_of(dataset.train, user) | items_of(dataset.valid, user))


def test_a_model_that_knows_the_test_items_is_perfect() -> None:
    dataset = small()
    score = torch.zeros(N_USERS, N_ITEMS)
    score[dataset.test.user, dataset.test.item] = 1.0
    found = evaluator(dataset).evaluate(Fixed(score), "test")
    assert found.result.overall["ndcg@10"] == found.result.overall["map@3"] == pytest.approx(1.0)
    assert found.ranks is not None
    assert found.ranks.rank.max() <= torch.bincount(dataset.test.user).max()


def test_the_only_hits_are_the_held_out_items_however_few_there_are() -> None:
    dataset = small()
    of_two = [sorted(items_of(dataset.test, user)) for user in (0, 2)]
    for pair in itertools.product(*of_two):  # in some the key of one user's item ends as that of the other's
        test = Interactions(torch.tensor([0, 2]), torch.tensor(pair), N_USERS, N_ITEMS)
        found = evaluator(Dataset(**{**vars(dataset), "test": test}), stored=N_ITEMS).evaluate(Fixed(scores()), "test")
        assert found.ranked.item[found.ranked.hit].tolist() == list(pair)


def test_users_without_held_out_items_are_counted_and_left_out() -> None:
    dataset = small()
    for split, user in (("test", 3), ("valid", 5)):
        result = evaluator(dataset).evaluate(Fixed(scores()), split).result
        without = N_USERS - len({int(u) for u in getattr(dataset, split).user})
        assert result.users_without_relevant == without >= 1
        assert user not in result.user
        assert len(result.user) == N_USERS - without


def test_a_group_without_held_out_items_has_no_recall() -> None:
    dataset = small()
    user, item = dataset.test.user, dataset.test.item
    kept = dataset.group[item] != 1
    test = Interactions(user[kept], item[kept], N_USERS, N_ITEMS)
    without = Dataset(**{**vars(dataset), "test": test})
    overall = evaluator(without).evaluate(Fixed(scores()), "test").result.overall
    assert overall["recall@3/group=1"] is None
    assert overall["recall@3/group=0"] is not None


def test_a_cut_off_above_the_catalogue_is_an_error_that_names_both_sizes() -> None:
    with pytest.raises(ConfigError, match=r"holds 16, but small has 15 items") as caught:
        evaluator(small(), cutoffs=(5, 16))
    assert "evaluation.cutoffs=[5]" in caught.value.fix


def test_a_stored_depth_beyond_the_catalogue_is_clipped() -> None:
    found = evaluator(small(), stored=100).evaluate(Fixed(scores()), "test")
    assert found.lists.item.shape[1] == N_ITEMS


def test_what_selects_a_model_is_ndcg_on_valid_at_the_largest_cut_off() -> None:
    dataset = small()
    held = evaluator(dataset)
    model = Fixed(scores())
    assert held.validate(model) == held.evaluate(model, "valid").result.overall["ndcg@10"]


def test_evaluating_leaves_no_gradient_and_no_training_mode() -> None:
    dataset = small()
    model = MF(dim=3)
    model.prepare(dataset.train, torch.Generator().manual_seed(0))
    model.train()
    found = evaluator(dataset).evaluate(model, "test")
    assert not found.lists.score.requires_grad
    assert not model.training


def split_by(split: Split) -> Dataset:
    """Twenty users with eight to fifteen of fifteen items at times that grow with user and item."""
    taken = torch.rand(20, N_ITEMS, generator=torch.Generator().manual_seed(5)) < 0.7
    user, item = (column.numpy() for column in taken.nonzero(as_tuple=True))
    names = np.arange(20).astype(str).astype(object)
    part = split.assign(Pairs(user, item, names, names[:N_ITEMS], timestamp=user * 10 + item))
    train, valid, test = (
        Interactions(torch.from_numpy(user[part == n]), torch.from_numpy(item[part == n]), 20, N_ITEMS)
        for n in range(3)
    )
    return Dataset(
        name="split", train=train, valid=valid, test=test, popularity=train.popularity(),
        group=popularity_groups(train.popularity(), 2).to(torch.int8),
        user_ids=names, item_ids=names[:N_ITEMS], fingerprint="0", folder=Path(),
    )  # fmt: skip


@pytest.mark.parametrize("split", [UserHoldOut(), LeaveOneOut(), Ratio(valid=0.2), TimeCut(valid=0.2, unseen="keep")])
def test_each_part_is_measured_on_its_own_users_with_all_earlier_parts_masked(split: Split) -> None:
    data = split_by(split)
    model = Fixed(torch.randn(20, N_ITEMS, generator=torch.Generator().manual_seed(6)))
    for name, earlier in (("valid", [data.train]), ("test", [data.train, data.valid])):
        held_out: Interactions = getattr(data, name)
        found = evaluator(data).evaluate(model, name)
        assert found.result.user.tolist() == sorted(set(held_out.user.tolist()))
        masked = {pair for part in earlier for pair in zip(part.user.tolist(), part.item.tolist(), strict=True)}
        for user, item, length in zip(found.lists.user, found.lists.item, found.lists.length, strict=True):
            candidates = [n for n in range(N_ITEMS) if (int(user), n) not in masked]
            ranked = sorted(candidates, key=lambda n, user=user: -float(model.score[user, n]))
            assert item[:length].tolist() == ranked[: len(item)]
        assert all(value is None or math.isfinite(value) for value in found.result.overall.values())


def test_users_of_valid_and_test_may_differ_and_may_have_no_training_interactions() -> None:
    data = split_by(UserHoldOut())
    assert set(data.valid.user.tolist()).isdisjoint(data.test.user.tolist())
    cold = split_by(TimeCut(valid=0.2, unseen="keep"))
    assert set(cold.test.user.tolist()) - set(cold.train.user.tolist())
