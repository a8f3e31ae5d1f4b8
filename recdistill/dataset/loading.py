"""From a source to a `Dataset`: parsed and split once, stored, then opened from disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from recdistill.dataset.catalog import Say, Source
from recdistill.dataset.popularity import popularity_groups
from recdistill.dataset.table import Pairs, contiguous, table_hash
from recdistill.errors import CacheError, DataError
from recdistill.store import atomic, ensure_folder, file_hash, key_of, locked, read_json, write_json
from recdistill.types import Dataset, Interactions

FORMAT_VERSION = 1
PARTS = ("train", "valid", "test")


def load(source: Source, *, data: Path, cache: Path, groups: int, say: Say) -> Dataset:
    """Open a data set, parsing, filtering, splitting and storing it the first time.

    Args:
        source: where it comes from.
        data: the user's folder of data sets.
        cache: the folder of caches; the data set lands in `cache/datasets/KEY`.
        groups: number of popularity groups.
        say: prints a line to the user.

    Raises:
        DataError: the source cannot be read, or nothing can be learned from it.
    """
    made_by = _made_by(source)
    table_name = _known_table(source, data, cache)
    if table_name is None or not _complete(_folder(cache, table_name, made_by)):
        # by the source's name alone: whatever their splits, two processes must not fetch one file at once
        with locked(cache / "datasets" / key_of(["source", source.name]), f"data set {source.name}", say):
            table_name = _made(source, data, cache, made_by, say)
    return _open(_folder(cache, table_name, made_by), source.name, groups, say)


def _folder(cache: Path, table_name: str, made_by: dict[str, Any]) -> Path:
    return cache / "datasets" / key_of([table_name, made_by])


def _made(source: Source, data: Path, cache: Path, made_by: dict[str, Any], say: Say) -> str:
    """Read and store a data set, unless another process just did; returns the hash of its table."""
    known = _known_table(source, data, cache)
    if known is not None and _complete(_folder(cache, known, made_by)):
        return known
    table = source.table(data, cache / "downloads", say)
    table_name = table_hash(table)
    folder = _folder(cache, table_name, made_by)
    with locked(folder, f"data set {source.name}", say):  # so that nobody prunes what is being written
        if not _complete(folder):
            _store(folder, source, contiguous(table), table_name, made_by)
    _remember_table(source, data, cache, table_name)
    return table_name


def _made_by(source: Source) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "filter": [type(source.filter).__qualname__, vars(source.filter)],
        "split": [type(source.split).__qualname__, vars(source.split)],
    }


def _memo(source: Source, data: Path, cache: Path) -> Path | None:
    signature = source.signature(data)
    return None if signature is None else cache / "datasets" / "memo" / f"{key_of(signature)}.json"


def _known_table(source: Source, data: Path, cache: Path) -> str | None:
    memo = _memo(source, data, cache)
    known = _entry(memo, "table") if memo is not None else None
    return known if isinstance(known, str) else None


def _remember_table(source: Source, data: Path, cache: Path, table_name: str) -> None:
    if (memo := _memo(source, data, cache)) is not None:
        write_json(memo, {"table": table_name, "source": source.name})


def _entry(path: Path, key: str) -> Any:
    """A value of a stored JSON object; None where the file is missing, torn or of another shape: it is made again."""
    try:
        stored = read_json(path)
    except CacheError:
        return None
    return stored.get(key) if isinstance(stored, dict) else None


def _complete(folder: Path) -> bool:
    """A stored data set is used only whole: every file with the hash that the manifest gives."""
    files = _entry(folder / "manifest.json", "files")
    if not isinstance(files, dict):
        return False
    return all((folder / name).is_file() and file_hash(folder / name) == sha for name, sha in files.items())


def _store(folder: Path, source: Source, pairs: Pairs, table_name: str, made_by: dict[str, Any]) -> None:
    pairs = source.filter.apply(pairs)
    part = source.split.assign(pairs.user)
    n_users, n_items = len(pairs.user_ids), len(pairs.item_ids)
    _check_size(source.name, n_users, n_items, part)
    ensure_folder(folder)
    files = {}
    for number, name in enumerate(PARTS):
        chosen = part == number
        with atomic(folder / f"{name}.npy") as temporary, temporary.open("wb") as stream:
            np.save(stream, np.stack([pairs.user[chosen], pairs.item[chosen]], 1).astype(np.int32))
        frame = pd.DataFrame(
            {"user_id": pairs.user_ids[pairs.user[chosen]], "item_id": pairs.item_ids[pairs.item[chosen]]}, dtype=str
        )
        with atomic(folder / f"{name}.parquet") as temporary:
            frame.to_parquet(temporary, index=False)
    for name, ids in (("users", pairs.user_ids), ("items", pairs.item_ids)):
        with atomic(folder / f"{name}.parquet") as temporary:
            pd.DataFrame({"id": pd.Series(ids, dtype=str)}).to_parquet(temporary, index=False)
    for path in sorted(folder.glob("*.npy")) + sorted(folder.glob("*.parquet")):
        files[path.name] = file_hash(path)
    write_json(
        folder / "manifest.json",
        {
            "name": source.name,
            "table": table_name,
            "made_by": made_by,
            "n_users": n_users,
            "n_items": n_items,
            **{f"n_{name}": int((part == number).sum()) for number, name in enumerate(PARTS)},
            "files": files,
        },
    )


def _check_size(name: str, n_users: int, n_items: int, part: np.ndarray) -> None:
    for count, thing in ((n_users, "user"), (n_items, "item")):
        if count < 2:
            raise DataError(
                f"{name} has {count} {thing}",
                "a ranking of items for users needs at least two of each",
                "use a larger data set, or lower dataset.filter.user_min",
            )
    for number, part_name in enumerate(PARTS):
        if not (part == number).any():
            raise DataError(
                f"{name} has no {part_name} interactions after the split",
                "users with fewer than three items only train, so nothing is left to select or report on",
                "use a data set whose users have at least three items",
            )


def _open(folder: Path, name: str, groups: int, say: Say) -> Dataset:
    manifest = read_json(folder / "manifest.json")
    n_users, n_items = manifest["n_users"], manifest["n_items"]
    parts = []
    for part in PARTS:
        pairs = torch.from_numpy(np.load(folder / f"{part}.npy", allow_pickle=False)).long()
        parts.append(Interactions(pairs[:, 0].contiguous(), pairs[:, 1].contiguous(), n_users, n_items))
    train, valid, test = parts
    _check_disjoint(name, train, valid, test)
    popularity = train.popularity()
    full = int((train.user.bincount(minlength=n_users) >= n_items).sum())
    if full:
        say(f"warning: {full} users have seen every item; they are left out of training triples")
    return Dataset(
        name=name,
        train=train,
        valid=valid,
        test=test,
        popularity=popularity,
        group=popularity_groups(popularity, groups).to(torch.int8),
        user_ids=pd.read_parquet(folder / "users.parquet")["id"].to_numpy(object),
        item_ids=pd.read_parquet(folder / "items.parquet")["id"].to_numpy(object),
        fingerprint=key_of([manifest["table"], manifest["made_by"]]),
        folder=folder,
    )


def _check_disjoint(name: str, *parts: Interactions) -> None:
    key = torch.cat([part.user * part.n_items + part.item for part in parts])
    ordered = key.sort().values
    if (ordered[1:] == ordered[:-1]).any():
        raise DataError(
            f"{name}: train, valid and test share interactions",
            "a model that has seen a test interaction reports a leak, not a recommendation",
            "make the split disjoint, or let recdistill split",
        )
