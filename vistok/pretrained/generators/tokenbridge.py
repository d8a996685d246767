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
from vistok.config.registry import build
from vistok.generators import Generator
from vistok.pretrained.base import Entry, Family, Release, changed, own, pair, same, warn_of_unknown
from vistok.pretrained.published import TOKENBRIDGE_SAMPLED
from vistok.quantizers.atoms.scalar import ScalarConfig, gaussian_levels, level_bounds

ORDER = (8, 1, 10, 9, 6, 12, 4, 0, 3, 11, 7, 14, 2, 15, 13, 5)  # of channels, by their frequencies
_SIZES = {  # width and blocks of encoder and decoder, heads; width, blocks of the head, heads
    "tokenbridge_base": (768, 12, 12, 768, 4, 8),
    "tokenbridge_large": (1024, 16, 16, 1024, 4, 8),
    "tokenbridge_huge": (1280, 20, 16, 1024, 6, 8),
}
# Arguments of the network, with the defaults of its code.
_DEFAULTS: dict[str, Any] = {
    "img_size": 256,
    "vae_stride": 16,
    "patch_size": 1,
    "encoder_embed_dim": 1024,
    "encoder_depth": 16,
    "encoder_num_heads": 16,
    "decoder_embed_dim": 1024,
    "decoder_depth": 16,
    "decoder_num_heads": 16,
    "channel_embed_dim": 256,
    "channel_depth": 4,
    "channel_heads": 8,
    "mlp_ratio": 4.0,
    "norm_eps": 1e-6,  # of the norm that all released sizes give the network
    "quant_levels": 32,
    "vae_embed_dim": len(ORDER),
    "mask_ratio_min": 0.7,
    "label_drop_prob": 0.1,
    "class_num": 1000,
    "attn_dropout": 0.1,
    "proj_dropout": 0.1,
    "buffer_size": 64,
    "quant_min": -5.0,
    "quant_max": 5.0,
    "std_range": 3.0,
    "channel_order": ORDER,
}
# Arguments on which no number depends.
_SILENT = frozenset({"use_quantized_value", "grad_checkpointing"})
# Settings of sampling: our name, those of the command line and of the recordings, the default.
_SAMPLING = {
    "steps": ("num_iter", "sampling_iterations", 64),
    "guidance": ("cfg", "guidance_scale", 1.0),
    "guidance_schedule": ("cfg_schedule", "guidance_schedule", "linear"),
    "temperature": ("temperature", "temperature", 1.0),
}
_READ = frozenset(
    {*_DEFAULTS, *_SILENT, "model", "quant_bits"}
    | {name for row in _SAMPLING.values() for name in row[:2]}
)
_MARKS = frozenset("z_proj_ln condition_proj channel_blocks token_embeddings channel_heads".split())
_LEVELS = ("reconstruction_values", "boundaries")
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


