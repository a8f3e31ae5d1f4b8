from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch

from contracts import toys
from contracts.ranking import RankingContract
from recdistill.dataset.popularity import popularity_groups
from recdistill.distill.sampling import inverse_shares
from recdistill.distill.unkd import UnKD
from recdistill.losses import pairwise
from recdistill.models.mf import MF
from recdistill.runtime import generator
from recdistill.types import Batch, Interactions, Knowledge, SoftLabels, Trajectory


class TestUnKD(RankingContract):
    refused: ClassVar[list[dict[str, Any]]] = [
        {"weight": -1.0},
        {"groups": 0},
        {"pairs": 2, "groups": 3},
        {"mu": 0.0},
        {"depth": 1},
        {"partition": "random"},
        {"allocation": -1.0},
        {"per": "item"},
    ]

    def make(self, **settings: Any) -> UnKD:
        return UnKD(**({"groups": 3, "pairs": 8, "mu": 3.0, "depth": 6} | settings))


class TestUnKDAsTheAuthorsCodeDoes(RankingContract):
    def make(self, **settings: Any) -> UnKD:
        common: dict[str, Any] = {"groups": 3, "pairs": 8, "mu": 3.0, "depth": 6, "partition": "greedy", "per": "row"}
        return UnKD(**(common | {"allocation": 1.0, "reference_quirks": True} | settings))


def labels(distiller: UnKD) -> SoftLabels:
    return toys.knowledge(request=distiller.group_lists).one()


def started(student: MF, seed: int = 0, ranked: SoftLabels | None = None, **settings: Any) -> UnKD:
    distiller = UnKD(**({"groups": 3, "pairs": 8, "mu": 3.0, "depth": 6} | settings))
    knowledge = Knowledge({"toy": Trajectory("toy", (ranked or labels(distiller),))}, {})
    distiller.prepare(knowledge, toys.interactions(), student, generator(seed, "distiller"))
    distiller.on_epoch_start(0, student, generator(seed, "distiller", 1))
    return distiller


def test_the_worked_example() -> None:
    better, worse = torch.tensor([[0.5, -0.2]]).requires_grad_(), torch.zeros(1, 2)
    valid = torch.ones(1, 2, dtype=torch.bool)
    loss = pairwise(better, worse, valid)
    assert loss.item() == pytest.approx(0.636108, abs=1e-6)
    loss.backward()
    assert better.grad.flatten().tolist() == pytest.approx([-0.377541 / 2, -0.549834 / 2], abs=1e-6)
    first = pairwise(better[:, :1], worse[:, :1], valid[:, :1])
    assert first.item() == pytest.approx(0.474077, abs=1e-6)


def test_the_groups_of_the_worked_example() -> None:
    counts = torch.tensor([6, 4, 3, 2, 2, 1, 1, 1])
    assert popularity_groups(counts, 2).tolist() == [0, 0, 1, 1, 1, 1, 1, 1]
    assert popularity_groups(counts, 4).tolist() == [0, 1, 2, 2, 3, 3, 3, 3]
    assert popularity_groups(torch.tensor([3, 3, 3, 1]), 2).tolist() == [0, 0, 1, 1]


def test_the_term_equals_a_slow_loop() -> None:
    student, batch = toys.model(seed=7).double(), toys.batch()
    distiller = started(student, weight=0.3)
    score = student.scorer().all_scores(torch.arange(toys.N_USERS)).tolist()
    losses = []
    for user in sorted(set(batch.user.tolist())):
        terms = [
            math.log1p(math.exp(score[user][worse] - score[user][better]))
            for better, worse, valid in zip(
                distiller.better[user].tolist(),
                distiller.worse[user].tolist(),
                distiller.valid[user].tolist(),
                strict=True,
            )
            if valid
        ]
        losses.append(sum(terms) / max(len(terms), 1))
    found = distiller(student.scorer(), batch)["unkd"]
    assert found.item() == pytest.approx(0.3 * sum(losses) / len(losses), rel=1e-6)


