#!/usr/bin/env python3
"""The tables of docs/results.md from a study's folder, and its frontier of accuracy against popularity lift.

    python3 scripts/env.py python scripts/study_tables.py outputs/studies/ranking-mf --figures docs/images

Per data set: every row of the study with its tests against scratch and against a second row, users as the replicates
and p after Holm's correction; the rows that no other row dominates are marked with a diamond; then every trial.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from recdistill.report.compare import compare
from recdistill.report.compare_figures import pareto_front
from recdistill.report.comparison import Cell, Comparison, Difference, Row
from recdistill.report.runs import Run, find_runs, ledger_rows
from recdistill.report.significance import against

SHOWN = {"(teacher)": "teacher", "(mostpop)": "MostPop"}


def main() -> int:
    """Print the tables; write the figures where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="the folder of a study")
    parser.add_argument("--k", type=int, default=20, help="the cut-off (default: 20)")
    parser.add_argument("--rival", default="rrd", help="the second row that all are tested against (default: rrd)")
    parser.add_argument("--all-users", action="store_true", help="unpopular recall as UnKD has it, over all users")
    parser.add_argument("--figures", type=Path, metavar="FOLDER", help="write frontier-DATASET.png there")
    asked = parser.parse_args()
    ledger = ledger_rows(asked.study / "ledger.jsonl")
    for place in sorted((asked.study / "final").iterdir()):
        here = [row for row in ledger if row["dataset"] == place.name]
        tried, final = ([row for row in here if row["phase"] == phase] for phase in ("trial", "final"))
        rows = Rows(place, asked.k, asked.rival, "recall_all_users" if asked.all_users else "recall")
        print(f"\n**{place.name}**\n")
        print("\n".join(rows.table()))
        print("\nTrials, valid:\n")
        print("\n".join(trials(tried, {row["method"]: row["settings"] for row in final})))
        if asked.figures is not None:
            asked.figures.mkdir(parents=True, exist_ok=True)
            rows.draw(asked.figures / f"frontier-{place.name}.png")
    hours = sum(row["seconds"] for row in ledger) / 3600
    print(f"\n{len(ledger)} runs, {hours:.1f} hours of one process.")
    return 0


class Rows:
    """The final runs of one data set, compared."""

    def __init__(self, place: Path, k: int, rival: str, in_group: str) -> None:
        """Read and test them."""
        self.name, self.ndcg, self.lift = place.name, f"test/ndcg@{k}", f"test/poplift@{k}"
        self.metrics = [self.ndcg, f"test/recall@{k}", self.lift, f"test/{in_group}@{k}/group=1"]
        runs, _ = find_runs([place])
        (self.made,) = compare(runs, self.metrics)
        shown = [row for row in self.made.rows if row.role != "scratch"]  # the method `scratch` is that very model
        self.rows = sorted(shown, key=lambda row: -(row.cells[self.ndcg].mean or 0))
        self.tests = {
            name: _differences(self.made, row, self.ndcg)
            for name, row in ((self.title(row), row) for row in self.rows)
            if name in ("scratch", rival)
        }
        methods = [(row, self.means(row)) for row in self.rows if row.role is None]
        placed = [(row, means) for row, means in methods if means is not None]
        best = pareto_front([(-ndcg, lift) for _, (ndcg, lift) in placed])
        self.front = {self.title(row) for (row, _), wins in zip(placed, best, strict=True) if wins}

    def means(self, row: Row) -> tuple[float, float] | None:
        """Accuracy and lift; None where one of them was not measured."""
        ndcg, lift = row.cells[self.ndcg].mean, row.cells[self.lift].mean
        return None if ndcg is None or lift is None else (ndcg, lift)

    def title(self, row: Row) -> str:
        """The study's name of a row."""
        return row.members[0].run.folder.parent.name if row.role is None else SHOWN[row.method]

    def table(self) -> list[str]:
        """In Markdown."""
        heads = ["row", "n", *(metric.removeprefix("test/") for metric in self.metrics), "gap closed"]
        heads[5] = "unpopular"
        heads += [f"ndcg against {name} [95 %], p" for name in self.tests] + ["CPU s"]
        lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
        for row in self.rows:
            name = self.title(row)
            cells = [f"{name} ◆" if name in self.front else name, str(row.n)]
            cells += [*(str(row.cells[metric]) for metric in self.metrics), self.gap_closed(row)]
            cells += [_shown(differences.get(name)) for differences in self.tests.values()]
            lines.append("| " + " | ".join([*cells, _cpu([member.run for member in row.members], row)]) + " |")
        return lines

    def gap_closed(self, row: Row) -> str:
        """Of means, and from the tuned scratch also for a student of another base loss."""
        named = {self.title(other): other.cells[self.ndcg].mean for other in self.rows}
        own, low, high = row.cells[self.ndcg].mean, named.get("scratch"), named.get("teacher")
        if row.role is not None or own is None or low is None or high is None or high <= low:
            return ""
        return f"{(own - low) / (high - low):.2f}"

    def draw(self, path: Path) -> None:
        """Accuracy against popularity lift, one point per row."""
        figure = Figure(figsize=(9, 5.5), layout="constrained", dpi=110)
        axes = figure.subplots()
        names = []
        for number, row in enumerate(self.rows, 1):
            name, x, y, means = self.title(row), row.cells[self.lift], row.cells[self.ndcg], self.means(row)
            if row.role == "mostpop" or means is None:
                continue
            wins = name in self.front
            names.append(f"{number:2} {name}{' ◆' if wins else ''}")
            axes.errorbar(*means[::-1], _sd(y), _sd(x), fmt="D" if wins else "o", color="C0" if wins else "0.6", ms=5)
            axes.annotate(str(number), means[::-1], xytext=(4, 4), textcoords="offset points", fontsize=8)
        axes.set_xlabel("popularity lift of the lists (0: as popular as the users' own items)")
        axes.set_ylabel(self.ndcg.removeprefix("test/"))
        axes.set_title(f"{self.name}: ◆ no other method has more accuracy and less lift", fontsize=10)
        axes.text(1.02, 1, "\n".join(names), transform=axes.transAxes, va="top", fontsize=8, family="monospace")
        figure.savefig(path)


