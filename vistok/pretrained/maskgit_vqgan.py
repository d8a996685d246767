"""MaskGIT-VQGAN (arXiv 2202.04200) as bytedance/1d-tokenizer carries it: 2D, f16, 1024 codes.

The teacher of TiTok's proxy codes; its decoder and codebook are the pixel decoder of two-stage
TiTok and of One-D-Piece, whose families use the tables of this file under other prefixes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vistok.config import ConfigError
from vistok.decoders.cnn import CNNDecoderConfig
from vistok.encoders.cnn import CNNEncoderConfig
from vistok.layers.conv import ConvConfig
from vistok.pretrained.base import Entry, Family, Release, own, pair, same
from vistok.tokenizer import TokenizerConfig

# The released weights' constants; their file carries no config.
NETWORK: dict[str, Any] = {
    "channel_mult": [1, 1, 2, 2, 4],
    "num_resolutions": 5,
    "dropout": 0.0,
    "hidden_channels": 128,
    "num_channels": 3,
    "num_res_blocks": 2,
    "resolution": 256,
    "z_channels": 256,
}
QUANTIZER: dict[str, Any] = {
    "num_embeddings": 1024,
    "embedding_dim": 256,
    "commitment_cost": 0.25,
}


class MaskGITVQGAN(Family):
    name = "maskgit_vqgan"
    releases = (
        Release(
            "maskgit-vqgan",
            "fun-research/TiTok",
            "maskgit-vqgan-imagenet-f16-256.bin",
            "Apache-2.0 (weights trained on ImageNet: research purposes)",
            config={"vqgan": NETWORK, "quantizer": QUANTIZER},
            published="rFID 2.28 (ImageNet val 256)",
            research_only=True,
        ),
    )

    def recognises(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:
        return "vqgan" in config and "quantizer" in config

    def config(self, official: Mapping[str, Any]) -> dict[str, Any]:
        network, codes = official["vqgan"], official["quantizer"]
        if network["z_channels"] != codes["embedding_dim"]:
            raise ConfigError(
                f"{self.name}: z_channels={network['z_channels']} is not embedding_dim="
                f"{codes['embedding_dim']}; codes are as wide as latents in this family"
            )
        return {
            "image_size": network["resolution"],
            "encoder": {
                **_plain("cnn", network),
                "bias_in": False,
                "downsample": "average",
                "kernel_out": 1,
            },
            "quantizer": {
                "kind": "vq",
                "codebook_size": codes["num_embeddings"],
                "dim": codes["embedding_dim"],
                "l2_norm": False,
                # The weight is the codebook's here, not the commitment's as everywhere else.
                "loss_weights": {"codebook": codes["commitment_cost"], "commitment": 1.0},
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
                "commitment_cost": quantizer.loss_weights.get("codebook", 0.0),
            },
        }
        if config.encoder != CNNEncoderConfig.model_validate(self.config(tree)["encoder"]):
            raise ConfigError(f"{self.name}: the official layout has no such encoder; {_EXPECTED}")
        return tree

    def entries(self, config: TokenizerConfig) -> list[Entry]:
        conv = config.encoder.conv
        levels = zip((conv.channels, *conv.widths), conv.widths, strict=False)
        table = [same("encoder.conv_in.weight", "encoder.conv_in.weight")]
        for i, (inside, out) in enumerate(levels):
            table += _blocks(
                f"encoder.levels.{i}.blocks", f"encoder.down.{i}.block", conv, inside, out
            )
        table += _mid("encoder", "encoder", conv)
        table += [
            *pair("encoder.norm", "encoder.norm_out"),
            *pair("encoder.conv_out", "encoder.conv_out"),
            same("quantizer.codebook", "quantize.embedding.weight"),
            *own("quantizer.usage", "quantizer.filled"),
        ]
        return table + decoder_entries(config.decoder, "decoder", "decoder")


def decoder_tree(network: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Official network constants (None: the released ones) -> tree of a cnn decoder's config."""
    return _plain("cnn", NETWORK if network is None else network)


