"""The start of ViT parts from a frozen ViT (DINOv2 as XQ-GAN and RobusTok begin with it).

Encoder and decoder take its class token, positions, blocks and final norm, the encoder its patch
embedding too. Positions and patch kernels are resampled to the part's own grid and patches, as timm
does; what such a network has not (latents, levels, projections, the head) begins as it was made.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from vistok.config import Config, ConfigError, UserError
from vistok.core.errors import InputError
from vistok.core.shapes import Shape
from vistok.frozen.files import fitted
from vistok.frozen.vit import FrozenViTConfig, published
from vistok.frozen.vit_layouts import to_ours
from vistok.tokenizer import Tokenizer

PARTS = ("encoder", "decoder")
_SHARED = ("class_token", "positions.", "patch_embed.", "transformer.")


def check_fits(network: Config, name: str, part: Any, shape: Shape) -> None:
    """InputError in one line unless the part of that config can take the network's weights.

    Args:
        network: config of the family vision. name: encoder or decoder, of images `shape`.
    """
    if not isinstance(network, FrozenViTConfig):
        raise InputError(
            f"init: network '{network.kind}' starts no encoder or decoder; expected a ViT of DINO "
            "or DINOv2, such as dinov2-b"
        )
    said = f"init: {network.network}"
    if name not in PARTS:
        raise InputError(f"{said} starts encoder and decoder, not '{name}'; remove it from parts")
    if part.kind != "vit" or shape.is_clip:
        what = "takes clips" if part.kind == "vit" else f"is of kind '{part.kind}'"
        raise InputError(f"{said} is a ViT of images, but {name} {what}; expected kind vit")
    patches, inner, theirs = part.patches, part.transformer, network.shape
    if patches.positions != "learned" or not patches.class_token:
        raise InputError(
            f"{said} has a class token and learned positions, but {name}.patches has positions="
            f"{patches.positions} and class_token={str(patches.class_token).lower()}; set them to "
            "learned and true"
        )
    tanh = lambda kind: "gelu" if kind == "gelu_tanh" else kind  # the same tensors
    pairs = {
        "width": (inner.width, theirs.width),
        "heads": (inner.heads, theirs.heads),
        "mlp": (tanh(inner.mlp), tanh(theirs.mlp)),
        "mlp_ratio": (inner.mlp_ratio, theirs.mlp_ratio),
        "norm": (inner.norm, "layernorm"),
        "layer_scale": (inner.layer_scale is not None, theirs.layer_scale),
        "depth": (inner.depth, min(inner.depth, theirs.depth)),
    }
    for key, (ours, given) in pairs.items():
        if ours != given:
            raise InputError(
                f"{said} has {key}={given}, but {name}.transformer has {key}={ours}; expected "
                "equal numbers"
            )


def start_from_network(tokenizer: Tokenizer, network: FrozenViTConfig, parts: Iterable[str]) -> str:
    """Copy the network's tensors into the parts; the sha256 of its weights ("" for random ones).

    ConfigError in one line for weights that are missing or do not fit.
    """
    shapes = {"encoder": tokenizer.input_space.shape, "decoder": tokenizer.output_space.shape}
    try:
        state, sha256 = published(network)
        for name in parts:
            part = getattr(tokenizer, name)
            grid = part.config.patches.grid(shapes[name])
            _take(part, state, grid, network.network)
    except UserError as error:
        raise ConfigError(f"task.init: {error}") from None
    return sha256


@torch.no_grad()
def _take(part: Any, state: dict[str, Tensor], grid: tuple[int, int], network: str) -> None:
    own = {k: v for k, v in part.state_dict(keep_vars=True).items() if k.startswith(_SHARED)}
    given = to_ours(state, own, grid)
    if not any(name.startswith("patch_embed.") for name in own):  # a decoder reads no patches
        given = {k: v for k, v in given.items() if not k.startswith("patch_embed.")}
    for name, tensor in fitted(own, given, network).items():
        own[name].copy_(tensor)
