from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from recdistill.cli import main
from recdistill.evaluation.accuracy import METRICS
from recdistill.store import read_json, write_json
from toy_runs import write_run

WORDS = [
    "train", "dataset=synthetic", "debug=smoke", "device=cpu", "evaluation.stored=30",
    "trainer.epochs=20", "teacher.trainer.epochs=40",
]  # fmt: skip
WITHOUT_TORCH = """
import json, sys
from pathlib import Path
sys.modules["torch"] = None  # whoever imports it now gets an ImportError
from recdistill.evaluation.stored import StoredRun, remade
folder = Path(sys.argv[1])
run = StoredRun(folder, json.loads((folder / "results.json").read_text()))
models, distillation = remade(run, [10, 20], ["recall", "ndcg", "hit", "precision", "mrr", "map"])
print(json.dumps([models, distillation, str(run.items.shares(run.ranked("student").relevant))]))
"""
VERB = "import sys; sys.modules['torch'] = None; from recdistill.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run whose models and cache are gone."""
    outputs = tmp_path_factory.mktemp("outputs")
    assert main([*WORDS, f"paths.outputs={outputs}"]) == 0
    (folder,) = (outputs / "runs").iterdir()
    shutil.rmtree(outputs / "cache")
    for name in ("student.safetensors", "model.json", "report.html"):
        (folder / name).unlink(missing_ok=True)
    return folder


