"""The store of soft labels: one memory-mapped array per field, written in shards of users, resumable."""

from __future__ import annotations

import errno
import hashlib
import io
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from recdistill.dataset.sampling import SeenItems
from recdistill.errors import CacheError
from recdistill.models.base import Recommender
from recdistill.soft_labels.extract import Layout, extract
from recdistill.store import atomic, cannot_write, ensure_folder, file_hash, locked, read_json, write_json
from recdistill.types import Interactions, SoftLabels

FORMAT_VERSION = 1
SHARD_BYTES = 1 << 25


def soft_labels(
    folder: Path,
    *,
    teacher: str,
    epoch: int,
    key: str,
    layout: Layout,
    interactions: Interactions,
    device: torch.device,
    model: Callable[[], Recommender],
    about: dict[str, Any],
    say: Callable[[str], None],
    transposed: bool = False,
) -> SoftLabels:
    """Open a store of soft labels; build what is missing of it first.

    A shard counts as done when the manifest holds its hash and the bytes on disk have it: a shard that was cut short
    or altered is found and redone, an interrupted extraction continues.

    Args:
        folder: of this key.
        teacher: its name, for messages and the record.
        epoch: of the checkpoint.
        key: of everything that shaped the lists.
        layout: which fields.
        interactions: training interactions, whose items are left out.
        device: where to score.
        model: loads the teacher; called only when something has to be built.
        about: what made the lists, for whoever looks at the cache.
        say: prints a line to the user.
        transposed: rank users for every item: `interactions` and `layout` are those of the transposed problem. The
            vectors are not kept a second time.
    """
    with locked(folder, f"the soft labels of {teacher}", say):
        store = _Store(folder, layout, interactions.n_users, about, transposed)
        if (missing := store.missing()) is not None:
            store.build(missing, model, interactions, device, say)
        arrays = store.open()
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return SoftLabels(
        item=tensors["item"],
        length=tensors["length"],
        score=tensors["score"],
        teacher=teacher,
        epoch=epoch,
        key=key,
        group_item=tensors.get("group_item"),
        group_length=tensors.get("group_length"),
        user_vectors=tensors.get("user_vectors"),
        item_vectors=tensors.get("item_vectors"),
    )


def damaged(folder: Path) -> list[str]:
    """What in a finished store does not have the hash that its manifest gives; empty if all is well."""
    manifest = read_json(folder / "manifest.json")
    whole = manifest["whole"] or {}
    bad = [name for name, sha in whole.items() if not (folder / name).is_file() or file_hash(folder / name) != sha]
    names = sorted(path.stem for path in folder.glob("*.npy") if path.name not in whole)
    try:
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in names}
    except (ValueError, OSError):
        return [*bad, "a field cut short"]
    rows = manifest["rows_per_shard"]
    for number, sha in manifest["shards"].items():
        if _shard_hash(arrays, slice(int(number) * rows, (int(number) + 1) * rows)) != sha:
            bad.append(f"shard {number}")
    return bad


def _shard_hash(arrays: Mapping[str, np.ndarray], rows: slice) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(np.ascontiguousarray(arrays[name][rows]).data)
    return digest.hexdigest()


