import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from recdistill.cli import main
from recdistill.commands.conf import conf_folder
from recdistill.commands.study import choose, read_study, settings_of_trials

STUDY = """# A study in seconds.
datasets:
  synthetic: {}
overrides: [debug=smoke, teacher.dim=16, device=cpu]
methods:
  scratch: {overrides: [distill=none], sweep: none}
  unkd: {overrides: [distill=unkd]}
trials: 2
seeds: [0, 1]
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tiny.yaml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_method_gets_the_same_number_of_distinct_trials_in_an_order_that_never_changes(place: Path) -> None:
    for method in read_study(Path("tiny.yaml")).methods:
        first = settings_of_trials(method, 5)
        assert len({tuple(point) for point in first}) == 5
        assert settings_of_trials(method, 3) == first[:3]


def test_a_study_tunes_on_valid_only_runs_seeds_with_test_and_is_not_run_again(
    place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["study", "tiny.yaml"]) == 0
    assert "unkd" in capfd.readouterr().out
    folder = place / "outputs" / "studies" / "tiny"
    rows = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    assert [row["phase"] for row in rows] == ["trial"] * 4 + ["final"] * 4
    for row in rows:
        results = json.loads((Path(row["run"]) / "results.json").read_text())
        has_test = any(metric.startswith("test/") for metric in results["models"]["student"]["metrics"])
        assert has_test == (row["phase"] == "final")
        assert (Path(row["run"]) / "topk.parquet").exists() == (row["phase"] == "final")
    tuned = [row for row in rows if row["method"] == "unkd" and row["phase"] == "trial"]
    best = max(tuned, key=lambda row: row["value"])
    assert all(
        row["settings"] == best["settings"] for row in rows if row["method"] == "unkd" and row["phase"] == "final"
    )
    scratch = [row for row in rows if row["method"] == "scratch" and row["phase"] == "final"]
    assert f"scratch.{scratch[0]['settings'][0]}" in scratch[0]["command"]
    assert main(["study", "tiny.yaml"]) == 0
    assert len((folder / "ledger.jsonl").read_text().splitlines()) == len(rows)


@pytest.mark.slow
def test_a_killed_study_goes_on_where_it_was(place: Path) -> None:
    command = [sys.executable, "-m", "recdistill", "study", "tiny.yaml"]
    ledger = place / "outputs" / "studies" / "tiny" / "ledger.jsonl"
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (ledger.exists() and ledger.read_text().count("\n") >= 2) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = ledger.read_text().splitlines()
    assert 2 <= len(before) < 8
    with ledger.open("a") as stream:
        stream.write('{"phase": "tri')  # a line that the kill cut short
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    whole = [line for line in ledger.read_text().splitlines() if line.endswith("}")]
    assert len({json.loads(line)["command"] for line in whole}) == len(whole) == 8


def test_what_a_study_stands_for_can_be_printed_without_running(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "tiny.yaml", "--commands"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("recdistill train dataset=synthetic") for line in lines)
    assert not (place / "outputs").exists()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  scratch:", "  other:", "has no method scratch"),
        ("trials: 2", "trial: 2", "has the keys"),
        ("distill=unkd]}", "distill=unkd], sweep: nothing}", "has no search space"),
        ("trials: 2", "trials: 0", "must not be empty"),
        ("trials: 2", "trials: [2", "cannot be read"),
    ],
)
def test_a_study_that_is_off_is_refused(
    place: Path, capfd: pytest.CaptureFixture[str], old: str, new: str, said: str
) -> None:
    (place / "tiny.yaml").write_text(STUDY.replace(old, new))
    assert main(["study", "tiny.yaml"]) == 2
    assert said in capfd.readouterr().err


def test_a_failing_method_does_not_stop_the_others_and_the_study_says_so(
    place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (place / "tiny.yaml").write_text(STUDY.replace("[distill=unkd]", "[distill=unkd, 'evaluation.cutoffs=[500]']"))
    assert main(["study", "tiny.yaml"]) == 1
    assert "2 of 4 runs failed" in capfd.readouterr().err
    ledger = place / "outputs" / "studies" / "tiny" / "ledger.jsonl"
    assert ledger.read_text().count('"scratch"') == 2


def test_the_best_validation_value_is_chosen(place: Path) -> None:
    plan = read_study(Path("tiny.yaml"))

    class Rows:
        rows = [
            {"phase": "trial", "dataset": "synthetic", "method": name, "value": value, "settings": [f"a={value}"]}
            for name in ("scratch", "unkd")
            for value in (0.2, 0.3, 0.1)
        ] + [{"phase": "final", "dataset": "synthetic", "method": "unkd", "value": 0.9, "settings": ["a=test"]}]

    assert choose(plan, Rows())["synthetic", "unkd"] == ["a=0.3"]


@pytest.mark.parametrize("name", ["none", "rrd", "unkd"])
def test_a_sweep_never_reads_test(name: str) -> None:
    node = yaml.safe_load((conf_folder() / "sweep" / f"{name}.yaml").read_text())
    assert node["evaluation"] == {"test": False}
