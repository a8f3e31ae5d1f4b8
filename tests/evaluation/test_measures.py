from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from recdistill.evaluation.accuracy import METRICS
from recdistill.evaluation.catalogue import Items, Users
from recdistill.evaluation.definitions import DEFINITIONS
from recdistill.evaluation.measures import Ranked, hits, measure

N_USERS, N_ITEMS, DEPTH = 30, 25, 12
RANDOM = np.random.default_rng(5)
ITEMS = Items.of(np.sort(RANDOM.integers(0, 40, N_ITEMS))[::-1].copy(), np.repeat([0, 1, 2], [3, 7, 15]))


def users() -> Users:
    """User 4 has no training items."""
    user, item = (RANDOM.random((N_USERS, N_ITEMS)) < 0.3).nonzero()
    return Users.of(ITEMS, user[user != 4], item[user != 4], N_USERS)


def some_ranking() -> Ranked:
    """Users 0 to 27 with one to four relevant items; user 2 has four candidates only."""
    orders = [RANDOM.permutation(N_ITEMS) for _ in range(N_USERS - 2)]
    orders[2] = orders[2][:4]
    pairs = []
    for row, order in enumerate(orders):
        chosen = RANDOM.choice(min(len(order), 18), RANDOM.integers(1, 5), replace=False)
        pairs += [(row, place) for place in np.sort(chosen)]
    row, place = np.array(pairs).T
    relevant = np.array([orders[r][p] for r, p in pairs])
    length = np.array([min(len(order), DEPTH) for order in orders])
    item = np.array([np.r_[order[:DEPTH], np.zeros(DEPTH - len(order[:DEPTH]), int)] for order in orders])
    return Ranked(
        np.arange(N_USERS - 2), item, length, hits(row, place + 1, len(orders), DEPTH), row, relevant, place + 1
    )


RANKED, USERS = some_ranking(), users()
OVERALL, PER_USER = measure(RANKED, ITEMS, USERS, [3, 10], list(METRICS))


def wanted(row: int) -> list[int]:
    return RANKED.relevant[RANKED.row == row].tolist()


def listed(row: int, k: int) -> list[int]:
    return RANKED.item[row, : min(k, RANKED.length[row])].tolist()


@pytest.mark.parametrize("k", [3, 10])
@pytest.mark.parametrize("name", ["group=0", "group=1", "group=2", "items=head", "items=mid", "items=tail"])
def test_accuracy_and_exposure_of_an_item_group_equal_those_counted_slowly(name: str, k: int) -> None:
    inside = set(ITEMS.strata()[name].nonzero()[0].tolist())
    ratios, gains, found, places = [], [], [], 0
    for row in range(len(RANKED.user)):
        mine = [item for item in wanted(row) if item in inside]
        shown = listed(row, k)
        places += len([item for item in shown if item in inside])
        ranks = [rank for rank, item in enumerate(shown, 1) if item in mine]
        found.append((len(ranks), len(mine)))
        if mine:
            ratios.append(len(ranks) / len(mine))
            ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(mine)) + 1))
            gains.append(sum(1 / math.log2(rank + 1) for rank in ranks) / ideal)
    total, relevant = (sum(column) for column in zip(*found, strict=True))
    expected = {
        "recall": np.mean(ratios),
        "recall_micro": total / relevant,
        "recall_all_users": sum(ratios) / len(RANKED.user),
        "ndcg": np.mean(gains),
        "precision": total / k / len(RANKED.user),
        "exposure": places / sum(len(listed(row, k)) for row in range(len(RANKED.user))),
    }
    assert {key: OVERALL[f"{key}@{k}/{name}"] for key in expected} == pytest.approx(expected)


