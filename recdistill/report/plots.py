"""Figures as inline SVG whose colours are the page's CSS variables, so that they follow light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

# matplotlib wants real colours: each variable of style.css has a stand-in, which `_themed` replaces in the SVG.
VARIABLES = (
    "ink", "muted", "rule", "grid", "paper", "student", "teacher", "scratch", "mostpop",
    "extra1", "extra2", "extra3", "extra4", "extra5", "extra6",
)  # fmt: skip
COLOR = {name: f"#fa57{n:02x}" for n, name in enumerate(VARIABLES)}
EXTRA = tuple(name for name in VARIABLES if name.startswith("extra"))
MOST_NUMBERS = 12  # bars of a figure that can have their values over them
LINE_POINTS = 240  # a curve of a figure 330 units wide needs no more

STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: the page's font, selectable, small
    "text.parse_math": False,  # names of others may hold dollar signs
    "svg.hashsalt": "recdistill",  # the same figure has the same bytes
    "font.size": 9,
    "text.color": COLOR["ink"],
    "axes.labelcolor": COLOR["muted"],
    "axes.edgecolor": COLOR["muted"],
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.linewidth": 0.8,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "grid.color": COLOR["grid"],
    "grid.linewidth": 0.8,
    "xtick.color": COLOR["muted"],
    "ytick.color": COLOR["muted"],
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.7,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
}


@dataclass(frozen=True)
class Look:
    """How one thing is drawn wherever it appears: a variable of style.css, dashes, and whether bars are outlines."""

    color: str
    dash: str = "-"
    hollow: bool = False


ROLES = {
    "student": Look("student"),
    "teacher": Look("teacher"),
    "scratch": Look("scratch", "--"),
    "mostpop": Look("mostpop", ":", hollow=True),
}


def looks(names: Sequence[str]) -> dict[str, Look]:
    """A look for each name: roles have their own, the first of several teachers has the teacher's, others differ."""
    found: dict[str, Look] = {}
    free = [Look(color, dash) for dash in ("-", "--", ":") for color in EXTRA]
    for name in names:
        role = name.partition(".")[0]
        own = ROLES.get(role)
        found[name] = own if own is not None and own not in found.values() else free.pop(0)
    return found


def drawn(name: str, label: str, draw: Callable[[Axes], None], *, width: float = 4.6, height: float = 2.9) -> Markup:
    """One pair of axes as an SVG element for an HTML page.

    Args:
        name: of the figure, unique on its page: all ids in the SVG start with it.
        label: what a screen reader says instead.
        draw: fills the axes.
        width: inches, 72 units each; fonts are 9 units.
        height: inches.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.subplots())
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _inline(stream.getvalue(), name, label)


def _inline(svg: str, name: str, label: str) -> Markup:
    """An SVG file's element without namespaces and metadata, its ids prefixed, its colours replaced by variables."""
    text = svg[svg.index("<svg") :]
    # A <style> in an SVG would hold for the whole page; style.css has its rule.
    for part in (r"<metadata>.*?</metadata>", r"<!--.*?-->", r"<style[^>]*>.*?</style>"):
        text = re.sub(part, "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(?:xlink:)?href="#', f'href="#{name}-', text)
    text = text.replace("url(#", f"url(#{name}-")
    for variable, stand_in in COLOR.items():
        text = text.replace(stand_in, f"var(--{variable})")
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)  # the page chooses the family
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    box = re.search(r'viewBox="[^"]*"', text)
    opening = Markup('<svg {} role="img" aria-label="{}">').format(Markup(box.group() if box else ""), label)
    return opening + Markup(re.sub(r">\s+<", "><", text[text.index(">") + 1 :]).rstrip())


