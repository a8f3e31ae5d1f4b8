"""The results as a table for a terminal of 80 columns, as Markdown, and as a list of missed targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from bench_parts.measure import Row

COLUMNS = ("loop", "", "per", "ours ms", "naive ms", "ratio", "floor ms", "MB")


def _cells(row: Mapping[str, Any]) -> list[str]:
    seconds = row["seconds"]
    times = [f"{1000 * seconds[name]:,.4g}" if name in seconds else "" for name in ("ours", "naive", "floor")]
    ratio = f"{row['ratio']:,.3g}" if row["ratio"] else ""
    memory = "" if row["memory"] is None else f"{row['memory'] / 1e6:,.0f}"
    return [row["loop"], row["scale"], row["unit"], times[0], times[1], ratio, times[2], memory]


def print_rows(rows: Sequence[Row], machine: Mapping[str, Any]) -> None:
    """The table, then each target and whether it is reached."""
    console = Console(width=80, highlight=False)
    console.print("; ".join(f"{name} {value}" for name, value in machine.items()))
    table = Table(box=None, padding=(0, 1, 0, 0))
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in COLUMNS[:3] else "right")
    for row in rows:
        table.add_row(*_cells(row.to_json()))
    console.print(table)
    for row in rows:
        for target in row.targets:
            mark = "ok    " if target.reached else "MISSED"
            console.print(f"{mark} {row.loop} at {row.scale}: {target.text()}")


def missed(rows: Sequence[Row]) -> list[str]:
    """One line per target that is not reached."""
    return [
        f"missed: {row.loop} at {row.scale}: {target.text()}"
        for row in rows
        for target in row.targets
        if not target.reached
    ]


def markdown(found: Mapping[str, Any]) -> str:
    """The machine, the table, and how each loop's cost grows."""
    about = [f"| {name} | {value} |" for name, value in found["machine"].items()]
    lines = ["| machine | |", "|---|---|", *about, ""]
    head = ("loop", "scale", *COLUMNS[2:], "targets", "how")
    lines += [f"| {' | '.join(head)} |", "|---|---|---|--:|--:|--:|--:|--:|---|---|"]
    for row in found["rows"]:
        lines.append(f"| {' | '.join([*_cells(row), _targets(row), row['note']])} |")
    return "\n".join(lines)


def _targets(row: Mapping[str, Any]) -> str:
    texts = []
    for target in row["targets"]:
        sign = "≤" if target["at_most"] else "≥"
        reached = "" if target["reached"] else " **missed**"
        texts.append(f"{target['what']} {target['value']:.3g} ({sign} {target['limit']:g}){reached}")
    return "; ".join(texts)
