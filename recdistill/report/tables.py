"""Tables for the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from rich import box
from rich.console import Console
from rich.table import Table


def console(stream: TextIO | None = None) -> Console:
    """A console that never cuts: the terminal's width on a terminal, as wide as needed in a pipe."""
    stream = stream or sys.stdout
    terminal = stream.isatty()
    return Console(file=stream, width=None if terminal else 10_000, soft_wrap=not terminal, markup=False, emoji=False)


def natural_width(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """The width that a table of text needs if no cell is folded."""
    return sum(max(len(line[n]) for line in [columns, *rows]) + 2 for n in range(len(columns))) - 2


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], stream: TextIO | None = None
) -> None:
    """Print a table; numbers are right-aligned with four decimals, None is a dash."""
    stream = stream or sys.stdout
    plain_only = (stream.encoding or "utf-8").lower().replace("-", "") not in {"utf8", "utf16"}
    # Narrow gaps and no edges: the main table of a run fits 80 columns.
    table = Table(
        title=title, title_justify="left", box=box.ASCII2 if plain_only else box.SIMPLE_HEAD,
        pad_edge=False, collapse_padding=True, show_edge=False,
    )  # fmt: skip
    numeric = [all(isinstance(row[n], int | float | None) for row in rows) for n in range(len(columns))]
    for name, right in zip(columns, numeric, strict=True):
        table.add_column(_written(name, stream), justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_written(cell(value), stream) for value in row))
    console(stream).print(table)


def _written(text: str, stream: TextIO) -> str:
    """Text as the stream will show it, so that columns are as wide as what stands in them."""
    if not stream.encoding:  # text in memory
        return text
    return text.encode(stream.encoding, stream.errors or "strict").decode(stream.encoding)


def cell(value: Any) -> str:
    """A value as a cell."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def in_order(models: Iterable[str]) -> list[str]:
    """The models of a run as its tables show them: teachers, scratch, student, MostPop, others."""
    names = list(models)
    order = [name for name in names if name.startswith("teacher")]
    order += [name for name in ("scratch", "student", "mostpop") if name in names]
    return order + [name for name in names if name not in order]


def run_rows(results: dict[str, Any], k: int) -> tuple[list[str], list[list[Any]]]:
    """The main table of a run: teachers, scratch, student, MostPop."""
    models = results["models"]
    split = "test" if results["config"]["evaluation"]["test"] else "valid"
    metrics = [f"{split}/ndcg@{k}", f"{split}/recall@{k}", f"{split}/poplift@{k}"]
    groups = sorted(name for name in models["mostpop"]["metrics"] if name.startswith(f"{split}/recall@{k}/group="))
    heads = [f"ndcg@{k}", f"recall@{k}", "lift"] + [f"group {name.rpartition('=')[2]}" for name in groups]
    rows = []
    for name in in_order(models):
        entry = models[name]
        label = f"{name} ({' '.join(str(part) for part in (entry['kind'], entry['dim']) if part is not None)})"
        values = [entry["metrics"].get(metric) for metric in metrics + groups]
        rows.append([label, entry["parameters"], *values])
    return ["model", "params", *heads], rows
