from __future__ import annotations

import io
import os
import pty
import subprocess
import sys

import pytest

from recdistill.report.tables import cell, print_table, run_rows

SCRIPT = """
import json, sys
from recdistill.report.tables import print_table
title, columns, rows = json.loads(sys.argv[1])
print_table(title, columns, rows)
"""


def printed(columns: list[str], rows: list[list[object]], title: str = "title", encoding: str | None = None) -> str:
    if encoding is None:
        stream = io.StringIO()
        print_table(title, columns, rows, stream)
        return stream.getvalue()
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    print_table(title, columns, rows, stream)
    stream.flush()
    return raw.getvalue().decode(encoding)


def results(split: str = "test") -> dict[str, object]:
    """A run with large models and two popularity groups, its models out of order."""
    names = [
        f"{split}/ndcg@20",
        f"{split}/recall@20",
        f"{split}/poplift@20",
        f"{split}/recall@20/group=0",
        f"{split}/recall@20/group=1",
    ]
    entry = {"kind": "lightgcn", "dim": 128, "parameters": 3_456_789, "metrics": dict.fromkeys(names, 0.123456)}
    popular = entry | {"kind": "mostpop", "dim": None, "parameters": 0}
    models = {"mostpop": popular, "student": entry, "scratch": entry, "teacher": entry, "other": entry}
    return {"models": models, "config": {"evaluation": {"test": split == "test"}}}


def test_a_table_in_a_pipe_is_never_cut() -> None:
    long = ["word " * 30 + "end", "x" * 300]
    text = printed([*(f"column number {n}" for n in range(20)), "a", "b"], [[1234567.0] * 20 + long])
    assert "..." not in text
    assert "…" not in text
    assert "x" * 300 in text
    assert text.count("1234567.0000") == 20
    assert all(f"column number {n}" in text for n in range(20))


def test_a_table_in_a_real_pipe_is_never_cut_whatever_the_terminals_width_is_said_to_be() -> None:
    arguments = '["title", ["a", "b"], [["%s", 0.5]]]' % ("y" * 200)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, arguments],
        capture_output=True, text=True, check=True, env=os.environ | {"COLUMNS": "40", "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    assert "y" * 200 in done.stdout
    assert "…" not in done.stdout


def test_a_table_on_a_narrow_terminal_folds_and_loses_no_letter() -> None:
    content = "".join(chr(ord("A") + n % 26) for n in range(100))
    reader, writer = pty.openpty()
    arguments = f'["title", ["a", "b"], [["{content}", 0.5]]]'
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, arguments], stdout=writer, env=os.environ | {"COLUMNS": "40", "TERM": "dumb"}
    ) as process:
        assert process.wait(timeout=30) == 0
    os.close(writer)
    text = os.read(reader, 1 << 16).decode()
    os.close(reader)
    assert "".join(letter for letter in text if letter.isupper()) == content
    assert "…" not in text


def test_the_main_table_of_a_run_fits_80_columns() -> None:
    columns, rows = run_rows(results(), 20)
    text = printed(columns, rows)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    assert "lightgcn 128" in text


def test_the_main_table_goes_teacher_scratch_student_mostpop_and_the_rest() -> None:
    columns, rows = run_rows(results(), 20)
    assert columns == ["model", "params", "ndcg@20", "recall@20", "lift", "group 0", "group 1"]
    assert [row[0].split()[0] for row in rows] == ["teacher", "scratch", "student", "mostpop", "other"]
    assert rows[3][:2] == ["mostpop (mostpop)", 0]


def test_the_main_table_of_a_run_that_keeps_test_apart_shows_valid() -> None:
    columns, rows = run_rows(results("valid"), 20)
    assert rows[0][2:] == [0.123456] * 5
    assert columns[-2:] == ["group 0", "group 1"]


def test_text_in_brackets_and_colons_is_printed_as_it_is() -> None:
    text = printed(["[b]name[/b]"], [["teacher=[mf] :smile:"]], title="models [a,b]")
    assert "teacher=[mf] :smile:" in text
    assert "[b]name[/b]" in text
    assert "models [a,b]" in text


def test_a_stream_that_cannot_write_lines_gets_plain_ones() -> None:
    assert printed(["a"], [[0.5]], encoding="ascii").isascii()
    assert not printed(["a"], [[0.5]], encoding="utf-8").isascii()


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.25, "0.2500"), (-1.0, "-1.0000"), (1234567, "1,234,567"), (0, "0"), (True, "True"), ("a", "a")],
)
def test_a_cell_shows_four_decimals_and_a_dash_for_none(value: object, text: str) -> None:
    assert cell(value) == text


def test_numbers_stand_right_and_words_left() -> None:
    lines = printed(["name", "value"], [["a", 1], ["long name", 1000]]).splitlines()
    assert [line.rstrip() for line in lines if "1" in line] == ["a              1", "long name  1,000"]
