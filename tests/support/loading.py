"""Comparison of a model with the one that was loaded from its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn


def the_same(one: nn.Module, two: nn.Module) -> None:
    """Parameters, buffers that are saved and buffers that are not: names, types, numbers, ties."""
    for named in ("named_parameters", "named_buffers"):
        mine = dict(getattr(one, named)(remove_duplicate=False))
        theirs = dict(getattr(two, named)(remove_duplicate=False))
        assert mine.keys() == theirs.keys()
        for name, tensor in mine.items():
            other = theirs[name]
            assert not other.is_meta and tensor.dtype == other.dtype, name
            assert type(tensor) is type(other), name
            assert tensor.requires_grad == other.requires_grad, name
            same = (tensor == other) | ((tensor != tensor) & (other != other))
            assert tensor.shape == other.shape and bool(same.all()), name
        assert len(set(map(id, mine.values()))) == len(set(map(id, theirs.values())))


def loaded(model: Any, folder: Path, **options: Any) -> Any:
    """The model, saved and opened again; it is built once, its first weights never made."""
    model.save_pretrained(folder)
    kind, built = type(model), []
    start = kind.__init__

    def counted(self: Any, *args: Any, **rest: Any) -> None:
        built.append(self)
        start(self, *args, **rest)

    kind.__init__ = counted
    try:
        again = kind.from_pretrained(folder, **options)
    finally:
        kind.__init__ = start
    assert len(built) == 1
    return again


def official_both_ways(make: Any, monkeypatch: Any) -> tuple[nn.Module, nn.Module]:
    """(what `make` builds, what it builds with all first weights)."""
    import contextlib

    fast = make()
    with monkeypatch.context() as patch:
        patch.setattr("vistok.storage.hollow._Hollow", contextlib.nullcontext)
        torch.manual_seed(0)
        return fast, make()
