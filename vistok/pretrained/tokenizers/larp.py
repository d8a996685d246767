"""LARP's tokenizer (arXiv 2410.21264, hywang66/LARP): latent queries of a clip, stochastic VQ.

A config is the official one of the hub (arguments of LARPTokenizer) or the trainer's name and
arguments. The prior that was trained with it is carried along; nothing here reads it. Fixed tables
of positions lie among the weights: they are compared with those that the config makes.
The trainer multiplies the quantizer's losses by 0.1, which the loss weights here contain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from vistok.config import ConfigError
from vistok.pretrained.base import (
    Entry,
    Family,
    Release,
    changed,
    flag,
    warn_of_unknown,
    without_wrappers,
)
from vistok.pretrained.tokenizers.larp_keys import NORMS, fixed_tables, table
from vistok.pretrained.tokenizers.larp_quantizer import VQ, official_regularizer, quantizer_tree
from vistok.storage.weights import WeightsError
from vistok.tokenizer import TokenizerConfig

_LICENSE = "MIT (code; weights without a text of their own, trained on K600 and UCF-101: research)"
_OPTIONS: dict[str, Any] = {  # defaults of LARPTokenizer
    "bottleneck_token_num": 1024,
    "input_size": 128,
    "frame_num": 16,
    "temporal_patch_size": 4,
    "patch_size": 8,
    "decoder_temporal_patch_size": 4,
    "decoder_patch_size": 8,
    "in_channels": 3,
    "latent_pe_scale_factor": 10000,
    "query_init_std": 0.02,
    "encoder_hidden_size": 768,
    "decoder_hidden_size": 768,
    "encoder_num_heads": 12,
    "decoder_num_heads": 12,
    "encoder_depth": 6,
    "decoder_depth": 6,
    "learned_encoder_patch_pe": False,
    "learned_encoder_latent_query_embed": True,
    "learned_decoder_latent_pe": False,
    "learned_decoder_patch_query_embed": False,
    "use_encoder_patch_token_type_embed": False,
    "use_encoder_latent_query_token_type_embed": False,
    "use_decoder_latent_token_type_embed": False,
    "use_decoder_patch_query_token_type_embed": False,
    "encoder_query_gaussian_init": True,
}
_NETWORKS = {  # names of transformers that can run, with the values that mean the first one
    "transformer_name": ("transformer_encoder_parallel",),
    "encoder_name": (None, "none", "no", "null", "", "transformer_encoder_parallel"),
    "decoder_name": (None, "none", "no", "null", "", "transformer_encoder_parallel"),
}
_BOTTLENECK = frozenset({"bottleneck_dim", "norm", "regularizer", "param_names"})
_RELEASED = {
    **_OPTIONS,
    "encoder_depth": 12,
    "decoder_depth": 12,
    "use_decoder_patch_query_token_type_embed": True,
    "bottleneck": {
        "name": "bottleneck",
        "args": {
            "bottleneck_dim": 16,
            "norm": "none",
            "regularizer": {
                "name": "vq",
                "args": {
                    **VQ,
                    "codebook_size": 8192,
                    "l2_normalized": True,
                    "stochastic": True,
                    "stochastic_temperature": 0.03,
                },
            },
        },
    },
    "prior_model": {"name": "gptc-S"},
}


class LARP(Family):
    name = "larp"
    inert = (
        *("prior_model.*", "encoder_patch_pe", "encoder_latent_query_embed"),
        *("decoder_latent_pe", "decoder_patch_query_embed"),
    )
    releases = (
        Release(
            "larp-l-long", "hywang66/LARP-L-long-tokenizer", "model.safetensors", _LICENSE,
            _RELEASED, recipe=("tokenizers/larp/larp_l_long",), research_only=True,
        ),
    )  # fmt: skip

    # -- configs --------------------------------------------------------------------------------

    def recognizes(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:
        marks = {
            "x_embedder.proj.weight",
            "encoder_latent_query_embed",
            "final_layer.linear.weight",
        }
        said = not config or "bottleneck" in _translated(config)
        return said and marks | {"bottleneck.in_linear.weight"} <= set(keys)

    def unwrapped(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return without_wrappers(state)

    def observed(
        self, official: Mapping[str, Any], state: Mapping[str, Tensor]
    ) -> Mapping[str, Any]:
        """The config; WeightsError for a fixed table that has not the numbers it makes."""
        config = TokenizerConfig.model_validate(self.config(official))
        for key, expected in fixed_tables(config).items():
            found = state.get(key)
            if found is None:
                raise WeightsError(f"missing {key}; these are not the weights of this larp config")
            # Half precision keeps three digits of numbers up to 2.
            within = 1e-5 if found.dtype in (torch.float32, torch.float64) else 2e-2
            if found.shape != expected.shape or not torch.allclose(
                found.to(expected), expected, rtol=0, atol=within
            ):
                raise WeightsError(
                    f"{key} has shape {tuple(found.shape)} and not the sines and cosines that its "
                    f"config makes, in shape {tuple(expected.shape)}"
                )
        return official

    def config(self, official: Mapping[str, Any]) -> dict[str, Any]:
        given = _translated(official)
        known = {*_OPTIONS, *_NETWORKS, "bottleneck", "prior_model"}
        warn_of_unknown(self.name, given, known)
        args = {**_OPTIONS, **given}
        self._check(args)
        width, quantizer, norm = args["encoder_hidden_size"], *self._bottleneck(args)
        learned = flag(args, "learned_encoder_latent_query_embed", True)
        tokens, base = "learned", 10000.0
        if not learned:
            tokens, base = "sincos", float(args["latent_pe_scale_factor"])
        elif not flag(args, "encoder_query_gaussian_init", True):
            tokens = "learned_from_sincos"
        std = args["query_init_std"]
        both = [
            flag(args, f"use_encoder_{what}_token_type_embed", False)
            for what in ("patch", "latent_query")
        ]
        levels = {(True, True): True, (True, False): "patches", (False, True): "latents"}
        return {
            "image_size": args["input_size"],
            "frames": args["frame_num"],
            "input_space": {"kind": "pixels", "mean": 0.0, "std": 1.0},
            "output_space": {"kind": "pixels", "mean": 0.0, "std": 1.0},
            "encoder": {
                "kind": "vit",
                "patches": self._patches(args, "learned_encoder_patch_pe"),
                "latents": {
                    "count": args["bottleneck_token_num"],
                    "tokens": tokens,
                    "token_base": base,
                    "levels": levels.get(tuple(both), False),
                    "norm": norm,
                },
                "transformer": {
                    **_trunk(width, args["encoder_depth"], args["encoder_num_heads"]),
                    "norm_out": False,
                },
                "token_std": "constant" if std == 0.02 else float(std),
            },
            "quantizer": quantizer,
            "decoder": {
                "kind": "vit",
                "patches": self._patches(args, "learned_decoder_patch_query_embed"),
                "transformer": {
                    **_trunk(
                        args["decoder_hidden_size"],
                        args["decoder_depth"],
                        args["decoder_num_heads"],
                    ),
                    "norm_out_eps": 1e-6,
                },
                "mask_token": flag(args, "use_decoder_patch_query_token_type_embed", False),
                "value_positions": (
                    "own" if flag(args, "learned_decoder_latent_pe", False) else "sincos"
                ),
                "value_position_base": float(args["latent_pe_scale_factor"]),
                "levels": (
                    "values" if flag(args, "use_decoder_latent_token_type_embed", False) else False
                ),
                "token_std": "constant",
                "head": {"kind": "pixels", "gain": 0.0},
            },
        }

    def _check(self, args: Mapping[str, Any]) -> None:
        """ConfigError for values with which the original network does not run."""
        if args["in_channels"] != 3:
            raise ConfigError(
                f"{self.name}: in_channels={args['in_channels']!r}; expected 3, RGB frames"
            )
        for key, can in _NETWORKS.items():
            name = args.get(key, can[0])
            if (name.lower() if isinstance(name, str) else name) not in can:
                raise ConfigError(
                    f"{self.name}: {key}={name!r} does not read latent queries; expected "
                    "transformer_encoder_parallel"
                )
        for key in ("temporal_patch_size", "patch_size"):
            own, other = args[key], args[f"decoder_{key}"]
            if own != other:
                raise ConfigError(
                    f"{self.name}: decoder_{key}={other!r} with {key}={own!r}: the original puts "
                    "patches together by the encoder's; expected equal sizes"
                )

    def _patches(self, args: Mapping[str, Any], learned: str) -> dict[str, Any]:
        kind = "learned_sum" if flag(args, learned, False) else "sincos_sum"
        frames = args["temporal_patch_size"]
        return {"size": args["patch_size"], "frames": frames, "positions": kind}

    def _bottleneck(self, args: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        """Config of the quantizer, and the norm in front of it."""
        inner = args["bottleneck"]["args"]
        warn_of_unknown(self.name, inner, _BOTTLENECK, "bottleneck.args.")
        said = str(inner.get("norm") or "none").lower()
        if said not in NORMS:
            raise ConfigError(
                f"{self.name}: bottleneck.args.norm={said!r}; expected one of {', '.join(NORMS)}"
            )
        dim, width = inner["bottleneck_dim"], args["encoder_hidden_size"]
        if dim <= 0:  # as wide as both transformers
            if width != args["decoder_hidden_size"]:
                raise ConfigError(
                    f"{self.name}: bottleneck_dim={dim} with encoder_hidden_size={width} and "
                    f"decoder_hidden_size={args['decoder_hidden_size']}; expected equal widths"
                )
            dim = width
        regularizer = inner.get("regularizer") or {}
        name, own = str(regularizer.get("name", "none")).lower(), regularizer.get("args", {})
        place = "bottleneck.args.regularizer"
        if name == "skl" and NORMS[said] != "none":
            raise ConfigError(
                f"{self.name}: bottleneck.args.norm={said!r} with {place}.name='skl': no release "
                "has both; expected none"
            )
        if name == "skl":
            return {"kind": "kl", "dim": dim, "loss_weights": {"kl": 0.0}}, NORMS[said]
        if name != "vq":
            raise ConfigError(f"{self.name}: {place}.name={name!r}; expected vq or skl")
        return quantizer_tree(self.name, own, dim, f"{place}.args"), NORMS[said]

    def official(self, config: TokenizerConfig) -> dict[str, Any]:
        encoder, decoder, quantizer = config.encoder, config.decoder, config.quantizer
        kinds = ("stochastic_vq", "vq", "kl")
        if encoder.kind != "vit" or decoder.kind != "vit" or quantizer.kind not in kinds:
            self.refuse([f"quantizer.kind={quantizer.kind}"])
        if config.image_size[0] != config.image_size[1] or config.frames is None:
            self.refuse([f"image_size={config.image_size} with frames={config.frames}"])
        latents, std = encoder.latents, encoder.token_std
        learned = latents.tokens != "sincos"
        base = decoder.value_position_base if learned else latents.token_base
        norms = {ours: theirs for theirs, ours in reversed(NORMS.items())}  # none wins
        tree: dict[str, Any] = {
            "bottleneck": {
                "name": "bottleneck",
                "args": {
                    "bottleneck_dim": quantizer.dim,
                    "norm": norms.get(latents.norm),
                    "regularizer": official_regularizer(quantizer),
                },
            },
            "prior_model": {"name": "none"},
            "bottleneck_token_num": latents.count,
            "input_size": config.image_size[0],
            "frame_num": config.frames,
            "temporal_patch_size": encoder.patches.frames,
            "patch_size": encoder.patches.size,
            "decoder_temporal_patch_size": decoder.patches.frames,
            "decoder_patch_size": decoder.patches.size,
            "latent_pe_scale_factor": base,
            "query_init_std": std if isinstance(std, float) else 0.02,
            "learned_encoder_patch_pe": encoder.patches.positions == "learned_sum",
            "learned_encoder_latent_query_embed": learned,
            "learned_decoder_latent_pe": decoder.value_positions == "own",
            "learned_decoder_patch_query_embed": decoder.patches.positions == "learned_sum",
            "use_encoder_patch_token_type_embed": latents.levels in (True, "patches"),
            "use_encoder_latent_query_token_type_embed": latents.levels in (True, "latents"),
            "use_decoder_latent_token_type_embed": decoder.levels == "values",
            "use_decoder_patch_query_token_type_embed": decoder.mask_token,
            "encoder_query_gaussian_init": latents.tokens == "learned",
        }
        for side, part in (("encoder", encoder), ("decoder", decoder)):
            trunk = part.transformer
            tree |= {f"{side}_hidden_size": trunk.width, f"{side}_depth": trunk.depth}
            tree[f"{side}_num_heads"] = trunk.heads
        self._same(config, TokenizerConfig.model_validate(self.config(tree)))
        return tree

    def _same(self, config: TokenizerConfig, back: TokenizerConfig) -> None:
        """ConfigError for settings that the way there and back changes, but those of training."""
        mine, theirs = config.model_dump(), back.model_dump()
        training = ("token_std", "taps", "transformer", "init", "loss_weights", "decay")
        wrong = []
        for part in ("encoder", "quantizer", "decoder"):
            wrong += changed(part, mine[part], theirs[part], (*training, *_UPKEEP))
        start = ("init", "init_std", "branch_scale")
        for part in ("encoder", "decoder"):
            trunks = (tree[part]["transformer"] for tree in (mine, theirs))
            wrong += changed(f"{part}.transformer", *trunks, start)
        spaces = ("input_space", "output_space", "image_size", "frames")
        wrong += [f"{key}={mine[key]}" for key in spaces if mine[key] != theirs[key]]
        self.refuse(wrong)

    # -- keys -----------------------------------------------------------------------------------

    def entries(self, config: TokenizerConfig) -> list[Entry]:
        return table(config)

    def fixed(self, config: TokenizerConfig) -> dict[str, Tensor]:
        return fixed_tables(config)


# How a codebook is kept in training, which no weight tells.
_UPKEEP = ("entropy_over", "entropy_temperature", "revive_below", "gradient", "logvar_range")


def _trunk(width: int, depth: int, heads: int) -> dict[str, Any]:
    """timm's blocks as they were when the weights were trained: norms with epsilon 1e-5."""
    return {
        "width": width,
        "depth": depth,
        "heads": heads,
        "mlp": "gelu",
        "mlp_ratio": 4.0,
        "norm": "layernorm",
        "norm_eps": 1e-5,
        "qkv_bias": False,
        "init": "xavier_fused",
        "branch_scale": "none",
    }


def _translated(official: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments of the model: the config itself, or within the trainer's name and arguments."""
    for key in ("model", "args"):
        inner = official.get(key)
        if "bottleneck" not in official and isinstance(inner, Mapping):
            official = inner
    return official
