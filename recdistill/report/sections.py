"""The sections of a run's page: figures with the numbers behind them, or what is missing and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes

from recdistill.report.html import duration, share, signed, size, value
from recdistill.report.plots import (
    COLOR,
    EXTRA,
    Look,
    drawn,
    epochs_axis,
    grouped_bars,
    line,
    log_axis,
    looks,
    percent_axis,
    points,
)
from recdistill.report.stored import Epochs, StoredRun
from recdistill.report.verdict import group_names, latency

OLDER = "this run was made by an older version."
LOG_RANGE = 30  # a curve that spans more than this is drawn on a logarithmic scale
Series = Mapping[str, Sequence[float | None]]


@dataclass(frozen=True)
class Numbers:
    """The table behind a figure: column heads, and rows that start with their name."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Shown:
    """A figure: what it shows, its SVG and looks, what to know of it, and its numbers where they are few."""

    title: str
    svg: Markup
    caption: str
    legend: Mapping[str, Look]
    numbers: Numbers | None = None


@dataclass(frozen=True)
class Section:
    """One part of the page.

    Attributes:
        key: its anchor.
        lead: what it shows.
        figures: what there is.
        missing: what there is not, and why.
    """

    key: str
    title: str
    lead: str
    figures: Sequence[Shown]
    missing: Sequence[str] = ()


def sections(run: StoredRun) -> list[Section]:
    """All sections, in the order of the page."""
    look = looks(list(run.models))
    return [_groups(run, look), _exposure(run, look), _lift(run, look), _training(run, look), _trade_off(run, look)]


def label(name: str) -> str:
    """A model's role as the page spells it."""
    return "MostPop" if name == "mostpop" else name


def _split_by(run: StoredRun, metric: str, kind: str, strata: Sequence[str]) -> Series:
    """Every model's values of a metric in some strata."""
    return {name: [run.metric(name, f"{metric}/{kind}={one}") for one in strata] for name in run.models}


def _numbers(columns: Sequence[str], series: Series, text: Callable[[float | None], str]) -> Numbers:
    return Numbers(["model", *columns], [[label(name), *map(text, values)] for name, values in series.items()])


def _bars(
    key: str, title: str, caption: str, columns: Sequence[str], series: Series, look: Mapping[str, Look],
    text: Callable[[float | None], str],
) -> Shown:  # fmt: skip
    def draw(axes: Axes) -> None:
        grouped_bars(axes, columns, series, look, percent=text is not value)

    shown = {name: look[name] for name in series}
    return Shown(title, drawn(key, f"{title}. {caption}", draw), caption, shown, _numbers(columns, series, text))


def _groups(run: StoredRun, look: Mapping[str, Look]) -> Section:
    figures, missing = [], []
    if groups := run.strata("recall", "group"):
        caption = (
            "Each group holds the same number of training interactions, so the popular ones have few items. "
            "Mean over users with a held-out item in the group."
        )
        series, names = _split_by(run, "recall", "group", groups), group_names(len(groups))
        figures.append(
            _bars("recall-group", f"Recall@{run.k} by share of interactions", caption, names, series, look, value)
        )
    if tails := run.strata("recall", "items"):
        caption = "Head: the fifth of all items with the most training users; tail: the last fifth."
        series = _split_by(run, "recall", "items", tails)
        figures.append(_bars("recall-items", f"Recall@{run.k} by share of items", caption, tails, series, look, value))
    else:
        missing.append(f"Recall by head, mid and tail items was not stored: {OLDER}")
    lead = "Who profits: the items that everybody knows, or the others?"
    return Section("groups", "Recall by popularity group", lead, figures, missing)


def _exposure(run: StoredRun, look: Mapping[str, Look]) -> Section:
    lead = f"Which items get the {run.k} places in every user's list."
    counts = run.exposure()
    if not counts:
        why = "There are no stored lists: test was not read (evaluation.test=false), or topk.parquet was removed."
        return Section("exposure", "Exposure", lead, [], [why])
    figures, missing = [_lorenz(run, counts, look)], []
    if groups := run.strata("exposure", "group"):
        series, names = _split_by(run, "exposure", "group", groups), group_names(len(groups))
        caption = f"Of all places in the top {run.k}. Equal shares would mirror what users chose in training."
        figures.append(_bars("exposure-group", "Places by popularity group", caption, names, series, look, share))
    else:
        missing.append(f"Exposure by popularity group was not stored: {OLDER}")
    return Section("exposure", "Exposure", lead, figures, missing)


