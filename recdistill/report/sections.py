"""The sections of a run's page: figures with the numbers behind them, or what is missing and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from recdistill.report.html import signed, size, value
from recdistill.report.plots import COLOR, EXTRA, Look, drawn, grouped_bars, line, looks, point
from recdistill.report.stored import Epochs, StoredRun
from recdistill.report.verdict import group_names, latency

LOG_RANGE = 30  # a curve that spans more than this is drawn on a logarithmic scale


@dataclass(frozen=True)
class Numbers:
    """The table behind a figure: column heads, and rows that start with their name."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Shown:
    """A figure: its SVG, what it says, and its numbers where they are few."""

    svg: Markup
    caption: str
    numbers: Numbers | None = None
    legend: Mapping[str, Look] = field(default_factory=dict)


@dataclass(frozen=True)
class Section:
    """One part of the page.

    Attributes:
        key: its anchor.
        lead: what it shows.
        figures: what there is.
        missing: what there is not, and why.
        legend: looks that all its figures share.
    """

    key: str
    title: str
    lead: str
    figures: Sequence[Shown]
    missing: Sequence[str] = ()
    legend: Mapping[str, Look] = field(default_factory=dict)


def sections(run: StoredRun) -> list[Section]:
    """All sections, in the order of the page."""
    look = looks(list(run.models))
    return [_groups(run, look), _exposure(run, look), _lift(run, look), _training(run, look), _trade_off(run, look)]


def label(name: str) -> str:
    """A model's role as the page spells it."""
    return "MostPop" if name == "mostpop" else name


def _bars(
    run: StoredRun, look: Mapping[str, Look], key: str, metric: str, kind: str, named: Sequence[str], caption: str,
    *, percent: bool = False,
) -> Shown:  # fmt: skip
    """A metric by strata, a bar for each model."""
    strata = run.strata(metric, kind)
    series = {name: [run.metric(name, f"{metric}/{kind}={one}") for one in strata] for name in run.models}
    text = signed if percent else value
    numbers = Numbers(["model", *named], [[label(name), *map(text, values)] for name, values in series.items()])

    def draw(axes: Axes) -> None:
        grouped_bars(axes, named, series, look, percent=percent)

    return Shown(drawn(key, caption, draw), caption, numbers)


def _groups(run: StoredRun, look: Mapping[str, Look]) -> Section:
    figures, missing = [], []
    groups = run.strata("recall", "group")
    if groups:
        names = group_names(len(groups))
        text = (
            f"Recall@{run.k} by popularity group, most popular items left; each group holds the same number of "
            "training interactions. Mean over users with a held-out item in the group."
        )
        figures.append(_bars(run, look, "recall-group", "recall", "group", names, text))
    if tails := run.strata("recall", "items"):
        text = f"Recall@{run.k} by number of items: the fifth with most training users, the middle, the last fifth."
        figures.append(_bars(run, look, "recall-items", "recall", "items", tails, text))
    else:
        missing.append("Recall by head, mid and tail items was not stored: this run was made by an older version.")
    lead = "Who profits: items that everybody knows, or the others?"
    return Section("groups", "Recall by popularity group", lead, figures, missing, look)


def _exposure(run: StoredRun, look: Mapping[str, Look]) -> Section:
    counts = run.exposure()
    if not counts:
        why = "There are no stored lists: test was not read (evaluation.test=false), or topk.parquet was removed."
        return Section("exposure", "Exposure", "Which items get the places in the lists.", [], [why])
    figures, missing = [_lorenz(run, counts, look)], []
    if groups := run.strata("exposure", "group"):
        text = f"Share of the places in the top {run.k} that go to each popularity group."
        names = group_names(len(groups))
        figures.append(_bars(run, look, "exposure-group", "exposure", "group", names, text, percent=True))
    else:
        missing.append("Exposure by popularity group was not stored: this run was made by an older version.")
    lead = f"Which items get the {run.k} places in every user's list."
    return Section("exposure", "Exposure", lead, figures, missing, look)


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
            axis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}"))

    ginis = [[label(name), value(run.metric(name, "gini"))] for name in counts]
    shares = [[f"{(count > 0).mean():.1%}", f"{_top_share(count):.1%}"] for count in counts.values()]
    numbers = Numbers(
        ["model", "Gini", "items recommended", "places of the top 1 % of items"],
        [[*gini, *share] for gini, share in zip(ginis, shares, strict=True)],
    )
    behind = "" if popularity is None else " The shaded area is under the curve of the training interactions."
    text = f"Lorenz curves of the top {run.k}: the further below the diagonal, the fewer items get the places.{behind}"
    return Shown(drawn("lorenz", text, draw, height=3.4), text, numbers)


