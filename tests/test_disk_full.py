"""A full disk, on a real file system of 1 MiB: a clear error, and nothing half-written."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from contracts import toys
from recdistill import store
from recdistill.cli import main
from recdistill.commands.study import Job, Ledger
from recdistill.distill.none import NoDistillation
from recdistill.errors import CacheError
from recdistill.models.base import Recommender
from recdistill.models.mf import MF
from recdistill.report.record import write_parquet
from recdistill.runtime import generator
from recdistill.soft_labels.cache import soft_labels
from recdistill.soft_labels.extract import Layout
from recdistill.training.checkpoint import TrainState, save_checkpoint, save_weights
from recdistill.training.objective import Objective
from recdistill.types import Interactions

SIZE = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root on Linux")
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "recdistill-test", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, left: int) -> None:
    """Leave about `left` bytes free."""
    status = os.statvfs(disk)
    (disk / "filler").write_bytes(b"\1" * (status.f_bavail * status.f_frsize - left))


def left_over(disk: Path) -> list[str]:
    """Files beside the filler and lock files, which are empty."""
    return sorted(
        path.name for path in disk.rglob("*") if path.is_file() and path.name != "filler" and path.suffix != ".lock"
    )


def refused(write: Callable[[], object], path: Path) -> None:
    with pytest.raises(CacheError, match="cannot write") as caught:
        write()
    assert str(path) in caught.value.what
    assert caught.value.why
    assert "free some space" in caught.value.fix


def checkpoint(path: Path) -> None:
    objective = Objective(toys.model(dim=2000), NoDistillation(), 0.0)
    save_checkpoint(path, objective, torch.optim.Adam(objective.parameters()), TrainState(1, 0, 0.0, [], {}))


def table() -> pa.Table:
    return pa.table({"x": np.random.default_rng(0).random(1 << 17)})


WRITERS: dict[str, Callable[[Path], None]] = {
    "weights": lambda path: save_weights(path, {"a": torch.rand(1 << 16)}),
    "checkpoint": checkpoint,
    "parquet": lambda path: write_parquet(path, [table(), table()]),
    "json": lambda path: store.write_json(path, ["x" * 1000] * 1000),
    "csv": lambda path: store.write_csv(path, [{"x": "x" * 1000}] * 1000),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("left", [0, 10 * 4096])
def test_a_file_that_does_not_fit_is_a_cache_error_and_leaves_nothing(disk: Path, name: str, left: int) -> None:
    path = disk / "file"
    fill(disk, left)
    refused(lambda: WRITERS[name](path), path)
    assert left_over(disk) == []


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_does_not_fit_leaves_the_old_one(disk: Path, name: str) -> None:
    path = disk / "file"
    path.write_bytes(b"old")
    fill(disk, 4096)
    refused(lambda: WRITERS[name](path), path)
    assert path.read_bytes() == b"old"
    assert left_over(disk) == ["file"]


def test_a_run_is_refused_on_a_full_disk_before_hydra_writes_there(
    disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(disk, 0)
    assert main(["train", "debug=smoke", f"paths.outputs={disk}"]) == 1
    assert f"cannot write {disk}" in capsys.readouterr().err
    assert left_over(disk) == []


def test_a_ledger_that_does_not_fit_is_a_cache_error(disk: Path) -> None:
    job = Job("trial", "d", "m", 0, ["x" * 8000], [], disk)
    fill(disk, 0)
    refused(lambda: Ledger(disk / "ledger.jsonl").add(job, 0.5, 1.0, {}), disk / "ledger.jsonl")


def many_users() -> Interactions:
    """4000 users, whose soft labels take about 0.5 MB."""
    toy = toys.interactions()
    return Interactions(toy.user, toy.item, 4000, toy.n_items)


def model() -> Recommender:
    made = MF(dim=4, init_std=0.7)
    made.prepare(many_users(), generator(0, "model"))
    return made


def extract(folder: Path) -> None:
    soft_labels(
        folder, teacher="toy", epoch=1, key="key", layout=Layout(toys.N_ITEMS, 12),
        interactions=many_users(), device=torch.device("cpu"), model=model, about={}, say=lambda line: None,
    )  # fmt: skip


PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from recdistill.errors import CacheError
from test_disk_full import extract
try:
    extract(Path(sys.argv[1]))
except CacheError as error:
    print(error)
    sys.exit(7)
"""


@pytest.mark.parametrize("pages", [2, 20, 110])  # room for some headers, some fields, all but the vectors
def test_soft_labels_that_do_not_fit_are_a_cache_error_and_not_a_killed_process(disk: Path, pages: int) -> None:
    fill(disk, pages * 4096)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(disk / "labels"), str(Path(__file__).parent)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 7, done
    assert "cannot write" in done.stdout
    assert "Fix: free some space" in done.stdout
    assert left_over(disk) == []


def test_soft_labels_are_extracted_once_there_is_space(disk: Path) -> None:
    fill(disk, 20 * 4096)
    with pytest.raises(CacheError, match="cannot write"):
        extract(disk / "labels")
    (disk / "filler").unlink()
    extract(disk / "labels")
    fill(disk, 0)
    extract(disk / "labels")  # what is whole is read on a full disk too


def test_a_lock_is_held_on_a_full_disk_though_its_note_does_not_fit(disk: Path) -> None:
    (disk / ".thing.lock").touch()
    fill(disk, 0)
    with store.locked(disk / "thing", "a thing", print):
        assert left_over(disk) in ([], [".thing.holder"])
    assert left_over(disk) == []