def test_pairs_are_two_unseen_items_of_one_group_in_the_teachers_order() -> None:
    data, student = toys.interactions(), toys.model()
    group = popularity_groups(data.popularity(), 3)
    teacher = toys.model(seed=1).scorer().all_scores(torch.arange(toys.N_USERS))
    seen = set(zip(data.user.tolist(), data.item.tolist(), strict=True))
    for seed in range(10):
        distiller = started(student, seed)
        for user in range(toys.N_USERS):
            valid = distiller.valid[user]
            for better, worse in zip(
                distiller.better[user][valid].tolist(), distiller.worse[user][valid].tolist(), strict=True
            ):
                assert better != worse
                assert teacher[user, better] > teacher[user, worse]
                assert group[better] == group[worse]
                assert (user, better) not in seen
                assert (user, worse) not in seen
                assert toys.LONELY_ITEM not in (better, worse)  # no interactions, no stratum


def test_pairs_are_shared_equally_among_the_groups() -> None:
    distiller = started(toys.model(), pairs=8)
    assert distiller.per_group == [3, 3, 2]
    assert distiller.better.shape == distiller.worse.shape == distiller.valid.shape == (toys.N_USERS, 8)


def test_pairs_are_drawn_anew_every_epoch() -> None:
    student = toys.model()
    distiller = started(student)
    before = torch.stack([distiller.better, distiller.worse])
    distiller.on_epoch_start(1, student, generator(0, "distiller", 2))
    assert not torch.stack([distiller.better, distiller.worse]).equal(before)


@pytest.mark.parametrize("length", [0, 1])
def test_a_cell_with_fewer_than_two_items_is_skipped_and_counted(length: int) -> None:
    student, ranked = toys.model(), labels(UnKD(groups=3, pairs=8, depth=6))
    short = ranked.group_length.clone()
    already = int((short < 2).sum())
    assert short[2].min() >= 2
    short[2, 1] = length
    distiller = started(student, ranked=replace(ranked, group_length=short))
    assert distiller.to_record() == {"skipped_cells": already + 1}
    assert distiller.valid[2].tolist() == [True] * 3 + [False] * 3 + [True] * 2
    short[2] = 0
    alone = started(student, ranked=replace(ranked, group_length=short))
    term = alone(student.scorer(), Batch(torch.tensor([2]), torch.tensor([0]), torch.tensor([[1]])))["unkd"]
    term.backward()
    assert term == 0
    assert student.item_table.grad.isfinite().all()


def test_a_cell_of_two_items_gives_its_one_pair() -> None:
    ranked = labels(UnKD(groups=3, pairs=8, depth=6))
    short = ranked.group_length.clone()
    short[2] = 2
    distiller = started(toys.model(), ranked=replace(ranked, group_length=short))
    first, second = ranked.group_item[2, 1, :2].tolist()
    assert distiller.better[2, 3:6].tolist() == [first] * 3
    assert distiller.worse[2, 3:6].tolist() == [second] * 3


def test_lists_that_are_kept_deeper_for_another_part_are_read_to_its_own_depth() -> None:
    ranked = labels(UnKD(groups=3, pairs=8, depth=6))
    distiller = started(toys.model(), ranked=ranked, depth=2)
    for group, pairs in enumerate((slice(0, 3), slice(3, 6), slice(6, 8))):
        first, second = ranked.group_item[2, group, :2].tolist()
        assert set(distiller.better[2, pairs].tolist()) == {first}
        assert set(distiller.worse[2, pairs].tolist()) == {second}


def test_raising_a_preferred_item_lowers_the_loss() -> None:
    student, user = toys.model(seed=7), 2
    distiller = started(student, pairs=3)
    scorer = student.scorer()
    vectors = scorer.item_vectors.detach().clone().requires_grad_()
    scorer.item_vectors = vectors
    distiller(scorer, Batch(torch.tensor([user]), torch.tensor([0]), torch.tensor([[1]])))["unkd"].backward()
    slope = vectors.grad @ scorer.user_vectors[user].detach()
    valid = distiller.valid[user]
    better, worse = set(distiller.better[user][valid].tolist()), set(distiller.worse[user][valid].tolist())
    assert all(slope[item] < 0 for item in better - worse)
    assert all(slope[item] > 0 for item in worse - better)
    assert all(slope[item] == 0 for item in set(range(toys.N_ITEMS)) - better - worse)


