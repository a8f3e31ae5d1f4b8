"""What a user types, and what comes back: exit codes, the three lines of an error, standard output."""

import json
import logging
import os
import pickle
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from recdistill import cli
from recdistill.commands.conf import conf_folder, members

DISTILLERS = list(members("distill", (conf_folder(),)))

SMOKE = ("debug=smoke", "device=cpu")


@pytest.fixture
def say(tmp_path, monkeypatch, capfd):
    """Run a command line in an empty folder: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        capfd.readouterr()
        code = cli.main(words)
        for handler in list(logging.root.handlers):
            if type(handler) in (logging.StreamHandler, logging.FileHandler):
                logging.root.removeHandler(handler)
                handler.close()
        return (code, *capfd.readouterr())

    return run


def shell(*words, **more):
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | more.pop("env", {})
    command = [sys.executable, "-m", "recdistill", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, **more)


def refused(answer, *parts):
    """An error of the user's: exit code 2, nothing on standard output, three lines without a traceback."""
    code, out, err = answer
    assert code == 2, err
    assert out == ""
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if not line.startswith("  - ")]
    assert [line.partition(":")[0] for line in lines[-2:]] == ["Why", "Fix"]
    assert len(lines) == 3
    for part in parts:
        assert part in err
    return err


def imported_by(*words):
    code = (
        "import sys; from recdistill.cli import main; code = main(sys.argv[1:]);"
        "print(code, *(m for m in ('torch', 'pandas', 'hydra', 'numpy', 'pyarrow') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()


def test_help_imports_nothing_heavy():
    assert imported_by("--help") == ["0"]


def test_a_misspelt_key_is_found_without_torch_or_pandas(tmp_path):
    code, *modules = imported_by("train", "distil=unkd")
    assert code == "2"
    assert set(modules) <= {"hydra"}


def test_version_and_help(say):
    from recdistill import __version__

    assert say("--version") == (0, f"recdistill {__version__}\n", "")
    code, out, _ = say("--help")
    assert code == 0
    for verb in cli.VERBS:
        assert verb in out
    assert say()[:2] == (0, out)


def test_an_unknown_verb_names_the_nearest(say):
    refused(say("trian"), "trian", "did you mean train?", "recdistill --help")
    refused(say("--foo"), "--foo")


def test_an_interrupt_is_exit_code_130_without_a_traceback(say, monkeypatch):
    def interrupt(verb, words):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_dispatch", interrupt)
    code, _, err = say("train")
    assert code == 130
    assert err == "interrupted\n"


def test_debug_shows_the_traceback(tmp_path):
    done = shell("train", "distil=unkd", "--debug", cwd=tmp_path)
    assert "Traceback" in done.stderr
    assert "did you mean distill?" in done.stderr
    assert done.returncode == 2


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["distil=unkd"], ["there is no key distil", "did you mean distill?"]),
        (["distill=ukd"], ["distill=ukd", "did you mean unkd?", ", ".join(DISTILLERS)]),
        (["teacher=lightgnc"], ["did you mean lightgcn?"]),
        (["dataset=ml100k"], ["did you mean ml-100k?"]),
        (["dataset/split=leave_ones"], ["did you mean leave_one_out?", "recdistill list dataset/split"]),
        (["dataset/splt=ratio"], ["did you mean dataset/split?"]),
        (["dataset.split=ratio"], ["taken with a slash", "Fix: dataset/split=ratio"]),
        (["dataset/split=ratio", "dataset.split.held_out=0.2"], ["recdistill explain dataset/split=NAME"]),
        (["-m", "dataset/split=ratio,leave_ones"], ["did you mean leave_one_out?"]),
        (["student=mostpop"], ["student=mostpop", "lightgcn, mf"]),
        (["debug=smok"], ["did you mean smoke?"]),
        (["experiment=none_such"], ["experiment=none_such"]),
        (["hydra/launcher=none_such"], ["hydra/launcher/none_such"]),
        (["trainer.epoch=3"], ["did you mean trainer.epochs?"]),
        (["teacher.trainer.epoch=3"], ["did you mean teacher.trainer.epochs?"]),
        (["sead=1"], ["did you mean seed?"]),
        (["deterministic=true"], ["there is no key deterministic\n"]),
        (["+foo=1"], ["there is no key foo"]),
        (["+trainer.foo=1"], ["there is no key trainer.foo"]),
        (["++trainer.epoch=1"], ["did you mean trainer.epochs?"]),
        (["teacher.mf=1"], ["there is no key teacher.mf"]),
        (["model=mf"], ["teacher=mf or student=mf"]),
        (["trainer=5"], ["trainer=5"]),
        (["debug=null"], ["~debug"]),
        (["~foo"], ["there is no key foo"]),
        (["~trainer.epochs=7"], ["trainer.epochs", "7"]),
        (["hydra.foo=1"], ["hydra.foo"]),
        (["distill=none,rrd"], ["add -m"]),
        (["dataset.name=a,b"], ["add -m"]),
        (["foo"], ["cannot read an override", "quotes"]),
        (["dataset.name=a b(c"], ["cannot read an override", "quotes"]),
        (["--epochs=3"], ["there is no flag --epochs=3", "KEY=VALUE"]),
        (["--multirn"], ["did you mean --multirun?"]),
        (["-c"], ["expected one argument"]),
        (["--config-dir", "missing"], ["--config-dir missing is no folder"]),
        (["--config-name", "missing"], ["missing"]),
        (["--config-path", "conf"], ["--config-dir FOLDER"]),
        (["-sc", "nonsense"], ["install=SHELL"]),
        (["-m", "distill=rrd,ukd"], ["did you mean unkd?"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_words_that_name_nothing_are_refused(say, words, parts):
    refused(say("train", *words), *parts)
    assert not Path("outputs").exists()


@pytest.mark.skipif(find_spec("optuna") is not None, reason="only where the extra is not installed")
def test_a_choice_whose_extra_is_not_installed_names_the_extra(say):
    refused(say("train", "-m", "sweep=unkd", "hydra/sweeper=tpe"), 'Fix: pip install "recdistill[tune]"')


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["trainer.epochs=many"], ["trainer.epochs", "many"]),
        (["trainer.epochs=0"], ["trainer.epochs=0", ">= 1"]),
        (["trainer={epoch: 1}"], ["trainer.epoch", "did you mean trainer.epochs?"]),
        (["seed=-1"], ["seed=-1"]),
        (["threads=0"], ["threads=0"]),
        (["student.dim=0"], ["student.dim=0", ">= 1", "set student.dim to"]),
        (["teacher.dim=big"], ["teacher.dim", "big", "int"]),
        (["distill.weight=nan"], ["distill.weight"]),
        (["+dataset.split.sead=1"], ["dataset.split.sead", "did you mean seed?"]),
        (["+teacher.trainer.epoch=3"], ["teacher.trainer.epoch", "did you mean epochs?"]),
        (["+student.dimm=3"], ["student.dimm", "did you mean dim?"]),
        (["+student.trainer.epochs=3"], ["MF has no setting trainer"]),
        (["+student.seed=3"], ["MF has no setting seed"]),
        (["~distill"], ["distill", "no _target_"]),
        (["~student._target_"], ["student", "no _target_"]),
        (["dataset.split.test=2"], ["dataset.split.test=2 is out of range", "between 0 and 1"]),
        (["dataset.filter.time_from=soon"], ["dataset.filter.time_from='soon'", "2015-01-31"]),
        (["teacher=stored"], ["teacher.run=..."]),
        (["teacher=stored", "teacher.run=nonsense"], ["nonsense", "results.json"]),
        (["trainer.epochs=${nope}"], ["trainer.epochs", "nope"]),
        (["plugins=mine"], ["plugins"]),
        (
            ["plugins=[no_such_package]", "distill._target_=no_such_package.D"],
            ["no_such_package.D", "imported", "PYTHONPATH=."],
        ),
        (["distill._target_=recdistill.models.mf.MF", "~distill"], ["MF is not a Distiller"]),
        (["soft_labels.depth=10"], ["soft_labels.depth", "10"]),
        (["teacher=mostpop", "distill._target_=x.Y"], ["x.Y"]),
        (["evaluation.cutoffs=[10,500]"], ["evaluation.stored", "500"]),
        (["-m", "student.dim=8,0"], ["student.dim=0"]),
        (["-m", "seed=0,1", "trainer.epochs=1,many"], ["trainer.epochs", "many"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_values_that_cannot_be_are_refused_before_anything_runs(say, words, parts):
    if words[-1] == "~distill":
        words = ["distill=none", words[0]]
    refused(say("train", *SMOKE, *words), *parts)
    assert not Path("outputs/runs").exists()
    assert not Path("outputs/sweeps").exists()


@pytest.mark.parametrize(
    ("params", "part"),
    [
        ({"distill": "rrd,unkdd"}, "did you mean unkd?"),
        ({"trainer.wieght_decay": "choice(0.1,0.2)"}, "did you mean trainer.weight_decay?"),
        ({"trainer.wieght_decay": "choice(0.1,0.2)"}, "ConfigError: there is no key"),  # told once, not per value
        ({"distill.weight": "choice(0.1,-1)"}, "distill.weight=-1"),
        ({"distill.weight": "choice(0.1"}, "cannot read an override"),
        ({"distill.weight": "interval(0,1)", "dataset/split": "ratio,leave_one"}, "did you mean leave_one_out?"),
    ],
    ids=str,
)
def test_a_search_space_is_checked_before_the_first_job(say, params, part):
    Path("mine/sweep").mkdir(parents=True)
    space = {"hydra": {"sweeper": {"params": params}}}
    Path("mine/sweep/own.yaml").write_text(f"# @package _global_\n{json.dumps(space)}\n")
    refused(say("train", *SMOKE, "-m", "--config-dir", "mine", "sweep=own"), part)
    assert not Path("outputs/sweeps").exists()


def test_a_search_space_without_a_sweep_is_refused(say):
    refused(say("train", *SMOKE, "sweep=rrd"), "sweep=rrd", "add -m")


def test_a_model_without_anything_to_train_is_no_student(say):
    words = ["student._target_=recdistill.models.mostpop.MostPop", "~student.dim", "~student.loss", "~student.init_std"]
    refused(say("train", *SMOKE, *words), "MostPop has nothing to train")


def test_all_problems_are_reported_together(say):
    refused(say("train", "distil=unkd", "seeed=1", "teacher=mff"), "3 problems", "distill?", "seed?", "mf?")
    wrong = ["trainer.epochs=many", "trainer.patience=x", "student.dim=0", "+dataset.split.sead=1", "threads=0"]
    err = refused(say("train", *SMOKE, *wrong), "5 problems", "epochs", "patience", "student.dim=0", "sead", "threads")
    assert "(dim must be >= 1)" in err


def test_all_settings_of_a_component_that_are_out_of_range_are_reported_together(say):
    wrong = [
        "distill.weight=-1",
        "distill.temperature=0",
        "distill.draw=x",
        "dataset.split.valid=3",
        "trainer.epochs=0",
    ]
    wrong += ["dataset.split.rounding=x", "trainer.negatives=0", "evaluation.groups=128", "evaluation.cutoffs=[]"]
    refused(say("train", *SMOKE, *wrong), "9 problems", "draw='x'", "rounding='x'", "negatives=0", "groups=128")


def test_a_limit_that_depends_on_a_refused_setting_is_not_reported(say):
    err = refused(say("train", *SMOKE, "distill.depth=0", "distill.interesting=300"), "distill.depth=0")
    assert "interesting" not in err


def test_a_file_of_ones_own_that_is_not_named_is_asked_for(say):
    refused(say("train", "dataset=file"), "dataset.path=None", "train=FILE")


def test_two_values_are_missing_and_both_are_named(say):
    refused(say("train", "dataset=file", "dataset.path=???", "teacher=stored"), "dataset.path=...", "teacher.run=...")


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A module that leaves a mark when it is imported."""
    (tmp_path / "evil.py").write_text(
        "from pathlib import Path\nPath(__file__).with_name('imported').touch()\nclass Foo: pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "imported"


@pytest.mark.parametrize(
    "words",
    [
        ["distill._target_=evil.Foo"],
        ["distill._target_=evil"],
        ["dataset.split._target_=evil.Foo"],
        ["+distill.inner._target_=evil.Foo"],
        ["+distill.parts=[{_target_: evil.Foo}]"],
        ["+teacher.trainer._target_=evil.Foo"],
        ["paths.data=evil.Foo", "distill._target_=${paths.data}"],
        ["distill._target_=${oc.env:EVIL_TARGET}"],
        ["distill._target_=${oc.decode:'evil.Foo'}"],
        ["plugins=evil", "distill._target_=e.Foo"],
        ["plugins=[evi]", "distill._target_=evil.Foo"],
        ["distill._target_=recdistill_evil.Foo"],
        ["+hydra.callbacks.mine._target_=evil.Foo"],
        ["hydra.launcher._target_=evil.Foo"],
        ["hydra.sweeper._target_=evil.Foo"],
        ["hydra.job_logging.handlers.screen.class=evil.Foo"],
        ["+hydra.job_logging.handlers.screen.()=evil.Foo"],
        ["hydra.job_logging.handlers.screen.stream=ext://evil.Foo"],
        ["hydra.hydra_logging.handlers.screen.stream=ext://evil.Foo"],
    ],
    ids=lambda value: " ".join(value),
)
def test_nothing_outside_recdistill_and_the_plugins_is_imported(say, evil, words, monkeypatch):
    monkeypatch.setenv("EVIL_TARGET", "evil.Foo")
    refused(say("train", *SMOKE, *words))
    assert not evil.exists()
    assert "evil" not in sys.modules


def test_a_stored_teacher_cannot_name_a_foreign_class(say, evil, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "results.json").write_text(json.dumps({"models": {"student": {"key": "k"}}}))
    (run / "model.json").write_text(json.dumps({"model": {"_target_": "evil.Foo"}}))
    words = ["teacher=stored", "teacher.run=run", "teacher.model=student"]
    refused(say("train", *SMOKE, *words), "evil.Foo", "outside recdistill")
    assert not evil.exists()


@pytest.mark.parametrize("flag", ["--experimental-rerun", "--experimental-re", "--exp"])
@pytest.mark.parametrize("joined", [True, False])
def test_a_pickled_job_is_never_read(say, tmp_path, flag, joined):
    class Hostile:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "job.pickle").write_bytes(pickle.dumps(Hostile()))
    words = [f"{flag}=job.pickle"] if joined else [flag, "job.pickle"]
    refused(say("train", *words), "--experimental-rerun is refused", "unpickles")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--cfg", "job"], "_target_: recdistill.distill.rrd.RRD"),
        (["distill=unkd", "-c", "job", "-p", "distill"], "_target_: recdistill.distill.unkd.UnKD"),
        (["-c", "job", "distill=unkd"], "recdistill.distill.unkd.UnKD"),
        (["--cfg", "hydra", "-p", "hydra.job"], "chdir: false"),
        (["--info", "searchpath"], "conf"),
        (["--info", "defaults"], "ml-100k"),
        (["--help"], f"distill: {', '.join(DISTILLERS)}"),
        (["--hydra-help"], "--multirun"),
        (["dataset.name='a, b'", "-c", "job", "-p", "dataset"], "name: a, b"),
        (["evaluation.cutoffs=[5,10]", "-c", "job", "-p", "evaluation"], "- 5"),
        (["~trainer.epochs", "-c", "job", "-p", "trainer"], "batch_size"),
        (["teacher=stored", "-c", "job", "-p", "teacher"], "run: ???"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_flags_of_hydra_work_unchanged(say, words, part):
    code, out, err = say("train", *words)
    assert (code, err) == (0, "")
    assert part in out
    assert not Path("outputs").exists()


def test_help_of_train_lists_every_group(say):
    _, out, _ = say("train", "--help")
    for group in ("dataset", "teacher", "student", "distill", "soft_labels", "trainer", "evaluation", "debug"):
        assert f"\n{group}: " in out


def test_a_folder_of_ones_own_is_laid_over_ours(say, tmp_path):
    (tmp_path / "mine/distill").mkdir(parents=True)
    (tmp_path / "mine/distill/wide.yaml").write_text("defaults: [rrd, _self_]\ninteresting: 77\n")
    (tmp_path / "mine/distill/none.yaml").write_text("_target_: recdistill.distill.none.NoDistillation # mine\nx: 1\n")
    (tmp_path / "mine/big.yaml").write_text("defaults: [config, _self_]\nteacher: {dim: 999}\n")
    shown = ["-c", "job", "-p", "distill"]
    assert "interesting: 77" in say("train", "--config-dir", "mine", "distill=wide", *shown)[1]
    assert "x: 1" in say("train", "--config-dir=mine", "distill=none", *shown)[1]  # the same name: theirs
    assert "interesting: 77" in say("train", "hydra.searchpath=[file://mine]", "distill=wide", *shown)[1]
    assert "dim: 999" in say("train", "--config-dir", "mine", "--config-name", "big", "-c", "job", "-p", "teacher")[1]
    refused(say("train", "--config-dir", "mine", "distill=wid"), "did you mean wide?")
    refused(say("train", "distill=wide"), "distill=wide")  # nothing is left of the earlier calls


def test_tab_completion_knows_verbs_and_overrides(say, monkeypatch):
    assert "complete" in say("-sc", "install=bash")[1]
    assert say("train", "-sc", "install=bash")[1] == say("-sc", "install=bash")[1]
    refused(say("-sc", "install=tcsh"), "install=SHELL")
    for line, answer in {
        "recdistill tr": "train",
        "recdistill train distill=": " ".join(f"distill={name}" for name in DISTILLERS),
        "recdistill train teacher.d": "teacher.dim=",
        "recdistill train dataset/split=l": "dataset/split=leave_one_out",
        "recdistill train dataset/split=time_cut dataset.split.un": "dataset.split.unseen=",
        "recdistill cache l": "",
    }.items():
        monkeypatch.setenv("COMP_LINE", line)
        assert say("-sc", "query=bash")[1].strip() == answer


def test_a_run_prints_results_on_standard_output_and_the_rest_on_standard_error(say):
    code, out, err = say("train", *SMOKE)
    assert code == 0
    folder, value = out.splitlines()[-1].split(" ")
    assert re.fullmatch(r"valid/ndcg@20=0\.\d{4}", value)
    assert json.loads(Path(folder, "status.json").read_text())["status"] == "done"
    assert "device=cpu" in err
    assert "device=cpu" not in out
    assert "ndcg@20" in out


def test_a_sweep_goes_on_after_a_failed_job_and_ends_with_exit_code_1(say):
    sizes = ["dataset.n_users=200", "evaluation.cutoffs=[10,40]", "soft_labels.depth=200"]
    code, out, err = say("train", *SMOKE, "-m", "dataset.n_items=30,80", *sizes)
    assert code == 1
    assert "Traceback" not in err
    assert "Error executing job" not in err
    assert err.count("Why: a list cannot be longer than the catalogue") == 1
    (sweep,) = Path("outputs/sweeps").iterdir()
    statuses = {job.name[0]: json.loads((job / "status.json").read_text()) for job in sweep.glob("*/")}
    assert {name: status["status"] for name, status in statuses.items()} == {"0": "failed", "1": "done"}
    assert "40" in statuses["0"]["error"]
    assert f"failed: {sweep}/0_" in err.splitlines()[-1]
    assert "Why" in next(sweep.glob("0_*/*.log")).read_text()
    assert out.splitlines()[-1].startswith(f"{sweep}/1_")
    assert "[HYDRA]" not in out


def test_a_failed_run_says_why_in_three_lines_and_in_its_status(say):
    Path("broken.csv").write_text("user,item\n")
    code, out, err = say("train", *SMOKE, "dataset=file", "dataset.path=broken.csv", "~dataset.n_users")
    if code == 2:  # debug=smoke sets keys of the synthetic data set: without it
        code, out, err = say("train", "device=cpu", "dataset=file", "dataset.path=broken.csv")
    assert code == 1
    assert out == ""
    assert "Traceback" not in err
    assert [line.partition(":")[0] for line in err.splitlines()[-3:]] == ["DataError", "Why", "Fix"]
    assert "Error executing job" not in err
    (run,) = Path("outputs/runs").iterdir()
    status = json.loads((run / "status.json").read_text())
    assert status["status"] == "failed"
    assert "broken.csv" in status["error"]


def test_a_cut_off_beyond_the_catalogue_is_refused(say):
    code, out, err = say("train", *SMOKE, "evaluation.cutoffs=[10,500]", "evaluation.stored=500")
    assert (code, out) == (2, "")
    assert "500" in err
    assert "80 items" in err
    assert "Traceback" not in err


def test_a_device_that_is_not_there_is_refused_before_data_are_read(say):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    refused(say("train", "debug=smoke", "device=cuda"), "device=cuda", "device=auto")
    refused(say("train", "debug=smoke", "device=gpu"), "device=gpu", "cuda:1")
    assert not Path("outputs/cache/datasets").exists()


def test_outputs_that_cannot_be_written_are_refused_at_once(say):
    Path("file").write_text("")
    code, out, err = say("train", *SMOKE, "paths.outputs=file/outputs")
    assert (code, out) == (1, "")
    assert "cannot write file/outputs" in err
    assert "paths.outputs=FOLDER" in err
    assert len(err.splitlines()) == 3


def test_the_console_script_ends_with_the_exit_code(tmp_path):
    done = shell("train", "distill=ukd", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("ConfigError: distill=ukd")


@pytest.mark.parametrize(
    ("words", "what", "fix"),
    [
        (["compare", "--sort"], "argument --sort", "recdistill compare --help"),
        (["cache", "tidy"], "invalid choice: 'tidy'", "recdistill cache --help"),
        (["study"], "the following arguments are required: file", "recdistill study --help"),
        (["doctor", "--fast"], "unrecognized arguments: --fast", "recdistill doctor --help"),
    ],
)
def test_a_flag_that_a_verb_does_not_take_is_told_in_three_lines(
    words: list[str], what: str, fix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 2
    first, why, last = capsys.readouterr().err.splitlines()
    assert what in first
    assert why.startswith("Why: ")
    assert last == f"Fix: {fix}"
