from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from contracts import toys
from recdistill.dataset.popularity import popularity_groups
from recdistill.errors import CacheError, ConfigError
from recdistill.models.base import Recommender
from recdistill.models.mostpop import MostPop
from recdistill.runtime import generator
from recdistill.soft_labels import cache
from recdistill.soft_labels.cache import soft_labels
from recdistill.soft_labels.extract import Layout
from recdistill.types import SoftLabels

FIELDS = {"item.npy", "score.npy", "length.npy", "group_item.npy", "group_length.npy"}
VECTORS = {"user_vectors.npy", "item_vectors.npy"}


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of few users."""
    monkeypatch.setattr(cache, "SHARD_BYTES", 500)


class Store:
    """A store of soft labels of the toy teacher, and what was asked for on the way."""

    def __init__(self, folder: Path, model: Callable[[], Recommender] = toys.model, transposed: bool = False) -> None:
        self.folder, self.model, self.loaded, self.lines = folder, model, 0, []
        self.transposed = transposed

    def open(self) -> SoftLabels:
        def load() -> Recommender:
            self.loaded += 1
            return self.model()

        popularity = toys.interactions().popularity()
        group = torch.where(popularity > 0, popularity_groups(popularity, 3), -1)
        layout, data = Layout(toys.N_ITEMS, 12, group, 5), toys.interactions()
        if self.transposed:
            layout, data = Layout(toys.N_USERS, 7), data.transposed()
        return soft_labels(
            self.folder, teacher="toy", epoch=3, key="key", layout=layout, interactions=data, about={},
            device=torch.device("cpu"), model=load, say=self.lines.append, transposed=self.transposed,
        )  # fmt: skip

    def content(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir() if path.name != "manifest.json"}

    def manifest(self) -> dict[str, object]:
        return json.loads((self.folder / "manifest.json").read_text())


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store")
    made.open()
    return made


def test_what_is_opened_is_what_is_extracted(tmp_path: Path) -> None:
    labels = Store(tmp_path / "store").open()
    expected = toys.labels(toys.model())
    assert labels.item.equal(expected.item)
    assert labels.length.equal(expected.length)
    torch.testing.assert_close(labels.score, expected.score, rtol=1e-6, atol=1e-6)
    assert labels.user_vectors.equal(expected.user_vectors)
    assert labels.item_vectors.equal(expected.item_vectors)
    assert (labels.teacher, labels.epoch, labels.key) == ("toy", 3, "key")


def test_a_store_is_one_array_per_field_and_a_manifest(store: Store) -> None:
    assert {path.name for path in store.folder.iterdir()} == FIELDS | VECTORS | {"manifest.json"}
    assert len(store.manifest()["shards"]) > 2
    for name in FIELDS | VECTORS:
        assert np.load(store.folder / name, allow_pickle=False).shape[0] in (toys.N_USERS, toys.N_ITEMS)


def test_a_second_opening_loads_no_teacher_and_touches_no_file(store: Store) -> None:
    stamps = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in store.folder.iterdir()}
    store.open()
    assert store.loaded == 1
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in store.folder.iterdir()} == stamps


def test_what_a_reader_does_to_the_arrays_never_reaches_the_disk(store: Store) -> None:
    before = store.content()
    labels = store.open()
    labels.item.fill_(7)
    labels.user_vectors.fill_(7)
    assert store.content() == before
    assert store.open().item.ne(7).any()


def test_shards_missing_from_the_manifest_are_redone_and_no_others(store: Store) -> None:
    before, manifest = store.content(), store.manifest()
    total = len(manifest["shards"])
    for number in ("1", "2"):
        del manifest["shards"][number]
    (store.folder / "manifest.json").write_text(json.dumps(manifest))
    store.open()
    assert store.lines[-1] == f"extracting soft labels: 2 of {total} shards (continued)"
    assert store.content() == before


@pytest.mark.parametrize("name", sorted(FIELDS | VECTORS))
@pytest.mark.parametrize("harm", ["altered", "cut short", "gone", "header"])
def test_a_damaged_file_is_found_and_redone(store: Store, name: str, harm: str) -> None:
    before, path = store.content(), store.folder / name
    content = bytearray(before[name])
    if harm == "gone":
        path.unlink()
    else:
        if harm == "altered":
            content[-1 - len(content) // 8] ^= 255
        elif harm == "header":
            content[3] ^= 255
        else:
            del content[-len(content) // 3 :]
        path.write_bytes(content)
    labels = store.open()
    assert store.loaded == 2 or harm == "header"  # a header is put right without the teacher
    assert store.content() == before
    assert labels.item.equal(toys.labels(toys.model()).item)


def test_a_teacher_without_vectors_has_none_in_its_store(tmp_path: Path) -> None:
    def mostpop() -> MostPop:
        model = MostPop()
        model.prepare(toys.interactions(), generator(0, "model"))
        return model

    store = Store(tmp_path / "store", mostpop)
    labels = store.open()
    assert labels.user_vectors is None
    assert labels.item_vectors is None
    assert {path.name for path in store.folder.iterdir()} == FIELDS | {"manifest.json"}
    store.open()
    assert store.loaded == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("table", ["user_table", "item_table"])
def test_scores_that_are_not_finite_are_refused(tmp_path: Path, table: str, value: float) -> None:
    def broken() -> Recommender:
        model = toys.model()
        with torch.no_grad():
            getattr(model, table)[5, 0] = value
        return model

    with pytest.raises(CacheError, match="NaN or infinite"):
        Store(tmp_path / "store", broken).open()
    mended = Store(tmp_path / "store")
    assert mended.open().item.equal(toys.labels(toys.model()).item)  # nothing of the refused ones is left


def test_a_score_that_is_no_number_is_refused_where_there_are_no_vectors_too(tmp_path: Path) -> None:
    def broken() -> Recommender:
        model = MostPop()
        model.prepare(toys.interactions(), generator(0, "model"))
        model.get_buffer("popularity")[5] = float("nan")
        return model

    with pytest.raises(CacheError, match="score hold NaN or infinite"):
        Store(tmp_path / "store", broken).open()


PROGRAM = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import torch
torch.set_num_threads(1)
sys.path.insert(0, str(Path(sys.argv[2]) / "soft_labels"))
from test_cache import Store, cache
cache.SHARD_BYTES = 500
real, done = cache.extract, []
def slowly(*arguments):
    if len(done) == 3:
        print("ready", flush=True)
        time.sleep(60)
    done.append(1)
    return real(*arguments)
cache.extract = slowly
Store(Path(sys.argv[1])).open()
"""


