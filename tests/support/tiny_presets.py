"""Presets of feature networks at tiny sizes: the same classes and layouts, random weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from vistok.frozen.convnext_v2 import ConvNeXtShape
from vistok.frozen.preset_layouts import official_name
from vistok.frozen.presets import PRESETS, Preset

SIZES = {"width": 16, "depth": 2, "heads": 2, "hidden": 32}


def shrink(monkeypatch, name: str, **changes) -> Preset:
    """Make the preset `name` a tiny network for this test; `changes` of its fields or shape."""
    preset = PRESETS[name]
    if isinstance(preset.shape, ConvNeXtShape):
        shape = ConvNeXtShape((1, 1, 2, 1), (4, 8, 8, 16))
    else:
        sizes = {**SIZES, **({"projection": 6} if preset.shape.projection else {})}
        given = {key: changes.pop(key) for key in list(changes) if hasattr(preset.shape, key)}
        shape = replace(preset.shape, **sizes, **given)
    preset = replace(preset, shape=shape, **changes)
    monkeypatch.setitem(PRESETS, name, preset)
    return preset


def random_state(preset: Preset, seed: int = 0) -> dict[str, Tensor]:
    """Seeded numbers under the names of timm's files, which leave every part at work."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        expected = preset.build().state_dict()
    state = {}
    for key, tensor in expected.items():
        values = torch.randn(tensor.shape, generator=generator) * 0.3
        state[official_name(key)] = values + ("norm" in key and key.endswith("weight"))
    return state


def write(preset: Preset, path: Path, seed: int = 0) -> Path:
    """A weight file of random numbers in timm's layout."""
    save_file(random_state(preset, seed), path)
    return path
