import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from recdistill.cli import main
from toy_runs import write_run


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


def test_json_csv_and_markdown_hold_the_same_values(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--format", "json"]) == 0
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


def test_compare_imports_neither_torch_nor_hydra(outputs: Path) -> None:
    code = (
        "import sys; from recdistill.cli import main; main(['compare']);"
        "print(sorted({'torch', 'hydra'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_tuning_runs_among_runs_with_test_are_listed_as_without_results(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(outputs / "runs" / "trial", seed=5, test=False)
    assert main(["compare", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["why"] for one in found["without_results"]] == ["test was not read"]
    assert [row["n"] for row in found["tables"][0]["rows"] if row["method"] == "rrd"] == [2]
