from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import safetensors.torch

from recdistill.errors import ConfigError
from recdistill.pipeline import run
from recdistill.store import read_csv
from small_plan import plan

STORED = {"manifest.json", "model.json"}


def ran(outputs: Path, name: str, *overrides: str) -> dict[str, Any]:
    return run(plan(outputs, *overrides), outputs / "runs" / name, bars=False)


def metrics(results: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    return {name: model["metrics"] for name, model in results["models"].items()}


def alone(model: dict[str, float | None]) -> dict[str, float | None]:
    """What a model's metrics are without a teacher beside it."""
    return {name: value for name, value in model.items() if "_vs_teacher" not in name}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """One run with RRD and its outputs folder."""
    outputs = tmp_path_factory.mktemp("outputs")
    return outputs, ran(outputs, "first")


def test_a_run_leaves_its_files(first: tuple[Path, dict[str, Any]]) -> None:
    outputs, results = first
    folder, cache = outputs / "runs" / "first", outputs / "cache"
    names = {"results.json", "history.csv"}
    names |= {f"{table}.parquet" for table in ("per_user", "users", "items", "topk", "ranks")}
    names |= {"student.safetensors", "model.json", "env.json", "curves.csv"}
    assert names <= {path.name for path in folder.iterdir()}
    assert json.loads((folder / "results.json").read_text())["models"].keys() == results["models"].keys()
    (dataset,) = (path for path in (cache / "datasets").iterdir() if (path / "manifest.json").is_file())
    parts = {f"{part}.{kind}" for part in ("train", "valid", "test") for kind in ("npy", "parquet")}
    assert parts | {"users.parquet", "items.parquet"} <= {path.name for path in dataset.iterdir()}
    for shelf, model in (("teachers", "teacher"), ("scratch", "scratch")):
        stored = cache / shelf / results["models"][model]["key"]
        assert {path.name for path in stored.iterdir()} == {"model.safetensors", "model.json", "history.csv"}
    labels = cache / "soft_labels" / results["fingerprints"]["soft_labels"]["teacher"]
    fields = {"item.npy", "score.npy", "length.npy", "user_vectors.npy", "item_vectors.npy", "manifest.json"}
    assert {path.name for path in labels.iterdir()} == fields
    assert not list(outputs.rglob("*.tmp"))


def test_a_students_seconds_are_those_of_its_epochs_which_a_resumed_run_keeps(
    first: tuple[Path, dict[str, Any]],
) -> None:
    folder = first[0] / "runs" / "first"
    epochs = read_csv(folder / "history.csv")
    assert json.loads((folder / "model.json").read_text())["seconds"] == sum(float(row["seconds"]) for row in epochs)


def test_every_stage_says_what_it_took_of_the_clock_and_of_the_processor(first: tuple[Path, dict[str, Any]]) -> None:
    about = first[1]["run"]
    assert {"dataset", "teacher", "student"} <= about["seconds"].keys() == about["cpu_seconds"].keys()
    assert about["cpu_seconds"]["student"] > 0


def test_models_are_reported_under_their_roles(first: tuple[Path, dict[str, Any]]) -> None:
    models = first[1]["models"]
    assert list(models) == ["teacher", "scratch", "student", "mostpop"]
    assert models["student"]["parameters"] == 4 * (60 + 80)
    assert models["teacher"]["parameters"] == 6 * (60 + 80)
    for model in models.values():
        assert {f"{split}/ndcg@20" for split in ("valid", "test")} <= model["metrics"].keys()


def test_no_array_of_users_by_items_is_stored(first: tuple[Path, dict[str, Any]]) -> None:
    arrays = {path: np.load(path, mmap_mode="r") for path in first[0].rglob("*.npy")}
    for path in first[0].rglob("*.safetensors"):
        arrays |= {path / name: value.numpy() for name, value in safetensors.torch.load_file(path).items()}
    assert arrays
    assert all(array.size < 60 * 80 for array in arrays.values())


def own_metrics(hits: np.ndarray, relevant: int, k: int) -> dict[str, float]:
    """The accuracy metrics of one user from the places of hits, written anew."""
    places = [place for place in range(1, k + 1) if hits[place - 1]]
    ideal = sum(1 / np.log2(place + 1) for place in range(1, min(k, relevant) + 1))
    precisions = [(n + 1) / place for n, place in enumerate(places)]
    return {
        f"recall@{k}": len(places) / relevant,
        f"precision@{k}": len(places) / k,
        f"hit@{k}": float(bool(places)),
        f"ndcg@{k}": sum(1 / np.log2(place + 1) for place in places) / ideal,
        f"mrr@{k}": 1 / places[0] if places else 0.0,
        f"map@{k}": sum(precisions) / min(k, relevant),
    }


def own_groups(counts: pd.Series) -> dict[str, int]:
    """Two popularity groups by midpoint: which half of the interactions does an item's middle fall in?"""
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], int(pair[0])))
    total, mass, group = sum(counts), 0.0, {}
    for item, count in ordered:
        group[item] = 0 if 2 * (mass + count / 2) / total < 1 else 1
        mass += count
    return group


