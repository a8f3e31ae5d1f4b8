"""Files that tests of readers write, and what reading a bad one must say."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from recdistill.dataset.columns import Columns
from recdistill.dataset.readers import read
from recdistill.dataset.table import RawTable
from recdistill.errors import DataError

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the public data sets in ../shared/data")
ROWS = [("u1", "a", 4.0, 100), ("u2", "b", 2.5, 90), ("u1", "c", 1.0, 80)]


def text(separator: str, header: str = "user_id,item_id,rating,timestamp") -> bytes:
    lines = [header, *(",".join(str(value) for value in row) for row in ROWS)]
    return "\n".join(lines).replace(",", separator).encode() + b"\n"


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


def write(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def pairs(table: RawTable) -> list[tuple[str, str]]:
    return list(zip(table.user.text().tolist(), table.item.text().tolist(), strict=True))


def broken(path: Path, what: str, *, format: str | None = None, **columns: str) -> DataError:
    """The error that reading gives; it names the file and what is wrong, and has a reason and a remedy."""
    with pytest.raises(DataError, match=what) as caught:
        read(path, format=format, columns=Columns(**columns))
    assert path.name in caught.value.what
    assert caught.value.why
    assert caught.value.fix
    return caught.value
