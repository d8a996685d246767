"""IBQ's generators (arXiv 2412.02692, TencentARC/SEED-Voken): a Llama whose class also modulates.

Releases are Lightning checkpoints without a config: the generator lies under "transformer.", and
the tokenizer that it learned from under "first_stage_model.", which is carried along. The class is
the first token of the sequence, and scales, shifts and gates every block (adaLN). Settings of
sampling are the published ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from vistok.config import ConfigError, validate_part
from vistok.core.text import printable
from vistok.generators import Generator
from vistok.pretrained.base import Entry, Family, Release, flag, same, warn_of_unknown
from vistok.pretrained.generators.gpt_layout import (
    shared_blocks,
    transformer_arguments,
    transformer_tree,
    unlike,
)
from vistok.pretrained.generators.rar import swapped
from vistok.pretrained.generators.var import six_groups
from vistok.pretrained.published import IBQ_SAMPLED
from vistok.pretrained.tokenizers.titok import within

PREFIX = "transformer."
_LICENSE = "Apache-2.0 (code; weights trained on ImageNet: check the card of the hub)"
_NORM_OUT = 1e-5  # epsilon of the last norm, whatever norm_eps says
# Arguments of the network, with the defaults of its code.
_DEFAULTS: dict[str, Any] = {
    "n_layer": 12,
    "n_head": 8,
    "n_embd": 256,
    "n_kv_head": None,
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
    "alng": 1e-3,
}
_NAMES = {"n_embd": "dim", "initalizer_range": "initializer_range"}  # there, and in `gpt_layout`
# Arguments that no layer of the network reads.
_SILENT = frozenset(
    "embd_pdrop n_unmasked max_batch_size max_seq_len codebook_ckpt_path n_codebook_embd".split()
)
# Values with which alone the network runs, or that the importer knows.
_FIXED = {"cls_token_num": 1, "shared_aln": False, "use_pretrained_codebook": False}
_REASONS = {
    "cls_token_num": "a class is one token",
    "shared_aln": "the authors' code cannot run a modulation that blocks share",
    "use_pretrained_codebook": "no release has embeddings from a codebook",
}
_READ = frozenset({*_DEFAULTS, *_SILENT, *_FIXED, "vocab_size", "block_size", "cond_dim"})
# Flags of the script that samples, and our names.
_SCRIPT = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "cfg_scale": "guidance",
}
_SIZES = {"b": (1024, 16), "l": (1280, 20), "xl": (1536, 24), "xxl": (1920, 30)}  # width, blocks


def _release(size: str, gfid: float, hot: float, scale: float, alng: float = 1e-3) -> Release:
    """A release with the settings of sampling that its gFID was measured with."""
    width, depth = _SIZES[size]
    params = {
        "vocab_size": 16384,
        "block_size": 256,
        "n_layer": depth,
        "n_head": depth,
        "n_embd": width,
        "cond_dim": width,
        "resid_dropout_p": 0.1,
        "ffn_dropout_p": 0.1,
        "token_drop": 0.1,
        "drop_path_rate": 0.0,
        "alng": alng,
        "class_num": 1000,
    }
    return Release(
        f"ibq-ar-{size}",
        f"TencentARC/IBQ-AR-{size.upper()}",
        f"AR_256_{size.upper()}.ckpt",
        _LICENSE,
        {
            "model": {"init_args": {"transformer_config": {"params": params}}},
            "sampling": {"temperature": hot, "top_k": 0, "top_p": 1.0, "cfg_scale": scale},
        },
        gfid=gfid,
        sampled=IBQ_SAMPLED,
        recipe=(f"generators/ibq/{size}",),
        research_only=True,
    )


class IBQAR(Family):
    name = "ibq_ar"
    makes = "generator"
    releases = (
        _release("b", 2.88, 1.1, 2.25),
        _release("l", 2.45, 1.0, 2.0),
        _release("xl", 2.14, 1.15, 2.35, 1e-4),
        _release("xxl", 2.05, 1.2, 2.85, 1e-5),
    )
    inert = ("first_stage_model.*",)  # the tokenizer, with which the checkpoint was trained

    # -- configs --------------------------------------------------------------------------------

    def recognizes(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:
        found = {key.removeprefix(PREFIX) for key in keys}
        marks = {"head_nm.rmsnorm.weight", "head_nm.ada_lin.1.weight", "tok_emb.weight"}
        return found >= {*marks, "class_emb.embedding_table.weight"}

    def constants(self, state: Mapping[str, Tensor]) -> Mapping[str, Any] | None:
        """The config of the release of these sizes; of another size, the heads are not known."""
        if not self.recognizes({}, state):
            return None
        shape = tuple(self.unwrapped(state)[f"{PREFIX}tok_emb.weight"].shape)
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
        warn_of_unknown(self.name, params, {*_READ, "sampling"})
        given = {**_DEFAULTS, **params}
        side = self._supported(given)
        transformer = transformer_tree({_NAMES.get(k, k): value for k, value in given.items()})
        if given["norm_eps"] != _NORM_OUT:
            transformer["norm_out_eps"] = _NORM_OUT
        dropped, own = given["token_drop"], given["resid_dropout_p"]
        script = official.get("sampling") or {}
        sampling = {ours: script[theirs] for theirs, ours in _SCRIPT.items() if theirs in script}
        if "guidance" in sampling:
            sampling["guidance"] = max(1.0, sampling["guidance"])
        return {
            "kind": "autoregressive",
            "transformer": transformer,
            "condition_positions": "zero",
            "rope_base": given["rope_base"],
            "token_dropout": None if dropped == own else dropped,
            "modulated": True,
            "gate_gain": given["alng"],
            "condition": {"classes": given["class_num"], "dropout": 0.1},
            "head": "joint",
            "sampling": sampling,
            "spec": {"blocks": [[side, side]], "vocab": [given["vocab_size"]], "dim": 256},
            "tokenizer": {"name": "ibq-16384", "sha256": ""},
        }

    def _supported(self, given: Mapping[str, Any]) -> int:
        """Side of the grid; ConfigError, one line, for values that the network does not run
        with."""
        for key, value in _FIXED.items():
            found = given.get(key, value)
            if isinstance(value, bool):
                found = flag(given, key, value)
            if found != value:
                said = str(value).lower()
                raise ConfigError(f"{self.name}: {key}={found}: {_REASONS[key]}; expected {said}")
        for key in ("vocab_size", "block_size", "n_embd", "n_head"):
            value = given.get(key)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                said = "is missing" if value is None else f"is {printable(str(value))}"
                raise ConfigError(f"{self.name}: {key} {said}; expected a whole number")
        width, heads, length = given["n_embd"], given["n_head"], given["block_size"]
        if given.get("cond_dim", width) != width:
            raise ConfigError(
                f"{self.name}: cond_dim={given['cond_dim']}, n_embd={width}: the class' embedding "
                "modulates; expected the same width"
            )
        side = math.isqrt(length)
        if side * side != length:
            raise ConfigError(f"{self.name}: block_size={length}: expected a square")
        if width % (4 * heads):
            raise ConfigError(
                f"{self.name}: n_embd={width}, n_head={heads}: rotary positions of two axes need a "
                "width of heads that four divides"
            )
        return side

    def official(self, config: Generator) -> dict[str, Any]:
        """The official config of a generator that was trained here.

        ConfigError for what the official layout has no place for.
        """
        own, spec, vocab = config.config, config.spec, config.inner.vocab
        if own.kind != "autoregressive" or len(vocab) != 1 or not own.modulated:
            raise ConfigError(
                f"{self.name}: kind={own.kind} over vocabulary {vocab} has no place in the "
                "official layout; expected kind=autoregressive with modulated=true and one factor"
            )
        transformer, sampling = own.transformer, own.sampling
        theirs = {ours: name for name, ours in _NAMES.items()}
        arguments = transformer_arguments(transformer)
        params = {
            "vocab_size": vocab[0],
            "block_size": spec.length,
            **{theirs.get(key, key): value for key, value in arguments.items()},
            "cond_dim": transformer.width,
            "token_drop": transformer.dropout if own.token_dropout is None else own.token_dropout,
            "class_num": own.condition.classes or 0,
            "rope_base": own.rope_base,
            "alng": _DEFAULTS["alng"] if own.gate_gain is None else own.gate_gain,
        }
        tree = {
            "model": {"init_args": {"transformer_config": {"params": params}}},
            "sampling": {theirs: getattr(sampling, name) for theirs, name in _SCRIPT.items()},
        }
        self._check(config, self.config(tree))
        return tree

    def _check(self, config: Generator, again: Mapping[str, Any]) -> None:
        """ConfigError for what the way there and back would change of the network."""
        own = config.config
        tree = {key: again[key] for key in again if key not in ("spec", "tokenizer")}
        theirs = validate_part("generator", tree, self.name)
        wrong = unlike(own.transformer, again["transformer"])
        for key in ("embed", "positions", "condition_positions", "window", "regroup"):
            if getattr(own, key) != getattr(theirs, key):
                wrong.append(f"{key}={getattr(own, key)}")
        if own.head not in (None, "joint"):
            wrong.append(f"head={own.head}")
        given = own.condition.model_dump()
        wrong += [f"condition.{key}={given[key]}" for key in ("text", "pooled") if given[key]]
        if [list(block) for block in config.spec.blocks] != again["spec"]["blocks"]:
            wrong.append(f"tokens of blocks={config.spec.blocks}")
        self.refuse(wrong)

    # -- keys -----------------------------------------------------------------------------------

    def entries(self, config: Generator) -> list[Entry]:
        depth = config.config.transformer.depth
        table = [
            same("condition.label.weight", "class_emb.embedding_table.weight"),
            same("embed.0.weight", "tok_emb.weight"),
            same("transformer.norm.weight", "head_nm.rmsnorm.weight"),
            same("head.out.weight", "head.weight"),
            *shared_blocks(depth, "blocks"),
        ]
        for kind in ("weight", "bias"):
            ours, theirs = f"modulation_head.proj.{kind}", f"head_nm.ada_lin.1.{kind}"
            table.append(same(ours, theirs, load=swapped, save=lambda tensor: (swapped(tensor),)))
        for i in range(depth):
            ours = f"transformer.blocks.{i}.modulation.proj"
            table += six_groups(ours, f"blocks.{i}.ada_lin.1")
        named = lambda one: tuple(f"{PREFIX}{key}" for key in one.theirs)
        return [Entry(one.ours, named(one), one.load, one.save) for one in table]
