"""From a source to a `Dataset`: parsed and split once, stored, then opened from disk."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from recdistill import __version__
from recdistill.dataset.catalog import Source
from recdistill.dataset.columns import Say
from recdistill.dataset.popularity import popularity_groups
from recdistill.dataset.splits import DROPPED, Ratio
from recdistill.dataset.table import PARTS, Pairs, contiguous, pairs_hash
from recdistill.errors import CacheError, DataError
from recdistill.store import atomic, ensure_folder, file_hash, key_of, locked, read_json, write_json
from recdistill.types import Dataset, Interactions

FORMAT_VERSION = 1  # of what is stored: part of the fingerprint
LAYOUT = 2  # of how it is stored: names the folder, not the data


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
    table_name = _known_table(_memo(source, data, cache))
    if table_name is None or not _complete(_folder(cache, table_name, made_by)):
        # by the source's name alone: whatever their splits, two processes must not fetch one file at once
        with locked(cache / "datasets" / key_of(["source", source.name]), f"data set {source.name}", say):
            table_name = _made(source, data, cache, made_by, say)
    return _open(_folder(cache, table_name, made_by), source.name, groups, say)


def _folder(cache: Path, table_name: str, made_by: dict[str, Any]) -> Path:
    return cache / "datasets" / key_of([table_name, made_by, LAYOUT])


def _made(source: Source, data: Path, cache: Path, made_by: dict[str, Any], say: Say) -> str:
    """Read and store a data set, unless another process just did; returns the hash of its table."""
    memo = _memo(source, data, cache)  # before reading: what a file becomes meanwhile is not what was read
    known = _known_table(memo)
    if known is not None and _complete(_folder(cache, known, made_by)):
        return known
    pairs = contiguous(source.table(data, cache / "downloads", say))
    table_name = pairs_hash(pairs, ratings=_by_rating(source))
    folder = _folder(cache, table_name, made_by)
    with locked(folder, f"data set {source.name}", say):  # so that nobody prunes what is being written
        if not _complete(folder):
            _store(folder, source, pairs, table_name, made_by, say)
    memo = memo or _memo(source, data, cache)  # there is one now if it was fetched
    if memo is not None:
        write_json(memo, {"table": table_name, "source": source.name})
    return table_name


def _made_by(source: Source) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "filter": source.filter.made_by(),
        "split": source.split.made_by(),
    }


def _memo(source: Source, data: Path, cache: Path) -> Path | None:
    signature = source.signature(data, cache / "downloads")
    if signature is None:
        return None
    # another version may read the same file otherwise
    key = key_of([__version__, signature, "ratings" if _by_rating(source) else None])
    return cache / "datasets" / "memo" / f"{key}.json"


def _by_rating(source: Source) -> bool:
    return source.filter.rating_min is not None


def _known_table(memo: Path | None) -> str | None:
    known = _entry(memo, "table") if memo is not None else None
    return known if isinstance(known, str) else None


def _entry(path: Path, key: str) -> Any:
    """A value of a stored JSON object; None where the file is missing, torn or of another shape: it is made again."""
    try:
        stored = read_json(path)
    except CacheError:
        return None
    return stored.get(key) if isinstance(stored, dict) else None


def _complete(folder: Path) -> bool:
    """A stored data set is used only whole: every file with the hash that the manifest gives.

    A file is hashed once; while its size and time stay what they were then, it is taken for whole.
    """
    files = _entry(folder / "manifest.json", "files")
    if not isinstance(files, dict) or not all((folder / name).is_file() for name in files):
        return False
    state = {name: _state(folder / name) for name in files}
    if _entry(folder / "checked.json", "files") != state:
        if any(file_hash(folder / name) != sha for name, sha in files.items()):
            return False
        with suppress(CacheError):  # a note: in a folder that cannot be written the files are hashed each time
            write_json(folder / "checked.json", {"files": state})
    return True


def _state(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _store(folder: Path, source: Source, pairs: Pairs, table_name: str, made_by: dict[str, Any], say: Say) -> None:
    pairs, part = _split(source, pairs, say)
    n_users, n_items = len(pairs.user_ids), len(pairs.item_ids)
    _check_size(source.name, n_users, n_items, part, own=pairs.part is not None)
    ensure_folder(folder)
    user, item = pairs.user.astype(np.int32), pairs.item.astype(np.int32)
    ids = {"user_id": pa.array(pairs.user_ids, pa.string()), "item_id": pa.array(pairs.item_ids, pa.string())}
    train = part == 0
    popularity = np.bincount(item[train], minlength=n_items)
    arrays = {"popularity": popularity}
    for number, name in enumerate(PARTS):
        chosen = part == number
        arrays[name] = np.stack([user[chosen], item[chosen]])
        columns = [
            pa.DictionaryArray.from_arrays(code, names) for code, names in zip(arrays[name], ids.values(), strict=True)
        ]
        _write_parquet(folder / f"{name}.parquet", pa.table(columns, names=list(ids)))
    for name, array in arrays.items():
        with atomic(folder / f"{name}.npy") as temporary, temporary.open("wb") as stream:
            np.save(stream, array)
    for name, column in (("users", ids["user_id"]), ("items", ids["item_id"])):
        _write_parquet(folder / f"{name}.parquet", pa.table({"id": column}))
    files = sorted([*folder.glob("*.npy"), *folder.glob("*.parquet")])
    write_json(
        folder / "manifest.json",
        {
            "name": source.name,
            "table": table_name,
            "made_by": made_by,
            "n_users": n_users,
            "n_items": n_items,
            **{f"n_{name}": arrays[name].shape[1] for name in PARTS},
            "n_dropped": int((part == DROPPED).sum()),
            "n_full": int((np.bincount(user[train], minlength=n_users) >= n_items).sum()),
            "files": {path.name: file_hash(path) for path in files},
        },
    )
    write_json(folder / "checked.json", {"files": {path.name: _state(path) for path in files}})


def _write_parquet(path: Path, table: pa.Table) -> None:
    with atomic(path) as temporary:  # without Arrow's schema, so that text is read as text and not as a dictionary
        pq.write_table(table, temporary, store_schema=False, write_statistics=False)


def _split(source: Source, pairs: Pairs, say: Say) -> tuple[Pairs, np.ndarray]:
    """The pairs that are kept, and the part of each; a split of one's own is used as given."""
    if pairs.part is None:
        pairs = source.filter.apply(pairs)
        return pairs, source.split.assign(pairs)
    given, default = vars(source.filter), vars(type(source.filter)())
    if given != default:
        changed = ", ".join(f"filter.{key}={value}" for key, value in given.items() if value != default.get(key))
        raise DataError(
            f"{source.name} has a split of its own, and {changed} would change it",
            "train, valid and test that are given are used as given",
            "leave dataset.filter as it is, or give one table and let recdistill filter and split it",
        )
    part = pairs.part.copy()
    train = np.flatnonzero(part == 0)
    if (part == 1).any():
        if source.split.made_by() != Ratio().made_by():
            raise DataError(
                f"{source.name} has train, valid and test of its own, and {type(source.split).__name__}"
                f"({_settings(source.split)}) would not be used",
                "train, valid and test that are given are used as given",
                "leave dataset/split and dataset.split as they are, or give one table and let recdistill split it",
            )
    else:
        chosen = source.split.assign(pairs.rows(train)) == 1
        part[train[chosen]] = 1
        say(
            f"{source.name} has no valid interactions of its own: {int(chosen.sum()):,} of {len(train):,} train "
            f"interactions are taken for it by {type(source.split).__name__}({_settings(source.split)})"
        )
    for column, ids, thing in ((pairs.user, pairs.user_ids, "users"), (pairs.item, pairs.item_ids, "items")):
        if unseen := int((np.bincount(column[part == 0], minlength=len(ids)) == 0).sum()):
            say(f"{source.name}: {unseen:,} of {len(ids):,} {thing} occur only in valid or test; they are kept")
    return pairs, part


