import json
from pathlib import Path

import pytest

from recdistill.report.compare import compare
from recdistill.report.comparison_formats import as_rows
from recdistill.report.runs import find_runs, with_metrics
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


def test_scratch_and_teachers_of_other_settings_are_rows_of_their_own_with_what_differs(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path / f"a{seed}", seed=seed, decay=0.02, scratch=0.2)
        write_run(tmp_path / f"b{seed}", seed=seed, decay=0.05, scratch=0.4, method="unkd", teacher_seed=1)
    (comparison,) = compare(find_runs([tmp_path])[0], METRICS)
    rows = [(row.method, row.settings, row.n, row.cells["test/ndcg@20"].mean) for row in comparison.rows[:5]]
    assert rows == [
        ("(teacher)", "teacher.seed=0", 1, 0.5),
        ("(teacher)", "teacher.seed=1", 1, 0.5),
        ("(scratch)", "scratch.trainer.weight_decay=0.02", 2, pytest.approx(0.2)),
        ("(scratch)", "scratch.trainer.weight_decay=0.05", 2, pytest.approx(0.4)),
        ("(mostpop)", "", 1, 0.1),
    ]


def test_settings_of_the_reference_do_not_tell_method_rows_apart(tmp_path: Path) -> None:
    write_run(tmp_path / "a", seed=0, decay=0.02)
    write_run(tmp_path / "b", seed=1, decay=0.05)
    (comparison,) = compare(find_runs([tmp_path])[0], METRICS)
    assert [(row.n, row.settings) for row in comparison.rows if row.method == "rrd"] == [(2, "")]


def test_of_a_run_that_was_repeated_the_newest_counts_once(tmp_path: Path) -> None:
    write_run(tmp_path / "z", ndcg=0.1, time="2026-01-01T00:00:00+0000")
    write_run(tmp_path / "a", ndcg=0.3, time="2026-01-02T00:00:00+0000")
    (comparison,) = compare(find_runs([tmp_path])[0], METRICS)
    row = comparison.rows[-1]
    assert (row.n, row.cells["test/ndcg@20"].mean, row.cells["test/ndcg@20"].sd) == (1, 0.3, None)


def test_runs_of_other_cutoffs_are_another_row(tmp_path: Path) -> None:
    write_run(tmp_path / "a", seed=0)
    write_run(tmp_path / "b", seed=1, cutoffs=[20, 50])
    (comparison,) = compare(find_runs([tmp_path])[0], METRICS)
    assert {row.settings for row in comparison.rows[-2:]} == {
        "evaluation.cutoffs=[10, 20]",
        "evaluation.cutoffs=[20, 50]",
    }
    assert [row.role for row in comparison.rows[:-2]] == ["teacher", "teacher", "scratch", "scratch", "mostpop"]


def test_a_run_that_did_not_read_test_is_listed_and_takes_nothing_from_the_others(tmp_path: Path) -> None:
    write_run(tmp_path / "a", seed=0, time="2026-01-01")
    write_run(tmp_path / "b", seed=1, test=False, time="2026-01-02")
    runs, without = with_metrics(find_runs([tmp_path])[0], METRICS)
    assert [(one.folder.name, one.text) for one in without] == [("b", "test was not read")]
    (comparison,) = compare(runs, METRICS)
    assert [(row.method, row.n, row.cells["test/ndcg@20"].mean) for row in comparison.rows] == [
        ("(teacher)", 1, 0.5),
        ("(scratch)", 1, 0.2),
        ("(mostpop)", 1, 0.1),
        ("rrd", 1, 0.3),
    ]
    everything = compare(find_runs([tmp_path])[0], ["valid/ndcg@20", "test/ndcg@20"])[0].rows
    assert everything[0].cells["test/ndcg@20"].mean == 0.5  # the later run read no test of the same teacher


def test_cache_is_left_out_only_below_the_given_folder(tmp_path: Path) -> None:
    write_run(tmp_path / "cache" / "outputs" / "runs" / "a")
    write_run(tmp_path / "cache" / "outputs" / "cache" / "b")
    assert [run.folder.name for run in find_runs([tmp_path / "cache" / "outputs"])[0]] == ["a"]


@pytest.mark.parametrize("file", ["status.json", "results.json"])
@pytest.mark.parametrize("text", ["{}", "[]", "3", "null", '{"status": 3}', '{"schema_version": 1, "models": {}}'])
def test_json_of_another_shape_is_unreadable_and_never_a_traceback(tmp_path: Path, file: str, text: str) -> None:
    (write_run(tmp_path / "a") / file).write_text(text)
    runs, (one,) = find_runs([tmp_path])
    assert (runs, one.state) == ([], "unreadable")


