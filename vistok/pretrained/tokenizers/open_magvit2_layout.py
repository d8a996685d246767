"""What Open-MAGVIT2's image and video tokenizers share: the quantizer's config and the key table.

Both have one tree of residual blocks and as many channels in the last map as a token has bits; in
the video's every convolution lies one level deeper, as "conv_1".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vistok.config import ConfigError
from vistok.pretrained.base import Entry, flag, pair, same
from vistok.pretrained.tokenizers.seed_voken import SILENT, number
from vistok.pretrained.tokenizers.titok import within
from vistok.tokenizer import TokenizerConfig

ENTROPY = 0.1  # codebook_weight of the released recipes
COMMITMENT = 0.25  # commit_weight of theirs
_BOOST_STEPS = 2000
_WEIGHTS = ("sample_minimization_weight", "batch_maximization_weight")
NETWORK: dict[str, Any] = {
    "double_z": False,
    "z_channels": 18,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": [1, 1, 2, 2, 4],
    "num_res_blocks": 4,
}
DEFAULTS: dict[str, Any] = {
    "ddconfig": NETWORK,
    "embed_dim": 18,
    "n_embed": 262144,
    "sample_minimization_weight": 1.0,
    "batch_maximization_weight": 1.0,
}
KNOWN = frozenset(DEFAULTS) | SILENT


# -- configs ---------------------------------------------------------------------------------------


def arguments(official: Mapping[str, Any]) -> Mapping[str, Any]:
    """Arguments of the Lightning module of a whole YAML, or of these alone.

    The `resolution` of a network is read by nothing, and that of the released YAMLs is 128 for
    images of 256 pixels too: where the YAML says which images it was trained on, their size takes
    its place.
    """
    found = within(official, "model", "init_args")
    if found is None:
        return official
    data = within(official, "data", "init_args", "train", "params", "config") or {}
    network = found.get("ddconfig")
    if "size" not in data or not isinstance(network, Mapping):
        return found
    return {**found, "ddconfig": {**network, "resolution": data["size"]}}


def tree_of(network: Mapping[str, Any]) -> dict[str, Any]:
    """Config of the residual blocks on both sides."""
    return {
        "channels": network["ch"],
        "channel_mult": list(network["ch_mult"]),
        "blocks": network["num_res_blocks"],
        "mid_blocks": network["num_res_blocks"],
        "norm_groups": 32,
        "norm_eps": 1e-6,
        "bias": False,
    }


def quantizer_tree(
    family: str, given: Mapping[str, Any], channels: int | None = None
) -> dict[str, Any]:
    """Config of the quantizer of the Lightning module's arguments.

    Args:
        channels: of the encoder's last map; ConfigError unless they are the bits of a token. None
            = not known.
    """
    # `embed_dim` only tells the original whether to project, which it then does not do.
    codes = given["n_embed"]
    whole = isinstance(codes, int) and not isinstance(codes, bool) and codes > 1
    bits = codes.bit_length() - 1 if whole else 0
    if not whole or codes != 2**bits or channels not in (None, bits):
        raise ConfigError(
            f"{family}: z_channels={channels!r}, n_embed={codes!r}: expected as many channels as "
            "bits, and 2**bits codes"
        )
    losses = within(given, "lossconfig", "params") or {}
    entropy = number(family, losses, "codebook_weight", ENTROPY)
    sample, batch = (number(family, given, key, 1.0) for key in _WEIGHTS)
    tree = {
        "kind": "lfq",
        "bits": bits,
        "temperature": 0.01,
        "entropy_group": bits,
        "entropy_eps": 1e-5,
        "loss_weights": {
            "commitment": number(family, losses, "commit_weight", COMMITMENT),
            "entropy_sample": entropy * sample,
            "entropy_batch": -entropy * batch,
        },
    }
    boost = number(family, losses, "codebook_enlarge_ratio", 0.0)
    if boost > 0:
        steps = number(family, losses, "codebook_enlarge_steps", _BOOST_STEPS)
        tree |= {"entropy_boost": boost, "entropy_boost_steps": steps}
    if flag(given, "token_factorization", False):
        tree["factor_bits"] = list(given.get("factorized_bits", (9, 9)))
        if len(tree["factor_bits"]) != 2:
            raise ConfigError(
                f"{family}: factorized_bits={tree['factor_bits']}: expected the bits of two "
                "sub-tokens, such as [6, 12]"
            )
    return tree


def quantizer_official(quantizer: Any) -> dict[str, Any]:
    """The inverse of `quantizer_tree`."""
    weights = quantizer.loss_weights
    official = {
        "embed_dim": quantizer.bits,
        "n_embed": 2**quantizer.bits,
        "sample_minimization_weight": weights.get("entropy_sample", 0.0) / ENTROPY,
        "batch_maximization_weight": -weights.get("entropy_batch", 0.0) / ENTROPY,
    }
    commitment, boost = weights.get("commitment", 0.0), quantizer.entropy_boost
    losses = {"codebook_weight": ENTROPY, "commit_weight": commitment}
    if boost:
        losses |= {
            "codebook_enlarge_ratio": boost,
            "codebook_enlarge_steps": quantizer.entropy_boost_steps,
        }
    if commitment != COMMITMENT or boost:
        official["lossconfig"] = {"params": losses}
    if len(quantizer.factors) > 1:
        official |= {"token_factorization": True, "factorized_bits": list(quantizer.factors)}
    return official


def network_official(net: Any, bits: int, side: Any) -> dict[str, Any]:
    """`ddconfig` of the residual blocks."""
    return {
        **NETWORK,
        "z_channels": bits,
        "resolution": side,
        "ch": net.channels,
        "ch_mult": list(net.channel_mult),
        "num_res_blocks": net.blocks,
    }


def no_place(quantizer: Any) -> list[str]:
    """Settings of a quantizer that change its tokens and that the official layout cannot hold."""
    wrong = [f"quantizer.sphere={quantizer.sphere}"] if quantizer.sphere else []
    if len(quantizer.factors) > 2:
        wrong.append(f"quantizer.factor_bits={quantizer.factor_bits}")
    return wrong


def side_of(sides: tuple[int, int]) -> int | list[int]:
    """Official configs say one side; the network takes others, which are written as two."""
    return sides[0] if sides[0] == sides[1] else list(sides)


# -- keys ------------------------------------------------------------------------------------------


def key_table(config: TokenizerConfig, inner: str = "") -> list[Entry]:
    """Every tensor of the networks.

    Args:
        inner: what lies between a convolution's name and its "weight": ".conv_1" of the video's.
    """
    keys = _Keys(inner)
    return [*keys.encoder(_net(config.encoder)), *keys.decoder(_net(config.decoder))]


def _net(part: Any) -> Any:
    return part.conv if part.kind == "cnn" else part.net


class _Keys:
    def __init__(self, inner: str) -> None:
        self.inner = inner

    def encoder(self, net: Any) -> list[Entry]:
        table = [same("encoder.conv_in.weight", f"encoder.conv_in{self.inner}.weight")]
        last = len(net.widths) - 1
        for i, inside in enumerate((net.channels, *net.widths[:-1])):
            theirs = f"encoder.down.{i}"
            table += self._level(net, "encoder", i, theirs, inside != net.widths[i])
            if i < last:
                table += self._conv(f"encoder.levels.{i}.way.conv", f"{theirs}.downsample")
        return table + self._ends(net, "encoder")

    def decoder(self, net: Any) -> list[Entry]:
        table = self._conv("decoder.conv_in", "decoder.conv_in")
        for i, inside in enumerate((*net.widths[1:], net.widths[-1])):
            theirs = f"decoder.up.{i}"
            table += self._level(net, "decoder", i, theirs, inside != net.widths[i])
            table += pair(f"decoder.adaptive.{i}.scale", f"decoder.adaptive.{i}.gamma")
            table += pair(f"decoder.adaptive.{i}.shift", f"decoder.adaptive.{i}.beta")
            if i:
                table += self._conv(f"decoder.levels.{i}.way.conv", f"{theirs}.upsample.conv1")
        return table + self._ends(net, "decoder")

    def _conv(self, ours: str, theirs: str) -> list[Entry]:
        return pair(ours, f"{theirs}{self.inner}")

    def _level(self, net: Any, side: str, level: int, theirs: str, widens: bool) -> list[Entry]:
        table = []
        for i in range(net.blocks):
            ours = f"{side}.levels.{level}.blocks.{i}"
            table += self._block(ours, f"{theirs}.block.{i}", widens and i == 0)
        return table

    def _block(self, ours: str, theirs: str, widens: bool = False) -> list[Entry]:
        table, convs = [], [("conv1", "conv1"), ("conv2", "conv2")]
        if widens:
            convs.append(("shortcut", "nin_shortcut"))
        for mine, their in convs:
            table.append(same(f"{ours}.{mine}.weight", f"{theirs}.{their}{self.inner}.weight"))
        return [*table, *pair(f"{ours}.norm1", f"{theirs}.norm1"),
                *pair(f"{ours}.norm2", f"{theirs}.norm2")]  # fmt: skip

    def _ends(self, net: Any, side: str) -> list[Entry]:
        """Middle, last norm and last convolution."""
        table = []
        for i in range(net.mid_blocks):
            table += self._block(f"{side}.mid.{i}", f"{side}.mid_block.{i}")
        return [*table, *pair(f"{side}.norm", f"{side}.norm_out"),
                *self._conv(f"{side}.conv_out", f"{side}.conv_out")]  # fmt: skip
