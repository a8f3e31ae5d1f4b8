"""Every command in the README is run: on a tiny data set where the README's would take minutes."""

import re
import shlex
import textwrap
from pathlib import Path

import pytest

from recdistill import cli
from recdistill.commands.study import read_study

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TINY = ["dataset.n_users=60", "dataset.n_items=80", "dataset.n_interactions=1200"]
ONE_EPOCH = ["trainer.epochs=1", "teacher.trainer.epochs=1", "scratch.trainer.epochs=1"]


def commands() -> list[str]:
    """Each line of a code block that starts a command, without prompt and without the set-up script."""
    blocks = re.findall(r"```\n(.*?)```", README, re.DOTALL)
    lines = [line.removeprefix("$ ").strip() for block in blocks for line in block.splitlines()]
    words = [line.removeprefix("python3 scripts/env.py ") for line in lines]
    return list(dict.fromkeys(line for line in words if line.startswith("recdistill ")))


def test_the_readme_has_the_commands_that_these_tests_know() -> None:
    assert len(commands()) >= 9
    assert {line.split()[1] for line in commands()} == {
        "--version", "train", "compare", "study", "evaluate", "datasets",
    }  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the README's commands speak of: a file, a package, a finished run."""
    folder = tmp_path_factory.mktemp("readme")
    rows = [f"v{n % 12},p{(n * 7) % 31}" for n in range(300)]
    (folder / "mine.csv").write_text("visitor,page\n" + "\n".join(rows) + "\n")
    (folder / "mypackage.py").write_text("from recdistill.distill.none import NoDistillation as Mine\n")
    (folder / "mine" / "distill").mkdir(parents=True)
    (folder / "mine" / "distill" / "mymethod.yaml").write_text("# Mine.\n_target_: mypackage.Mine\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert cli.main(["train", "debug=smoke", "hydra.run.dir=outputs/runs/RUN"]) == 0
    return folder


@pytest.mark.parametrize("line", commands())
def test_the_command_does_what_the_readme_says(
    line: str, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))
    words = shlex.split(line)[1:]
    if words[0] == "study":  # what it runs is tested in tests/commands/test_study.py
        assert len(read_study(Path(words[1])).methods) >= 4
        return
    wrong = words == ["train", "distil=unkd"]
    if words[0] == "train" and not wrong:
        words = [word for word in words if not word.startswith("dataset=citeulike-t")]
        words += ONE_EPOCH if "dataset=file" in words else ["debug=smoke"]
    assert cli.main(words) == (2 if wrong else 0)
    shown = capfd.readouterr()
    if wrong:
        assert textwrap.dedent(shown.err).strip() in README


def test_the_output_of_the_first_run_was_really_printed() -> None:
    """The block after the first command has the shape of what `train` prints today."""
    block = README.split("recdistill train\n```", 1)[1].split("```")[1]
    heads = block.strip().splitlines()[1].split()
    assert heads == ["model", "params", "ndcg@20", "recall@20", "lift", "group", "0", "group", "1"]
    assert re.search(r"outputs/runs/\S+_ml-100k_mf_rrd_\w{6} valid/ndcg@20=0\.\d{4}", block)
