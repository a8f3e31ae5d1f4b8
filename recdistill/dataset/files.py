"""Opening a data file: compression by its first bytes, and one clear error for each thing that can be wrong."""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from recdistill.errors import DataError

MAGIC = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd"}
ENDINGS = {"gzip": (".gz",), "zstd": (".zst", ".zstd")}


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what a library says of a broken file into a `DataError`.

    Raises:
        DataError: the file is missing, empty, cut short, not UTF-8, or cannot be parsed.
    """
    if not is_file(path):
        raise DataError(
            f"there is no file {path}", "the data set is read from it", "mend dataset.path or put the file there"
        )
    if path.stat().st_size == 0:
        raise empty(path)
    try:
        yield
    except UnicodeDecodeError as error:
        raise not_utf8(path, f"{error.reason} at byte {error.start}") from error
    except PermissionError as error:
        raise forbidden(path, error) from error
    except (EOFError, OSError, zlib.error) as error:
        raise cut_short(path, str(error)) from error
    except pa.ArrowException as error:
        said = str(error).strip()
        if "Empty CSV file" in said:
            raise empty(path) from error
        raise (not_utf8 if "UTF8" in said else unparsable)(path, said) from error


def is_file(path: Path) -> bool:
    """Whether there is a file of that name.

    Raises:
        DataError: a folder on the way to it may not be entered.
    """
    return (status := _status(path)) is not None and stat.S_ISREG(status.st_mode)


def is_folder(path: Path) -> bool:
    """Whether there is a folder of that name.

    Raises:
        DataError: a folder on the way to it may not be entered.
    """
    return (status := _status(path)) is not None and stat.S_ISDIR(status.st_mode)


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except PermissionError as error:
        raise forbidden(path, error) from error
    except (OSError, ValueError):  # not there; a name that is too long or holds a zero byte
        return None


def open_file(path: Path) -> pa.NativeFile:
    """Open a file, decompressing what its first bytes or its ending say is `.gz` or `.zst`."""
    with path.open("rb") as stream:
        first = stream.read(4)
    for kind, magic in MAGIC.items():
        if first.startswith(magic) or path.suffix.lower() in ENDINGS[kind]:
            return pa.CompressedInputStream(pa.OSFile(str(path)), kind)
    return pa.OSFile(str(path))


def bare_name(path: Path) -> str:
    """The file's name in lower case without `.gz` or `.zst`."""
    name = path.name.lower()
    for ending in (ending for some in ENDINGS.values() for ending in some):
        name = name.removesuffix(ending)
    return name


def forbidden(path: Path, error: PermissionError) -> DataError:
    """The error for what the user may not read."""
    return DataError(f"{path} cannot be read: {error.strerror}", "the data set is read from it", "mend its permissions")


def empty(path: Path) -> DataError:
    """The error for a file without rows."""
    return DataError(f"{path} is empty", "there is nothing to learn from", "point dataset.path at a file with data")


def cut_short(path: Path, because: str) -> DataError:
    """The error for a file whose bytes end early or are altered."""
    return DataError(
        f"{path} is cut short or broken: {because}",
        "it ends in the middle or is not what its ending says",
        "copy or download it again",
    )


def not_utf8(path: Path, because: str) -> DataError:
    """The error for text in another encoding."""
    name = bare_name(path)
    return DataError(
        f"{path} is not UTF-8: {because}",
        "ids are read as UTF-8 text",
        f"convert it, for example: iconv -f latin1 -t utf-8 {name} > new-{name}",
    )


def unparsable(path: Path, because: str) -> DataError:
    """The error for rows that do not fit the format."""
    return DataError(
        f"{path} cannot be parsed: {because[:300]}",
        "a row does not have as many fields as the first one, or the file is of another format",
        "check that row and the separator, or name the format: dataset.format=csv",
    )
