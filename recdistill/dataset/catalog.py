"""Where data sets come from: any file of one's own, and made-up data; those with a name are in `named`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from recdistill.dataset.columns import Columns, Say
from recdistill.dataset.files import is_file, is_folder
from recdistill.dataset.filters import Filter
from recdistill.dataset.own_split import find_parts, read_parts
from recdistill.dataset.readers import read
from recdistill.dataset.splits import Split
from recdistill.dataset.table import PARTS, Ids, RawTable
from recdistill.errors import require


class Source(ABC):
    """Where a data set comes from, which interactions are kept and how they are split."""

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

    @abstractmethod
    def signature(self, data: Path, downloads: Path) -> Any:
        """What identifies the raw table without reading it (JSON values), or None if only reading can tell.

        Args:
            data: the user's folder of data sets (`paths.data`).
            downloads: where fetched files are kept.
        """

    def kind(self) -> str:
        """The class, since each reads and checks a file in its own way."""
        return f"{type(self).__module__}.{type(self).__qualname__}"


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
        return find_parts(Path(self.path)) if self.path is not None and is_folder(Path(self.path)) else self.parts

    def signature(self, data: Path, downloads: Path) -> Any:
        """Path, size and times of each file, format and columns: they remember the hash of what was read."""
        files = self._files() or {"all": Path(str(self.path))}
        signatures = [file_signature(file, part) for part, file in files.items()]
        if None in signatures:
            return None
        return [self.kind(), signatures, self.format, self.columns.wanted]

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

    def signature(self, data: Path, downloads: Path) -> Any:
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


def file_signature(path: Path, *more: Any) -> Any:
    """Path, size and times of a file; None if it is not there, which reading it will say."""
    if not is_file(path):
        return None
    status = path.stat()
    # the time of change too: copying tools set the other one back, which here would bring back the old data
    return [str(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ctime_ns, *more]
