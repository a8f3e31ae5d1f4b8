#!/usr/bin/env python3
"""Run a command inside the project's own environment, making it first where needed.

    python3 scripts/env.py recdistill train
    python3 scripts/env.py pytest

Standard library only. The environment is `.venv` at the top of the clone: what `requirements.lock` names, then the
project itself (editable). A stamp of lock, pyproject and Python version tells whether it is fresh; then this adds a
few hundredths of a second.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "recdistill.stamp"


def bin_folder(environment: Path) -> Path:
    """Where an environment's programs lie."""
    return environment / ("Scripts" if os.name == "nt" else "bin")


BIN = bin_folder(VENV)


def stamp() -> str:
    """What the environment is made of."""
    parts = [(ROOT / name).read_bytes() for name in ("requirements.lock", "pyproject.toml")]
    return hashlib.sha256(b"\0".join([*parts, sys.version.encode(), str(ROOT).encode()])).hexdigest()


def outside() -> str:
    """An interpreter that lives on when the environment is removed: an activated environment's is not this one."""
    if Path(sys.prefix).resolve() != VENV.resolve():
        return sys.executable
    names = ("python.exe",) if os.name == "nt" else ("bin/python{}.{}".format(*sys.version_info), "bin/python3")
    found = [Path(getattr(sys, "_base_executable", "")), *(Path(sys.base_prefix) / name for name in names)]
    return next((str(path) for path in found if path.is_file()), sys.executable)


def make(wanted: str) -> None:
    """Create the environment from nothing and install the lock and the project."""
    if sys.version_info < (3, 11):  # noqa: UP036  # this file also meets older Pythons
        sys.exit(f"recdistill needs Python 3.11 or newer; this is {sys.version.split()[0]} ({sys.executable})")
    print(f"setting up {VENV} (once; needs a few minutes and about 1.5 GB)", file=sys.stderr, flush=True)
    install(VENV, [["-r", "requirements.lock"], ["--no-deps", "--no-build-isolation", "--editable", "."]])
    STAMP.write_text(wanted)


def install(environment: Path, steps: list[list[str]]) -> None:
    """Make an environment from nothing; each step is what one call of pip installs."""
    base = outside()
    if environment.exists():
        shutil.rmtree(environment)
    venv.create(environment, with_pip=False, symlinks=os.name != "nt")
    python = bin_folder(environment) / ("python.exe" if os.name == "nt" else "python")
    pip = [base, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "install", "--quiet"]
    for arguments in steps:
        done = subprocess.run([*pip, *arguments], cwd=ROOT, check=False, stdin=subprocess.DEVNULL, stdout=sys.stderr)
        if done.returncode != 0:
            sys.exit(
                f"Error: pip could not install {' '.join(arguments)}\n"
                "Why: it needs pip 22.3 or newer and a package registry that it can reach; its own words are above\n"
                "Fix: mend that and run the same command again, or install by hand: pip install -e ."
            )


def main() -> None:
    """Make the environment if its stamp is old, then become the command."""
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    wanted = stamp()
    if not STAMP.is_file() or STAMP.read_text() != wanted:
        make(wanted)
    environment = os.environ | {"VIRTUAL_ENV": str(VENV), "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"}
    environment.pop("PYTHONHOME", None)
    command = shutil.which(sys.argv[1], path=str(BIN)) or sys.argv[1]
    if os.name == "nt":
        sys.exit(subprocess.run([command, *sys.argv[2:]], env=environment, check=False).returncode)
    try:
        os.execvpe(command, [command, *sys.argv[2:]], environment)
    except OSError as error:
        sys.exit(f"cannot run {sys.argv[1]}: {error.strerror}; it is neither in {BIN} nor on the path")


if __name__ == "__main__":
    main()
