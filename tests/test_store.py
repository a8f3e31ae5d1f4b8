from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recdistill import store
from recdistill.errors import CacheError

HOLD = """
import sys, time
from pathlib import Path
from recdistill.store import locked
with locked(Path(sys.argv[1]), "a thing", print):
    print("holding", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def holder(path: Path, seconds: float) -> subprocess.Popen[str]:
    """A second process that holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path), str(seconds)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "holding\n"
    return process


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def test_an_atomic_write_appears_whole_in_a_folder_made_for_it(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file"
    with store.atomic(target) as temporary:
        temporary.write_text("content")
        assert not target.exists()
    assert target.read_text() == "content"
    assert files(tmp_path) == ["file", "new"]


def test_a_failed_atomic_write_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stopped"), store.atomic(tmp_path / "file") as temporary:
        temporary.write_text("half")
        raise RuntimeError("stopped")
    assert files(tmp_path) == []


def test_a_failed_atomic_write_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(KeyboardInterrupt), store.atomic(tmp_path / "file") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert (tmp_path / "file").read_text() == "old"
    assert files(tmp_path) == ["file"]


def test_writing_below_a_regular_file_is_a_cache_error_that_names_the_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    target = tmp_path / "file" / "results.json"
    for write in (
        lambda: store.write_json(target, {}),
        lambda: store.write_csv(target, [{"a": 1}]),
        lambda: store.ensure_folder(target),
    ):
        with pytest.raises(CacheError, match=r"cannot write .*results\.json") as caught:
            write()
        assert "paths.outputs=FOLDER" in caught.value.fix
    with pytest.raises(CacheError, match="cannot write"), store.locked(target, "a thing", print):
        pass


def test_a_key_does_not_depend_on_the_order_of_keys() -> None:
    one = store.key_of({"a": 1, "b": {"c": [1, 2], "d": None}})
    assert one == store.key_of({"b": {"d": None, "c": [1, 2]}, "a": 1})
    assert len(one) == 16
    assert int(one, 16) >= 0


@pytest.mark.parametrize("other", [{"a": 2}, {"b": 1}, {"a": "1"}, {"a": [1]}, {"a": 1.5}, {}])
def test_different_descriptions_have_different_keys(other: dict[str, object]) -> None:
    assert store.key_of({"a": 1}) != store.key_of(other)


def test_lists_keep_their_order_in_a_key() -> None:
    assert store.key_of([1, 2]) != store.key_of([2, 1])


def test_a_value_that_does_not_exist_is_null() -> None:
    value = {"a": float("nan"), "b": [float("inf"), 1.5, (float("-inf"), "nan")], 3: {"c": None, "d": True}}
    assert store.finite(value) == {"a": None, "b": [None, 1.5, [None, "nan"]], "3": {"c": None, "d": True}}


def test_written_json_is_strict_and_reads_back(tmp_path: Path) -> None:
    store.write_json(tmp_path / "a.json", {"x": float("nan"), "y": 0.1})
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text, parse_constant=lambda word: pytest.fail(word)) == {"x": None, "y": 0.1}
    assert store.read_json(tmp_path / "a.json") == {"x": None, "y": 0.1}


@pytest.mark.parametrize("content", [None, b"", b'{"a": ', b"\xff\xfe"])
def test_json_that_cannot_be_read_is_a_cache_error_that_names_the_file(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "manifest.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CacheError, match=r"cannot read .*manifest\.json") as caught:
        store.read_json(path)
    assert str(tmp_path) in caught.value.fix


def test_csv_has_the_union_of_the_rows_columns(tmp_path: Path) -> None:
    store.write_csv(tmp_path / "a.csv", [{"x": 1}, {"y": "a,b", "x": 2}])
    assert (tmp_path / "a.csv").read_text().splitlines() == ["x,y", "1,", '2,"a,b"']


def test_a_second_process_waits_with_a_message_until_the_first_is_done(tmp_path: Path) -> None:
    path = tmp_path / "thing"
    first = holder(path, 0.5)
    said: list[str] = []
    with store.locked(path, "soft labels", said.append):
        assert first.wait(timeout=10) == 0  # it let go before it ended, and we only got in after that
    assert said == [f"waiting for {said[0].split('waiting for ')[1]}"]
    assert f"process {first.pid} on " in said[0]
    assert "soft labels" in said[0]


def test_a_note_that_cannot_be_read_or_written_does_not_stop_anybody(tmp_path: Path) -> None:
    path = tmp_path / "thing"
    first = holder(path, 0.5)
    (tmp_path / ".thing.holder").unlink()
    (tmp_path / ".thing.holder").mkdir()
    said: list[str] = []
    with store.locked(path, "soft labels", said.append):
        first.wait(timeout=10)
    assert said == ["waiting for another process, which is building soft labels"]


def test_a_killed_holder_does_not_block(tmp_path: Path) -> None:
    path = tmp_path / "thing"
    first = holder(path, 60)
    first.kill()
    first.wait()
    said: list[str] = []
    begun = time.monotonic()
    with store.locked(path, "a thing", said.append):
        pass
    assert time.monotonic() - begun < 5
    assert said == []


def test_a_free_lock_says_nothing_and_is_free_again_after_a_failure(tmp_path: Path) -> None:
    said: list[str] = []
    for _ in range(2):
        with pytest.raises(ValueError, match="inside"), store.locked(tmp_path / "thing", "it", said.append):
            raise ValueError("inside")
    assert said == []
    assert not any(name.endswith(".holder") for name in files(tmp_path))


def test_the_size_of_a_folder_is_that_of_all_files_below(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "x").write_bytes(b"12")
    (tmp_path / "a" / "b" / "y").write_bytes(b"345")
    assert store.folder_size(tmp_path) == 5


COME_AND_GO = """
import sys
from pathlib import Path
while True:
    for n in range(200):
        path = Path(sys.argv[1]) / f"{n % 5}.tmp"
        path.touch()
        path.unlink()
"""


def test_a_folder_is_measured_while_files_come_and_go(tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(b"12345")
    other = subprocess.Popen([sys.executable, "-c", COME_AND_GO, str(tmp_path)])
    try:
        assert {store.folder_size(tmp_path) for _ in range(3000)} == {5}
    finally:
        other.kill()
        other.wait()


def test_the_code_of_plugins_is_found_in_mappings_and_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_for_keys.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    config = {"a": {"_target_": "recdistill.models.mf.MF"}, "b": {"parts": [{"_target_": "mine_for_keys.Part"}]}}
    assert store.plugin_code(config["a"]) == {}
    assert store.plugin_code(config) == {
        "plugin_code": {"mine_for_keys.Part": store.file_hash(tmp_path / "mine_for_keys.py")}
    }
