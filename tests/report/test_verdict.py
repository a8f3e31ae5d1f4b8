"""The paragraph at the top of a run's page says what the numbers say."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recdistill.report.stored import StoredRun
from recdistill.report.verdict import Verdict, group_names, interval, verdict


def model(ndcg: float, lift: float = 0.3, unpopular: float = 0.1, parameters: int = 100) -> dict[str, Any]:
    metrics = {"ndcg": ndcg, "recall": 0.4, "poplift": lift}
    groups = {"test/recall@20/group=0": 0.5, "test/recall@20/group=1": unpopular}
    return {
        "kind": "mf",
        "parameters": parameters,
        "bytes": 4 * parameters,
        "metrics": {f"test/{name}@20": value for name, value in metrics.items()} | groups,
    }


def run(folder: Path, *, gap: float | None = 0.5, name: str = "rrd", **models: dict[str, Any]) -> StoredRun:
    """A run with a teacher of 0.5 and 800 parameters, a scratch of 0.3 and a student of 0.4 unless given otherwise."""
    known = {"teacher": model(0.5, parameters=800), "scratch": model(0.3), "student": model(0.4)} | models
    bought = {"name": name, "gap_closed": {"test/ndcg@20": gap}}
    results = {"models": {role: one for role, one in known.items() if one}, "distillation": bought}
    return StoredRun(folder, results, "", [], "test", 20)


def with_users(folder: Path, scratch: np.ndarray, student: np.ndarray, teacher: float | np.ndarray = 0.5) -> None:
    """A per_user.parquet whose models list the users in different orders."""
    n = len(scratch)
    users = [f"u{i}" for i in range(n)]
    table = {
        "model": ["scratch"] * n + ["student"] * n + ["teacher"] * n,
        "split": ["test"] * (3 * n),
        "user_id": users + users[::-1] + users,
        "ndcg@20": np.concatenate([scratch, student[::-1], np.broadcast_to(teacher, n)]),
    }
    pq.write_table(pa.table(table), folder / "per_user.parquet")


def text(found: Verdict) -> str:
    return " ".join([found.headline, *found.sentences])


@pytest.mark.parametrize(
    ("student", "gap", "says"),
    [
        (0.44, 0.707, "closes 71% of the gap between training alone and its teacher"),
        (0.56, 1.3, "passes its teacher: it closes 130% of the gap"),
        (0.26, -0.2, "Distillation did harm"),
        (0.26, None, "Distillation did harm"),
        (0.3, None, "The teacher is not clearly better than the student trained alone: there is no gap"),
        (0.4, None, "Distillation raised NDCG@20, yet the teacher is not clearly better than the student trained"),
        (0.3, 0.0, "Distillation made no clear difference"),
    ],
)
def test_the_headline_is_the_gap_closed(tmp_path: Path, student: float, gap: float | None, says: str) -> None:
    assert says in verdict(run(tmp_path, gap=gap, student=model(student))).headline


@pytest.mark.parametrize(
    ("student", "gap", "says"),
    [
        (0.301, 0.005, "Distillation made no clear difference"),
        (0.299, -0.005, "Distillation made no clear difference"),
        (0.501, 1.005, "The student is level with its teacher"),
        (0.7, 2.0, "The student passes its teacher: it closes 200%"),
        (0.1, -1.0, "Distillation did harm"),
    ],
)
def test_the_headline_claims_nothing_that_is_within_the_noise(
    tmp_path: Path, student: float, gap: float, says: str
) -> None:
    noise = np.where(np.arange(100) % 2, 0.2, -0.2)
    with_users(tmp_path, np.full(100, 0.3), student + noise)
    assert says in verdict(run(tmp_path, gap=gap, student=model(student))).headline


@pytest.mark.parametrize(
    ("student", "says"),
    [
        (0.4, "Distillation brought the student to 80% of its best teacher's NDCG@20."),
        (0.2, "Distillation did harm"),
        (0.3, "Distillation made no clear difference"),
    ],
)
def test_of_several_teachers_the_best_is_named_and_scratch_still_counts(
    tmp_path: Path, student: float, says: str
) -> None:
    several = {"teacher": {}, "teacher.a": model(0.5, parameters=800), "teacher.b": model(0.4, parameters=1)}
    found = run(tmp_path, student=model(student), **several)
    del found.results["distillation"]["gap_closed"]
    said = verdict(found)
    assert says in said.headline
    assert "and 0.5000 of the best teacher (a)." in text(said)
    assert "12.5% of the best teacher's" in text(said)
    assert "the best teacher +30%" in text(said)


def test_what_prints_the_same_did_not_rise(tmp_path: Path) -> None:
    found = run(tmp_path, student=model(0.4, unpopular=0.10001), scratch=model(0.3, unpopular=0.1))
    assert "recall@20 stayed at 0.1000." in text(verdict(found))


def test_without_scratch_or_distillation_nothing_was_bought(tmp_path: Path) -> None:
    headline = verdict(run(tmp_path, scratch={})).headline
    assert "80% of its teacher's; what distillation bought was not measured" in headline
    assert "trained alone, without distillation" in verdict(run(tmp_path, name="none")).headline


def test_size_popularity_and_the_unpopular_half_are_told_with_their_numbers(tmp_path: Path) -> None:
    found = run(tmp_path, student=model(0.4, 0.364, 0.094), scratch=model(0.3, 0.287, 0.099))
    said = text(verdict(found))
    assert "On the test part the student reaches 0.4000, against 0.3000 of the same model trained alone" in said
    assert "(scratch) and 0.5000 of the teacher." in said
    assert "100 parameters (400 B), 12.5% of the teacher's" in said
    assert "36% more popular than what its users chose themselves (scratch +29%, the teacher +30%)" in said
    assert "distillation added to popularity bias" in said
    assert "recall@20 fell from 0.0990 (scratch) to 0.0940" in said
    assert "ranks one user" not in said


@pytest.mark.parametrize(
    ("student", "scratch", "says"),
    [
        (0.2, 0.3, "reduced popularity bias"),
        (0.301, 0.3, "left popularity bias as it was"),
        (-0.3, -0.1, "made them less popular"),
        (0.1, -0.1, "made them more popular"),
    ],
)
def test_what_happened_to_popularity_bias_is_told_by_sign(
    tmp_path: Path, student: float, scratch: float, says: str
) -> None:
    found = run(tmp_path, student=model(0.4, student), scratch=model(0.3, scratch))
    assert f"distillation {says}." in text(verdict(found))


def test_latency_is_told_in_milliseconds(tmp_path: Path) -> None:
    fast, slow = ({"latency": {"single": {"p50": seconds}}} for seconds in (0.00012, 0.0015))
    found = run(tmp_path, student=model(0.4) | fast, teacher=model(0.5, parameters=800) | slow)
    assert "ranks one user in 120 µs, the teacher in 1.5 ms (median)" in text(verdict(found))


def test_a_difference_beyond_the_noise_is_told_from_one_within(tmp_path: Path) -> None:
    scratch = np.linspace(0, 1, 100)
    steady, wild = np.full(100, 0.01), np.where(np.arange(100) % 2, 0.5, -0.48)
    wobble = np.where(np.arange(100) % 2, 0.001, -0.001)
    with_users(tmp_path, scratch, scratch + steady + wobble)
    said = text(verdict(run(tmp_path)))
    assert "+0.0100 (95% interval over 100 users +0.0098 to +0.0102): beyond the noise between users" in said
    with_users(tmp_path, scratch, scratch + wild)
    assert "within the noise between users" in text(verdict(run(tmp_path)))
    with_users(tmp_path, scratch, scratch)
    assert "For every single user it is as good as scratch." in text(verdict(run(tmp_path)))


def test_few_users_tell_nothing_about_noise(tmp_path: Path) -> None:
    with_users(tmp_path, np.zeros(5), np.ones(5))
    assert "With 5 users nothing can be said about noise." in text(verdict(run(tmp_path)))


def test_the_interval_is_of_the_mean_of_the_pairs() -> None:
    low, high = interval(np.array([0.0, 2.0] * 50))  # mean 1, sd 1.00504, standard error 0.100504
    assert (low, high) == pytest.approx((1 - 0.196984, 1 + 0.196984), abs=1e-6)


def test_where_the_gained_hits_lie_is_told_only_of_a_gain(tmp_path: Path) -> None:
    found = run(tmp_path, student=model(0.4) | {"metrics": model(0.4)["metrics"] | {"test/recall@20": 0.5}})
    found.results["distillation"]["gain_share@20/items=head"] = 0.93
    says = "Of the hits gained over scratch, 93% are on the fifth of the items with the most users."
    assert says in text(verdict(found))
    found.results["distillation"]["gain_share@20/items=head"] = 1.1
    assert "The whole gain in hits over scratch is on the fifth" in text(verdict(found))
    assert "the other items lost hits" in text(verdict(found))
    found.results["distillation"]["gain_share@20/items=head"] = -0.2
    assert "the most users lost hits against scratch; the whole gain is on the others" in text(verdict(found))
    found.results["models"]["student"]["metrics"]["test/recall@20"] = 0.35
    assert says not in text(verdict(found))


def test_popularity_groups_have_words() -> None:
    assert group_names(2) == ["popular half", "unpopular half"]
    assert group_names(3) == ["1 (head)", "2", "3 (tail)"]
