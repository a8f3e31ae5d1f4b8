import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from recdistill.cli import main

# Small, but every stage lasts long enough to be hit: about two seconds of work after start-up.
WORDS = [
    "dataset=synthetic",
    "soft_labels.depth=200",
    "distill.depth=200",
    "trainer.epochs=40",
    "teacher.trainer.epochs=40",
    "scratch.trainer.epochs=40",
    "trainer.eval_every=2",
    "teacher.trainer.eval_every=2",
    "scratch.trainer.eval_every=2",
]


def start(outputs: Path, *words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "recdistill", "train", *words, f"paths.outputs={outputs}"]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=outputs.parent
    )


def finish(outputs: Path, *words: str) -> None:
    process = start(outputs, *words)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err


def only_run(outputs: Path) -> Path | None:
    """The folder of the run, if the killed process had come as far as to make one that can be continued."""
    runs = [path.parent for path in outputs.glob("runs/*/status.json")]
    return runs[0] if runs and (runs[0] / ".hydra" / "overrides.yaml").is_file() else None


def numbers(outputs: Path) -> dict[str, Any]:
    """Everything of a finished run that must not depend on interruptions."""
    run = only_run(outputs)
    assert run is not None
    results = json.loads((run / "results.json").read_text())
    assert json.loads((run / "status.json").read_text())["status"] == "done"
    history = pd.read_csv(run / "history.csv").drop(columns="seconds")
    return {
        "metrics": {name: model["metrics"] for name, model in results["models"].items()},
        "epochs": {name: (model["epochs"], model.get("best_epoch")) for name, model in results["models"].items()},
        "distillation": results["distillation"],
        "fingerprints": results["fingerprints"],
        "history": history.to_csv(index=False),
        "student": (run / "student.safetensors").read_bytes(),
        "topk": pd.read_parquet(run / "topk.parquet").to_csv(index=False),
    }


def killed_and_resumed(outputs: Path, stage: str, seconds: float) -> str:
    """Start a run, kill it some seconds after it entered a stage, continue it; returns the stage it was killed in."""
    process = start(outputs, *WORDS)
    while process.poll() is None and ((run := only_run(outputs)) is None or not entered(outputs, run, stage)):
        time.sleep(0.002)
    time.sleep(seconds)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=120)
    run = only_run(outputs)
    assert run is not None
    if (run / "results.json").is_file() and json.loads((run / "status.json").read_text())["status"] == "done":
        return "after the end"
    killed_in = stage_of(outputs, run)
    finish(outputs, *WORDS, f"resume={run}")
    assert len(list(outputs.glob("runs/*"))) == 1  # in its own folder
    return killed_in


STAGES = ("dataset", "teacher", "soft labels", "scratch", "student", "record")


def entered(outputs: Path, run: Path, stage: str) -> bool:
    return STAGES.index(stage_of(outputs, run)) >= STAGES.index(stage)


def stage_of(outputs: Path, run: Path) -> str:
    cache = outputs / "cache"
    if (run / "student.safetensors").exists() or (run / "history.csv").exists():
        return "record"
    if any(run.glob("checkpoint.*.safetensors")):
        return "student"
    if any(cache.glob("scratch/*/")):
        return "scratch"
    if any(cache.glob("soft_labels/*/")):
        return "soft labels"
    return "teacher" if any(cache.glob("teachers/*/")) else "dataset"


def test_a_run_killed_while_it_trains_ends_with_the_numbers_of_an_uninterrupted_one(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    finish(tmp_path / "whole" / "outputs", *WORDS)
    stage = killed_and_resumed(tmp_path / "killed" / "outputs", "teacher", 0.2)
    assert stage in STAGES
    assert numbers(tmp_path / "killed" / "outputs") == numbers(tmp_path / "whole" / "outputs")


@pytest.mark.slow
def test_fifty_kills_at_random_moments_give_fifty_identical_results(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    finish(tmp_path / "whole" / "outputs", *WORDS)
    expected = numbers(tmp_path / "whole" / "outputs")
    moments, killed_in = random.Random(0), []
    for number in range(50):
        place = tmp_path / str(number)
        place.mkdir()
        # the stages take a few tenths of a second each, so a moment may also fall into the next one
        killed_in.append(killed_and_resumed(place / "outputs", STAGES[number % 6], moments.uniform(0, 0.3)))
        assert numbers(place / "outputs") == expected, (number, killed_in[-1])
    print({stage: killed_in.count(stage) for stage in killed_in})
    assert {"teacher", "scratch", "student"} <= set(killed_in)
    assert killed_in.count("after the end") < 15


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "debug=smoke"]) == 0
    run = only_run(tmp_path / "outputs")
    assert run is not None
    return run


