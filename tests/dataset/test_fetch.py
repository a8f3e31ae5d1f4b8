from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from misbehaving import BODY, HALF, Server, serving
from packed import zipped
from recdistill.dataset import fetch
from recdistill.dataset.fetch import FetchFailed, download, from_package
from recdistill.errors import CacheError


@pytest.fixture
def server() -> Iterator[Server]:
    """A real server on this machine."""
    with serving() as made:
        yield made


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_file_is_downloaded_whole(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    download(f"{server.address}/good", tmp_path / "new" / "file")
    assert (tmp_path / "new" / "file").read_bytes() == BODY
    assert files(tmp_path) == ["file"]
    said = capsys.readouterr()
    assert said.out == ""
    assert "fetching file" in said.err


@pytest.mark.parametrize("path", ["/without-length", "/redirect"])
def test_a_file_without_an_announced_length_or_behind_a_redirect_is_downloaded_whole(
    server: Server, tmp_path: Path, path: str
) -> None:
    download(server.address + path, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY


@pytest.mark.parametrize("path", ["/short", "/weak"])
def test_a_server_that_stops_half_way_and_tells_no_versions_apart_leaves_no_file(
    server: Server, tmp_path: Path, path: str
) -> None:
    with pytest.raises(FetchFailed, match=f"stopped after {HALF} of {len(BODY)} bytes"):
        download(server.address + path, tmp_path / "file")
    assert files(tmp_path) == []


@pytest.mark.parametrize("path", ["/short-once", "/short-once-by-time"])
def test_a_download_that_stopped_half_way_is_continued(server: Server, tmp_path: Path, path: str) -> None:
    url = server.address + path
    with pytest.raises(FetchFailed, match=f"stopped after {HALF} of {len(BODY)} bytes"):
        download(url, tmp_path / "file")
    assert files(tmp_path) == ["file.part", "file.part.json"]
    assert (tmp_path / "file.part").read_bytes() == BODY[:HALF]
    download(url, tmp_path / "file")
    assert files(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == BODY
    assert server.asked[-1][1]["Range"] == f"bytes={HALF}-"
    assert "If-Range" in server.asked[-1][1]


@pytest.mark.parametrize("path", ["/range-ignored", "/range-refused", "/changed"])
def test_a_part_that_the_server_does_not_continue_is_fetched_again_from_the_start(
    server: Server, tmp_path: Path, path: str
) -> None:
    with pytest.raises(FetchFailed, match="stopped after"):
        download(server.address + path, tmp_path / "file")
    download(server.address + path, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY
    assert files(tmp_path) == ["file"]


def test_a_part_of_another_address_or_with_a_torn_note_is_not_continued(server: Server, tmp_path: Path) -> None:
    for note in ('{"url": "http://elsewhere/", "version": "\\"one\\""}', "{", "[]", '{"url": 1}'):
        (tmp_path / "file.part").write_bytes(b"of something else")
        (tmp_path / "file.part.json").write_text(note)
        download(f"{server.address}/good", tmp_path / "file")
        assert (tmp_path / "file").read_bytes() == BODY
        assert files(tmp_path) == ["file"]
    assert all("Range" not in headers for _, headers in server.asked)


def test_a_length_that_is_too_large_is_an_error_each_time_and_leaves_no_file_of_the_name(
    server: Server, tmp_path: Path
) -> None:
    for _ in range(2):
        with pytest.raises(FetchFailed, match=f"stopped after {len(BODY)} of {len(BODY) + 1000} bytes"):
            download(f"{server.address}/less-than-said", tmp_path / "file")
        assert not (tmp_path / "file").exists()


def test_a_length_that_is_too_small_cuts_the_file_which_its_checksum_must_tell(server: Server, tmp_path: Path) -> None:
    download(f"{server.address}/more-than-said", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY[:HALF]


@pytest.mark.parametrize("path", ["/html", "/disguised-html"])
def test_a_web_page_instead_of_a_file_is_an_error_that_says_so(server: Server, tmp_path: Path, path: str) -> None:
    with pytest.raises(FetchFailed, match=f"{path}: the server sent a web page"):
        download(server.address + path, tmp_path / "file.zip")
    assert files(tmp_path) == []


def test_a_web_page_of_a_hotels_network_does_not_cost_the_part_that_is_there(server: Server, tmp_path: Path) -> None:
    url = f"{server.address}/short-once"
    with pytest.raises(FetchFailed):
        download(url, tmp_path / "file")
    server.captive = True
    with pytest.raises(FetchFailed, match="web page"):
        download(url, tmp_path / "file")
    server.captive = False
    download(url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY
    assert server.asked[-1][1]["Range"] == f"bytes={HALF}-"


@pytest.mark.parametrize(
    ("path", "because"),
    [
        ("/missing", "HTTP error 404: Not Found"),
        ("/circle", "HTTP error 302: .*infinite loop"),
        ("/to-a-file", "not allowed"),
        ("/packed", "packed the file as gzip"),
        ("/piece", "a piece of the file"),
        ("/nothing", "sent nothing"),
        ("/broken-chunks", "IncompleteRead"),
    ],
)
def test_what_a_server_does_wrong_is_named_with_its_address_and_leaves_no_file(
    server: Server, tmp_path: Path, path: str, because: str
) -> None:
    with pytest.raises(FetchFailed, match=f"{server.address}{path}: (.|\n)*{because}"):
        download(server.address + path, tmp_path / "file")
    assert files(tmp_path) == []


def test_a_server_that_falls_silent_half_way_is_the_sources_failure(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "CONNECT_SECONDS", 0.3)
    with pytest.raises(FetchFailed, match="/stall: timed out"):
        download(f"{server.address}/stall", tmp_path / "file")
    assert (tmp_path / "file.part").read_bytes() == BODY[:HALF]
    assert not (tmp_path / "file").exists()


def test_a_server_that_drips_is_given_up(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "SLOW_SECONDS", 0.2)
    with pytest.raises(FetchFailed, match=r"/drip: only \d+ bytes in 0.2 seconds"):
        download(f"{server.address}/drip", tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_a_body_without_end_is_given_up_and_leaves_no_file(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "MOST_BYTES", 1000)
    with pytest.raises(FetchFailed, match="more than 1,000 bytes"):
        download(f"{server.address}/good", tmp_path / "file")
    assert files(tmp_path) == []


def test_a_server_that_is_not_there_is_the_sources_failure(tmp_path: Path) -> None:
    with pytest.raises(FetchFailed, match=r"http://127\.0\.0\.1:1/: .*refused"):
        download("http://127.0.0.1:1/", tmp_path / "file")
    assert files(tmp_path) == []


def test_the_proxy_of_the_environment_is_asked(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.address)
    monkeypatch.setenv("no_proxy", "")
    download("http://data.example/file", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"through the proxy"
    assert server.asked[-1][0] == "http://data.example/file"


def test_no_proxy_is_asked_for_hosts_that_the_environment_excepts(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    download(f"{server.address}/good", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY


def test_a_folder_that_cannot_be_written_is_not_the_sources_failure(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="cannot write"):
        download(f"{server.address}/good", tmp_path / "file" / "below")


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


def test_a_package_that_does_not_exist_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(FetchFailed, match="package no-such-package-for-recdistill"):
        from_package("no-such-package-for-recdistill==0.0.1", "a", tmp_path / "a")
    assert files(tmp_path) == []


def test_without_any_pip_the_package_is_the_sources_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FetchFailed, match="no pip was found"):
        from_package("recbole==1.2.1", "a", tmp_path / "a")
