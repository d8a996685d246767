"""MaskGIT as its code base describes it: tiny weights of both networks in the official layout."""

from __future__ import annotations

import torch
from torch import Tensor

from vistok.generators import Generator
from vistok.pretrained import FAMILIES, to_official


def official_maskgit(kind: str = "ViT", **changes) -> tuple[dict[str, Tensor], dict]:
    """(state, config) of a tiny MaskGIT with random weights.

    Args:
        kind: ViT or UViT. changes: keys of model.generator.
    """
    generator = {
        "model_type": kind,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "dropout": 0.1,
        "attn_drop": 0.2,
        "num_steps": 3,
        "class_label_dropout": 0.1,
        "image_seq_len": 8,
        "condition_num_classes": 3,
        "randomize_temperature": 2.0,
        "guidance_scale": 3.0,
        "guidance_decay": "linear",
        **changes,
    }
    tokens = {"codebook_size": 24, "token_size": 12, "num_latent_tokens": 8}
    config = {
        "experiment": {"tokenizer_checkpoint": "tokenizer_titok_l32.bin"},
        "model": {"vq_model": tokens, "generator": generator},
    }
    model = Generator.from_description(FAMILIES["maskgit"].config(config), "tiny")
    state, _ = to_official(model, "maskgit")
    torch.manual_seed(0)
    return {key: torch.randn_like(tensor) for key, tensor in state.items()}, config
