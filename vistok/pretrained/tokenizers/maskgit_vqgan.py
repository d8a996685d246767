"""MaskGIT-VQGAN (arXiv 2202.04200) as bytedance/1d-tokenizer re-implements it: the 2D tokenizer.

Its decoder and codebook are also the pixel decoder of two-stage TiTok and One-D-Piece. Weights:
one flat state dict without a config, whose constants stand in the official source.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vistok.config import ConfigError
from vistok.pretrained.base import Entry, Family, Release, own, pair, same
from vistok.pretrained.published import MASKGIT_VQGAN
from vistok.tokenizer import TokenizerConfig

NETWORK = {
    "channel_mult": [1, 1, 2, 2, 4],
    "num_resolutions": 5,
    "dropout": 0.0,
    "hidden_channels": 128,
    "num_channels": 3,
    "num_res_blocks": 2,
    "resolution": 256,
    "z_channels": 256,
}
QUANTIZER = {"num_embeddings": 1024, "embedding_dim": 256, "commitment_cost": 0.25}


class MaskGITVQGAN(Family):
    name = "maskgit_vqgan"
    releases = (
        Release(
            "maskgit-vqgan",
            "fun-research/TiTok",
            "maskgit-vqgan-imagenet-f16-256.bin",
            "Apache-2.0 (weights trained on ImageNet: research purposes)",
            config={"vqgan": NETWORK, "quantizer": QUANTIZER},
            rfid=2.28,
            protocol=MASKGIT_VQGAN,
            recipe=("tokenizers/maskgit_vqgan/maskgit_vqgan",),
            research_only=True,
        ),
    )

    def recognizes(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:
        if not config:
            marks = {"encoder.down.0.block.0.norm1.weight", "decoder.conv_in.weight"}
            marks |= {f"{side}.mid.0.norm1.weight" for side in ("encoder", "decoder")}
            return marks <= set(keys)
        return "vqgan" in config and "quantizer" in config

    def config(self, official: Mapping[str, Any]) -> dict[str, Any]:
        network, quantizer = official.get("vqgan"), official.get("quantizer")
        if not isinstance(network, Mapping) or not isinstance(quantizer, Mapping):
            raise ConfigError(f"{self.name}: expected a config with the parts vqgan and quantizer")
        return {
            "image_size": network["resolution"],
            "input_space": {"kind": "pixels", "mean": 0.0, "std": 1.0},
            "output_space": {"kind": "pixels", "mean": 0.0, "std": 1.0},
            "encoder": {
                "kind": "cnn",
                "conv": _conv(network),
                "bias_in": False,
                "kernel_out": 1,
            },
            "quantizer": {
                "kind": "vq",
                "codebook_size": quantizer["num_embeddings"],
                "dim": quantizer["embedding_dim"],
                "l2_norm": False,
                # Here beta stands before the codebook's term, unlike everywhere else.
                "loss_weights": {
                    "codebook": quantizer.get("commitment_cost", 0.25),
                    "commitment": 1.0,
                },
            },
            "decoder": decoder_tree(network),
        }

    def official(self, config: TokenizerConfig) -> dict[str, Any]:
        quantizer = config.quantizer
        tree = {
            "vqgan": official_decoder(config.decoder, config.image_size, quantizer.dim),
            "quantizer": {
                "num_embeddings": quantizer.codebook_size,
                "embedding_dim": quantizer.dim,
                "commitment_cost": quantizer.loss_weights["codebook"],
            },
        }
        for part in ("encoder", "input_space", "output_space"):
            _only_if_same(getattr(config, part), self.config(tree)[part])
        return tree

    def entries(self, config: TokenizerConfig) -> list[Entry]:
        conv = config.encoder.conv
        table = [
            same("encoder.conv_in.weight", "encoder.conv_in.weight"),
            *_levels(conv, "encoder.levels", "encoder.down", _inputs_down(conv)),
            *_mid(conv, "encoder"),
            *pair("encoder.norm", "encoder.norm_out"),
            *pair("encoder.conv_out", "encoder.conv_out"),
            same("quantizer.codebook", "quantize.embedding.weight"),
            *own("quantizer.usage", "quantizer.filled"),
        ]
        return table + decoder_entries(config.decoder, "decoder", "decoder")


def decoder_tree(network: Mapping[str, Any] | None) -> dict[str, Any]:
    """The decoder's config; None = the released one's constants."""
    return {
        "kind": "cnn",
        "conv": _conv(network or NETWORK),
    }


def official_decoder(decoder: Any, image_size: tuple[int, int], dim: int) -> dict[str, Any]:
    """The inverse of `decoder_tree`; ConfigError for a decoder that the official code lacks."""
    conv = decoder.conv
    network = {
        "channel_mult": list(conv.channel_mult),
        "num_resolutions": len(conv.channel_mult),
        "dropout": conv.dropout,
        "hidden_channels": conv.channels,
        "num_channels": 3,
        "num_res_blocks": conv.blocks,
        "resolution": image_size[0],
        "z_channels": dim,
    }
    _only_if_same(decoder, decoder_tree(network))
    return network


def _only_if_same(part: Any, tree: dict[str, Any]) -> None:
    """ConfigError unless the official constants say all that the part's config says."""
    again = type(part).model_validate(tree)
    for name in type(part).model_fields:
        if getattr(part, name) != getattr(again, name):
            raise ConfigError(
                f"maskgit_vqgan: {name}={getattr(part, name)!r} has no place in the official "
                f"layout; expected {getattr(again, name)!r}"
            )


