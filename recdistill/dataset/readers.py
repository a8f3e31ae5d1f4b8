"""Readers: one function per format, and `read`, which recognises the format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from recdistill.dataset.collect import Block, collect
from recdistill.dataset.columns import POSITIONS, Columns, Say, find_columns
from recdistill.dataset.files import open_file, reading
from recdistill.dataset.matrices import read_matrix
from recdistill.dataset.sniff import FORMATS, Layout, int_text, sniff
from recdistill.dataset.table import RawTable
from recdistill.errors import DataError

BLOCK = 1 << 25  # bytes of text that are parsed at once
ROWS = 1 << 20  # of a Parquet file that are read at once


def read(
    path: Path,
    *,
    format: str | None = None,
    columns: Columns | None = None,
    extras: bool = True,
    say: Say = print,
) -> RawTable:
    """Read a table of interactions in any of the `FORMATS`, each also as `.gz` or `.zst` where it is text.

    Args:
        path: the file.
        format: what it is; None: recognised by its name and its first bytes and lines.
        columns: names of the columns, for formats with a header.
        extras: whether ratings and times that were not named are read where they are found.
        say: prints a line to the user: what the file was recognised as.

    Raises:
        DataError: the file is missing, empty, broken, of no known format or a pickle, or a column is not there.
        ConfigError: there is no such format.
    """
    columns = columns or Columns()
    with reading(path):
        layout = sniff(path, format, columns)
        return replace(READERS[layout.format](path, layout, columns, extras, say), format=layout.format)


def read_separated(path: Path, layout: Layout, columns: Columns, extras: bool, say: Say) -> RawTable:
    """Read text whose lines are rows of separated fields: all formats but lists and binary ones."""
    if layout.header is None:
        place = {role: number for number, role in enumerate(POSITIONS[: layout.width])}
        strict = {"rating", "timestamp"}
        _say_as(say, path, layout, list(place))
    else:
        place = find_columns(path, layout.header, columns, extras=extras, say=say)
        strict = {role for role, name in columns.wanted.items() if name is not None}
        _say_as(say, path, layout, [layout.header[number] for number in place.values()])
    with suppress(pa.ArrowInvalid):  # a fifth faster; but what is wrong with a number is told only from its text
        return collect(
            path, _fields(path, layout, place, {"rating": pa.float64(), "timestamp": pa.int64()}), strict, say
        )
    return collect(path, _fields(path, layout, place, {}), strict, say)


def _fields(path: Path, layout: Layout, place: dict[str, int], kinds: dict[str, pa.DataType]) -> Iterator[Block]:
    """Blocks of a text file's columns, as text but for the `kinds` that are given."""
    double = layout.separator == "::"  # Arrow splits at one character: an empty field stands between two
    names = [str(number) for number in range(2 * layout.width - 1 if double else layout.width)]
    column = {role: names[2 * number if double else number] for role, number in place.items()}
    between = names[1::2] if double else []
    with open_file(path) as stream:
        blocks = pa_csv.open_csv(
            stream,
            read_options=pa_csv.ReadOptions(
                use_threads=False, block_size=BLOCK, skip_rows=layout.skip, column_names=names
            ),
            parse_options=pa_csv.ParseOptions(
                delimiter=layout.separator[0],
                quote_char='"' if layout.header is not None else False,
                newlines_in_values=not kinds,  # slower: only in the second attempt
            ),
            convert_options=pa_csv.ConvertOptions(
                include_columns=[*column.values(), *between],
                column_types={
                    **dict.fromkeys(names, pa.string()),
                    **{name: kinds[role] for role, name in column.items() if role in kinds},
                },
                null_values=[],
            ),
        )
        for block in blocks:
            for name in between:
                if pc.any(pc.not_equal(block.column(name), "")).as_py():
                    raise pa.ArrowInvalid("a field holds a single ':', but fields are separated by '::'")
            yield {role: block.column(name) for role, name in column.items()}


def read_lists(path: Path, layout: Layout, columns: Columns, extras: bool, say: Say) -> RawTable:
    """Read LightGCN adjacency lists: `user item item ...`, blanks between them; a user alone has no items."""
    _say_as(say, path, layout)

    def blocks() -> Iterator[Block]:
        for _, width, token, start in _token_lines(path, layout.skip):
            user = np.repeat(start, np.maximum(width - 1, 0))
            items = np.ones(len(token), dtype=bool)
            items[start] = False
            yield {"user": token.take(pa.array(user)), "item": token.filter(pa.array(items))}

    return collect(path, blocks(), (), say)


