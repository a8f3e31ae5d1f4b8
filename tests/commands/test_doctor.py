"""`recdistill doctor`: what a bug report needs."""

import json

from recdistill import __version__, cli


def test_doctor_reports_versions_device_and_folders(tmp_path, capsys):
    assert cli.main(["doctor", "--json", "--outputs", str(tmp_path / "outputs")]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["recdistill"] == __version__
    assert {"torch", "python", "device", "cpus", "free memory", "config tree"} <= set(facts)
    assert facts["outputs can be written"] == "yes"


def test_doctor_prints_the_same_as_lines(tmp_path, capsys):
    assert cli.main(["doctor", "--outputs", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert f"recdistill               {__version__}" in out
    assert "outputs can be written" in out


def test_doctor_ends_with_1_where_outputs_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert cli.main(["doctor", "--outputs", str(tmp_path / "file/outputs")]) == 1
    out = capsys.readouterr().out
    assert "cannot write" in out