def test_the_worked_allocation() -> None:
    assert inverse_shares([5.0, 5 / 3], 0.0) == [0.5, 0.5]
    assert inverse_shares([5.0, 5 / 3], 1.0) == pytest.approx([0.25, 0.75])
    assert inverse_shares([5.0, 5 / 3], 2.0) == pytest.approx([0.1, 0.9])
    student = toys.crowd([1.0] * 8, [1.0] * 8, 6)[2]
    counts = torch.tensor([6, 4, 3, 2, 2, 1, 1, 1])  # the worked groups: means 5 and 5/3
    item = torch.arange(8).repeat_interleave(counts)
    user = torch.cat([torch.arange(int(count)) for count in counts])
    order = (user * 8 + item).argsort()
    data = Interactions(user[order], item[order], 6, 8)
    found = {}
    for allocation in (0.0, 1.0):
        for quirks in (False, True):
            distiller = UnKD(groups=2, pairs=30, allocation=allocation, reference_quirks=quirks)
            one = toys.labels(student, request=distiller.group_lists, data=data)
            distiller.prepare(Knowledge({"toy": Trajectory("toy", (one,))}, {}), data, student, torch.Generator())
            found[allocation, quirks] = distiller.per_group
    assert found == {(0.0, False): [15, 15], (0.0, True): [15, 15], (1.0, False): [8, 22], (1.0, True): [8, 22]}


def test_the_quirks_of_the_authors_code_give_32_pairs_of_which_half_are_one_item_twice() -> None:
    student = toys.model()
    distiller = started(student, groups=4, pairs=30, depth=12, reference_quirks=True)
    assert distiller.per_group == [8, 8, 8, 8]
    twice = []
    for seed in range(60):
        distiller = started(student, seed, groups=4, pairs=30, depth=12, reference_quirks=True)
        same = distiller.better == distiller.worse
        twice.append(same[distiller.valid])
    share = torch.cat(twice).double()
    assert abs(share.mean() - 0.5) < 5 * (0.25 / len(share)) ** 0.5
    user = torch.tensor([3])
    score = student.scorer().pair_scores(user, torch.cat([distiller.better[user], distiller.worse[user]], 1))
    better, worse = score.chunk(2, 1)
    same = (distiller.better == distiller.worse)[user]
    assert pairwise(better, worse, same).item() == pytest.approx(math.log(2))


def test_pairs_follow_a_groups_share_of_the_allocation() -> None:
    equal, inverse = started(toys.model()), started(toys.model(), allocation=3.0)
    assert equal.per_group == [3, 3, 2]
    assert sum(inverse.per_group) == 8
    assert inverse.per_group[2] > inverse.per_group[0]


@pytest.mark.parametrize("partition", ["quantile", "greedy", "equal_count"])
def test_pairs_lie_within_the_groups_of_the_partition(partition: str) -> None:
    data = toys.interactions()
    group = popularity_groups(data.popularity(), 3, partition)
    distiller = started(toys.model(), partition=partition)
    inside = distiller.valid
    assert distiller.lists.shape[1] == int(group[data.popularity() > 0].max()) + 1
    assert group[distiller.better[inside]].equal(group[distiller.worse[inside]])


def test_a_partition_into_one_group_too_many_is_taken_as_it_is() -> None:
    counts = torch.tensor([3, 3, 3, 1])
    item, user = torch.arange(4).repeat_interleave(counts), torch.cat([torch.arange(int(count)) for count in counts])
    order = (user * 4 + item).argsort()
    data, student = Interactions(user[order], item[order], 4, 4), toys.crowd([1.0] * 4, [1.0] * 4, 4)[2]
    distiller = UnKD(groups=2, pairs=6, partition="greedy")
    one = toys.labels(student, request=distiller.group_lists, data=data)
    distiller.prepare(Knowledge({"toy": Trajectory("toy", (one,))}, {}), data, student, torch.Generator())
    distiller.on_epoch_start(0, student, generator(0, "distiller", 1))
    assert distiller.per_group == [2, 2, 2]
    assert distiller.better.shape == (4, 6)


def test_users_count_by_their_rows_where_asked() -> None:
    student = toys.model(seed=7)
    distiller = started(student, per="row")
    rows = torch.tensor([1, 3, 3, 3])
    term = distiller(student.scorer(), Batch(rows, rows, rows.unsqueeze(1)))["unkd"]
    one, three = (distiller(student.scorer(), Batch(u, u, u.unsqueeze(1)))["unkd"] for u in (rows[:1], rows[1:2]))
    assert term.item() == pytest.approx((one.item() + 3 * three.item()) / 4, rel=1e-6)
