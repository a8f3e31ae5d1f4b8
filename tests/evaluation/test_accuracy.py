from __future__ import annotations

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import AP, RR, P, R, Success, nDCG

from recdistill.evaluation.accuracy import METRICS
from recdistill.evaluation.definitions import DEFINITIONS

HITS = st.lists(st.booleans(), min_size=1, max_size=12)
ORACLE = {"recall": R, "ndcg": nDCG, "hit": Success, "precision": P, "mrr": RR, "map": AP}


def value(metric: str, hit: list[int] | list[bool], relevant: int) -> float:
    found = METRICS[metric](np.array([hit], dtype=bool), np.array([relevant]))
    assert found.shape == (1,)
    assert found.dtype == np.float64
    return float(found[0])


@pytest.mark.parametrize(
    ("metric", "relevant", "expected"),
    [
        ("recall", 2, 1.0), ("ndcg", 2, 0.919721), ("precision", 2, 0.4),
        ("recall", 3, 0.666667), ("ndcg", 3, 0.703918), ("precision", 3, 0.4),
        ("recall", 7, 0.285714), ("ndcg", 7, 0.508740), ("precision", 7, 0.4),
        ("hit", 7, 1.0), ("mrr", 7, 1.0), ("map", 12, 0.333333), ("map", 2, 0.833333),
    ],
)  # fmt: skip
def test_hits_at_ranks_one_and_three_of_five_have_the_worked_values(
    metric: str, relevant: int, expected: float
) -> None:
    assert value(metric, [1, 0, 1, 0, 0], relevant) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("metric", "expected"), [("hit", 1.0), ("ndcg", 0.5), ("mrr", 0.333333)])
def test_one_held_out_item_at_rank_three_has_the_worked_values(metric: str, expected: float) -> None:
    assert value(metric, [0, 0, 1, 0, 0], 1) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_a_list_without_a_hit_is_worth_nothing(metric: str) -> None:
    assert value(metric, [0, 0, 0], 2) == 0


@pytest.mark.parametrize("k", [1, 3, 10, 20])
@settings(max_examples=50, deadline=None)  # 200 cases over the four cut-offs
@given(data=st.data())
def test_all_metrics_agree_with_ir_measures(k: int, data: st.DataObject) -> None:
    n = 15
    ranked = {
        f"u{u}": (data.draw(st.permutations(range(n)))[: data.draw(st.integers(1, n))],
                  data.draw(st.sets(st.integers(0, n + 5), min_size=1, max_size=10)))
        for u in range(3)
    }  # fmt: skip
    qrels = {u: {str(item): 1 for item in relevant} for u, (_, relevant) in ranked.items()}
    run = {u: {str(item): float(n - place) for place, item in enumerate(items)} for u, (items, _) in ranked.items()}
    hit = np.zeros((3, k), bool)
    for row, (items, relevant) in enumerate(ranked.values()):
        hit[row, : min(k, len(items))] = [item in relevant for item in items[:k]]
    count = np.array([len(relevant) for _, relevant in ranked.values()])
    measures = {measure @ k: metric for metric, measure in ORACLE.items()}
    for found in ir_measures.iter_calc(list(measures), qrels, run):
        row, metric = int(found.query_id[1:]), measures[found.measure]
        expected = found.value * (count[row] / min(k, count[row]) if metric == "map" else 1)
        assert METRICS[metric](hit, count)[row] == pytest.approx(expected, abs=1e-9), metric


@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=40, deadline=None)
@given(hit=HITS, more=st.integers(0, 5))
def test_every_value_is_within_zero_and_one(metric: str, hit: list[bool], more: int) -> None:
    assert 0 <= value(metric, hit, max(1, sum(hit) + more)) <= 1


@pytest.mark.parametrize("relevant", [1, 3, 5, 9])
@pytest.mark.parametrize("metric", METRICS)
def test_a_perfect_list_is_worth_one_where_the_metric_allows_it(metric: str, relevant: int) -> None:
    k = 5
    found = value(metric, [place < relevant for place in range(k)], relevant)
    limit = {"recall": min(k, relevant) / relevant, "precision": min(k, relevant) / k}
    assert found == pytest.approx(limit.get(metric, 1.0))


@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=40, deadline=None)
@given(hit=HITS.filter(lambda hit: any(hit) and not all(hit)), more=st.integers(0, 3), data=st.data())
def test_moving_a_relevant_item_up_never_lowers_a_value(
    metric: str, hit: list[bool], more: int, data: st.DataObject
) -> None:
    place = data.draw(st.sampled_from([n for n, is_hit in enumerate(hit) if is_hit]))
    target = data.draw(st.integers(0, place))
    moved = [*hit[:target], True, *hit[target:place], *hit[place + 1 :]]
    before, after = (value(metric, some, sum(hit) + more) for some in (hit, moved))
    assert after >= before - 1e-12
    if metric == "ndcg" and moved != hit:
        assert after > before


@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=20, deadline=None)
@given(hit=HITS, data=st.data())
def test_shuffling_below_the_cut_off_changes_nothing(metric: str, hit: list[bool], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(hit)))
    shuffled = hit[:k] + data.draw(st.permutations(hit[k:]))
    relevant = np.array([max(1, sum(hit))])
    one, other = (METRICS[metric](np.array([some], bool)[:, :k], relevant)[0] for some in (hit, shuffled))
    assert one == other


def test_users_do_not_touch_each_other() -> None:
    hit = np.array([[1, 0], [0, 0], [0, 1]], bool)
    relevant = np.array([1, 2, 3])
    for metric, function in METRICS.items():
        rows = [value(metric, hit[n].tolist(), int(relevant[n])) for n in range(3)]
        assert function(hit, relevant).tolist() == rows


def test_every_metric_has_its_definition_as_data() -> None:
    assert set(METRICS) <= set(DEFINITIONS)
