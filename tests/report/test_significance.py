from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from recdistill.errors import CacheError, ConfigError
from recdistill.evaluation.popularity_bias import popularity_lift
from recdistill.report.compare import compare
from recdistill.report.comparison import Comparison
from recdistill.report.runs import find_runs
from recdistill.report.significance import against
from recdistill.report.statistics import bootstrap_ratio, cohens_dz, holm, sign_flip
from toy_runs import write_run, write_users

NDCG, LIFT = "test/ndcg@20", "test/poplift@20"
U = 60


def values(seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.3 + shift, 0.1, U)


def toy(folder: Path, student: np.ndarray, *, scratch: np.ndarray | None = None, **changes: Any) -> Path:
    """A run whose test/ndcg@20 is the mean of its users' values."""
    run = write_run(folder, ndcg=float(student.mean()), **changes)
    own = {"student": student, "scratch": values(7) if scratch is None else scratch}
    return write_users(run, own | {"teacher": values(8, 0.3), "mostpop": values(9, -0.2)})


def against_baseline(
    folder: Path, baseline: Sequence[str], metrics: Sequence[str] = (NDCG,), over: Sequence[str] = ("seed",)
) -> list[Comparison]:
    return against(compare(find_runs([folder])[0], metrics, over), baseline)


def row(comparison: Comparison, name: str) -> int:
    (place,) = [n for n, one in enumerate(comparison.rows) if name in (one.method, one.name)]
    return place


def test_a_user_is_one_row_of_the_test_whose_values_are_averaged_over_seeds(tmp_path: Path) -> None:
    mine, theirs = [values(seed, 0.03) for seed in range(3)], [values(10 + seed) for seed in range(3)]
    for seed in range(3):
        toy(tmp_path / f"a{seed}", mine[seed], seed=seed)
        toy(tmp_path / f"b{seed}", theirs[seed], seed=seed, method="none")
    (comparison,) = against_baseline(tmp_path, ["distill=none"])
    one = comparison.tests.differences[NDCG][row(comparison, "rrd")]
    averaged = stats.ttest_rel(np.mean(mine, 0), np.mean(theirs, 0))
    pooled = stats.ttest_rel(np.concatenate(mine), np.concatenate(theirs))
    assert one.p_raw == pytest.approx(averaged.pvalue)
    assert abs(one.p_raw - pooled.pvalue) > 1e-4
    difference = (np.mean(mine, 0) - np.mean(theirs, 0))[:, None]
    interval = averaged.confidence_interval(0.95)
    assert (one.value, one.low, one.high) == pytest.approx((difference.mean(), interval.low, interval.high))
    assert (one.dz, one.n_users) == (pytest.approx(cohens_dz(difference)[0]), U)
    assert one.p_permutation_raw == pytest.approx(sign_flip(difference)[0], abs=0.01)


def test_both_ps_are_corrected_by_holm_over_all_rows_but_the_baseline(tmp_path: Path) -> None:
    for n, shift in enumerate([0.0, 0.02, 0.05]):
        toy(tmp_path / str(n), values(20 + n, shift), weight=n)
    (comparison,) = against_baseline(tmp_path, ["scratch"])
    found = comparison.tests.differences[NDCG]
    assert sorted(found) == [n for n in range(6) if n != comparison.tests.baseline]
    for corrected, raw in (("p", "p_raw"), ("p_permutation", "p_permutation_raw")):
        expected = holm(np.array([getattr(one, raw) for one in found.values()]))
        assert [getattr(one, corrected) for one in found.values()] == pytest.approx(expected.tolist())


def test_only_users_that_all_rows_have_are_tested_and_their_number_is_said(tmp_path: Path) -> None:
    student, base = values(1, 0.05), values(2)
    run = write_run(tmp_path / "a")
    write_users(run, {"student": student[:40], "scratch": base[:40], "teacher": base[:40], "mostpop": base[:40]})
    run = write_run(tmp_path / "b", method="none")
    own = np.arange(20, U)
    write_users(
        run, {"student": base[own], "scratch": base[own], "teacher": base[own], "mostpop": base[own]}, users=own
    )
    (comparison,) = against_baseline(tmp_path, ["none"])
    one = comparison.tests.differences[NDCG][row(comparison, "rrd")]
    assert one.n_users == 20
    assert one.value == pytest.approx((student - base)[20:40].mean())


