"""Open-MAGVIT2's image tokenizers (arXiv 2409.04410, TencentARC/SEED-Voken): a CNN and LFQ.

The releases are Lightning checkpoints without a config, whose constants stand in the official
YAMLs; of their weights the averaged ones are read (`seed_voken`). The network takes images of any
sides that its levels can halve: those that `resolution` of a config says (one number, or height and
width), or the data of a whole YAML.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from vistok.pretrained.base import Entry, Family, Release, flag, warn_of_unknown
from vistok.pretrained.published import OPEN_MAGVIT2
from vistok.pretrained.tokenizers import open_magvit2_layout as layout
from vistok.pretrained.tokenizers.llamagen import refuse_others
from vistok.pretrained.tokenizers.seed_voken import EMA, averaged, network_of, require_kinds
from vistok.tokenizer import TokenizerConfig

_LICENSE = "Apache-2.0 (code; weights trained on {}: check the card of the hub)"
_HUB = "TencentARC/Open-MAGVIT2-Tokenizer"
_F8 = {"ch_mult": [1, 2, 2, 4]}


class OpenMAGVIT2(Family):
    name = "open_magvit2"
    inert = ("loss.*", f"{EMA}*", "colorize")

    # -- configs --------------------------------------------------------------------------------

    def recognizes(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:
        marks = {"encoder.conv_in.weight", "decoder.adaptive.0.gamma.weight"}
        said = not config or "ddconfig" in layout.arguments(config)
        return said and marks | {"decoder.conv_in.bias", "encoder.conv_out.bias"} <= set(keys)

    def constants(self, state: Mapping[str, Tensor]) -> Mapping[str, Any] | None:
        """The config of the release with as many levels and bits; that of 256 pixels before that of
        others with the same network."""
        if not self.recognizes({}, state):
            return None
        levels = len({key.split(".")[2] for key in state if key.startswith("encoder.down.")})
        bits = state["encoder.conv_out.bias"].numel()
        for release in self.releases:
            network = release.config["ddconfig"]
            if (len(network["ch_mult"]), network["z_channels"]) == (levels, bits):
                return release.config
        return None

    def unwrapped(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return averaged(state, ("encoder.", "decoder."))

    def config(self, official: Mapping[str, Any]) -> dict[str, Any]:
        official = layout.arguments(official)
        warn_of_unknown(self.name, official, layout.KNOWN)
        given = {**layout.DEFAULTS, **official}
        network = network_of(self.name, given, layout.NETWORK)
        flag(network, "double_z", False)  # the network does not read it
        conv = layout.tree_of(network)
        return {
            "image_size": network["resolution"],
            "encoder": {
                "kind": "cnn",
                "conv": conv,
                "bias_in": False,
                "downsample": "conv_centered",
                "kernel_out": 1,
            },
            "quantizer": layout.quantizer_tree(self.name, given, network["z_channels"]),
            "decoder": {
                "kind": "cnn",
                "conv": conv,
                "upsample": "depth_to_space",
                "adaptive_norm": True,
            },
        }

    def official(self, config: TokenizerConfig) -> dict[str, Any]:
        require_kinds(self.name, config, encoder="cnn", quantizer="lfq")
        side, quantizer = layout.side_of(config.image_size), config.quantizer
        official = {
            "ddconfig": layout.network_official(config.encoder.conv, quantizer.bits, side),
            **layout.quantizer_official(quantizer),
        }
        self.refuse(layout.no_place(quantizer))
        refuse_others(self, config, official)
        return official

    # -- keys -----------------------------------------------------------------------------------

    def entries(self, config: TokenizerConfig) -> list[Entry]:
        return layout.key_table(config)

    # -- releases -------------------------------------------------------------------------------

    def _release(
        name: str,
        place: str,
        rfid: float,
        side: int = 256,
        bits: int = 18,
        data: str = "ImageNet",
        recipe: str | None = None,
        **network: Any,
    ) -> Release:
        config = {
            **layout.DEFAULTS,
            "ddconfig": {**layout.NETWORK, "z_channels": bits, "resolution": side, **network},
            "embed_dim": bits,
            "n_embed": 2**bits,
        }
        hub, file = place.split(":")
        pixels = {
            "described": f"ImageNet val {side}, 50,000 images against themselves",
            "size": (side, side),
        }
        return Release(
            f"open-magvit2-{name}", f"{_HUB}-{hub}", f"{file}.ckpt", _LICENSE.format(data), config,
            rfid=rfid, protocol=replace(OPEN_MAGVIT2, **pixels),
            recipe=(f"tokenizers/open_magvit2/{recipe or name.replace('-', '_')}",),
            research_only=True,
        )  # fmt: skip

    _MIX = "LAION, CC and JourneyDB"
    releases = (
        _release("256-l", "256-resolution:imagenet_256_L", 1.17),
        _release("128-l", "128-resolution:imagenet_128_L", 1.18, side=128, **_F8),
        # The same file, read at 256 pixels.
        _release("128-l-256", "128-resolution:imagenet_128_L", 0.34, **_F8),
        _release("pretrain-16384", "16384-Pretrain:pretrain256_16384", 2.55, bits=14, data=_MIX),
        _release("pretrain-262144", "262144-Pretrain:pretrain256_262144", 1.67, data=_MIX),
    )
