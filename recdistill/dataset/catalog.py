"""Data sets by name, and any file of one's own: each class says where its raw table comes from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from recdistill.dataset.archives import FetchFailed, unpack
from recdistill.dataset.columns import Columns, Say
from recdistill.dataset.fetch import download, from_package, no_source
from recdistill.dataset.filters import Filter
from recdistill.dataset.own_split import find_parts, read_parts
from recdistill.dataset.readers import read
from recdistill.dataset.splits import Split
from recdistill.dataset.table import PARTS, Ids, RawTable, table_hash
from recdistill.errors import DataError, require


class Source(ABC):
    """Where a data set comes from, which interactions are kept and how they are split."""

    checksum: ClassVar[str | None] = None  # SHA-256 of the canonical table, of bytes that were seen
    path: str | None = None  # one's own copy

    def __init__(self, *, name: str, filter: Filter, split: Split) -> None:
        """Store what all sources share."""
        self.name = name
        self.filter = filter
        self.split = split

    @abstractmethod
    def table(self, data: Path, downloads: Path, say: Say) -> RawTable:
        """Read the raw table, fetching it first where needed.

        Args:
            data: the user's folder of data sets (`paths.data`).
            downloads: where fetched files are kept.
            say: prints a line to the user.
        """

    def signature(self, data: Path) -> Any:
        """What identifies the raw table without reading it (JSON values), or None if only reading can tell."""
        return self.checksum if self.path is None else _file_signature(Path(self.path), self._kind())

    def _kind(self) -> str:
        """The class, since each reads and checks a file in its own way."""
        return f"{type(self).__module__}.{type(self).__qualname__}"

    def checked(self, table: RawTable) -> RawTable:
        """The table, if it is the one whose checksum is stored.

        Raises:
            DataError: it is another.
        """
        if self.checksum is not None and (found := table_hash(table)) != self.checksum:
            raise DataError(
                f"{self.name}: the table's SHA-256 is {found[:16]}..., not {self.checksum[:16]}...",
                "results under a data set's name are comparable only on the same interactions",
                "fetch the original again, or use dataset=file for a variant of your own",
            )
        return table

    def fetched(self, file: Path, read: Callable[[Path], RawTable]) -> RawTable:
        """The table of a file that was just fetched; one that is not the data set is removed, to be asked for again.

        Raises:
            FetchFailed: it is not the data set.
        """
        try:
            return self.checked(read(file))
        except DataError as error:
            file.unlink(missing_ok=True)
            raise FetchFailed(error.what) from error


class MovieLens100K(Source):
    """MovieLens 100K: 943 users, 1,682 items, 100,000 ratings; every rating is a positive.

    Citation: Harper and Konstan, "The MovieLens Datasets", ACM TiiS 5(4), 2015.

    Args:
        name: the data set's name in reports.
        path: `u.data` or a RecBole `.inter` file of one's own copy (null: looked for, then fetched).
        filter: which interactions are kept.
        split: how they are divided into train, valid and test.
    """

    checksum = "0bbca700a649ca4c76da3670f06b96ee6ca7bc21829ca8a1b61c90a5d8176ab1"
    url: ClassVar[str] = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
    package: ClassVar[str] = "recbole==1.2.1"
    terms: ClassVar[str] = (
        "MovieLens 100K is (c) GroupLens: research use, no redistribution, no commercial use without permission; "
        "cite Harper and Konstan 2015 (doi:10.1145/2827872)"
    )

    def __init__(self, *, name: str, path: str | None, filter: Filter, split: Split) -> None:
        """Store the settings."""
        super().__init__(name=name, filter=filter, split=split)
        self.path = path

    def table(self, data: Path, downloads: Path, say: Say) -> RawTable:
        """The 100,000 ratings: `path`, else `paths.data`, else GroupLens, else the package recbole."""
        names = ("u.data", "ml-100k.inter")
        file = Path(self.path) if self.path else _find(names, self.name, data, downloads)
        if file is None:
            return self._fetch(data, downloads, say)
        return self.checked(read(file, say=say))

    def _fetch(self, data: Path, downloads: Path, say: Say) -> RawTable:
        folder = downloads / self.name
        say(self.terms)
        tried = [f"nothing under {data}"]
        try:
            archive = folder / "ml-100k.zip"
            download(self.url, archive)
            try:
                unpack(archive, "ml-100k/u.data", folder / "u.data")
            finally:
                archive.unlink()
            return self.fetched(folder / "u.data", partial(read, say=say))
        except FetchFailed as error:
            tried.append(str(error))
        try:
            member = "recbole/dataset_example/ml-100k/ml-100k.inter"
            from_package(self.package, member, folder / "ml-100k.inter")
            return self.fetched(folder / "ml-100k.inter", partial(read, say=say))
        except FetchFailed as error:
            tried.append(str(error))
        raise no_source(self.name, tried, data / self.name, "u.data or ml-100k.inter")


class CiteULikeT(Source):
    """CiteULike-t: articles in personal libraries; the data set that most distillation papers call CiteULike.

    Citation: Wang, Chen, Li, "Collaborative Topic Regression with Social Regularization", IJCAI 2013.

    Args:
        name: the data set's name in reports.
        path: `users.dat` of one's own copy (null: looked for under paths.data, then fetched).
        reference_quirks: true adds one item per user, the length of the user's line, as the reader behind BD's
            published counts does (with dataset.filter.user_min=6).
        filter: which interactions are kept (the papers: at least 5 items).
        split: how they are divided into train, valid and test.
    """

    checksum = "7c27315afdfe46173e44fcbdfb723f754d0a331ca61fdd3cbb86cc106dfe289b"
    url: ClassVar[str] = "https://raw.githubusercontent.com/js05212/citeulike-t/master/users.dat"

    def __init__(
        self, *, name: str, path: str | None, reference_quirks: bool = False, filter: Filter, split: Split
    ) -> None:
        """Store the settings."""
        super().__init__(name=name, filter=filter, split=split)
        self.path = path
        self.reference_quirks = reference_quirks

    def signature(self, data: Path) -> Any:
        """As of any source; with the lengths of lines as items it is another table."""
        own = super().signature(data)
        return [own, "line lengths are items"] if self.reference_quirks and own is not None else own

    def table(self, data: Path, downloads: Path, say: Say) -> RawTable:
        """The 134,860 pairs of `users.dat`, and with `reference_quirks` one more per user."""
        table = self._original(data, downloads, say)
        return _with_line_lengths(table) if self.reference_quirks else table

    def _original(self, data: Path, downloads: Path, say: Say) -> RawTable:
        file = Path(self.path) if self.path else _find(("users.dat",), self.name, data, downloads)
        if file is None:
            file = downloads / self.name / "users.dat"
            try:
                say("CiteULike-t: no licence is stated; collected for research by Wang, Chen and Li (IJCAI 2013)")
                download(self.url, file)
                return self.fetched(file, partial(read, format="users.dat", say=say))
            except FetchFailed as error:
                tried = [f"nothing under {data}", str(error)]
                raise no_source(self.name, tried, data / self.name, "users.dat") from error
        return self.checked(read(file, format="users.dat", say=say))


class File(Source):
    """Interactions of one's own, in any of the formats that `recdistill.dataset.readers` knows.

    One table is filtered and split. A split of one's own is used as given: a folder that holds train, (valid,) test;
    the files one by one; or a table with a column that says the part of each row.

    Args:
        name: the data set's name in reports (null: the file's or the folder's name).
        path: the file, or a folder with a split of one's own.
        format: what the file or files are (null: recognised).
        columns: names of the columns, for files with a header.
        train: the training interactions, if they are in a file of their own.
        valid: the interactions that select the best epoch (null: taken out of train by `split`).
        test: the interactions that are reported on.
        filter: which interactions are kept.
        split: how they are divided into train, valid and test.
    """

    def __init__(
        self,
        *,
        name: str | None = None,
        path: str | None = None,
        format: str | None = None,
        columns: Columns | None = None,
        train: str | None = None,
        valid: str | None = None,
        test: str | None = None,
        filter: Filter,
        split: Split,
    ) -> None:
        """Check that there is one table, or train and test."""
        one = path is not None and train is None and valid is None and test is None
        parts = path is None and train is not None and test is not None
        require(
            one or parts, "path", path, "a file or a folder, or null with train=FILE and test=FILE (and valid=FILE)"
        )
        self.parts = {part: Path(file) for part, file in zip(PARTS, (train, valid, test), strict=True) if file}
        file = Path(path) if path is not None else self.parts["train"]
        super().__init__(name=name or file.name.split(".")[0], filter=filter, split=split)
        self.path = path
        self.format = format
        self.columns = columns or Columns()

    def _files(self) -> dict[str, Path]:
        """The files of a split of one's own; none if there is one table."""
        return find_parts(Path(self.path)) if self.path is not None and Path(self.path).is_dir() else self.parts

    def signature(self, data: Path) -> Any:
        """Path, size and time of each file, format and columns: they remember the hash of what was read."""
        files = self._files() or {"all": Path(str(self.path))}
        signatures = [_file_signature(file, part) for part, file in files.items()]
        if None in signatures:
            return None
        return [self._kind(), signatures, self.format, self.columns.wanted]

    def table(self, data: Path, downloads: Path, say: Say) -> RawTable:
        """Read the file or files."""
        if files := self._files():
            return read_parts(files, format=self.format, columns=self.columns, say=say)
        return read(Path(str(self.path)), format=self.format, columns=self.columns, say=say)


