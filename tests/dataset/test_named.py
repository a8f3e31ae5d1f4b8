from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from misbehaving import HTML, Server, serving
from packed import tar_of, zipped
from recdistill.commands.conf import conf_folder, members
from recdistill.dataset import named
from recdistill.dataset.filters import Filter
from recdistill.dataset.named import Named, find, recorded
from recdistill.dataset.origins import ORIGINS, Origin, Remote
from recdistill.dataset.splits import Ratio
from recdistill.dataset.table import RawTable, table_hash
from recdistill.errors import DataError, SettingsError
from recdistill.store import file_hash

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the public data sets in ../shared/data")
HERE = ("ml-100k", "citeulike-a", "citeulike-t", "lastfm-hetrec", "online-retail")
RATINGS = b"".join(b"%d::%d::5::%d\n" % (user, item, 10 * user + item) for user in range(3) for item in range(4))
LISTS = b"0 0 1 2\n1 1 2 3\n2 0 3\n"
HELD_OUT = b"0 3\n1 0\n2\n"


def source(name: str, path: Path | str | None = None) -> Named:
    return Named(name=name, path=None if path is None else str(path), filter=Filter(), split=Ratio())


def read(one: Named, folder: Path, data: Path | None = None) -> RawTable:
    return one.table(data or folder / "data", folder / "downloads", lambda line: None)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A real server on this machine that every data set is fetched from; no package is."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with serving() as made:
        for name, origin in ORIGINS.items():
            remotes = tuple(
                replace(remote, url=f"{made.address}/{name}/{remote.url.rpartition('/')[2]}")
                for remote in origin.remotes
            )
            monkeypatch.setitem(ORIGINS, name, replace(origin, remotes=remotes))
        yield made


def known(monkeypatch: pytest.MonkeyPatch, name: str, **facts: Any) -> Origin:
    """A data set of which other facts are known; `md5` and `sha256` are those of its one file."""
    sums = {key: facts.pop(key) for key in ("md5", "sha256") if key in facts}
    origin = replace(ORIGINS[name], **facts)
    if sums:
        origin = replace(origin, remotes=(replace(origin.remotes[0], **sums),))
    monkeypatch.setitem(ORIGINS, name, origin)
    return origin


@needs_shared
@pytest.mark.parametrize("name", HERE)
def test_each_data_set_that_is_here_is_found_and_has_its_size_and_checksum(tmp_path: Path, name: str) -> None:
    origin = ORIGINS[name]
    table = read(source(name), tmp_path, SHARED)
    assert (len(table.user.names), len(table.item.names), len(table)) == (
        origin.n_users, origin.n_items, origin.n_interactions
    )  # fmt: skip
    assert table_hash(table) == origin.table
    assert files(tmp_path) == []


@needs_shared
@pytest.mark.parametrize("name", HERE)
def test_the_tidy_copy_of_a_data_set_is_the_same_table(tmp_path: Path, name: str) -> None:
    (tmp_path / "data" / name).mkdir(parents=True)
    shutil.copy(SHARED / name / "interactions.tsv.gz", tmp_path / "data" / name)
    assert table_hash(read(source(name), tmp_path)) == ORIGINS[name].table


@needs_shared
def test_ml_100k_is_the_same_table_from_u_data_and_from_inter(tmp_path: Path) -> None:
    folder = SHARED / "ml-100k" / "original"
    for path in (folder / "u.data", folder / "recbole" / "ml-100k" / "ml-100k.inter"):
        assert table_hash(read(source("ml-100k", path), tmp_path)) == ORIGINS["ml-100k"].table


@needs_shared
def test_the_files_whose_sha_256_is_stored_are_those_that_were_seen() -> None:
    for name in ("citeulike-a", "citeulike-t"):
        assert file_hash(SHARED / name / "original" / "users.dat") == ORIGINS[name].remotes[0].sha256


def test_every_data_set_has_a_config_file_of_its_name() -> None:
    assert set(ORIGINS) <= set(members("dataset", (conf_folder(),)))


def test_a_checksum_is_stored_only_of_data_that_were_seen() -> None:
    assert {name for name, origin in ORIGINS.items() if origin.check == "sha256"} == set(HERE)
    assert {name for name, origin in ORIGINS.items() if origin.check == "md5"} == {"ml-1m", "ml-20m"}


