"""The state of a training as one safetensors file: parameters and buffers, optimizer, epoch, best so far."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from recdistill.errors import CacheError
from recdistill.store import atomic, cannot_write


@dataclass
class TrainState:
    """Where a training stands, beside the modules and the optimizer themselves.

    Attributes:
        epoch: epochs done.
        best_epoch: the epoch with the best validation value.
        best_value: that value.
        history: one row per epoch.
        best: the trained models' weights at `best_epoch`.
    """

    epoch: int
    best_epoch: int
    best_value: float
    history: list[dict[str, Any]]
    best: dict[str, Tensor]


def save_weights(path: Path, weights: dict[str, Tensor]) -> None:
    """Write tensors as safetensors, atomically."""
    _save(path, weights)


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read tensors.

    Raises:
        CacheError: the file is missing, cut short or no safetensors file.
    """
    try:
        return dict(safetensors.torch.load_file(path))
    except (OSError, safetensors.SafetensorError) as error:
        raise CacheError(
            f"cannot read the weights {path}: {error}",
            "the file is missing or was cut short",
            f"remove {path.parent} and run the same command again",
        ) from error


def save_checkpoint(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, state: TrainState) -> None:
    """Write everything that continuing needs, atomically."""
    tensors = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in state.best.items()}
    for number, entry in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": value for name, value in entry.items()}
    meta = {
        "epoch": state.epoch,
        "best_epoch": state.best_epoch,
        "best_value": state.best_value,
        "history": state.history,
    }
    _save(path, tensors, {"state": json.dumps(meta)})


def _save(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic(path) as temporary:
        try:
            safetensors.torch.save_file(plain, temporary, metadata=metadata)
        except safetensors.SafetensorError as error:  # so it calls a full disk too, where others raise OSError
            raise cannot_write(path, error) from error


def load_checkpoint(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> TrainState:
    """Put a checkpoint's state into the module and the optimizer.

    Raises:
        CacheError: the file is missing, cut short, or of another model.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as stream:
            meta = json.loads(stream.metadata()["state"])
        tensors = load_weights(path)
        module.load_state_dict(_below(tensors, "module."))
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, RuntimeError) as error:
        raise CacheError(
            f"cannot read the checkpoint {path}: {error}",
            "the file is missing, cut short, no checkpoint or that of another model",
            f"remove {path}; training then starts from the beginning",
        ) from error
    optimizer_state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _below(tensors, "optimizer.").items():
        number, key = name.split(".", 1)
        optimizer_state.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({"state": optimizer_state, "param_groups": optimizer.state_dict()["param_groups"]})
    return TrainState(**meta, best=_below(tensors, "best."))


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