def test_metrics_counted_again_from_the_stored_lists_agree(first: tuple[Path, dict[str, Any]]) -> None:
    outputs, results = first
    stored = Path(results["dataset"]["folder"])
    train, valid, test = (pd.read_parquet(stored / f"{part}.parquet") for part in ("train", "valid", "test"))
    items = pd.read_parquet(stored / "items.parquet")["id"]
    counts = train.groupby("item_id").user_id.nunique().reindex(items, fill_value=0)
    group = own_groups(counts)
    profile = train.assign(count=counts.loc[train.item_id].to_numpy()).groupby("user_id")["count"].mean()
    known = {user: set(rows) for user, rows in pd.concat([train, valid]).groupby("user_id").item_id}
    relevant = {user: set(rows) for user, rows in test.groupby("user_id").item_id}
    topk = pd.read_parquet(outputs / "runs" / "first" / "topk.parquet").astype({"user_id": str, "item_id": str})
    per_user = pd.read_parquet(outputs / "runs" / "first" / "per_user.parquet").astype({"user_id": str})
    for name, model in results["models"].items():
        lists = topk[(topk.model == name) & (topk.split == "test")].sort_values(["user_id", "rank"])
        of_user = {user: list(rows) for user, rows in lists.groupby("user_id").item_id}
        assert of_user.keys() == relevant.keys()
        rows: dict[str, dict[str, float]] = {user: {} for user in relevant}
        for user, wanted in relevant.items():
            ranked = of_user[user]
            assert len(set(ranked)) == len(ranked) == min(20, 80 - len(known[user]))
            assert not set(ranked) & known[user]
            hits = np.array([item in wanted for item in ranked] + [False] * (20 - len(ranked)))
            for k in (10, 20):
                rows[user] |= own_metrics(hits, len(wanted), k)
                rows[user][f"arp@{k}"] = float(counts.loc[ranked[:k]].mean())
                for g in (0, 1):
                    inside = {item for item in wanted if group[item] == g}
                    found = len(inside & set(ranked[:k]))
                    rows[user][f"recall@{k}/group={g}"] = found / len(inside) if inside else np.nan
        table = pd.DataFrame.from_dict(rows, orient="index")
        own = table.mean().to_dict()  # leaves out users without a relevant item in the group
        for k in (10, 20):
            base = profile.loc[table.index].mean()
            own[f"poplift@{k}"] = (own[f"arp@{k}"] - base) / base
        reported = {key.removeprefix("test/"): v for key, v in model["metrics"].items() if key.startswith("test/")}
        assert own.keys() <= reported.keys()
        for key, value in own.items():
            assert reported[key] == pytest.approx(value, abs=1e-9), (name, key)
        stored_rows = per_user[(per_user.model == name) & (per_user.split == "test")].set_index("user_id")
        for column in stored_rows.columns.difference(["model", "split"]):
            assert np.allclose(stored_rows[column].loc[table.index], table[column], atol=1e-9)


def test_stored_ranks_are_the_places_in_the_stored_lists(first: tuple[Path, dict[str, Any]]) -> None:
    folder = first[0] / "runs" / "first"
    columns = {"model": str, "user_id": str, "item_id": str}
    topk, ranks = (pd.read_parquet(folder / f"{name}.parquet").astype(columns) for name in ("topk", "ranks"))
    both = ranks.merge(topk, on=["model", "user_id", "item_id"], how="left", suffixes=("", "_in_list"))
    assert set(both.model) == set(first[1]["models"])
    listed = both.rank_in_list.notna()
    assert listed.any()
    assert (both["rank"][listed] == both.rank_in_list[listed]).all()
    assert (both["rank"][~listed] > 20).all()