def _lorenz(run: StoredRun, counts: Mapping[str, np.ndarray], look: Mapping[str, Look]) -> Shown:
    popularity = run.popularity()

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=COLOR["muted"], linewidth=0.8)
        if popularity is not None:
            axes.fill_between(*_curve(popularity), color=COLOR["grid"], linewidth=0)
        for name, count in counts.items():
            line(axes, *_curve(count), look[name])
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="share of items, least recommended first", ylabel="share of places")
        for axis in (axes.xaxis, axes.yaxis):
            percent_axis(axis)

    ginis = {name: run.metric(name, "gini") for name in counts}
    rows = [
        [label(name), value(ginis[name]), share(float((count > 0).mean())), share(_top_share(count))]
        for name, count in counts.items()
    ]
    behind = "" if popularity is None else " Shaded: the training interactions."
    caption = f"The further below the diagonal, the fewer items get the places.{behind}"
    title = f"Lorenz curves of the top {run.k}, with Gini"
    numbers = Numbers(["model", "Gini", "items recommended", "places of the top 1% of items"], rows)
    shown = {label(name) + ("" if gini is None else f" {gini:.3f}"): look[name] for name, gini in ginis.items()}
    return Shown(title, drawn("lorenz", f"{title}. {caption}", draw), caption, shown, numbers)


