"""RobusTok (arXiv 2503.08354, 2509.12474), XQ-GAN (2412.01762) and ImageFolder (2410.01756): one
code base (qiuk2/RobusTok, lxa9867/ImageFolder), one layout.

Encoder and decoder are DINOv2 ViTs, built anew for 256 pixels and patches of 16; their sizes follow
from the names `encoder_model` and `decoder_model`. A config may carry others under `backbone` and
`decoder_backbone` (the recordings do, and models of other sizes that were trained here).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from vistok.config import ConfigError
from vistok.core.shapes import cells
from vistok.pretrained import published
from vistok.pretrained.base import (
    Entry,
    Family,
    Release,
    flag,
    pair,
    same,
    squeeze,
    warn_of_unknown,
)
from vistok.pretrained.tokenizers import xqgan_branches as quantizers
from vistok.pretrained.tokenizers.xqgan_quantizers import INERT
from vistok.pretrained.tokenizers.xqgan_releases import LICENSE, RELEASES
from vistok.tokenizer import TokenizerConfig

SIZES = {
    "vit_small_patch14_dinov2.lvd142m": {"embed_dim": 384, "depth": 12, "num_heads": 6},
    "vit_base_patch14_dinov2.lvd142m": {"embed_dim": 768, "depth": 12, "num_heads": 12},
    "vit_large_patch14_dinov2.lvd142m": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
}
IMAGE_SIZE, PATCH_SIZE, DROP_PATH, MLP_RATIO = 256, 16, 0.1, 4.0
# Options of the official model that change no tensor that is read here: losses of training, frozen
# teachers (`semantic_guide`, `detail_guide`), and what only the CNN encoder asks for.
_SILENT = frozenset(
    "codebook_show_usage encoder_ch_mult decoder_ch_mult z_channels dropout_p semantic_guide "
    "detail_guide half_sem sem_loss_weight detail_loss_weight clip_norm sem_loss_scale "
    "detail_loss_scale guide_type_1 guide_type_2 test_model".split()
)
_READ = frozenset(
    "enc_type dec_type encoder_model decoder_model num_latent_tokens abs_pos_embed "
    "product_quant".split()
)
# The model's part of the shipped config of RobusTok's main training.
MAIN_TRAINING = {
    "enc_type": "dinov2",
    "dec_type": "dinov2",
    "encoder_model": "vit_base_patch14_dinov2.lvd142m",
    "decoder_model": "vit_base_patch14_dinov2.lvd142m",
    "codebook_size": 4096,
    "codebook_embed_dim": 64,
    "v_patch_nums": [16],
    "num_latent_tokens": 256,
    "abs_pos_embed": True,
    "product_quant": 1,
    "semantic_guide": "dinov2",
    "detail_guide": "none",
    "half_sem": False,
    "alpha": 1.0,
    "beta": 0.1,
    "delta": 100,
    "anneal_start": 40,
    "anneal_end": 120,
    "end_ratio": 0.5,
}
_NEVER = 1_000_000  # epochs: an annealing that begins there never does
_SIZES = frozenset(
    "image_size patch_size embed_dim depth num_heads mlp_ratio drop_path_rate".split()
)
_MARKS = {"encoder.latent_tokens", "encoder.model.cls_token", "decoder.to_pixel.model.weight"}


class XQGAN(Family):
    name = "xqgan"
    # Frozen teachers' own copies, and a layer that some options make and nothing uses.
    inert = ("semantic_model.*", "detail_model.*", "sem_linear.*", *INERT)

    # -- configs --------------------------------------------------------------------------------

    def recognizes(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:
        return set(keys) >= _MARKS

    def config(self, official: Mapping[str, Any]) -> dict[str, Any]:
        model = self._model(official)
        for side in ("enc_type", "dec_type"):
            if model.get(side, "cnn") != "dinov2":
                raise ConfigError(
                    f"{self.name}: {side} {model.get(side, 'cnn')!r}; expected dinov2: only the "
                    "ViT of this family is read (its CNN does not work with product_quant)"
                )
        tuned = [official.get(f"{side}_tuning_method", "full") for side in ("enc", "dec")]
        if official.get("finetune") and not {*tuned} <= {"full", "frozen"}:
            raise ConfigError(
                f"{self.name}: enc_tuning_method, dec_tuning_method: got {', '.join(tuned)}; "
                "expected full or frozen: merge the LoRA weights into the layers first"
            )
        encoder, decoder = (_backbone(official, model, side) for side in ("encoder", "decoder"))
        branches = _number(model, "product_quant", 1)
        side = math.isqrt(count := _number(model, "num_latent_tokens", 256))
        if side * side != count:
            raise ConfigError(
                f"{self.name}: num_latent_tokens {count}; expected the square of a number: the "
                "latents of a branch lie on a square grid"
            )
        shared = flag(model, "abs_pos_embed", False)
        return {
            "image_size": encoder["image_size"],
            "encoder": {
                **_vit(encoder),
                "latents": {
                    "grid": [side, side],
                    "branches": branches,
                    "positions": "shared" if shared else True,
                    "levels": shared,
                },
            },
            "quantizer": quantizers.tree(model, branches),
            "decoder": {
                **_vit(decoder),
                "value_positions": "shared" if shared else "own",
                "value_class_token": shared,
                "levels": shared,
                "head": {"kind": "pixels", "gain": 1.0},
            },
            "regularizers": [
                *quantizers.dropout(model, branches),
                *(_perturbation(official) if branches == 1 else []),
            ],
        }

    def _model(self, official: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of the official model: `model_args` with what stands beside it, or the flat
        config of a trainer."""
        own = official.get("model_args")
        if own is None:
            return dict(official)
        warn_of_unknown(self.name, own, _SILENT | _READ | quantizers.READ, "model_args.")
        return {**official, **own}

    def official(self, config: TokenizerConfig) -> dict[str, Any]:
        latents, sides = config.encoder.latents, config.image_size
        grid = latents.grid or (0,)
        if len({*grid}) > 1 or len(grid) != 2 or len({*sides}) > 1:
            raise ConfigError(
                f"{self.name}: latents on the grid {latents.grid} of images {sides}; expected "
                "squares: the official config knows no others"
            )
        tree: dict[str, Any] = {
            "enc_type": "dinov2",
            "dec_type": "dinov2",
            "semantic_guide": "none",
            "detail_guide": "none",
            "num_latent_tokens": cells(grid),
            "abs_pos_embed": latents.positions == "shared",
            "product_quant": latents.branches,
            **quantizers.official(config.quantizer, grid[0]),
            **quantizers.official_dropout(config.regularizers),
            **_official_perturbation(config.regularizers),
        }
        encoder, decoder = (_sizes(part, sides[0]) for part in (config.encoder, config.decoder))
        names = {name: _named(name) for name in SIZES}
        if encoder in names.values() and decoder in names.values():
            tree["encoder_model"] = next(name for name in names if names[name] == encoder)
            tree["decoder_model"] = next(name for name in names if names[name] == decoder)
            return tree
        tree["backbone"] = encoder
        return tree if decoder == encoder else tree | {"decoder_backbone": decoder}

    # -- keys -----------------------------------------------------------------------------------

    def entries(self, config: TokenizerConfig) -> list[Entry]:
        return [
            same("encoder.latent_tokens", "encoder.latent_tokens", **squeeze(0)),
            *_trunk("encoder", config.encoder, config.encoder.latents.levels),
            *pair("encoder.patch_embed.proj", "encoder.model.patch_embed.proj"),
            same("encoder.proj.weight", "quant_conv.weight", **squeeze(2, 3)),
            same("encoder.proj.bias", "quant_conv.bias"),
            *quantizers.entries(config.quantizer),
            same("decoder.embed.weight", "post_quant_conv.weight", **squeeze(2, 3)),
            same("decoder.embed.bias", "post_quant_conv.bias"),
            same("decoder.mask_token", "decoder.mask_token", **squeeze(0, 1)),
            *_trunk("decoder", config.decoder, config.decoder.levels),
            *pair("decoder.head.proj", "decoder.to_pixel.model"),
        ]

    def fixed(self, config: TokenizerConfig) -> dict[str, Tensor]:
        tensors = quantizers.fixed(config.quantizer)
        latents = config.encoder.latents
        if not latents.levels:
            return tensors
        each = cells(latents.grid)
        for side, patches, kinds in (
            ("encoder", config.encoder.patches, [each] * latents.branches),
            ("decoder", config.decoder.patches, [each + 1]),
        ):
            images = math.prod(length // patches.size for length in config.image_size)
            counts = torch.tensor([images + 1, *kinds])
            tensors[f"{side}.lvl1LC"] = torch.arange(len(counts)).repeat_interleave(counts)[None]
        return tensors

    def _release(
        name: str, file: str, recipe: str, hub: str = "qiuk6/RobusTok", **own: Any
    ) -> Release:
        own = {"config": MAIN_TRAINING, "protocol": published.XQGAN, **own}
        named = (f"tokenizers/robustok/{recipe}",)
        return Release(name, hub, file, LICENSE, recipe=named, research_only=True, **own)

    releases = (
        _release("robustok-main", "main-train.pt", "robustok", rfid=1.02, gfid=1.60),
        _release(
            "robustok-post",
            "post-train.pt",
            "robustok_post",
            config={**MAIN_TRAINING, "beta": 0.0},
            gfid=1.36,
        ),
        _release(
            "robusttok-zero",
            "RobustTok-zero.pt",
            "robustok_zero",
            hub="qiuk6/RobustTok",
            config={**MAIN_TRAINING, "end_ratio": 0.0},
        ),
        *RELEASES,
    )


def _number(model: Mapping[str, Any], key: str, default: int) -> int:
    value = model.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"xqgan: {key}: got {value!r}; expected a number of 1 or more")
    return value


