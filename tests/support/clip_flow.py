"""A tiny VideoFlexTok in pixels: 3 frames with 4 tokens each."""

from __future__ import annotations

from typing import Any

import torch

from tests.support.latent_flow import wake
from vistok.config import validate
from vistok.tokenizer import Tokenizer, TokenizerConfig

TRUNK = {"width": 16, "depth": 2, "heads": 2}


def clip_tree(encoder: dict[str, Any] | None = None, **decoder: Any) -> dict[str, Any]:
    space = {"kind": "pixels"}
    patches = {"size": 4, "positions": {"kind": "sum", "sides": [4, 4, 4]}}
    return {
        "image_size": 8,
        "frames": 3,
        "input_space": space,
        "output_space": space,
        "encoder": {
            "kind": "vit",
            "patches": patches,
            "latents": {"count": 4, "steps": 5},
            "transformer": TRUNK,
            "attention": "time_block_causal_last",
            **(encoder or {}),
        },
        "quantizer": {"kind": "fsq", "levels": [4, 3]},
        "regularizers": [
            {"kind": "nested_dropout", "lengths": "pow2"},
            {"kind": "condition_dropout", "share": 0.5},
        ],
        "decoder": {
            "kind": "flow_vit",
            "patches": patches,
            "transformer": {**TRUNK, "modulation_kinds": 2},
            "time": {"channels": 8},
            "time_steps": True,
            "value_positions": {"kind": "sum", "sides": [4, 4]},
            "given": {"lengths": [0, 1, 2], "shares": [0.4, 0.3, 0.3]},
            "sampling": {"steps": 3, "guidance": {"scale": 2.0}},
            **decoder,
        },
    }


def clip_tokenizer(encoder: dict[str, Any] | None = None, **decoder: Any) -> Tokenizer:
    torch.manual_seed(0)
    return wake(Tokenizer(validate(TokenizerConfig, clip_tree(encoder, **decoder))).eval())
