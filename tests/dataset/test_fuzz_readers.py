"""Whatever bytes a file holds, reading gives a table or a `RecDistillError`, and nothing else."""

from __future__ import annotations

import random
from pathlib import Path

import pandas as pd
import pytest
import scipy.sparse

from recdistill.dataset.columns import Columns
from recdistill.dataset.readers import read
from recdistill.dataset.sniff import FORMATS
from recdistill.dataset.table import contiguous, pairs_hash
from recdistill.errors import RecDistillError
from table_files import ROWS, SHARED, text, zstd

ENDINGS = (".csv", ".tsv", ".txt", ".inter", ".dat", ".data", ".parquet", ".npz", ".gz", ".zst", "")
MARKS = (b"\n", b"\r", b",", b"\t", b" ", b":", b'"', b"#", b"-1", b"nan", b"\x00", b"9" * 30)
REAL = (
    "ml-100k/original/u.data",
    "ml-100k/original/recbole/ml-100k/ml-100k.inter",
    "citeulike-t/original/users.dat",
    "citeulike-t/derrd_loo/valid.tsv.gz",
    "lastfm-hetrec/original/lightgcn_adjacency/valid.txt",
    "lastfm-hetrec/original/lightgcn_triples/test1.txt",
)


def samples(folder: Path) -> list[tuple[str, bytes]]:
    """Name and content of a small file of each format; of public data the first 3,000 bytes, if not compressed."""
    marks = {"a.csv": ",", "a.tsv": "\t", "german.csv": ";", "blanks.txt": " "}
    found = [(name, text(mark)) for name, mark in marks.items()]
    found += [("ratings.dat", b"1::2::3::4\n" * 9), ("a.csv.zst", zstd(text(",") * 9))]
    frame = pd.DataFrame(ROWS * 9, columns=["user_id", "item_id", "rating", "timestamp"])
    for compression in ("snappy", "none"):
        frame.to_parquet(folder / "a.parquet", compression=compression)
        found.append(("a.parquet", (folder / "a.parquet").read_bytes()))
    for kind in ("csr", "coo"):
        matrix = scipy.sparse.random(9, 7, 0.4, format=kind, rng=0)
        scipy.sparse.save_npz(folder / "a.npz", matrix, compressed=kind == "csr")
        found.append(("a.npz", (folder / "a.npz").read_bytes()))
    for name in REAL if SHARED.is_dir() else ():
        content = (SHARED / name).read_bytes()
        if not name.endswith(".gz"):
            content = content[: content.index(b"\n", 3000) + 1]
        found.append((Path(name).name, content))
    return found


def mutated(content: bytes, others: list[tuple[str, bytes]], draw: random.Random) -> bytes:
    """A file with up to five accidents: bytes changed, lost, doubled, put in, cut off, or taken from another file."""
    whole = bytearray(content)
    for _ in range(draw.choice((0, 1, 1, 2, 5))):
        start = draw.randint(0, len(whole))
        end = min(len(whole), start + draw.choice((1, 2, 8, 200)))
        match draw.randint(0, 6):
            case 0 if whole:
                whole[start % len(whole)] ^= 1 << draw.randint(0, 7)
            case 1:
                del whole[start:end]
            case 2:
                whole[start:start] = whole[start:end]
            case 3:
                whole[start:start] = draw.randbytes(draw.choice((1, 4, 40)))
            case 4:
                del whole[start:]
            case 5:
                other = draw.choice(others)[1]
                place = draw.randint(0, len(other))
                whole[start:end] = other[place : place + 100]
            case _:
                whole[start:end] = draw.choice(MARKS)
    return bytes(whole)


def check(cases: int, seed: int, folder: Path) -> tuple[int, int]:
    """How many cases gave a table, and how many an error; whatever else is raised names the case."""
    draw, found = random.Random(seed), samples(folder)
    tables = errors = 0
    for case in range(cases):
        name, content = draw.choice(found)
        content = draw.randbytes(draw.randint(0, 300)) if case % 5 == 0 else mutated(content, found, draw)
        format = None
        if draw.random() < 0.3:  # another name, and perhaps a format
            name = f"{draw.choice(('a', 'users', 'u', 'ratings'))}{draw.choice(ENDINGS)}"
            format = draw.choice([None, *FORMATS])
        path = folder / name
        path.write_bytes(content)
        columns = Columns(split="split", timestamp="timestamp") if draw.random() < 0.1 else Columns()
        try:
            pairs_hash(contiguous(read(path, format=format, columns=columns, say=lambda line: None)))
            tables += 1
        except RecDistillError as error:
            assert all((error.what, error.why, error.fix))
            errors += 1
        except Exception as error:
            kept = folder / "case"
            kept.write_bytes(content)
            raise AssertionError(f"case {case} of seed {seed} ({path.name} as {format}), kept in {kept}") from error
        path.unlink()
    return tables, errors


def test_any_bytes_give_a_table_or_an_error_that_says_what_is_wrong(tmp_path: Path) -> None:
    tables, errors = check(500, 0, tmp_path)
    assert min(tables, errors) > 50  # mutations are mild enough to be read, and wild enough not to be


@pytest.mark.slow
def test_a_hundred_thousand_files_of_any_bytes_give_a_table_or_an_error(tmp_path: Path) -> None:
    assert min(check(100_000, 1, tmp_path)) > 10_000
