"""Errors that say what is wrong, why it matters and how to fix it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RecDistillError(Exception):
    """An error that a user can act on; the command line prints its three lines without a traceback.

    Args:
        what: what is wrong, with the offending value.
        why: the rule or limit behind it.
        fix: what to type or change instead.
    """

    exit_code = 1

    def __init__(self, what: str, why: str, fix: str) -> None:
        """Store the three parts; all three are also the exception's arguments, so it pickles."""
        super().__init__(what, why, fix)
        self.what = what
        self.why = why
        self.fix = fix

    def __str__(self) -> str:
        """Three lines: what, why, fix."""
        return f"{type(self).__name__}: {self.what}\nWhy: {self.why}\nFix: {self.fix}"


class ConfigError(RecDistillError):
    """The user's words or config are off; nothing has run (exit code 2)."""

    exit_code = 2


class SettingsError(ConfigError):
    """A component's setting is outside its range."""


class NeedsNotMet(ConfigError):
    """A distiller asks for knowledge that the teacher does not provide."""


class DataError(RecDistillError):
    """A data file is missing, broken or unusable."""


class ShapeError(RecDistillError):
    """Tensors whose shapes do not fit together reached a public function."""


class CacheError(RecDistillError):
    """Something under `outputs` cannot be read or written."""


class OutOfMemory(RecDistillError):
    """Memory does not hold the smallest piece of a computation."""


class TrainingError(RecDistillError):
    """Training produced a loss that is not a finite number."""


def require(claim: bool, setting: str, value: object, limit: str) -> None:
    """Check one setting of a component.

    Args:
        claim: what must hold.
        setting: the key as the constructor spells it, such as `weight`.
        value: what was given.
        limit: the legal range in words, such as `>= 0`.

    Raises:
        SettingsError: `claim` is false.
    """
    if not claim:
        raise SettingsError(
            f"{setting}={value!r} is out of range",
            f"{setting} must be {limit}",
            f"set {setting} to a value that is {limit}",
        )


def nearest(word: str, known: Iterable[str]) -> str:
    """Words that name the legal name closest to a wrong one; empty if none is near."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


class Problems:
    """What is off with a user's words, collected so that all of it is told at once."""

    def __init__(self) -> None:
        """Start with none."""
        self.found: list[RecDistillError] = []

    def add(self, path: str, text: str, fix: str = "") -> None:
        """Note a problem of one key."""
        self.found.append(
            ConfigError(
                f"{path}: {text}",
                "the config is checked as a whole before any data are read",
                fix or "mend the keys named above; recdistill explain GROUP=NAME lists what there is",
            )
        )

    def note(self, error: RecDistillError, path: str) -> None:
        """Note what a component said of itself; a setting's key gets the component's path before it."""
        if isinstance(error, SettingsError):
            fix = error.fix.removeprefix("set ")
            error = SettingsError(f"{path}.{error.what}", error.why, f"set {path}.{fix}")
        self.found.append(error)

    def stop(self) -> None:
        """Raise what was found, if anything.

        Raises:
            RecDistillError: the only problem, or a ConfigError with one line for each.
        """
        if len(self.found) == 1:
            raise self.found[0]
        if self.found:
            limits = [f" ({error.why})" if isinstance(error, SettingsError) else "" for error in self.found]
            lines = "".join(f"\n  - {error.what}{limit}" for error, limit in zip(self.found, limits, strict=True))
            fixes = dict.fromkeys(error.fix for error in self.found)
            raise ConfigError(f"{len(self.found)} problems:{lines}", self.found[0].why, "; ".join(fixes))