def _sd(cell: Cell) -> float:
    return cell.sd or 0.0


def _differences(made: Comparison, baseline: Row, metric: str) -> Mapping[str, Difference]:
    """Every row against one of them, by the rows' names in the study."""
    place = next(n for n, row in enumerate(made.rows) if row is baseline)
    tests = against([made], [baseline.method, *baseline.settings.split()])[0].tests
    assert tests is not None and tests.baseline == place
    named = ((row, tests.differences[metric].get(n)) for n, row in enumerate(made.rows) if row.role != "scratch")
    return {
        row.members[0].run.folder.parent.name if row.role is None else SHOWN[row.method]: one
        for row, one in named
        if one is not None
    }


def _shown(one: Difference | None) -> str:
    if one is None:
        return ""
    p = "< 0.001" if one.p < 0.001 else f"{one.p:.3f}"
    return f"{one.value:+.4f} [{one.low:+.4f}, {one.high:+.4f}], {p}"


def _cpu(runs: Sequence[Run], row: Row) -> str:
    """CPU seconds of preparing and training the student, a mean over seeds trained in one go; none for a reference."""
    told = [run.results["run"] for run in runs if not run.results["run"].get("resumed_after_epoch")]
    stages = [one.get("cpu_seconds", {}) for one in told]
    if row.role is not None or not stages or not all("student" in stage for stage in stages):
        return ""
    return f"{statistics.fmean(stage['student'] for stage in stages):.0f}"


def trials(rows: Sequence[Mapping[str, object]], chosen: Mapping[object, object]) -> list[str]:
    """A line per method with every setting that was tried and its value; in bold what the final runs have.

    That need not be the best: settings of an earlier space are in the ledger too.
    """
    methods: dict[str, dict[str, str]] = {}
    for row in rows:
        settings, value = row["settings"], row["value"]
        assert isinstance(settings, list)
        pairs = [str(word).partition("=") for word in settings]
        words = ", ".join(f"{key.rpartition('.')[2]} {setting}" for key, _, setting in pairs)
        shown = f"{words} {value:.4f}" if isinstance(value, float) else f"{words} -"
        is_chosen = settings == chosen.get(row["method"])
        methods.setdefault(str(row["method"]), {})[words] = f"**{shown}**" if is_chosen else shown
    lines = ["| row | settings: valid/ndcg |", "|---|---|"]
    lines += [f"| {method} | {'; '.join(tried.values())} |" for method, tried in methods.items()]
    return lines


if __name__ == "__main__":
    raise SystemExit(main())