def official_decoder(
    config: CNNDecoderConfig, image_size: tuple[int, int], dim: int
) -> dict[str, Any]:
    """The inverse of `decoder_tree`. ConfigError for a decoder that the official code lacks."""
    conv = config.conv
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
    if config != CNNDecoderConfig.model_validate(decoder_tree(network)):
        raise ConfigError(f"maskgit_vqgan: the official layout has no such decoder; {_EXPECTED}")
    return network


def decoder_entries(config: CNNDecoderConfig, ours: str, theirs: str) -> list[Entry]:
    """The key table of a decoder that lies under these prefixes."""
    conv = config.conv
    insides = (*conv.widths[1:], conv.widths[-1])
    table = [*pair(f"{ours}.conv_in", f"{theirs}.conv_in"), *_mid(ours, theirs, conv)]
    for i, (inside, out) in enumerate(zip(insides, conv.widths, strict=True)):
        table += _blocks(f"{ours}.levels.{i}.blocks", f"{theirs}.up.{i}.block", conv, inside, out)
        if i:
            table += pair(f"{ours}.levels.{i}.way.conv", f"{theirs}.up.{i}.upsample_conv")
    return [
        *table,
        *pair(f"{ours}.norm", f"{theirs}.norm_out"),
        *pair(f"{ours}.conv_out", f"{theirs}.conv_out"),
    ]


_EXPECTED = (
    "expected kind cnn with shortcut=output, bias=false, mid_blocks equal to blocks, "
    "norm_groups=32, norm_eps=1e-6, pixel_mean=0, pixel_std=1 and an encoder's kernel_out=1"
)


def _plain(kind: str, network: Mapping[str, Any]) -> dict[str, Any]:
    """What encoder and decoder have in common."""
    known = set(NETWORK)
    missing, unknown = sorted(known - set(network)), sorted(set(network) - known)
    if missing or unknown:
        what = f"lacks {missing[0]}" if missing else f"has the unknown key {unknown[0]}"
        raise ConfigError(
            f"maskgit_vqgan: the network's config {what}; expected {', '.join(NETWORK)}"
        )
    if network["num_resolutions"] != len(network["channel_mult"]) or network["num_channels"] != 3:
        raise ConfigError(
            f"maskgit_vqgan: num_resolutions={network['num_resolutions']} and num_channels="
            f"{network['num_channels']} for channel_mult={network['channel_mult']}; expected its "
            "length and 3"
        )
    return {
        "kind": kind,
        "conv": {
            "channels": network["hidden_channels"],
            "channel_mult": network["channel_mult"],
            "blocks": network["num_res_blocks"],
            "mid_blocks": network["num_res_blocks"],
            "norm_groups": 32,
            "norm_eps": 1e-6,
            "bias": False,
            "shortcut": "output",
            "dropout": network["dropout"],
        },
        "pixel_mean": 0.0,
        "pixel_std": 1.0,
    }


def _blocks(ours: str, theirs: str, conv: ConvConfig, inside: int, out: int) -> list[Entry]:
    """The blocks of a level; the first one changes the number of channels."""
    widths = [inside] + [out] * conv.blocks
    table = []
    for i in range(conv.blocks):
        table += _block(f"{ours}.{i}", f"{theirs}.{i}", widths[i] != widths[i + 1])
    return table


def _mid(ours: str, theirs: str, conv: ConvConfig) -> list[Entry]:
    table = []
    for i in range(conv.mid_blocks):
        table += _block(f"{ours}.mid.{i}", f"{theirs}.mid.{i}", False)
    return table


def _block(ours: str, theirs: str, changes: bool) -> list[Entry]:
    table = [*pair(f"{ours}.norm1", f"{theirs}.norm1"), *pair(f"{ours}.norm2", f"{theirs}.norm2")]
    table += [same(f"{ours}.conv{i}.weight", f"{theirs}.conv{i}.weight") for i in (1, 2)]
    if changes:
        table.append(same(f"{ours}.shortcut.weight", f"{theirs}.nin_shortcut.weight"))
    return table
