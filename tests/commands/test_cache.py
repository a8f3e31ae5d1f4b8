"""`recdistill cache ls` over what a real run stored."""

import json
import shutil
import subprocess
import sys

import pytest
from filelock import FileLock

from recdistill import cli
from recdistill.commands import cache
from recdistill.store import locked


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache") / "outputs"
    words = ["debug=smoke", "device=cpu", "teacher.dim=16", f"paths.outputs={folder}"]
    assert cli.main(["train", *words]) == 0
    return folder


def test_every_stored_thing_is_listed_with_what_it_is(outputs, capsys):
    assert cli.main(["cache", "ls", "--json", "--outputs", str(outputs)]) == 0
    entries = json.loads(capsys.readouterr().out)
    found = {entry["kind"]: entry for entry in entries}
    assert sorted(entry["kind"] for entry in entries) == ["datasets", "scratch", "soft_labels", "teachers"]
    assert all(entry["complete"] and entry["bytes"] > 0 and len(entry["key"]) == 16 for entry in entries)
    assert found["datasets"]["what"] == "synthetic, 60 x 80"
    assert found["teachers"]["what"].startswith("MF 16 seed 0")
    assert found["soft_labels"]["what"].startswith("of teacher ")


def test_the_table_shows_the_same(outputs, capsys):
    assert cli.main(["cache", "ls", "--outputs", str(outputs)]) == 0
    out = capsys.readouterr().out
    for word in ("datasets", "teachers", "scratch", "soft_labels", "MB", "synthetic"):
        assert word in out


def test_an_unfinished_entry_is_named_as_such(outputs, capsys):
    (outputs / "cache/teachers/0123456789abcdef").mkdir()
    assert cli.main(["cache", "ls", "--json", "--outputs", str(outputs)]) == 0
    (entry,) = [e for e in json.loads(capsys.readouterr().out) if e["key"] == "0123456789abcdef"]
    assert (entry["what"], entry["complete"]) == ("unfinished", False)


def test_a_damaged_entry_does_not_hide_the_others(outputs, capsys):
    broken = outputs / "cache/teachers/fedcba9876543210"
    broken.mkdir()
    (broken / "model.json").write_text('{"model": {"_tar')
    assert cli.main(["cache", "ls", "--json", "--outputs", str(outputs)]) == 0
    entries = json.loads(capsys.readouterr().out)
    (entry,) = [e for e in entries if e["key"] == broken.name]
    assert (entry["what"], entry["complete"]) == ("damaged", False)
    assert len(entries) >= 5


