"""What a file is, by its name and its first bytes and lines."""

from __future__ import annotations

import codecs
import csv
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recdistill.dataset.columns import POSITIONS, Columns, is_header, is_typed
from recdistill.dataset.files import bare_name, empty, not_utf8, open_file
from recdistill.errors import ConfigError, DataError, nearest

HEAD = 1 << 16  # bytes that are looked at
LISTS = ("adjacency", "users.dat")
FORMATS = {
    "inter": "RecBole .inter",
    "adjacency": "LightGCN adjacency lists (user item item ...)",
    "pairs": "pairs without a header",
    "triples": "triples without a header",
    "users.dat": "CiteULike users.dat (count item item ...)",
    "u.data": "MovieLens u.data",
    "ratings.dat": "MovieLens ratings.dat",
    "csv": "CSV",
    "tsv": "TSV",
    "parquet": "Parquet",
    "npz": "SciPy .npz",
}
SEPARATORS = {"inter": "\t", "tsv": "\t", "u.data": "\t", "ratings.dat": "::"}
WIDTHS = {"pairs": (2,), "triples": (3,), "u.data": (4,), "ratings.dat": (3, 4)}
PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".joblib", ".npy")


@dataclass(frozen=True)
class Layout:
    """How a file is read.

    Attributes:
        format: one of `FORMATS`.
        separator: between fields (text with fields only).
        header: the names in the first line; None if the columns are told by their place.
        width: number of fields.
        skip: lines before the first row.
    """

    format: str
    separator: str = ""
    header: tuple[str, ...] | None = None
    width: int = 0
    skip: int = 0


def sniff(path: Path, format: str | None, columns: Columns) -> Layout:
    """Recognise a file; a `format` that is given is believed, and only the rest is found out.

    Raises:
        ConfigError: there is no such format.
        DataError: the file is of no known format, a pickle, empty or not UTF-8.
    """
    if format is not None and format not in FORMATS:
        raise ConfigError(
            f"dataset.format={format} is not a format{nearest(format, FORMATS)}",
            f"the formats are {', '.join(FORMATS)}",
            "choose one of them, or leave dataset.format out: most files are recognised",
        )
    with path.open("rb") as stream:
        first = stream.read(8)
    _refuse_pickle(path, first)
    if format in ("parquet", "npz"):
        return Layout(format)
    if first.startswith(b"PAR1") and format is None:
        return Layout("parquet")
    if first.startswith(b"PK\x03\x04") and format is None:
        return Layout(_zip_kind(path))
    lines, skip = _head(path)
    return _text_layout(path, lines, skip, format, columns)