def test_a_finished_run_is_not_resumed_but_its_page_can_be_made(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (finished / "report.html").unlink()  # as if it had been killed just before
    assert main(["train", f"resume={finished}"]) == 2
    err = capsys.readouterr().err
    assert "is finished" in err
    assert f"recdistill report {finished} " in err
    assert main(["report", str(finished)]) == 0
    assert (finished / "report.html").is_file()


def test_a_run_is_not_resumed_with_another_config(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (finished / "status.json").write_text('{"status": "running"}')
    assert main(["train", "debug=smoke", "seed=3", f"resume={finished}"]) == 2
    err = capsys.readouterr().err
    assert "was started with seed=0, this command says seed=3" in err
    assert main(["train", "debug=smoke", f"resume={finished}"]) == 0  # the same words are welcome


def test_a_folder_that_is_no_run_is_not_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", f"resume={tmp_path}"]) == 2
    assert "is not the folder of a run" in capsys.readouterr().err


def test_resume_and_a_sweep_exclude_each_other(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "-m", f"resume={finished}"]) == 2
    assert "-m" in capsys.readouterr().err


def test_a_config_that_has_a_finished_run_is_skipped_when_asked(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (finished / "results.json").stat().st_mtime_ns
    assert main(["train", "debug=smoke", "skip_finished=true"]) == 0
    assert f"was done before in {finished.relative_to(Path.cwd())}" in capsys.readouterr().out
    assert (finished / "results.json").stat().st_mtime_ns == before
    assert main(["train", "debug=smoke", "skip_finished=true", "seed=1"]) == 0
    assert "was done before" not in capsys.readouterr().out


def test_a_run_in_use_by_another_process_is_left_alone(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (finished / "status.json").write_text('{"status": "running"}')
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, pathlib, time; from recdistill.store import exclusive\n"
            "with exclusive(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)",
            str(finished),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert main(["train", f"resume={finished}"]) == 1
        assert "in use by another process" in capsys.readouterr().err
        assert json.loads((finished / "status.json").read_text()) == {"status": "running"}
    finally:
        holder.kill()
        holder.wait()


def test_a_file_that_changed_is_run_again_though_its_config_was_done_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["train", "dataset=file", "dataset.path=m.csv", "skip_finished=true", "evaluation.cutoffs=[5]"]
    words += ["trainer.epochs=1", "teacher.trainer.epochs=1", "scratch.trainer.epochs=1"]
    for salt, said in ((1, False), (1, True), (5, False)):
        rows = [f"u{n % 12},i{(n * 7 + salt) % 31}" for n in range(300)]
        if not said:
            Path("m.csv").write_text("user,item\n" + "\n".join(rows) + "\n")
        assert main(words) == 0
        assert ("was done before" in capsys.readouterr().out) == said


def test_a_neighbour_that_cannot_be_read_does_not_stop_a_run(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in (("list", "[]"), ("empty", "{}"), ("torn", '{"a')):
        other = finished.parent / name
        other.mkdir()
        (other / "status.json").write_text('{"status": "done"}')
        (other / "results.json").write_text(text)
    assert main(["train", "debug=smoke", "skip_finished=true"]) == 0
    assert "was done before" in capsys.readouterr().out


def test_the_state_of_another_config_in_the_same_folder_is_not_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["debug=smoke", "hydra.run.dir=fixed", "trainer.eval_every=1"]
    process = start(tmp_path / "outputs", *words, "trainer.epochs=5000", "trainer.patience=5000")
    deadline = time.monotonic() + 120
    while not list((tmp_path / "fixed").glob("checkpoint.*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert list((tmp_path / "fixed").glob("checkpoint.*"))
    assert main(["train", *words, "trainer.epochs=2"]) == 0
    assert json.loads((tmp_path / "fixed" / "results.json").read_text())["models"]["student"]["epochs"] == 2


def test_a_run_is_not_resumed_from_another_folder(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status = json.loads((finished / "status.json").read_text()) | {"status": "running"}
    (finished / "status.json").write_text(json.dumps(status))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["train", f"resume={finished}"]) == 2
    assert f"cd {tmp_path}" in capsys.readouterr().err


def test_a_failed_job_of_a_parallel_sweep_gives_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = ["-m", "evaluation.cutoffs=[5],[90]", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    assert main(["train", "debug=smoke", *sweep]) == 1
    assert "evaluation.cutoffs holds 90" in capfd.readouterr().err
    states = [
        json.loads(path.read_text())["status"] for path in sorted(tmp_path.glob("outputs/sweeps/*/*/status.json"))
    ]
    assert states == ["done", "failed"]