def test_the_same_seed_gives_the_same_numbers_and_another_seed_gives_others(
    first: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    again = ran(tmp_path, "again")
    assert metrics(again) == metrics(first[1])
    assert again["fingerprints"]["teacher"] == first[1]["fingerprints"]["teacher"]
    one, two = (
        path / "runs" / name / "student.safetensors" for path, name in ((first[0], "first"), (tmp_path, "again"))
    )
    assert one.read_bytes() == two.read_bytes()
    other = ran(tmp_path, "other", "seed=1")
    assert metrics(other)["teacher"] == metrics(again)["teacher"]
    assert metrics(other)["student"] != metrics(again)["student"]


@pytest.mark.parametrize("method", ["rrd", "unkd"])
def test_a_distiller_of_weight_zero_equals_none_bit_for_bit(method: str, first: tuple[Path, dict[str, Any]]) -> None:
    outputs = first[0]
    own = ["distill.depth=12", "distill.interesting=6"] if method == "rrd" else ["~distill.interesting"]
    zero = ran(outputs, f"zero-{method}", f"distill={method}", "distill.weight=0", *own)
    none = ran(outputs, f"none-{method}", "distill=none", "~distill.depth", "~distill.interesting")
    assert metrics(zero) == metrics(none)
    assert metrics(zero)["student"] == metrics(zero)["scratch"]  # the same settings, the same seed
    assert metrics(zero)["student"] != metrics(first[1])["student"]
    weights = [outputs / "runs" / f"{kind}-{method}" / "student.safetensors" for kind in ("zero", "none")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def cached(outputs: Path) -> dict[Path, tuple[int, int]]:
    files = (
        path
        for shelf in ("datasets", "teachers", "soft_labels", "scratch")
        for path in (outputs / "cache" / shelf).rglob("*")
    )
    kept = [path for path in files if path.is_file() and not path.name.startswith(".")]
    return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in kept if "memo" not in path.parts}


def test_a_second_run_reads_teacher_and_soft_labels_from_the_cache(first: tuple[Path, dict[str, Any]]) -> None:
    before = cached(first[0])
    second = ran(first[0], "second", "distill.weight=0.3")
    assert cached(first[0]) == before
    assert second["fingerprints"]["soft_labels"] == first[1]["fingerprints"]["soft_labels"]
    assert metrics(second)["teacher"] == metrics(first[1])["teacher"]
    assert metrics(second)["student"] != metrics(first[1])["student"]


STORED_TEACHER = ["teacher=stored", *(f"~teacher.{key}" for key in ("dim", *(f"trainer.{k}" for k in (
    "epochs", "eval_every", "batch_size", "learning_rate"))))]  # fmt: skip


def test_a_stored_teacher_gives_that_teachers_numbers(first: tuple[Path, dict[str, Any]]) -> None:
    outputs, results = first
    again = ran(outputs, "stored", *STORED_TEACHER, f"teacher.run={outputs / 'runs' / 'first'}")
    assert metrics(again) == metrics(results)
    assert again["fingerprints"]["teacher"] == results["fingerprints"]["teacher"]
    student = ran(
        outputs, "pupil", *STORED_TEACHER, f"teacher.run={outputs / 'runs' / 'first'}", "teacher.model=student"
    )
    assert metrics(student)["teacher"] == alone(metrics(results)["student"])


def test_a_stored_teacher_may_itself_have_been_stored(first: tuple[Path, dict[str, Any]]) -> None:
    outputs, results = first
    chosen = [*STORED_TEACHER, f"teacher.run={outputs / 'runs' / 'first'}", "teacher.model=student"]
    ran(outputs, "middle", *chosen)
    last = ran(outputs, "last", *STORED_TEACHER, f"teacher.run={outputs / 'runs' / 'middle'}")
    assert metrics(last)["teacher"] == alone(metrics(results)["student"])


def test_a_stored_teacher_of_another_split_is_refused(first: tuple[Path, dict[str, Any]]) -> None:
    outputs = first[0]
    with pytest.raises(ConfigError, match="was trained on data set"):
        ran(outputs, "leak", *STORED_TEACHER, f"teacher.run={outputs / 'runs' / 'first'}", "dataset.split.seed=1")


def cut_short(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.truncate(path.stat().st_size // 2)


def one_byte_other(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("field", ["item.npy", "score.npy", "length.npy", "item_vectors.npy"])
@pytest.mark.parametrize("harm", [cut_short, one_byte_other, Path.unlink])
def test_damaged_soft_labels_are_found_and_redone(
    field: str, harm: Callable[[Path], None], first: tuple[Path, dict[str, Any]], damage_plan: Callable[[], Any]
) -> None:
    outputs, results = first
    path = outputs / "cache" / "soft_labels" / results["fingerprints"]["soft_labels"]["teacher"] / field
    good = path.read_bytes()
    harm(path)
    damage_plan()
    assert path.read_bytes() == good


@pytest.fixture
def damage_plan(first: tuple[Path, dict[str, Any]]) -> Callable[[], Any]:
    """The shortest run that needs the soft labels."""
    short = [f"{part}.epochs=1" for part in ("trainer", "scratch.trainer")]
    return lambda: ran(first[0], "damage", *short, "scratch.enabled=false")


def test_a_distiller_with_a_module_of_its_own(tmp_path: Path) -> None:
    results = ran(tmp_path, "vectors", "distill=vectors", "~distill.depth", "~distill.interesting")
    assert results["distillation"]["name"] == "vectors"
    history = pd.read_csv(tmp_path / "runs" / "vectors" / "history.csv")
    assert {"base", "user_vectors", "item_vectors", "weight_decay"} <= set(history.columns)
    assert history.item_vectors.iloc[-1] < history.item_vectors.iloc[0]
    weights = safetensors.torch.load_file(tmp_path / "runs" / "vectors" / "student.safetensors")
    assert set(weights) == {"user_table", "item_table"}  # the map stays behind


def test_a_distiller_that_trains_teacher_and_student_together(tmp_path: Path) -> None:
    results = ran(tmp_path, "together", "distill=together", "~distill.depth", "~distill.interesting")
    stored = json.loads((tmp_path / "runs" / "together" / "results.json").read_text())
    assert set(stored["models"]) == {"teacher", "scratch", "student", "trained.teacher", "mostpop"}
    before, after = metrics(results)["teacher"], metrics(results)["trained.teacher"]
    assert before.keys() == alone(after).keys()
    assert before != alone(after)
    lists = pd.read_parquet(tmp_path / "runs" / "together" / "topk.parquet")
    assert set(lists.model.astype(str)) == set(stored["models"])


def test_a_distiller_over_several_teachers_checkpoints(tmp_path: Path) -> None:
    drop = ["~distill.depth", "~distill.interesting", "~teacher.dim"]
    drop += [f"~teacher.trainer.{key}" for key in ("epochs", "eval_every", "batch_size", "learning_rate")]
    members = [
        f"teacher.members.{name}.{key}" for name in ("plain", "graph")
        for key in ("dim=6", *(f"trainer.{key}" for key in ("epochs=6", "eval_every=2", "learning_rate=0.02")))
    ]  # fmt: skip
    results = ran(tmp_path, "curriculum", "distill=curriculum", "teacher=duo", *drop, *members)
    stored = json.loads((tmp_path / "runs" / "curriculum" / "results.json").read_text())
    assert set(stored["models"]) == {"teacher.plain", "teacher.graph", "scratch", "student", "mostpop"}
    assert 0 < stored["distillation"]["mean_stage"] <= 2
    assert set(stored["fingerprints"]["teacher"]) == {"plain", "graph"}
    assert metrics(results)["teacher.plain"] != metrics(results)["teacher.graph"]
    columns = set(pd.read_csv(tmp_path / "runs" / "curriculum" / "history.csv").columns)
    assert {"teacher0", "teacher1"} <= columns
    assert "base" not in columns
    labels = [path for path in (tmp_path / "cache" / "soft_labels").iterdir() if path.is_dir()]
    assert len(labels) > 2  # one store for each checkpoint


def test_checkpoints_are_asked_for_where_a_distiller_needs_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs several checkpoints of each teacher"):
        plan(tmp_path, "distill=curriculum", "~distill.depth", "~distill.interesting")


def test_users_of_items_have_a_store_of_their_own_and_leave_the_others_key_alone(
    first: tuple[Path, dict[str, Any]],
) -> None:
    outputs, results = first
    small = ["distill.interesting_users=3", "distill.user_depth=9"]
    both = ran(outputs, "both", "distill=ir_rrd", *small)
    key = results["fingerprints"]["soft_labels"]
    assert both["fingerprints"]["soft_labels"] == key
    uses = set(json.loads((outputs / "runs" / "both" / "uses.json").read_text()))
    (own,) = uses - set(json.loads((outputs / "runs" / "first" / "uses.json").read_text()))
    about = json.loads((outputs / "cache" / "soft_labels" / own / "manifest.json").read_text())["made_by"]
    assert about["transposed"]
    assert about["depth"] == 9
    lists = np.load(outputs / "cache" / "soft_labels" / own / "item.npy")
    assert lists.shape == (results["dataset"]["n_items"], 9)
    before = cached(outputs)
    ran(outputs, "both-again", "distill=ir_rrd", *small, "distill.weight=0.3")
    assert cached(outputs) == before
    ran(outputs, "deeper", "distill=ir_rrd", "distill.interesting_users=3", "distill.user_depth=10")
    assert len(set(cached(outputs)) - set(before)) == 4  # item, length, score, manifest of another key


def test_soft_labels_of_other_groups_have_another_key_where_there_are_as_many_lists(tmp_path: Path) -> None:
    """The greedy partition of this data set gives nine groups where eight or nine are asked for: not the same ones."""
    own = ["distill=unkd", "distill.partition=greedy", "~distill.interesting", "scratch.enabled=false"]
    eight, nine = (ran(tmp_path, str(groups), *own, f"distill.groups={groups}") for groups in (8, 9))
    keys = [found["fingerprints"]["soft_labels"]["teacher"] for found in (eight, nine)]
    lists = [np.load(tmp_path / "cache" / "soft_labels" / key / "group_item.npy") for key in keys]
    assert lists[0].shape[1] == lists[1].shape[1] == 9
    assert keys[0] != keys[1]
    assert not np.array_equal(*lists)
