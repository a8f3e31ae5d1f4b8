"""Tests the rows of a comparison on their users' values: which differences are more than noise over users."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from recdistill.errors import ConfigError, nearest
from recdistill.report.compare import made_of
from recdistill.report.comparison import Comparison, Difference, Row, Tests, more_is_better
from recdistill.report.per_user import is_lift, row_values, tested_columns
from recdistill.report.statistics import bootstrap_ratio, cohens_dz, holm, paired_t, sign_flip

ALPHA = 0.05


def against(made: Sequence[Comparison], baseline: Sequence[str]) -> list[Comparison]:
    """Test every row of each table against its baseline, and all pairs for the letters.

    Args:
        made: tables of rows that may be compared; rows of different tables never meet.
        baseline: words that all hold of one row: a method, a reference (`scratch`, `teacher`, `mostpop`) or a setting
            KEY=VALUE. A table without such a row is not tested and says so.

    Raises:
        ConfigError: no table has the row, one has several, or no metric has values of each user.
        CacheError: a run's file cannot be read.
    """
    places = [_baseline(comparison, baseline) for comparison in made]
    if all(place is None for place in places):
        rows = [row for comparison in made for row in comparison.rows]
        words = [row.method.strip("()") for row in rows]
        raise ConfigError(
            f"no row is --baseline {' '.join(baseline)}{nearest(baseline[0], words)}",
            f"the rows are {', '.join(dict.fromkeys(row.name for row in rows))}",
            "name a method, a reference (scratch, teacher, mostpop) or a setting KEY=VALUE",
        )
    return [
        replace(comparison, notes=[*comparison.notes, f"not tested: no row here is {' '.join(baseline)}"])
        if place is None
        else _tested(comparison, place)
        for comparison, place in zip(made, places, strict=True)
    ]


def _baseline(comparison: Comparison, words: Sequence[str]) -> int | None:
    found = [n for n, row in enumerate(comparison.rows) if all(_is(row, word) for word in words)]
    if len(found) > 1:
        raise ConfigError(
            f"--baseline {' '.join(words)} fits {len(found)} rows: {', '.join(comparison.rows[n].name for n in found)}",
            f"one row is the baseline of {comparison.title}",
            "repeat --baseline with what tells them apart: --baseline rrd --baseline distill.weight=0.1",
        )
    return found[0] if found else None


def _is(row: Row, word: str) -> bool:
    """Whether a word describes a row; `distill=NAME`, `teacher=NAME` and `student=NAME` as `train` takes them."""
    key, equals, value = word.partition("=")
    if not equals:
        return word.strip("()") == row.method.strip("()")
    if key in ("distill", "teacher", "student"):
        named = {"distill": row.method, "teacher": row.teacher, "student": row.student}[key]
        return row.role is None and named.split(" ")[0] == value
    run = row.members[0].run
    settings = run.config if row.role is None else made_of(run, row.role)
    return key in settings and (str(settings[key]) == value or settings[key] == _parsed(value))


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _tested(comparison: Comparison, baseline: int) -> Comparison:
    rows, notes = comparison.rows, list(comparison.notes)
    mine = _splits(rows[baseline])
    places = [n for n, row in enumerate(rows) if _splits(row) == mine]
    if other := [rows[n].name for n in range(len(rows)) if n not in places]:
        notes.append(f"not tested, of other splits than the baseline: {', '.join(other)}")
    if once := [rows[n].name for n in places if rows[n].n == 1 and rows[n].role in (None, "scratch")]:
        notes.append(f"n = 1: no test over users can tell a method from one lucky training of it: {', '.join(once)}")
    metrics = [metric for metric in comparison.columns if metric != "gap closed"]
    tested = tested_columns([rows[n] for n in places], metrics)
    if not tested:
        raise ConfigError(
            f"none of {', '.join(metrics)} can be tested",
            "tests are of values that each user has, on the test split",
            "choose --metric test/ndcg@20 or another of per_user.parquet",
        )
    if left_out := [metric for metric in metrics if metric not in tested]:
        notes.append(f"not tested, without a value per user in every run: {', '.join(left_out)}")
    differences: dict[str, dict[int, Difference]] = {}
    better: dict[str, dict[int, list[int]]] = {}
    for metric in tested:
        value, profile = _values([rows[n] for n in places], metric)
        if len(value) < 2:
            notes.append(f"{metric} is not tested: {len(value)} users in common")
            continue
        at = places.index(baseline)
        differences[metric] = dict(zip(places, _differences(value, profile, at), strict=True))
        del differences[metric][baseline]
        if more_is_better(metric):
            better[metric] = {
                place: [places[n] for n in worse] for place, worse in zip(places, _better(value), strict=True)
            }
    return replace(comparison, notes=notes, tests=Tests(baseline, differences, better))


def _splits(row: Row) -> set[str]:
    return {member.run.results["dataset"]["fingerprint"] for member in row.members}


def _values(rows: Sequence[Row], metric: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Values [U, R] of the users that all rows have, sorted by user; of a lift also their profiles [U]."""
    frames = [row_values(row, metric).dropna() for row in rows]
    users = reduce(pd.Index.intersection, (frame.index for frame in frames)).sort_values()
    value = np.column_stack([frame.loc[users, "value"].to_numpy(np.float64) for frame in frames])
    return value, frames[0].loc[users, "profile"].to_numpy(np.float64) if is_lift(metric) else None


def _differences(value: np.ndarray, profile: np.ndarray | None, baseline: int) -> list[Difference]:
    """Of every row against the baseline; Holm over the different ones.

    The same model can be two rows: scratch is what `distill=none` trains. Rows with the same value for every user are
    one hypothesis, and a row that is the baseline itself is none.

    The lifts of two rows have the same denominator, so they differ if and only if the lists' popularity does: that is
    what the tests and dz are of, while value and interval are of the lift.
    """
    difference, place = np.unique(value - value[:, [baseline]], axis=1, return_inverse=True)
    test, flip, dz = paired_t(difference), sign_flip(difference), cohens_dz(difference)
    mean, low, high = difference.mean(0), test.low, test.high
    if profile is not None:
        mean = mean / profile.mean()
        low, high = bootstrap_ratio(difference, profile)
    others = np.asarray(difference.any(axis=0))
    p, p_flip = np.ones((2, difference.shape[1]))
    p[others], p_flip[others] = holm(test.p[others]), holm(flip[others])
    return [
        Difference(
            value=float(mean[n]),
            low=float(low[n]),
            high=float(high[n]),
            p=float(p[n]),
            p_permutation=float(p_flip[n]),
            p_raw=float(test.p[n]),
            p_permutation_raw=float(flip[n]),
            dz=None if np.isnan(dz[n]) else float(dz[n]),
            n_users=len(value),
        )
        for n in place
    ]


def _better(value: np.ndarray) -> list[list[int]]:
    """For each row, the rows that it is significantly better than: paired t-tests, Holm over all pairs."""
    different, place = np.unique(value, axis=1, return_inverse=True)
    n, mean = different.shape[1], different.mean(0)
    raw = [paired_t(different[:, first + 1 :] - different[:, [first]]).p for first in range(n - 1)]
    beats = np.zeros((n, n), bool)
    for (one, other), p in zip(combinations(range(n), 2), holm(np.concatenate([[], *raw])), strict=True):
        beats[one, other] = p <= ALPHA and mean[one] > mean[other]
        beats[other, one] = p <= ALPHA and mean[other] > mean[one]
    return [np.flatnonzero(beats[own, place]).tolist() for own in place]
