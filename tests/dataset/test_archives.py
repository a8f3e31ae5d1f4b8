from __future__ import annotations

import stat
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packed import gzipped, tar_of, zip_of, zipped
from recdistill.dataset.archives import FetchFailed, unpack
from recdistill.errors import CacheError

TEXT = b"1\t2\n" * 1000
ZEROS = bytes(10_000_000)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def refused(folder: Path, name: str, content: bytes, because: str, member: str | None = "u/data") -> None:
    """The archive is refused for the reason, and leaves nothing."""
    (folder / name).write_bytes(content)
    with pytest.raises(FetchFailed, match=because) as caught:
        unpack(folder / name, member, folder / "out", limit=100_000)
    assert str(caught.value).startswith(name)
    assert files(folder) == [name]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.zip", zip_of({"readme": b"not", "u/data": TEXT}, packing=zipfile.ZIP_DEFLATED)),
        ("a.whl", zipped(u__data=TEXT)),
        ("a.tar.gz", tar_of({"readme": b"not", "u/data": TEXT, "last": b"not"})),
        ("a.tgz", tar_of({"u": b"", "u/data": TEXT}, {"u": tarfile.DIRTYPE})),
        ("a.gz", gzipped(TEXT)),
    ],
)
def test_only_the_named_member_is_unpacked(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    unpack(tmp_path / name, "u/data", tmp_path / "out", limit=len(TEXT) + 50_000)
    assert (tmp_path / "out").read_bytes() == TEXT
    assert files(tmp_path) == sorted([name, "out"])


OUTSIDE = ["../u.data", "/etc/u.data", "u/../../data", "..\\u.data", "C:\\u.data", "\\\\host\\share\\u.data"]


@pytest.mark.parametrize("where", OUTSIDE)
def test_an_archive_with_a_member_outside_its_folder_is_refused_even_for_another_member(
    tmp_path: Path, where: str
) -> None:
    members = {"u/data": TEXT, where: b"x"}
    refused(tmp_path, "a.zip", zip_of(members), "outside the folder")
    (tmp_path / "a.zip").unlink()
    refused(tmp_path, "a.tar.gz", tar_of(members), "outside the folder")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO])
def test_a_zip_with_a_link_or_a_device_is_refused(tmp_path: Path, kind: int) -> None:
    members = {"u/data": b"/etc/passwd", "other": b""}
    refused(tmp_path, "a.zip", zip_of(members, {"u/data": kind | 0o777}), "'u/data', a link or a device")
    (tmp_path / "a.zip").unlink()
    refused(tmp_path, "a.zip", zip_of(members, {"other": kind | 0o777}), "'other', a link or a device")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_a_tar_with_a_link_or_a_device_is_refused_wherever_it_stands(tmp_path: Path, kind: bytes) -> None:
    for members in ({"odd": b"", "u/data": TEXT}, {"u/data": TEXT, "odd": b""}):
        refused(tmp_path, "a.tar.gz", tar_of(members, {"odd": kind}), "'odd', a link or a device")
        (tmp_path / "a.tar.gz").unlink()


def test_an_archive_that_unpacks_to_more_than_the_limit_is_refused(tmp_path: Path) -> None:
    because = "more than 100,000 bytes"
    refused(tmp_path, "a.zip", zip_of({"u/data": ZEROS}, packing=zipfile.ZIP_DEFLATED), because)
    (tmp_path / "a.zip").unlink()
    refused(tmp_path, "a.gz", gzipped(ZEROS), because)
    (tmp_path / "a.gz").unlink()
    for members in ({"u/data": ZEROS}, {"bomb": ZEROS, "u/data": TEXT}, {"u/data": TEXT, "bomb": ZEROS}):
        refused(tmp_path, "a.tar.gz", tar_of(members), because)
        (tmp_path / "a.tar.gz").unlink()


def test_a_zip_whose_header_lies_about_its_size_unpacks_no_more_than_the_header_says(tmp_path: Path) -> None:
    content = bytearray(zip_of({"u/data": ZEROS}, packing=zipfile.ZIP_DEFLATED))
    honest, lie = struct.pack("<L", len(ZEROS)), struct.pack("<L", 10)
    assert content.count(honest) == 2  # beside the member, and in the directory at the end
    refused(tmp_path, "a.zip", bytes(content.replace(honest, lie)), "Bad CRC-32")


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.gz"])
@pytest.mark.parametrize("content", [b"<html><body>Please log in</body></html>", b"\0", bytes(2000)])
def test_what_is_no_archive_leaves_no_file(tmp_path: Path, name: str, content: bytes) -> None:
    refused(tmp_path, name, content, "damaged or of another kind|lacks u/data")


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.zip", zipped(u__data=TEXT)), ("a.tar.gz", tar_of({"u/data": TEXT})), ("a.gz", gzipped(TEXT))],
)
def test_an_archive_that_is_cut_short_leaves_no_file(tmp_path: Path, name: str, content: bytes) -> None:
    refused(tmp_path, name, content[:-40], "damaged or of another kind|lacks u/data")


@pytest.mark.parametrize(("name", "content"), [("a.zip", zipped(other=b"x")), ("a.tar.gz", tar_of({"other": b"x"}))])
def test_an_archive_that_lacks_the_member_says_what_it_holds(tmp_path: Path, name: str, content: bytes) -> None:
    refused(tmp_path, name, content, "lacks u/data; it holds other")


def test_a_damaged_member_leaves_no_file(tmp_path: Path) -> None:
    content = bytearray(zipped(u__data=TEXT))
    content[500] ^= 1  # stored, not compressed: only the checksum tells
    refused(tmp_path, "a.zip", bytes(content), "CRC")


def test_a_target_that_cannot_be_written_is_not_the_archives_failure(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped(u__data=TEXT))
    with pytest.raises(CacheError, match="cannot write"):
        unpack(tmp_path / "a.zip", "u/data", tmp_path / "a.zip" / "below")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.zip", zip_of({"u/data": TEXT}, packing=zipfile.ZIP_DEFLATED)),
        ("a.tar.gz", tar_of({"u/data": TEXT})),
        ("a.gz", gzipped(TEXT)),
    ],
    ids=["zip", "tar", "gz"],
)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_an_archive_with_damage_anywhere_gives_its_content_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str, content: bytes, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    (folder / name).write_bytes(damaged)
    try:
        unpack(folder / name, "u/data", folder / "out", limit=100_000)
    except FetchFailed:
        assert files(folder) == [name]
    else:
        assert (folder / "out").exists()
