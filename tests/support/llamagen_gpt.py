"""LlamaGen's GPT as its code base describes it: official configs, tiny weights, logits of slots."""

from __future__ import annotations

import torch
from torch import Tensor

from vistok.core.records import Condition
from vistok.generators import Generator
from vistok.generators.autoregressive import Autoregressive
from vistok.pretrained import FAMILIES, to_official

SMALL = {
    "dim": 16, "n_layer": 2, "n_head": 2, "multiple_of": 16, "vocab_size": 12, "block_size": 9,
    "num_classes": 3, "cls_token_num": 1,
}  # fmt: skip
CAPTIONS = {**SMALL, "model_type": "t2i", "cls_token_num": 4, "caption_dim": 6}


def official_config(recorded: dict) -> dict:
    """The official config of a recording: `dropouts` is short for all of them, and captions stand
    where the network saw them, whatever side was padded."""
    tree = {key: value for key, value in recorded.items() if key != "dropouts"}
    tree |= {"no_left_padding": True} if tree["model_type"] == "t2i" else {}
    if "dropouts" in recorded:
        names = ("token_dropout_p", "attn_dropout_p", "resid_dropout_p", "ffn_dropout_p")
        tree = {**dict.fromkeys(names, recorded["dropouts"]), **tree}
    return tree


@torch.no_grad()
def logits(model: Autoregressive, codes: Tensor, condition: Condition) -> Tensor:
    """[B, S + n, V] of all slots of sequences that begin with the codes [B, n]."""
    start = model.start(condition, len(codes))
    x = torch.cat([start, model.embed(codes[..., None])], dim=1)
    hidden = model.run(x, 0, start, **model.texts_of(condition, len(codes)))
    return model.head.out(hidden)


def official_gpt(**changes) -> tuple[dict[str, Tensor], dict]:
    """(state, config) of a tiny GPT in its official layout, with random weights.

    Args:
        changes: keys of the official config; model_type=t2i reads captions.
    """
    base = CAPTIONS if changes.get("model_type") == "t2i" else SMALL
    config = base | changes
    torch.manual_seed(0)
    model = Generator.from_description(FAMILIES["llamagen_gpt"].config(config), "tiny")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return to_official(model, "llamagen_gpt")[0], config