def _backbone(
    official: Mapping[str, Any], model: Mapping[str, Any], side: str
) -> Mapping[str, Any]:
    """Sizes of the ViT of a side: those under `backbone`, else of the named DINOv2."""
    given = official.get("decoder_backbone") if side == "decoder" else None
    given = given or official.get("backbone")
    if given is not None:
        warn_of_unknown("xqgan", given, _SIZES, "backbone.")
        return given
    name = model.get(f"{side}_model", next(iter(SIZES)))
    if name not in SIZES:
        raise ConfigError(f"xqgan: {side}_model {name!r}; expected one of {', '.join(SIZES)}")
    size = official.get("image_size", IMAGE_SIZE)
    if size != IMAGE_SIZE:
        raise ConfigError(
            f"xqgan: image_size {size!r}; expected {IMAGE_SIZE}: the official ViT is built for it"
        )
    return _named(name)


def _vit(backbone: Mapping[str, Any]) -> dict[str, Any]:
    """Config of what encoder and decoder share."""
    return {
        "kind": "vit",
        "patches": {
            "size": backbone["patch_size"],
            "positions": "learned",
            "class_token": True,
        },
        "transformer": {
            "width": backbone["embed_dim"],
            "depth": backbone["depth"],
            "heads": backbone["num_heads"],
            "mlp": "gelu",
            "mlp_ratio": backbone.get("mlp_ratio", MLP_RATIO),
            "norm": "layernorm",
            "norm_eps": 1e-6,
            "layer_scale": 1e-5,
            "drop_path": backbone.get("drop_path_rate", DROP_PATH),
            "init": "torch",
            "branch_scale": "none",
        },
        "token_std": "small",
    }


