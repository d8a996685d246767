"""TiTok (arXiv 2406.07550, bytedance/1d-tokenizer): one- and two-stage VQ, and VAE.

Config traps of the releases: `is_legacy` and `finetune_decoder` are true where a config lacks them.
Sizes of networks are constants of the official source; a config may carry others under `constants`
(the recordings do, and models of other sizes that were trained here).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vistok.config import ConfigError
from vistok.pretrained.base import (
    Entry,
    Family,
    Release,
    flag,
    own,
    pair,
    same,
    squeeze,
    warn_of_unknown,
)
from vistok.pretrained.published import TITOK, TITOK_VAE
from vistok.pretrained.tokenizers.maskgit_vqgan import (
    decoder_entries,
    decoder_tree,
    official_decoder,
)
from vistok.tokenizer import TokenizerConfig

SIZES = {
    "small": {"width": 512, "layers": 8, "heads": 8},
    "base": {"width": 768, "layers": 12, "heads": 12},
    "large": {"width": 1024, "layers": 24, "heads": 16},
}
PROXY_CODES, PROXY_DIM = 1024, 256
_LICENCE = "Apache-2.0 (weights trained on ImageNet: research purposes)"


class TiTok(Family):
    name = "titok"
    keys = frozenset(
        "codebook_size token_size use_l2_norm commitment_cost vit_enc_model_size "
        "vit_dec_model_size vit_enc_patch_size vit_dec_patch_size num_latent_tokens "
        "finetune_decoder quantize_mode is_legacy clustering_vq pretrained_tokenizer_weight".split()
    )

    # -- configs --------------------------------------------------------------------------------

    def recognizes(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:
        model = within(config, "model", "vq_model")
        return (
            isinstance(model, Mapping)
            and "latent_tokens" in set(keys)
            and "num_latent_tokens" in model
            and "text_context_length" not in model
            and "strict_length_assertion" not in model
            and within(config, "model", "type") != "one_d_piece"
        )

    def config(self, official: Mapping[str, Any]) -> dict[str, Any]:
        model = within(official, "model", "vq_model")
        size = within(official, "dataset", "preprocessing", "crop_size")
        if not isinstance(model, Mapping) or size is None:
            raise ConfigError(
                f"{self.name}: the config lacks model.vq_model or dataset.preprocessing.crop_size; "
                "expected the official config.json"
            )
        warn_of_unknown(self.name, model, self.keys, "model.vq_model.")
        constants = official.get("constants") or {}
        mode = model.get("quantize_mode", "vq")
        if mode not in ("vq", "vae"):
            raise ConfigError(f"{self.name}: quantize_mode: got {mode!r}; expected vq or vae")
        legacy, vae = self.legacy(model), mode == "vae"
        finetuned = flag(model, "finetune_decoder", True)
        if vae and finetuned:
            raise ConfigError(
                f"{self.name}: quantize_mode 'vae' with finetune_decoder: the official code "
                "refuses it; set finetune_decoder to false"
            )
        if finetuned and not legacy:
            raise ConfigError(
                f"{self.name}: finetune_decoder needs is_legacy, whose head predicts proxy codes"
            )
        tree = {
            "image_size": size,
            "input_space": dict(_PLAIN),
            "output_space": dict(_PLAIN),
            "encoder": self._encoder(model, constants, legacy),
            "quantizer": self._quantizer(model, vae),
            "decoder": self._decoder(model, constants, legacy),
        }
        if legacy:
            pixels = constants.get("pixel_decoder") if finetuned else None
            tree["output_space"] = {
                "kind": "codes",
                "codebook_size": constants.get("proxy_codebook", PROXY_CODES),
                "dim": (pixels or {}).get("z_channels", PROXY_DIM),
                "patch_size": model["vit_dec_patch_size"],
                "decoder": decoder_tree(pixels) if finetuned else None,
            }
        return tree

    def legacy(self, model: Mapping[str, Any]) -> bool:
        return flag(model, "is_legacy", True)

    def _encoder(self, model: Mapping, constants: Mapping, legacy: bool) -> dict[str, Any]:
        return {
            "kind": "vit",
            "patches": {"size": model["vit_enc_patch_size"], **_PATCHES},
            "latents": {
                "count": model["num_latent_tokens"],
                "positions": True,
                "reinterpret": legacy,
            },
            **_vit(model["vit_enc_model_size"], constants),
        }

    def _decoder(self, model: Mapping, constants: Mapping, legacy: bool) -> dict[str, Any]:
        head: dict[str, Any] = {"kind": "pixels", "conv": True, "gain": 1.0}
        return {
            "kind": "vit",
            "patches": {"size": 1 if legacy else model["vit_dec_patch_size"], **_PATCHES},
            "head": {"kind": "codes"} if legacy else head,
            **_vit(model["vit_dec_model_size"], constants),
        }

    def _quantizer(self, model: Mapping, vae: bool) -> dict[str, Any]:
        if vae:
            return {"kind": "kl", "dim": model["token_size"]}
        return {
            "kind": "vq",
            "codebook_size": model.get("codebook_size", 8192),
            "dim": model.get("token_size", 4),
            "l2_norm": flag(model, "use_l2_norm", False),
            "cluster": flag(model, "clustering_vq", False),
            "loss_weights": {"codebook": 1.0, "commitment": model.get("commitment_cost", 0.25)},
        }

    def official(self, config: TokenizerConfig) -> dict[str, Any]:
        encoder, quantizer, decoder = config.encoder, config.quantizer, config.decoder
        legacy = decoder.head.kind == "codes"
        patch = config.output_space.patch_size if legacy else decoder.patches.size
        table: dict[str, Any] = {}
        model: dict[str, Any] = {
            "quantize_mode": "vae" if quantizer.kind == "kl" else "vq",
            "token_size": quantizer.dim,
            "vit_enc_model_size": _size_name(encoder.transformer, table),
            "vit_dec_model_size": _size_name(decoder.transformer, table),
            "vit_enc_patch_size": encoder.patches.size,
            "vit_dec_patch_size": patch,
            "num_latent_tokens": encoder.latents.count,
            "is_legacy": legacy,
            "finetune_decoder": legacy and config.output_space.decoder is not None,
        }
        if quantizer.kind == "vq":
            model |= {
                "codebook_size": quantizer.codebook_size,
                "use_l2_norm": quantizer.l2_norm,
                "commitment_cost": quantizer.loss_weights.get("commitment", 0.0),
                "clustering_vq": quantizer.cluster,
            }
        constants: dict[str, Any] = {"size_table": table} if table else {}
        if legacy:
            if config.output_space.codebook_size != PROXY_CODES:
                constants["proxy_codebook"] = config.output_space.codebook_size
            if config.output_space.decoder is not None:
                constants["pixel_decoder"] = official_decoder(
                    config.output_space.decoder, config.image_size, config.output_space.dim
                )
        tree = {
            "model": {"vq_model": self.extend(model, config)},
            "dataset": {"preprocessing": {"crop_size": config.image_size[0]}},
        }
        return tree | ({"constants": constants} if constants else {})

    def extend(self, model: dict[str, Any], config: TokenizerConfig) -> dict[str, Any]:
        """The official model config with the keys that a relative of TiTok adds."""
        return model

    # -- keys -----------------------------------------------------------------------------------

    def entries(self, config: TokenizerConfig) -> list[Entry]:
        encoder, decoder = config.encoder, config.decoder
        table = [
            same("encoder.latent_tokens", "latent_tokens"),
            same("encoder.latent_positions", "encoder.latent_token_positional_embedding"),
            *pair("encoder.patch_embed.proj", "encoder.patch_embed"),
            *_trunk("encoder", encoder.transformer.depth),
            same("encoder.proj.weight", "encoder.conv_out.weight", **squeeze(2, 3)),
            same("encoder.proj.bias", "encoder.conv_out.bias"),
            *pair("decoder.embed", "decoder.decoder_embed"),
            same("decoder.latent_positions", "decoder.latent_token_positional_embedding"),
            same("decoder.mask_token", "decoder.mask_token", **squeeze(0, 1)),
            *_trunk("decoder", decoder.transformer.depth),
        ]
        if config.quantizer.kind == "vq":
            table.append(same("quantizer.codebook", "quantize.embedding.weight"))
            usage = "quantizer.usage"
            clustered = config.quantizer.cluster
            table += [same(usage, "quantize.embed_prob")] if clustered else own(usage)
            table += own("quantizer.filled")
        if decoder.head.kind == "codes":
            table += _pointwise("decoder.head.up", "decoder.ffn.0")
            table += _pointwise("decoder.head.proj", "decoder.ffn.2")
            if config.output_space.decoder is not None:
                table.append(same("output_space.codebook", "pixel_quantize.embedding.weight"))
                table += decoder_entries(
                    config.output_space.decoder, "output_space.decoder", "pixel_decoder"
                )
        else:
            table += _pointwise("decoder.head.proj", "decoder.ffn.0")
            table += pair("decoder.head.conv", "decoder.conv_out")
        return table

    def _release(name: str, rfid: float, *recipe: str, gfid: float | None = None) -> Release:
        hub = f"yucornetto/tokenizer_titok_{name.replace('-', '_')}_imagenet"
        protocol = TITOK_VAE if "vae" in name else TITOK
        return Release(
            f"titok-{name}", hub, "model.safetensors", _LICENCE, rfid=rfid, gfid=gfid,
            protocol=protocol,
            recipe=tuple(f"tokenizers/titok/titok_{file}" for file in recipe), research_only=True,
        )  # fmt: skip

    releases = (
        _release("l32", 2.21, "l32_stage1", "l32_stage2", gfid=2.77),
        _release("b64", 1.70, "b64_stage1", "b64_stage2", gfid=2.48),
        _release("s128", 1.71, "s128_stage1", "s128_stage2", gfid=1.97),
        _release("bl64-vq8k", 2.06, "bl64_vq8k"),
        _release("bl128-vq8k", 1.49, "bl128_vq8k"),
        _release("sl256-vq8k", 1.03, "sl256_vq8k"),
        _release("ll32-vae-c16", 1.61, "ll32_vae"),
        _release("bl64-vae-c16", 1.25, "bl64_vae"),
        _release("bl128-vae-c16", 0.84, "bl128_vae"),
    )


# Pixels in 0..1 as they are.
_PLAIN = {"kind": "pixels", "mean": 0.0, "std": 1.0}
_PATCHES = {"positions": "learned", "class_token": True}


def within(tree: Any, *path: str) -> Any:
    """The value at a path of nested mappings; None where it ends early."""
    for name in path:
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    return tree


def _vit(size: str, constants: Mapping[str, Any]) -> dict[str, Any]:
    """Config of the transformer that all ViTs of this family share, at one of the named sizes."""
    table = {**SIZES, **constants.get("size_table", {})}
    if size not in table:
        raise ConfigError(f"titok: model size '{size}'; expected one of {', '.join(table)}")
    chosen = table[size]
    return {
        "transformer": {
            "width": chosen["width"],
            "depth": chosen["layers"],
            "heads": chosen["heads"],
            "mlp": "gelu",
            "norm": "layernorm",
            "norm_eps": 1e-5,
            "init": "trunc_normal",
            "branch_scale": "none",
        },
        "norm_in": True,
        "token_std": "width",
    }


def _size_name(transformer: Any, table: dict[str, Any]) -> str:
    """The official name of a size; one that has none is added to `table`."""
    size = {
        "width": transformer.width,
        "layers": transformer.depth,
        "heads": transformer.heads,
    }
    for name, known in {**SIZES, **table}.items():
        if known == size:
            return name
    name = f"w{size['width']}d{size['layers']}h{size['heads']}"
    table[name] = size
    return name


def _trunk(side: str, depth: int) -> list[Entry]:
    """Class token, tables, norms and blocks, named alike on both sides."""
    table = [
        same(f"{side}.class_token", f"{side}.class_embedding", **squeeze(0)),
        same(f"{side}.positions.table", f"{side}.positional_embedding"),
        *pair(f"{side}.norm_in", f"{side}.ln_pre"),
        *pair(f"{side}.transformer.norm", f"{side}.ln_post"),
    ]
    for i in range(depth):
        ours, theirs = f"{side}.transformer.blocks.{i}", f"{side}.transformer.{i}"
        table += [
            *pair(f"{ours}.norm_attention", f"{theirs}.ln_1"),
            same(f"{ours}.attention.qkv.weight", f"{theirs}.attn.in_proj_weight"),
            same(f"{ours}.attention.qkv.bias", f"{theirs}.attn.in_proj_bias"),
            *pair(f"{ours}.attention.out", f"{theirs}.attn.out_proj"),
            *pair(f"{ours}.norm_mlp", f"{theirs}.ln_2"),
            *pair(f"{ours}.mlp.up", f"{theirs}.mlp.c_fc"),
            *pair(f"{ours}.mlp.out", f"{theirs}.mlp.c_proj"),
        ]
    return table


def _pointwise(ours: str, theirs: str) -> list[Entry]:
    """A linear layer of ours that is a 1x1 convolution there."""
    return [
        same(f"{ours}.weight", f"{theirs}.weight", **squeeze(2, 3)),
        same(f"{ours}.bias", f"{theirs}.bias"),
    ]
