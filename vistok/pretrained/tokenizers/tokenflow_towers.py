"""The vision towers of TokenFlow's three teachers: configs, and keys as the teachers' releases have
them: OpenAI's CLIP, SigLIP of transformers, ViTamin of timm.

A checkpoint holds the whole network that the semantic branch began as. SigLIP's last block, its
last norm and its pooling head are frozen there and nobody reads them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vistok.config import ConfigError
from vistok.frozen.vitamin import vitamin_names
from vistok.pretrained.base import Entry, pair, same
from vistok.storage.weights import WeightsError

CLIP, VITAMIN, SIGLIP = "clipb_224", "vitamin_xlarge_256", "siglip_384"
TEACHERS: dict[str, dict[str, Any]] = {
    CLIP: {"embed_dim": 768, "grid": 14, "decoder_out_dim": 512, "encoder_depth": 12},
    VITAMIN: {"embed_dim": 1152, "grid": 16, "decoder_out_dim": 1152, "encoder_depth": 32},
    SIGLIP: {"embed_dim": 1152, "grid": 27, "decoder_out_dim": 1152, "encoder_depth": 27},
}
"""Constants of the official source; the depth is that of the whole network."""
_PATCH = {CLIP: 16, VITAMIN: 16, SIGLIP: 14}
_HEAD = {CLIP: 64, VITAMIN: 72, SIGLIP: 72}  # channels of a head
_VISION = "encoder_vqkd.vision_model"
UNREAD = (
    f"{_VISION}.encoder.layers.*",  # the last; `observed` looks at the names of all
    f"{_VISION}.post_layernorm.*",
    f"{_VISION}.head.*",
    f"{_VISION}.embeddings.position_ids",
)
_SIGLIP_LAYER = {
    "layer_norm1": "norm_attention",
    "self_attn.out_proj": "attention.out",
    "layer_norm2": "norm_mlp",
    "mlp.fc1": "mlp.up",
    "mlp.fc2": "mlp.out",
}
_CLIP_LAYER = {
    "ln_1": "norm_attention",
    "attn.out_proj": "attention.out",
    "ln_2": "norm_mlp",
    "mlp.c_fc": "mlp.up",
    "mlp.c_proj": "mlp.out",
}


def teacher_of(state: Mapping[str, Tensor]) -> str | None:
    """The teacher whose layout a checkpoint has."""
    marks = {
        "encoder_vqkd.conv1.weight": CLIP,
        f"{_VISION}.embeddings.patch_embedding.weight": SIGLIP,
        "encoder_vqkd.patch_embed.backbone.stem.conv1.weight": VITAMIN,
    }
    return next((teacher for key, teacher in marks.items() if key in state), None)


def tower_sizes(teacher: str, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What only the weights say of a tower: its depth, patches and convolutions.

    WeightsError for a key inside of SigLIP's blocks that none of them has.
    """
    places = {
        CLIP: r"encoder_vqkd\.transformer\.resblocks\.(\d+)\.",
        VITAMIN: r"encoder_vqkd\.blocks\.(\d+)\.",
        SIGLIP: rf"{re.escape(_VISION)}\.encoder\.layers\.(\d+)\.",
    }
    found = [match for key in state if (match := re.match(places[teacher], key))]
    if not found:
        return {}
    sizes: dict[str, Any] = {"encoder_depth": 1 + max(int(match[1]) for match in found)}
    if teacher == SIGLIP:
        known = {f"{n}.{k}" for n in _layer_names() for k in ("weight", "bias")}
        wrong = [match for match in found if match.string[match.end() :] not in known]
        if wrong:
            raise WeightsError(f"unexpected {wrong[0].string}; SigLIP's blocks have no such tensor")
        sizes["encoder_patch"] = state[f"{_VISION}.embeddings.patch_embedding.weight"].shape[-1]
    elif teacher == CLIP:
        sizes["encoder_patch"] = state["encoder_vqkd.conv1.weight"].shape[-1]
    else:
        sizes["encoder_stem"] = _stem_sizes(state)
    return sizes


def _stem_sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    place = "encoder_vqkd.patch_embed.backbone"
    stages = [
        {key.split(".")[5] for key in state if key.startswith(f"{place}.stages.{number}.")}
        for number in range(2)
    ]
    narrow = [state[f"{place}.stages.{n}.0.conv3_1x1.weight"].shape for n in range(2)]
    return {
        "stem": len(state[f"{place}.stem.conv1.weight"]),
        "channels": [shape[0] for shape in narrow],
        "blocks": [len(blocks) for blocks in stages],
        "expand": narrow[0][1] // narrow[0][0],
    }


def patch_of(official: Mapping[str, Any]) -> int:
    """Pixels of a side of a cell."""
    return official.get("encoder_patch", _PATCH[official["teacher"]])