def _curve(rising: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lorenz curve of counts in rising order: share of items against share of their sum, from (0, 0) to (1, 1)."""
    share = np.concatenate([[0.0], rising.cumsum(dtype=np.float64) / rising.sum()])
    return np.linspace(0, 1, len(share)), share


def _top_share(rising: np.ndarray) -> float:
    """Share of the sum that the largest hundredth has."""
    n = max(round(len(rising) / 100), 1)
    return float(rising[-n:].sum() / rising.sum())


def _lift(run: StoredRun, look: Mapping[str, Look]) -> Section:
    figures, missing = [], []
    kinds = [kind for kind in run.strata("poplift", "users") if not kind.startswith("bin")]
    bins = [kind for kind in run.strata("poplift", "users") if kind.startswith("bin")]
    if kinds:
        text = (
            "Popularity lift by kind of user: niche are the fifth with the smallest share of popular items in "
            "training, blockbuster the fifth with the largest."
        )
        series = {name: [run.metric(name, f"poplift/users={kind}") for kind in kinds] for name in run.models}
        figures.append(_lift_bars("lift-kind", kinds, series, look, text))
    if bins:
        figures.append(_lift_bins(run, bins, look))
    if not figures:
        missing.append("Lift by kind of user was not stored: this run was made by an older version.")
        overall = {name: [run.metric(name, "poplift")] for name in run.models}
        figures.append(_lift_bars("lift", ["all users"], overall, look, "Popularity lift over all users."))
    lead = (
        "How much more popular the recommended items are than what the user had chosen: 0 is the user's own taste, "
        "+100 % twice as popular."
    )
    return Section("lift", "Popularity lift by kind of user", lead, figures, missing, look)


def _lift_bars(
    key: str, names: Sequence[str], series: Mapping[str, Sequence[float | None]], look: Mapping[str, Look], text: str
) -> Shown:
    def draw(axes: Axes) -> None:
        grouped_bars(axes, names, series, look, percent=True)

    rows = [[label(name), *(signed(one, ".1%") for one in values)] for name, values in series.items()]
    return Shown(drawn(key, text, draw), text, Numbers(["model", *names], rows))


def _lift_bins(run: StoredRun, bins: Sequence[str], look: Mapping[str, Look]) -> Shown:
    series = {name: [run.metric(name, f"poplift/users={one}") for one in bins] for name in run.models}
    names = [str(n) for n in range(1, len(bins) + 1)]

    def draw(axes: Axes) -> None:
        for name, values in series.items():
            gaps = [np.nan if one is None else one for one in values]
            line(axes, np.arange(1, len(bins) + 1), gaps, look[name], marker="o", markersize=3)
        axes.axhline(0, color=COLOR["muted"], linewidth=0.8)
        axes.set_xticks(range(1, len(bins) + 1), names)
        axes.set(xlabel="tenth of users, least popular taste left")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda one, _: f"{one:.0%}"))

    text = "Popularity lift in ten equal groups of users, by the mean popularity of what they chose in training."
    rows = [[label(name), *(signed(one) for one in values)] for name, values in series.items()]
    return Shown(drawn("lift-bins", text, draw), text, Numbers(["model", *names], rows))


def _training(run: StoredRun, look: Mapping[str, Look]) -> Section:
    curves, missing = run.curves(), []
    figures = [_validation(run, curves, look)] if curves else []
    for name, epochs in curves.items():
        figures.append(_losses(name, epochs))
    trained = [name for name, model in run.models.items() if model.get("epochs") and not name.startswith("trained")]
    if absent := [name for name in trained if name not in curves]:
        missing.append(f"No curve of {', '.join(absent)}: the run's folder holds none (curves.csv, history.csv).")
    lead = "Validation decides which epoch is kept; the losses show how each model got there."
    return Section("training", "Training", lead, figures, missing, look)


def _validation(run: StoredRun, curves: Mapping[str, Epochs], look: Mapping[str, Look]) -> Shown:
    def draw(axes: Axes) -> None:
        for name, epochs in curves.items():
            there = [row for row in epochs if "valid" in row]
            line(axes, [row["epoch"] for row in there], [row["valid"] for row in there], look[name])
            best = run.models[name].get("best_epoch")
            for row in there:
                if row["epoch"] == best:
                    axes.scatter([row["epoch"]], [row["valid"]], s=22, color=COLOR[look[name].color], zorder=3)
        axes.set(xlabel="epoch", ylabel=f"NDCG@{run.k}")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))

    text = f"NDCG@{run.k} on the validation part; the dot is the epoch whose weights were kept."
    return Shown(drawn("validation", text, draw), text)


def _losses(name: str, epochs: Epochs) -> Shown:
    """Each term of one model's loss."""
    terms = [term for term in epochs[0] if term not in ("epoch", "valid", "seconds")]
    look = {term: Look(color) for term, color in zip(terms[1:], EXTRA, strict=False)} | {terms[0]: Look("ink")}
    values = {term: np.array([row.get(term, np.nan) for row in epochs]) for term in terms if term in look}
    flat = np.concatenate(list(values.values()))
    flat = flat[np.isfinite(flat)]

    def draw(axes: Axes) -> None:
        for term, y in values.items():
            line(axes, [row["epoch"] for row in epochs], y, look[term])
        if len(flat) and flat.min() > 0 and flat.max() / flat.min() > LOG_RANGE:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda one, _: f"{one:g}"))
        axes.set(xlabel="epoch", ylabel="loss")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))

    text = f"Loss of the {name}, mean over the steps of each epoch: the total and its weighted terms."
    key = "loss-" + "".join(letter if letter.isalnum() else "-" for letter in name)
    return Shown(drawn(key, text, draw), text, legend={("total" if t == "loss" else t): look[t] for t in values})


