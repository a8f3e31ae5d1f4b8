import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock
from hydra.core.override_parser.overrides_parser import OverridesParser

from recdistill.cli import main
from recdistill.commands import study as studies
from recdistill.commands.conf import conf_folder
from recdistill.commands.study import (
    Ledger,
    choose,
    final_jobs,
    largest_cutoff,
    read_study,
    run_child,
    settings_of_trials,
    tuning_jobs,
)
from recdistill.errors import RecDistillError
from table_files import SHARED, needs_shared
from toy_runs import write_run

STUDY = """# A study in seconds.
datasets:
  synthetic: {}
overrides: [debug=smoke, teacher.dim=16, device=cpu, trainer.patience=7, trainer.weight_decay=0.5]
methods:
  scratch: {overrides: [distill=none, trainer.batch_size=256], sweep: none}
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
    config = json.loads((Path(scratch[0]["run"]) / "results.json").read_text())["config"]
    assert config["scratch"]["trainer"] == config["trainer"]
    assert config["trainer"]["patience"] == 7 and config["trainer"]["batch_size"] == 256
    ours = [row for row in rows if row["phase"] == "final" and row["method"] == "unkd"]
    other = json.loads((Path(ours[0]["run"]) / "results.json").read_text())["config"]
    assert other["scratch"]["trainer"] == config["trainer"]
    assert main(["study", "tiny.yaml"]) == 0
    assert len((folder / "ledger.jsonl").read_text().splitlines()) == len(rows)
    _tables_for_the_docs(folder, best["settings"])
    write_run(folder / "final" / "synthetic" / "gone" / "seed-0")  # of a method that is no longer in the YAML
    assert main(["study", "tiny.yaml"]) == 0
    assert "toy" not in (folder / "table.md").read_text()
    capfd.readouterr()
    assert main(["study", "tiny.yaml", "--commands"]) == 0
    assert capfd.readouterr().out.splitlines() == [row["command"] for row in rows]
    _take_finished_folders(place, rows)


def _tables_for_the_docs(folder: Path, chosen: list[str]) -> None:
    """The script that makes the tables of docs/results.md names every row and marks the setting that was chosen."""
    script = Path(__file__).parents[2] / "scripts" / "study_tables.py"
    words = [sys.executable, str(script), str(folder), "--rival", "unkd", "--figures", str(folder)]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "| unkd" in said and "| scratch" in said and "8 runs" in said
    (line,) = (line for line in said.splitlines() if line.startswith("| unkd | weight"))
    weight = next(word for word in chosen if word.startswith("distill.weight=")).partition("=")[2]
    assert f"**weight {weight}," in line
    assert (folder / "frontier-synthetic.png").stat().st_size > 1000
    ledger = folder / "ledger.jsonl"
    whole = ledger.read_text()
    tuned = [row for row in map(json.loads, whole.splitlines()) if row["method"] == "unkd" and row["phase"] == "trial"]
    again = next(row for row in tuned if row["settings"] == chosen)
    other = again | {"settings": ["distill.weight=9", "trainer.weight_decay=9"], "value": 0.99}  # of an earlier space
    ledger.write_text(whole + json.dumps(again) + "\n" + json.dumps(other) + "\n")
    said = subprocess.run([*words, "--all-users"], capture_output=True, text=True, check=True).stdout
    ledger.write_text(whole)
    shown, marked = (line for line in said.splitlines() if line.startswith("| unkd"))
    assert (
        marked.count("**") == 2 and f"**weight {weight}," in marked and "; weight 9, weight_decay 9 0.9900 |" in marked
    )
    metrics = [
        json.loads((run / "results.json").read_text())["models"]["student"]["metrics"]
        for run in (folder / "final" / "synthetic" / "unkd").iterdir()
    ]
    mean = statistics.fmean(one["test/recall_all_users@20/group=1"] for one in metrics)
    assert f"| {mean:.4f} ± " in shown
    assert "◆" in said
    for place in (folder / "final" / "synthetic").glob("*/*/results.json"):
        results = json.loads(place.read_text())
        del results["models"]["student"]["metrics"]["test/poplift@20"]
        place.write_text(json.dumps(results))
    assert "◆" not in subprocess.run(words, capture_output=True, text=True, check=True).stdout


def _take_finished_folders(place: Path, rows: list[dict[str, Any]]) -> None:
    """A study whose ledger lost its lines takes the finished folders, and waits for the one that is at work."""
    ledger = place / "outputs" / "studies" / "tiny" / "ledger.jsonl"
    ledger.write_text("[]\n3\n" + json.dumps({"phase": "trial", "dataset": "synthetic"}) + "\n")
    lock = FileLock(Path(rows[0]["run"]) / ".lock", thread_local=False)
    lock.acquire()
    started = time.monotonic()
    threading.Timer(0.5, lock.release).start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(studies, "run_child", lambda command: pytest.fail("it ran again"))
        assert main(["study", "tiny.yaml"]) == 0
    assert time.monotonic() - started >= 0.5
    assert [json.loads(line)["command"] for line in ledger.read_text().splitlines()[3:]] == [
        row["command"] for row in rows
    ]


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
        ("trials: 2", "trials: !!python/object:x 2", "cannot be read"),
        ("trials: 2", "trials: 9", "has 8 settings, trials is 9"),
        ("sweep: none", "space: {trainer.weight_decay: 'choice(0.1'}", "is not a list of choices"),
        ("sweep: none", "space: {trainer.weight_decay: 'interval(0,1)'}", "is not a list of choices"),
        ("sweep: none", "space: [1]", "the space of scratch is [1]"),
        ("sweep: none", "sweeps: none", "methods.scratch is"),
        ("  scratch: {overrides: [distill=none, trainer.batch_size=256], sweep: none}", "  scratch: 3", "is 3"),
        ("  synthetic: {}", "  - synthetic", "datasets is ['synthetic']"),
        ("  unkd: {overrides: [distill=unkd]}", "  unkd: {overrides: {distill: unkd}}", "a list of words"),
        ("  unkd: {overrides: [distill=unkd]}", "  a/b: {overrides: []}", "a name in methods is 'a/b'"),
        ("seeds: [0, 1]", "seeds: 3", "must not be empty"),
        ("seeds: [0, 1]", "seeds: [0, 0]", "distinct"),
        ("seeds: [0, 1]", "seeds: [0]\nquick: 3", "quick is 3"),
        ("seeds: [0, 1]", "seeds: [0]\nquick: {trial: 1}", "quick is {'trial': 1}"),
        ("seeds: [0, 1]", "seeds: [0]\nquick: {datasets: [other]}", "quick.datasets is ['other']"),
        ("seeds: [0, 1]", "seeds: [0]\nquick: {trials: 0}", "must not be empty"),
        ("seeds: [0, 1]", "seeds: [0]", "quick is None"),
    ],
)
def test_a_study_that_is_off_is_refused(
    place: Path, capfd: pytest.CaptureFixture[str], old: str, new: str, said: str
) -> None:
    (place / "tiny.yaml").write_text(STUDY.replace(old, new))
    assert main(["study", "tiny.yaml", *(["--quick"] if "quick" in said or "quick" in new else [])]) == 2
    assert said in capfd.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("distill=unkd]}", "distill=ukd], sweep: unkd}", "method unkd on synthetic: distill=ukd"),
        ("distill=unkd]}", "distill=unkd], space: {distill.wieght: 'choice(1,2)'}}", "did you mean distill.weight?"),
        ("distill=unkd]}", "distill=unkd], space: {distill.weight: 'choice(1,-2)'}}", "distill.weight=-2"),
        ("distill=unkd]}", "distill=unkd, dataset/split=ratios], sweep: unkd}", "did you mean ratio?"),
        ("  synthetic: {}", "  synthetic: {}\n  syntetic: {}", "method scratch on syntetic: dataset=syntetic"),
    ],
)
def test_every_word_of_a_study_is_checked_before_its_first_run(
    place: Path, capfd: pytest.CaptureFixture[str], old: str, new: str, said: str
) -> None:
    (place / "tiny.yaml").write_text(STUDY.replace(old, new))
    assert main(["study", "tiny.yaml"]) == 2
    assert said in capfd.readouterr().err
    assert not (place / "outputs" / "studies" / "tiny" / "trials").exists()


@pytest.mark.slow
def test_a_failing_method_does_not_stop_the_others_and_the_study_says_so(
    place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (place / "tiny.yaml").write_text(STUDY.replace("[distill=unkd]", "[distill=unkd, 'evaluation.cutoffs=[90]']"))
    assert main(["study", "tiny.yaml"]) == 1
    assert "2 of 4 runs failed" in capfd.readouterr().err
    ledger = place / "outputs" / "studies" / "tiny" / "ledger.jsonl"
    assert ledger.read_text().count('"scratch"') == 2


def test_the_best_value_of_the_present_trials_is_chosen_and_none_is_the_worst(place: Path) -> None:
    plan = read_study(Path("tiny.yaml"))
    trials = list(tuning_jobs(plan, place / "s", place))
    ledger = Ledger(place / "ledger.jsonl")
    for job, value in zip(trials, (None, 0.2, 0.3, 0.1), strict=True):
        ledger.add(job, value, 1.0, {})
    ledger.add(replace(trials[1], settings=["a=gone"], words=["a=gone"]), 0.9, 1.0, {})
    chosen = choose(trials, Ledger(ledger.path))
    assert chosen == {("synthetic", "scratch"): trials[1].settings, ("synthetic", "unkd"): trials[2].settings}


def test_the_small_form_of_a_study_is_a_study_of_its_own_with_what_quick_says(place: Path) -> None:
    quick = "quick: {trials: 1, seeds: [7], methods: [scratch], overrides: [trainer.epochs=1]}"
    (place / "tiny.yaml").write_text(f"{STUDY}{quick}\n")
    whole, small = read_study(Path("tiny.yaml")), read_study(Path("tiny.yaml"), quick=True)
    assert (whole.name, len(whole.methods), whole.trials, whole.seeds) == ("tiny", 2, 2, [0, 1])
    assert (small.name, [method.name for method in small.methods]) == ("tiny-quick", ["scratch"])
    assert (small.trials, small.seeds, small.datasets) == (1, [7], whole.datasets)
    assert small.overrides == [*whole.overrides, "trainer.epochs=1"]


@pytest.mark.slow
@needs_shared
def test_a_data_set_is_finished_before_the_next_begins(place: Path) -> None:
    words = [f"paths.data={SHARED}", "device=cpu", "teacher.dim=4", "trainer.epochs=1", "teacher.trainer.epochs=1"]
    study = yaml.safe_load(STUDY) | {"trials": 1, "seeds": [0], "overrides": words}
    (place / "two.yaml").write_text(yaml.safe_dump(study | {"datasets": {"synthetic": None, "ml-100k": None}}))
    assert main(["study", "two.yaml"]) == 0
    rows = [json.loads(line) for line in (place / "outputs/studies/two/ledger.jsonl").read_text().splitlines()]
    each = ["trial", "trial", "final", "final"]
    assert [(row["dataset"], row["phase"]) for row in rows] == [(d, p) for d in ("ml-100k", "synthetic") for p in each]


def test_the_references_trainer_has_the_chosen_settings_after_all_others(place: Path) -> None:
    plan = read_study(Path("tiny.yaml"))
    chosen = {("synthetic", name): ["trainer.weight_decay=0.01"] for name in ("scratch", "unkd")}
    words = list(final_jobs(plan, "synthetic", place / "s", place, chosen))[-1].words
    assert [word for word in words if word.startswith("scratch.")] == [
        "scratch.trainer.patience=7",
        "scratch.trainer.weight_decay=0.5",
        "scratch.trainer.batch_size=256",
        "scratch.trainer.weight_decay=0.01",
    ]


def test_a_method_with_another_student_has_no_reference_that_was_not_tuned_for_it(place: Path) -> None:
    (place / "tiny.yaml").write_text(STUDY.replace("[distill=unkd]", "[distill=unkd, student.loss=softmax]"))
    chosen = {("synthetic", name): ["trainer.weight_decay=0.01"] for name in ("scratch", "unkd")}
    jobs = list(final_jobs(read_study(Path("tiny.yaml")), "synthetic", place / "s", place, chosen))
    told = {job.method: [word for word in job.words if word.startswith("scratch.")] for job in jobs}
    assert told["unkd"] == ["scratch.enabled=false"]
    assert "scratch.trainer.weight_decay=0.01" in told["scratch"]


def test_a_study_does_not_go_on_with_other_data(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies, "_is_finished", lambda job: True)
    outputs = Path("outputs")
    for number, job in enumerate(tuning_jobs(read_study(Path("tiny.yaml")), outputs / "studies" / "tiny", outputs)):
        write_run(job.folder, fingerprint="f" if number < 3 else "g")
        results = json.loads((job.folder / "results.json").read_text()) | {"versions": {"recdistill": "1"}}
        (job.folder / "results.json").write_text(json.dumps(results))
    with pytest.raises(RecDistillError, match="the data changed since the study began on synthetic"):
        studies.study(["tiny.yaml"])
    rows = [json.loads(line) for line in Path("outputs/studies/tiny/ledger.jsonl").read_text().splitlines()]
    assert [row["made_by"] for row in rows] == [{"dataset": "f", "recdistill": "1"}] * 3


@pytest.mark.parametrize("name", ["with space", "a=b", "a,b", "it's", "[x]", "a{b"])
def test_paths_in_overrides_mean_themselves(place: Path, name: str) -> None:
    plan = read_study(Path("tiny.yaml"))
    words = next(iter(tuning_jobs(plan, Path(name) / "s", Path(name)))).words[-2:]
    values = [OverridesParser.create().parse_override(word).value() for word in words]
    assert values == [name, f"{name}/s/trials/synthetic/scratch/0"]


def test_trials_are_judged_by_the_overall_metric_at_the_largest_cutoff_and_not_by_one_of_a_group() -> None:
    names = ["valid/recall@50", "valid/ndcg@15", "valid/ndcg@5", "valid/ndcg@15/group=0", "valid/ndcg@15/items=tail"]
    assert largest_cutoff(names) == 15
    assert largest_cutoff([]) == 20


@pytest.mark.slow
def test_a_path_with_space_equals_and_comma_is_run_in(place: Path) -> None:
    text = STUDY.replace("trials: 2", "trials: 1").replace("[0, 1]", "[0]")
    (place / "one.yaml").write_text(text.replace("device=cpu", "device=cpu, 'evaluation.cutoffs=[5,15]'"))
    assert main(["study", "one.yaml", "--outputs", "my a=b, c"]) == 0
    table = (place / "my a=b, c" / "studies" / "one" / "table.md").read_text()
    assert "| test/ndcg@15 |" in table and "| unkd |" in table
    assert not (place / "outputs").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child to its parent")
def test_a_run_dies_with_the_study_that_was_killed(place: Path) -> None:
    child = "import os, pathlib, time; pathlib.Path('pid').write_text(str(os.getpid())); time.sleep(60)"
    code = f"from {run_child.__module__} import run_child; run_child([{sys.executable!r}, '-c', {child!r}])"
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while not (Path("pid").exists() and Path("pid").read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    pid = int(Path("pid").read_text())
    process.kill()
    process.wait()
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(pid)


def _alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("name", ["none", "rrd", "unkd"])
def test_a_sweep_never_reads_test(name: str) -> None:
    node = yaml.safe_load((conf_folder() / "sweep" / f"{name}.yaml").read_text())
    assert node["evaluation"] == {"test": False}
