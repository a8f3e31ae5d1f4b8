"""A split of one's own: train, valid and test in files of their own, used as given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from recdistill.dataset.collect import PART_NAMES
from recdistill.dataset.columns import Columns, Say
from recdistill.dataset.files import bare_name, forbidden, is_file, reading
from recdistill.dataset.readers import read
from recdistill.dataset.sniff import sniff
from recdistill.dataset.table import PARTS, Ids, RawTable
from recdistill.errors import DataError

ENDINGS = (".inter", ".csv", ".tsv", ".txt", ".dat", ".data", ".parquet", ".npz")
LISTED_AS = {"pairs", "triples", "users.dat"}  # what a part of a few short adjacency lists may look like


def find_parts(folder: Path) -> dict[str, Path]:
    """The files `train`, `valid` and `test` of a folder, with any ending that is known; also `NAME.train.inter`.

    Raises:
        DataError: train or test is missing, there are two files for one part, or the folder may not be read.
    """
    try:
        inside = sorted(folder.iterdir())
    except PermissionError as error:
        raise forbidden(folder, error) from error
    found: dict[str, Path] = {}
    for path in inside:
        name = bare_name(path)
        ending = next((ending for ending in ENDINGS if name.endswith(ending)), None)
        part = PART_NAMES.get(name.removesuffix(ending).split(".")[-1]) if ending else None
        if part is None or not is_file(path):
            continue
        if PARTS[part] in found:
            raise DataError(
                f"{folder} has two files of {PARTS[part]} interactions: {found[PARTS[part]].name} and {path.name}",
                "which one is meant cannot be told",
                "name the files: dataset.train=FILE dataset.valid=FILE dataset.test=FILE",
            )
        found[PARTS[part]] = path
    if "train" not in found or "test" not in found:
        there = ", ".join(path.name for path in inside[:12])
        raise DataError(
            f"{folder} has no {' and no '.join(part for part in ('train', 'test') if part not in found)} file; "
            f"it has {there or 'nothing'}",
            "a folder is read as a split of your own: train, test and, if there is one, valid",
            "point dataset.path at one file, or name the files: dataset.train=FILE dataset.test=FILE",
        )
    return {part: found[part] for part in PARTS if part in found}


def read_parts(files: Mapping[str, Path], *, format: str | None, columns: Columns, say: Say) -> RawTable:
    """Read the files of a split as one table that knows each row's part.

    Ratings and times are kept if all files have them.

    Raises:
        DataError: a file cannot be read, or the files are of different formats.
    """
    format = format or _common_format(files, columns)
    tables = {part: read(path, format=format, columns=columns, say=say) for part, path in files.items()}
    part = np.concatenate([np.full(len(table), PARTS.index(name), np.int8) for name, table in tables.items()])

    def joined(columns: list[np.ndarray | None]) -> np.ndarray | None:
        there = [column for column in columns if column is not None]
        return np.concatenate(there) if len(there) == len(columns) else None

    every = list(tables.values())
    return RawTable(
        Ids.joined([table.user for table in every]),
        Ids.joined([table.item for table in every]),
        joined([table.rating for table in every]),
        joined([table.timestamp for table in every]),
        part,
        every[0].format,
    )


def _common_format(files: Mapping[str, Path], columns: Columns) -> str | None:
    """The format of all parts: a part with lists of one length looks like pairs or triples beside other lists."""
    formats = {}
    for part, path in files.items():
        with reading(path):
            formats[part] = sniff(path, None, columns).format
    kinds = set(formats.values())
    if len(kinds) == 1:
        return None
    if "adjacency" in kinds and kinds <= {"adjacency", *LISTED_AS}:
        return "adjacency"
    looks = ", ".join(f"{files[part]} like {kind}" for part, kind in formats.items())
    raise DataError(
        f"the parts of the split look different: {looks}",
        "the parts of one split are of one format",
        "say what they are: dataset.format=",
    )
