"""Open-MAGVIT2's video tokenizer (arXiv 2409.04410, TencentARC/SEED-Voken): causal 3D CNN and LFQ.

The release is a Lightning checkpoint without a config, whose constants stand in the official YAML;
of its weights the averaged ones are read (`seed_voken`). Any 1 + 4k frames and images can be read,
of the sides that `resolution` of a config says (one number, or height and width); `frames`, which
official configs have in their data, is the usual count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from vistok.pretrained.base import Entry, Family, Release, warn_of_unknown
from vistok.pretrained.tokenizers import open_magvit2_layout as layout
from vistok.pretrained.tokenizers.llamagen import refuse_others
from vistok.pretrained.tokenizers.seed_voken import EMA, averaged, network_of, require_kinds
from vistok.tokenizer import TokenizerConfig

_LICENSE = "Apache-2.0 (code; weights trained on UCF101: check the card of the hub)"
_RELEASED = {
    **layout.DEFAULTS,
    "ddconfig": {**layout.NETWORK, "resolution": 128, "ch_mult": [1, 2, 2, 4]},
    "frames": 17,
}


class OpenMAGVIT2Video(Family):
    name = "open_magvit2_video"
    inert = ("loss.*", f"{EMA}*", "colorize")
    releases = (
        Release(
            "open-magvit2-video", "TencentARC/Open-MAGVIT2-Tokenizer-262144-Video",
            "video_128_262144.ckpt", _LICENSE, _RELEASED,
            recipe=("tokenizers/open_magvit2/video",), research_only=True,
        ),
    )  # fmt: skip

    # -- configs --------------------------------------------------------------------------------

    def recognizes(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:
        marks = {"encoder.conv_in.conv_1.weight", "decoder.adaptive.0.gamma.weight"}
        said = not config or "ddconfig" in layout.arguments(config)
        return said and marks | {"decoder.conv_in.conv_1.bias"} <= set(keys)

    def unwrapped(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return averaged(state, ("encoder.", "decoder."))

    def config(self, official: Mapping[str, Any]) -> dict[str, Any]:
        official = layout.arguments(official)
        warn_of_unknown(self.name, official, layout.KNOWN | {"frames"})
        given = {**_RELEASED, **official}
        network = network_of(self.name, given, _RELEASED["ddconfig"])
        net = {
            **layout.tree_of(network),
            # A level keeps the frame rate where its multiplier is 1, in the encoder and, for the
            # way back to it, in the decoder.
            "halve_time": [m != 1 for m in network["ch_mult"][:-1]],
            "time_padding": "zeros",
        }
        return {
            "image_size": network["resolution"],
            "frames": given["frames"],
            "encoder": {"kind": "causal_resnet", "net": net},
            "quantizer": layout.quantizer_tree(self.name, given, network["z_channels"]),
            "decoder": {"kind": "causal_resnet", "net": net},
        }

    def official(self, config: TokenizerConfig) -> dict[str, Any]:
        require_kinds(self.name, config, encoder="causal_resnet", quantizer="lfq")
        side, quantizer = layout.side_of(config.image_size), config.quantizer
        official = {
            "ddconfig": layout.network_official(config.encoder.net, quantizer.bits, side),
            **layout.quantizer_official(quantizer),
            "frames": config.frames,
        }
        self.refuse(layout.no_place(quantizer))
        refuse_others(self, config, official)
        return official

    # -- keys -----------------------------------------------------------------------------------

    def entries(self, config: TokenizerConfig) -> list[Entry]:
        return layout.key_table(config, ".conv_1")
