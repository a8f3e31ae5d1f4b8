"""Tab completion: `eval "$(recdistill -sc install=bash)"`, also zsh and fish."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import hydra

from recdistill.commands.conf import conf_folder
from recdistill.errors import ConfigError

FIX = 'eval "$(recdistill -sc install=bash)" (or zsh, fish)'


def completion(words: Sequence[str], verbs: Sequence[str] = ()) -> int:
    """Print a shell's completion script, or, when that script asks, what may come next.

    Hydra knows overrides but no verbs: the verb is completed here, and cut from the line before Hydra sees it.

    Args:
        words: `install=SHELL`, `uninstall=SHELL` or `query=SHELL`.
        verbs: to complete.

    Raises:
        ConfigError: the words are something else.
    """
    action, _, shell = (words[0] if len(words) == 1 else "").partition("=")
    if action not in ("install", "uninstall", "query") or shell not in ("bash", "zsh", "fish"):
        raise ConfigError(f"cannot read {' '.join(words)!r} after -sc", "it is install=SHELL or uninstall=SHELL", FIX)
    if action == "query":
        program, _, rest = os.environ.get("COMP_LINE", "recdistill ").lstrip().partition(" ")
        verb, blank, overrides = rest.lstrip().partition(" ")
        if not blank:
            print(" ".join(name for name in verbs if name.startswith(verb)))
            return 0
        if verb != "train":
            return 0
        os.environ["COMP_LINE"] = f"{program} {overrides}"
    argv, sys.argv = sys.argv, ["recdistill", "-sc", *words]
    try:
        hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")(lambda _: None)()
    finally:
        sys.argv = argv
    return 0
