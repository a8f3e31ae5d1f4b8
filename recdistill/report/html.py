"""Pages: a template filled with values, the style inside, one file that opens offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from recdistill import __version__
from recdistill.store import atomic

HERE = Path(__file__).parent


def render(template: str, **values: Any) -> str:
    """Fill a template of this folder. Everything is escaped but `Markup`: names and overrides are others' text."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style = Markup((HERE / "style.css").read_text(encoding="utf-8"))
    return environment.get_template(template).render(style=style, version=__version__, **values)


def write_page(path: Path, text: str) -> None:
    """Write a page atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def value(number: float | None) -> str:
    """A metric's value with four decimals; a dash where it does not exist."""
    return "-" if number is None else f"{number:.4f}".replace("-", "\N{MINUS SIGN}")


def signed(number: float | None, form: str = ".0%") -> str:
    """A difference or a lift with its sign."""
    return "-" if number is None else f"{number:+{form}}".replace("-", "\N{MINUS SIGN}")


def share(number: float | None) -> str:
    """A part of a whole."""
    return "-" if number is None else f"{number:.1%}".replace("-", "\N{MINUS SIGN}")


def size(n_bytes: float | None) -> str:
    """Bytes in decimal units with three digits."""
    if n_bytes is None:
        return "-"
    for unit in ("B", "kB", "MB"):
        if n_bytes < 999.5:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:,.3g} GB" if n_bytes < 999.5 else f"{n_bytes:,.0f} GB"


def duration(milliseconds: float) -> str:
    """A short time with two or three digits."""
    return f"{milliseconds:.3g} ms" if milliseconds >= 1 else f"{1000 * milliseconds:.3g} µs"
