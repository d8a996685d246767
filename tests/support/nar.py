"""NAR as its code base describes it: official configs, tiny weights."""

from __future__ import annotations

import torch
from torch import Tensor

from vistok.generators import Generator
from vistok.pretrained import FAMILIES, to_official

SMALL = {"dim": 16, "n_layer": 2, "n_head": 2, "multiple_of": 16, "vocab_size": 12}
SMALL |= {"num_classes": 3, "cls_token_num": 1}
IMAGES = {**SMALL, "block_size": 9}
CAPTIONS = {**IMAGES, "model_type": "t2i", "cls_token_num": 4, "caption_dim": 6}
CLIPS = {**SMALL, "latent_shape": [2, 2, 3], "max_seq_len": 12}


def official_nar(config: dict) -> tuple[dict[str, Tensor], dict]:
    """(state, config) of a tiny NAR in its official layout, with random weights."""
    torch.manual_seed(0)
    model = Generator.from_description(FAMILIES["nar"].config(config), "tiny")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return to_official(model, "nar")[0], config