def _named(name: str) -> dict[str, Any]:
    """All sizes of a side that the name of a DINOv2 stands for."""
    return {"image_size": IMAGE_SIZE, "patch_size": PATCH_SIZE, **SIZES[name]}


def _sizes(part: Any, image_size: int) -> dict[str, Any]:
    """The inverse of `_vit`, without what is as the official code has it."""
    sizes = {
        "image_size": image_size,
        "patch_size": part.patches.size,
        "embed_dim": part.transformer.width,
        "depth": part.transformer.depth,
        "num_heads": part.transformer.heads,
    }
    if part.transformer.drop_path != DROP_PATH:
        sizes["drop_path_rate"] = part.transformer.drop_path
    if part.transformer.mlp_ratio != MLP_RATIO:
        sizes["mlp_ratio"] = part.transformer.mlp_ratio
    return sizes


def _perturbation(official: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Latent perturbation as a trainer's config has it; the images are ours to choose: the original
    takes the first of each process."""
    alpha, beta = official.get("alpha", 0.0), official.get("beta", 0.0)
    if not alpha or not beta:
        return []
    ends = [float(official.get(f"anneal_{end}", 200)) for end in ("start", "end")]
    return [
        {
            "kind": "latent_perturbation",
            "rate": alpha,
            "proportion": beta,
            "neighbours": official.get("delta", 100),
            "anneal": ends,
            "end_ratio": official.get("end_ratio", 0.5),
        }
    ]


def _official_perturbation(regularizers: Iterable[Any]) -> dict[str, Any]:
    """The inverse of `_perturbation`."""
    for part in regularizers:
        if part.kind == "latent_perturbation":
            never = (_NEVER, _NEVER)
            start, end = never if part.anneal is None else part.anneal
            return {
                "alpha": part.rate,
                "beta": part.proportion,
                "delta": part.neighbours,
                "anneal_start": start,
                "anneal_end": end,
                "end_ratio": part.end_ratio,
            }
    return {}


def _trunk(side: str, part: Any, levels: bool) -> list[Entry]:
    """Class token, tables, blocks and norm, named alike on both sides."""
    own, theirs = "latent_positions", f"{side}.latent_pos_embed"
    table = [
        same(f"{side}.levels", f"{side}.lvl_embed.weight")
        if levels
        else same(f"{side}.{own}", theirs, **squeeze(0)),
        same(f"{side}.class_token", f"{side}.model.cls_token", **squeeze(0, 1)),
        same(f"{side}.positions.table", f"{side}.model.pos_embed", **squeeze(0)),
        *pair(f"{side}.transformer.norm", f"{side}.model.norm"),
    ]
    for i in range(part.transformer.depth):
        ours, theirs = f"{side}.transformer.blocks.{i}", f"{side}.model.blocks.{i}"
        table += [
            *pair(f"{ours}.norm_attention", f"{theirs}.norm1"),
            *pair(f"{ours}.attention.qkv", f"{theirs}.attn.qkv"),
            *pair(f"{ours}.attention.out", f"{theirs}.attn.proj"),
            same(f"{ours}.scale_attention.gamma", f"{theirs}.ls1.gamma"),
            *pair(f"{ours}.norm_mlp", f"{theirs}.norm2"),
            *pair(f"{ours}.mlp.up", f"{theirs}.mlp.fc1"),
            *pair(f"{ours}.mlp.out", f"{theirs}.mlp.fc2"),
            same(f"{ours}.scale_mlp.gamma", f"{theirs}.ls2.gamma"),
        ]
    return table