class Synthetic(Source):
    """Made-up data with a planted taste and a planted popularity bias, of any size.

    Score of item i for user u: taste * <a_u, b_i> / sqrt(rank) - popularity * log(place of i); each user takes the best
    items under Gumbel noise, so that the planted part can be learned and the rest cannot.

    Args:
        name: the data set's name in reports.
        n_users: number of users.
        n_items: number of items.
        n_interactions: about how many pairs in all; users' shares fall as a power law.
        rank: dimensions of the planted taste.
        taste: strength of the planted taste.
        popularity: strength of the planted popularity bias (0: none).
        seed: of the data.
        filter: which interactions are kept.
        split: how they are divided into train, valid and test.
    """

    def __init__(
        self,
        *,
        name: str = "synthetic",
        n_users: int = 500,
        n_items: int = 300,
        n_interactions: int = 10_000,
        rank: int = 8,
        taste: float = 3.0,
        popularity: float = 0.8,
        seed: int = 0,
        filter: Filter,
        split: Split,
    ) -> None:
        """Check the settings."""
        super().__init__(name=name, filter=filter, split=split)
        require(n_users >= 1, "n_users", n_users, ">= 1")
        require(n_items >= 1, "n_items", n_items, ">= 1")
        limit = f"from 1 to n_users * n_items = {n_users * n_items}"
        require(1 <= n_interactions <= n_users * n_items, "n_interactions", n_interactions, limit)
        require(rank >= 1, "rank", rank, ">= 1")
        require(taste >= 0, "taste", taste, ">= 0")
        require(popularity >= 0, "popularity", popularity, ">= 0")
        self.n_users, self.n_items, self.n_interactions = n_users, n_items, n_interactions
        self.rank, self.taste, self.popularity, self.seed = rank, taste, popularity, seed

    def signature(self, data: Path) -> Any:
        """The settings make the data."""
        return [
            "synthetic-2", self.n_users, self.n_items, self.n_interactions,
            self.rank, self.taste, self.popularity, self.seed,
        ]  # fmt: skip

    def table(self, data: Path, downloads: Path, say: Say) -> RawTable:
        """Draw the interactions, in blocks of users that hold at most about 64 MiB of scores."""
        random = np.random.default_rng(self.seed)
        activity = np.arange(1, self.n_users + 1) ** -0.6
        share = self.n_interactions * activity / activity.sum()
        count = np.clip(np.round(share), min(5, self.n_items), self.n_items).astype(np.int64)
        random.shuffle(count)
        user_taste = random.standard_normal((self.n_users, self.rank))
        item_taste = random.standard_normal((self.n_items, self.rank))
        bias = -self.popularity * np.log(random.permutation(self.n_items) + 1.0)
        users, items = [], []
        block = max(1, (1 << 23) // self.n_items)
        for first in range(0, self.n_users, block):
            some = slice(first, min(first + block, self.n_users))
            score = self.taste / np.sqrt(self.rank) * user_taste[some] @ item_taste.T + bias
            score += random.gumbel(size=score.shape)
            order = np.argsort(-score, axis=1)
            taken = np.arange(self.n_items) < count[some, None]
            users.append(np.repeat(np.arange(some.start, some.stop), count[some]))
            items.append(order[taken])
        return RawTable(Ids.of_numbers(np.concatenate(users)), Ids.of_numbers(np.concatenate(items)))


def _with_line_lengths(table: RawTable) -> RawTable:
    """A table with one more row per user, whose item is the number of the user's rows."""
    lengths = Ids.of(np.bincount(table.user.code).astype(str).astype(object))
    users = Ids(np.arange(len(table.user.names), dtype=np.int32), table.user.names)
    return RawTable(Ids.joined([table.user, users]), Ids.joined([table.item, lengths]))


def _file_signature(path: Path, *more: Any) -> Any:
    """Path, size and time of a file; None if it is not there, which reading it will say."""
    if not path.is_file():
        return None
    status = path.stat()
    return [str(path.resolve()), status.st_size, status.st_mtime_ns, *more]


def _find(names: tuple[str, ...], dataset: str, *folders: Path) -> Path | None:
    """The first of the files that lies in a data set's folder, in `original/` or `raw/` below it, or beside it."""
    for folder in folders:
        for place in (folder / dataset, folder / dataset / "original", folder / dataset / "raw", folder):
            for name in names:
                if (place / name).is_file():
                    return place / name
    return None
