"""The parser of every verb that takes ordinary flags."""

from __future__ import annotations

import argparse
from typing import NoReturn

from recdistill.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """Argparse, whose complaints are our errors: what, why and how to fix, with exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Complain.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(message, f"that is not how {self.prog} is used", f"{self.prog} --help")
