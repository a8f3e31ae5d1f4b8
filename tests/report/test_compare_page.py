import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from recdistill.report.compare import compare
from recdistill.report.compare_figures import figures, pareto_front, spots_of
from recdistill.report.compare_page import page
from recdistill.report.comparison import Comparison
from recdistill.report.runs import Unfinished, find_runs
from recdistill.report.significance import against
from toy_runs import write_run, write_users

METRICS = ["test/ndcg@20", "test/poplift@20"]
COST = {"teacher": (64_000, 0.004), "scratch": (8_000, 0.001), "student": (8_000, 0.001), "mostpop": (0, 0.0005)}


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    """Two methods of two seeds with sizes, latencies and users' values, tested against scratch."""
    generator = np.random.default_rng(0)
    for method, shift in (("rrd", 0.1), ("unkd", 0.05)):
        for seed in range(2):
            base = generator.normal(0.2, 0.1, 50)
            run = write_run(tmp_path / f"{method}{seed}", seed=seed, method=method, ndcg=0.2 + shift + seed / 100)
            write_users(run, {"student": base + shift, "scratch": base, "teacher": base + 0.3, "mostpop": base - 0.1})
            results = json.loads((run / "results.json").read_text())
            for name, (size, seconds) in COST.items():
                results["models"][name] |= {"bytes": size, "latency": {"single": {"p50": seconds}}}
            results["models"]["mostpop"]["metrics"]["test/poplift@20"] = 6.0
            (run / "results.json").write_text(json.dumps(results))
    return against(compare(find_runs([tmp_path])[0], METRICS), ["scratch"])[0]


class Page(HTMLParser):
    """Tags, the words of attributes that load something, and the cells of tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]


def test_the_page_is_one_file_without_scripts_that_loads_nothing(comparison: Comparison) -> None:
    found = Page(page([comparison], []))
    assert not {"script", "link", "img", "iframe", "object"} & set(found.tags)
    assert all(load.startswith("#") for load in found.loads)
    assert found.tags.count("svg") == 4


def test_the_page_has_values_letters_the_best_and_the_differences(comparison: Comparison) -> None:
    text = page([comparison], [Unfinished(Path("runs/x"), "failed", "TrainingError: <nan>")])
    assert re.search(r'<span class="best">0\.3050</span> <span class="kind">± 0\.0071</span><sup>bce</sup>', text)
    assert 'class="base"' in text
    assert "Difference to b (scratch), paired over 50 users in common" in text
    assert "<td>64 kB</td><td>4 ms</td>" in re.sub(r">\s+<", "><", text)
    assert "TrainingError: &lt;nan&gt;" in text


def test_mostpop_is_named_instead_of_squeezing_the_others_in_the_figure_of_lift(comparison: Comparison) -> None:
    (lift,) = [one for one in figures("t", comparison, spots_of(comparison)) if "lift" in one.title]
    assert "Not drawn: c mostpop at +600% and 0.1000." in lift.caption
    assert "c mostpop</text>" not in lift.svg
    assert "d rrd</text>" in lift.svg


def test_several_tables_share_a_page_and_no_id(comparison: Comparison) -> None:
    ids = re.findall(r'\bid="([^"]+)"', page([comparison, comparison], []))
    assert len(ids) == len(set(ids)) > 10


def test_runs_that_never_measured_cost_make_a_page_that_says_so(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    text = page(compare(find_runs([tmp_path])[0], METRICS), [])
    assert "latency is not in these runs" in text
    assert text.count("<svg") == 1  # accuracy against lift
    assert "Raised letters" not in text


def test_a_page_of_failures_only_can_be_made() -> None:
    assert "No finished runs" in page([], [Unfinished(Path("x"), "failed", "")])


def test_names_of_others_are_text_on_the_page(tmp_path: Path) -> None:
    write_run(tmp_path / "a", method="<script>alert(1)</script>$x$")
    text = page(compare(find_runs([tmp_path])[0], METRICS), [])
    assert "<script" not in text


def test_the_pareto_front_is_what_no_other_point_beats() -> None:
    costs = [(1.0, 5.0), (2.0, 2.0), (2.0, 3.0), (5.0, 1.0), (6.0, 1.0), (2.0, 2.0)]
    assert pareto_front(costs) == [True, True, False, True, False, True]
    table = np.random.default_rng(0).integers(0, 5, (60, 3))
    slow = [
        not any(all(o <= m for o, m in zip(other, one, strict=True)) and list(other) != list(one) for other in table)
        for one in table
    ]
    assert pareto_front(table.tolist()) == slow
