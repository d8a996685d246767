"""Key layouts of published ViT weights -> the names of `FrozenViT`.

Three layouts hold the same network: the official files of DINO and DINOv2, timm's (equal but for
the gated feed-forward layer of the largest), and that of transformers (`Dinov2Model`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from vistok.layers.patchify import resample_kernel
from vistok.layers.positions import resample_positions

_OUTSIDE = {
    "cls_token": "class_token",
    "pos_embed": "positions.table",
    "patch_embed.proj.weight": "patch_embed.proj.weight",
    "patch_embed.proj.bias": "patch_embed.proj.bias",
    "norm.weight": "transformer.norm.weight",
    "norm.bias": "transformer.norm.bias",
}
_BLOCK = {
    "norm1": "norm_attention",
    "attn.qkv": "attention.qkv",
    "attn.proj": "attention.out",
    "ls1": "scale_attention",
    "norm2": "norm_mlp",
    "mlp.fc1": "mlp.up",
    "mlp.fc2": "mlp.out",
    "mlp.w12": "mlp.w12",
    "mlp.w3": "mlp.out",
    "ls2": "scale_mlp",
}
# What transformers calls the same.
_LIBRARY_OUTSIDE = {
    "embeddings.cls_token": "cls_token",
    "embeddings.mask_token": "mask_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}
_LIBRARY_BLOCK = {
    "norm1": "norm1",
    "norm2": "norm2",
    "attention.output.dense": "attn.proj",
    "layer_scale1": "ls1",
    "layer_scale2": "ls2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "mlp.weights_in": "mlp.w12",
    "mlp.weights_out": "mlp.w3",
}
# Inert: masked patches of DINOv2's training, and the constants of ImageFolder's discriminator.
_INERT = ("mask_token", "x_scale", "x_shift")


def to_ours(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], grid: tuple[int, int]
) -> dict[str, Tensor]:
    """An official state in our names, at the sizes of `expected`.

    Patch kernels and positions are resampled; blocks behind the last expected one are left out.
    Keys that no layout has stay as they are, so that the reader can name them.

    Args:
        expected: the network's own state (only shapes are read). grid: its patches, (h, w).
    """
    if any(key.startswith("embeddings.") for key in state):
        state = _from_library(state)
    depth = 1 + max(int(m[1]) for key in expected if (m := re.search(r"blocks\.(\d+)\.", key)))
    ours = {}
    for key, tensor in state.items():
        name = key.removeprefix("backbone.")
        found = re.fullmatch(r"blocks\.(\d+)\.(.+)\.(weight|bias|gamma)", name)
        if name in _INERT:
            continue
        if name in _OUTSIDE:
            ours[_OUTSIDE[name]] = tensor
        elif found is None or found[2] not in _BLOCK:
            ours[key] = tensor
        elif int(found[1]) < depth:
            ours[f"transformer.blocks.{found[1]}.{_BLOCK[found[2]]}.{found[3]}"] = tensor
    return _sized(_gated(ours, expected), expected, grid)


def _gated(ours: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Split the gated layer: its first half goes through SiLU, its second half does not.

    It is called w12 in official files and fc1 in timm's.
    """
    split = {}
    for key, tensor in ours.items():
        packed = re.fullmatch(r"(.+\.mlp\.)(?:w12|up)\.(weight|bias)", key)
        if packed is None or f"{packed[1]}gate.{packed[2]}" not in expected:
            split[key] = tensor
            continue
        for name, half in zip(("gate", "up"), tensor.chunk(2), strict=True):
            split[f"{packed[1]}{name}.{packed[2]}"] = half
    return split


def _sized(
    ours: dict[str, Tensor], expected: Mapping[str, Tensor], grid: tuple[int, int]
) -> dict[str, Tensor]:
    """Drop the axes of one sample and resample what depends on image and patch size."""
    token, table = ours.get("class_token"), ours.get("positions.table")
    if token is not None:
        ours["class_token"] = token.flatten()
    if table is not None and table.ndim == 3 and len(table) == 1:
        side = math.isqrt(table.shape[1] - 1)
        if side * side + 1 == table.shape[1]:  # else its shape is refused as it is
            table = resample_positions(table[0], (side, side), grid, lead=1)
        ours["positions.table"] = table
    kernel = ours.get("patch_embed.proj.weight")
    if kernel is not None and kernel.ndim == 4 and "patch_embed.proj.weight" in expected:
        size = tuple(expected["patch_embed.proj.weight"].shape[-2:])
        ours["patch_embed.proj.weight"] = resample_kernel(kernel, size)
    return ours


def _from_library(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The layout of transformers -> the official one; queries, keys and values become one matrix.

    Unknown keys stay as they are.
    """
    official: dict[str, Tensor] = {}
    apart: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        found = re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)\.(weight|bias|lambda1)", key)
        if key in _LIBRARY_OUTSIDE:
            official[_LIBRARY_OUTSIDE[key]] = tensor
            continue
        if found is None:
            official[key] = tensor
            continue
        block, layer, last = f"blocks.{found[1]}", found[2], found[3]
        last = "gamma" if last == "lambda1" else last
        part = re.fullmatch(r"attention\.attention\.(query|key|value)", layer)
        if part is not None:
            apart.setdefault(f"{block}.attn.qkv.{last}", {})[part[1]] = tensor
        elif layer in _LIBRARY_BLOCK:
            official[f"{block}.{_LIBRARY_BLOCK[layer]}.{last}"] = tensor
        else:
            official[key] = tensor
    for key, parts in apart.items():
        given = [parts[name] for name in ("query", "key", "value") if name in parts]
        official[key] = torch.cat(given)
    return official