def test_a_name_that_is_none_is_refused_with_those_that_are() -> None:
    with pytest.raises(SettingsError, match="name='ml-2m'") as caught:
        source("ml-2m")
    assert "ml-1m" in caught.value.why


@pytest.mark.parametrize(
    ("name", "file", "content"),
    [("ml-100k", "u.data", "1\t2\t3\t4\n"), ("ml-100k", "x.inter", "user\titem\n1\t2\n"),
     ("citeulike-t", "users.dat", "1 2\n")],
)  # fmt: skip
def test_another_table_under_a_data_sets_name_is_an_error_that_names_both_checksums(
    tmp_path: Path, name: str, file: str, content: str
) -> None:
    (tmp_path / file).write_text(content)
    expected = rf"{name}: the table's SHA-256 is \w{{16}}\.\.\., not {ORIGINS[name].table[:16]}"
    with pytest.raises(DataError, match=expected) as caught:
        read(source(name, tmp_path / file), tmp_path)
    assert "dataset=file" in caught.value.fix
    assert (tmp_path / file).exists()  # the user's own file is never removed


@pytest.mark.parametrize("place", ["ml-1m", "ml-1m/original", "ml-1m/raw", "."])
def test_a_file_is_found_in_the_folders_where_people_keep_it(tmp_path: Path, place: str) -> None:
    (tmp_path / "data" / place).mkdir(parents=True, exist_ok=True)
    (tmp_path / "data" / place / "ratings.dat").write_bytes(RATINGS)
    assert find("ml-1m", tmp_path / "data", tmp_path) == (tmp_path / "data" / place / "ratings.dat",)


def test_a_file_that_two_data_sets_could_own_is_found_only_in_a_folder_of_the_name(tmp_path: Path) -> None:
    for file in ("users.dat", "train.txt", "test.txt", "interactions.tsv.gz"):
        (tmp_path / file).write_bytes(b"")
    assert all(find(name, tmp_path, tmp_path) is None for name in ("citeulike-a", "gowalla", "ml-100k"))


def test_the_publishers_file_is_taken_before_another_copy(tmp_path: Path) -> None:
    (tmp_path / "citeulike-t" / "original").mkdir(parents=True)
    (tmp_path / "citeulike-t" / "interactions.tsv.gz").write_bytes(b"")
    (tmp_path / "citeulike-t" / "original" / "users.dat").write_bytes(b"")
    assert find("citeulike-t", tmp_path, tmp_path) == (tmp_path / "citeulike-t" / "original" / "users.dat",)


