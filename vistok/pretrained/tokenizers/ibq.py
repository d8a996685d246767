"""IBQ's tokenizers (arXiv 2412.02692, TencentARC/SEED-Voken): taming's CNN, 1,024 to 262,144 codes.

The releases are Lightning checkpoints without a config, whose constants stand in the official
YAMLs; of their weights the averaged ones are read (`seed_voken`). Attention sits where counters
that start at `resolution` meet `attn_resolutions`, whatever sides images have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from vistok.config import ConfigError
from vistok.core.text import printable
from vistok.pretrained.base import Entry, Family, Release, flag, same, squeeze, warn_of_unknown
from vistok.pretrained.published import SEED_VOKEN
from vistok.pretrained.tokenizers.llamagen import refuse_others
from vistok.pretrained.tokenizers.seed_voken import (
    EMA,
    SILENT,
    averaged,
    network_of,
    number,
    require_kinds,
)
from vistok.pretrained.tokenizers.taming import (
    attended_levels,
    cnn_official,
    cnn_trees,
    level_entries,
)
from vistok.pretrained.tokenizers.titok import within
from vistok.tokenizer import TokenizerConfig

_LICENSE = "Apache-2.0 (code; weights trained on ImageNet: check the card of the hub)"
_NETWORK = {
    "double_z": False,
    "z_channels": 256,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": [1, 1, 2, 2, 4],
    "num_res_blocks": 4,
    "attn_resolutions": [16],
    "dropout": 0.0,
    "resamp_with_conv": True,
    "give_pre_end": False,
}
DEFAULTS: dict[str, Any] = {
    "ddconfig": _NETWORK,
    "n_embed": 16384,
    "embed_dim": 256,
    "beta": 0.25,
    "use_entropy_loss": True,
    "entropy_temperature": 0.01,
    "sample_minimization_weight": 1.0,
    "batch_maximization_weight": 1.0,
}
# The quantizer takes these and does not read them, or they are about the shape of indices alone.
_UNREAD = frozenset("cosine_similarity l2_normalize sane_index_shape".split())
_TRAINING = frozenset("gradient_clip_val lr_drop_epoch lr_drop_iter lr_drop_rate".split())
_ENTROPY = 0.05  # entropy_loss_weight of the released recipe


def quantizer_tree(
    official: Mapping[str, Any], entropy: float = _ENTROPY, whole: float = 1.0
) -> dict[str, Any]:
    """Config of the quantizer of the official class's arguments (n_e, e_dim, ...).

    Args:
        entropy: weight of the entropy loss. whole: of the sum of the others, which the authors'
            trainer reads where there is an entropy loss.
    """
    if official.get("remap") is not None:
        raise ConfigError(
            f"ibq: remap={printable(str(official['remap']))}: codes that are left out, which the "
            "authors' code cannot run; expected null"
        )
    beta = number("ibq", official, "beta", 0.25)
    entropies = flag(official, "use_entropy_loss", False)
    whole = whole if entropies else 1.0
    weights = {"quantize": whole, "commitment": whole, "codebook": whole * beta}
    if entropies:
        sample = number("ibq", official, "sample_minimization_weight", 1.0)
        batch = number("ibq", official, "batch_maximization_weight", 1.0)
        weights |= {"entropy_sample": entropy * sample, "entropy_batch": -entropy * batch}
    return {
        "kind": "ibq",
        "codebook_size": official["n_e"],
        "dim": official["e_dim"],
        "entropy_temperature": official.get("entropy_temperature", 0.01),
        "loss_weights": weights,
    }


class IBQTokenizer(Family):
    name = "ibq"
    inert = ("loss.*", f"{EMA}*", "colorize")

    def recognizes(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:
        marks = {"encoder.mid.attn_1.q.weight", "quant_conv.weight", "quantize.embedding.weight"}
        said = bool({"use_entropy_loss", "entropy_temperature"} & set(_arguments(config)))
        return said and marks <= set(keys)

    def unwrapped(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        parts = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.", "quantize.")
        return averaged(state, parts)

    # -- configs --------------------------------------------------------------------------------

    def config(self, official: Mapping[str, Any]) -> dict[str, Any]:
        official = _arguments(official)
        warn_of_unknown(self.name, official, {*DEFAULTS, *SILENT, *_UNREAD, *_TRAINING, "remap"})
        given = {**DEFAULTS, "use_entropy_loss": False, **official} if official else DEFAULTS
        if isinstance(official.get("ddconfig"), Mapping):  # the constructor's own default
            given["ddconfig"] = {"ch_mult": [1, 2, 4, 8], **official["ddconfig"]}
        network = network_of(self.name, given, _NETWORK)
        if flag(network, "double_z", False):
            raise ConfigError(
                f"{self.name}: double_z=true: that is a VAE's encoder; expected false"
            )
        if flag(network, "give_pre_end", False):
            raise ConfigError(
                f"{self.name}: give_pre_end=true: that decoder gives features; expected false"
            )
        losses = within(given, "lossconfig", "params")
        entropy = (
            _ENTROPY if losses is None else number(self.name, losses, "entropy_loss_weight", 1)
        )
        whole = number(self.name, losses or {}, "quant_loss_weight", 1.0)
        arguments = {**given, "n_e": given["n_embed"], "e_dim": given["embed_dim"]}
        sizes = {key: network[key] for key in ("ch", "ch_mult", "num_res_blocks")}
        sizes |= {"dropout_p": network["dropout"], "resamp_with_conv": network["resamp_with_conv"]}
        encoder, decoder = cnn_trees(self.name, sizes)
        levels = len(network["ch_mult"])
        both = attended_levels(self.name, network, levels)
        for side, attended in zip((encoder, decoder), both, strict=True):
            side["conv"]["attention_levels"] = None if attended == [levels - 1] else attended
            side["z_channels"] = network["z_channels"]
        return {
            "image_size": network["resolution"],
            "encoder": encoder,
            "quantizer": quantizer_tree(arguments, entropy, whole),
            "decoder": decoder,
        }

    def official(self, config: TokenizerConfig) -> dict[str, Any]:
        encoder, quantizer = config.encoder, config.quantizer
        require_kinds(self.name, config, encoder="cnn", quantizer="ibq")
        conv, weights = encoder.conv, quantizer.loss_weights
        cnn = cnn_official(encoder, config.decoder)
        side, levels = config.image_size[0], range(len(conv.channel_mult))
        whole = weights.get("quantize", 0.0)
        # Rounded: 0.05 x 0.7 / 0.05 is not 0.7.
        share = lambda k, sign: round(
            sign * weights.get(f"entropy_{k}", sign * _ENTROPY) / _ENTROPY, 9
        )
        official = {
            "ddconfig": {
                **_NETWORK,
                "z_channels": encoder.z_channels,
                "resolution": side,
                "ch": cnn["ch"],
                "ch_mult": cnn["encoder_ch_mult"],
                "num_res_blocks": cnn["num_res_blocks"],
                "attn_resolutions": [side // 2**i for i in levels if conv.attends(i)],
                "dropout": cnn["dropout_p"],
                "resamp_with_conv": cnn["resamp_with_conv"],
            },
            "n_embed": quantizer.codebook_size,
            "embed_dim": quantizer.dim,
            "beta": round(weights.get("codebook", 0.0) / (whole or 1.0), 9),
            "use_entropy_loss": any(f"entropy_{k}" in weights for k in ("sample", "batch")),
            "entropy_temperature": quantizer.entropy_temperature,
            "sample_minimization_weight": share("sample", 1),
            "batch_maximization_weight": share("batch", -1),
        }
        if whole != 1.0 and official["use_entropy_loss"]:
            lossy = {"entropy_loss_weight": _ENTROPY, "quant_loss_weight": whole}
            official["lossconfig"] = {"params": lossy}
        refuse_others(self, config, official)
        expected = whole if official["use_entropy_loss"] else 1.0
        names = ("quantize", "commitment")
        odd = {n: weights.get(n, 0.0) for n in names if weights.get(n, 0.0) != expected}
        self.refuse([f"quantizer.loss_weights.{name}={value}" for name, value in odd.items()])
        return official

    # -- keys -----------------------------------------------------------------------------------

    def entries(self, config: TokenizerConfig) -> list[Entry]:
        down, up = config.encoder.downsample, config.decoder.upsample
        table = [
            *level_entries(config.encoder.conv, "encoder", "down", ways=down == "conv"),
            *level_entries(config.decoder.conv, "decoder", "up", ways=up == "conv"),
            same("quantizer.codebook", "quantize.embedding.weight"),
        ]
        for ours, theirs in (("encoder.proj", "quant_conv"), ("decoder.embed", "post_quant_conv")):
            table.append(same(f"{ours}.weight", f"{theirs}.weight", **squeeze(2, 3)))
            table.append(same(f"{ours}.bias", f"{theirs}.bias"))
        return table

    def _release(codes: int, rfid: float | None = None, pretrain: bool = False) -> Release:
        more, size = ("-Pretrain", "IBQ_pretrain") if pretrain else ("", "imagenet256")
        return Release(
            f"ibq-{codes}{more.lower()}",
            f"TencentARC/IBQ-Tokenizer-{codes}{more}",
            f"{size}_{codes}.ckpt",
            _LICENSE,
            {**DEFAULTS, "n_embed": codes},
            rfid=rfid,
            protocol=SEED_VOKEN,
            recipe=(f"tokenizers/ibq/{codes}",),
        )

    releases = (
        _release(1024, 2.24),
        _release(8192, 1.87),
        _release(16384, 1.37),
        _release(262144, 1.00),
        _release(16384, 2.06, pretrain=True),
        _release(262144, 1.53, pretrain=True),
    )


def _arguments(official: Mapping[str, Any]) -> Mapping[str, Any]:
    """Arguments of the Lightning module of a whole YAML, or of these alone."""
    return within(official, "model", "init_args") or official
