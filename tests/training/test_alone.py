from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from contracts import toys
from recdistill.config import TrainerConfig
from recdistill.errors import CacheError, ConfigError
from recdistill.models.base import Recommender
from recdistill.models.mf import MF
from recdistill.models.mostpop import MostPop
from recdistill.training.alone import Recipe, TrainedModel, prepared, trained_alone
from recdistill.training.trainer import OnEpoch

CPU = torch.device("cpu")


def recipe(epochs: int = 12, checkpoints: int = 1, seed: int = 0) -> Recipe:
    node = {"_target_": "recdistill.models.mf.MF", "dim": 3}
    trainer = TrainerConfig(epochs=epochs, batch_size=16, learning_rate=0.05, eval_every=1)
    return Recipe("teacher", node, lambda: MF(dim=3), trainer, seed, checkpoints)


class Rising:
    """A validation value that rises up to an epoch and falls behind it."""

    def __init__(self, best: int) -> None:
        self.best, self.calls = best, 0

    def __call__(self, model: Recommender) -> float:
        self.calls += 1
        return -abs(self.calls - self.best)


def trained(
    shelf: Path,
    what: Recipe,
    validate: Callable[[Recommender], float],
    fingerprint: str = "data",
    on_epoch: OnEpoch = lambda epoch, epochs, value, best: None,
    say: Callable[[str], None] = lambda line: None,
) -> TrainedModel:
    return trained_alone(
        what, shelf, name="teacher", fingerprint=fingerprint, interactions=toys.interactions(), validate=validate,
        device=CPU, say=say, on_epoch=on_epoch,
    )  # fmt: skip


def test_a_second_call_reads_what_the_first_trained(tmp_path: Path) -> None:
    first = trained(tmp_path, recipe(), Rising(5))
    stamp = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in first.folder.iterdir()}
    epochs: list[int] = []
    lines: list[str] = []
    second = trained(
        tmp_path, recipe(), Rising(9), on_epoch=lambda epoch, *rest: epochs.append(epoch), say=lines.append
    )
    assert epochs == []
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in second.folder.iterdir()} == stamp
    assert (second.key, second.best_epoch, second.epochs) == (first.key, 5, 12)
    assert lines == [f"teacher {first.key} is in the cache"]
    user = torch.arange(toys.N_USERS)
    one, other = (model.load(None).scorer().all_scores(user) for model in (first, second))
    assert one.equal(other)


def test_the_loaded_model_is_the_best_one_in_evaluation_mode(tmp_path: Path) -> None:
    seen: list[torch.Tensor] = []

    def value(model: Recommender) -> float:
        seen.append(model.state_dict()["user_table"].clone())
        return -abs(len(seen) - 5)

    model = trained(tmp_path, recipe(), value).load(None)
    assert not model.training
    assert model.state_dict()["user_table"].equal(seen[4])


@pytest.mark.parametrize(
    ("number", "best", "kept"), [(4, 10, [1, 4, 7, 10]), (3, 5, [1, 3, 5]), (2, 9, [1, 9]), (5, 2, [1, 2]), (1, 9, [])]
)
def test_snapshots_are_evenly_spaced_up_to_the_best(tmp_path: Path, number: int, best: int, kept: list[int]) -> None:
    model = trained(tmp_path, recipe(checkpoints=number), Rising(best))
    assert [epoch for epoch, _ in model.snapshots] == kept
    assert sorted(model.folder.glob("snapshot.*")) == sorted(path for _, path in model.snapshots)
    if kept:
        last = model.load(model.snapshots[-1][1]).state_dict()
        assert all(value.equal(last[name]) for name, value in model.load(None).state_dict().items())
        first = model.load(model.snapshots[0][1]).state_dict()
        assert not first["user_table"].equal(last["user_table"])


@pytest.mark.parametrize(
    "other",
    [
        lambda one: replace(one, seed=1),
        lambda one: replace(one, node={**one.node, "dim": 4}),
        lambda one: replace(one, trainer=replace(one.trainer, epochs=13)),
        lambda one: replace(one, checkpoints=2),
        lambda one: replace(one, role="student"),
    ],
)
def test_the_key_holds_whatever_makes_the_model(other: Callable[[Recipe], Recipe]) -> None:
    assert other(recipe()).key("data") != recipe().key("data")
    assert recipe().key("data") == recipe().key("data")
    assert recipe().key("other data") != recipe().key("data")


def test_the_metric_that_selects_the_best_epoch_is_in_the_key() -> None:
    assert replace(recipe(), select="ndcg@10").key("data") != recipe().key("data")


def remove_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def alter_weights(folder: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "no weights": remove_weights,
    "other weights": alter_weights,
    "no keys": lambda folder: (folder / "model.json").write_text("{}"),
    "a list": lambda folder: (folder / "model.json").write_text("[]"),
    "torn": lambda folder: (folder / "model.json").write_text('{"model": {"_tar'),
    "no snapshot": lambda folder: min(folder.glob("snapshot.*")).unlink(),
}