@pytest.mark.parametrize("k", [3, 10])
def test_metrics_of_the_lists_equal_those_counted_slowly(k: int) -> None:
    rows = range(len(RANKED.user))
    shown = [item for row in rows for item in listed(row, k)]
    tail = set((ITEMS.tail > 0).nonzero()[0].tolist())
    popular = [np.mean(ITEMS.popularity[listed(row, k)]) for row in rows]
    share = [len(set(listed(row, k)) & tail) / len(listed(row, k)) for row in rows]
    expected = {
        "arp": np.mean(popular),
        "arp_relative": np.mean(popular) / ITEMS.popularity.mean(),
        "aplt": np.mean(share),
        "aclt": np.mean([len(set(listed(row, k)) & tail) for row in rows]),
        "coverage": len(set(shown)) / N_ITEMS,
        "tail_coverage": len(set(shown) & tail) / len(tail),
    }
    assert {key: OVERALL[f"{key}@{k}"] for key in expected} == pytest.approx(expected)
    assert PER_USER[f"arp@{k}"].tolist() == pytest.approx(popular)


def test_lift_of_user_groups_leaves_out_users_without_training_items() -> None:
    for name, member in (("niche", USERS.kind == 0), ("blockbuster", USERS.kind == 2), ("bin3", USERS.bin == 3)):
        rows = [row for row in range(len(RANKED.user)) if member[row]]
        assert 4 not in rows
        lists = np.mean([np.mean(ITEMS.popularity[listed(row, 10)]) for row in rows])
        assert OVERALL[f"poplift@10/users={name}"] == pytest.approx(lists / USERS.profile[rows].mean() - 1)


def test_micro_recall_of_all_groups_together_is_that_of_all_items() -> None:
    for family in (["group=0", "group=1", "group=2"], ["items=head", "items=mid", "items=tail"]):
        counts = [(ITEMS.strata()[name][RANKED.relevant]).sum() for name in family]
        recalls = [OVERALL[f"recall_micro@10/{name}"] for name in family]
        micro = RANKED.hit[:, :10].sum() / len(RANKED.relevant)
        assert np.dot(counts, recalls) / sum(counts) == pytest.approx(micro)
        assert sum(OVERALL[f"exposure@10/{name}"] or 0 for name in family) == pytest.approx(1)


def test_an_item_group_without_relevant_items_is_null_and_not_zero() -> None:
    nobody = replace(ITEMS, group=np.where(np.arange(N_ITEMS) == RANKED.relevant[0], 0, 1))
    kept = RANKED.relevant != RANKED.relevant[0]
    row = np.unique(RANKED.row[kept], return_inverse=True)[1]
    user = np.unique(RANKED.row[kept])
    some = Ranked(
        user, RANKED.item[user], RANKED.length[user], hits(row, RANKED.rank[kept], len(user), DEPTH),
        row, RANKED.relevant[kept], RANKED.rank[kept],
    )  # fmt: skip
    overall, _ = measure(some, nobody, USERS, [10], ["recall"])
    for name in ("recall", "recall_micro", "recall_all_users", "ndcg", "precision"):
        assert overall[f"{name}@10/group=0"] is None
    assert overall["exposure@10/group=0"] is not None


def test_correlations_of_popularity_and_rank_need_the_ranks() -> None:
    assert {"pru", "pri"} <= set(OVERALL)
    without, _ = measure(replace(RANKED, rank=None), ITEMS, USERS, [3, 10], list(METRICS))
    assert set(OVERALL) - set(without) == {"pru", "pri"}
    assert all(without[key] == OVERALL[key] for key in without)


def test_hits_stand_where_the_ranks_say() -> None:
    hit = hits(np.array([0, 0, 1]), np.array([2, 5, 3]), 2, 3)
    assert hit.tolist() == [[False, True, False], [False, False, True]]
    assert (hits(RANKED.row, RANKED.rank, len(RANKED.user), 30).sum(1) == RANKED.n_relevant).all()


def test_every_value_has_its_definition_as_data() -> None:
    for key in OVERALL:
        name, _, group = key.replace("@3", "").replace("@10", "").partition("/")
        in_group = f"group_{name}" if group and name in METRICS else name
        assert in_group in DEFINITIONS, key