def _refuse_pickle(path: Path, first: bytes) -> None:
    ending = next((suffix for suffix in path.suffixes if suffix.lower() in PICKLES), None)
    if ending or (first[:1] == b"\x80" and first[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")):
        raise DataError(
            f"{path} is {'a pickle' if not ending else f'a {ending} file, which may hold a pickle'}: it is not read",
            "unpickling runs whatever code the file's author put into it",
            "write the table as CSV or Parquet, a sparse matrix with scipy.sparse.save_npz, "
            "where you trust the file: pandas.read_pickle(FILE).to_csv(NEW)",
        )


def _zip_kind(path: Path) -> str:
    """`npz`, if a zip archive holds arrays."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise _unknown(path, f"a zip archive that cannot be read: {error}") from error
    if any(name.endswith(".npy") for name in names):
        return "npz"
    if any(name.endswith("data.pkl") for name in names):
        _refuse_pickle(path, b"\x80\x02")
    inside = ", ".join(name[:40] for name in names[:5])
    raise _unknown(path, f"a zip archive of {inside or 'nothing'}; if the data are in it, unpack it first")


def _unknown(path: Path, because: str) -> DataError:
    return DataError(
        f"{path} is of no format that is known: {because}",
        f"the formats are {', '.join(FORMATS)}",
        "say what it is with dataset.format=, or convert it to a .csv, .tsv or .parquet file with a header line",
    )


def _head(path: Path) -> tuple[list[str], int]:
    """The first lines that are neither blank nor comments, and how many lines stand before them."""
    with open_file(path) as stream:
        content = stream.read(HEAD + 1)
    whole = len(content) <= HEAD
    for name, mark in (
        ("UTF-32", codecs.BOM_UTF32_LE),
        ("UTF-16", codecs.BOM_UTF16_LE),
        ("UTF-16", codecs.BOM_UTF16_BE),
    ):
        if content.startswith(mark):
            raise _other_encoding(path, f"it is {name}", name)
    if b"\x00" in content:
        even, odd = content[::2].count(0), content[1::2].count(0)
        if max(even, odd) > len(content) // 4:
            raise _other_encoding(
                path, "every other byte is zero, as in UTF-16", "UTF-16LE" if odd > even else "UTF-16BE"
            )
        raise _unknown(path, "it holds zero bytes, so it is no text")
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(content, final=whole)
    except UnicodeDecodeError as error:
        raise not_utf8(path, f"{error.reason} at byte {error.start}") from error
    lines = re.split("\r\n|\n|\r", text)
    if not whole and len(lines) > 1:
        lines.pop()  # cut in the middle
    skip = 0
    while skip < len(lines) and (not lines[skip].strip() or lines[skip].startswith(("#", "%"))):
        skip += 1
    rows = [line for line in lines[skip:] if line.strip()]
    if not rows:
        raise empty(path)
    return rows, skip


def _other_encoding(path: Path, because: str, name: str) -> DataError:
    error = not_utf8(path, because)
    return DataError(error.what, error.why, error.fix.replace("latin1", name.lower()))


def _text_layout(path: Path, rows: list[str], skip: int, format: str | None, columns: Columns) -> Layout:
    name = bare_name(path)
    if format is None:
        format = _by_name(name)
    if format in LISTS:
        return Layout(format, skip=skip)
    separator = SEPARATORS.get(format or "") or _separator(name, rows, format)
    if separator is None:
        format = _lists(path, name, rows, format)
        if format in LISTS:
            return Layout(format, skip=skip)
        separator = " "
    fields = _fields(rows[0], separator)
    if format is None:
        format = _with_fields(fields, separator, columns)
    width = len(fields)
    if format in WIDTHS and not (format in ("pairs", "triples") and is_header(fields, columns)):
        if width not in WIDTHS[format]:
            raise DataError(
                f"{path} has {width} columns, not {' or '.join(map(str, WIDTHS[format]))}",
                f"{FORMATS[format]} holds {', '.join(POSITIONS[: WIDTHS[format][-1]])} in this order",
                "point dataset.path at the original file, or say what it is with dataset.format=",
            )
        return Layout(format, separator, None, width, skip)
    if format in ("csv", "tsv") and 2 <= width <= 4 and not is_header(fields, columns) and all(map(_is_number, fields)):
        return Layout(format, separator, None, width, skip)
    return Layout(format, separator, tuple(fields), width, skip + 1)


def _by_name(name: str) -> str | None:
    if name.endswith(".inter"):
        return "inter"
    return name if name in ("users.dat", "u.data") else None


def _separator(name: str, rows: Sequence[str], format: str | None) -> str | None:
    """What stands between the fields of each line; None for blanks."""
    order = ["::", "\t", ",", ";", "|"]
    if name.endswith(".csv") or format == "csv":
        order = [",", ";", "|", "\t"]
    there = [mark for mark in order if mark in rows[0]]
    even = [mark for mark in there if len({row.count(mark) for row in rows}) == 1]
    return next(iter([*even, *there]), "," if format == "csv" or name.endswith(".csv") else None)


def _lists(path: Path, name: str, rows: Sequence[str], format: str | None) -> str:
    """Of lines of words with blanks between them: lists, pairs, triples, or a table with a header."""
    if format is not None:
        return format
    tokens = [row.split() for row in rows]
    widths = {len(line) for line in tokens}
    if not all(token.isascii() and token.isdigit() for line in tokens[1:] or tokens for token in line):
        if len(tokens) > 1 and len(widths) == 1 and max(widths) > 1:
            return "csv"
        raise _unknown(path, f"its first line is {rows[0][:60]!r}")
    if not tokens[0][0].isdigit():
        return "csv"
    counted = all(int_text(line[0]) == str(len(line) - 1) for line in tokens)
    if counted and (len(widths) > 1 or "users" in name):
        return "users.dat"
    ordered = len(tokens) > 1 and all(int_text(line[0]) == str(place) for place, line in enumerate(tokens))
    if widths == {2}:
        return "pairs"
    if widths == {3} and not ordered:  # SELFRec's triples; users 0, 1, 2, ... with one line each are lists
        return "triples"
    if widths == {1}:
        raise _unknown(path, f"its lines hold one number each, such as {rows[0][:60]!r}")
    return "adjacency"


def int_text(digits: str) -> str:
    """A number's text without leading zeros; digits of any length, which int() does not take."""
    return digits.lstrip("0") or "0"


def _with_fields(fields: Sequence[str], separator: str, columns: Columns) -> str:
    if any(map(is_typed, fields)) and separator == "\t":
        return "inter"
    if separator == "::":
        return "ratings.dat"
    if not is_header(fields, columns) and all(map(_is_number, fields)):
        if separator == "\t" and len(fields) in (2, 3, 4):
            return {2: "pairs", 3: "triples", 4: "u.data"}[len(fields)]
        if separator == " " and len(fields) in (2, 3):
            return {2: "pairs", 3: "triples"}[len(fields)]
    return "tsv" if separator == "\t" else "csv"


def _fields(row: str, separator: str) -> list[str]:
    """The fields of a first line, without quotes."""
    if separator == " ":
        return row.split()
    fields = row.split(separator) if separator == "::" else next(csv.reader([row], delimiter=separator))
    return [field.strip() for field in fields]


def _is_number(field: str) -> bool:
    return re.fullmatch(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?", field.strip(), re.ASCII) is not None
