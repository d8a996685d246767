"""GPSToken (arXiv 2509.01109, xtudbxk/GPSToken): regions as 2D Gaussians, 64, 128 or 256 of them.

The releases are bare state dicts, whose constants stand in the official YAMLs and in the source.
The official loader keeps the keys that its network knows; whatever else a file holds is carried
along. No weight depends on the number of regions, nor on the number of tiles.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from vistok.config import ConfigError
from vistok.pretrained.base import (
    Entry,
    Family,
    Release,
    flag,
    pair,
    same,
    squeeze,
    warn_of_unknown,
)
from vistok.pretrained.published import GPSTOKEN
from vistok.pretrained.tokenizers.llamagen import refuse_others
from vistok.pretrained.tokenizers.seed_voken import require_kinds
from vistok.pretrained.tokenizers.taming import attended_levels, attention_counters, level_entries
from vistok.pretrained.tokenizers.titok import within
from vistok.tokenizer import TokenizerConfig

_LICENSE = "Apache-2.0 (as the README says; weights trained on ImageNet: check the card of the hub)"
_PAGE = "xtudbxk/GPSToken"
_HEADS = 8  # of every official transformer
_REGIONS: dict[str, Any] = {
    "rois": 8,
    "gpsenc_n": 30,
    "gpsenc_c": 512,
    "gps_c": 16,
    "gps_num": 128,
    "gps_dmax": 3,
    "gps_adaptive_w": 2.5,
    "gps_rs": [64, 64],
}
_NETWORK: dict[str, Any] = {
    "double_z": False,
    "z_channels": 16,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": [1, 2, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [],
    "dropout": 0.0,
}
DEFAULTS: dict[str, Any] = {
    "gpsconfig": _REGIONS,
    "decoderconfig": _NETWORK,
    # Constants of the source, and what the command that reads larger images says.
    "stem_width": 128,
    "minhw": 8,
    "patches_per_side": 1,
    "merge": True,
}
_MODULES = (
    "preprocess_img.",
    "roialign_layer.",
    "gps_embed.",
    "gps_embed_layer.",
    "attnblocks.",
    "to_gps.",
    "decoder.",
)


class GPSToken(Family):
    name = "gpstoken"
    inert = ("preprocess_img.*.temb_proj.*",)

    def is_inert(self, key: str) -> bool:
        """Besides, what lies outside the network's own modules."""
        return super().is_inert(key) or not key.startswith(_MODULES)

    def recognizes(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:
        return {"gps_embed.weight", "roialign_layer.weight", "to_gps.1.weight"} <= set(keys)

    def constants(self, state: Mapping[str, Tensor]) -> Mapping[str, Any] | None:
        """Of the releases with so many features; 128 tokens rather than 64, whose weights look the
        same."""
        if not self.recognizes({}, state):
            return None
        width = len(state["to_gps.1.weight"])
        known = {r.config["gpsconfig"]["gps_c"]: r.config for r in self.releases}
        return known.get(width)

    # -- configs --------------------------------------------------------------------------------

    def config(self, official: Mapping[str, Any]) -> dict[str, Any]:
        official = _arguments(official)
        warn_of_unknown(self.name, official, DEFAULTS)
        given = {**DEFAULTS, **official}
        regions = self._table("gpsconfig", given["gpsconfig"], _REGIONS)
        # Sizes that are not said are those of the source; its decoder takes any further argument.
        network = self._table(
            "decoderconfig",
            given["decoderconfig"],
            _NETWORK | {"resamp_with_conv": True, "give_pre_end": False},
        )
        if network["out_ch"] != 3:
            raise ConfigError(f"{self.name}: out_ch={network['out_ch']!r}; expected 3, RGB images")
        if flag(network, "give_pre_end", False):
            raise ConfigError(
                f"{self.name}: give_pre_end=true: such a decoder gives features; expected false"
            )
        if network["z_channels"] != regions["gps_c"]:
            raise ConfigError(
                f"{self.name}: z_channels={network['z_channels']} of a map of "
                f"gps_c={regions['gps_c']} features; expected equal numbers"
            )
        levels, tiles = len(network["ch_mult"]), given["patches_per_side"]
        rows = regions["gps_rs"]
        if not isinstance(rows, list | tuple) or len(rows) != 2:
            raise ConfigError(f"{self.name}: gps_rs={rows!r}; expected [rows, columns]")
        return {
            "image_size": [side * 2 ** (levels - 1) * tiles for side in rows],
            "encoder": {
                "kind": "regions",
                "count": regions["gps_num"],
                "gaussians": True,
                "tiles": tiles,
                "least": given["minhw"],
                "power": regions["gps_adaptive_w"],
                "stem_width": given["stem_width"],
                "cells": regions["rois"],
                "transformer": {
                    "width": regions["gpsenc_c"],
                    "depth": regions["gpsenc_n"],
                    "heads": _HEADS,
                    "norm_eps": 1e-5,
                    "norm_out": False,
                    "init": "torch",
                    "branch_scale": "none",
                },
            },
            "quantizer": {"kind": "none", "dim": 5 + regions["gps_c"]},
            "decoder": {
                "kind": "splat",
                "features": None,
                "reach": regions["gps_dmax"],
                "tiles": tiles,
                "merge": flag(given, "merge", True),
                "cnn": {
                    "upsample": "conv" if flag(network, "resamp_with_conv", True) else "nearest",
                    "conv": {
                        "channels": network["ch"],
                        "channel_mult": list(network["ch_mult"]),
                        "blocks": network["num_res_blocks"] + 1,
                        "mid_blocks": 2,
                        "norm": "deviation",
                        "dropout": network["dropout"],
                        "attention": True,
                        "attention_levels": attended_levels(self.name, network, levels)[1],
                    },
                },
            },
        }

    def _table(self, place: str, given: Any, known: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(given, Mapping):
            raise ConfigError(f"{self.name}: {place}={given!r}; expected a mapping")
        warn_of_unknown(self.name, given, known, f"{place}.")
        return {**known, **given}

    def official(self, config: TokenizerConfig) -> dict[str, Any]:
        encoder, decoder = config.encoder, config.decoder
        require_kinds(self.name, config, encoder="regions", quantizer="none")
        if decoder.kind != "splat":
            raise ConfigError(
                f"{self.name}: decoder.kind={decoder.kind} has no place in the official layout; "
                "expected splat"
            )
        conv, mixer, features = decoder.cnn.conv, encoder.transformer, config.quantizer.dim - 5
        levels = len(conv.channel_mult)
        sides = [side // decoder.tiles for side in config.image_size]
        official: dict[str, Any] = {
            "gpsconfig": {
                "rois": encoder.cells,
                "gpsenc_n": mixer.depth,
                "gpsenc_c": mixer.width,
                "gps_c": features,
                "gps_num": encoder.count,
                "gps_dmax": decoder.reach,
                "gps_adaptive_w": encoder.power,
                "gps_rs": [side // 2 ** (levels - 1) for side in sides],
            },
            "decoderconfig": {
                **_NETWORK,
                "z_channels": features,
                "resolution": sides[0],
                "ch": conv.channels,
                "ch_mult": list(conv.channel_mult),
                "num_res_blocks": conv.blocks - 1,
                "attn_resolutions": [
                    one
                    for level, one in enumerate(attention_counters(sides[0], levels)[1])
                    if conv.attends(level)
                ],
                "dropout": conv.dropout,
            },
            "stem_width": encoder.stem_width,
            "minhw": encoder.least,
            "patches_per_side": encoder.tiles,
        }
        if decoder.cnn.upsample == "nearest":
            official["decoderconfig"]["resamp_with_conv"] = False
        if not decoder.merge:
            official["merge"] = False
        refuse_others(self, config, official)
        return official

    # -- keys -----------------------------------------------------------------------------------

    def entries(self, config: TokenizerConfig) -> list[Entry]:
        encoder, cnn = config.encoder, config.decoder.cnn
        table = [
            *pair("encoder.conv_in", "preprocess_img.0"),
            *pair("encoder.cells", "roialign_layer"),
            same("encoder.start", "gps_embed.weight", **squeeze(0)),
            *pair("encoder.place.0", "gps_embed_layer.0"),
            *pair("encoder.place.2", "gps_embed_layer.2"),
            *pair("encoder.geometry", "to_gps.0"),
            *pair("encoder.features", "to_gps.1"),
        ]
        for block in range(encoder.stem_blocks):
            for layer in ("norm1", "conv1", "norm2", "conv2"):
                ours = f"encoder.stem.blocks.{block}.{layer}"
                table += pair(ours, f"preprocess_img.{block + 1}.{layer}")
        for number in range(encoder.transformer.depth):
            theirs, ours = f"attnblocks.{number}", f"encoder.transformer.blocks.{number}"
            table += pair(f"encoder.pools.{number}", f"{theirs}.roimlp")
            for mine, other in (("norm_attention", "ln1"), ("norm_mlp", "ln2")):
                table += pair(f"{ours}.{mine}", f"{theirs}.{other}")
            for kind in ("weight", "bias"):
                table.append(same(f"{ours}.attention.qkv.{kind}", f"{theirs}.attn1.in_proj_{kind}"))
            table += pair(f"{ours}.attention.out", f"{theirs}.attn1.out_proj")
            table += pair(f"{ours}.mlp.up", f"{theirs}.mlp.0")
            table += pair(f"{ours}.mlp.out", f"{theirs}.mlp.2")
        for entry in level_entries(cnn.conv, "decoder", "up"):
            if cnn.upsample == "conv" or ".way." not in entry.ours:
                table.append(replace(entry, ours=entry.ours.replace("decoder.", "decoder.cnn.", 1)))
        return table

    def _release(name: str, tokens: int, features: int, rfid: float) -> Release:
        constants: dict[str, Any] = {
            "gpsconfig": {**_REGIONS, "gps_num": tokens, "gps_c": features},
            "decoderconfig": {**_NETWORK, "z_channels": features},
        }
        if tokens == 256:  # its tiles are decoded apart, of images that have several
            constants["merge"] = False
        return Release(
            f"gpstoken-{name}",
            _PAGE,
            f"gpstoken_{name}.safetensors",
            _LICENSE,
            constants,
            rfid=rfid,
            protocol=GPSTOKEN,
            recipe=(f"tokenizers/gpstoken/{name}",),
        )

    releases = (
        _release("s64", 64, 16, 1.31),
        _release("m128", 128, 16, 0.65),
        _release("l256", 256, 32, 0.22),
    )


def _arguments(official: Mapping[str, Any]) -> Mapping[str, Any]:
    """Arguments of the network of a whole YAML, or of these alone."""
    whole = within(official, "model")
    return official if whole is None else whole
