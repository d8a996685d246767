"""A tiny tokenizer of VAE latents with a flow decoder, as FlexTok is."""

from __future__ import annotations

import copy
from typing import Any

VAE = {
    "kind": "vae",
    "weights": "own",
    "scaling_factor": 0.5,
    "network": {
        "latent_channels": 4,
        "block_out_channels": [8, 8],
        "layers_per_block": 1,
        "norm_num_groups": 4,
    },
}
_TRANSFORMER = {"width": 16, "depth": 1, "heads": 2}
TREE: dict[str, Any] = {
    "image_size": 32,
    "input_space": VAE,
    "output_space": VAE,
    "encoder": {
        "kind": "vit",
        "patches": {"size": 4},
        "latents": {"count": 4},
        "transformer": _TRANSFORMER,
        "attention": "causal_latents",
    },
    "quantizer": {"kind": "fsq", "levels": [5, 5]},
    "regularizers": [{"kind": "nested_dropout"}, {"kind": "condition_dropout", "share": 0.5}],
    "decoder": {
        "kind": "flow_vit",
        "patches": {"size": 4},
        "transformer": {**_TRANSFORMER, "modulation_kinds": 2, "norm_affine": False},
        "time": {"channels": 8, "max_period": 256.0},
        "sampling": {"steps": 3, "guidance": {"kind": "apg", "scale": 3.0}},
    },
}


def latent_tree(pixels: bool = False, **decoder: Any) -> dict[str, Any]:
    """The tokenizer's config; in pixels if they are asked for, with changes to its decoder."""
    tree = copy.deepcopy(TREE)
    tree["decoder"] |= decoder
    if pixels:
        tree |= {"input_space": {"kind": "pixels"}, "output_space": {"kind": "pixels"}}
        tree["encoder"]["patches"] = tree["decoder"]["patches"] = {"size": 8}
    return tree


def wake(tokenizer: Any) -> Any:
    """The tokenizer with random numbers where its layers start at zero."""
    import torch

    torch.manual_seed(1)
    for parameter in tokenizer.decoder.parameters():
        if not parameter.detach().any():
            parameter.data.normal_(std=0.3)
    return tokenizer