def test_letters_say_which_rows_a_row_is_better_than_of_all_pairs(tmp_path: Path) -> None:
    toy(tmp_path / "a", values(1, 0.2))
    toy(tmp_path / "b", values(2, 0.2), method="unkd")
    (comparison,) = against_baseline(tmp_path, ["scratch"])
    better = comparison.tests.better[NDCG]
    names = {n: {comparison.rows[m].method for m in worse} for n, worse in better.items()}
    assert names[row(comparison, "rrd")] == names[row(comparison, "unkd")] == {"(scratch)", "(mostpop)"}
    assert names[row(comparison, "(teacher)")] == {"rrd", "unkd", "(scratch)", "(mostpop)"}
    assert names[row(comparison, "(mostpop)")] == set()


def test_letters_are_corrected_for_all_pairs_and_not_for_those_with_the_baseline_only(tmp_path: Path) -> None:
    base = values(7)
    noise = np.random.default_rng(0).normal(size=U)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    better = base + 0.1 * (noise + 2.35 / U**0.5)  # t = 2.35 over 60 users: p = 0.022
    toy(tmp_path / "a", better, scratch=base)
    (comparison,) = against_baseline(tmp_path, ["scratch"])
    assert comparison.tests.differences[NDCG][row(comparison, "rrd")].p < 0.05  # the third of 3
    assert row(comparison, "(scratch)") in comparison.tests.better[NDCG][row(comparison, "rrd")]  # the last of 6 pairs
    toy(tmp_path / "b", base + 0.001 * noise, scratch=base, method="unkd")
    (comparison,) = against_baseline(tmp_path, ["scratch"])
    assert row(comparison, "(scratch)") not in comparison.tests.better[NDCG][row(comparison, "rrd")]


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["scratch"], "(scratch)"),
        (["(teacher)"], "(teacher)"),
        (["mostpop"], "(mostpop)"),
        (["distill=none"], "none"),
        (["none"], "none"),
        (["distill.weight=0.30"], "rrd distill.weight=0.3"),
        (["rrd", "distill.weight=0.1"], "rrd distill.weight=0.1"),
    ],
)
def test_a_baseline_is_a_reference_a_method_or_settings(tmp_path: Path, words: list[str], name: str) -> None:
    toy(tmp_path / "a", values(1), weight=0.1)
    toy(tmp_path / "b", values(2), weight=0.3)
    toy(tmp_path / "c", values(3), method="none")
    (comparison,) = against_baseline(tmp_path, words)
    assert comparison.rows[comparison.tests.baseline].name == name


def test_a_baseline_that_is_no_row_or_several_is_refused_with_the_rows(tmp_path: Path) -> None:
    toy(tmp_path / "a", values(1), weight=0.1)
    toy(tmp_path / "b", values(2), weight=0.3)
    with pytest.raises(ConfigError) as error:
        against_baseline(tmp_path, ["scrach"])
    assert "did you mean scratch?" in error.value.what
    assert "(teacher), (scratch), (mostpop), rrd distill.weight=0." in error.value.why
    with pytest.raises(ConfigError, match=r"fits 2 rows: rrd distill.weight=0\.[13], rrd distill.weight=0\.[13]"):
        against_baseline(tmp_path, ["rrd"])


@pytest.mark.parametrize("other", [{"ideal": "k"}, {"fingerprint": "g", "split": 1}])
def test_rows_of_other_definitions_or_data_are_never_tested_together(tmp_path: Path, other: dict[str, Any]) -> None:
    toy(tmp_path / "a", values(1), method="none")
    toy(tmp_path / "b", values(2), **other)
    first, second = against_baseline(tmp_path, ["none"])
    mine, apart = (first, second) if first.tests else (second, first)
    assert {one.method for one in mine.rows} == {"(teacher)", "(scratch)", "(mostpop)", "none"}
    assert apart.tests is None
    assert apart.notes == ["not tested: no row here is none"]


def test_rows_of_other_splits_than_the_baselines_are_not_tested(tmp_path: Path) -> None:
    for split in range(2):
        toy(tmp_path / f"a{split}", values(split), fingerprint=f"f{split}", split=split, method="none")
    toy(tmp_path / "b", values(5), fingerprint="f0", split=0)
    (comparison,) = against_baseline(tmp_path, ["none"], over=["dataset.split.seed"])
    assert row(comparison, "rrd") not in comparison.tests.differences[NDCG]
    assert "not tested, of other splits than the baseline: rrd" in comparison.notes


