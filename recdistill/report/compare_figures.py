"""The figures of a comparison: differences with intervals, accuracy against lift, size and latency."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from recdistill.report.comparison import NO_CELL, Cell, Comparison, Member, Row, label, more_is_better
from recdistill.report.html import duration, signed, size
from recdistill.report.plots import COLOR, EXTRA, ROLES, Look, drawn, log_axis, points


@dataclass(frozen=True)
class ShownFigure:
    """A figure with its title and what to know of it."""

    title: str
    svg: Markup
    caption: str


@dataclass(frozen=True)
class Spot:
    """A row as a point of the figures: None where its runs do not tell."""

    letter: str
    row: Row
    look: Look
    quality: Cell
    lift: float | None
    bytes: float | None
    milliseconds: float | None


def quality_of(comparison: Comparison) -> str | None:
    """The first metric of which more is better: the vertical axis of the figures."""
    return next((metric for metric in comparison.columns if more_is_better(metric)), None)


def spots_of(comparison: Comparison) -> list[Spot]:
    """Every row as a point: quality, lift at the same cut-off, size and latency, each a mean over its replicates."""
    metric = quality_of(comparison)
    lift = "" if metric is None else f"{metric.partition('/')[0]}/poplift@{metric.partition('@')[2].partition('/')[0]}"
    colors = cycle(("student", *EXTRA))
    return [
        Spot(
            label(position),
            row,
            ROLES[row.role] if row.role is not None else Look(next(colors)),
            NO_CELL if metric is None else row.cells[metric],
            _mean(one.entry["metrics"].get(lift) for one in row.members),
            _mean(one.entry.get("bytes") for one in row.members),
            _mean(_p50(one) for one in row.members),
        )
        for position, row in enumerate(comparison.rows)
    ]


def _mean(values: Iterable[float | None]) -> float | None:
    """Of the replicates that have the value."""
    there = [value for value in values if value is not None]
    return statistics.fmean(there) if there else None


def _p50(member: Member) -> float | None:
    timed = member.entry.get("latency")
    return None if timed is None else 1000 * float(timed["single"]["p50"])


def milliseconds(value: float | None) -> str:
    """A latency with its unit; a dash where it does not exist."""
    return "-" if value is None else duration(value)


def figures(key: str, comparison: Comparison, spots: Sequence[Spot]) -> Iterator[ShownFigure]:
    """What there is to draw of a comparison; `key` tells its figures apart from others of the page."""
    metric = quality_of(comparison)
    if metric is None:
        return
    there = [spot for spot in spots if spot.quality.mean is not None]
    if comparison.tests is not None and metric in comparison.tests.differences:
        yield _differences(key, comparison, metric, spots)
    lifted = [spot for spot in there if spot.lift is not None]
    if any(spot.row.role != "mostpop" for spot in lifted):
        yield _lift(key, metric, lifted)
    weighed = [spot for spot in there if spot.bytes]
    front = pareto_front([_costs(spot) for spot in weighed])
    on = {spot.letter for spot, kept in zip(weighed, front, strict=True) if kept}
    if weighed:
        yield _trade_off(f"{key}-size", metric, "size", weighed, on, {one.letter: one.bytes or 0 for one in weighed})
    timed = {spot.letter: spot.milliseconds for spot in weighed if spot.milliseconds is not None}
    if timed:
        yield _trade_off(f"{key}-latency", metric, "latency", weighed, on, timed)


def _costs(spot: Spot) -> tuple[float, float, float]:
    """What a front wants small: the negative quality, size and latency; an unknown latency counts for nothing."""
    return -(spot.quality.mean or 0.0), spot.bytes or 0.0, spot.milliseconds or 0.0


def pareto_front(costs: Sequence[Sequence[float]]) -> list[bool]:
    """Which points no other is at least as small as everywhere, and smaller somewhere."""
    table = np.asarray(costs, np.float64)
    return [not bool(((table <= one).all(1) & (table < one).any(1)).any()) for one in table]


def _differences(key: str, comparison: Comparison, metric: str, spots: Sequence[Spot]) -> ShownFigure:
    assert comparison.tests is not None
    found = comparison.tests.differences[metric]
    places = sorted(found, reverse=True)

    def draw(axes: Axes) -> None:
        for y, position in enumerate(places):
            one, color = found[position], COLOR[spots[position].look.color]
            axes.plot([one.low, one.high], [y, y], color=color, linewidth=2.2)
            axes.scatter([one.value], [y], s=34, color=color, zorder=3)
        axes.axvline(0, color=COLOR["muted"], linewidth=0.8)
        axes.set_yticks(range(len(places)), [_name(spots[position]) for position in places])
        axes.grid(visible=True, axis="x")
        axes.grid(visible=False, axis="y")
        axes.margins(y=0.12)
        axes.xaxis.set_major_locator(MaxNLocator(5))

    baseline = _name(spots[comparison.tests.baseline])
    title = f"{metric} minus {baseline}"
    caption = "Mean over users of the paired difference, replicates averaged first; 95% interval, not corrected."
    height = max(1.6, 0.6 + 0.32 * len(places))
    return ShownFigure(title, drawn(f"{key}-differences", f"{title}. {caption}", draw, height=height), caption)


def _name(spot: Spot) -> str:
    return f"{spot.letter} {spot.row.method.strip('()')}"


def _lift(key: str, metric: str, spots: Sequence[Spot]) -> ShownFigure:
    inside = [spot for spot in spots if spot.row.role != "mostpop"]  # it is far from all others, and would crowd them

    def draw(axes: Axes) -> None:
        _points(axes, inside, {spot.letter: spot.lift or 0.0 for spot in inside}, {spot.letter for spot in inside})
        axes.axvline(0, color=COLOR["muted"], linewidth=0.8)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
        axes.set(xlabel="popularity lift", ylabel=metric)
        axes.margins(x=0.15, y=0.12)

    title = "Accuracy against popularity lift"
    caption = "Up is more accurate; 0% is as popular as the users' own items. Bars: standard deviation of replicates."
    for spot in spots:
        if spot.row.role == "mostpop":
            caption += f" Not drawn: {_name(spot)} at {signed(spot.lift)} and {spot.quality.mean:.4f}."
    return ShownFigure(title, drawn(f"{key}-lift", f"{title}. {caption}", draw), caption)


def _trade_off(
    key: str, metric: str, what: str, spots: Sequence[Spot], on: set[str], at: Mapping[str, float]
) -> ShownFigure:
    shown = [spot for spot in spots if spot.letter in at]
    wide = max(at.values()) > 3 * min(at.values())  # a logarithmic axis has few round ticks in less

    def draw(axes: Axes) -> None:
        places = [(at[spot.letter], spot.quality.mean or 0.0) for spot in shown]
        front = pareto_front([(x, -y) for x, y in places])
        steps = sorted(place for place, kept in zip(places, front, strict=True) if kept)
        axes.step(
            *zip(*steps, strict=True), where="post", color=COLOR["muted"], linewidth=1.0, linestyle="--", zorder=1
        )
        _points(axes, shown, at, on, logarithmic=wide)
        text = size if what == "size" else duration
        if wide:
            log_axis(axes, "x", text)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
        axes.set(ylabel=metric)
        axes.margins(x=0.2, y=0.15)

    title = f"Accuracy against {what}"
    about = {
        "size": "Bytes of all weights.",
        "latency": "Median time for one user's list in each run: only runs of one machine compare.",
    }[what]
    measured = (
        "accuracy, size and latency" if any(spot.milliseconds is not None for spot in spots) else "accuracy and size"
    )
    caption = f"{about} Filled: on the Pareto front of {measured}. Dashed: the front of this figure."
    return ShownFigure(title, drawn(key, f"{title}. {caption}", draw), caption)


def _points(
    axes: Axes, spots: Sequence[Spot], at: Mapping[str, float], filled: set[str], *, logarithmic: bool = False
) -> None:
    places = [(at[spot.letter], spot.quality.mean or 0.0) for spot in spots]
    for spot, (x, y) in zip(spots, places, strict=True):
        if spot.quality.sd:
            axes.errorbar([x], [y], yerr=[spot.quality.sd], color=COLOR[spot.look.color], linewidth=1.0, zorder=2)
    look = [Look(spot.look.color, hollow=spot.letter not in filled) for spot in spots]
    points(axes, places, look, list(map(_name, spots)), logarithmic=logarithmic)
