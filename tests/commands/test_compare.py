import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from recdistill.cli import main
from recdistill.report.compare import compare
from recdistill.report.comparison_formats import FORMATS
from recdistill.report.per_user import row_values
from recdistill.report.runs import find_runs
from toy_runs import write_run, write_users


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for seed in range(2):
        write_run(tmp_path / "outputs" / "runs" / f"rrd{seed}", seed=seed, ndcg=0.3 + seed / 100)
        write_run(tmp_path / "outputs" / "runs" / f"unkd{seed}", seed=seed, method="unkd", ndcg=0.2)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "outputs"


def test_the_table_in_a_pipe_is_never_cut(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(outputs / "runs" / "long", method="a_method_with_a_name_that_is_longer_than_any_terminal_is_wide_" * 2)
    assert main(["compare"]) == 0
    out = capsys.readouterr().out
    assert "a_method_with_a_name_that_is_longer_than_any_terminal_is_wide_" * 2 in out
    assert "…" not in out
    assert "0.3050 ± 0.0071" in out


def test_an_output_without_the_letters_of_the_table_shows_others_in_straight_columns(outputs: Path) -> None:
    words = [sys.executable, "-m", "recdistill", "compare", str(outputs)]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "0.3050 +- 0.0071" in done.stdout
    lines = [line for line in done.stdout.splitlines() if "|" in line]
    assert len({tuple(n for n, letter in enumerate(line) if letter == "|") for line in lines}) == 1


def test_json_csv_and_markdown_hold_the_same_values(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["tables"][0]["rows"]
    value = next(row for row in rows if row["method"] == "rrd")["metrics"]["test/ndcg@20"]
    assert main(["compare", "--format", "csv"]) == 0
    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    line = next(row for row in table if row["method"] == "rrd")
    assert float(line["test/ndcg@20"]) == value["mean"] == pytest.approx(0.305)
    assert float(line["test/ndcg@20 sd"]) == value["sd"]
    assert main(["compare", "--format", "md", "--out", "table.md"]) == 0
    assert f"| **{value['mean']:.4f} ± {value['sd']:.4f}** |" in Path("table.md").read_text()


def test_a_metric_that_no_run_has_is_refused_with_the_nearest(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "--metric", "test/ndgc@20"]) == 2
    assert "did you mean test/ndcg@20?" in capsys.readouterr().err


def test_a_folder_that_is_missing_or_empty_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(tmp_path / "nowhere")]) == 2
    assert main(["compare", str(tmp_path)]) == 2
    assert "no runs below" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "more"),
    [
        ([], []),
        (["--baseline", "scratch"], ["pandas", "scipy"]),
        (["--format", "html", "--out", "c.html"], ["matplotlib"]),
    ],
)
def test_compare_imports_neither_torch_nor_hydra_and_slow_libraries_only_where_used(
    outputs: Path, words: list[str], more: list[str]
) -> None:
    for run in (outputs / "runs").iterdir():
        own = np.random.default_rng(len(run.name)).random((4, 10))
        write_users(run, dict(zip(("teacher", "scratch", "student", "mostpop"), own, strict=True)))
    code = (
        f"import sys; from recdistill.cli import main; main({['compare', *words]});"
        "print(sorted({'torch', 'hydra', 'matplotlib', 'pandas', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == str(more)


def test_tuning_runs_among_runs_with_test_are_listed_as_without_results(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(outputs / "runs" / "trial", seed=5, test=False)
    assert main(["compare", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["why"] for one in found["without_results"]] == ["test was not read"]
    assert [row["n"] for row in found["tables"][0]["rows"] if row["method"] == "rrd"] == [2]


def test_a_baseline_that_is_no_row_is_a_usage_error(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--baseline", "distill=htd"]) == 2
    told = capsys.readouterr().err
    assert "no row is --baseline distill=htd" in told
    assert "the rows are (teacher), (scratch), (mostpop), rrd, unkd" in told


def test_a_table_can_be_written_to_a_file(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--out", "table.txt"]) == 0
    assert capsys.readouterr().out == ""
    assert "0.3050 ± 0.0071" in Path("table.txt").read_text()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real runs: two distillers, two seeds."""
    folder = tmp_path_factory.mktemp("trained")
    words = ["debug=smoke", "device=cpu", "distill=none,rrd", "seed=0,1", f"paths.outputs={folder}"]
    assert main(["train", "-m", *words]) == 0
    return folder


def test_values_of_users_average_to_the_metrics_of_real_runs(trained: Path) -> None:
    metrics = ["test/ndcg@20", "test/recall@10", "test/poplift@20"]
    (comparison,) = compare(find_runs([trained])[0], metrics)
    for row in comparison.rows:
        for metric in metrics[:2]:
            assert row_values(row, metric)["value"].mean() == pytest.approx(row.cells[metric].mean)
        parts = row_values(row, "test/poplift@20").mean()
        assert parts["value"] / parts["profile"] - 1 == pytest.approx(row.cells["test/poplift@20"].mean)


@pytest.mark.parametrize("form", [*FORMATS, "html"])
def test_real_runs_are_tested_and_written_in_every_format(
    trained: Path, form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", str(trained), "--baseline", "distill=none", "--format", form]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    assert main(words) == 0
    assert capsys.readouterr().out == (tmp_path / "out").read_text()
    assert "rrd" in (tmp_path / "out").read_text()


def test_real_runs_give_tests_of_accuracy_and_lift(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(trained), "--baseline", "distill=none", "--format", "json"]) == 0
    (table,) = json.loads(capsys.readouterr().out)["tables"]
    (row,) = [row for row in table["rows"] if row["method"] == "rrd"]
    (base,) = [row for row in table["rows"] if row["method"] == "none"]
    for metric in ("test/ndcg@20", "test/recall@20", "test/poplift@20"):
        mine = row["metrics"][metric]
        assert mine["difference"] == pytest.approx(mine["mean"] - base["metrics"][metric]["mean"])
        assert mine["low"] <= mine["difference"] <= mine["high"]
        assert 0 < mine["p_raw"] <= mine["p"] <= 1
        assert mine["n_users"] > 30
