"""Taking one file out of a zip, tar.gz or gz archive that came from elsewhere and is not trusted."""

from __future__ import annotations

import gzip
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import IO, Protocol, cast

from recdistill.store import atomic

BLOCK_BYTES = 1 << 16
UNPACKED_BYTES = 2 << 30  # of one archive; ratings.csv of MovieLens 20M, the largest file here, has 0.5 GB


class FetchFailed(Exception):
    """One source of a data set did not deliver; the message says why. Never leaves the named data sets."""


def unpack(archive: Path, member: str | None, target: Path, *, limit: int = UNPACKED_BYTES) -> None:
    """Copy one member out of an archive; nothing else of it is unpacked, and `target` appears whole or not at all.

    An archive is refused as a whole if any member's name leaves the folder that it would be unpacked into, or if any
    is a link or a device: no publisher of data packs such a thing. Size is what was really unpacked, since a header
    can lie.

    Args:
        archive: a `.zip`, `.whl`, `.tar.gz`, `.tgz` or `.gz` file.
        member: its name in the archive (None: the only content of a `.gz`).
        target: where the content goes.
        limit: bytes that may be unpacked at most.

    Raises:
        FetchFailed: it is no such archive, is damaged or unsafe, unpacks to more than `limit`, or lacks the member.
        CacheError: `target` cannot be written.
    """
    if archive.name.endswith((".zip", ".whl")):
        blocks = _zip_blocks(archive, member or "", limit)
    elif archive.name.endswith((".tar.gz", ".tgz")):
        blocks = _tar_blocks(archive, member or "", limit)
    else:
        blocks = _gzip_blocks(archive, limit)
    with atomic(target) as temporary, temporary.open("wb") as stream:
        while block := _next(blocks, archive):
            stream.write(block)


def _next(blocks: Iterator[bytes], archive: Path) -> bytes:
    """The next block, none at the end; here, as damage may raise an OSError, which `atomic` takes for a full disk."""
    try:
        return next(blocks, b"")
    except (
        zipfile.BadZipFile,  # not a zip file, or a member's checksum is wrong
        tarfile.TarError,
        zlib.error,
        EOFError,  # it ends in the middle
        RuntimeError,  # a zip member that needs a password, or a way of packing that Python lacks
        ValueError,  # a number or name in a header that cannot be
        OSError,  # not a gzip file
    ) as error:
        raise FetchFailed(f"{archive.name} is damaged or of another kind: {error or type(error).__name__}") from error


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Counted:
    """A stream of unpacked bytes that stops at a limit."""

    def __init__(self, source: _Readable, archive: Path, limit: int) -> None:
        """Start at 0 bytes."""
        self.source, self.archive, self.limit, self.count = source, archive, limit, 0

    def read(self, size: int, /) -> bytes:
        """The next bytes, none at the end.

        Raises:
            FetchFailed: the limit is passed.
        """
        block = self.source.read(size)
        self.count += len(block)
        if self.count > self.limit:
            raise FetchFailed(f"{self.archive.name} unpacks to more than {self.limit:,} bytes: it is refused")
        return block


def _blocks(source: _Readable) -> Iterator[bytes]:
    while block := source.read(BLOCK_BYTES):
        yield block


def _zip_blocks(archive: Path, member: str, limit: int) -> Iterator[bytes]:
    with zipfile.ZipFile(archive) as bundle:
        for entry in bundle.infolist():
            kind = stat.S_IFMT(entry.external_attr >> 16)  # 0 where the archive was not made on Unix
            # the name as stored: `filename` is cut at a NUL
            _refuse_unsafe(archive, entry.orig_filename, odd=kind not in (0, stat.S_IFREG, stat.S_IFDIR))
        _check_holds(archive, member, bundle.namelist())
        with bundle.open(member) as source:
            yield from _blocks(_Counted(source, archive, limit))


def _tar_blocks(archive: Path, member: str, limit: int) -> Iterator[bytes]:
    """Read the archive once from end to end: what stands before and after the member counts and is checked, too."""
    names: list[str] = []
    with gzip.open(archive) as packed:
        plain = cast(IO[bytes], _Counted(packed, archive, limit))
        with tarfile.open(fileobj=plain, mode="r|", bufsize=BLOCK_BYTES) as bundle:
            for entry in bundle:
                _refuse_unsafe(archive, entry.name, odd=not (entry.isfile() or entry.isdir()))
                if entry.name == member and member not in names:
                    source = bundle.extractfile(entry)
                    if source is not None:  # None: a folder of that name
                        yield from _blocks(source)
                names.append(entry.name)
    _check_holds(archive, member, names)


def _gzip_blocks(archive: Path, limit: int) -> Iterator[bytes]:
    with gzip.open(archive) as source:
        yield from _blocks(_Counted(source, archive, limit))


def _refuse_unsafe(archive: Path, name: str, *, odd: bool) -> None:
    windows = PureWindowsPath(name)  # reads both slashes
    outside = windows.drive or windows.root or ".." in windows.parts or "\0" in name
    if odd or outside:
        kind = "which lies outside the folder that it is unpacked into" if outside else "a link or a device"
        raise FetchFailed(f"{archive.name} holds {name[:80]!r}, {kind}: it is refused")


def _check_holds(archive: Path, member: str, names: list[str]) -> None:
    if member not in names:
        few = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        raise FetchFailed(f"{archive.name} lacks {member}; it holds {few or 'nothing'}")
