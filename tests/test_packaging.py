"""What a wheel holds, and that it works from anywhere without the clone."""

import os
import shutil
import site
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from recdistill import __version__

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="needs the source tree")


def run(*command, **more):
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **more)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy of what git tracks or would track."""
    folder = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns(".git", ".venv", "outputs", "__pycache__", ".*_cache", "tests", "data", "dist")
    shutil.copytree(ROOT, folder / "source", ignore=ignored)
    done = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder / "dist", cwd=folder / "source")
    assert done.returncode == 0, done.stderr
    (built,) = (folder / "dist").glob("*.whl")
    return built


def test_the_wheel_holds_the_package_and_every_yaml_and_nothing_else(wheel):
    assert wheel.name == f"recdistill-{__version__}-py3-none-any.whl"
    names = zipfile.ZipFile(wheel).namelist()
    yaml = {f"recdistill/conf/{path.relative_to(ROOT / 'conf').as_posix()}" for path in (ROOT / "conf").rglob("*.yaml")}
    assert {name for name in names if name.endswith(".yaml")} == yaml
    python = {path.relative_to(ROOT).as_posix() for path in (ROOT / "recdistill").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == python
    page = {
        path.relative_to(ROOT).as_posix() for kind in ("css", "j2") for path in ROOT.glob(f"recdistill/report/*.{kind}")
    }
    assert {name for name in names if name.endswith((".css", ".j2"))} == page != set()
    assert all(name.startswith(("recdistill/", "recdistill-")) for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.fixture(scope="module")
def bare(wheel, tmp_path_factory):
    """An environment with the wheel, that sees the current one's packages but not the editable install."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder / "venv", with_pip=False, symlinks=os.name != "nt")
    python = folder / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    place = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])").stdout.strip())
    zipfile.ZipFile(wheel).extractall(place)
    # Plain paths on sys.path: .pth files (the editable install) in these folders are not read.
    seen = {sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"], *site.getsitepackages()}
    (place / "current.pth").write_text("\n".join(sorted(seen)))
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def recdistill(*words):
        return run(python, "-P", "-c", SCRIPT, *words, cwd=elsewhere, env=environment)

    return recdistill, place


SCRIPT = "import sys; from recdistill.cli import main; print(sys.modules['recdistill'].__file__); sys.exit(main())"


def test_the_installed_wheel_composes_from_an_unrelated_folder(bare):
    recdistill, place = bare
    done = recdistill("train", "--cfg", "job", "distill=unkd")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == str(place / "recdistill/__init__.py")
    assert "_target_: recdistill.distill.unkd.UnKD" in done.stdout


def test_the_installed_wheel_lists_and_checks(bare):
    recdistill, _ = bare
    assert "ml-100k" in recdistill("list", "dataset").stdout
    done = recdistill("train", "distil=unkd")
    assert done.returncode == 2
    assert "did you mean distill?" in done.stderr


def test_the_wheel_names_its_console_script(wheel):
    archive = zipfile.ZipFile(wheel)
    (entry,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
    assert "recdistill = recdistill.cli:main" in archive.read(entry).decode()


def test_nothing_of_a_run_is_tracked():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git clone")
    assert run("git", "ls-files", "outputs", cwd=ROOT).stdout.split() == ["outputs/.gitkeep"]
    tracked = run("git", "ls-files", cwd=ROOT).stdout.split()
    assert not [name for name in tracked if name.endswith((".pyc", ".parquet", ".safetensors", ".npy", ".zip"))]


def test_no_file_of_the_package_is_over_400_lines():
    long = {
        path.name: n for path in (ROOT / "recdistill").rglob("*.py") if (n := len(path.read_text().splitlines())) > 400
    }
    assert long == {}
