"""RAR as its code base describes it: official configs, logits of slots, choices of its sampler."""

from __future__ import annotations

import torch
from torch import Tensor

import vistok.generators.sequential as sequential
from vistok.core.records import Condition
from vistok.generators import Generator
from vistok.generators.random_order import RandomOrder
from vistok.pretrained import FAMILIES, to_official


def official_tree(model: dict, run: dict) -> dict:
    """The official config of a recording's model, sampled as its run was."""
    settings = {
        "randomize_temperature": run["temperature"],
        "guidance_scale": run["guidance_scale"],
        "guidance_scale_pow": run["guidance_scale_pow"],
    }
    return {"model": {**model, "generator": {**model["generator"], **settings}}}


@torch.no_grad()
def logits(
    model: RandomOrder, codes: Tensor, condition: Condition, order: Tensor | None = None
) -> Tensor:
    """[B, L + 1, K]: row t predicts token t of the given order, the last one is surplus.

    Args:
        codes: [B, L] in the order that `order` [B, L] says.
    """
    start = model.start(condition, len(codes))
    x = torch.cat([start, model.embed(codes[..., None])], dim=1)
    hidden = model.run(x, 0, start, order=order)
    return model.head.out(hidden[:, start.shape[1] - 1 :])


def chosen_from(
    monkeypatch, model: RandomOrder, condition: Condition, settings: dict, count: int
) -> Tensor:
    """[B, L, K]: the logits that the sampler chose each code from, guided but not yet divided by
    the temperature."""
    seen, choose = [], sequential.choose
    with monkeypatch.context() as patch:
        patch.setattr(
            sequential, "choose", lambda *args: (seen.append(args[0].clone()), choose(*args))[1]
        )
        model.sample(condition, index=torch.arange(count), sampling=settings)
    return torch.stack(seen, dim=1)


def official_rar(**changes) -> tuple[dict[str, Tensor], dict]:
    """(state, config) of a tiny RAR in its official layout, with random weights; tokens of a tiny
    MaskGIT-VQGAN (see `tests.support.official`).

    Args:
        changes: keys of model.generator.
    """
    generator = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "dropout": 0.1,
        "attn_drop": 0.1,
        "class_label_dropout": 0.1,
        "image_seq_len": 16,
        "condition_num_classes": 3,
        "randomize_temperature": 1.02,
        "guidance_scale": 4.0,
        "guidance_scale_pow": 2.5,
        **changes,
    }
    tokens = {"codebook_size": 24, "token_size": 8, "num_latent_tokens": 16}
    tokens["pretrained_tokenizer_weight"] = "maskgit-vqgan-imagenet-f16-256.bin"
    config = {"model": {"vq_model": tokens, "generator": generator}}
    family = FAMILIES["rar"]
    model = Generator.from_description(family.config(config), "tiny")
    state, _ = to_official(model, "rar")
    torch.manual_seed(0)
    return {key: torch.randn_like(tensor) for key, tensor in state.items()}, config
