"""Everything that lands on disk goes through here: keys, hashes, atomic writes, locks."""

from __future__ import annotations

import csv
import hashlib
import importlib
import json
import math
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from recdistill.errors import CacheError


def key_of(parts: Any) -> str:
    """16 hexadecimal digits that name what `parts` (plain JSON values) describes; the order of keys is free."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_hash(path: Path) -> str:
    """SHA-256 of a file, read in blocks of 1 MiB."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def plugin_code(config: Any) -> dict[str, dict[str, str]]:
    """The part of a key that changes with the source of plug-ins: a hash of the file of each `_target_` not ours.

    Returns:
        {"plugin_code": {_target_: hash}}, or nothing where all components are recdistill's.
    """
    found: dict[str, str] = {}
    inner = [config]
    for node in inner:  # grows as it goes down
        inner += node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ()
        target = node.get("_target_") if isinstance(node, Mapping) else None
        if isinstance(target, str) and not target.startswith("recdistill."):
            module = importlib.import_module(target.rpartition(".")[0])
            source = getattr(module, "__file__", None)
            found[target] = file_hash(Path(source)) if source else ""
    return {"plugin_code": found} if found else {}


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success it replaces `path`, on failure it is removed.

    Raises:
        CacheError: the folder cannot be written or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):  # what stopped the writing is raised above
            temporary.unlink(missing_ok=True)


def cannot_write(path: Path, error: Exception) -> CacheError:
    """The error for a path that cannot be written; not every library reports a full disk as an OSError."""
    return CacheError(
        f"cannot write {path}: {getattr(error, 'strerror', None) or error}",
        "results, models and soft labels are stored under paths.outputs",
        "free some space, mend the permissions, or choose another folder with paths.outputs=FOLDER",
    )


def ensure_folder(path: Path, room: int = 0) -> Path:
    """Make a folder and show that a file of `room` bytes can be written in it; an empty one fits on a full disk.

    Raises:
        CacheError: it cannot be made or written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".probe.{os.getpid()}"
        try:
            probe.write_bytes(bytes(room))
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    return path


def finite(value: Any) -> Any:
    """Replace NaN and infinities by None, recursively: a value that does not exist is null in JSON."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return value


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; NaN becomes null."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(finite(value), indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        CacheError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CacheError(
            f"cannot read {path}: {error}",
            "the file is missing, cut short or was edited",
            f"remove {path.parent} and run the same command again",
        ) from error


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of plain values as CSV, atomically; columns are the union of the rows' keys."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file with a header, as text; none where there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@contextmanager
def locked(path: Path, what: str, say: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock file, so that one process builds a thing and others wait for it.

    The operating system drops the lock of a process that died, so a dead holder never blocks.

    Args:
        path: what is being built; the lock lies beside it as `.NAME.lock`.
        what: words for the waiting message.
        say: where the message goes.
    """
    note = path.with_name(f".{path.name}.holder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"waiting for {_holder(note)}, which is building {what}")
            lock.acquire()
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        with suppress(OSError):  # it is only a note: the lock holds without it
            note.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        with suppress(OSError):
            note.unlink(missing_ok=True)
        lock.release()


def _holder(note: Path) -> str:
    """Who holds a lock, as far as its note says; the holder may remove it at any moment."""
    with suppress(OSError):
        return note.read_text(encoding="utf-8", errors="replace") or "another process"
    return "another process"


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold a run's folder, so that no second process writes into it.

    Raises:
        CacheError: another process holds it.
    """
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise CacheError(
            f"{folder} is in use by another process", "two processes would overwrite each other's files", "wait for it"
        ) from error
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        yield
    finally:
        lock.release()


def folder_size(path: Path) -> int:
    """Bytes of all files below a folder; of one that another process removes meanwhile 0."""
    size = 0
    for inner in path.rglob("*"):
        with suppress(FileNotFoundError):
            status = inner.stat()
            size += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return size


def timestamp() -> str:
    """Local time as ISO 8601 with seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
