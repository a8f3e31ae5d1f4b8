"""The page of a run: well-formed, self-contained, and with the numbers of results.json."""

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from recdistill.cli import main
from recdistill.report.html import size
from recdistill.report.run_page import page, write_report
from recdistill.report.stored import read_run

VOID = {"meta", "br", "hr", "img", "link", "input", "path", "use", "stop"}


class Page(HTMLParser):
    """Elements, texts and ids of a page; fails on tags that are not nested."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.texts.append(data)
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] = (self.rows[-1][-1] + data).strip()

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def values(self, attribute: str) -> list[str]:
        return [found for _, attributes in self.elements if (found := attributes.get(attribute)) is not None]

    def row(self, start: str) -> list[str]:
        return next(row for row in self.rows if row and row[0].startswith(start))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a few epochs."""
    outputs = tmp_path_factory.mktemp("outputs")
    words = [f"{part}.epochs=6" for part in ("trainer", "scratch.trainer", "teacher.trainer")]
    assert main(["train", "debug=smoke", "device=cpu", f"paths.outputs={outputs}", *words]) == 0
    (folder,) = (outputs / "runs").iterdir()
    return folder


@pytest.fixture
def changed(made: Path, tmp_path: Path) -> Callable[..., Page]:
    """The page of a copy of the run whose results were changed, without some files."""

    def change(edit: Callable[[dict[str, Any]], None] = lambda results: None, without: tuple[str, ...] = ()) -> Page:
        folder = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        shutil.copytree(made, folder)
        results = json.loads((folder / "results.json").read_text())
        edit(results)
        (folder / "results.json").write_text(json.dumps(results))
        for name in without:
            (folder / name).unlink()
        return Page(page(read_run(folder)))

    return change


def results_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


def test_the_page_is_well_formed_and_loads_nothing(made: Path) -> None:
    text = (made / "report.html").read_text(encoding="utf-8")
    found = Page(text)
    assert {tag for tag, _ in found.elements} & {"script", "link", "img", "iframe", "object"} == set()
    assert found.values("src") == []
    assert "http" not in text.replace(results_of(made)["run"]["dir"], "")
    assert "@import" not in text
    assert len(text.encode()) < 1_000_000


def test_ids_are_unique_and_every_reference_has_its_target(made: Path) -> None:
    text = (made / "report.html").read_text(encoding="utf-8")
    found = Page(text)
    ids = found.values("id")
    assert len(ids) == len(set(ids)) > 100
    targets = [one.removeprefix("#") for one in found.values("href")] + re.findall(r"url\(#([^)]*)\)", text)
    assert set(targets) <= set(ids)
    assert len(set(targets)) > 10


def test_every_figure_has_a_caption_and_words_for_those_who_cannot_see_it(made: Path) -> None:
    found = Page((made / "report.html").read_text(encoding="utf-8"))
    tags = [tag for tag, _ in found.elements]
    assert tags.count("figure") == tags.count("figcaption") == tags.count("svg") >= 7
    for tag, attributes in found.elements:
        if tag == "svg":
            assert attributes["role"] == "img"
            assert len(attributes["aria-label"] or "") > 30
        if tag == "th":
            assert attributes["scope"] in ("row", "col")


def test_figures_follow_the_readers_theme(made: Path) -> None:
    text = (made / "report.html").read_text(encoding="utf-8")
    figures = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert "prefers-color-scheme: dark" in text
    assert re.findall(r"#[0-9a-f]{6}\b", figures) == []
    used = set(re.findall(r"var\(--(\w+)\)", figures))
    assert {"student", "teacher", "scratch", "mostpop", "muted"} <= used
    style = text[: text.index("</style>")]
    assert all(f"--{name}:" in style for name in used)


def test_the_main_table_has_the_values_of_the_results(made: Path) -> None:
    found, models = Page((made / "report.html").read_text(encoding="utf-8")), results_of(made)["models"]
    assert found.row("model")[:3] == ["model", "NDCG@20", "Recall@20"]
    for name, role in (("teacher", "teacher"), ("scratch", "scratch"), ("student", "student"), ("mostpop", "MostPop")):
        row, model = found.row(role), models[name]
        metrics = model["metrics"]
        assert row[1:3] == [f"{metrics['test/ndcg@20']:.4f}", f"{metrics['test/recall@20']:.4f}"]
        assert row[3] == f"{metrics['test/poplift@20']:+.1%}".replace("-", "\N{MINUS SIGN}")
        assert row[4:6] == [f"{model['parameters']:,}", size(model["bytes"])]


