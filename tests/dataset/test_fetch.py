from __future__ import annotations

import io
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from recdistill.dataset import fetch
from recdistill.dataset.catalog import CiteULikeT, MovieLens100K
from recdistill.dataset.fetch import FetchFailed, download, from_package, unzip_member
from recdistill.dataset.filters import Filter
from recdistill.dataset.splits import Ratio
from recdistill.errors import CacheError, DataError

HTML = b"<html><body>Please log in</body></html>"
BODY = bytes(range(256)) * 1000


def zipped(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as bundle:
        for name, content in members.items():
            bundle.writestr(name.replace("__", "/"), content)
    return stream.getvalue()


class Handler(BaseHTTPRequestHandler):
    """Good and bad answers by path."""

    stalled = threading.Event()

    def do_GET(self) -> None:
        answers = {
            "/good": BODY,
            "/html": HTML,
            "/short": BODY,
            "/stall": BODY,
            "/other.zip": zipped(**{"ml-100k__u.data": b"1\t2\t3\t4\n"}),
        }
        body = answers.get(self.path)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        surplus = 1000 if self.path in ("/short", "/stall") else 0
        self.send_header("Content-Length", str(len(body) + surplus))
        self.end_headers()
        self.wfile.write(body)
        if self.path == "/stall":
            self.stalled.wait(20)

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A real server on this machine; its address."""
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.daemon_threads = True
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{made.server_port}"
    Handler.stalled.set()
    made.shutdown()
    thread.join()
    made.server_close()


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def ml_100k() -> MovieLens100K:
    return MovieLens100K(name="ml-100k", path=None, filter=Filter(), split=Ratio())


def citeulike_t() -> CiteULikeT:
    return CiteULikeT(name="citeulike-t", path=None, filter=Filter(), split=Ratio())


@pytest.fixture
def no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(MovieLens100K, "package", "no-such-package-for-recdistill==0.0.1")


def test_a_file_is_downloaded_whole(server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    download(f"{server}/good", tmp_path / "new" / "file")
    assert (tmp_path / "new" / "file").read_bytes() == BODY
    assert files(tmp_path) == ["file"]
    said = capsys.readouterr()
    assert said.out == ""
    assert "fetching file" in said.err


def test_a_server_that_stops_half_way_leaves_no_file(server: str, tmp_path: Path) -> None:
    with pytest.raises(FetchFailed, match=f"stopped after {len(BODY)} of {len(BODY) + 1000} bytes|IncompleteRead"):
        download(f"{server}/short", tmp_path / "file")
    assert files(tmp_path) == []


def test_a_server_that_falls_silent_half_way_is_the_sources_failure_and_leaves_no_file(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "CONNECT_SECONDS", 0.3)
    with pytest.raises(FetchFailed, match="/stall: timed out"):
        download(f"{server}/stall", tmp_path / "file")
    assert files(tmp_path) == []


def test_an_http_error_is_named_with_its_address(server: str, tmp_path: Path) -> None:
    with pytest.raises(FetchFailed, match=f"{server}/missing: .*Not Found"):
        download(f"{server}/missing", tmp_path / "file")
    assert files(tmp_path) == []


def test_a_server_that_is_not_there_is_the_sources_failure(tmp_path: Path) -> None:
    with pytest.raises(FetchFailed, match=r"http://127\.0\.0\.1:1/: .*refused"):
        download("http://127.0.0.1:1/", tmp_path / "file")
    assert files(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_not_the_sources_failure(server: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="cannot write"):
        download(f"{server}/good", tmp_path / "file" / "below")


@pytest.mark.parametrize("content", [HTML, zipped(other=b"x"), zipped(u__data=b"x" * 1000)[:-40], b""])
def test_what_is_no_archive_or_lacks_the_member_leaves_no_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(FetchFailed, match=r"a\.zip"):
        unzip_member(tmp_path / "a.zip", "u/data", tmp_path / "u.data")
    assert files(tmp_path) == ["a.zip"]


def test_a_damaged_member_leaves_no_file(tmp_path: Path) -> None:
    content = bytearray(zipped(u__data=b"x" * 1000))
    content[500] ^= 1  # stored, not compressed: only the checksum tells
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(FetchFailed, match="CRC"):
        unzip_member(tmp_path / "a.zip", "u/data", tmp_path / "u.data")
    assert files(tmp_path) == ["a.zip"]


def test_only_the_named_member_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped(u__data=b"wanted", other=b"not"))
    unzip_member(tmp_path / "a.zip", "u/data", tmp_path / "u.data")
    assert (tmp_path / "u.data").read_bytes() == b"wanted"
    assert files(tmp_path) == ["a.zip", "u.data"]


def test_a_file_comes_out_of_a_wheel_that_pip_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "toy_data_set-1.0.dist-info"
    (tmp_path / "toy_data_set-1.0-py3-none-any.whl").write_bytes(
        zipped(
            toy__ratings=b"1 2",
            **{
                f"{name}__METADATA": b"Metadata-Version: 2.1\nName: toy-data-set\nVersion: 1.0\n",
                f"{name}__WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
                f"{name}__RECORD": b"",
            },
        )
    )
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    from_package("toy-data-set==1.0", "toy/ratings", tmp_path / "out" / "ratings")
    assert (tmp_path / "out" / "ratings").read_bytes() == b"1 2"


def test_a_package_that_does_not_exist_is_named(tmp_path: Path, no_package: None) -> None:
    with pytest.raises(FetchFailed, match="package no-such-package-for-recdistill"):
        from_package(MovieLens100K.package, "a", tmp_path / "a")
    assert files(tmp_path) == []


def test_without_any_pip_the_package_is_the_sources_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FetchFailed, match="no pip was found"):
        from_package("recbole==1.2.1", "a", tmp_path / "a")


def test_no_source_names_all_three_and_the_place_to_put_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_package: None
) -> None:
    monkeypatch.setattr(MovieLens100K, "url", "http://127.0.0.1:1/")
    said: list[str] = []
    with pytest.raises(DataError) as caught:
        ml_100k().table(tmp_path / "data", tmp_path / "downloads", said.append)
    what = caught.value.what
    assert f"nothing under {tmp_path / 'data'}" in what
    assert "http://127.0.0.1:1/: " in what
    assert "package no-such-package-for-recdistill==0.0.1: " in what
    assert f"put u.data or ml-100k.inter into {tmp_path / 'data' / 'ml-100k'}" in caught.value.fix
    assert "dataset.path=FILE" in caught.value.fix
    assert any("no redistribution" in line for line in said)
    assert files(tmp_path) == []


@pytest.mark.parametrize(("path", "because"), [("/html", "not a zip file"), ("/other.zip", "SHA-256")])
def test_something_else_instead_of_ml_100k_is_a_clear_failure_and_leaves_no_file(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_package: None, path: str, because: str
) -> None:
    monkeypatch.setattr(MovieLens100K, "url", server + path)
    with pytest.raises(DataError, match=because):
        ml_100k().table(tmp_path / "data", tmp_path / "downloads", lambda line: None)
    assert files(tmp_path) == []


def test_a_web_page_instead_of_citeulike_t_is_a_clear_failure_and_leaves_no_file(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CiteULikeT, "url", f"{server}/html")
    with pytest.raises(DataError, match=r"could not be fetched: .*the count says '<html><body>Please'") as caught:
        citeulike_t().table(tmp_path / "data", tmp_path / "downloads", lambda line: None)
    assert "put users.dat into" in caught.value.fix
    assert files(tmp_path) == []