def test_an_empty_folder_is_said_to_be_empty(tmp_path, capsys):
    assert cli.main(["cache", "ls", "--outputs", str(tmp_path)]) == 0
    assert "nothing is stored" in capsys.readouterr().out
    assert cli.main(["cache", "ls", "--json", "--outputs", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out) == []


def keys_by_kind(outputs, capsys, *words):
    code = cli.main(["cache", *words, "--json", "--outputs", str(outputs)])
    entries = json.loads(capsys.readouterr().out)
    return code, {entry["kind"]: entry for entry in entries}


@pytest.fixture
def own(tmp_path, capsys):
    words = ["debug=smoke", "device=cpu", "teacher.dim=16", f"paths.outputs={tmp_path / 'outputs'}"]
    assert cli.main(["train", *words]) == 0
    capsys.readouterr()
    return tmp_path / "outputs"


@pytest.mark.parametrize("place", ["datasets/*/train.npy", "teachers/*/model.safetensors", "soft_labels/*/item.npy"])
def test_verify_names_a_file_that_changed(own, capsys, place):
    assert keys_by_kind(own, capsys, "verify")[0] == 0
    (path,) = (own / "cache").glob(place)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    code, entries = keys_by_kind(own, capsys, "verify")
    assert code == 1
    assert entries[path.parts[-3]]["damage"]
    assert sum(bool(entry["damage"]) for entry in entries.values()) == 1


def test_prune_is_a_dry_run_unless_told_otherwise_and_keeps_what_is_used(own, capsys):
    entries = keys_by_kind(own, capsys, "ls")[1]
    assert all(len(entry["used_by"]) == 1 for entry in entries.values())
    assert keys_by_kind(own, capsys, "prune", "--unused", "--yes")[1] == {}
    assert len(keys_by_kind(own, capsys, "prune")[1]) == 4
    assert len(keys_by_kind(own, capsys, "ls")[1]) == 4
    assert keys_by_kind(own, capsys, "prune", "--older", "30d", "--yes")[1] == {}
    assert len(keys_by_kind(own, capsys, "prune", "--yes")[1]) == 4
    assert keys_by_kind(own, capsys, "ls")[1] == {}


def test_prune_leaves_what_a_run_at_work_stands_on(own, capsys):
    (run,) = (path.parent for path in own.glob("runs/*/status.json"))
    code = (
        "import sys, pathlib, time; from recdistill.store import exclusive\n"
        "with exclusive(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(run)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        assert keys_by_kind(own, capsys, "prune", "--yes")[1] == {}
    finally:
        holder.kill()
        holder.wait()
    assert len(keys_by_kind(own, capsys, "prune", "--yes")[1]) == 4


def test_prune_knows_a_run_that_lies_outside_the_outputs_folder(tmp_path, capsys):
    outputs, run = tmp_path / "outputs", tmp_path / "elsewhere" / "run"
    assert cli.main(["train", "debug=smoke", "device=cpu", f"paths.outputs={outputs}", f"hydra.run.dir={run}"]) == 0
    capsys.readouterr()
    entries = keys_by_kind(outputs, capsys, "ls")[1]
    assert len(entries) == 4
    assert all(entry["used_by"] == [str(run)] for entry in entries.values())
    assert keys_by_kind(outputs, capsys, "prune", "--unused", "--yes")[1] == {}
    shutil.rmtree(run)
    assert len(keys_by_kind(outputs, capsys, "prune", "--unused", "--yes")[1]) == 4


@pytest.fixture
def after_listing(monkeypatch):
    """Let something happen between the listing of the entries and their removal."""

    def put(happens):
        listed = cache._prunable

        def then(*args, **kwargs):
            entries = listed(*args, **kwargs)
            happens()
            return entries

        monkeypatch.setattr(cache, "_prunable", then)

    return put


def test_prune_leaves_what_a_run_took_up_since_the_entries_were_listed(own, capsys, after_listing):
    (run,) = (path.parent for path in own.glob("runs/*/status.json"))
    lock = FileLock(run / ".lock")
    after_listing(lock.acquire)
    try:
        assert keys_by_kind(own, capsys, "prune", "--yes")[1] == {}
    finally:
        lock.release()
    assert len(keys_by_kind(own, capsys, "ls")[1]) == 4


def test_prune_of_unused_entries_leaves_what_came_into_use_since(own, capsys, after_listing):
    (uses,) = own.glob("runs/*/uses.json")
    keys = uses.read_text()
    uses.write_text("[]")
    after_listing(lambda: uses.write_text(keys))
    assert keys_by_kind(own, capsys, "prune", "--unused", "--yes")[1] == {}
    assert len(keys_by_kind(own, capsys, "ls")[1]) == 4


def test_prune_leaves_an_entry_that_is_being_built(own, capsys):
    (dataset,) = own.glob("cache/datasets/*/manifest.json")
    with locked(dataset.parent, "the data set", print):
        assert "datasets" not in keys_by_kind(own, capsys, "prune", "--yes")[1]
    assert dataset.is_file()


def test_prune_waits_while_a_run_at_work_has_not_said_what_it_stands_on(own, capsys):
    (uses,) = own.glob("runs/*/uses.json")
    uses.unlink()
    program = "import sys, pathlib\nfrom recdistill.store import exclusive\n"
    program += "with exclusive(pathlib.Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(uses.parent)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        assert cli.main(["cache", "prune", "--yes", "--outputs", str(own)]) == 0
        assert "nothing is to remove" in capsys.readouterr().out
        holder.stdin.close()
    assert cli.main(["cache", "prune", "--yes", "--outputs", str(own)]) == 0
    assert "entries" in capsys.readouterr().out
    assert not list(own.glob("cache/datasets/*/manifest.json"))


def test_an_age_that_is_none_is_refused(own, capsys):
    assert cli.main(["cache", "prune", "--older", "soon", "--outputs", str(own)]) == 2
    assert "30d" in capsys.readouterr().err
