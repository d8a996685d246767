"""Keys of LARP's tokenizer, and the fixed tables that lie among them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vistok.layers.positions import sequence_sincos, sincos_sum
from vistok.pretrained.base import Entry, own, pair, same, squeeze
from vistok.tokenizer import TokenizerConfig

NORMS = {  # official name -> ours
    "none": "none",
    "no": "none",
    "ln_d": "layernorm_affine",
    "ln_nd": "layernorm_all",
    "bn_bn": "batchnorm",
    "bn_b": "batchnorm_each",
    "ln_d_na": "none",  # the original makes this norm and does not apply it
}
_AXES = {"encoder": ("encoder_t_embed", "encoder_h_embed", "encode_w_embed"),
         "decoder": ("decoder_t_embed", "decoder_h_embed", "decoder_w_embed")}  # fmt: skip


def fixed_tables(config: TokenizerConfig) -> dict[str, Tensor]:
    """Official buffers of sines and cosines, which our parts compute."""
    encoder, decoder, shape = config.encoder, config.decoder, config.shape
    width, tables = encoder.transformer.width, {}
    if encoder.patches.positions == "sincos_sum":
        tables["encoder_patch_pe"] = sincos_sum(encoder.patches.grid(shape), width)[None]
    if encoder.latents.tokens == "sincos":
        waves = sequence_sincos(encoder.latents.count, width, encoder.latents.token_base)
        tables["encoder_latent_query_embed"] = waves
    width = decoder.transformer.width
    if decoder.value_positions == "sincos":
        base = decoder.value_position_base
        waves = sequence_sincos(encoder.latents.count, width, base)
        tables["decoder_latent_pe"] = waves[None]
    if decoder.patches.positions == "sincos_sum":
        tables["decoder_patch_query_embed"] = sincos_sum(decoder.patches.grid(shape), width)[None]
    return tables


def table(config: TokenizerConfig) -> list[Entry]:
    """The whole key table."""
    encoder, decoder, quantizer = config.encoder, config.decoder, config.quantizer
    kernel: dict[str, Any] = {}
    if encoder.patches.frames == 1:  # a convolution of single frames there
        kernel = {"load": lambda k: k.unsqueeze(2), "save": lambda k: (k.squeeze(2),)}
    found = [
        same("encoder.patch_embed.proj.weight", "x_embedder.proj.weight", **kernel),
        same("encoder.patch_embed.proj.bias", "x_embedder.proj.bias"),
        *_positions("encoder", encoder),
        *_blocks("encoder", encoder),
        *_levels(encoder.latents.levels),
    ]
    if encoder.latents.tokens != "sincos":
        found.append(same("encoder.latent_tokens", "encoder_latent_query_embed"))
    moments = quantizer.kind == "kl"  # mean and log variance of a channel are neighbors there
    how = {"load": _halves, "save": _neighbors} if moments else {}
    found += [
        same(f"encoder.proj.{kind}", f"bottleneck.in_linear.{kind}", **how)
        for kind in ("weight", "bias")
    ]
    found += _norm(encoder.latents.norm)
    if not moments:
        found.append(same("quantizer.codebook", "bottleneck.regularizer.embedding.weight"))
        found += own("quantizer.usage", "quantizer.filled")
    if getattr(quantizer, "temperature", None) == "stored":
        theirs = "bottleneck.regularizer.stochastic_temperature_inv"
        found.append(same("quantizer.inverse_temperature", theirs))
    found += [
        *pair("decoder.embed", "bottleneck.out_linear"),
        *_positions("decoder", decoder),
        *_blocks("decoder", decoder),
        *pair("decoder.transformer.norm", "final_layer.norm_final"),
        *pair("decoder.head.proj", "final_layer.linear"),
    ]
    if decoder.value_positions == "own":
        found.append(same("decoder.latent_positions", "decoder_latent_pe", **squeeze(0)))
    if decoder.levels:
        found.append(same("decoder.levels", "decoder_latent_token_type_embed", **squeeze(0)))
    if decoder.mask_token:
        theirs = "decoder_patch_query_token_type_embed"
        found.append(same("decoder.mask_token", theirs, **squeeze(0, 1)))
    return found


def _positions(side: str, part: Any) -> list[Entry]:
    """Learned tables of the axes, [1, t, 1, 1, D], [1, 1, h, 1, D] and [1, 1, 1, w, D] there."""
    if part.patches.positions != "learned_sum":
        return []
    found = []
    for axis, theirs in enumerate(_AXES[side]):
        others = tuple(i for i in range(4) if i != axis + 1)
        found.append(same(f"{side}.positions.axes.{axis}", theirs, **squeeze(*others)))
    return found


def _levels(kinds: bool | str) -> list[Entry]:
    """Type embeddings of patches and of latents, [1, 1, D] each there and rows here."""
    names = {"patches": "encoder_patch_token_type_embed"}
    names["latents"] = "encoder_latent_query_token_type_embed"
    theirs = tuple(name for kind, name in names.items() if kinds in (True, kind))
    if not theirs:
        return []
    load = lambda *rows: torch.cat([row.squeeze(0) for row in rows])
    save = lambda rows: tuple(row[None, None] for row in rows)
    return [Entry("encoder.levels", theirs, load, save)]


def _blocks(side: str, part: Any) -> list[Entry]:
    found = []
    for i in range(part.transformer.depth):
        ours, theirs = f"{side}.transformer.blocks.{i}", f"{side}.blocks.{i}"
        found += [
            *pair(f"{ours}.norm_attention", f"{theirs}.norm1"),
            same(f"{ours}.attention.qkv.weight", f"{theirs}.attn.qkv.weight"),
            *pair(f"{ours}.attention.out", f"{theirs}.attn.proj"),
            *pair(f"{ours}.norm_mlp", f"{theirs}.norm2"),
            *pair(f"{ours}.mlp.up", f"{theirs}.mlp.fc1"),
            *pair(f"{ours}.mlp.out", f"{theirs}.mlp.fc2"),
        ]
    return found


def _norm(kind: str) -> list[Entry]:
    """The norm in front of the quantizer, if it has parameters."""
    names = [] if kind == "none" else ["weight", "bias"]
    if kind.startswith("batchnorm"):
        names += ["running_mean", "running_var", "num_batches_tracked"]
    ours, theirs = "encoder.latent_norm.norm", "bottleneck.norm_layer"
    return [same(f"{ours}.{name}", f"{theirs}.{name}") for name in names]


def _halves(rows: Tensor) -> Tensor:
    """Rows of means and log variances by turns -> all means, then all log variances."""
    return torch.cat([rows[0::2], rows[1::2]])


def _neighbors(rows: Tensor) -> tuple[Tensor, ...]:
    return (torch.stack(rows.chunk(2), 1).flatten(0, 1),)