@pytest.fixture(scope="module")
def results(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_json(run / "results.json")
    return found


def tabled(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, dict[str, float | None]]:
    """By model, what `evaluate --json` prints."""
    assert main(["evaluate", *words, "--json"]) == 0
    models: dict[str, dict[str, float | None]] = json.loads(capsys.readouterr().out)["models"]
    return models


def test_every_number_is_made_again_from_the_run_folder_without_models_cache_or_torch(
    run: Path, results: dict[str, Any]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(run)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    models, distillation, shares = json.loads(done.stdout)
    assert set(models) == {"teacher", "scratch", "student", "mostpop"}
    for name, found in models.items():
        stored = {key: value for key, value in results["models"][name]["metrics"].items() if key.startswith("test/")}
        assert {f"test/{key}": value for key, value in found.items()} == pytest.approx(stored, abs=1e-12), name
    stored = {key: value for key, value in results["distillation"].items() if key not in ("name", "gap_closed")}
    assert distillation.pop("gap_closed") == pytest.approx(results["distillation"]["gap_closed"], abs=1e-12)
    assert distillation == pytest.approx({key: stored[key] for key in distillation}, abs=1e-12)
    assert {"overlap@20", "rbo@20", "users_better@20", "gain_share@20/group=0"} <= set(distillation)
    assert shares == str(results["dataset"]["item_groups"])


def test_accuracy_on_valid_is_the_mean_of_what_is_stored_per_user(run: Path, results: dict[str, Any]) -> None:
    table = pd.read_parquet(run / "per_user.parquet").astype({"model": str, "split": str})
    for name, model in results["models"].items():
        of_model = table[(table.model == name) & (table.split == "valid")]
        for metric in METRICS:
            value = model["metrics"][f"valid/{metric}@20"]
            assert of_model[f"{metric}@20"].mean() == pytest.approx(value, abs=1e-12)


def test_a_run_without_words_shows_its_own_numbers(run: Path, results: dict[str, Any], capsys) -> None:
    for name, found in tabled(capsys, str(run)).items():
        assert {"test/ndcg@10", "test/map@20", "test/poplift@20", "test/gini@10"} <= set(found)
        assert found == {key: results["models"][name]["metrics"][key] for key in found}


def test_other_cut_offs_and_groups_are_scored_from_lists_and_ranks(run: Path, results: dict[str, Any], capsys) -> None:
    found = tabled(capsys, str(run), "--k", "5,30", "--metrics", "recall,recall/group=0,exposure/items=head,pri")
    assert list(found["student"]) == [
        "test/recall@5", "test/recall@30", "test/recall@5/group=0", "test/recall@30/group=0",
        "test/exposure@5/items=head", "test/exposure@30/items=head", "test/pri",
    ]  # fmt: skip
    ranks = pd.read_parquet(run / "ranks.parquet").astype({"model": str, "user_id": str})
    mine = ranks[ranks.model == "student"]
    recall = (mine["rank"] <= 30).groupby(mine.user_id).mean().mean()
    assert found["student"]["test/recall@30"] == pytest.approx(recall)
    assert found["student"]["test/pri"] == results["models"]["student"]["metrics"]["test/pri"]


def test_metrics_of_ranks_go_beyond_the_stored_lists_and_others_do_not(run: Path, capsys) -> None:
    found = tabled(capsys, str(run), "--k", "80", "--metrics", "recall,mrr")
    assert found["teacher"]["test/recall@80"] == 1  # every held-out item has a rank within the catalogue
    assert main(["evaluate", str(run), "--k", "31", "--metrics", "ndcg,gini,recall/group=0"]) == 2
    error = capsys.readouterr().err
    assert "--k 31 is beyond the stored lists of 30 items, which gini, recall/group=0 need" in error
    assert "--metrics ndcg," in error
    assert "evaluation.stored=31" in error
    assert main(["evaluate", str(run), "--k", "31", "--profile", "lenskit", "--metrics", "precision"]) == 2
    assert "which precision need" in capsys.readouterr().err


def test_a_profile_changes_formulas_and_says_what_it_cannot_change(run: Path, results: dict[str, Any], capsys) -> None:
    assert main(["evaluate", str(run), "--k", "20", "--profile", "kds"]) == 0
    out = capsys.readouterr().out
    assert "as kds computes it" in out
    assert "Not changed: the candidates; KDs leaves validation items in the test lists" in out
    assert next(line for line in out.splitlines() if line.startswith("precision@20")).split()[1:] == ["-"] * 4
    assert "Only recall, ndcg and precision were set beside the library's" in out
    assert main(["evaluate", str(run), "--k", "20", "--profile", "kds", "--metrics", "recall,ndcg"]) == 0
    assert "Only recall" not in capsys.readouterr().out
    found = tabled(capsys, str(run), "--k", "20", "--profile", "lenskit", "--metrics", "recall,gini")
    metrics = results["models"]["student"]["metrics"]
    assert found["student"]["test/gini@20"] == metrics["test/gini@20"]
    assert found["student"]["test/recall@20"] >= metrics["test/recall@20"]


def test_the_table_fits_80_columns_and_is_whole_in_a_pipe(run: Path) -> None:
    words = ["evaluate", str(run), "--metrics", "ndcg,poplift_vs_teacher/users=blockbuster,users_better,overlap"]
    done = subprocess.run([sys.executable, "-c", VERB, *words], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr  # and torch was never imported
    lines = done.stdout.splitlines()
    assert max(len(line) for line in lines) <= 80
    assert "…" not in done.stdout
    assert lines[1].split() == ["metric", "teacher", "scratch", "student", "mostpop"]
    assert [line.split()[0] for line in lines[3:]] == [
        f"{name}@{k}{group}"
        for name, group in (("ndcg", ""), ("poplift_vs_teacher", "/users=blockbuster"),
                            ("users_better", ""), ("overlap", ""))
        for k in (10, 20)
    ]  # fmt: skip
    assert lines[-1].split()[1:3] == ["-", "-"]  # overlap with the teacher is the student's


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--metrics", "ndgc"], "there is no metric ndgc; did you mean ndcg?"),
        (["--metrics", "recall/group=7"], "there is no metric recall@10/group=7; did you mean recall@10/group="),
        (["--k", "81"], "--k 81: cut-offs go from 1 to 80"),
        (["--k", "0,5"], "--k 0,5: cut-offs go from 1 to 80"),
    ],
)
def test_what_cannot_be_scored_is_refused(run: Path, words: list[str], message: str, capsys) -> None:
    assert main(["evaluate", str(run), *words]) == 2
    assert message in capsys.readouterr().err


def test_a_word_that_is_no_cut_off_is_refused(run: Path, capsys) -> None:
    assert main(["evaluate", str(run), "--k", "5,ten"]) == 2
    assert "5,ten is no list of cut-offs such as 5,50" in capsys.readouterr().err


def test_one_finished_run_is_asked_for(run: Path, tmp_path: Path, capsys) -> None:
    for verb in ("evaluate", "report"):  # both read a run in the same way
        assert main([verb, str(tmp_path)]) == 2
        assert f"{tmp_path} is not the folder of a run" in capsys.readouterr().err
        folder = write_run(tmp_path / verb)
        (folder / "results.json").write_text('{"schema_version": 1}')
        assert main([verb, str(folder)]) == 1
        assert "results.json does not hold what a finished run writes" in capsys.readouterr().err
        write_json(folder / "status.json", {"status": "running"})
        assert main([verb, str(folder)]) == 2
        assert "is running" in capsys.readouterr().err


def test_a_run_that_kept_test_apart_has_nothing_to_score(tmp_path: Path, capsys) -> None:
    write_run(tmp_path / "run", test=False)
    assert main(["evaluate", str(tmp_path / "run")]) == 2
    assert "evaluation.test=false" in capsys.readouterr().err


def test_a_run_of_an_earlier_version_has_its_metrics_of_ranks(run: Path, tmp_path: Path, capsys) -> None:
    old = tmp_path / "old"
    shutil.copytree(run, old)
    for name in ("items.parquet", "users.parquet"):
        (old / name).unlink()
    words = ["--k", "7", "--metrics", "ndcg,mrr"]
    assert tabled(capsys, str(old), *words) == tabled(capsys, str(run), *words)
    assert main(["evaluate", str(old)]) == 1
    error = capsys.readouterr().err
    assert f"there is no {old / 'users.parquet'}" in error
    assert "--metrics ndcg,recall" in error
