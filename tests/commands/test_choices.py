"""`list` and `explain`: complete, and without torch."""

import json
import subprocess
import sys

import pytest

from recdistill import cli
from recdistill.commands.conf import GROUPS, conf_folder, members
from recdistill.commands.overrides import check, parse

CHOICES = [f"{group}={name}" for group in GROUPS for name in members(group, (conf_folder(),))]


def test_list_shows_every_group_and_member(capsys):
    assert cli.main(["list"]) == 0
    out = capsys.readouterr().out
    for choice in CHOICES:
        group, _, name = choice.partition("=")
        assert f"{group}\n" in out
        assert f"  {name} " in out


@pytest.mark.parametrize("group", [group for group in GROUPS if members(group, (conf_folder(),))])
def test_list_json_has_a_text_for_every_member(group, capsys):
    assert cli.main(["list", group, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == [group]
    assert set(found[group]) == set(members(group, (conf_folder(),)))
    assert all(found[group].values())


def test_a_misspelt_group_or_member_names_the_nearest(capsys):
    assert cli.main(["list", "distil"]) == 2
    assert "did you mean distill?" in capsys.readouterr().err
    assert cli.main(["list", "dataset/splits"]) == 2
    assert "did you mean dataset/split?" in capsys.readouterr().err
    assert cli.main(["explain", "distill=ukd"]) == 2
    assert "did you mean unkd?" in capsys.readouterr().err
    assert cli.main(["explain", "distill"]) == 2
    err = capsys.readouterr().err
    assert ", ".join(members("distill", (conf_folder(),))) in err
    assert "Fix: recdistill list distill" in err


def test_explain_shows_every_setting_with_default_and_meaning(capsys):
    assert cli.main(["explain", "distill=rrd"]) == 0
    out = capsys.readouterr().out
    for key in (
        "weight=0.1",
        "interesting=",
        "uninteresting=",
        "depth=200",
        "temperature=10.0",
        "draw=top",
        "rest=all",
    ):
        (line,) = [line for line in out.splitlines() if f"distill.{key}" in line]
        assert len(line.split("  ")[-1]) > 10
    assert "Kang et al." in out
    assert "requires: ranking" in out


def test_explain_shows_the_settings_that_a_choice_takes_over_from_others_of_its_group(capsys):
    assert cli.main(["explain", "trainer=teacher"]) == 0
    out = capsys.readouterr().out
    assert "\n  trainer.learning_rate=0.003 " in out and "\n  trainer.epochs=1000 " in out
    assert cli.main(["explain", "teacher=lightgcn"]) == 0
    out = capsys.readouterr().out
    assert "\n  teacher.trainer.batch_size=4096 " in out and "\n  teacher.trainer.patience=50 " in out


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ("experiment=data_unkd", ("dataset=citeulike-t", "dataset/split=user_hold_out", "dataset.filter.user_min=5")),
        ("sweep=unkd", ("hydra.sweeper.params.distill.weight=choice(0.01,0.03,0.1,0.3)", "evaluation.test=false")),
        ("debug=smoke", ("dataset=synthetic", "trainer.epochs=1")),
    ],
)
def test_explain_shows_the_words_that_a_preset_stands_for(choice, words, capsys):
    assert cli.main(["explain", choice]) == 0
    shown = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert set(words) <= set(shown)
    if not choice.startswith("sweep"):
        check(parse(shown)[0], full=True)


def test_studies_are_listed_and_a_misspelt_one_names_the_nearest(capsys):
    assert cli.main(["list", "study"]) == 0
    assert "  ranking-lightgcn Every ranking distiller" in capsys.readouterr().out
    assert cli.main(["study", "ranking-fm"]) == 2
    err = capsys.readouterr().err
    assert "there is no study ranking-fm; did you mean ranking-mf?" in err and "straight-line" in err


def test_a_choice_of_a_nested_group_is_explained_with_the_keys_that_set_it(capsys):
    assert cli.main(["explain", "dataset/split=leave_one_out"]) == 0
    assert "\n  dataset.split.order=random " in capsys.readouterr().out
    assert cli.main(["explain", "dataset=citeulike-t"]) == 0
    out = capsys.readouterr().out
    for line in ("dataset.filter.user_min=5 ", "dataset.filter.item_min=1 ", "dataset.split.rounding=at_least_one "):
        assert f"\n  {line}" in out


@pytest.mark.parametrize("choice", CHOICES)
def test_no_setting_of_any_choice_is_left_unexplained(choice, capsys):
    assert cli.main(["explain", choice, "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["text"]
    if choice.partition("=")[0] not in ("debug", "experiment", "sweep"):  # they set others' keys
        assert [path for path, setting in about["settings"].items() if not setting["meaning"]] == []


def test_a_folder_of_ones_own_is_listed_and_explained(tmp_path, capsys):
    (tmp_path / "distill").mkdir()
    (tmp_path / "distill/mine.yaml").write_text("# My own.\n_target_: no.such.package.Mine\nweight: 2\n")
    assert cli.main(["list", "distill", "--config-dir", str(tmp_path)]) == 0
    assert "My own." in capsys.readouterr().out
    assert cli.main(["explain", "distill=mine", "--config-dir", str(tmp_path)]) == 0
    assert "distill.weight=2" in capsys.readouterr().out


def test_list_and_explain_import_neither_torch_nor_hydra():
    code = (
        "import sys; from recdistill.cli import main; main(['list']); main(['explain', 'teacher=lightgcn']);"
        "print('imported', *(m for m in ('torch', 'pandas', 'hydra', 'numpy') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "imported"


@pytest.mark.parametrize("name", members("distill", (conf_folder(),)))
def test_a_distillers_explanation_says_what_a_step_costs_and_what_the_teacher_must_provide(name, capsys):
    assert cli.main(["explain", f"distill={name}"]) == 0
    out = capsys.readouterr().out
    assert out.count("\nCost per step: ") == 1
    if name == "none":
        return
    assert "\nrequires: ranking" in out  # of `combined`: what its parts require
    assert (conf_folder().parent / "docs" / "methods" / f"{name}.md").is_file()
