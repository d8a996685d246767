"""Key tables of ReTok and GigaTok; see `retok`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vistok.pretrained.base import Entry, pair, same, squeeze
from vistok.pretrained.tokenizers.llamagen import codebook_entries, pointwise
from vistok.pretrained.tokenizers.taming import decoder_entries, encoder_entries
from vistok.tokenizer import TokenizerConfig

SIDES = {"encoder": "s2to1encoder", "decoder": "s1to2decoder"}
"""Official prefixes of the Q-Former of each side."""


def entries(config: TokenizerConfig) -> list[Entry]:
    """The key table of a model."""
    encoder, decoder = config.encoder, config.decoder
    rows = (encoder.count, encoder.redundant)
    table = [
        *encoder_entries(encoder.cnn, "encoder.cnn", "encoder"),
        *_side("encoder", "encoder", encoder, rows),
        *pointwise("encoder.proj_z", f"{SIDES['encoder']}.conv_out"),
        *pointwise("encoder.proj", "quant_conv"),
        *codebook_entries(),
        *pointwise("decoder.reader.embed_z", "post_quant_conv"),
        *_side("decoder.reader", "decoder", decoder, rows),
        *pair("decoder.reader.conv_z", f"{SIDES['decoder']}.conv_out"),
        *decoder_entries(decoder.cnn, "decoder.cnn", "decoder"),
    ]
    if encoder.queries == "learned":
        table.append(_table("encoder.queries", f"{SIDES['encoder']}.query_1d"))
    else:
        table += pair("encoder.query_proj", f"{SIDES['encoder']}.global_proj")
    if decoder.queries == "learned":
        table.append(_table("decoder.reader.queries", f"{SIDES['decoder']}.q_2d"))
    if decoder.distill is not None:
        for number in (0, 2, 4):
            theirs = f"{SIDES['decoder']}.distill_mlp.{number}"
            table += pair(f"decoder.reader.distill.{number}", theirs)
    return table


def fixed(config: TokenizerConfig) -> dict[str, Tensor]:
    """Second tables without rows, where K0 = N."""
    if config.encoder.redundant or config.decoder.missing == "refuse":
        return {}
    sides = {"encoder": config.encoder, "decoder": config.decoder}
    return {
        f"{SIDES[side]}.latent_token_positional_embedding_comp": torch.zeros(
            0, 1, part.qformer.width
        )
        for side, part in sides.items()
    }


def _side(ours: str, side: str, part: Any, rows: tuple[int, int]) -> list[Entry]:
    """Tables, norms and blocks, named alike on both sides.

    Args:
        rows: positions of the stored latents and of the redundant ones, two tables there.
    """
    theirs = SIDES[side]
    tables = [f"{theirs}.latent_token_positional_embedding"]
    tables += [f"{tables[0]}_comp"] if rows[1] else []
    entry = Entry(f"{ours}.latent_positions", tuple(tables), _joined, _parted(rows))
    table = [
        *pair(f"{ours}.norm_in", f"{theirs}.ln_pre"),
        *pair(f"{ours}.embed", f"{theirs}.{side}_embed"),
        _table(f"{ours}.positions", f"{theirs}.positional_embedding"),
        entry,
        *pair(f"{ours}.qformer.norm", f"{theirs}.ln_post"),
    ]
    for i in range(part.qformer.depth):
        mine, their = f"{ours}.qformer.blocks.{i}", f"{theirs}.transformer.{i}"
        table += [
            *pair(f"{mine}.norm_self", f"{their}.norm1"),
            *_attention(f"{mine}.self_attention", f"{their}.self_attn", part.qformer.qk_norm),
            *pair(f"{mine}.norm_cross", f"{their}.norm2"),
            *_attention(f"{mine}.cross_attention", f"{their}.multihead_attn", part.qformer.qk_norm),
            *pair(f"{mine}.norm_mlp", f"{their}.norm3"),
            *pair(f"{mine}.up", f"{their}.linear1"),
            *pair(f"{mine}.down", f"{their}.linear2"),
        ]
    return table


def _attention(ours: str, theirs: str, qk_norm: bool) -> list[Entry]:
    """nn.MultiheadAttention's fused keys; three projections and two norms with `use_qk_norm`."""
    if not qk_norm:
        fused = [same(f"{ours}.qkv.{k}", f"{theirs}.in_proj_{k}") for k in ("weight", "bias")]
        return [*fused, *pair(f"{ours}.out", f"{theirs}.out_proj")]
    table = pair(f"{ours}.out", f"{theirs}.wo")
    for norm in ("norm_q", "norm_k"):
        table += pair(f"{ours}.{norm}", f"{theirs}.{norm[-1]}_norm")
    for kind in ("weight", "bias"):
        three = tuple(f"{theirs}.{name}_proj.{kind}" for name in ("q", "k", "v"))
        join = lambda *parts: torch.cat(parts)
        table.append(Entry(f"{ours}.qkv.{kind}", three, join, lambda t: tuple(t.chunk(3))))
    return table


def _table(ours: str, theirs: str) -> Entry:
    """[n, W] of ours that is [n, 1, W] there."""
    return same(ours, theirs, **squeeze(1))


def _joined(*parts: Tensor) -> Tensor:
    return torch.cat([part.squeeze(1) for part in parts])


def _parted(rows: tuple[int, int]) -> Any:
    sizes = [n for n in rows if n]
    return lambda tensor: tuple(part.unsqueeze(1) for part in tensor.split(sizes))