class TokenBridge(Family):
    name = "tokenbridge_ar"
    makes = "generator"
    releases = (_release("large", 1.76, 3.1, 0.96), _release("huge", 1.55, 3.45, 0.91))
    inert = _LEVELS  # averaged weights come without them

    # -- configs --------------------------------------------------------------------------------

    def recognizes(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:
        return {key.split(".")[0] for key in keys} >= _MARKS

    def constants(self, state: Mapping[str, Tensor]) -> Mapping[str, Any] | None:
        """The config of the release of these sizes; of others, heads and settings are not known."""
        if not self.recognizes({}, state):
            return None
        shape = state["z_proj.weight"].shape if "z_proj.weight" in state else ()
        known = [r.config for r in self.releases if _SIZES[r.config["model"]][0] in shape[:1]]
        return known[0] if known else None

    def observed(
        self, official: Mapping[str, Any], state: Mapping[str, Tensor]
    ) -> Mapping[str, Any]:
        """The same; ConfigError for levels that are not those which the config makes."""
        expected = _levels(_scalar(_given(official)))
        for name in set(_LEVELS) & set(state):
            found = state[name].float()
            if found.shape != expected[name].shape or not torch.allclose(
                found, expected[name], rtol=1e-4, atol=1e-5
            ):
                raise ConfigError(
                    f"{name} has shape {tuple(found.shape)} and not the numbers that quant_levels, "
                    f"quant_bits and std_range make, in shape {tuple(expected[name].shape)}; "
                    "expected weights of this config"
                )
        return official

    def config(self, official: Mapping[str, Any]) -> dict[str, Any]:
        warn_of_unknown(self.name, official, _READ)
        given = _given(official)
        self._supported(given)
        side = given["img_size"] // given["vae_stride"]
        scalar = _scalar(given)
        settings = {
            ours: next((official[key] for key in (first, second) if key in official), default)
            for ours, (first, second, default) in _SAMPLING.items()
        }
        if settings["guidance_schedule"] != "linear":  # all others are constant to the sampler
            settings["guidance_schedule"] = "constant"
        return {
            "kind": "masked_autoregressive",
            "encoder": _transformer(given, "encoder_embed_dim", "encoder_depth", "encoder_num_heads"),
            "decoder": _transformer(given, "decoder_embed_dim", "decoder_depth", "decoder_num_heads"),
            "norm_in_eps": 1e-6,
            "slots": given["buffer_size"],
            "head": {
                "kind": "dimensions",
                "transformer": {
                    **_transformer(given, "channel_embed_dim", "channel_depth", "channel_heads"),
                    "qk_norm": True,
                    "qk_norm_kind": "layernorm",
                },
                "order": list(given["channel_order"]),
                "embedding_std": 1.0,
                "sampled_start": "with_step",
            },
            "embed": "values",
            "values": scalar.model_dump(mode="json"),
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
            "tokenizer": {"name": "tokenbridge-kl16", "sha256": ""},
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
            **_sizes("encoder_embed_dim", "encoder_depth", "encoder_num_heads", encoder),
            **_sizes("decoder_embed_dim", "decoder_depth", "decoder_num_heads", own.decoder),
            **_sizes("channel_embed_dim", "channel_depth", "channel_heads", head),
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
            **_range(own.values),
            **{row[0]: getattr(own.sampling, ours) for ours, row in _SAMPLING.items()},
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
        if not wrong and not torch.equal(config.embed.table, _values(theirs.values)):
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
        """The mask of the head's attention and the levels of the quantizer."""
        factors, own = len(config.spec.vocab), config.config
        mask = torch.full((factors, factors), -torch.inf).triu(1)
        scalar = own.values
        if scalar is None:  # `official` has compared its values
            scalar = _scalar({**_DEFAULTS, "quant_levels": config.spec.vocab[0]})
        return {"channel_mask": mask, **_levels(scalar)}


def _given(official: Mapping[str, Any]) -> dict[str, Any]:
    """The network's arguments: the defaults of its code, of the model's name, and what is given."""
    found = dict(_DEFAULTS)
    if "model" in official:
        if official["model"] not in _SIZES:
            raise ConfigError(
                f"tokenbridge_ar: model={official['model']}: expected one of {', '.join(_SIZES)}"
            )
        width, depth, heads, inner, blocks, parts = _SIZES[official["model"]]
        for part in ("encoder", "decoder"):
            found |= {f"{part}_embed_dim": width, f"{part}_depth": depth}
            found[f"{part}_num_heads"] = heads
        found |= {"channel_embed_dim": inner, "channel_depth": blocks, "channel_heads": parts}
    if "quant_bits" in official:
        found["quant_levels"] = 2 ** official["quant_bits"]
    return found | {key: value for key, value in official.items() if key in _DEFAULTS}


def _transformer(given: Mapping[str, Any], width: str, depth: str, heads: str) -> dict[str, Any]:
    return {
        "width": given[width],
        "depth": given[depth],
        "heads": given[heads],
        "mlp": "gelu",
        "mlp_ratio": given["mlp_ratio"],
        "mlp_hidden": "floor",
        "norm": "layernorm",
        "norm_eps": given["norm_eps"],
        "dropout": given["proj_dropout"],
        "mlp_dropout": given["proj_dropout"],
        "attention_dropout": given["attn_dropout"],
        "init": "xavier_fused",
        "branch_scale": "none",
    }


def _sizes(width: str, depth: str, heads: str, own: Any) -> dict[str, Any]:
    return {width: own.width, depth: own.depth, heads: own.heads}


def _scalar(given: Mapping[str, Any]) -> ScalarConfig:
    """The quantizer, its levels computed as the official code does."""
    return ScalarConfig(
        dim=given["vae_embed_dim"],
        levels=given["quant_levels"],
        range=(given["quant_min"], given["quant_max"]),
        std_range=given["std_range"],
        empty_bins="zero",
        computed_in="fp32",
    )


def _range(scalar: Any) -> dict[str, float]:
    """Arguments of the range, of the quantizer whose values a generator reads; {} = the usual."""
    if not isinstance(scalar, ScalarConfig):
        return {}
    low, high = scalar.range
    return {"quant_min": low, "quant_max": high, "std_range": scalar.std_range}


def _levels(scalar: ScalarConfig) -> dict[str, Tensor]:
    """The buffers of the official state dict."""
    bounds = level_bounds(scalar).float()
    return {"reconstruction_values": torch.tensor(gaussian_levels(scalar)), "boundaries": bounds}


def _values(scalar: ScalarConfig) -> Tensor:
    """[F, V] values that the codes of each dimension stand for."""
    return build(scalar).values.expand(scalar.dim, -1)


def _row(ours: str, theirs: str) -> Entry:
    """A table [rows, W] that the official code keeps as [1, rows, W]."""
    return same(ours, theirs, load=lambda table: table[0], save=lambda table: (table[None],))
