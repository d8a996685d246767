"""VFRTok (arXiv 2505.12053, KwaiVGI/VFRTok): clips of one duration at any frame rate.

A config is the official YAML (or the one that the recordings carry: `patch` for both patch sizes,
sizes of the ViT under `vit`). The release is a plain autoencoder ("AE-16"). The original's encoder
ignores `use_ape`: it adds its position table unless `variable_num_frames`, and the decoder obeys
`use_ape`; so each side has `patches.positions` of its own here. Tables that nothing reads, and the
decoder's patch embedding, are carried along.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from vistok.config import ConfigError
from vistok.layers.patch_rotary import frames_of
from vistok.pretrained.base import (
    Entry,
    Family,
    Release,
    changed,
    flag,
    pair,
    same,
    squeeze,
    warn_of_unknown,
)
from vistok.tokenizer import TokenizerConfig

SIZES = {  # width, depth, heads
    "vit_small_patch14_dinov2.lvd142m": (384, 12, 6),
    "vit_base_patch14_dinov2.lvd142m": (768, 12, 12),
    "vit_large_patch14_dinov2.lvd142m": (1024, 24, 16),
}
_LICENSE = "MIT (code); weights without terms of their own: see the hub's page"
_ANCHOR = 24.0  # frames per second of `num_frames`
_NAMES = {"encoder": "enc", "decoder": "dec"}
_READ = frozenset(
    "image_size num_frames variable_num_frames codebook_embed_dim num_latent_tokens model enc_type "
    "dec_type encoder_model decoder_model encoder_patch_size decoder_patch_size enc_patch_size "
    "dec_patch_size patch t_patch_size use_ape use_rope rope_dim rope_heads rope_theta "
    "rope_theta_t to_pixel dec_cls_token vit period kl_loss_weight enc_drop_path_rate "
    "dec_drop_path_rate".split()
)
# What changes the network and no release has, with the value that leaves it as it is.
_REFUSED: dict[str, Any] = {
    "rope_mixed": False,
    "rope_layers": None,
    "dec_seperate_mask_token": False,
    "use_coord_mlp": False,
    "enc_token_drop": 0.0,
    "latent_token_drop_max": 0.0,
    "dropout_p": 0.0,
    "to_pixel": "linear",
    "enc_type": "vit",
    "dec_type": "vit",
    "encoder_tuning_method": "full",
    "decoder_tuning_method": "full",
    "enc_tuning_method": "full",
    "dec_tuning_method": "full",
}
# Of training and of where weights come from; rates of a recording.
_SILENT = frozenset(
    "base_image_size encoder_pretrained decoder_pretrained enc_pretrained dec_pretrained "
    "enc_token_drop_max fps_a fps_b frames_a frames_b codebook_size codebook_l2_norm "
    "codebook_show_usage commit_loss_beta entropy_loss_ratio vq_loss_ratio tau "
    "num_codebooks".split()
)
_BASE = {
    "image_size": 256,
    "period": 0.6666666666667,
    "num_frames": 16,
    "variable_num_frames": True,
    "model": "AE-16",
    "encoder_model": "vit_base_patch14_dinov2.lvd142m",
    "decoder_model": "vit_base_patch14_dinov2.lvd142m",
    "encoder_patch_size": 8,
    "decoder_patch_size": 8,
    "t_patch_size": 4,
    "rope_heads": 6,
    "rope_theta": 10000.0,
    "rope_theta_t": 10000.0,
    "to_pixel": "linear",
    "use_ape": False,
    "use_rope": True,
}


class VFRTok(Family):
    name = "vfrtok"
    inert = (
        *("encoder.model.pos_embed", "decoder.model.pos_embed", "decoder.model.patch_embed.*"),
        *("scale.*", "de_scale.*", "quantize.*"),
    )

    def recognizes(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:
        own = {"encoder.latent_tokens", "decoder.mask_token", "decoder.to_pixel.model.weight"}
        keys = set(keys)
        said = not config or {"t_patch_size", "num_latent_tokens"} <= set(config)
        return said and keys >= own | {"quant_conv.weight", "encoder.model.blocks.0.ls1.gamma"}

    def constants(self, state: Mapping[str, Tensor]) -> Mapping[str, Any] | None:
        """The releases' config of these weights: they differ in the tokens, which shapes say."""
        if (
            not self.recognizes({}, state)
            or state["encoder.model.patch_embed.proj.weight"].ndim < 5
        ):
            return None
        channels, width = state["quant_conv.weight"].shape
        if width != SIZES[_BASE["encoder_model"]][0]:
            return None
        count = state["encoder.latent_tokens"].shape[1]
        return {**_BASE, "num_latent_tokens": count, "codebook_embed_dim": channels}

    def config(self, official: Mapping[str, Any]) -> dict[str, Any]:
        kind = official.get("model", "AE-16")
        if kind not in ("AE-16", "KL-16"):
            raise ConfigError(
                f"{self.name}: model={kind!r}: no release has it; expected AE-16 or KL-16"
            )
        for key, value in _REFUSED.items():
            if key in official and official[key] not in (value, None):
                raise ConfigError(
                    f"{self.name}: {key}={official[key]!r}: no release has it, and its network is "
                    f"not here; expected {value!r}"
                )
        warn_of_unknown(self.name, official, _READ | _SILENT | set(_REFUSED))
        variable = flag(official, "variable_num_frames", False)
        frames, patch = official.get("num_frames", 1), official.get("t_patch_size", 1)
        clip = frames > 1 or variable
        period = official.get("period")
        if variable and period is not None and frames_of(period, _ANCHOR, patch) != frames:
            warnings.warn(
                f"{self.name}: period={period} is not that of num_frames={frames} at {_ANCHOR:g} "
                "frames per second, for which the tokens stand here; it changes nothing",
                stacklevel=2,
            )
        if frames % patch:
            raise ConfigError(
                f"{self.name}: num_frames={frames} is no multiple of t_patch_size={patch}"
            )
        learned = {"encoder": not variable, "decoder": flag(official, "use_ape", True)}
        if learned["decoder"] and not flag(official, "dec_cls_token", True):
            raise ConfigError(
                f"{self.name}: dec_cls_token=False with use_ape=True: the original's table has a "
                "row too many, so that it cannot run; expected one of them otherwise"
            )
        sides = {side: self._side(official, side, learned[side], clip) for side in _NAMES}
        count, dim = official.get("num_latent_tokens", 256), official.get("codebook_embed_dim", 8)
        quantizer: dict[str, Any] = {"kind": "none", "dim": dim}
        if kind == "KL-16":
            weight = official.get("kl_loss_weight", 1e-6)
            quantizer = {"kind": "kl", "dim": dim, "loss_weights": {"kl": weight}}
        return {
            "image_size": official.get("image_size", 256),
            "frames": frames if clip else None,
            "encoder": {
                **sides["encoder"],
                "latents": {"count": count, "positions": True},
                "token_std": "constant",
            },
            "quantizer": quantizer,
            "decoder": {
                **sides["decoder"],
                "head": {"kind": "pixels", "gain": 1.0},
                "token_std": "small",
            },
        }

    def _side(
        self, official: Mapping[str, Any], side: str, learned: bool, clip: bool
    ) -> dict[str, Any]:
        """Config of what encoder and decoder share."""
        short = _NAMES[side]
        given = official.get("patch", 16)
        size = official.get(f"{side}_patch_size", official.get(f"{short}_patch_size", given))
        own = official.get("vit")
        if own is not None:
            width, depth, heads = own["embed_dim"], own["depth"], own["num_heads"]
        else:
            name = official.get(f"{side}_model")
            if name not in SIZES:
                raise ConfigError(
                    f"{self.name}: {side}_model={name!r}; expected one of {', '.join(SIZES)}"
                )
            width, depth, heads = SIZES[name]
        rotary = None
        if flag(official, "use_rope", False):
            rotary = {
                "heads": official.get("rope_heads"),
                "theta": official.get("rope_theta", 10.0),
                "theta_time": official.get("rope_theta_t", 100.0),
                "dim": official.get("rope_dim") or None,
                "reads_fps": flag(official, "variable_num_frames", False),
            }
        return {
            "kind": "vit",
            "patches": {
                "size": size,
                "frames": official.get("t_patch_size", 1) if clip else 1,
                "positions": "learned" if learned else "none",
                "class_token": side == "encoder" or flag(official, "dec_cls_token", True),
            },
            "rotary": rotary,
            "transformer": {
                "width": width,
                "depth": depth,
                "heads": heads,
                "mlp": "gelu",
                "mlp_ratio": 4.0,
                "norm": "layernorm",
                "norm_eps": 1e-6,
                "layer_scale": 1e-5,
                "drop_path": official.get(f"{short}_drop_path_rate", 0.0),
                "init": "trunc_normal",
                "branch_scale": "none",
            },
        }

    def official(self, config: TokenizerConfig) -> dict[str, Any]:
        encoder, decoder, quantizer = config.encoder, config.decoder, config.quantizer
        if encoder.kind != "vit" or decoder.kind != "vit" or quantizer.kind not in ("none", "kl"):
            self.refuse([f"quantizer.kind={quantizer.kind}"])
        trunk, rotary = encoder.transformer, encoder.rotary
        official = {
            "model": "AE-16" if quantizer.kind == "none" else "KL-16",
            "vit": {"embed_dim": trunk.width, "depth": trunk.depth, "num_heads": trunk.heads},
            "image_size": config.image_size[0],
            "num_frames": config.frames or 1,
            "variable_num_frames": encoder.patches.positions == "none",
            "codebook_embed_dim": quantizer.dim,
            "num_latent_tokens": encoder.latents.count,
            "encoder_patch_size": encoder.patches.size,
            "decoder_patch_size": decoder.patches.size,
            "t_patch_size": encoder.patches.frames,
            "use_ape": decoder.patches.positions == "learned",
            "use_rope": rotary is not None,
            "dec_cls_token": decoder.patches.class_token,
            "enc_drop_path_rate": trunk.drop_path,
            "dec_drop_path_rate": decoder.transformer.drop_path,
        }
        if quantizer.kind == "kl":
            official["kl_loss_weight"] = quantizer.loss_weights.get("kl", 0.0)
        if rotary is not None:
            official |= {"rope_theta": rotary.theta, "rope_theta_t": rotary.theta_time}
            official |= {"rope_heads": rotary.heads, "rope_dim": rotary.dim}
        back = TokenizerConfig.model_validate(self.config(official)).model_dump()
        mine = config.model_dump()
        wrong = [
            one
            for part in ("encoder", "decoder", "quantizer")
            for one in changed(part, mine[part], back[part], ("token_std", "transformer", "taps"))
        ]
        but = ("init", "init_std", "branch_scale", "layer_scale")
        for part in ("encoder", "decoder"):
            own, theirs = mine[part]["transformer"], back[part]["transformer"]
            wrong += changed(f"{part}.transformer", own, theirs, but)
        spaces = ("input_space", "output_space", "image_size", "frames")
        wrong += [f"{key}={mine[key]}" for key in spaces if mine[key] != back[key]]
        self.refuse(wrong)
        return official

    def entries(self, config: TokenizerConfig) -> list[Entry]:
        return [
            same("encoder.latent_tokens", "encoder.latent_tokens", **squeeze(0)),
            _kernel(config),
            same("encoder.patch_embed.proj.bias", "encoder.model.patch_embed.proj.bias"),
            *_trunk("encoder", config.encoder),
            *pair("encoder.proj", "quant_conv"),
            *pair("decoder.embed", "post_quant_conv"),
            same("decoder.mask_token", "decoder.mask_token", **squeeze(0, 1)),
            *_trunk("decoder", config.decoder),
            *pair("decoder.head.proj", "decoder.to_pixel.model"),
        ]

    releases = tuple(
        Release(
            f"vfrtok-{size}", "KwaiVGI/VFRTok", f"vfrtok-{size}.bin", _LICENSE,
            {**_BASE, "num_latent_tokens": count, "codebook_embed_dim": channels},
            recipe=(f"tokenizers/vfrtok/vfrtok_{size}_stage3",),
        )
        for size, count, channels in (("l", 512, 32), ("s", 128, 128))
    )  # fmt: skip


def _kernel(config: TokenizerConfig) -> Entry:
    """The patch embedding: one of single frames there, where a patch has one frame of a clip."""
    how = squeeze()
    if config.frames is not None and config.encoder.patches.frames == 1:
        how = {"load": lambda kernel: kernel.unsqueeze(2), "save": lambda own: (own.squeeze(2),)}
    return same("encoder.patch_embed.proj.weight", "encoder.model.patch_embed.proj.weight", **how)


def _trunk(side: str, part: Any) -> list[Entry]:
    """Class token, tables, blocks and norm, named alike on both sides."""
    table = [
        same(f"{side}.latent_positions", f"{side}.latent_pos_embed", **squeeze(0)),
        *pair(f"{side}.transformer.norm", f"{side}.model.norm"),
    ]
    if part.patches.class_token:
        table.append(same(f"{side}.class_token", f"{side}.model.cls_token", **squeeze(0, 1)))
    if part.patches.positions == "learned":
        table.append(same(f"{side}.positions.table", f"{side}.model.pos_embed", **squeeze(0)))
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