def test_a_split_is_read_as_given_from_the_folder_of_the_name_or_from_a_path(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "gowalla"
    folder.mkdir(parents=True)
    (folder / "train.txt").write_bytes(LISTS)
    (folder / "test.txt").write_bytes(HELD_OUT)
    for one in (source("gowalla"), source("gowalla", folder)):
        table = read(one, tmp_path)
        assert table.part is not None
        assert table.part.tolist() == [0] * 8 + [2] * 2
        assert one.signature(tmp_path / "data", tmp_path) is not None


def test_a_valid_part_of_ones_own_beside_the_publishers_files_counts_and_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "gowalla"
    folder.mkdir(parents=True)
    (folder / "train.txt").write_bytes(LISTS)
    (folder / "test.txt").write_bytes(HELD_OUT)
    before = source("gowalla").signature(tmp_path / "data", tmp_path)
    (folder / "valid.txt").write_bytes(b"0 99\n")
    assert read(source("gowalla"), tmp_path).item.text().tolist().count("99") == 1
    assert source("gowalla").signature(tmp_path / "data", tmp_path) != before


def test_counts_that_are_not_those_published_are_told(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_bytes(RATINGS)
    said: list[str] = []
    source("ml-1m", tmp_path / "ratings.dat").table(tmp_path, tmp_path, said.append)
    assert said[-1] == (
        "warning: this copy of ml-1m has 3 users, 4 items and 12 interactions; published are 6,040, 3,706 and 1,000,209"
    )


def test_a_data_set_is_fetched_checked_by_its_publishers_sum_and_found_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = zipped(**{"ml-1m__ratings.dat": RATINGS, "ml-1m__README": b"not"})
    known(monkeypatch, "ml-1m", md5=hashlib.md5(archive).hexdigest())
    server.files["/ml-1m/ml-1m.zip"] = archive
    said: list[str] = []
    table = source("ml-1m").table(tmp_path / "data", tmp_path / "downloads", said.append)
    assert len(table) == len(RATINGS.splitlines())
    assert files(tmp_path) == ["ratings.dat"]
    assert "no redistribution" in said[0]
    assert "Harper and Konstan" in said[0]
    read(source("ml-1m"), tmp_path)
    assert len(server.asked) == 1


def test_bytes_that_are_not_those_of_the_publisher_are_refused_and_removed(server: Server, tmp_path: Path) -> None:
    server.files["/ml-1m/ml-1m.zip"] = zipped(**{"ml-1m__ratings.dat": RATINGS})
    with pytest.raises(DataError, match="the MD5 that its publisher states is c4d9eecfca2ab87c") as caught:
        read(source("ml-1m"), tmp_path)
    assert f"put ratings.dat into {tmp_path / 'data' / 'ml-1m'}" in caught.value.fix
    assert files(tmp_path) == []


def test_bytes_that_are_not_those_that_were_seen_are_refused_and_removed(server: Server, tmp_path: Path) -> None:
    server.files["/citeulike-a/users.dat"] = b"2 1 2\n"
    with pytest.raises(DataError, match=r"other bytes: the SHA-256 is 53211d82c14ff261"):
        read(source("citeulike-a"), tmp_path)
    assert files(tmp_path) == []


def test_the_sha_256_of_the_first_fetch_is_noted_where_nobody_knows_one_and_compared_at_the_next(
    server: Server, tmp_path: Path
) -> None:
    server.files |= {"/gowalla/train.txt": LISTS, "/gowalla/test.txt": HELD_OUT}
    read(source("gowalla"), tmp_path)
    folder = tmp_path / "downloads" / "gowalla"
    assert files(folder) == ["sha256.json", "test.txt", "train.txt"]
    assert set(recorded(folder)) == {"train.txt", "test.txt", "date"}
    (folder / "train.txt").unlink()
    server.files["/gowalla/train.txt"] = LISTS + b"3 1\n"
    with pytest.raises(DataError, match=r"other bytes: the SHA-256 of the first fetch \(in .*sha256.json\)"):
        read(source("gowalla"), tmp_path)
    server.files["/gowalla/train.txt"] = LISTS
    assert len(read(source("gowalla"), tmp_path)) == 10


def test_no_sha_256_is_noted_where_one_is_known(server: Server, tmp_path: Path) -> None:
    assert ORIGINS["ml-100k"].check == "sha256"
    with pytest.raises(DataError):
        read(source("ml-100k"), tmp_path)
    assert recorded(tmp_path / "downloads" / "ml-100k") == {}


def test_of_several_files_those_that_came_are_not_asked_for_again(server: Server, tmp_path: Path) -> None:
    server.files["/gowalla/train.txt"] = LISTS
    with pytest.raises(DataError, match=r"test.txt: HTTP error 404") as caught:
        read(source("gowalla"), tmp_path)
    assert "put train.txt and test.txt into" in caught.value.fix
    assert "dataset.path=FOLDER" in caught.value.fix
    server.files["/gowalla/test.txt"] = HELD_OUT
    assert len(read(source("gowalla"), tmp_path)) == 10
    assert [path for path, _ in server.asked].count("/gowalla/train.txt") == 1


def test_another_table_that_was_fetched_is_removed(server: Server, tmp_path: Path, monkeypatch: Any) -> None:
    known(monkeypatch, "ml-100k", md5=None, sha256=None)
    server.files["/ml-100k/ml-100k.zip"] = zipped(**{"ml-100k__u.data": b"1\t2\t3\t4\n"})
    with pytest.raises(DataError, match="the table's SHA-256"):
        read(source("ml-100k"), tmp_path)
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "because"),
    [
        (HTML, "a web page instead of the file"),
        (zipped(other=b"x"), "lacks ml-100k/u.data"),
        (b"PK\x03\x04 and no more", "damaged or of another kind"),
    ],
)
def test_what_is_no_archive_of_the_data_set_is_a_clear_error_and_leaves_nothing(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, because: str
) -> None:
    known(monkeypatch, "ml-100k", md5=None)
    server.files["/ml-100k/ml-100k.zip"] = content
    with pytest.raises(DataError, match=because):
        read(source("ml-100k"), tmp_path)
    assert files(tmp_path) == []


