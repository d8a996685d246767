"""Open-MAGVIT2's generators (arXiv 2409.04410, TencentARC/SEED-Voken) of codes of 18 bits.

Releases are Lightning checkpoints without a config: the generator lies under "transformer.", and
the tokenizer that it learned from under "first_stage_model.", which is carried along. A code is two
sub-tokens, of its first 6 bits and of its other 12. Settings of sampling are those of the released
script, one number per sub-token.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from vistok.config import ConfigError, validate_part
from vistok.generators import Generator
from vistok.layers.transformer import TransformerConfig
from vistok.pretrained.base import Entry, Family, Release, flag, same, warn_of_unknown
from vistok.pretrained.published import OPEN_MAGVIT2_SAMPLED
from vistok.pretrained.tokenizers.titok import within

PREFIX = "transformer."
_WEIGHTS = "Apache-2.0 (code; weights trained on ImageNet: check the card of the hub)"
_BITS = (6, 12)
_SIZES = {  # width, blocks over positions, blocks over sub-tokens, heads
    "b": (1024, 24, 2, 16),
    "l": (1280, 36, 3, 20),
    "xl": (1536, 48, 4, 24),
}
# Arguments of the network, with the defaults of its code.
_DEFAULTS: dict[str, Any] = {
    "spatial_n_layer": 12,
    "factorized_n_layer": 2,
    "n_head": 8,
    "n_kv_head": None,
    "dim": 256,
    "resid_dropout_p": 0.0,
    "attn_dropout_p": 0.0,
    "ffn_dropout_p": 0.1,
    "token_drop": 0.1,
    "drop_path_rate": 0.0,
    "class_num": 1000,
    "rope_base": 10000,
    "norm_eps": 1e-5,
    "ffn_dim_multiplier": None,
    "initalizer_range": 0.02,  # spelled so
    "multiple_of": 256,
    "factorized_bits": (9, 9),
}
# Arguments that no layer of the network reads.
_SILENT = frozenset("vocab_size cond_dim embd_pdrop n_unmasked max_batch_size max_seq_len".split())
# Arguments of which the network runs with one value, or the importer knows only one.
_FIXED = {"factorized_k": 2, "cls_token_num": 1}
_READ = frozenset({*_DEFAULTS, *_SILENT, *_FIXED, "block_size", "token_factorization", "sampling"})
# Flags of the script that samples, and our names.
_SCRIPT = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "cfg_scale": "guidance",
}
# Of a transformer: how it starts and trains, and what is compared by the width that it makes.
_NO_LAYOUT = {
    *("init", "init_std", "branch_scale", "dropout", "mlp_out_dropout", "mlp_dropout"),
    *("mlp_ratio", "mlp_hidden", "mlp_multiple"),
}


def _release(size: str, gfid: float, hot: float, scales: tuple[float, float]) -> Release:
    """A release with the sampling settings of the released script."""
    width, depth, inner, heads = _SIZES[size]
    config = {
        "model": {
            "init_args": {
                "token_factorization": True,
                "transformer_config": {
                    "params": {
                        "vocab_size": 512,
                        "block_size": 256,
                        "spatial_n_layer": depth,
                        "factorized_n_layer": inner,
                        "factorized_bits": list(_BITS),
                        "n_head": heads,
                        "dim": width,
                        "cond_dim": width,
                        "token_drop": 0.1,
                        "resid_dropout_p": 0.1,
                        "token_factorization": True,
                        "class_num": 1000,
                    }
                },
            }
        },
        "sampling": {
            "temperature": [hot, 1.0],
            "top_k": [0, 0],
            "top_p": [1.0, 1.0],
            "cfg_scale": list(scales),
        },
    }
    return Release(
        f"open-magvit2-ar-{size}",
        f"TencentARC/Open-MAGVIT2-AR-{size.upper()}-256-resolution",
        f"AR_256_{size.upper()}.ckpt",
        _WEIGHTS,
        config,
        gfid=gfid,
        sampled=OPEN_MAGVIT2_SAMPLED,
        recipe=(f"generators/open_magvit2/{size}",),
        research_only=True,
    )


class OpenMAGVIT2AR(Family):
    name = "open_magvit2_ar"
    makes = "generator"
    releases = (
        _release("b", 3.08, 1.0, (1.9, 2.0)),
        _release("l", 2.51, 1.1, (1.9, 1.9)),
        _release("xl", 2.33, 1.1, (1.75, 1.85)),
    )
    inert = ("first_stage_model.*",)  # the tokenizer, with which the checkpoint was trained

    # -- configs --------------------------------------------------------------------------------

    def recognizes(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:
        found = {key.removeprefix(PREFIX) for key in keys}
        return found >= {"pre_emb.weight", "post_emb.weight", "head.1.weight"}

    def constants(self, state: Mapping[str, Tensor]) -> Mapping[str, Any] | None:
        """The config of the release of these sizes; of another size, the heads are not known."""
        if not self.recognizes({}, state):
            return None
        shape = self.unwrapped(state)[f"{PREFIX}pre_emb.weight"].shape
        widths = [sizes[0] for sizes in _SIZES.values()]
        if len(shape) != 2 or shape[1] not in widths:
            return None
        return self.releases[widths.index(shape[1])].config

    def unwrapped(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The state dict of the whole checkpoint; that of the network alone gets its prefix."""
        if any(key.startswith(PREFIX) for key in state):
            return state
        return {f"{PREFIX}{key}": tensor for key, tensor in state.items()}

    def config(self, official: Mapping[str, Any]) -> dict[str, Any]:
        params = within(official, "model", "init_args", "transformer_config", "params")
        params = official if params is None else params
        warn_of_unknown(self.name, params, _READ)
        given = {**_DEFAULTS, **params}
        self._supported(given)
        bits, width = given["factorized_bits"], given["dim"]
        side = math.isqrt(given["block_size"])
        return {
            "kind": "autoregressive",
            "transformer": {
                "width": width,
                "depth": given["spatial_n_layer"],
                "heads": given["n_head"],
                "kv_heads": _unlike(given["n_kv_head"], given["n_head"]),
                "mlp": "swiglu",
                **_feed_forward(given),
                "norm": "rmsnorm",
                "norm_eps": given["norm_eps"],
                "bias": False,
                "dropout": given["resid_dropout_p"],
                "mlp_out_dropout": _unlike(given["ffn_dropout_p"], given["resid_dropout_p"]),
                "attention_dropout": given["attn_dropout_p"],
                "drop_path": given["drop_path_rate"],
                "init": "normal",
                "init_std": given["initalizer_range"],
                "branch_scale": "none",
            },
            "condition_positions": "zero",
            "rope_base": given["rope_base"],
            "token_dropout": _unlike(given["token_drop"], given["resid_dropout_p"]),
            "condition": {"classes": given["class_num"], "dropout": 0.1},
            "head": "intra",
            "intra": {
                "depth": given["factorized_n_layer"],
                "embed": "shared",
                "positions": "shared_rope",
                "context_norm": False,
            },
            "regroup": [2**count for count in bits],
            "sampling": _sampling(official.get("sampling")),
            "spec": {"blocks": [[side, side]], "vocab": [2 ** sum(bits)], "dim": sum(bits)},
            "tokenizer": {"name": "open-magvit2-256-l", "sha256": ""},
        }

    def _supported(self, given: Mapping[str, Any]) -> None:
        """ConfigError, one line, for values that the network does not run with."""
        if not flag(given, "token_factorization", False):
            raise ConfigError(
                f"{self.name}: token_factorization=false: the original has no network for it; "
                "expected true"
            )
        for key, value in _FIXED.items():
            if given.get(key, value) != value:
                raise ConfigError(f"{self.name}: {key}={given[key]}: expected {value}")
        if len(given["factorized_bits"]) != 2:
            raise ConfigError(
                f"{self.name}: factorized_bits={given['factorized_bits']}: expected the bits of "
                "two sub-tokens, such as [6, 12]"
            )
        length, heads = given["block_size"], given["n_head"]
        if math.isqrt(length) ** 2 != length:
            raise ConfigError(f"{self.name}: block_size={length}: expected a square")
        if given["dim"] % (4 * heads):
            raise ConfigError(
                f"{self.name}: dim={given['dim']}, n_head={heads}: rotary positions of two axes "
                "need a width of heads that four divides"
            )

    def official(self, config: Generator) -> dict[str, Any]:
        """The official config of a generator that was trained here.

        ConfigError for what the official layout has no place for.
        """
        own, spec = config.config, config.spec
        vocab = config.inner.vocab
        bits = [size.bit_length() - 1 for size in vocab]
        if own.kind != "autoregressive" or len(vocab) != 2 or vocab != tuple(2**b for b in bits):
            raise ConfigError(
                f"{self.name}: kind={own.kind} over vocabulary {vocab} has no place in the "
                "official layout; expected kind=autoregressive and two factors, powers of two"
            )
        transformer, sampling = own.transformer, own.sampling
        params = {
            "vocab_size": 512,
            "block_size": spec.length,
            "spatial_n_layer": transformer.depth,
            "factorized_n_layer": own.intra.depth,
            "factorized_bits": bits,
            "n_head": transformer.heads,
            "n_kv_head": transformer.kv_heads,
            "dim": transformer.width,
            "cond_dim": transformer.width,
            "token_drop": _either(own.token_dropout, transformer.dropout),
            "resid_dropout_p": transformer.dropout,
            "ffn_dropout_p": _either(transformer.mlp_out_dropout, transformer.dropout),
            "attn_dropout_p": transformer.attention_dropout,
            "drop_path_rate": transformer.drop_path,
            "class_num": own.condition.classes or 0,
            "rope_base": own.rope_base,
            "norm_eps": transformer.norm_eps,
            "initalizer_range": transformer.init_std,
            "token_factorization": True,
            **_official_feed_forward(transformer),
        }
        tree = {
            "model": {
                "init_args": {
                    "token_factorization": True,
                    "transformer_config": {"params": params},
                }
            },
            "sampling": {
                theirs: _both(getattr(sampling, name)) for theirs, name in _SCRIPT.items()
            },
        }
        self._check(config, self.config(tree))
        return tree

    def _check(self, config: Generator, again: Mapping[str, Any]) -> None:
        """ConfigError for what the way there and back would change of the network."""
        own, spec = config.config, config.spec
        mine, inner = own.transformer, own.intra
        tree = {key: again[key] for key in again if key not in ("spec", "tokenizer")}
        theirs = validate_part("generator", tree, self.name)
        wrong = [
            f"transformer.{key}={value}"
            for key, value in mine.model_dump().items()
            if key not in _NO_LAYOUT and getattr(theirs.transformer, key) != value
        ]
        if inner.width not in (None, mine.width) or inner.heads not in (None, mine.heads):
            wrong.append(f"intra.width={inner.width}, intra.heads={inner.heads}")
        for key in ("embed", "positions", "context_norm"):
            if getattr(inner, key) != getattr(theirs.intra, key):
                wrong.append(f"intra.{key}={getattr(inner, key)}")
        for key in ("head", "embed", "positions", "condition_positions"):
            if getattr(own, key) != getattr(theirs, key):
                wrong.append(f"{key}={getattr(own, key)}")
        given = own.condition.model_dump()
        wrong += [f"condition.{key}={given[key]}" for key in ("text", "pooled") if given[key]]
        if [list(block) for block in spec.blocks] != again["spec"]["blocks"]:
            wrong.append(f"tokens of blocks={spec.blocks}")
        self.refuse(wrong)

    # -- keys -----------------------------------------------------------------------------------

    def entries(self, config: Generator) -> list[Entry]:
        table = [
            same("condition.label.weight", "class_emb.embedding_table.weight"),
            same("embed.0.weight", "pre_emb.weight"),
            same("embed.1.weight", "post_emb.weight"),
            same("head.transformer.norm.weight", "norm.weight"),
            same("head.out.0.weight", "head.0.weight"),
            same("head.out.1.weight", "head.1.weight"),
        ]
        names = {
            "norm_attention": "attention_norm",
            "attention.qkv": "attention.wqkv",
            "attention.out": "attention.wo",
            "norm_mlp": "ffn_norm",
            "mlp.gate": "feed_forward.w1",
            "mlp.up": "feed_forward.w3",
            "mlp.out": "feed_forward.w2",
        }
        own = config.config
        stacks = (
            ("transformer", "spatial_blocks", own.transformer.depth),
            ("head.transformer", "factorized_blocks", own.intra.depth),
        )
        for ours, theirs, depth in stacks:
            for i in range(depth):
                table += [
                    same(f"{ours}.blocks.{i}.{a}.weight", f"{theirs}.{i}.{b}.weight")
                    for a, b in names.items()
                ]
        return [Entry(one.ours, tuple(f"{PREFIX}{key}" for key in one.theirs)) for one in table]


