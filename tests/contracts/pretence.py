"""A pretend accelerator: its tensors have values, which lie on the CPU, and a place, which is not the CPU.

What a real device does not do raises here: an operation on tensors of two places (`Mixed`), a generator of another
place (`Mixed`), and, `without_waiting`, whatever makes the host wait for the device (`Waits`): reading a value, a shape
that depends on values, a copy between the two. Kernels are those of the CPU, so neither their speed nor their rounding
is shown. The device is made for the whole process and cannot be undone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from recdistill import runtime

aten = torch.ops.aten
COPIES = (aten._to_copy.default, aten.copy_.default)
VALUE_TAGS = {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output}


class Waits(RuntimeError):
    """The host would wait for the device."""


class Mixed(RuntimeError):
    """One operation, two places."""


class _State:
    device = torch.device("cpu")  # until `begin`
    waiting = True  # whether it is allowed; of the process: autograd's thread must see it too
    generators: list[torch.Generator]  # those that stand for generators of the device


_State.generators = []


def begin() -> torch.device | None:
    """Make the device, once per process; None where this torch cannot."""
    setup = getattr(backend_registration, "_setup_privateuseone_for_python_backend", None)
    if setup is None:
        return None
    setup("pretend")
    _State.device = torch.device("pretend:0")
    return _State.device


@contextmanager
def used() -> Iterator[torch.device]:
    """Let tensors be made on the device, and recdistill's generators for it be made."""
    with generators_made_by(generator), _Places(), _Uploads():
        yield _State.device


@contextmanager
def generators_made_by(make: Callable[..., torch.Generator]) -> Iterator[None]:
    """Let another function stand in wherever recdistill holds `runtime.generator`."""
    holders = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("recdistill.") and getattr(module, "generator", None) is _generator
    ]
    for module in holders:
        vars(module)["generator"] = make
    try:
        yield
    finally:
        for module in holders:
            vars(module)["generator"] = _generator


@contextmanager
def without_waiting() -> Iterator[None]:
    """Whatever makes the host wait raises."""
    _State.waiting = False
    try:
        yield
    finally:
        _State.waiting = True


_generator = runtime.generator


def generator(seed: int, purpose: str, epoch: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """As `runtime.generator`; there are none of the device, so one of the CPU stands for it, with the CPU's draws."""
    made = _generator(seed, purpose, epoch)
    if torch.device(device).type == _State.device.type != "cpu":
        _State.generators.append(made)
    return made


class OnDevice(Tensor):
    """A tensor on the device, around the tensor that holds its values."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> OnDevice:
        place = {} if held.is_sparse else {"strides": held.stride(), "storage_offset": held.storage_offset()}
        return Tensor._make_wrapper_subclass(
            cls, held.shape, dtype=held.dtype, layout=held.layout, device=_State.device, **place
        )

    def __init__(self, held: Tensor) -> None:
        self.held = held

    def __repr__(self) -> str:
        return f"OnDevice({self.held})"

    def tolist(self) -> list[Any]:
        return self.cpu().tolist()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.held.untyped_storage()

    def numpy(self) -> Any:
        raise Mixed("numpy() of a tensor on a device")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Places(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Uploads(TorchFunctionMode):
    """Tensors made from the host's numbers: torch fills them on the CPU and copies them, where no mode looks."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is Tensor.new_tensor and isinstance(args[0], OnDevice):
            kwargs = {"dtype": args[0].dtype} | kwargs
            return torch.tensor(*args[1:], **kwargs).to(_State.device)
        if func in (torch.tensor, torch.as_tensor) and _is_ours(kwargs.get("device")):
            return func(*args, **(kwargs | {"device": "cpu"})).to(_State.device)
        return func(*args, **kwargs)


def _is_ours(device: Any) -> bool:
    return device is not None and torch.device(device).type == _State.device.type


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    """One operation, on the values; its results are on the device if its operands are or it was asked for."""
    given, structure = tree_flatten((args, kwargs))
    ours = [one for one in given if isinstance(one, OnDevice)]
    asked = [_is_ours(one) for one in given if isinstance(one, torch.device)]
    on_device = asked[0] if asked else bool(ours)
    if func in COPIES:
        if func is aten.copy_.default:
            on_device = isinstance(args[0], OnDevice)
        if isinstance(args[1 if func is aten.copy_.default else 0], OnDevice) != on_device:
            _refuse_waiting(f"{func}: a copy between host and device")
    else:
        _refuse_two_places(func, given, kwargs, on_device)
        if ours and _reads_values(func, args, kwargs):
            _refuse_waiting(f"{func}: it reads values")
    plain = [one.held if isinstance(one, OnDevice) else "cpu" if _is_device(one) else one for one in given]
    args, kwargs = tree_unflatten(plain, structure)
    found, structure = tree_flatten(func(*args, **kwargs))
    if on_device:
        known = {id(one.held): one for one in ours}  # what an operation writes into is the same tensor afterwards
        found = [
            known[id(one)] if id(one) in known else OnDevice(one) if isinstance(one, Tensor) else one for one in found
        ]
    return tree_unflatten(found, structure)


def _is_device(value: Any) -> bool:
    return isinstance(value, torch.device) and _is_ours(value)


def _refuse_two_places(func: Any, given: list[Any], kwargs: Any, on_device: bool) -> None:
    """On a real device a number in a tensor [] of the CPU may join tensors of the device, anything else may not."""
    elsewhere = [one for one in given if isinstance(one, Tensor) and not isinstance(one, OnDevice) and one.ndim]
    if on_device and elsewhere:
        raise Mixed(f"{func} on {_State.device} with a tensor {tuple(elsewhere[0].shape)} of the CPU")
    drawn = kwargs.get("generator")
    # A generator comes here in a new wrapper; its address tells which it is.
    if drawn is not None and any(drawn._cdata == one._cdata for one in _State.generators) != on_device:
        raise Mixed(f"{func} on {_State.device if on_device else 'cpu'} with a generator of the other place")


def _reads_values(func: Any, args: Any, kwargs: Any) -> bool:
    if func in (aten.index.Tensor, aten.index_put_.default, aten.index_put.default):
        return any(one is not None and one.dtype in (torch.bool, torch.uint8) for one in args[1])
    if func is aten.repeat_interleave.Tensor:
        return kwargs.get("output_size") is None
    return func is aten._coalesce.default or bool(VALUE_TAGS & set(func.tags))


def _refuse_waiting(what: str) -> None:
    if not _State.waiting:
        raise Waits(what)
