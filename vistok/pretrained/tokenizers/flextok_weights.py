"""Key tables of FlexTok's modules: how their weights differ in layout from ours.

Patches are linear layers over (row, column, channel), learned tables have their positions last,
queries, keys and values are three layers, a modulation's gates come first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vistok.pretrained.base import Entry, pair, same
from vistok.tokenizer import TokenizerConfig

WRAPPED = "._checkpoint_wrapped_module"  # a level that activation checkpointing may leave
# Chunks of a block's modulation there, in the order in which ours stand.
CHUNKS = (2, 3, 0, 4, 5, 1)


def networks(
    config: TokenizerConfig, patches: Callable[[str, str, Any], list[Entry]], head: str = ""
) -> list[Entry]:
    """The entries of an encoder and its flow decoder, for images and clips.

    Args:
        patches: (our key, theirs, encoder's or decoder's config) -> the patch embed's entries.
        head: stands in front of every official key.
    """
    encoder, decoder = config.encoder, config.decoder
    enc, dec = f"{head}encoder.module_dict.enc_", f"{head}decoder.module_dict.dec_"
    table = [
        same("encoder.latent_tokens", f"{enc}register_module.registers"),
        *patches("encoder.patch_embed.proj", f"{enc}patch_emb", encoder),
        *positions("encoder.positions.fitted", f"{enc}posemb_module", encoder.patches.positions),
        *trunk("encoder", f"{enc}transformer", encoder.transformer),
        *pair("encoder.proj", f"{enc}to_latents.proj"),
        *pair("decoder.embed_values", f"{dec}from_latents.proj"),
        *positions(
            "decoder.value_positions", f"{dec}registers_posemb_module", decoder.value_positions
        ),
        *patches("decoder.patch_embed.proj", f"{dec}noise_patch_emb", decoder),
        *positions(
            "decoder.positions.fitted", f"{dec}patches_posemb_module", decoder.patches.positions
        ),
        *pair("decoder.time.up", f"{dec}time_embedder.mlp.0"),
        *pair("decoder.time.out", f"{dec}time_embedder.mlp.2"),
        *trunk("decoder", f"{dec}transformer", decoder.transformer, modulated=True),
        *pair("decoder.unpatchify.proj", f"{dec}to_patches.proj"),
    ]
    if decoder.missing == "mask_token":
        table.append(same("decoder.missing_token", f"{dec}nested_dropout.dropout_mask_token"))
    if decoder.head_modulation:
        table += pair("decoder.modulation.proj", f"{dec}to_patches.adaLN_modulation.1")
    return table


def patches(ours: str, theirs: str, channels: int) -> list[Entry]:
    """A convolution of ours that is a linear layer over (row, column, channel) there."""

    def load(weight: Tensor) -> Tensor:
        side = round((weight.shape[1] / channels) ** 0.5)
        return weight.unflatten(1, (side, side, channels)).permute(0, 3, 1, 2)

    save = lambda kernel: (kernel.permute(0, 2, 3, 1).flatten(1),)
    return [
        same(f"{ours}.weight", f"{theirs}.patch_proj.weight", load=load, save=save),
        same(f"{ours}.bias", f"{theirs}.patch_proj.bias"),
    ]


def positions(ours: str, theirs: str, config: Any) -> list[Entry]:
    """A learned table: [A, S, W] of ours is [A, 1, W, S] there."""
    if config in (None, "none") or config.kind == "sincos":
        return []
    load = lambda table: table.squeeze(1).transpose(1, 2)
    save = lambda axes: (axes.transpose(1, 2).unsqueeze(1),)
    return [same(f"{ours}.axes", f"{theirs}.posembs", load=load, save=save)]


def trunk(side: str, theirs: str, config: Any, modulated: bool = False) -> list[Entry]:
    own = lambda value: config.bias if value is None else value
    kinds = lambda bias: ("weight", "bias") if own(bias) else ("weight",)
    mlp = {"gate": "fc1", "up": "fc3", "out": "fc2"}
    if config.mlp in ("silu", "gelu"):
        mlp = {"up": "fc1", "out": "fc2"}
    table = []
    for i in range(config.depth):
        a, b = f"{side}.transformer.blocks.{i}", f"{theirs}.blocks.{i}"
        for kind in kinds(config.qkv_bias):
            parts = tuple(f"{b}.attn.w{name}.{kind}" for name in "qkv")
            join, split = (lambda *three: torch.cat(three)), (lambda one: one.chunk(3))
            table.append(Entry(f"{a}.attention.qkv.{kind}", parts, join, split))
        table += [
            same(f"{a}.attention.out.{kind}", f"{b}.attn.proj.{kind}")
            for kind in kinds(config.out_bias)
        ]
        table += [
            same(f"{a}.mlp.{mine}.{kind}", f"{b}.mlp.{name}.{kind}")
            for mine, name in mlp.items()
            for kind in kinds(config.mlp_bias)
        ]
        if modulated:
            how = gates_first(config.modulation_kinds)
            for kind in ("weight", "bias"):
                names = f"{a}.modulation.proj.{kind}", f"{b}.adaLN_modulation.1.{kind}"
                table.append(same(*names, **how))
    return table


def gates_first(kinds: int) -> dict[str, Any]:
    """Load and save of a modulation [kinds * 6 W, ...] whose chunks stand in another order."""
    back = tuple(CHUNKS.index(i) for i in range(6))
    reorder = lambda tensor, order: tensor.unflatten(0, (kinds, 6, -1))[:, list(order)].flatten(
        0, 2
    )
    return {
        "load": lambda tensor: reorder(tensor, CHUNKS),
        "save": lambda tensor: (reorder(tensor, back),),
    }
