"""Real archives made in memory, good and bad."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile


def zipped(**members: bytes) -> bytes:
    """A zip archive; two underscores in a name stand for a slash."""
    return zip_of({name.replace("__", "/"): content for name, content in members.items()})


def zip_of(members: dict[str, bytes], modes: dict[str, int] | None = None, packing: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive; `modes` gives the Unix mode of a member, such as that of a link."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", packing) as bundle:
        for name, content in members.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = packing
            entry.external_attr = (modes or {}).get(name, 0o100644) << 16
            bundle.writestr(entry, content)
    return stream.getvalue()


def tar_of(members: dict[str, bytes], kinds: dict[str, bytes] | None = None) -> bytes:
    """A tar.gz archive; `kinds` gives the type of a member, such as `tarfile.SYMTYPE`."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as bundle:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.type = (kinds or {}).get(name, tarfile.REGTYPE)
            entry.linkname = "target" if entry.type in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            entry.size = len(content) if entry.type == tarfile.REGTYPE else 0
            bundle.addfile(entry, io.BytesIO(content))
    return gzipped(stream.getvalue())


def gzipped(content: bytes) -> bytes:
    """A gzip file that holds no time, so that the same content gives the same bytes."""
    return gzip.compress(content, mtime=0)
