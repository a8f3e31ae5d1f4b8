import warnings

import numpy as np
import pytest
from scipy import stats

from recdistill.report.statistics import bootstrap_ratio, cohens_dz, holm, paired_t, sign_flip


def draws(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def test_the_t_test_and_its_interval_are_those_of_scipy_for_paired_samples() -> None:
    a, b = draws(40, 3) + np.array([0.0, 0.3, 1.0]), draws(40, 3, seed=1)
    mine, theirs = paired_t(a - b), stats.ttest_rel(a, b)
    interval = theirs.confidence_interval(0.95)
    np.testing.assert_allclose(mine.p, theirs.pvalue, rtol=1e-12)
    np.testing.assert_allclose([mine.low, mine.high], [interval.low, interval.high], rtol=1e-12)


def test_a_t_test_by_hand() -> None:
    mine = paired_t(np.array([[1.0], [2.0], [3.0]]))  # mean 2, deviation 1: t = 2 * sqrt(3) = 3.4641 with 2 df
    assert mine.p[0] == pytest.approx(0.07418, abs=1e-5)
    assert (mine.low[0], mine.high[0]) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), abs=1e-6)


def test_equal_rows_are_not_different_and_have_no_effect_size() -> None:
    same = np.column_stack([np.zeros(5), np.full(5, 0.1)])
    assert paired_t(same).p.tolist() == [1.0, 0.0]
    assert np.isnan(cohens_dz(same)).all()
    assert sign_flip(same)[0] == 1.0
    rounded = np.random.default_rng(0).normal(size=(50, 1))
    with warnings.catch_warnings(action="error"):
        assert paired_t((rounded + 0.1) - rounded).p[0] == 0.0


def test_the_exact_permutation_test_is_that_of_scipy() -> None:
    a, b = draws(9, 4) + np.array([0.0, 0.5, 1.0, 2.0]), draws(9, 4, seed=1)
    theirs = stats.permutation_test(
        (a, b), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples", n_resamples=np.inf
    )
    np.testing.assert_allclose(sign_flip(a - b), theirs.pvalue, rtol=1e-12)


def test_an_exact_permutation_test_by_hand() -> None:
    # Of the 8 signs of (1, 2, 3) the sums are ±6, ±4, ±2 and 0, 0; two are as large as 6, four as 4.
    assert sign_flip(np.array([[1.0, 1.0], [2.0, -2.0], [3.0, 5.0]])).tolist() == [0.25, 0.75]


def test_the_drawn_permutation_test_is_near_that_of_scipy_and_never_zero() -> None:
    a, b = draws(60, 2) + np.array([0.3, 3.0]), draws(60, 2, seed=1)
    mine = sign_flip(a - b)
    theirs = stats.permutation_test(
        (a, b), lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples", n_resamples=9999, rng=np.random.default_rng(5),
    )  # fmt: skip
    assert mine[0] == pytest.approx(theirs.pvalue[0], abs=0.02)
    assert mine[1] == 1 / 10_001
    np.testing.assert_array_equal(mine, sign_flip(a - b))


def test_blocks_of_draws_do_not_change_the_permutation_test(monkeypatch: pytest.MonkeyPatch) -> None:
    difference = draws(50, 2) + 0.2
    whole = sign_flip(difference, resamples=1000)
    monkeypatch.setattr("recdistill.report.statistics.BLOCK", 50 * 8)
    np.testing.assert_array_equal(sign_flip(difference, resamples=1000), whole)


def test_holm_by_hand() -> None:
    # sorted .005 .01 .03 .04 times 4 3 2 1 = .02 .03 .06 .04, and the last may not fall below .06
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.6, 0.5])), [1.0, 1.0])
    np.testing.assert_allclose(holm(np.array([0.02])), [0.02])


def test_holm_rejects_what_its_stepwise_rule_rejects() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        p = generator.uniform(0, 0.06, 6)
        rejected = set()
        for step, place in enumerate(np.argsort(p)):
            if p[place] > 0.05 / (len(p) - step):
                break
            rejected.add(int(place))
        assert set(np.flatnonzero(holm(p) <= 0.05).tolist()) == rejected


@pytest.mark.parametrize("n", [12, 40])
@pytest.mark.parametrize("heavy", [False, True], ids=["normal", "mostly zero"])
def test_without_a_difference_both_tests_reject_one_in_twenty(n: int, heavy: bool) -> None:
    generator = np.random.default_rng(n)
    difference = generator.normal(size=(n, 4000))
    if heavy:  # as per-user metrics are: most users see no difference
        difference *= generator.random((n, 4000)) < 0.5
    # Of 4000 tests 5 % is 200 ± 14; five deviations to either side. Of six signs that matter few p lie just below 5 %.
    low = 0.02 if heavy and n == 12 else 0.033
    assert low < (paired_t(difference).p <= 0.05).mean() < 0.067
    assert low < (sign_flip(difference, resamples=2000) <= 0.05).mean() < 0.067


def test_a_difference_that_is_there_is_found_and_its_interval_covers_it_as_often_as_it_says() -> None:
    difference = np.random.default_rng(3).normal(0.5, 1.0, size=(40, 2000))
    mine = paired_t(difference)
    assert (mine.p <= 0.05).mean() > 0.8
    assert 0.93 < ((mine.low <= 0.5) & (mine.high >= 0.5)).mean() < 0.97


def test_the_effect_size_by_hand() -> None:
    assert cohens_dz(np.array([[1.0], [2.0], [3.0]])).tolist() == [2.0]


def test_the_interval_of_a_ratio_is_that_of_scipys_bootstrap() -> None:
    profile = np.random.default_rng(0).gamma(5, 10, 200)
    lists = profile * 1.3 + np.random.default_rng(1).normal(0, 10, 200)
    low, high = bootstrap_ratio(lists[:, None], profile)
    theirs = stats.bootstrap(
        (lists, profile), lambda x, y, axis: x.mean(axis) / y.mean(axis),
        paired=True, method="percentile", n_resamples=10_000, rng=np.random.default_rng(2),
    ).confidence_interval  # fmt: skip
    width = theirs.high - theirs.low
    assert low[0] == pytest.approx(theirs.low, abs=0.05 * width)
    assert high[0] == pytest.approx(theirs.high, abs=0.05 * width)


def test_the_bootstrap_interval_covers_a_known_ratio_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for seed in range(300):
        profile = generator.gamma(5, 10, 100)  # mean 50
        lists = 0.5 * profile + generator.gamma(4, 10, 100)  # mean 25 + 40: the ratio of means is 1.3
        low, high = bootstrap_ratio(lists[:, None], profile, resamples=500, seed=seed)
        covered += bool(low[0] <= 1.3 <= high[0])
    assert 0.89 < covered / 300 < 0.985


def test_columns_of_a_bootstrap_see_the_same_users() -> None:
    profile, lists = np.random.default_rng(0).gamma(5, 10, (2, 80))
    low, high = bootstrap_ratio(np.column_stack([lists, lists * 2]), profile, resamples=400)
    np.testing.assert_allclose(low[1], 2 * low[0])
    np.testing.assert_allclose(high[1], 2 * high[0])