def decoder_entries(decoder: Any, ours: str, theirs: str) -> list[Entry]:
    """Key table of a decoder below two prefixes."""
    conv = decoder.conv
    table = [
        *pair(f"{ours}.conv_in", f"{theirs}.conv_in"),
        *_mid(conv, ours, theirs),
        *_levels(conv, f"{ours}.levels", f"{theirs}.up", _inputs_up(conv)),
        *pair(f"{ours}.norm", f"{theirs}.norm_out"),
        *pair(f"{ours}.conv_out", f"{theirs}.conv_out"),
    ]
    for level in range(1, len(conv.channel_mult)):
        table += pair(f"{ours}.levels.{level}.way.conv", f"{theirs}.up.{level}.upsample_conv")
    return table


def _conv(network: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "channels": network["hidden_channels"],
        "channel_mult": list(network["channel_mult"]),
        "blocks": network["num_res_blocks"],
        "mid_blocks": network["num_res_blocks"],
        "norm_groups": 32,
        "norm_eps": 1e-6,
        "bias": False,
        "shortcut": "output",
        "dropout": network.get("dropout", 0.0),
    }


def _inputs_down(conv: Any) -> list[int]:
    return [conv.channels, *conv.widths[:-1]]


def _inputs_up(conv: Any) -> list[int]:
    return [*conv.widths[1:], conv.widths[-1]]


def _levels(conv: Any, ours: str, theirs: str, inputs: list[int]) -> list[Entry]:
    table = []
    for level, (width, inside) in enumerate(zip(conv.widths, inputs, strict=True)):
        for block in range(conv.blocks):
            table += _block(f"{ours}.{level}.blocks.{block}", f"{theirs}.{level}.block.{block}")
            if block == 0 and inside != width:
                table.append(
                    same(
                        f"{ours}.{level}.blocks.0.shortcut.weight",
                        f"{theirs}.{level}.block.0.nin_shortcut.weight",
                    )
                )
    return table


def _mid(conv: Any, ours: str, theirs: str | None = None) -> list[Entry]:
    table = []
    for block in range(conv.mid_blocks):
        table += _block(f"{ours}.mid.{block}", f"{theirs or ours}.mid.{block}")
    return table


def _block(ours: str, theirs: str) -> list[Entry]:
    table = []
    for i in (1, 2):
        table += pair(f"{ours}.norm{i}", f"{theirs}.norm{i}")
        table.append(same(f"{ours}.conv{i}.weight", f"{theirs}.conv{i}.weight"))
    return table