def test_no_source_names_all_three_and_the_place_to_put_the_file(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(source("ml-100k"), tmp_path)
    what = caught.value.what
    assert f"nothing under {tmp_path / 'data'}" in what
    assert f"{server.address}/ml-100k/ml-100k.zip: HTTP error 404" in what
    assert "package recbole==1.2.1: " in what
    assert f"put u.data into {tmp_path / 'data' / 'ml-100k'}" in caught.value.fix
    assert "dataset.path=FILE" in caught.value.fix
    assert files(tmp_path) == []


@needs_shared
def test_ml_100k_comes_out_of_the_package_where_no_server_is_reached(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inter = SHARED / "ml-100k" / "original" / "recbole" / "ml-100k" / "ml-100k.inter"
    about = "recbole-1.2.1.dist-info"
    (tmp_path / "recbole-1.2.1-py3-none-any.whl").write_bytes(
        zipped(
            **{
                "recbole__dataset_example__ml-100k__ml-100k.inter": inter.read_bytes(),
                f"{about}__METADATA": b"Metadata-Version: 2.1\nName: recbole\nVersion: 1.2.1\n",
                f"{about}__WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
                f"{about}__RECORD": b"",
            }
        )
    )
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert table_hash(read(source("ml-100k"), tmp_path)) == ORIGINS["ml-100k"].table
    assert files(tmp_path / "downloads") == ["ml-100k.inter"]


def test_a_data_set_in_a_tar_archive_needs_one_entry_and_no_code(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["/new.tar.gz"] = tar_of({"new/pairs.csv": b"user,item\na,x\nb,y\n"})
    remote = Remote(f"{server.address}/new.tar.gz", "pairs.csv", "new/pairs.csv")
    monkeypatch.setitem(ORIGINS, "new", Origin((remote,), "csv", 2, 2, 2, "CC0", "CC0", "nobody"))
    said: list[str] = []
    table = source("new").table(tmp_path, tmp_path / "downloads", said.append)
    assert table.item.text().tolist() == ["x", "y"]
    assert not any("warning" in line for line in said)


def test_a_copy_of_unknown_checksum_is_told_apart_by_path_size_and_time(tmp_path: Path) -> None:
    one = source("ml-1m")
    assert one.signature(tmp_path, tmp_path) is None
    (tmp_path / "ratings.dat").write_bytes(RATINGS)
    before = one.signature(tmp_path, tmp_path)
    assert before == one.signature(tmp_path, tmp_path)
    (tmp_path / "ratings.dat").write_bytes(RATINGS * 2)
    assert one.signature(tmp_path, tmp_path) != before
    assert source("citeulike-t").signature(tmp_path, tmp_path) == ORIGINS["citeulike-t"].table


def _fetch_slowly(url: str, folder: Path) -> None:
    real = named.download

    def slow(address: str, target: Path) -> None:
        real(address, target)
        time.sleep(0.5)

    named.download = slow  # type: ignore[assignment]
    remotes = tuple(replace(remote, url=f"{url}/{remote.file}") for remote in ORIGINS["gowalla"].remotes)
    ORIGINS["gowalla"] = replace(ORIGINS["gowalla"], remotes=remotes)
    read(source("gowalla"), folder)


def test_two_processes_fetch_a_data_set_once(server: Server, tmp_path: Path) -> None:
    server.files |= {"/train.txt": LISTS, "/test.txt": HELD_OUT}
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=_fetch_slowly, args=(server.address, tmp_path)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert sorted(path for path, _ in server.asked) == ["/test.txt", "/train.txt"]
    assert json.loads((tmp_path / "downloads" / "gowalla" / "sha256.json").read_text())["train.txt"]
