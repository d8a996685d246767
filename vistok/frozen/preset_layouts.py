"""Key layouts of the presets' weight files -> one set of names: timm's.

Read are the official files (DINOv2, MAE, ConvNeXt V2), timm's, and those of transformers. Keys that
no layout has stay as they are, so that the reader can name them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

# Halves of a file that features do not need: texts, decoders, heads of classifiers, masked patches.
_UNUSED = re.compile(
    r"(text_model|text_projection|logit_scale|logit_bias|decoder|decoder_\w+)\b.*"
    r"|(embeddings\.)?mask_token|.*position_ids"
)
_WRAPPERS = ("vit.", "vision_model.")
_OUTSIDE = {
    "embeddings.cls_token": "cls_token",
    "embeddings.class_embedding": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.position_embedding.weight": "pos_embed",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "embeddings.patch_embedding.weight": "patch_embed.proj.weight",
    "embeddings.patch_embedding.bias": "patch_embed.proj.bias",
    "visual_projection.weight": "head.weight",
    "head.probe": "attn_pool.latent",
}
_NAMES = {  # transformers -> timm, of whole layers outside and inside of blocks
    "pre_layrnorm": "norm_pre",
    "post_layernorm": "norm",
    "layernorm": "norm",
    "head.attention.out_proj": "attn_pool.proj",
    "head.layernorm": "attn_pool.norm",
    "head.mlp.fc1": "attn_pool.mlp.fc1",
    "head.mlp.fc2": "attn_pool.mlp.fc2",
}
_BLOCK = {
    "norm1": "norm1",
    "layer_norm1": "norm1",
    "layernorm_before": "norm1",
    "norm2": "norm2",
    "layer_norm2": "norm2",
    "layernorm_after": "norm2",
    "self_attn.out_proj": "attn.proj",
    "attention.output.dense": "attn.proj",
    "attention.o_proj": "attn.proj",
    "mlp.fc1": "mlp.fc1",
    "intermediate.dense": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "output.dense": "mlp.fc2",
    "layer_scale1": "ls1",
    "layer_scale2": "ls2",
}
_OURS = (  # vistok's layers -> timm
    ("transformer.norm.", "norm."),
    ("transformer.", ""),
    ("norm_attention", "norm1"),
    ("attention.qkv", "attn.qkv"),
    ("attention.out", "attn.proj"),
    ("scale_attention", "ls1"),
    ("norm_mlp", "norm2"),
    ("mlp.up", "mlp.fc1"),
    ("mlp.out", "mlp.fc2"),
    ("scale_mlp", "ls2"),
)


def official_name(key: str) -> str:
    """timm's name of a parameter of `PresetViT`."""
    for ours, theirs in _OURS:
        key = key.replace(ours, theirs)
    return key


def vit_names(state: Mapping[str, Tensor], projection: bool = False) -> dict[str, Tensor]:
    """A ViT's state in any of the layouts -> timm's names and shapes.

    Args:
        projection: the network ends in a projection (`head`); else a head is a classifier's and is
            left out.
    """
    state = {key: tensor for key, tensor in state.items() if not _UNUSED.fullmatch(key)}
    named: dict[str, Tensor] = {}
    apart: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        for wrapper in _WRAPPERS:
            key = key.removeprefix(wrapper)
        layer, _, last = key.rpartition(".")
        block = re.fullmatch(r"encoder\.layers?\.(\d+)\.(.+)", layer)
        if key in _OUTSIDE:
            named[_OUTSIDE[key]] = tensor
        elif layer in _NAMES:
            named[f"{_NAMES[layer]}.{last}"] = tensor
        elif re.fullmatch(r"head\.attention\.in_proj_(weight|bias)", key):
            width = len(tensor) // 3
            end = key.rpartition("_")[2]
            named[f"attn_pool.q.{end}"] = tensor[:width]
            named[f"attn_pool.kv.{end}"] = tensor[width:]
        elif block is None:
            named[key] = tensor
        elif part := re.fullmatch(r"(?:self_attn|attention(?:\.attention)?)\.([qkv])\w*", block[2]):
            apart.setdefault(f"blocks.{block[1]}.attn.qkv.{last}", {})[part[1]] = tensor
        elif block[2] in _BLOCK:
            last = "gamma" if last == "lambda1" else last
            named[f"blocks.{block[1]}.{_BLOCK[block[2]]}.{last}"] = tensor
        else:
            named[key] = tensor
    for key, parts in apart.items():
        named[key] = torch.cat([parts[name] for name in "qkv" if name in parts])
    if named.get("cls_token", torch.empty(1, 1, 1)).ndim == 1:
        named["cls_token"] = named["cls_token"][None, None]
    if named.get("pos_embed", torch.empty(1, 1, 1)).ndim == 2:
        named["pos_embed"] = named["pos_embed"][None]
    return _without_head(named, projection)


def _without_head(named: dict[str, Tensor], projection: bool) -> dict[str, Tensor]:
    """Leave out a classifier, and the bias of zeros that timm gives to a projection."""
    bias = named.get("head.bias")
    if not projection:
        named.pop("head.weight", None)
    if bias is not None and (not projection or not bias.any()):
        named.pop("head.bias")
    return named


_CONVNEXT = (  # ConvNeXt V2's official files and those of transformers -> timm
    (r"downsample_layers\.0\.(\d)", r"stem.\1"),
    (r"downsample_layers\.(\d)\.(\d)", r"stages.\1.downsample.\2"),
    (r"embeddings\.patch_embeddings", r"stem.0"),
    (r"embeddings\.layernorm", r"stem.1"),
    (r"(?:encoder\.)?stages\.(\d)\.downsampling_layer", r"stages.\1.downsample"),
    (r"(?:encoder\.)?stages\.(\d)\.(?:layers\.)?(\d+)\.", r"stages.\1.blocks.\2."),
)
_CONVNEXT_LAYERS = (
    ("dwconv", "conv_dw"),
    ("layernorm", "norm"),
    ("pwconv1", "mlp.fc1"),
    ("pwconv2", "mlp.fc2"),
    ("grn.gamma", "mlp.grn.weight"),
    ("grn.beta", "mlp.grn.bias"),
    ("grn.weight", "mlp.grn.weight"),
    ("grn.bias", "mlp.grn.bias"),
)


def convnext_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A ConvNeXt V2's state in any of the layouts -> timm's names, without the classifier."""
    named = {}
    for key, tensor in state.items():
        key = key.removeprefix("convnextv2.")
        if re.fullmatch(r"(head|classifier)\..+|(layer)?norm\.(weight|bias)", key):
            continue  # the classifier and its norm, behind the features
        if ".mlp." not in key:  # timm's names already
            for pattern, name in _CONVNEXT:
                key = re.sub(f"^{pattern}", name, key)
        layer = re.fullmatch(r"(stages\.\d\.blocks\.\d+\.)(.+)", key)
        if layer is not None and not layer[2].startswith("mlp."):
            last = layer[2]
            for theirs, name in _CONVNEXT_LAYERS:
                if last == theirs or last.startswith(f"{theirs}."):
                    last = name + last.removeprefix(theirs)
                    break
            key = layer[1] + last
        named[key] = tensor.flatten() if ".grn." in key else tensor
    return named
