"""A user's own distiller, in a package of their own: nothing of recdistill is edited."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DISTILLER = '''
"""A distiller of one's own."""
from recdistill.distill.base import Distiller

class Pull(Distiller):
    """Pull the teacher's first item up.

    Args:
        weight: factor on this term.
    """

    requires = frozenset({"ranking"})

    def __init__(self, *, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def prepare(self, knowledge, interactions, student, generator):
        self.first = knowledge.one().item[:, :1].long()

    def forward(self, scorer, batch):
        score = scorer.pair_scores(batch.user, self.first[batch.user])
        return {"pull": self.weight * (-score).sigmoid().mean()}
'''
YAML = "# My own: the teacher's first item is pulled up.\n_target_: mypkg.pull.Pull\nweight: 0.5\n"
TRAIN = ["train", "debug=smoke", "device=cpu", "scratch.enabled=false", "--config-dir", "conf"]


@pytest.fixture
def recdistill(tmp_path):
    (tmp_path / "src/mypkg").mkdir(parents=True)
    (tmp_path / "src/mypkg/__init__.py").write_text("")
    (tmp_path / "src/mypkg/pull.py").write_text(DISTILLER)
    (tmp_path / "conf/distill").mkdir(parents=True)
    (tmp_path / "conf/distill/pull.yaml").write_text(YAML)

    def run(*words):
        environment = os.environ | {"PYTHONPATH": str(tmp_path / "src"), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-P", "-m", "recdistill", *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return run


def test_a_distiller_of_ones_own_trains(recdistill, tmp_path):
    done = recdistill(*TRAIN, "distill=pull", "plugins=[mypkg]", "distill.weight=2")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / done.stdout.splitlines()[-1].split()[0]
    results = json.loads(Path(folder, "results.json").read_text())
    assert results["distillation"]["name"] == "pull"
    assert "pull" in Path(folder, "history.csv").read_text().splitlines()[0]


def test_a_finished_run_is_passed_over_until_the_code_of_the_plugin_changes(recdistill, tmp_path):
    words = [*TRAIN, "distill=pull", "plugins=[mypkg]", "skip_finished=true"]
    folders = [recdistill(*words).stdout.splitlines()[-1] for _ in range(2)]
    assert len(list((tmp_path / "outputs/runs").iterdir())) == 2 and "done before" in folders[1]
    (tmp_path / "src/mypkg/pull.py").write_text(DISTILLER.replace("(-score)", "(-2 * score)"))
    assert "done before" not in recdistill(*words).stdout


def test_its_settings_are_checked_like_ours(recdistill):
    done = recdistill(*TRAIN, "distill=pull", "plugins=[mypkg]", "+distill.wieght=2", "distill.weight=much")
    assert done.returncode == 2
    assert "Pull has no setting wieght; did you mean weight?" in done.stderr
    assert "'much' is not of type float" in done.stderr


def test_without_naming_the_package_it_is_refused(recdistill):
    done = recdistill(*TRAIN, "distill=pull")
    assert done.returncode == 2
    assert "mypkg.pull.Pull" in done.stderr
    assert "plugins=[PACKAGE]" in done.stderr


def test_a_plugin_that_cannot_be_imported_says_why(recdistill, tmp_path):
    (tmp_path / "src/mypkg/pull.py").write_text("from recdistill.distill.base import Distilller\n")
    done = recdistill(*TRAIN, "distill=pull", "plugins=[mypkg]")
    assert done.returncode == 2
    assert "ImportError" in done.stderr
    assert "Distilller" in done.stderr
    assert "Traceback" not in done.stderr


def test_it_is_listed_and_explained(recdistill):
    assert "pull           My own" in recdistill("list", "distill", "--config-dir", "conf").stdout
    explained = recdistill("explain", "distill=pull", "--config-dir", "conf").stdout
    assert "distill.weight=0.5  factor on this term." in explained