def _settings(component: object) -> str:
    return ", ".join(f"{key}={value}" for key, value in vars(component).items())


def _check_size(name: str, n_users: int, n_items: int, part: np.ndarray, *, own: bool) -> None:
    for count, thing in ((n_users, "user"), (n_items, "item")):
        if count < 2:
            raise DataError(
                f"{name} has {count} {thing}",
                "a ranking of items for users needs at least two of each",
                "use a larger data set, or loosen dataset.filter: recdistill explain dataset/filter=default",
            )
    uses = {"train": "models are trained", "valid": "models are selected", "test": "results are reported"}
    for number, part_name in enumerate(PARTS):
        if not (part == number).any():
            mend = "use more data (users with few items only train), other shares or times of dataset.split, "
            mend += "or dataset.split.unseen=keep"
            raise DataError(
                f"{name} has no {part_name} interactions" + ("" if own else " after the split"),
                f"{uses[part_name]} on {part_name} interactions",
                "give train and test interactions (valid can be taken out of train)" if own else mend,
            )


def _open(folder: Path, name: str, groups: int, say: Say) -> Dataset:
    manifest = read_json(folder / "manifest.json")
    n_users, n_items = manifest["n_users"], manifest["n_items"]
    train, valid, test = (_interactions(_array(folder, part), n_users, n_items) for part in PARTS)
    popularity = torch.from_numpy(_array(folder, "popularity"))
    if dropped := manifest.get("n_dropped"):
        say(f"{dropped} held-out interactions of items or users without training interactions were dropped")
    if full := manifest["n_full"]:
        say(f"warning: {full} users have seen every item; they are left out of training triples")
    return Dataset(
        name=name,
        train=train,
        valid=valid,
        test=test,
        popularity=popularity,
        group=popularity_groups(popularity, groups).to(torch.int8),
        user_ids=_ids(folder, "users"),
        item_ids=_ids(folder, "items"),
        fingerprint=key_of([manifest["table"], manifest["made_by"]]),
        folder=folder,
    )


def _interactions(pairs: np.ndarray, n_users: int, n_items: int) -> Interactions:
    user, item = torch.from_numpy(pairs).long()
    return Interactions(user, item, n_users, n_items)


def _array(folder: Path, name: str) -> np.ndarray:
    array: np.ndarray = np.load(folder / f"{name}.npy", allow_pickle=False)
    return array


def _ids(folder: Path, name: str) -> np.ndarray:
    return np.array(pq.read_table(folder / f"{name}.parquet").column("id").to_pylist(), dtype=object)
