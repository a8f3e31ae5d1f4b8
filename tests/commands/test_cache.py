"""`recdistill cache ls` over what a real run stored."""

import json

import pytest

from recdistill import cli


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
    assert found["soft_labels"]["what"] == "1 shards"


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
