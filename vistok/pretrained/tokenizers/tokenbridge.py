"""TokenBridge's tokenizer (arXiv 2503.16430): KL-16 as it is, 64 levels for each of its numbers.

Its file is KL-16's own; the quantizer follows from constants of the official scripts. Those sample
the posterior wherever they quantize; here training does so, and `encode` takes the mean. Levels are
computed as the official code does, in fp32, with 0 for bins beyond `std_range`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from vistok.config import ConfigError
from vistok.pretrained.base import Release
from vistok.pretrained.published import TOKENBRIDGE
from vistok.pretrained.tokenizers import mar
from vistok.pretrained.tokenizers.mar import FILE, HUB, LICENSE, MARVAE
from vistok.pretrained.tokenizers.seed_voken import number, require_kinds
from vistok.tokenizer import TokenizerConfig

DEFAULTS: dict[str, Any] = {
    **mar.DEFAULTS,
    "bits": 6,
    "range": 5.0,
    "std_range": 3.0,
    "latent_scale": 0.2325,
}
# The names that the generator's script has for the first two.
_OTHER = ("quant_bits", "quant_min", "quant_max")
_MOST = 16
_AS_THERE = {"empty_bins": "zero", "computed_in": "fp32"}


_ENDS = (("min", -1), ("max", 1))


class TokenBridge(MARVAE):
    name = "tokenbridge"
    known = frozenset((*DEFAULTS, *_OTHER))

    def recognizes(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:
        return bool({"bits", "quant_bits"} & set(config)) and super().recognizes(config, keys)

    def constants(self, state: Mapping[str, Tensor]) -> Mapping[str, Any] | None:
        return None  # a bare file is KL-16

    def config(self, official: Mapping[str, Any]) -> dict[str, Any]:
        tree = super().config(official)
        given = {**DEFAULTS, **official}
        bits = given.get("quant_bits", given["bits"])
        if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= _MOST:
            raise ConfigError(
                f"{self.name}: bits={bits!r}; expected 1..{_MOST}, bits of each number (below 0 "
                "the official code leaves latents as they are: that is family mar_vae)"
            )
        reach = number(self.name, given, "range", 5.0)
        ends = [number(self.name, given, f"quant_{end}", s * reach) for end, s in _ENDS]
        scalar = {
            "kind": "scalar",
            "dim": given["embed_dim"],
            "levels": 2**bits,
            "range": ends,
            "std_range": number(self.name, given, "std_range", 3.0),
            **_AS_THERE,
        }
        tree["quantizer"] = {
            "kind": "post_training",
            "reads": tree["quantizer"],
            "sample": True,
            "normalize": "given",
            "scale": number(self.name, given, "latent_scale", 0.2325),
            "quantizer": scalar,
        }
        return tree

    def official(self, config: TokenizerConfig) -> dict[str, Any]:
        require_kinds(self.name, config, encoder="cnn", quantizer="post_training")
        own = config.quantizer
        kinds = own.reads.kind, own.quantizer.kind
        if kinds != ("kl", "scalar"):
            raise ConfigError(
                f"{self.name}: quantizer reads {kinds[0]} and has codes of {kinds[1]}; expected kl "
                "and scalar"
            )
        scalar, bits = own.quantizer, own.quantizer.levels.bit_length() - 1
        odd = {
            "normalize": (own.normalize, "given"),
            "shift": (own.shift, 0.0),
            "quantizer.levels": (scalar.levels, 2**bits),
            **{f"quantizer.{k}": (getattr(scalar, k), v) for k, v in _AS_THERE.items()},
        }
        self.refuse([f"quantizer.{k}={mine}" for k, (mine, v) in odd.items() if mine != v])
        plain = config.model_copy(update={"quantizer": own.reads})
        low, high = scalar.range
        reach = {"range": high} if low == -high else {"quant_min": low, "quant_max": high}
        return {
            **MARVAE().network(plain, own.reads),
            "bits": bits,
            **reach,
            "std_range": scalar.std_range,
            "latent_scale": own.scale,
        }

    releases = (
        Release(
            "tokenbridge",
            HUB,
            FILE,
            LICENSE,
            dict(DEFAULTS),
            rfid=0.53,
            protocol=TOKENBRIDGE,
            recipe=("tokenizers/mar/kl16", "jobs/quantize/tokenbridge"),
        ),
    )
