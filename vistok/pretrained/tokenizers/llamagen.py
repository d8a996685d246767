"""LlamaGen's 2D tokenizers VQ-16 and VQ-8 (arXiv 2406.06525, FoundationVision/LlamaGen).

Weights came without a config: the constants stand in the official source. A given config may carry
any of them, under the names of the official arguments, or be the trainer's own (`args` beside the
weights, whose `vq_model` is VQ-16 or VQ-8). Images of every size that the levels divide can be
read; the releases were trained at 256.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from vistok.config import ConfigError
from vistok.pretrained.base import (
    Entry,
    Family,
    Release,
    flag,
    own,
    same,
    squeeze,
    warn_of_unknown,
)
from vistok.pretrained.published import LLAMAGEN, LLAMAGEN_384
from vistok.pretrained.tokenizers.taming import (
    cnn_official,
    cnn_trees,
    decoder_entries,
    encoder_entries,
)
from vistok.tokenizer import TokenizerConfig

VQ_16, VQ_8 = [1, 1, 2, 2, 4], [1, 2, 2, 4]
_LICENSE = "MIT (code; weights without a text of their own, trained on ImageNet: research purposes)"
_NETWORK = frozenset(
    "ch ch_mult encoder_ch_mult decoder_ch_mult num_res_blocks z_channels dropout_p norm_groups "
    "norm_eps resamp_with_conv norm_type use_attn".split()
)
_QUANTIZER = frozenset(
    "codebook_size codebook_embed_dim codebook_l2_norm codebook_show_usage commit_loss_beta "
    "entropy_loss_ratio".split()
)


class LlamaGen(Family):
    name = "llamagen"
    inert = ("quantize.codebook_used",)

    def recognizes(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:
        marks = {"encoder.conv_blocks.0.res.0.conv1.weight", "quant_conv.weight"}
        said = not config or bool((_NETWORK | _QUANTIZER | {"vq_model"}) & set(config))
        return said and marks | {"post_quant_conv.weight", "quantize.embedding.weight"} <= set(keys)

    def constants(self, state: Mapping[str, Tensor]) -> Mapping[str, Any] | None:
        if not self.recognizes({}, state):
            return None
        levels = {key.split(".")[2] for key in state if key.startswith("encoder.conv_blocks.")}
        known = (release.config for release in self.releases)
        return next((c for c in known if len(c["encoder_ch_mult"]) == len(levels)), None)

    def config(self, official: Mapping[str, Any]) -> dict[str, Any]:
        known = _NETWORK | _QUANTIZER | {"image_size"}
        if "vq_model" in official:  # the trainer's arguments, most of which are no model's
            mult = _named_mult(official["vq_model"])
            official = {key: official[key] for key in known & set(official)}
            official |= {"encoder_ch_mult": mult, "decoder_ch_mult": mult}
        warn_of_unknown(self.name, official, known)
        encoder, decoder = cnn_trees(self.name, official)
        z = z_channels(self.name, official)
        return {
            "image_size": official.get("image_size", 256),
            "encoder": encoder | {"z_channels": z},
            "quantizer": quantizer_tree(official, "straight_through"),
            "decoder": decoder | {"z_channels": z},
        }

    def official(self, config: TokenizerConfig) -> dict[str, Any]:
        official = {
            "image_size": config.image_size[0],
            "z_channels": config.encoder.z_channels,
            **quantizer_official(config.quantizer),
            **cnn_official(config.encoder, config.decoder),
        }
        refuse_others(self, config, official)
        return official

    def entries(self, config: TokenizerConfig) -> list[Entry]:
        return [
            *encoder_entries(config.encoder, "encoder", "encoder"),
            *pointwise("encoder.proj", "quant_conv"),
            *codebook_entries(),
            *pointwise("decoder.embed", "post_quant_conv"),
            *decoder_entries(config.decoder, "decoder", "decoder"),
        ]

    def _release(
        file: str, hub: str, mult: list[int], *recipe: str, size: int = 256, **figures: float
    ) -> Release:
        """A file as the tokenizer of images of `size` pixels; the weights serve any size."""
        config = {"encoder_ch_mult": mult, "decoder_ch_mult": mult}
        config |= {} if size == 256 else {"image_size": size}
        return Release(
            file if size == 256 else f"{file}_{size}", hub, f"{file}.pt", _LICENSE, config,
            research_only=True, protocol=LLAMAGEN_384 if size == 384 else LLAMAGEN,
            recipe=tuple(f"tokenizers/llamagen/{name}" for name in recipe), **figures,
        )  # fmt: skip

    _C2I, _T2I = "FoundationVision/LlamaGen", "peizesun/llamagen_t2i"
    # gFID: of the best generator on these tokens, guided.
    releases = (
        _release("vq_ds16_c2i", _C2I, VQ_16, "vq16", rfid=2.19, gfid=3.80),
        _release("vq_ds8_c2i", _C2I, VQ_8, "vq8", rfid=0.59),
        _release("vq_ds16_t2i", _T2I, VQ_16, "vq16", "vq16_t2i"),
        _release("vq_ds16_c2i", _C2I, VQ_16, "vq16_384", size=384, rfid=0.94, gfid=2.18),
        _release("vq_ds16_t2i", _T2I, VQ_16, "vq16_t2i_512", size=512),
    )


def _named_mult(name: Any) -> list[int]:
    """Widths of the levels of a model that the trainer names."""
    known = {"VQ-16": VQ_16, "VQ-8": VQ_8}
    if name not in tuple(known):
        raise ConfigError(f"llamagen: vq_model={name!r}; expected one of {', '.join(known)}")
    return known[name]


# -- shared with ReTok, whose quantizer and keys are LlamaGen's ------------------------------------


def z_channels(family: str, official: Mapping[str, Any]) -> int:
    """Channels between the CNNs and the quantizer; ConfigError for other than a number."""
    value = official.get("z_channels", 256)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigError(f"{family}: z_channels={value!r}; expected a whole number of channels")
    return value


def quantizer_tree(official: Mapping[str, Any], gradient: str) -> dict[str, Any]:
    """The quantizer of an official config."""
    flag(official, "codebook_show_usage", True)  # a counter that nothing reads
    weights = {"codebook": 1.0, "commitment": official.get("commit_loss_beta", 0.25)}
    ratio = official.get("entropy_loss_ratio", 0.0)
    if ratio:
        weights |= {"entropy_sample": ratio, "entropy_batch": -ratio}
    l2_norm = flag(official, "codebook_l2_norm", True)
    return {
        "kind": "vq",
        "codebook_size": official.get("codebook_size", 16384),
        "dim": official.get("codebook_embed_dim", 8),
        "l2_norm": l2_norm,
        "gradient": gradient,
        "init": "sphere" if l2_norm else "uniform",
        "loss_weights": weights,
    }


def quantizer_official(quantizer: Any) -> dict[str, Any]:
    """The inverse of `quantizer_tree`."""
    weights = quantizer.loss_weights
    return {
        "codebook_size": quantizer.codebook_size,
        "codebook_embed_dim": quantizer.dim,
        "codebook_l2_norm": quantizer.l2_norm,
        "commit_loss_beta": weights.get("commitment", 0.0),
        "entropy_loss_ratio": weights.get("entropy_sample", 0.0),
    }


def codebook_entries() -> list[Entry]:
    return [
        same("quantizer.codebook", "quantize.embedding.weight"),
        *own("quantizer.usage", "quantizer.filled"),
    ]


def pointwise(ours: str, theirs: str) -> list[Entry]:
    """A linear layer of ours that is a 1x1 convolution there."""
    return [
        same(f"{ours}.weight", f"{theirs}.weight", **squeeze(2, 3)),
        same(f"{ours}.bias", f"{theirs}.bias"),
    ]


def refuse_others(family: Family, config: TokenizerConfig, official: Mapping[str, Any]) -> None:
    """ConfigError unless the official config says all that matters to the weights' meaning."""
    again = TokenizerConfig.model_validate(family.config(official))
    for part in ("image_size", "input_space", "output_space", "encoder", "decoder"):
        mine, said = getattr(config, part), getattr(again, part)
        if mine == said:
            continue
        if part != "image_size":
            names = (n for n in type(mine).model_fields if getattr(mine, n) != getattr(said, n, 0))
            name = next(names, "kind")
            part, mine, said = f"{part}.{name}", getattr(mine, name), getattr(said, name, None)
        raise ConfigError(
            f"{family.name}: {part}={mine!r} has no place in the official layout; expected {said!r}"
        )
