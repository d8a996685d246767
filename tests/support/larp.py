"""The prior of LARP's official config and state dict as the loss of ours."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vistok.config.registry import build
from vistok.losses.ar_prior import ARPriorConfig, ARPriorLoss
from vistok.tokenizer import Tokenizer

SIZES = {  # width, layers, heads
    "gptc-L": (1024, 24, 16), "gptc-B": (768, 12, 12), "gptc-M": (512, 12, 8),
    "gptc-S": (384, 12, 6), "gptc-XS": (384, 6, 6), "gptc-XXS": (256, 6, 4),
}  # fmt: skip


def prior_config(official: dict[str, Any]) -> ARPriorConfig:
    """`prior_model` of an official config -> config of the loss."""
    args = official.get("args", {})
    width, depth, heads = SIZES.get(official["name"], (1024, 24, 16))
    quiet = official.get("no_dropout", False)
    drops = [0.0 if quiet else args.get(f"{k}_pdrop", 0.1) for k in ("embd", "resid", "attn")]
    mixed = official["use_mix_ss"]
    return ARPriorConfig(
        transformer={
            "width": args.get("n_embd", width),
            "depth": args.get("n_layer", depth),
            "heads": args.get("n_head", heads),
            "dropout": drops[1],
            "attention_dropout": drops[2],
        },
        embed_dropout=drops[0],
        positions=args.get("max_seq_len", 1024),
        l2_norm=args.get("l2_normalized", True),
        temperature=official["latent_ce_temperature"],
        rounds=official["n_rounds"],
        average_rounds=official["avg_loss_over_rounds"],
        gradient="last_round" if official["no_grad_before_last_round"] else "all",
        sampled=official["mix_ss_max_ratio"] if mixed else 1.0,
        sampled_ramp=official["mix_ss_peak_steps_ratio"] if mixed else 0.0,
    )


def prior_loss(
    official: dict[str, Any], weights: dict[str, Tensor], tokenizer: Tokenizer
) -> ARPriorLoss:
    """The loss with the official weights `prior_model.*`, every one of them used."""
    loss = build(prior_config(official))
    loss.bind(tokenizer)
    own = {k.removeprefix("prior_model."): v for k, v in weights.items() if k.startswith("prior_")}
    state = {"positions": own.pop("pos_emb")[0]}
    names = {"embed": "input_proj", "transformer.norm": "ln_f", "head": "head"}
    for i in range(loss.config.transformer.depth):
        ours, theirs = f"transformer.blocks.{i}", f"blocks.{i}"
        names |= {
            f"{ours}.norm_attention": f"{theirs}.ln1",
            f"{ours}.attention.out": f"{theirs}.attn.proj",
            f"{ours}.norm_mlp": f"{theirs}.ln2",
            f"{ours}.mlp.up": f"{theirs}.mlp.0",
            f"{ours}.mlp.out": f"{theirs}.mlp.2",
        }
        for kind in ("weight", "bias"):
            parts = [own.pop(f"{theirs}.attn.{p}.{kind}") for p in ("query", "key", "value")]
            state[f"{ours}.attention.qkv.{kind}"] = torch.cat(parts)
    for mine, theirs in names.items():
        for kind in ("weight", "bias"):
            state[f"{mine}.{kind}"] = own.pop(f"{theirs}.{kind}")
    assert not own, sorted(own)
    loss.prior.load_state_dict(state)
    return loss.eval()
