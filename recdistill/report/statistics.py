"""Paired tests, effect sizes and intervals of per-user values: arrays in, arrays out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

Array = np.ndarray

CONFIDENCE = 0.95
RESAMPLES = 10_000
BLOCK = 4_000_000  # values of a block of resamples: 32 MB


@dataclass(frozen=True)
class PairedT:
    """Paired t-tests of M columns, each [M]: two-sided p and the interval of the mean difference."""

    p: Array
    low: Array
    high: Array


def paired_t(difference: Array) -> PairedT:
    """Two-sided paired t-test of each column of differences, and the 95 % interval of its mean.

    Source: Student 1908, by `scipy.stats.ttest_1samp` (of differences it is `ttest_rel`). Urbano et al., SIGIR 2019,
    find it the most reliable of the usual tests for per-topic values such as these.

    Shapes:
        difference: [U, M], one row per user, U >= 2. A column of equal values has no spread to test by: its p is 1
        where they are 0, else 0.
    """
    difference = np.asarray(difference, np.float64)
    varies = _varies(difference)
    mean = difference.mean(0)
    p, low, high = np.where(mean == 0, 1.0, 0.0), mean.copy(), mean.copy()
    if varies.any():
        result = stats.ttest_1samp(difference[:, varies], 0.0, axis=0)
        interval = result.confidence_interval(CONFIDENCE)
        p[varies], low[varies], high[varies] = result.pvalue, interval.low, interval.high
    return PairedT(p, low, high)


def _varies(difference: Array) -> Array:
    """Which columns are not one value up to rounding."""
    varies: Array = np.ptp(difference, axis=0) > 1e-12 * np.abs(difference).max(0)
    return varies


def sign_flip(difference: Array, *, resamples: int = RESAMPLES, seed: int = 0) -> Array:
    """Two-sided p of the paired permutation test: how often random signs give as large a mean difference.

    Source: Fisher 1935; the `samples` permutations of `scipy.stats.permutation_test`, with one draw of signs for all
    columns. Exact over all 2^U signs where these are no more than `resamples`; else the data count as one of the
    draws, so p is at least 1 / (resamples + 1) (Phipson and Smyth 2010).

    Shapes:
        difference: [U, M]. Returns: [M].
    """
    difference = np.asarray(difference, np.float64)
    n = len(difference)
    limit = np.abs(difference.sum(0)) - 1e-12 * np.abs(difference).sum(0)  # sums in another order differ in last bits
    exact = n < 64 and 2**n <= resamples
    draws = 2**n if exact else resamples
    generator = np.random.default_rng(seed)
    as_large = np.zeros(difference.shape[1], np.int64)
    block = max(4, BLOCK // n // 4 * 4)  # bytes are drawn by fours: blocks of fours draw what one block would
    for start in range(0, draws, block):
        rows = min(block, draws - start)
        if exact:
            bits = np.arange(start, start + rows)[:, None] >> np.arange(n) & 1
        else:
            bits = generator.integers(0, 2, (rows, n), dtype=np.int8)
        as_large += (np.abs((2.0 * bits - 1) @ difference) >= limit).sum(0)
    return as_large / draws if exact else (as_large + 1) / (draws + 1)


def cohens_dz(difference: Array) -> Array:
    """Cohen's dz, the mean difference in units of the differences' deviation (ddof 1); NaN where that is 0.

    Source: Cohen 1988; Lakens 2013, eq. 6.

    Shapes:
        difference: [U, M]. Returns: [M].
    """
    deviation = np.std(difference, axis=0, ddof=1)
    varies = _varies(difference)
    dz: Array = np.divide(np.mean(difference, axis=0), deviation, out=np.full(len(deviation), np.nan), where=varies)
    return dz


def holm(p: Array) -> Array:
    """P-values corrected for the size of their family: each is compared with what is left when smaller ones are done.

    Source: Holm 1979. The k-th smallest of m is multiplied by m - k + 1; a larger p never gets a smaller result.

    Shapes:
        p: [m], without NaN. Returns: [m], at most 1.

    Example:
        >>> holm(np.array([0.01, 0.04, 0.03])).round(6).tolist()
        [0.03, 0.06, 0.06]
    """
    order = np.argsort(p, kind="stable")
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(np.arange(len(p), 0, -1) * np.asarray(p)[order]), 1)
    return corrected


def bootstrap_ratio(
    numerator: Array, denominator: Array, *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[Array, Array]:
    """95 % percentile interval of a ratio of means over users, by drawing whole users with replacement.

    A popularity lift plus 1 is such a ratio; so is the difference of two lifts over the same profiles, with the
    difference of the lists' popularity as the numerator. Numerator and denominator of a user stay together, and all
    columns see the same users.

    Source: Efron 1979; what `scipy.stats.bootstrap(paired=True, method="percentile")` gives, without its copies.

    Shapes:
        numerator: [U, M]. denominator: [U], its mean not 0. Returns: low and high, each [M].
    """
    n = len(denominator)
    generator = np.random.default_rng(seed)
    both = np.column_stack([numerator, denominator])
    ratios = np.empty((resamples, both.shape[1] - 1))
    block = max(1, BLOCK // n)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        times = np.stack([np.bincount(generator.integers(0, n, n), minlength=n) for _ in range(rows)])
        sums = times.astype(np.float64) @ both
        ratios[start : start + rows] = sums[:, :-1] / sums[:, -1:]
    low, high = np.quantile(ratios, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
    return low, high