def test_an_extraction_that_was_killed_continues(store: Store, tmp_path: Path) -> None:
    killed = Store(tmp_path / "killed")
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(killed.folder), str(Path(__file__).parents[1])],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert set(killed.manifest()["shards"]) == {"0", "1", "2"}
    total = len(store.manifest()["shards"])
    killed.open()
    assert killed.lines == [f"extracting soft labels: {total - 3} of {total} shards (continued)"]
    assert killed.content() == store.content()
    assert killed.manifest() == store.manifest()


def test_users_of_items_are_stored_in_shards_of_items_without_a_second_copy_of_the_vectors(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", transposed=True)
    found, data = store.open(), toys.interactions()
    score = toys.model().scorer().all_scores(torch.arange(toys.N_USERS)).detach()
    for item in range(toys.N_ITEMS):
        have = set(data.user[data.item == item].tolist())
        others = [user for user in range(toys.N_USERS) if user not in have]
        expected = sorted(others, key=lambda user: (-float(score[user, item]), user))[:7]
        n = int(found.length[item])
        assert found.item[item, :n].tolist() == expected
        assert found.score[item, :n].tolist() == pytest.approx(score[expected, item].tolist(), rel=1e-5)
    assert found.user_vectors is None
    assert set(store.content()) >= {"item.npy", "length.npy", "score.npy"}
    assert not VECTORS & set(store.content())
    assert len(store.manifest()["shards"]) > 1
    again = Store(tmp_path / "store", transposed=True)
    again.open()
    assert again.loaded == 0


def test_users_of_items_cannot_be_had_from_a_teacher_without_vectors(tmp_path: Path) -> None:
    def mostpop() -> Recommender:
        model = MostPop()
        model.prepare(toys.interactions(), generator(0, "model"))
        return model

    with pytest.raises(ConfigError, match="cannot score the users of an item"):
        Store(tmp_path / "store", mostpop, transposed=True).open()
