"""`recdistill doctor`: what a bug report needs, and what would stop a run."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recdistill.commands.parser import Parser
from recdistill.errors import RecDistillError
from recdistill.store import ensure_folder


def doctor(words: Sequence[str]) -> int:
    """Print versions, device, threads, memory and whether the outputs folder can be written; 1 if it cannot."""
    parser = Parser("recdistill doctor", description="Versions, device, threads, memory, folders.")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="the outputs folder (default: outputs)")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    arguments = parser.parse_args(list(words))
    from recdistill.commands.conf import conf_folder
    from recdistill.report.record import environment
    from recdistill.runtime import free_memory, n_gpus, start

    runtime = start("auto", 1, 0)
    try:
        ensure_folder(arguments.outputs)
        writable = "yes"
    except RecDistillError as error:
        writable = error.what
    there = environment()
    facts: dict[str, Any] = {
        **there["versions"],
        "platform": there["platform"],
        "device": str(runtime.device),
        "GPUs": n_gpus(),
        "cpus": os.cpu_count(),
        "threads by default": runtime.threads,
        "free memory": f"{free_memory(runtime.device) / 2**30:.1f} GiB",
        "config tree": str(conf_folder()),
        "outputs": str(arguments.outputs.resolve()),
        "outputs can be written": writable,
    }
    if arguments.json:
        print(json.dumps(facts, indent=2))
    else:
        for name, value in facts.items():
            print(f"{name:<24} {value}")
    return 0 if writable == "yes" else 1
