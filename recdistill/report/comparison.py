"""What a comparison of runs is made of: values that grouping makes, tests add to, and formats show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recdistill.report.runs import Run

OTHER_SEEDS, OTHER_BUDGET = "*", "†"


@dataclass(frozen=True)
class Cell:
    """Mean and sample standard deviation over the `n` replicates that have the value; None where none has."""

    mean: float | None
    sd: float | None
    n: int = 0

    def __str__(self) -> str:
        """As in a table."""
        if self.mean is None:
            return "-"
        return f"{self.mean:.4f}" if self.sd is None else f"{self.mean:.4f} ± {self.sd:.4f}"


NO_CELL = Cell(None, None)


@dataclass(frozen=True)
class Member:
    """One replicate: a run and which of its models is meant."""

    run: Run
    model: str

    @property
    def entry(self) -> Mapping[str, Any]:
        """What results.json says of the model."""
        entry: Mapping[str, Any] = self.run.results["models"][self.model]
        return entry


@dataclass(frozen=True, eq=False)
class Row:
    """Replicates of one setting.

    Attributes:
        method: of distillation, or `(ROLE)` of a reference model.
        teacher, student: kind and dimension.
        settings: what else tells the row apart from others of its method.
        cells: by metric.
        members: one per replicate.
        replicates: values of the replicate keys, as text.
        trials: settings tried before these were chosen, as the study's ledger counts them; None if unknown.
        marks: `*` where the seeds, `†` where the tuning budget is not that of the other rows.
    """

    method: str
    teacher: str
    student: str
    settings: str
    cells: Mapping[str, Cell]
    members: Sequence[Member]
    replicates: frozenset[str]
    trials: int | None = None
    marks: str = ""

    @property
    def n(self) -> int:
        """The number of replicates."""
        return len(self.members)

    @property
    def role(self) -> str | None:
        """The role of a reference model: teacher, scratch, mostpop; None for a method."""
        return self.method[1:-1].split(".")[0] if self.method.startswith("(") else None

    @property
    def name(self) -> str:
        """Method and what tells it apart."""
        return " ".join(part for part in (self.method, self.settings) if part)


@dataclass(frozen=True)
class Difference:
    """One row against the baseline on one metric.

    Attributes:
        value: row minus baseline, over the users in common.
        low, high: its 95 % interval, not corrected for the number of rows.
        p: of the paired t-test, p_permutation: of the sign-flip test; both after Holm over the rows of the metric.
        p_raw, p_permutation_raw: before.
        dz: Cohen's; None where all differences are equal.
        n_users: in common, each one row of the tests.
    """

    value: float
    low: float
    high: float
    p: float
    p_permutation: float
    p_raw: float
    p_permutation_raw: float
    dz: float | None
    n_users: int


@dataclass(frozen=True)
class Tests:
    """What the users' values say about a comparison's rows.

    Attributes:
        baseline: position of the row that the others are compared with.
        differences: by metric, by position of the row.
        better: by metric, by position, the positions of rows that it is significantly better than, of all pairs.
    """

    baseline: int
    differences: Mapping[str, Mapping[int, Difference]]
    better: Mapping[str, Mapping[int, Sequence[int]]]


@dataclass(frozen=True)
class Comparison:
    """Runs that may be compared with each other: one data set and split, one set of definitions.

    Attributes:
        title: the data set and what tells the table apart from others.
        rows: references first.
        notes: what a reader must know, one line each.
        tests: against a baseline, where asked for.
    """

    title: str
    rows: Sequence[Row]
    notes: Sequence[str] = ()
    tests: Tests | None = None

    @property
    def columns(self) -> list[str]:
        """The metrics and `gap closed`."""
        return list(self.rows[0].cells) if self.rows else []


def label(position: int) -> str:
    """The letter of a row: a to z, then aa, ab and so on."""
    text = ""
    while position >= 0:
        text = chr(ord("a") + position % 26) + text
        position = position // 26 - 1
    return text


def best(comparison: Comparison, metric: str) -> set[int]:
    """Positions of the best rows of a metric of which more is better, teachers aside; empty for others.

    A lift or an average popularity is a property, not a score: no end of it is the better one.
    """
    means = {
        position: mean
        for position, row in enumerate(comparison.rows)
        if row.role != "teacher" and (mean := row.cells[metric].mean) is not None
    }
    if not more_is_better(metric) or len(means) < 2:
        return set()
    return {position for position, mean in means.items() if mean == max(means.values())}


def metric_name(metric: str) -> str:
    """`ndcg` of `test/ndcg@20/group=0`."""
    return metric.partition("/")[2].partition("@")[0]


def more_is_better(metric: str) -> bool:
    """Whether a metric is an accuracy, over all users or in a group."""
    return metric_name(metric) in ("recall", "ndcg", "hit", "precision", "mrr", "map")
