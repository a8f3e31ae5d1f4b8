"""Figures as inline SVG."""

import re

import numpy as np
import pytest
from matplotlib.axes import Axes

from recdistill.report.plots import (
    LINE_POINTS,
    VARIABLES,
    bar_text,
    drawn,
    grouped_bars,
    line,
    lines_below,
    log_axis,
    looks,
    points,
    thinned,
)

LOOK = looks(["teacher", "student"])


def bars(axes: Axes) -> None:
    grouped_bars(axes, ["head", "tail <&>"], {"teacher": [0.5, 0.25], "student": [0.125, None]}, LOOK)


def test_two_figures_share_no_id() -> None:
    ids = [re.findall(r'\bid="([^"]*)"', drawn(name, "label", bars)) for name in ("one", "two")]
    assert set(ids[0]) & set(ids[1]) == set()
    assert [one.removeprefix("one-") for one in ids[0]] == [two.removeprefix("two-") for two in ids[1]]


def test_the_same_figure_has_the_same_bytes() -> None:
    assert drawn("one", "label", bars) == drawn("one", "label", bars)


def test_colours_are_variables_and_fonts_the_pages() -> None:
    svg = drawn("one", "label", bars)
    assert re.findall(r"#[0-9a-f]{6}\b|font-family|font:", svg) == []
    assert set(re.findall(r"var\(--(\w+)\)", svg)) <= set(VARIABLES)
    assert "xmlns" not in svg
    assert "<style" not in svg


def test_texts_and_labels_are_escaped() -> None:
    svg = drawn("one", '"<script>', bars)
    assert "tail &lt;&amp;&gt;" in svg
    assert 'aria-label="&#34;&lt;script&gt;"' in svg


def test_a_value_that_does_not_exist_is_a_dash_and_no_zero() -> None:
    texts = re.findall(r">([^<>]+)</text>", drawn("one", "label", bars))
    over = [text for text in texts if text in (".500", ".250", ".125", "-", ".000")]
    assert over == [".500", ".250", ".125", "-"]


def test_dollar_signs_are_text() -> None:
    svg = drawn("one", "label", lambda axes: points(axes, [(1.0, 2.0)], [LOOK["student"]], ["$\\frac{1}{0}$"]))
    assert ">$\\frac{1}{0}$</text>" in svg


def test_a_logarithmic_axis_spells_its_ticks() -> None:
    def draw(axes: Axes) -> None:
        line(axes, [84_000, 672_000], [0.1, 0.2], LOOK["student"])
        log_axis(axes, "x", lambda size: f"{size / 1000:.0f} kB")

    texts = re.findall(r">([^<>]+ kB)</text>", drawn("one", "label", draw))
    assert {"100 kB", "200 kB", "500 kB"} <= set(texts)


def test_long_curves_are_thinned_between_their_ends() -> None:
    x, y = thinned(np.arange(5000), np.arange(5000) ** 2)
    assert len(x) <= LINE_POINTS
    assert (x[0], x[-1], y[-1]) == (0, 4999, 4999**2)
    assert thinned([1, 2], [3, 4])[0].tolist() == [1, 2]


def test_every_model_of_a_run_looks_different_and_roles_look_the_same_everywhere() -> None:
    names = ["teacher.a", "teacher.b", "teacher.c", "scratch", "student", "trained.bd", "mostpop"]
    found = looks(names)
    assert len(set(found.values())) == len(names)
    assert found["student"] == LOOK["student"]
    assert found["teacher.a"] == LOOK["teacher"]


@pytest.mark.parametrize(
    ("value", "percent", "n_bars", "text"),
    [
        (0.364, True, 8, "36%"),
        (-0.364, True, 12, "\N{MINUS SIGN}36"),
        (0.3168, False, 12, ".317"),
        (1.5, False, 8, "1.50"),
        (0.3168, False, 13, ""),
    ],
)
def test_values_over_bars_are_as_short_as_the_bars_are_narrow(
    value: float, percent: bool, n_bars: int, text: str
) -> None:
    assert bar_text(value, percent, n_bars) == text


def test_a_curve_of_one_epoch_is_a_dot() -> None:
    svg = drawn("one", "label", lambda axes: line(axes, [1], [0.5], LOOK["student"]))
    assert len(re.findall(r"<use [^>]*var\(--student\)", svg)) == 1


def test_names_of_close_points_go_on_lines_of_their_own_below() -> None:
    assert lines_below(np.array([(0.0, 0.30), (0.1, 0.31), (0.9, 0.305), (1.0, 0.5)])) == [1, 0, 0, 0]
    assert lines_below(np.array([(0.1, 0.31), (0.0, 0.3), (0.0, 0.3), (1.0, 0.5)])) == [0, 2, 1, 0]
    assert lines_below(np.zeros((0, 2))) == []


def test_points_are_close_or_not_on_the_scale_that_x_will_have() -> None:
    at, look = [(10.0, 0.3), (300.0, 0.301), (1000.0, 0.5)], [LOOK["student"]] * 3

    def below(x: list[float], *, logarithmic: bool) -> list[str]:
        found: list[str] = []

        def draw(axes: Axes) -> None:
            places = [(one, y) for one, (_, y) in zip(x, at, strict=True)]
            points(axes, places, look, ["p", "q", "r"], logarithmic=logarithmic)
            found.extend(text.get_text() for text in axes.texts if text.get_position()[1] < 0)

        drawn("one", "label", draw)
        return found

    assert below([10.0, 200.0, 100_000.0], logarithmic=False) == ["p"]
    assert below([10.0, 2000.0, 100_000.0], logarithmic=True) == []