def _feed_forward(given: Mapping[str, Any]) -> dict[str, Any]:
    """Hidden width of the gated layers, as the official code computes it."""
    width, multiplier = given["dim"], given["ffn_dim_multiplier"]
    if multiplier is None:
        found = {"mlp_ratio": 4.0, "mlp_hidden": "two_thirds"}
    else:
        hidden = int(multiplier * int(2 * 4 * width / 3))
        found = {"mlp_ratio": hidden / width, "mlp_hidden": "round"}
    return {**found, "mlp_multiple": given["multiple_of"]}


def _official_feed_forward(transformer: TransformerConfig) -> dict[str, Any]:
    if transformer.mlp_ratio == 4.0 and transformer.mlp_hidden == "two_thirds":
        return {"multiple_of": transformer.mlp_multiple}
    # Half a channel more: the official code rounds down.
    usual = int(2 * 4 * transformer.width / 3)
    return {"multiple_of": 1, "ffn_dim_multiplier": (transformer.hidden + 0.5) / usual}


def _sampling(script: Mapping[str, Any] | None) -> dict[str, Any]:
    """Settings of sampling, of the flags of the official script; without any, none."""
    found = {}
    for theirs, ours in _SCRIPT.items():
        values = None if script is None else script.get(theirs)
        if values is None:
            continue
        values = list(values) if isinstance(values, list | tuple) else [values]
        if theirs == "cfg_scale":  # the script takes scales up to 1 as no guidance
            values = [max(1.0, value) for value in values]
        found[ours] = values[0] if len(set(values)) == 1 else values
    return found


def _unlike(value: Any, other: Any) -> Any:
    """None for a value that the other one stands for anyway."""
    return None if value == other else value


def _either(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _both(value: Any) -> list[Any]:
    """A setting of each sub-token."""
    return list(value) if isinstance(value, tuple) else [value, value]
