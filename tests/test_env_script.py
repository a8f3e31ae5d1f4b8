"""`scripts/env.py`: makes the environment once, then only runs the command inside it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fakes are POSIX scripts")


@pytest.fixture
def clone(tmp_path):
    """A copied tree in a folder with a blank in its name, with a fake pip that writes down its arguments."""
    root = tmp_path / "my clone"
    (root / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts/env.py", root / "scripts/env.py")
    for name in ("requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, root / name)
    (tmp_path / "fake/pip").mkdir(parents=True)
    (tmp_path / "fake/pip/__init__.py").touch()  # without it the real pip would win
    (tmp_path / "fake/pip/__main__.py").write_text(
        "import os, sys, pathlib\n"
        "if sys.prefix.endswith('.venv'): sys.exit('No module named pip')\n"  # as in every environment made here
        "pathlib.Path(os.environ['PIP_SAW']).open('a').write(' '.join(sys.argv[1:]) + chr(10))\n"
        "sys.exit(int(os.environ.get('PIP_RC', 0)))\n"
    )
    return root


# The tests themselves may run in a `.venv`; what is tested starts outside of one, as a user does.
OUTSIDE = getattr(sys, "_base_executable", sys.executable)


def env(clone, *words, python=OUTSIDE, **variables):
    paths = {"PYTHONPATH": str(clone.parent / "fake"), "PIP_SAW": str(clone.parent / "saw")}
    command = [python, str(clone / "scripts/env.py"), *words]
    return subprocess.run(
        command, env=os.environ | paths | variables, cwd=clone.parent, capture_output=True, text=True, check=False
    )


def saw(clone):
    log = clone.parent / "saw"
    return log.read_text().splitlines() if log.exists() else []


INSIDE = ["python", "-c", "import sys; print(sys.prefix, *sys.argv[1:], sep='|'); sys.exit(7)", "a b", "*", "--debug"]


def test_the_first_call_installs_the_lock_then_the_project_and_runs_the_command_inside(clone):
    done = env(clone, *INSIDE)
    assert done.returncode == 7, done.stderr
    assert done.stdout.strip() == f"{clone}/.venv|a b|*|--debug"
    assert [line.split("--quiet ")[1] for line in saw(clone)] == [
        "-r requirements.lock",
        "--no-deps --no-build-isolation --editable .",
    ]
    assert "setting up" in done.stderr


def test_a_fresh_environment_is_used_without_pip(clone):
    env(clone, *INSIDE)
    before = saw(clone)
    done = env(clone, *INSIDE)
    assert (done.returncode, done.stderr) == (7, "")
    assert saw(clone) == before


@pytest.mark.parametrize("name", ["requirements.lock", "pyproject.toml"])
def test_a_changed_lock_or_project_is_installed_again(clone, name):
    env(clone, *INSIDE)
    (clone / name).write_text((clone / name).read_text() + "\n# changed\n")
    assert env(clone, *INSIDE).returncode == 7
    assert len(saw(clone)) == 4


def test_the_environments_own_python_installs_a_changed_lock_too(clone):
    env(clone, *INSIDE)
    (clone / "requirements.lock").write_text((clone / "requirements.lock").read_text() + "\n# changed\n")
    done = env(clone, *INSIDE, python=str(clone / ".venv/bin/python"))
    assert done.returncode == 7, done.stderr
    assert done.stdout.startswith(f"{clone}/.venv|")
    assert len(saw(clone)) == 4
    assert env(clone, *INSIDE).stderr == ""  # and all is fresh


def test_a_moved_clone_is_installed_again(clone):
    env(clone, *INSIDE)
    moved = clone.rename(clone.with_name("moved"))
    assert env(moved, *INSIDE).stdout.startswith(f"{moved}/.venv|")
    assert len(saw(moved)) == 4


def test_a_failing_pip_is_told_in_three_lines_and_leaves_no_stamp(clone):
    done = env(clone, *INSIDE, PIP_RC="1")
    assert done.returncode == 1
    assert done.stdout == ""
    assert [line.partition(":")[0] for line in done.stderr.splitlines()[-3:]] == ["Error", "Why", "Fix"]
    assert "Traceback" not in done.stderr
    assert not (clone / ".venv/recdistill.stamp").exists()
    assert env(clone, *INSIDE).returncode == 7


def test_an_unknown_command_and_no_command_say_so(clone):
    env(clone, *INSIDE)
    done = env(clone, "no-such-command")
    assert done.returncode != 0
    assert "no-such-command" in done.stderr
    assert "Traceback" not in done.stderr
    assert "scripts/env.py" in env(clone).stderr


def test_the_script_needs_the_standard_library_only():
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(ROOT / "scripts/env.py")], capture_output=True, text=True, check=False
    )
    assert "Run a command inside" in done.stderr


def test_the_lock_holds_names_and_versions_only():
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in lines)
    assert [line for line in lines if line.startswith("torch==")] == ["torch==2.13.0"]
    assert len({line.partition("==")[0].lower() for line in lines}) == len(lines)
    assert not [line for line in lines if line.startswith(("nvidia", "triton", "recdistill"))]
