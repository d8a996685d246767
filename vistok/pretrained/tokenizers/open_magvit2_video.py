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

from vistok.config import ConfigError
from vistok.pretrained.base import Entry, Family, Release, flag, pair, same, warn_of_unknown
from vistok.pretrained.tokenizers.llamagen import refuse_others
from vistok.pretrained.tokenizers.seed_voken import (
    EMA,
    SILENT,
    averaged,
    network_of,
    number,
    require_kinds,
)
from vistok.pretrained.tokenizers.titok import within
from vistok.tokenizer import TokenizerConfig

_LICENSE = "Apache-2.0 (code; weights trained on UCF101: check the card of the hub)"
_RELEASED = {
    "ddconfig": {
        "double_z": False,
        "z_channels": 18,
        "resolution": 128,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 128,
        "ch_mult": [1, 2, 2, 4],
        "num_res_blocks": 4,
    },
    "embed_dim": 18,
    "n_embed": 262144,
    "sample_minimization_weight": 1.0,
    "batch_maximization_weight": 1.0,
    "frames": 17,
}
_KNOWN = frozenset(_RELEASED) | SILENT
_ENTROPY = 0.1  # codebook_weight of the released recipe
_COMMITMENT = 0.25


class OpenMAGVIT2Video(Family):
    name = "open_magvit2_video"
    inert = ("loss.*", f"{EMA}*")
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
        said = not config or "ddconfig" in (within(config, "model", "init_args") or config)
        return said and marks | {"decoder.conv_in.conv_1.bias"} <= set(keys)

    def unwrapped(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return averaged(state, ("encoder.", "decoder."))

    def config(self, official: Mapping[str, Any]) -> dict[str, Any]:
        official = within(official, "model", "init_args") or official
        warn_of_unknown(self.name, official, _KNOWN)
        given = {**_RELEASED, **official}
        network = network_of(self.name, given, _RELEASED["ddconfig"])
        bits = self._bits(given, network)
        # The Lightning module is given its losses' weights with the class of the losses.
        losses = within(given, "lossconfig", "params") or {}
        entropy = number(self.name, losses, "codebook_weight", _ENTROPY)
        mult = list(network["ch_mult"])
        net = {
            "channels": network["ch"],
            "channel_mult": mult,
            # A level keeps the frame rate where its multiplier is 1, in the encoder and, for the
            # way back to it, in the decoder.
            "halve_time": [m != 1 for m in mult[:-1]],
            "blocks": network["num_res_blocks"],
            "mid_blocks": network["num_res_blocks"],
            "norm_groups": 32,
            "norm_eps": 1e-6,
            "bias": False,
            "time_padding": "zeros",
        }
        return {
            "image_size": network["resolution"],
            "frames": given["frames"],
            "encoder": {"kind": "causal_resnet", "net": net},
            "quantizer": {
                "kind": "lfq",
                "bits": bits,
                "temperature": 0.01,
                "entropy_group": bits,
                "entropy_eps": 1e-5,
                "loss_weights": {
                    "commitment": number(self.name, losses, "commit_weight", _COMMITMENT),
                    "entropy_sample": entropy
                    * number(self.name, given, "sample_minimization_weight", 1.0),
                    "entropy_batch": -entropy
                    * number(self.name, given, "batch_maximization_weight", 1.0),
                },
            },
            "decoder": {"kind": "causal_resnet", "net": net},
        }

    def _bits(self, given: Mapping[str, Any], network: Mapping[str, Any]) -> int:
        """Bits of a token; ConfigError for values that the network does not run with."""
        flag(network, "double_z", False)  # the network does not read it
        flag(given, "token_factorization", False)  # of tokens in a generator: `regroup` here
        bits, codes = given["embed_dim"], given["n_embed"]
        if network["z_channels"] != bits or codes != 2**bits:
            raise ConfigError(
                f"{self.name}: z_channels={network['z_channels']!r}, embed_dim={bits!r}, "
                f"n_embed={codes!r}: expected as many channels as bits, and 2**bits codes"
            )
        return bits

    def official(self, config: TokenizerConfig) -> dict[str, Any]:
        encoder, quantizer = config.encoder, config.quantizer
        require_kinds(self.name, config, encoder="causal_resnet", quantizer="lfq")
        net, weights = encoder.net, quantizer.loss_weights
        official = {
            "ddconfig": {
                "double_z": False,
                "z_channels": quantizer.bits,
                "resolution": _side(config.image_size),
                "in_channels": 3,
                "out_ch": 3,
                "ch": net.channels,
                "ch_mult": list(net.channel_mult),
                "num_res_blocks": net.blocks,
            },
            "embed_dim": quantizer.bits,
            "n_embed": 2**quantizer.bits,
            "sample_minimization_weight": weights.get("entropy_sample", 0.0) / _ENTROPY,
            "batch_maximization_weight": -weights.get("entropy_batch", 0.0) / _ENTROPY,
            "frames": config.frames,
        }
        commitment = weights.get("commitment", 0.0)
        if commitment != _COMMITMENT:
            official["lossconfig"] = {"params": {"codebook_weight": _ENTROPY,
                                                 "commit_weight": commitment}}  # fmt: skip
        refuse_others(self, config, official)
        self.refuse([f"quantizer.{k}={v}" for k, v in (("sphere", quantizer.sphere),) if v])
        return official

    # -- keys -----------------------------------------------------------------------------------

    def entries(self, config: TokenizerConfig) -> list[Entry]:
        down, up = config.encoder.net, config.decoder.net
        last = len(down.widths) - 1
        inside = (down.channels, *down.widths[:-1])
        table = [same("encoder.conv_in.weight", "encoder.conv_in.conv_1.weight")]
        for i in range(last + 1):
            widens = inside[i] != down.widths[i]
            table += _level(down, "encoder", i, f"encoder.down.{i}", widens)
            if i < last:
                table += _conv(f"encoder.levels.{i}.way.conv", f"encoder.down.{i}.downsample")
        table += [*_ends(down, "encoder"), *_conv("decoder.conv_in", "decoder.conv_in")]
        inside = (*up.widths[1:], up.widths[-1])
        for i in range(last + 1):
            table += _level(up, "decoder", i, f"decoder.up.{i}", inside[i] != up.widths[i])
            table += pair(f"decoder.adaptive.{i}.scale", f"decoder.adaptive.{i}.gamma")
            table += pair(f"decoder.adaptive.{i}.shift", f"decoder.adaptive.{i}.beta")
            if i:
                table += _conv(f"decoder.levels.{i}.way.conv", f"decoder.up.{i}.upsample.conv1")
        return table + _ends(up, "decoder")


def _side(sides: tuple[int, int]) -> int | list[int]:
    """Official configs say one side; the network takes others, which are written as two."""
    return sides[0] if sides[0] == sides[1] else list(sides)


def _conv(ours: str, theirs: str) -> list[Entry]:
    return pair(ours, f"{theirs}.conv_1")


def _level(net: Any, side: str, level: int, theirs: str, widens: bool) -> list[Entry]:
    table = []
    for i in range(net.blocks):
        ours = f"{side}.levels.{level}.blocks.{i}"
        table += _block(ours, f"{theirs}.block.{i}", widens and i == 0)
    return table


def _block(ours: str, theirs: str, widens: bool = False) -> list[Entry]:
    table, convs = [], [("conv1", "conv1"), ("conv2", "conv2")]
    if widens:
        convs.append(("shortcut", "nin_shortcut"))
    for mine, their in convs:
        table.append(same(f"{ours}.{mine}.weight", f"{theirs}.{their}.conv_1.weight"))
    return [*table, *pair(f"{ours}.norm1", f"{theirs}.norm1"),
            *pair(f"{ours}.norm2", f"{theirs}.norm2")]  # fmt: skip


def _ends(net: Any, side: str) -> list[Entry]:
    """Middle, last norm and last convolution."""
    table = []
    for i in range(net.mid_blocks):
        table += _block(f"{side}.mid.{i}", f"{side}.mid_block.{i}")
    return [*table, *pair(f"{side}.norm", f"{side}.norm_out"),
            *_conv(f"{side}.conv_out", f"{side}.conv_out")]  # fmt: skip
