"""`recdistill report` and the page that `train` leaves."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from recdistill.cli import main
from recdistill.store import write_json


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run and a tuning trial, which does not read test."""
    outputs = tmp_path_factory.mktemp("outputs")
    words = ["train", "debug=smoke", "device=cpu", f"paths.outputs={outputs}"]
    assert main([*words, f"hydra.run.dir={outputs}/runs/whole"]) == 0
    assert main([*words, f"hydra.run.dir={outputs}/runs/trial", "evaluation.test=false"]) == 0
    return outputs


def test_train_leaves_a_page_that_report_makes_again_without_model_cache_or_torch(
    outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "whole"
    shutil.copytree(outputs / "runs" / "whole", run)  # what is copied elsewhere has no cache beside it
    before = (run / "report.html").read_bytes()
    for name in ("report.html", "student.safetensors", "model.json"):
        (run / name).unlink()
    code = (
        "import sys; from recdistill.cli import main; main(['report', sys.argv[1]]);"
        "print(sorted({'torch', 'hydra', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(run)], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.splitlines() == [str(run / "report.html"), "[]"]
    assert (run / "report.html").read_bytes() == before


def test_a_trial_leaves_no_page_but_can_have_one_that_says_so(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = outputs / "runs" / "trial" / "report.html"
    assert not page.exists()
    assert main(["report", str(page.parent)]) == 0
    text = page.read_text(encoding="utf-8")
    assert "validation part (test was not read)" in text
    assert "There are no stored lists: test was not read" in text


def test_a_run_can_do_without_a_page(tmp_path: Path) -> None:
    assert main(["train", "debug=smoke", "device=cpu", f"hydra.run.dir={tmp_path}/run", f"paths.outputs={tmp_path}",
                 "report=false"]) == 0  # fmt: skip
    assert (tmp_path / "run" / "results.json").is_file()
    assert not (tmp_path / "run" / "report.html").exists()


def test_the_page_is_no_setting_that_tells_runs_apart(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "debug=smoke", "device=cpu", f"paths.outputs={outputs}", f"hydra.run.dir={outputs}/runs/again"]
    assert main([*words, "report=false", "skip_finished=true"]) == 0
    assert "was done before in" in capsys.readouterr().out
    assert main(["report", f"{outputs}/runs/again"]) == 2
    assert "was skipped\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("status", "says"),
    [
        ({"status": "failed", "error": "TrainingError: the loss is nan\nWhy: ..."}, "it is failed: TrainingError"),
        ({"status": "running"}, "it is running"),
    ],
)
def test_an_unfinished_run_has_no_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], status: dict[str, str], says: str
) -> None:
    write_json(tmp_path / "status.json", status)
    assert main(["report", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert f"train resume={tmp_path}" in error
    assert not (tmp_path / "report.html").exists()


def test_a_folder_that_is_no_run_and_results_of_another_version_are_refused(
    outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "is not the folder of a run" in capsys.readouterr().err
    shutil.copytree(outputs / "runs" / "whole", tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    write_json(tmp_path / "run" / "results.json", results | {"schema_version": 99})
    assert main(["report", str(tmp_path / "run")]) == 2
    assert "has schema_version 99" in capsys.readouterr().err


def test_a_damaged_file_is_named(outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(outputs / "runs" / "whole", tmp_path / "run")
    path = tmp_path / "run" / "topk.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    assert main(["report", str(tmp_path / "run")]) == 1
    assert f"cannot read {path}" in capsys.readouterr().err
