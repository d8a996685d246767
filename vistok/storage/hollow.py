"""Networks built for weights that take the place of their first ones.

Inside, `torch.empty`, with which layers allocate what they then fill at random, gives tensors
without storage (device "meta"); everything else is computed as ever, so that tables of positions
and other buffers that no file holds are right. A part that computes with its first weights is built
again with all of them. The mode belongs to a thread: others build as ever meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vistok.core.errors import UserError

M = TypeVar("M", bound=nn.Module)
T = TypeVar("T")
_thread = threading.local()


class _Hollow(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.empty and kwargs.get("device") is None:
            if not getattr(_thread, "whole", False):
                kwargs = {**kwargs, "device": "meta"}
        return func(*args, **kwargs)


@contextmanager
def whole() -> Iterator[None]:
    """Networks inside keep their storage, whoever builds them: they load weights of their own."""
    before, _thread.whole = getattr(_thread, "whole", False), True
    try:
        yield
    finally:
        _thread.whole = before


def filled(build: Callable[[], M], fill: Callable[[M], T]) -> tuple[M, T]:
    """(a module that is built without its first weights, what `fill` gives when it fills it).

    Args:
        build: makes the module. fill: replaces every parameter and every buffer that is saved.
    """
    try:
        with _Hollow():
            module = build()
        outcome = fill(module)
        if not is_hollow(module):
            return module, outcome
    except UserError:
        raise
    except (RuntimeError, NotImplementedError):  # a constructor that computes with first weights
        pass
    module = build()
    return module, fill(module)


def is_hollow(module: nn.Module) -> bool:
    """True if a tensor of a module has no storage."""
    return any(one.is_meta for one in chain(module.parameters(), module.buffers()))


def put(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put tensors in the place of those of a module's state, of all names that share one.

    They become the module's own: nobody else may use them afterwards.
    """
    own = module.state_dict(keep_vars=True)
    fresh = {}
    for name, tensor in tensors.items():
        old = own[name]
        if isinstance(old, nn.Parameter):
            tensor = nn.Parameter(tensor, requires_grad=old.requires_grad)
        fresh[id(old)] = tensor
    for part in module.modules():
        for held in (part._parameters, part._buffers):
            held.update({name: fresh[id(old)] for name, old in held.items() if id(old) in fresh})