def test_a_row_with_fewer_seeds_than_the_others_is_marked_and_what_it_lacks_is_said(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path / f"a{seed}", seed=seed)
        if seed != 1:
            write_run(tmp_path / f"b{seed}", seed=seed, method="unkd")
    (comparison,) = compare(find_runs([tmp_path])[0], METRICS)
    assert {row.method: row.marks for row in comparison.rows} == {
        "(teacher)": "",
        "(scratch)": "",
        "(mostpop)": "",
        "rrd": "",
        "unkd": "*",
    }
    assert comparison.notes == ["* unequal replicates (seed): unkd lacks seed=1"]


def write_ledger(study: Path, trials: dict[str, int]) -> None:
    rows = [
        {"phase": "trial", "dataset": "toy", "method": method, "command": f"{method} {number}", "value": 0.1}
        for method, count in trials.items()
        for number in range(count)
    ]
    text = "\n".join(json.dumps(row) for row in [*rows, rows[0], {"phase": "final", "command": "x", "value": 1}])
    (study / "ledger.jsonl").write_text(text + '\n{"phase": "tri')


def test_a_run_of_a_study_knows_from_the_ledger_how_many_settings_were_tried(tmp_path: Path) -> None:
    for method in ("scratch", "rrd"):
        write_run(tmp_path / "s" / "final" / "toy" / method / "seed-0", method={"scratch": "none"}.get(method, method))
    write_ledger(tmp_path / "s", {"scratch": 8, "rrd": 8})
    (comparison,) = compare(find_runs([tmp_path])[0], METRICS)
    assert {row.method: row.trials for row in comparison.rows} == {
        "(teacher)": None,
        "(scratch)": 8,
        "(mostpop)": None,
        "none": 8,
        "rrd": 8,
    }
    assert [row.marks for row in comparison.rows] == [""] * 5
    assert comparison.notes == []


def test_unequal_and_unknown_tuning_budgets_are_marked(tmp_path: Path) -> None:
    for method in ("scratch", "rrd"):
        write_run(tmp_path / "s" / "final" / "toy" / method / "seed-0", method={"scratch": "none"}.get(method, method))
    write_ledger(tmp_path / "s", {"scratch": 8, "rrd": 3})
    write_run(tmp_path / "runs" / "a", method="unkd")
    (comparison,) = compare(find_runs([tmp_path / "s", tmp_path / "runs"])[0], METRICS)
    assert {row.method: (row.trials, row.marks) for row in comparison.rows[3:]} == {
        "none": (8, "†"),
        "rrd": (3, "†"),
        "unkd": (None, "†"),
    }
    assert "† unequal tuning budgets, in trials:" in comparison.notes[0]
    assert "rrd 3" in comparison.notes[0]
    assert "unkd unknown" in comparison.notes[0]


def test_a_metric_of_a_group_is_not_averaged_over_runs_of_another_number_of_groups(tmp_path: Path) -> None:
    for groups in (2, 3):
        run = write_run(tmp_path / str(groups), seed=groups, groups=groups)
        results = json.loads((run / "results.json").read_text())
        results["models"]["student"]["metrics"]["test/recall@20/group=0"] = 0.5
        (run / "results.json").write_text(json.dumps(results))
    runs, _ = find_runs([tmp_path])
    assert len(compare(runs, METRICS)) == 1
    first, second = compare(runs, ["test/recall@20/group=0"])
    assert "evaluation.groups=2" in first.title
    assert "evaluation.groups=3" in second.title


def test_what_other_metrics_mean_does_not_tell_runs_apart(tmp_path: Path) -> None:
    write_run(tmp_path / "a", seed=0)
    run = write_run(tmp_path / "b", seed=1)
    results = json.loads((run / "results.json").read_text())
    results["definitions"]["arp"] = {"formula": "of a later version"}
    (run / "results.json").write_text(json.dumps(results))
    (comparison,) = compare(find_runs([tmp_path])[0], METRICS)
    assert comparison.rows[-1].n == 2


def test_a_mean_that_lacks_a_replicate_says_so(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path / f"{seed}", seed=seed, gap=0.9 if seed else None)
    (comparison,) = compare(find_runs([tmp_path])[0], METRICS)
    assert "mean of the replicates that have the value: gap closed of rrd, 2 of 3" in comparison.notes
    write_run(tmp_path / "again", seed=0, gap=0.9, time="later")
    (comparison,) = compare(find_runs([tmp_path])[0], METRICS)
    assert not comparison.notes