def tower_tree(official: Mapping[str, Any]) -> dict[str, Any]:
    """Config of the tower of an official config, whose constants are all given."""
    teacher, width = official["teacher"], official["embed_dim"]
    heads = official.get("encoder_heads", max(1, width // _HEAD[teacher]))
    inner: dict[str, Any] = {
        "width": width,
        "depth": official["encoder_depth"],
        "heads": heads,
        "norm_eps": 1e-6,
        "init": "trunc_normal",
    }
    tree: dict[str, Any] = {"patch": patch_of(official), "transformer": inner}
    if teacher == CLIP:
        inner |= {"mlp": "quick_gelu", "norm_eps": 1e-5}
        return tree | {"positions": official["grid"]}
    tree |= {"class_token": False, "norm_in": False}
    inner["norm_out"] = False
    if teacher == VITAMIN:
        inner |= {"mlp": "geglu", "mlp_ratio": 2.0}
        stem = {"norm_eps": 1e-6} | dict(official.get("encoder_stem", {}))
        return tree | {"stem": stem, "positions": None, "mlp_norm": True}
    if inner["depth"] < 2:
        raise ConfigError(
            f"tokenflow: encoder_depth={inner['depth']}: features are those in front of SigLIP's "
            "last block; expected 2 or more"
        )
    ratio = official.get("encoder_mlp_ratio", 4304 / 1152)
    inner |= {"mlp": "gelu_tanh", "mlp_ratio": ratio, "depth": inner["depth"] - 1}
    return tree | {"patch_bias": True, "positions": official["grid"]}


def tower_official(teacher: str, tower: Any) -> dict[str, Any]:
    """The inverse of `tower_tree`."""
    inner = tower.transformer
    official = {
        "embed_dim": inner.width,
        "encoder_depth": inner.depth + (teacher == SIGLIP),
        "encoder_heads": inner.heads,
        "encoder_patch": tower.patch,
    }
    if teacher == VITAMIN and tower.stem is not None:
        official["encoder_stem"] = tower.stem.model_dump(mode="json", exclude={"norm_eps"})
    if teacher == SIGLIP:
        official["encoder_mlp_ratio"] = inner.mlp_ratio
    return official


def teacher_like(tower: Any) -> str:
    """The teacher that a tower's config is of."""
    if tower.stem is not None:
        return VITAMIN
    return CLIP if tower.class_token else SIGLIP


# -- keys -----------------------------------------------------------------------------------------


def tower_entries(teacher: str, tower: Any, ours: str) -> list[Entry]:
    """Key table of a tower."""
    tables = {CLIP: _clip, SIGLIP: _siglip, VITAMIN: _vitamin}
    return tables[teacher](tower, ours)


def unread(teacher: str, tower: Any) -> dict[str, Tensor]:
    """Tensors of a teacher that nobody reads, as zeros: an export of a model that was trained here
    has them, because the official code expects them."""
    if teacher != SIGLIP:
        return {}
    inner = tower.transformer
    width, hidden = inner.width, inner.hidden
    shapes = {"mlp.fc1.weight": (hidden, width), "mlp.fc1.bias": (hidden,)}
    shapes |= {"mlp.fc2.weight": (width, hidden)}
    for name in _layer_names():
        square = name.startswith("self_attn")
        shapes.setdefault(f"{name}.weight", (width, width) if square else (width,))
        shapes.setdefault(f"{name}.bias", (width,))
    head = {f"head.{key}": shape for key, shape in shapes.items() if key.startswith("mlp.")}
    layer = {f"encoder.layers.{inner.depth}.{key}": shape for key, shape in shapes.items()}
    rest = {
        "post_layernorm.weight": (width,),
        "post_layernorm.bias": (width,),
        "head.probe": (1, 1, width),
        "head.attention.in_proj_weight": (3 * width, width),
        "head.attention.in_proj_bias": (3 * width,),
        "head.attention.out_proj.weight": (width, width),
        "head.attention.out_proj.bias": (width,),
        "head.layernorm.weight": (width,),
        "head.layernorm.bias": (width,),
    }
    return {f"{_VISION}.{key}": torch.zeros(s) for key, s in (layer | rest | head).items()}


def _layer_names() -> list[str]:
    return [*_SIGLIP_LAYER, *(f"self_attn.{part}_proj" for part in "qkv")]


def _clip(tower: Any, ours: str) -> list[Entry]:
    theirs = "encoder_vqkd"
    table = [
        same(f"{ours}.patches.weight", f"{theirs}.conv1.weight"),
        same(f"{ours}.class_token", f"{theirs}.class_embedding"),
        same(f"{ours}.table", f"{theirs}.positional_embedding"),
        *pair(f"{ours}.norm_in", f"{theirs}.ln_pre"),
        *pair(f"{ours}.transformer.norm", f"{theirs}.ln_post"),
    ]
    for number in range(tower.transformer.depth):
        mine = f"{ours}.transformer.blocks.{number}"
        place = f"{theirs}.transformer.resblocks.{number}"
        for name, own in _CLIP_LAYER.items():
            table += pair(f"{mine}.{own}", f"{place}.{name}")
        for kind in ("weight", "bias"):
            qkv = f"{mine}.attention.qkv.{kind}"
            table.append(same(qkv, f"{place}.attn.in_proj_{kind}"))
    return table


def _siglip(tower: Any, ours: str) -> list[Entry]:
    table = [
        *pair(f"{ours}.patches", f"{_VISION}.embeddings.patch_embedding"),
        same(f"{ours}.table", f"{_VISION}.embeddings.position_embedding.weight"),
    ]
    for number in range(tower.transformer.depth):
        mine = f"{ours}.transformer.blocks.{number}"
        place = f"{_VISION}.encoder.layers.{number}"
        for name, own in _SIGLIP_LAYER.items():
            table += pair(f"{mine}.{own}", f"{place}.{name}")
        for kind in ("weight", "bias"):
            parts = tuple(f"{place}.self_attn.{part}_proj.{kind}" for part in "qkv")
            qkv = f"{mine}.attention.qkv.{kind}"
            table.append(Entry(qkv, parts, lambda *p: torch.cat(p), lambda own: own.chunk(3)))
    return table


def _vitamin(tower: Any, ours: str) -> list[Entry]:
    names = vitamin_names(tower)
    return [same(f"{ours}.{own}", f"encoder_vqkd.{theirs}") for own, theirs in names.items()]