def test_a_lift_is_tested_on_the_lists_and_its_interval_is_of_the_ratio(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    popularity, profile = generator.gamma(2, 10, 50), generator.gamma(5, 4, U)
    lists = {name: generator.integers(0, 50, (U, 25)) for name in ("student", "scratch", "teacher", "mostpop")}
    lists["student"] = np.argsort(popularity)[::-1][generator.integers(0, 40, (U, 25))]
    run = write_run(tmp_path / "a")
    ndcg = {name: values(1) for name in lists}
    write_users(run, ndcg, lists=lists, popularity=popularity, profile=profile)
    (comparison,) = against_baseline(tmp_path, ["scratch"], [LIFT])
    one = comparison.tests.differences[LIFT][row(comparison, "rrd")]
    mine, theirs = (popularity[lists[name][:, :20]].mean(1) for name in ("student", "scratch"))
    assert one.value == pytest.approx(popularity_lift(mine, profile) - popularity_lift(theirs, profile))
    assert one.p_raw == pytest.approx(stats.ttest_rel(mine, theirs).pvalue)
    low, high = bootstrap_ratio((mine - theirs)[:, None], profile)
    assert (one.low, one.high) == (pytest.approx(low[0], rel=0.05), pytest.approx(high[0], rel=0.05))
    assert one.low < one.value < one.high
    assert LIFT not in comparison.tests.better  # no end of a lift is the better one


def test_what_has_no_value_per_user_is_named_and_nothing_to_test_is_an_error(tmp_path: Path) -> None:
    toy(tmp_path / "a", values(1))
    (comparison,) = against_baseline(tmp_path, ["scratch"], [NDCG, LIFT, "test/recall@20"])
    assert list(comparison.tests.differences) == [NDCG]
    assert f"not tested, without a value per user in every run: {LIFT}, test/recall@20" in comparison.notes
    with pytest.raises(ConfigError, match="none of valid/ndcg@20 can be tested"):
        against_baseline(tmp_path, ["scratch"], ["valid/ndcg@20"])


def test_a_run_without_its_users_values_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    (toy(tmp_path / "a", values(1)) / "per_user.parquet").unlink()
    with pytest.raises(CacheError, match=r"a/per_user\.parquet"):
        against_baseline(tmp_path, ["scratch"])


def test_a_row_of_one_training_is_named(tmp_path: Path) -> None:
    toy(tmp_path / "a", values(1))
    (comparison,) = against_baseline(tmp_path, ["scratch"])
    assert any(note.startswith("n = 1: no test") and note.endswith("(scratch), rrd") for note in comparison.notes)


def test_a_model_is_never_better_than_itself(tmp_path: Path) -> None:
    toy(tmp_path / "a", values(7), method="none")  # scratch has the same values
    (comparison,) = against_baseline(tmp_path, ["scratch"])
    one = comparison.tests.differences[NDCG][row(comparison, "none")]
    assert (one.value, one.p, one.p_permutation, one.dz) == (0.0, 1.0, 1.0, None)


def test_the_same_model_in_two_rows_counts_once_and_the_baseline_itself_not_at_all(tmp_path: Path) -> None:
    for n in range(2):
        toy(tmp_path / f"none{n}", values(7), method="none", weight=n)  # the values of scratch
        toy(tmp_path / f"rrd{n}", values(1, 0.02), weight=n)
    (comparison,) = against_baseline(tmp_path, ["scratch"])
    found = comparison.tests.differences[NDCG]
    assert len(found) == 6
    names = {n: comparison.rows[n].method for n in found}
    raw = {names[n]: one.p_raw for n, one in found.items()}
    expected = dict(
        zip(
            ("rrd", "(teacher)", "(mostpop)"),
            holm(np.array([raw[m] for m in ("rrd", "(teacher)", "(mostpop)")])),
            strict=True,
        )
    )
    assert {names[n]: one.p for n, one in found.items()} == pytest.approx(expected | {"none": 1.0})
    better = comparison.tests.better[NDCG]
    twins = [n for n in found if names[n] == "rrd"]
    assert better[twins[0]] == better[twins[1]]
    assert not set(twins) & set(better[twins[0]])
    assert set(twins) < set(better[row(comparison, "(teacher)")])


def test_the_same_trainings_in_another_order_are_the_same_model(tmp_path: Path) -> None:
    trained = [values(30 + seed) for seed in range(3)]
    assert not np.array_equal(trained[0] + trained[1] + trained[2], trained[2] + trained[1] + trained[0])
    for seed in range(3):
        toy(tmp_path / f"first{seed}", trained[seed], method="none", seed=seed, time=f"{seed}")
        toy(tmp_path / f"again{seed}", trained[seed], method="none", seed=seed, weight=0.2, time=f"{9 - seed}")
    (comparison,) = against_baseline(tmp_path, ["none", "distill.weight=0.1"])
    one = comparison.tests.differences[NDCG][row(comparison, "none distill.weight=0.2")]
    assert (one.value, one.p_raw, one.dz) == (0.0, 1.0, None)