class _Store:
    """The files of one key. Manifest: shard number to hash of its rows in every field, and the whole files' hashes."""

    def __init__(self, folder: Path, layout: Layout, n_users: int, about: dict[str, Any], transposed: bool) -> None:
        self.folder, self.layout, self.n_users, self.transposed = folder, layout, n_users, transposed
        self.fields = layout.fields()
        row_bytes = sum(
            int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize for shape, dtype in self.fields.values()
        )
        self.rows = max(1, min(n_users, SHARD_BYTES // row_bytes))
        self.path = folder / "manifest.json"
        fresh: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "rows_per_shard": self.rows,
            "shards": {},
            "whole": None,
            "made_by": about,
        }
        self.manifest = read_json(self.path) if self.path.is_file() else fresh

    def shard(self, number: int) -> slice:
        return slice(number * self.rows, min((number + 1) * self.rows, self.n_users))

    def missing(self) -> list[int] | None:
        """Shards whose bytes do not have the manifest's hash; None when everything is there and whole."""
        self._stretch()
        arrays = self._map("r")
        shards = range(-(-self.n_users // self.rows))
        bad = [n for n in shards if self.manifest["shards"].get(str(n)) != self._hash(arrays, n)]
        whole = self.manifest["whole"]
        whole_is_good = whole is not None and all(
            (self.folder / name).is_file() and file_hash(self.folder / name) == sha for name, sha in whole.items()
        )
        return None if whole_is_good and not bad else bad

    def build(
        self,
        missing: list[int],
        model: Callable[[], Recommender],
        interactions: Interactions,
        device: torch.device,
        say: Callable[[str], None],
    ) -> None:
        recommender = model().to(device).eval()
        seen = SeenItems(interactions, device)
        arrays = self._map("r+")
        done = len(self.manifest["shards"])
        shards = f"{len(missing)} of {-(-self.n_users // self.rows)} shards" + (" (continued)" if done else "")
        say(f"extracting soft labels{', users of items' if self.transposed else ''}: {shards}")
        with self._writing(), torch.no_grad():
            scorer = recommender.scorer()
            if self.transposed:
                scorer = scorer.transposed()
                self._write_whole({})
            else:
                self._write_whole({"user_vectors": scorer.user_vectors, "item_vectors": scorer.item_vectors})
            for number in missing:
                rows = self.shard(number)
                user = torch.arange(rows.start, rows.stop, device=device)
                for name, block in extract(scorer, seen, user, self.layout).items():
                    _refuse_not_finite(name, block)
                    arrays[name][rows] = block
                    arrays[name].flush()
                self.manifest["shards"][str(number)] = self._hash(arrays, number)
                write_json(self.path, self.manifest)
            write_json(self.path, self.manifest)

    def open(self) -> dict[str, np.ndarray]:
        """Fields, mapped copy-on-write: what a reader does to them never reaches the disk."""
        arrays: dict[str, np.ndarray] = dict(self._map("c"))
        for name in self.manifest["whole"]:
            arrays[name.removesuffix(".npy")] = np.load(self.folder / name, mmap_mode="c", allow_pickle=False)
        return arrays

    def _write_whole(self, tensors: dict[str, torch.Tensor | None]) -> None:
        self.manifest["whole"] = {}
        for name, tensor in tensors.items():
            if tensor is None:
                continue
            path = self.folder / f"{name}.npy"
            array = tensor.detach().cpu().numpy().astype("<f4")
            _refuse_not_finite(name, array)
            with atomic(path) as temporary, temporary.open("wb") as stream:
                np.save(stream, array)
            self.manifest["whole"][path.name] = file_hash(path)

    def _stretch(self) -> None:
        """Make every field's file exist in its full length; new bytes are 0 and match no hash in the manifest.

        The disk space is claimed here: where it ran out under a mapped file, the system would kill the process.
        """
        ensure_folder(self.folder)
        with self._writing():
            for name, (shape, dtype) in self.fields.items():
                path = self.folder / f"{name}.npy"
                whole = (self.n_users, *shape)
                header = _header_bytes(whole, dtype)
                size = len(header) + int(np.prod(whole, dtype=np.int64)) * np.dtype(dtype).itemsize
                with path.open("r+b" if path.exists() else "w+b") as stream:
                    if stream.read(len(header)) != header:
                        stream.seek(0)
                        stream.write(header)
                    if os.fstat(stream.fileno()).st_size != size:
                        stream.truncate(size)
                    _claim(stream.fileno())

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """What the system says becomes a CacheError; while no shard is done, the disk space is given back."""
        try:
            yield
        except (OSError, CacheError) as error:
            if not self.manifest["shards"]:
                for path in self.folder.glob("*.npy"):
                    path.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise cannot_write(self.folder, error) from error
            raise

    def _map(self, mode: Literal["r", "r+", "c"]) -> dict[str, np.memmap]:
        return {name: np.load(self.folder / f"{name}.npy", mmap_mode=mode, allow_pickle=False) for name in self.fields}

    def _hash(self, arrays: dict[str, np.memmap], number: int) -> str:
        return _shard_hash(arrays, self.shard(number))


def _claim(file: int) -> None:
    """Fill the holes of a sparse file with disk space of its own, where the system can."""
    status = os.fstat(file)
    if not hasattr(os, "posix_fallocate") or status.st_blocks * 512 >= status.st_size:
        return
    try:
        os.posix_fallocate(file, 0, status.st_size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):  # a file system that cannot promise
            raise


def _header_bytes(shape: tuple[int, ...], dtype: str) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def _refuse_not_finite(name: str, array: np.ndarray) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise CacheError(
            f"the teacher's {name} hold NaN or infinite values",
            "soft labels of a teacher that diverged would poison every student",
            "train the teacher with a smaller teacher.trainer.learning_rate",
        )