@pytest.mark.parametrize("harm", DAMAGE)
def test_a_damaged_model_in_the_cache_is_trained_again_and_the_user_is_told(tmp_path: Path, harm: str) -> None:
    first = trained(tmp_path, recipe(checkpoints=2), Rising(5))
    before = {path.name: path.read_bytes() for path in first.folder.glob("*.safetensors")}
    DAMAGE[harm](first.folder)
    lines: list[str] = []
    second = trained(tmp_path, recipe(checkpoints=2), Rising(5), say=lines.append)
    assert len(lines) == 1
    assert "is damaged and is trained again" in lines[0]
    assert {path.name: path.read_bytes() for path in second.folder.glob("*.safetensors")} == before
    assert trained(tmp_path, recipe(checkpoints=2), Rising(5), say=lines.append).key == first.key
    assert lines[1:] == [f"teacher {first.key} is in the cache"]


@pytest.mark.parametrize("harm", DAMAGE)
def test_a_damaged_stored_model_is_refused_and_left_as_it_is(tmp_path: Path, harm: str) -> None:
    folder = trained(tmp_path, recipe(checkpoints=2), Rising(5)).folder
    DAMAGE[harm](folder)
    names = sorted(path.name for path in folder.iterdir())
    with pytest.raises(CacheError) as caught:
        trained(tmp_path, replace(recipe(), stored=folder), Rising(5))
    assert str(folder) in caught.value.what
    assert caught.value.fix
    assert sorted(path.name for path in folder.iterdir()) == names


def test_weights_of_another_architecture_are_no_traceback(tmp_path: Path) -> None:
    model = trained(tmp_path, recipe(), Rising(5))
    with pytest.raises(CacheError, match="are not those of the model"):
        trained(tmp_path, replace(recipe(), stored=model.folder, make=lambda: MF(dim=4)), Rising(5)).load(None)


def test_a_kill_while_snapshots_are_removed_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    straight = trained(tmp_path / "straight", recipe(checkpoints=3), Rising(9))
    real = Path.unlink
    removed: list[str] = []

    def kill(path: Path, missing_ok: bool = False) -> None:
        if path.name.startswith("snapshot."):
            if len(removed) == 2:
                raise Stop
            removed.append(path.name)
        real(path, missing_ok)

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(Path, "unlink", kill)
        trained(tmp_path / "killed", recipe(checkpoints=3), Rising(9))
    again = trained(tmp_path / "killed", recipe(checkpoints=3), Rising(9))
    assert [epoch for epoch, _ in again.snapshots] == [epoch for epoch, _ in straight.snapshots]
    assert sorted(path.name for path in again.folder.iterdir()) == sorted(
        path.name for path in straight.folder.iterdir()
    )


class Stop(Exception):
    """Stands for a killed process."""


def test_a_killed_training_continues_and_ends_as_the_uninterrupted_one(tmp_path: Path) -> None:
    def value(model: Recommender) -> float:
        return float(model.scorer().all_scores(torch.arange(toys.N_USERS))[:, :4].mean())

    def kill(epoch: int, *rest: Any) -> None:
        if epoch == 7:
            raise Stop

    straight = trained(tmp_path / "straight", recipe(checkpoints=3), value)
    with pytest.raises(Stop):
        trained(tmp_path / "killed", recipe(checkpoints=3), value, on_epoch=kill)
    epochs: list[int] = []
    continued = trained(
        tmp_path / "killed", recipe(checkpoints=3), value, on_epoch=lambda epoch, *rest: epochs.append(epoch)
    )
    assert epochs == [8, 9, 10, 11, 12]
    for name in ("model.safetensors", *(path.name for _, path in straight.snapshots)):
        assert (continued.folder / name).read_bytes() == (straight.folder / name).read_bytes()
    assert not (continued.folder / "checkpoint.safetensors").exists()


def test_a_model_without_parameters_is_stored_untrained(tmp_path: Path) -> None:
    node = {"_target_": "recdistill.models.mostpop.MostPop"}
    model = trained(tmp_path, Recipe("teacher", node, MostPop, TrainerConfig(), 0), Rising(1))
    assert (model.epochs, model.best_epoch, model.snapshots) == (0, 0, [])
    counts = model.load(None).scorer().all_scores(torch.tensor([0]))[0]
    assert counts.equal(toys.interactions().popularity().float())


def test_a_stored_model_of_another_data_set_is_refused(tmp_path: Path) -> None:
    model = trained(tmp_path, recipe(), Rising(3))
    stored = replace(recipe(), stored=model.folder)
    assert trained(tmp_path, stored, Rising(3)).key == model.key
    with pytest.raises(ConfigError, match="was trained on data set data, this run uses other"):
        trained(tmp_path, stored, Rising(3), fingerprint="other")


def test_the_description_rebuilds_the_model(tmp_path: Path) -> None:
    model = trained(tmp_path, recipe(), Rising(3))
    about = json.loads((model.folder / "model.json").read_text())
    assert about["model"] == recipe().node
    assert (about["n_users"], about["n_items"]) == (toys.N_USERS, toys.N_ITEMS)
    assert (about["epochs"], about["best_epoch"], about["seed"], about["dataset"]) == (12, 3, 0, "data")


def test_initial_weights_depend_on_seed_and_role() -> None:
    data = toys.interactions()
    tables = [
        prepared(one, data, CPU).state_dict()["user_table"]
        for one in (recipe(), recipe(), recipe(seed=1), replace(recipe(), role="student"))
    ]
    assert tables[0].equal(tables[1])
    assert not tables[0].equal(tables[2])
    assert not tables[0].equal(tables[3])
