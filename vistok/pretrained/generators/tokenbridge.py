"""TokenBridge's generators (arXiv 2503.16430, YuqingWang1029/TokenBridge) of tokens of 16 scalars.

Releases are checkpoints without a config: "model" and, of its parameters alone, "model_ema", which
is what was evaluated. Their sizes stand in the command line, as the settings of sampling do; both
the command line's names and those of the network's arguments are read. Levels of the quantizer,
which a state dict of "model" holds, follow from the config; they are compared with it, and an
export gives them back as they came.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from vistok.config import ConfigError, validate_part
from vistok.generators import Generator
from vistok.pretrained.base import Entry, Family, Release, changed, own, pair, same, warn_of_unknown
from vistok.pretrained.generators.tokenbridge_config import (
    DEFAULTS,
    READ,
    SAMPLING,
    SIZES,
    buffers_of,
    given_of,
    range_of,
    scalar_of,
    sizes,
    transformer,
    values_of,
)
from vistok.pretrained.published import TOKENBRIDGE_SAMPLED

_MARKS = frozenset("z_proj_ln condition_proj channel_blocks token_embeddings channel_heads".split())
_BUFFERS = ("reconstruction_values", "boundaries", "channel_mask")
# Of a transformer: how it starts and trains, and what is compared by the width that it makes.
_NO_LAYOUT = {"init", "init_std", "branch_scale", "dropout", "attention_dropout", "mlp_dropout"}
_NO_LAYOUT |= {"mlp_out_dropout", "mlp_ratio", "mlp_hidden", "mlp_multiple"}


def _release(size: str, gfid: float, scale: float, temperature: float) -> Release:
    """A release with the sampling settings of the authors' command."""
    config = {
        "model": f"tokenbridge_{size}",
        "img_size": 256,
        "vae_stride": 16,
        "vae_embed_dim": 16,
        "patch_size": 1,
        "quant_bits": 6,
        "quant_min": -5.0,
        "quant_max": 5.0,
        "class_num": 1000,
        "buffer_size": 64,
        "num_iter": 256,
        "cfg": scale,
        "cfg_schedule": "linear",
        "temperature": temperature,
    }
    return Release(
        f"tokenbridge-{size[0]}",
        "Epiphqny/TokenBridge",
        # As the authors' commands name it; the hub's own tree was not looked at.
        f"tokenbridge/tokenbridge_{size}/checkpoint-last.pth",
        "MIT (code and weights)",
        config,
        gfid=gfid,
        sampled=TOKENBRIDGE_SAMPLED,
        recipe=(f"generators/tokenbridge/{size[0]}",),
    )