def _curve(rising: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lorenz curve of counts in rising order: share of items against share of their sum, from (0, 0) to (1, 1)."""
    part = np.concatenate([[0.0], rising.cumsum(dtype=np.float64) / rising.sum()])
    return np.linspace(0, 1, len(part)), part


def _top_share(rising: np.ndarray) -> float:
    """Share of the sum that the largest hundredth of the counts has."""
    n = max(round(len(rising) / 100), 1)
    return float(rising[-n:].sum() / rising.sum())


def _lift(run: StoredRun, look: Mapping[str, Look]) -> Section:
    figures, missing = [], []
    users = run.strata("poplift", "users")
    kinds, bins = [one for one in users if not one.startswith("bin")], [one for one in users if one.startswith("bin")]
    if kinds:
        caption = (
            "Niche: the fifth of the users with the smallest share of head items in training; blockbuster: the largest."
        )
        series = _split_by(run, "poplift", "users", kinds)
        figures.append(_bars("lift-kind", "Lift by kind of user", caption, kinds, series, look, signed))
    if bins:
        figures.append(_lift_bins(_split_by(run, "poplift", "users", bins), look))
    if not users:
        missing.append(f"Lift by kind of user was not stored: {OLDER}")
        overall = {name: [run.metric(name, "poplift")] for name in run.models}
        figures.append(_bars("lift", "Lift of all users", "Ratio of means.", ["all users"], overall, look, signed))
    lead = (
        "How much more popular the recommended items are than what the user chose in training: "
        "0% is the user's own taste, +100% twice as popular."
    )
    return Section("lift", "Popularity lift by kind of user", lead, figures, missing)


def _lift_bins(series: Series, look: Mapping[str, Look]) -> Shown:
    n = len(next(iter(series.values())))

    def draw(axes: Axes) -> None:
        for name, values in series.items():
            gaps = [np.nan if one is None else one for one in values]
            line(axes, range(1, n + 1), gaps, look[name], marker="o", markersize=3)
        axes.axhline(0, color=COLOR["muted"], linewidth=0.8)
        axes.set_xticks(range(1, n + 1))
        axes.set(xlabel="tenth of the users, least popular taste first")
        percent_axis(axes.yaxis)

    title, caption = "Lift by taste", "Ten equal groups of users by the mean popularity of what they chose in training."
    shown, columns = {name: look[name] for name in series}, [str(one) for one in range(1, n + 1)]
    svg = drawn("lift-bins", f"{title}. {caption}", draw)
    return Shown(title, svg, caption, shown, _numbers(columns, series, signed))


def _training(run: StoredRun, look: Mapping[str, Look]) -> Section:
    curves, missing = run.curves(), []
    figures = [_validation(run, curves, look)] if curves else []
    figures += [_losses(name, epochs) for name, epochs in curves.items()]
    trained = [name for name, model in run.models.items() if model.get("epochs") and not name.startswith("trained.")]
    if absent := [name for name in trained if name not in curves]:
        missing.append(f"The epochs of {', '.join(absent)} are not in the run's folder: {OLDER}")
    lead = "The best validation value decides which epoch is kept."
    return Section("training", "Training", lead, figures, missing)


def _validation(run: StoredRun, curves: Mapping[str, Epochs], look: Mapping[str, Look]) -> Shown:
    def draw(axes: Axes) -> None:
        for name, epochs in curves.items():
            there = [row for row in epochs if "valid" in row]
            line(axes, [row["epoch"] for row in there], [row["valid"] for row in there], look[name])
            kept = [row for row in there if row["epoch"] == run.models[name].get("best_epoch")]
            color = COLOR[look[name].color]
            axes.scatter([row["epoch"] for row in kept], [row["valid"] for row in kept], s=22, color=color, zorder=3)
        epochs_axis(axes)

    title, caption = f"Validation NDCG@{run.k}", "The dot is the epoch whose weights were kept."
    return Shown(
        title, drawn("validation", f"{title}. {caption}", draw), caption, {name: look[name] for name in curves}
    )


def _losses(name: str, epochs: Epochs) -> Shown:
    """Each term of one model's loss."""
    terms = [term for term in epochs[0] if term not in ("epoch", "loss", "valid", "seconds")][: len(EXTRA)]
    look = {"loss": Look("ink")} | {term: Look(color) for term, color in zip(terms, EXTRA, strict=False)}
    values = {term: np.array([row.get(term, np.nan) for row in epochs]) for term in look}
    flat = np.concatenate(list(values.values()))
    flat = flat[np.isfinite(flat)]

    def draw(axes: Axes) -> None:
        for term, y in values.items():
            line(axes, [row["epoch"] for row in epochs], y, look[term])
        if len(flat) and flat.min() > 0 and flat.max() / flat.min() > LOG_RANGE:
            log_axis(axes, "y", "{:g}".format)
        epochs_axis(axes)

    title = f"Loss: {label(name)}"
    caption = "Mean over the steps of an epoch: the sum, and its weighted terms."
    key = "loss-" + "".join(letter if letter.isalnum() else "-" for letter in name)
    shown = {"sum" if term == "loss" else term: one for term, one in look.items()}
    return Shown(title, drawn(key, f"{title}. {caption}", draw), caption, shown)


def _trade_off(run: StoredRun, look: Mapping[str, Look]) -> Section:
    sizes = {name: float(model["bytes"]) for name, model in run.models.items() if model["bytes"]}
    times = {name: found for name in run.models if (found := latency(run, name)) is not None}
    figures = [_scatter(run, "size", "Accuracy against size", sizes, look, size)] if sizes else []
    missing = []
    if times:
        title = "Accuracy against latency"
        figures.append(_scatter(run, "latency", title, times, look, duration))
    else:
        missing.append(f"Latency was not measured: {OLDER}")
    lead = "What accuracy costs. Up and left is better."
    return Section("cost", "Accuracy against size and latency", lead, figures, missing)


def _scatter(
    run: StoredRun, key: str, title: str, at: Mapping[str, float], look: Mapping[str, Look],
    text: Callable[[float], str],
) -> Shown:  # fmt: skip
    floor = run.metric("mostpop", "ndcg") if "mostpop" in run.models and "mostpop" not in at else None

    def draw(axes: Axes) -> None:
        if floor is not None:
            axes.axhline(floor, color=COLOR["mostpop"], linestyle=":", linewidth=1.2)
        axes.set(ylabel=f"NDCG@{run.k}", xscale="log")
        axes.margins(x=0.2, y=0.15)
        there = {name: (x, y) for name, x in at.items() if (y := run.metric(name, "ndcg")) is not None}
        points(axes, list(there.values()), [look[one] for one in there], list(map(label, there)), logarithmic=True)
        log_axis(axes, "x", text)

    what = {"size": "Bytes of all weights", "latency": f"Median time to rank one user's top {run.k}"}[key]
    caption = f"{what}, logarithmic." + ("" if floor is None else " Dotted: MostPop, which has no weights.")
    rows = [[label(name), text(x), value(run.metric(name, "ndcg"))] for name, x in at.items()]
    numbers = Numbers(["model", key, f"NDCG@{run.k}"], rows)
    shown = {name: look[name] for name in at} | ({} if floor is None else {"mostpop": look["mostpop"]})
    return Shown(title, drawn(key, f"{title}. {caption}", draw), caption, shown, numbers)