def read_users_dat(path: Path, layout: Layout, columns: Columns, extras: bool, say: Say) -> RawTable:
    """Read CiteULike `users.dat`: line k holds the library of user k, `count item item ...`.

    The first number of a line is the library's size, not an item; it is checked against the line.

    Raises:
        DataError: a line's count does not match.
    """
    _say_as(say, path, layout)

    def blocks() -> Iterator[Block]:
        for line, width, token, start in _token_lines(path, layout.skip):
            for number, length, count in zip(line, width, token.take(pa.array(start)).to_pylist(), strict=True):
                if not (count.isascii() and count.isdigit()) or int_text(count) != str(length - 1):
                    raise DataError(
                        f"{path}, line {number + 1}: the count says {count[:20]!r}, but {length - 1} items follow",
                        "each line of users.dat starts with the number of items that follow",
                        "the file is probably cut short or of another format: fetch it again, or say what it is "
                        "with dataset.format=",
                    )
            items = np.ones(len(token), dtype=bool)
            items[start] = False
            yield {"user": pa.array(np.repeat(line, width - 1)), "item": token.filter(pa.array(items))}

    return collect(path, blocks(), (), say)


def _token_lines(path: Path, skip: int) -> Iterator[tuple[np.ndarray, np.ndarray, pa.StringArray, np.ndarray]]:
    """Blocks of lines of words: line numbers [n], words per line [n], all words, place of each line's first word [n].

    Lines without words are left out, but counted.
    """
    number, rest = 0, b""
    with open_file(path) as stream:
        while content := stream.read(BLOCK):
            lines = (rest + content).splitlines(keepends=True)
            rest = b"" if len(lines[-1]) == 0 else lines.pop()
            yield from _tokens(lines, number, skip)
            number += len(lines)
    yield from _tokens([rest], number, skip)


def _tokens(
    lines: list[bytes], number: int, skip: int
) -> Iterator[tuple[np.ndarray, np.ndarray, pa.StringArray, np.ndarray]]:
    text = pa.array([line.decode().removeprefix("\ufeff").strip() for line in lines], pa.string())
    line = np.arange(number, number + len(lines))
    kept = np.asarray(pc.not_equal(text, "")) & (line >= skip)
    if kept.any():
        words = pc.utf8_split_whitespace(text.filter(pa.array(kept)))
        width = pc.list_value_length(words).to_numpy()
        yield line[kept], width, words.flatten(), np.cumsum(width) - width


def read_parquet(path: Path, layout: Layout, columns: Columns, extras: bool, say: Say) -> RawTable:
    """Read a Parquet file in blocks of rows."""
    with pq.ParquetFile(path) as file:
        header = file.schema_arrow.names
        place = find_columns(path, header, columns, extras=extras, say=say)
        _say_as(say, path, layout, [header[number] for number in place.values()])
        names = {role: header[number] for role, number in place.items()}
        blocks = (
            {role: block.column(name) for role, name in names.items()}
            for block in file.iter_batches(ROWS, columns=list(names.values()), use_threads=False)
        )
        return collect(path, blocks, {role for role, name in columns.wanted.items() if name is not None}, say)


def read_npz(path: Path, layout: Layout, columns: Columns, extras: bool, say: Say) -> RawTable:
    """Read a matrix that `scipy.sparse.save_npz` wrote: users are rows, items are columns; zeros do not count."""
    _say_as(say, path, layout)
    row, column, value = read_matrix(path)
    kept = value != 0
    block = {"user": pa.array(row[kept]), "item": pa.array(column[kept]), "rating": pa.array(value[kept])}
    return collect(path, [block], (), say)


def _say_as(say: Say, path: Path, layout: Layout, names: list[str] | None = None) -> None:
    separator = {",": "", "\t": "", "::": ""}.get(layout.separator, f" separated by {layout.separator!r}")
    separator = separator if layout.separator else ""
    kind = FORMATS[layout.format] + (separator if layout.format == "csv" else "")
    if layout.format in ("csv", "tsv") and layout.header is None:
        kind += " without a header"
    say(f"{path.name}: read as {kind}" + (f" ({', '.join(names)})" if names else ""))


Reader = Callable[[Path, Layout, Columns, bool, Say], RawTable]
READERS: dict[str, Reader] = {
    **dict.fromkeys(FORMATS, read_separated),
    "adjacency": read_lists,
    "users.dat": read_users_dat,
    "parquet": read_parquet,
    "npz": read_npz,
}