def _trade_off(run: StoredRun, look: Mapping[str, Look]) -> Section:
    sizes: dict[str, float] = {name: model["bytes"] for name, model in run.models.items() if model["bytes"]}
    figures, missing = [], []
    if sizes:
        text = f"NDCG@{run.k} on {run.split} against the size of the model (logarithmic); the dotted line is MostPop."
        figures.append(_scatter(run, "size", sizes, look, text, size))
    times = {name: found for name in run.models if (found := latency(run, name)) is not None}
    if times:
        text = f"NDCG@{run.k} on {run.split} against the median time to rank one user's top {run.k} (logarithmic)."
        figures.append(_scatter(run, "latency", times, look, text, lambda one: f"{one:.3g} ms"))
    else:
        missing.append("Latency was not measured: this run was made by an older version.")
    lead = "What accuracy costs. Up and left is better."
    return Section("cost", "Accuracy against size and latency", lead, figures, missing)


def _scatter(
    run: StoredRun, key: str, at: Mapping[str, float], look: Mapping[str, Look], text: str, unit: object
) -> Shown:
    form = unit if callable(unit) else str

    def draw(axes: Axes) -> None:
        for name, x in at.items():
            if (y := run.metric(name, "ndcg")) is not None:
                point(axes, x, y, look[name], label(name))
        floor = run.metric("mostpop", "ndcg") if "mostpop" in run.models and "mostpop" not in at else None
        if floor is not None:
            axes.axhline(floor, color=COLOR["mostpop"], linestyle=":", linewidth=1.2)
        axes.set_xscale("log")
        axes.set(ylabel=f"NDCG@{run.k}")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda one, _: form(one)))
        axes.margins(x=0.2, y=0.15)

    rows = [[label(name), form(x), value(run.metric(name, "ndcg"))] for name, x in at.items()]
    return Shown(drawn(key, text, draw), text, Numbers(["model", key, f"ndcg@{run.k}"], rows))
