"""Errors that say what is wrong, why it matters and how to fix it."""

from __future__ import annotations


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
