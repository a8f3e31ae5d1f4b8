import json
from pathlib import Path

import pytest

from recdistill.report.compare import as_rows, compare, find_runs
from toy_runs import write_run

METRICS = ["test/ndcg@20", "test/poplift@20"]


def test_runs_that_differ_in_the_seed_only_are_one_row_of_mean_and_deviation(tmp_path: Path) -> None:
    for seed, ndcg in enumerate([0.30, 0.32, 0.34]):
        write_run(tmp_path / str(seed), seed=seed, ndcg=ndcg)
    runs, unfinished = find_runs([tmp_path])
    (comparison,) = compare(runs, METRICS)
    row = comparison.rows[-1]
    assert (row.method, row.n, unfinished) == ("rrd", 3, [])
    assert row.cells["test/ndcg@20"].mean == pytest.approx(0.32)
    assert row.cells["test/ndcg@20"].sd == pytest.approx(0.02)
    assert row.cells["gap closed"].mean == pytest.approx(0.5)


def test_references_come_first_and_a_shared_teacher_counts_once(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path / str(seed), seed=seed)
    (comparison,) = compare(find_runs([tmp_path])[0], METRICS)
    assert [(row.method, row.n) for row in comparison.rows] == [
        ("(teacher)", 1),
        ("(scratch)", 3),
        ("(mostpop)", 1),
        ("rrd", 3),
    ]


def test_rows_of_one_method_are_told_apart_by_the_setting_that_differs(tmp_path: Path) -> None:
    write_run(tmp_path / "a", weight=0.1)
    write_run(tmp_path / "b", weight=0.3, ndcg=0.4)
    (comparison,) = compare(find_runs([tmp_path])[0], METRICS)
    assert [row.settings for row in comparison.rows[-2:]] == ["distill.weight=0.3", "distill.weight=0.1"]  # best first


def test_runs_of_another_split_stand_apart_with_the_field_that_differs(tmp_path: Path) -> None:
    write_run(tmp_path / "a", fingerprint="f0", split=0)
    write_run(tmp_path / "b", fingerprint="f1", split=1)
    first, second = compare(find_runs([tmp_path])[0], METRICS)
    assert "dataset.split.seed=0" in first.title
    assert "dataset.split.seed=1" in second.title


def test_runs_of_other_definitions_stand_apart(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", ideal="k")
    first, second = compare(find_runs([tmp_path])[0], METRICS)
    assert "definitions.ndcg.ideal=min(k, relevant)" in first.title
    assert "definitions.ndcg.ideal=k" in second.title


def test_splits_can_be_the_replicates(tmp_path: Path) -> None:
    for split in range(4):
        write_run(tmp_path / str(split), fingerprint=f"f{split}", split=split)
    (comparison,) = compare(find_runs([tmp_path])[0], METRICS, over=["dataset.split.seed"])
    assert comparison.rows[-1].n == 4


def test_a_value_that_does_not_exist_is_a_dash_and_not_zero(tmp_path: Path) -> None:
    write_run(tmp_path / "a", ndcg=None, gap=None)
    (comparison,) = compare(find_runs([tmp_path])[0], METRICS)
    assert str(comparison.rows[-1].cells["test/ndcg@20"]) == "-"
    columns, rows = as_rows(comparison)
    assert rows[-1][columns.index("test/ndcg@20")] == "-"


def test_failed_running_unreadable_and_foreign_runs_are_listed_with_the_reason(tmp_path: Path) -> None:
    write_run(tmp_path / "good")
    write_run(tmp_path / "new", schema_version=99)
    (write_run(tmp_path / "torn") / "results.json").write_text('{"schema_ver')
    for name, status in (
        ("failed", {"status": "failed", "error": "TrainingError: nan\nWhy: x"}),
        ("on", {"status": "running"}),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "status.json").write_text(json.dumps(status))
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "status.json").write_text("")
    runs, unfinished = find_runs([tmp_path])
    assert [run.folder.name for run in runs] == ["good"]
    found = {one.folder.name: one for one in unfinished}
    assert found["failed"].text == "TrainingError: nan"
    assert found["on"].state == "running"
    assert found["torn"].state == found["half"].state == "unreadable"
    assert "99" in found["new"].text