def test_every_stored_metric_is_on_the_page(made: Path) -> None:
    found, models = Page((made / "report.html").read_text(encoding="utf-8")), results_of(made)["models"]
    for name in models["student"]["metrics"]:
        values = [models[role]["metrics"].get(name) for role in ("teacher", "scratch", "student", "mostpop")]
        shown = ["-" if one is None else f"{one:.4f}".replace("-", "\N{MINUS SIGN}") for one in values]
        assert found.row(name) == [name, *shown]


def test_the_lorenz_table_counts_the_stored_lists(made: Path) -> None:
    table = pq.read_table(made / "topk.parquet").to_pandas()
    lists = table[(table["model"] == "student") & (table["rank"] <= 20)]
    recommended = lists["item_id"].nunique() / results_of(made)["dataset"]["n_items"]
    rows = [row for row in Page((made / "report.html").read_text(encoding="utf-8")).rows if row[0] == "student"]
    assert f"{recommended:.1%}" in [row[2] for row in rows if len(row) > 2]
    gini = results_of(made)["models"]["student"]["metrics"]["test/gini@20"]
    assert f"{gini:.4f}" in [row[1] for row in rows]


def test_text_of_others_stays_text(changed: Callable[..., Page]) -> None:
    evil = '"><script>alert(1)</script>'

    def edit(results: dict[str, Any]) -> None:
        results["dataset"]["name"] = evil
        results["models"]["student"]["kind"] = "$\\frac{1}{0}$"
        results["models"] = {f"teacher.{evil}": results["models"].pop("teacher")} | results["models"]
        results["config"]["plugins"] = [evil]
        results["definitions"][evil] = {"formula": evil}

    found = changed(edit)
    assert "script" not in {tag for tag, _ in found.elements}
    assert not [name for _, attributes in found.elements for name in attributes if name.startswith("on")]
    assert evil in found.text
    assert "$\\frac{1}{0}$" in found.text


@pytest.mark.parametrize(
    ("without", "says"),
    [
        ("topk.parquet", "There are no stored lists"),
        ("curves.csv", "The epochs of teacher, scratch are not in the run's folder"),
        ("history.csv", "The epochs of student are not in the run's folder"),
    ],
)
def test_a_section_says_which_file_it_misses(made: Path, changed: Callable[..., Page], without: str, says: str) -> None:
    assert says not in (made / "report.html").read_text(encoding="utf-8")
    assert says in changed(without=(without,)).text


def test_a_run_of_an_older_version_has_a_page_that_says_what_was_not_stored(changed: Callable[..., Page]) -> None:
    def edit(results: dict[str, Any]) -> None:
        for model in results["models"].values():
            model["metrics"] = {
                name: one for name, one in model["metrics"].items() if "/users=" not in name and "/items=" not in name
            }

    text = changed(edit, ("items.parquet", "users.parquet", "curves.csv")).text
    assert "Lift by kind of user was not stored" in text
    assert "Recall by head, mid and tail items was not stored" in text


def test_a_run_without_scratch_or_several_teachers_has_a_page(changed: Callable[..., Page]) -> None:
    def edit(results: dict[str, Any]) -> None:
        del results["models"]["scratch"], results["distillation"]["gap_closed"]
        results["models"]["teacher.a"] = results["models"].pop("teacher")
        results["models"]["teacher.b"] = results["models"]["teacher.a"]

    found = changed(edit)
    assert "Scratch is missing" in found.text
    assert "what distillation bought was not measured" in found.text
    assert found.row("teacher.b")[1] == found.row("teacher.a")[1]


def test_the_page_is_the_same_when_made_again(made: Path) -> None:
    before = (made / "report.html").read_bytes()
    assert write_report(made).read_bytes() == before