def thinned(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """At most LINE_POINTS points of a curve, evenly spread over its positions, first and last kept."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if len(x) <= LINE_POINTS:
        return x, y
    kept = np.unique(np.linspace(0, len(x) - 1, LINE_POINTS).round().astype(np.int64))
    return x[kept], y[kept]


def grouped_bars(
    axes: Axes,
    groups: Sequence[str],
    series: Mapping[str, Sequence[float | None]],
    look: Mapping[str, Look],
    *,
    percent: bool = False,
) -> None:
    """Bars side by side for each group; a value that does not exist leaves a gap marked with a dash.

    Args:
        axes: to draw on.
        groups: labels along x.
        series: name to one value per group.
        look: of each name.
        percent: whether values are shares, shown as percentages.
    """
    place = np.arange(len(groups), dtype=np.float64)
    width = 0.8 / max(len(series), 1)
    n_bars = len(groups) * len(series)
    for n, (name, values) in enumerate(series.items()):
        one, color = look[name], COLOR[look[name].color]
        x = place + (n - (len(series) - 1) / 2) * width
        bars = axes.bar(
            x, [value or 0.0 for value in values], width * 0.86,
            facecolor="none" if one.hollow else color, edgecolor=color, linewidth=1.0,
        )  # fmt: skip
        texts = ["-" if value is None else bar_text(value, percent, n_bars) for value in values]
        axes.bar_label(bars, texts, padding=2, fontsize=7.5, color=COLOR["muted"])
    axes.set_xticks(place, list(groups))
    axes.tick_params(axis="x", length=0)
    axes.axhline(0, color=COLOR["muted"], linewidth=0.8)
    axes.spines["bottom"].set_visible(False)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    if percent:
        percent_axis(axes.yaxis)
    axes.margins(y=0.12)


def bar_text(value: float, percent: bool, n_bars: int) -> str:
    """A value as short as its bar is wide; nothing where there are too many bars for numbers."""
    if n_bars > MOST_NUMBERS:
        return ""
    if not percent:
        return f"{value:.3f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.2f}"
    return f"{100 * value:.0f}{'%' if n_bars <= MOST_NUMBERS - 4 else ''}".replace("-", "\N{MINUS SIGN}")


def line(axes: Axes, x: Any, y: Any, look: Look, **more: Any) -> None:
    """One curve; a single point is a dot."""
    x, y = thinned(x, y)
    alone: dict[str, Any] = {"marker": "o", "markersize": 4} if len(x) == 1 else {}
    axes.plot(x, y, color=COLOR[look.color], linestyle=look.dash, **(alone | more))


def epochs_axis(axes: Axes) -> None:
    """Whole epochs along x."""
    axes.set(xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))


def percent_axis(axis: Axis) -> None:
    """Ticks as percentages."""
    axis.set_major_formatter(FuncFormatter(lambda part, _: f"{part:.0%}".replace("-", "\N{MINUS SIGN}")))


def log_axis(axes: Axes, which: Literal["x", "y"], text: Callable[[float], str]) -> None:
    """A logarithmic axis with a few round ticks, spelled by `text`; call it when all is drawn."""
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    subs = (1, 2, 5) if high / low < 200 else (1,)
    axis.set_major_locator(MaxNLocator(4) if high / low < 5 else LogLocator(subs=subs))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda tick, _: text(tick)))


def point(axes: Axes, x: float, y: float, look: Look, text: str, *, below: int = 0) -> None:
    """One named point of a scatter plot; its name stands above it, or on a line below."""
    color = COLOR[look.color]
    axes.scatter([x], [y], s=52, facecolor=COLOR["paper"] if look.hollow else color, edgecolor=color, linewidth=1.4)
    place = (7, -1 - 10 * below) if below else (7, 5)
    axes.annotate(text, (x, y), xytext=place, textcoords="offset points", fontsize=8.5)


def points(
    axes: Axes,
    at: Sequence[tuple[float, float]],
    look: Sequence[Look],
    text: Sequence[str],
    *,
    logarithmic: bool = False,
) -> None:
    """Named points of a scatter plot; `logarithmic` says that x will be. Of close ones the lower has its name below."""
    table = np.asarray(at, np.float64).reshape(-1, 2)
    if logarithmic:
        table[:, 0] = np.log(table[:, 0])
    for (x, y), one, name, below in zip(at, look, text, lines_below(table), strict=True):
        point(axes, x, y, one, name, below=below)


def lines_below(places: np.ndarray) -> list[int]:
    """On which line below its point [n, 2] each name goes: as many as it has near neighbours just above, 0 = above."""
    table = places / np.maximum(np.ptp(places, axis=0), 1e-12) if len(places) else places
    above = table[None, :] - table[:, None]  # [one, other, x and y]
    near = (np.abs(above[..., 0]) < 0.25) & (np.abs(above[..., 1]) < 0.07)
    later = np.arange(len(table))[None, :] > np.arange(len(table))[:, None]
    higher = (above[..., 1] > 0) | ((above[..., 1] == 0) & later)
    return [int(found) for found in (near & higher).sum(1)]
