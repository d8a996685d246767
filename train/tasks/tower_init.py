"""The start of a vision tower from the network that it is a copy of: CLIP, SigLIP, ViTamin.

The tower takes patches, class token, positions and blocks, as many as it has; heads that pool are
left behind (TokenFlow's semantic branch).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from vistok.config import Config, ConfigError, UserError
from vistok.config.registry import build
from vistok.core.errors import InputError
from vistok.frozen.files import fitted
from vistok.frozen.preset_layouts import vit_names
from vistok.layers.vision_tower import VisionTower, VisionTowerConfig
from vistok.tokenizer import Tokenizer

KINDS = ("clip", "siglip", "vitamin")
_OUTSIDE = {
    "cls_token": "class_token",
    "pos_embed": "table",
    "patch_embed.proj.weight": "patches.weight",
    "patch_embed.proj.bias": "patches.bias",
    "norm_pre.weight": "norm_in.weight",
    "norm_pre.bias": "norm_in.bias",
    "norm.weight": "transformer.norm.weight",
    "norm.bias": "transformer.norm.bias",
}
_MOST = 512  # blocks of a transformer
_BLOCK = (
    ("blocks.", "transformer.blocks."),
    (".norm1.", ".norm_attention."),
    (".norm2.", ".norm_mlp."),
    (".attn.qkv.", ".attention.qkv."),
    (".attn.proj.", ".attention.out."),
    (".mlp.fc1.", ".mlp.up."),
    (".mlp.fc2.", ".mlp.out."),
)


def check_tower(network: Config, name: str, tokenizer: Config) -> None:
    """InputError in one line unless `name` leads to the config of a vision tower.

    Args:
        network: of a kind in KINDS. name: of a module (encoder.branches.0.encoder.tower).
        tokenizer: its config.
    """
    found: Any = tokenizer
    for word in name.split("."):
        if word.isdigit() and isinstance(found, tuple) and int(word) < len(found):
            found = found[int(word)]
        else:
            found = getattr(found, word, None)
    if not isinstance(found, VisionTowerConfig):
        raise InputError(
            f"init: {network.kind} starts a vision tower, and '{name}' is none; expected the name "
            "of one, such as encoder.branches.0.encoder.tower"
        )


def start_towers(tokenizer: Tokenizer, network: Config, parts: Iterable[str]) -> str:
    """Copy a network's tensors into towers; the sha256 of its weights.

    ConfigError in one line for weights that are missing or do not fit.
    """
    try:
        source = build(network)
        state = source.tower.state_dict() if network.kind == "vitamin" else None
        if state is None:
            state = tower_names(source.network.state_dict())
        for name in parts:
            take(tokenizer.get_submodule(name), state, network.kind)
    except UserError as error:
        raise ConfigError(f"task.init: {error}") from None
    return source.sha256


def tower_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A CLIP or SigLIP of transformers, or of timm -> the names of a `VisionTower`."""
    ours = {}
    for key, tensor in vit_names(state).items():
        if key in _OUTSIDE:
            ours[_OUTSIDE[key]] = tensor.flatten(0, -2) if key == "pos_embed" else tensor
        elif key.startswith("blocks."):
            for theirs, name in _BLOCK:
                key = key.replace(theirs, name, 1)
            ours[key] = tensor
    if "class_token" in ours:
        ours["class_token"] = ours["class_token"].flatten()
    return ours


@torch.no_grad()
def take(tower: VisionTower, state: Mapping[str, Tensor], network: str) -> None:
    """Give a tower the tensors that it has of a state in its own names; BadWeights where the state
    lacks one, or has another shape.

    Blocks behind the tower's last and the last norm may be left; InputError for any other tensor
    that the tower has no place for, without which its features would be others.
    """
    own, depth = tower.state_dict(keep_vars=True), len(tower.transformer.blocks)
    behind = ("transformer.norm.", *(f"transformer.blocks.{i}." for i in range(depth, _MOST)))
    left = [key for key in state if key not in own and not key.startswith(behind)]
    if left:
        raise InputError(
            f"{network}: the tower has no place for its '{left[0]}'; expected a tower with the "
            "network's own class_token, norm_in, patch_bias and transformer"
        )
    given = {key: tensor for key, tensor in state.items() if key in own}
    for key, tensor in fitted(own, given, network).items():
        own[key].copy_(tensor)
