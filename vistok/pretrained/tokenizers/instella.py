"""Instella-T2I's tokenizer "BAE" (arXiv 2506.21022, AMD-AGI/Instella-T2I): 1D binary latents.

Its weights came without a config; the constants stand in the official source, as Python. A config
here carries them under their official names, and two that are arguments there: `scale_pixels`
(that of `set_scale`; the released scripts give 1024) and `image_hw`, the sides of images that are
encoded. Bits per token (`codebook_size`) are read from the weights: source and model card of the
release name different numbers. Numbers of blocks are counted from 0 there, from 1 here.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from vistok.config import ConfigError
from vistok.pretrained.base import Entry, Family, Release, flag, pair, same, squeeze
from vistok.pretrained.tokenizers.llamagen import refuse_others, warn_of_unknown
from vistok.tokenizer import TokenizerConfig

_LICENSE = "Instella_T2I_1B research-only RAIL-MS (code and weights)"
_KNOWN = frozenset(
    "in_channels encoder_layers encoder_head_dim encoder_num_heads patch_size num_latent_tkns "
    "axes_dims_rope downsample_idx decoder_layers decoder_head_dim decoder_num_heads upsample_idx "
    "codebook_size train_temp use_repa repa_dim repa_index scale_pixels image_hw".split()
)
_REPA_DIM = 1024  # of exports; DINO-class
_RELEASED = {
    "in_channels": 3,
    "encoder_layers": 12,
    "encoder_head_dim": 64,
    "encoder_num_heads": 12,
    "patch_size": 16,
    "num_latent_tkns": 128,
    "axes_dims_rope": [8, 28, 28],
    "downsample_idx": [7],
    "decoder_layers": 16,
    "decoder_head_dim": 64,
    "decoder_num_heads": 16,
    "upsample_idx": [7],
    "scale_pixels": 1024,
    "image_hw": [512, 512],
}
_MARKS = frozenset(
    "encoder.latent_tokens encoder.patch_embedder.weight decoder.mask_tokens quantizer.embed "
    "quantizer.proj.0.weight to_pixel.weight".split()
)


class Instella(Family):
    name = "instella"
    inert = ("decoder.repa_proj.*",)
    """The projector of an alignment loss, which training alone reads."""

    # -- configs --------------------------------------------------------------------------------

    def recognizes(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:
        return (not config or bool(_KNOWN & set(config))) and set(keys) >= _MARKS

    def observed(
        self, official: Mapping[str, Any], state: Mapping[str, Tensor]
    ) -> Mapping[str, Any]:
        table = state.get("quantizer.embed")
        if table is None or table.ndim != 2:
            return official
        found, said = table.shape[0], official.get("codebook_size")
        if said is not None and said != found:
            warnings.warn(
                f"{self.name}: codebook_size={said!r}, but quantizer.embed has {found} bits per "
                "token, which are taken",
                stacklevel=2,
            )
        return {**official, "codebook_size": found}

    def config(self, official: Mapping[str, Any]) -> dict[str, Any]:
        warn_of_unknown(self.name, official, _KNOWN)
        official = {"codebook_size": 64, "in_channels": 3, "num_latent_tkns": 128, **official}
        if official["in_channels"] != 3:
            raise ConfigError(
                f"{self.name}: in_channels={official['in_channels']!r}; expected 3, RGB images"
            )
        width = official["encoder_head_dim"] * official["encoder_num_heads"]
        decoder = self._side(official, "decoder", "upsample_idx")
        if len(decoder["resample_after"]) > 2:
            decoder["coarsest"] = "product"
        if flag(official, "use_repa", False):
            decoder["taps"] = self._tap(official)
        return {
            "image_size": official.get("image_hw", _RELEASED["image_hw"]),
            "encoder": {
                **self._side(official, "encoder", "downsample_idx"),
                "latents": official["num_latent_tkns"],
            },
            "quantizer": {
                "kind": "binary",
                "bits": official["codebook_size"],
                "dim": width,
                "temperature": official.get("train_temp", 0.1),
                "embed_std": 0.02,
                "loss_weights": {"code": 0.1},  # our recipe's: its weight was not published
            },
            "decoder": decoder,
        }

    def _side(self, official: Mapping[str, Any], side: str, resampled: str) -> dict[str, Any]:
        """Encoder or decoder of an official config."""
        depth, after = official[f"{side}_layers"], official[resampled]
        numbers = after if isinstance(after, list | tuple) else None
        whole = numbers is not None and all(type(n) is int and 0 <= n < depth for n in numbers)
        if not whole or len(set(numbers)) < len(numbers):
            raise ConfigError(
                f"{self.name}: {resampled}={after!r}; expected a list of different blocks, each in "
                f"0..{depth - 1}"
            )
        heads = official[f"{side}_num_heads"]
        return {
            "kind": "pyramid",
            "patch_size": official["patch_size"],
            "transformer": {
                "width": official[f"{side}_head_dim"] * heads,
                "depth": depth,
                "heads": heads,
                **_BLOCK,
            },
            "rotary": {
                "channels": official["axes_dims_rope"],
                "pairing": "mixed",
                "extent": official.get("scale_pixels"),
            },
            "resample_after": sorted(n + 1 for n in numbers),
        }

    def _tap(self, official: Mapping[str, Any]) -> dict[str, int]:
        """The block whose cells are aligned; none for a number that no block has."""
        index, dim = official.get("repa_index"), official.get("repa_dim")
        if type(index) is not int or type(dim) is not int or dim < 1:
            raise ConfigError(
                f"{self.name}: use_repa with repa_index={index!r} and repa_dim={dim!r}; expected "
                "the number of a block and a width"
            )
        return {"repa": index + 1} if 0 <= index < official["decoder_layers"] else {}

    def fixed(self, config: TokenizerConfig) -> dict[str, Tensor]:
        """The projector that the official code makes where a block is aligned: inert, as ours
        belongs to the loss."""
        if "repa" not in config.decoder.taps:
            return {}
        width = config.decoder.transformer.width
        return {
            "decoder.repa_proj.0.weight": torch.zeros(width, width),
            "decoder.repa_proj.0.bias": torch.zeros(width),
            "decoder.repa_proj.1.weight": torch.ones(width),
            "decoder.repa_proj.1.bias": torch.zeros(width),
            "decoder.repa_proj.3.weight": torch.zeros(_REPA_DIM, width),
            "decoder.repa_proj.3.bias": torch.zeros(_REPA_DIM),
        }

    def official(self, config: TokenizerConfig) -> dict[str, Any]:
        encoder, quantizer, decoder = config.encoder, config.quantizer, config.decoder
        official: dict[str, Any] = {"in_channels": 3, "patch_size": encoder.patch_size}
        for side, part, name in (
            ("encoder", encoder, "downsample_idx"),
            ("decoder", decoder, "upsample_idx"),
        ):
            trunk = part.transformer
            official |= {
                f"{side}_layers": trunk.depth,
                f"{side}_head_dim": trunk.width // trunk.heads,
                f"{side}_num_heads": trunk.heads,
                name: [number - 1 for number in part.resample_after],
            }
        official |= {
            "num_latent_tkns": encoder.latents,
            "axes_dims_rope": list(encoder.rotary.channels),
            "codebook_size": quantizer.bits,
            "train_temp": quantizer.temperature,
            "scale_pixels": encoder.rotary.extent,
            "image_hw": list(config.image_size),
        }
        if "repa" in decoder.taps:
            official |= {"use_repa": True, "repa_index": decoder.taps["repa"] - 1}
            official["repa_dim"] = _REPA_DIM
        refuse_others(self, config, official)
        return official

    # -- keys -----------------------------------------------------------------------------------

    def entries(self, config: TokenizerConfig) -> list[Entry]:
        return [
            *pair("encoder.patch_embed.proj", "encoder.patch_embedder"),
            same("encoder.latent_tokens", "encoder.latent_tokens", **squeeze(0)),
            *_trunk("encoder", config.encoder, "down_layers"),
            *pair("encoder.proj", "encoder.proj_out"),
            *pair("quantizer.proj", "quantizer.proj.0"),
            same("quantizer.embed", "quantizer.embed"),
            same("decoder.value_norm.weight", "decoder.input_layer.0.weight"),
            *pair("decoder.embed", "decoder.input_layer.1"),
            same("decoder.mask_token", "decoder.mask_tokens", **squeeze(0, 1)),
            *_trunk("decoder", config.decoder, "up_layers"),
            *pair("decoder.head.proj", "to_pixel"),
        ]

    releases = (
        Release(
            "instella-bae", "amd/Instella-T2I", "bae/model.safetensors", _LICENSE, _RELEASED,
            recipe=("tokenizers/instella/instella_bae",), research_only=True,
        ),
    )  # fmt: skip


_BLOCK = {
    "mlp": "swiglu",
    "mlp_ratio": 4.0,
    "norm": "rmsnorm",
    "norm_eps": 1e-6,
    "qk_norm": True,
    "bias": False,
}


def _trunk(side: str, part: Any, resamplers: str) -> list[Entry]:
    """Blocks, resampling and the last norm, named alike on both sides."""
    table = [same(f"{side}.transformer.norm.weight", f"{side}.norm_out.weight")]
    for i in range(part.transformer.depth):
        ours, theirs = f"{side}.transformer.blocks.{i}", f"{side}.transformer_blocks.{i}"
        queries = tuple(f"{theirs}.attn.{name}_proj.weight" for name in "qkv")
        table += [
            same(f"{ours}.norm_attention.weight", f"{theirs}.input_layernorm.weight"),
            Entry(
                f"{ours}.attention.qkv.weight",
                queries,
                load=lambda *parts: torch.cat(parts),
                save=lambda tensor: tuple(tensor.chunk(3)),
            ),
            same(f"{ours}.attention.norm_q.weight", f"{theirs}.attn.norm_q.weight"),
            same(f"{ours}.attention.norm_k.weight", f"{theirs}.attn.norm_k.weight"),
            same(f"{ours}.attention.out.weight", f"{theirs}.attn.o_proj.weight"),
            same(f"{ours}.norm_mlp.weight", f"{theirs}.post_attention_layernorm.weight"),
            same(f"{ours}.mlp.gate.weight", f"{theirs}.mlp.gate_proj.weight"),
            same(f"{ours}.mlp.up.weight", f"{theirs}.mlp.up_proj.weight"),
            same(f"{ours}.mlp.out.weight", f"{theirs}.mlp.down_proj.weight"),
        ]
    for i in range(len(part.resample_after)):
        table += pair(f"{side}.transformer.resamplers.{i}.conv", f"{side}.{resamplers}.{i}.conv")
    return table