class TokenBridgeAR(Family):
    name = "tokenbridge_ar"
    makes = "generator"
    releases = (_release("large", 1.76, 3.1, 0.96), _release("huge", 1.55, 3.45, 0.91))
    inert = _BUFFERS  # averaged weights come without them; `observed` looks at them

    # -- configs --------------------------------------------------------------------------------

    def recognizes(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:
        return {key.split(".")[0] for key in keys} >= _MARKS

    def constants(self, state: Mapping[str, Tensor]) -> Mapping[str, Any] | None:
        """The config of the release of these sizes; of others, heads and settings are not known."""
        if not self.recognizes({}, state):
            return None
        shape = state["z_proj.weight"].shape if "z_proj.weight" in state else ()
        known = [r.config for r in self.releases if SIZES[r.config["model"]][0] in shape[:1]]
        return known[0] if known else None

    def observed(
        self, official: Mapping[str, Any], state: Mapping[str, Tensor]
    ) -> Mapping[str, Any]:
        """The same; ConfigError for constants that are not those which the config makes."""
        given = given_of(official)
        self._supported(given)
        expected = buffers_of(scalar_of(given))
        for name in (name for name in _BUFFERS if name in state):
            found, wanted = state[name].float(), expected[name]
            if found.shape != wanted.shape or not torch.allclose(found, wanted, 1e-4, 1e-5):
                raise ConfigError(
                    f"{name} has shape {tuple(found.shape)} and not the numbers that quant_levels, "
                    f"quant_bits and std_range make, in shape {tuple(wanted.shape)}; expected "
                    "weights of this config"
                )
        return official

    def config(self, official: Mapping[str, Any]) -> dict[str, Any]:
        warn_of_unknown(self.name, official, READ)
        given = given_of(official)
        self._supported(given)
        side = given["img_size"] // given["vae_stride"]
        scalar = scalar_of(given)
        settings = {
            ours: next((official[key] for key in (first, second) if key in official), default)
            for ours, (first, second, default) in SAMPLING.items()
        }
        if settings["guidance_schedule"] != "linear":  # all others are constant to the sampler
            settings["guidance_schedule"] = "constant"
        return {
            "kind": "masked_autoregressive",
            "encoder": transformer(
                given, "encoder_embed_dim", "encoder_depth", "encoder_num_heads"
            ),
            "decoder": transformer(
                given, "decoder_embed_dim", "decoder_depth", "decoder_num_heads"
            ),
            "norm_in_eps": 1e-6,
            "slots": given["buffer_size"],
            "head": {
                "kind": "dimensions",
                "transformer": {
                    **transformer(given, "channel_embed_dim", "channel_depth", "channel_heads"),
                    "qk_norm": True,
                    "qk_norm_kind": "layernorm",
                },
                "order": list(given["channel_order"]),
                "embedding_std": 1.0,
                "sampled_start": "with_step",
            },
            "embed": "values",
            "quantizer": scalar.model_dump(mode="json"),
            "masks": {
                "mean": 1.0,
                "std": 0.25,
                "low": given["mask_ratio_min"],
                "high": 1.0,
                "per": "batch",
            },
            "condition": {"classes": given["class_num"], "dropout": given["label_drop_prob"]},
            "sampling": settings,
            "spec": {
                "blocks": [[side, side]],
                "vocab": [scalar.levels] * scalar.dim,
                "dim": scalar.dim,
            },
            "tokenizer": {"name": "tokenbridge", "sha256": ""},
        }

    def _supported(self, given: Mapping[str, Any]) -> None:
        """ConfigError, one line, for values that the network does not run with."""
        channels, order = given["vae_embed_dim"], given["channel_order"]
        if given["patch_size"] != 1:
            raise ConfigError(
                f"{self.name}: patch_size={given['patch_size']}: the original predicts the "
                "dimensions of one latent per token and cannot sample others; expected 1"
            )
        if channels != len(order):
            raise ConfigError(
                f"{self.name}: vae_embed_dim={channels}: the original's order of channels has "
                f"{len(order)}; expected {len(order)}, or channel_order with {channels} numbers"
            )
        if given["buffer_size"] < 1:
            raise ConfigError(
                f"{self.name}: buffer_size={given['buffer_size']}: nothing would hold the class; "
                "expected 1 or more"
            )
        if given["img_size"] < given["vae_stride"]:
            raise ConfigError(
                f"{self.name}: img_size={given['img_size']}, vae_stride={given['vae_stride']}: "
                "expected one token or more"
            )

    def official(self, config: Generator) -> dict[str, Any]:
        """The official config of a generator that was trained here.

        ConfigError for what the official layout has no place for.
        """
        own, spec = config.config, config.spec
        levels = spec.vocab[0] if spec.vocab else 0
        fits = own.kind == "masked_autoregressive" and spec.vocab == (levels,) * spec.dim
        if not fits or len(spec.blocks) != 1 or len(set(spec.blocks[0])) != 1:
            raise ConfigError(
                f"{self.name}: kind={own.kind} over tokens of blocks={spec.blocks}, "
                f"vocab={spec.vocab} has no place in the official layout; expected "
                "kind=masked_autoregressive, one square grid and as many levels of each dimension"
            )
        encoder, head = own.encoder, own.head.transformer
        tree = {
            "img_size": 16 * spec.blocks[0][0],
            "vae_stride": 16,
            "patch_size": 1,
            **sizes("encoder_embed_dim", "encoder_depth", "encoder_num_heads", encoder),
            **sizes("decoder_embed_dim", "decoder_depth", "decoder_num_heads", own.decoder),
            **sizes("channel_embed_dim", "channel_depth", "channel_heads", head),
            "mlp_ratio": encoder.mlp_ratio,
            "norm_eps": encoder.norm_eps,
            "quant_levels": levels,
            "vae_embed_dim": spec.dim,
            "mask_ratio_min": own.masks.low,
            "label_drop_prob": own.condition.dropout,
            "class_num": own.condition.classes or 0,
            "attn_dropout": encoder.attention_dropout,
            "proj_dropout": encoder.dropout,
            "buffer_size": own.slots,
            "channel_order": list(range(spec.dim) if own.head.order is None else own.head.order),
            **range_of(own.quantizer),
            **{row[0]: getattr(own.sampling, ours) for ours, row in SAMPLING.items()},
        }
        self._check(config, self.config(tree))
        return tree

    def _check(self, config: Generator, again: Mapping[str, Any]) -> None:
        """ConfigError for what the way there and back would change of the network."""
        own = config.config
        tree = {key: again[key] for key in again if key not in ("spec", "tokenizer")}
        theirs = validate_part("generator", tree, self.name)
        wrong = []
        stacks = {"encoder": own.encoder, "decoder": own.decoder}
        for place, mine in {**stacks, "head.transformer": own.head.transformer}.items():
            other = theirs.head.transformer if "." in place else getattr(theirs, place)
            wrong += changed(place, mine.model_dump(), other.model_dump(), _NO_LAYOUT)
            if mine.hidden != other.hidden:
                wrong.append(f"{place}.mlp_ratio={mine.mlp_ratio}")
        wrong += [
            f"{key}={getattr(own, key)}"
            for key in ("norm_in_eps", "embed", "regroup")
            if getattr(own, key) != getattr(theirs, key)
        ]
        given = own.condition.model_dump()
        wrong += [f"condition.{key}={given[key]}" for key in ("text", "pooled") if given[key]]
        if not wrong and not torch.allclose(
            config.embed.table, values_of(theirs.quantizer), rtol=1e-5, atol=1e-6
        ):
            wrong.append("the table of values of a tokenizer that is not TokenBridge's")
        self.refuse(wrong)

    # -- keys -----------------------------------------------------------------------------------

    def entries(self, config: Generator) -> list[Entry]:
        own_config = config.config
        table = [
            Entry(
                "condition.label.weight",
                ("class_emb.weight", "fake_latent"),
                lambda classes, null: torch.cat([classes, null]),
                lambda rows: (rows[:-1], rows[-1:]),
            ),
            *own("embed.table"),
            *pair("embed.project", "z_proj"),
            *pair("trunk.norm_in", "z_proj_ln"),
            *pair("trunk.encoder.norm", "encoder_norm"),
            *pair("trunk.project", "decoder_embed"),
            *pair("trunk.decoder.norm", "decoder_norm"),
            _row("trunk.mask_token", "mask_token"),
            _row("trunk.positions_encoder", "encoder_pos_embed_learned"),
            _row("trunk.positions_decoder", "decoder_pos_embed_learned"),
            _row("trunk.positions_out", "output_pos_embed"),
            *pair("head.project", "condition_proj"),
            _row("head.positions", "channel_embed"),
            _row("head.steps", "timesteps_embeddings"),
            *pair("head.transformer.norm", "channel_norm"),
            *pair("head.modulation_out.proj", "channel_final.adaLN_modulation.1"),
        ]
        factors = len(config.spec.vocab)
        for i in range(factors - 1):
            table.append(same(f"head.embed.{i}.weight", f"token_embeddings.{i}.weight"))
        for i in range(factors):
            table += pair(f"head.out.{i}", f"channel_heads.{i}")
        names = {
            "attention.qkv": "attn.qkv",
            "attention.out": "attn.proj",
            "norm_attention": "norm1",
            "norm_mlp": "norm2",
            "mlp.up": "mlp.fc1",
            "mlp.out": "mlp.fc2",
        }
        more = {
            "attention.norm_q": "attn.q_norm",
            "attention.norm_k": "attn.k_norm",
            "modulation.proj": "adaLN_modulation.1",
        }
        for ours, theirs, depth, layers in (
            ("trunk.encoder", "encoder_blocks", own_config.encoder.depth, names),
            ("trunk.decoder", "decoder_blocks", own_config.decoder.depth, names),
            ("head.transformer", "channel_blocks", own_config.head.transformer.depth, names | more),
        ):
            for i in range(depth):
                for a, b in layers.items():
                    table += pair(f"{ours}.blocks.{i}.{a}", f"{theirs}.{i}.{b}")
        return table

    def fixed(self, config: Generator) -> dict[str, Tensor]:
        """Levels of the quantizer and the mask of the head's attention."""
        scalar = config.config.quantizer
        if scalar is None:  # `official` has compared the values of the tokenizer's
            levels = {"quant_levels": config.spec.vocab[0], "vae_embed_dim": config.spec.dim}
            scalar = scalar_of({**DEFAULTS, **levels})
        return buffers_of(scalar)


def _row(ours: str, theirs: str) -> Entry:
    """A table [rows, W] that the official code keeps as [1, rows, W]."""
    return same(ours, theirs, load=lambda table: table[0], save=lambda table: (table[None],))
