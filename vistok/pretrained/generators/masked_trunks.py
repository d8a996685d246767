"""MaskGIT's two networks as bytedance/1d-tokenizer builds them: HuggingFace's BERT, and U-ViT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from vistok.config import ConfigError
from vistok.layers.bert import BertConfig
from vistok.layers.uvit import UViTConfig
from vistok.pretrained.base import Entry, Stack, pair, same, squeeze

TRUNKS = {"ViT": BertConfig, "UViT": UViTConfig}
"""Configs of ours by the official names of the networks."""


def trunk_tree(model: Mapping[str, Any]) -> dict[str, Any]:
    """Config of a trunk, of the official model.generator."""
    kind = model.get("model_type", "ViT")
    if kind not in TRUNKS:
        raise ConfigError(f"maskgit: model_type: got {kind!r}; expected one of {', '.join(TRUNKS)}")
    width, hidden = model["hidden_size"], model["intermediate_size"]
    if not isinstance(width, int) or width < 1:
        raise ConfigError(f"maskgit: hidden_size: got {width!r}; expected a number of 1 or more")
    tree = {
        "width": width,
        "depth": model["num_hidden_layers"],
        "heads": model["num_attention_heads"],
        "mlp": "gelu",
    }
    if kind == "ViT":
        return {
            "kind": "bert",
            **tree,
            "mlp_ratio": hidden / width,
            "norm_eps": 1e-12,
            "dropout": model.get("dropout", 0.1),
            "attention_dropout": model.get("attn_drop", 0.1),
            "init": "normal",
        }
    # The official code computes the hidden width by its ratio, and drops nothing in these blocks.
    return {
        "kind": "uvit",
        **tree,
        "mlp_ratio": int(width * (hidden / width)) / width,
        "norm": "layernorm",
        "norm_eps": 1e-5,
        "qkv_bias": False,
        "attention_fp32": True,
        "init": "trunc_normal",
        "branch_scale": "none",
    }


def hidden_width(trunk: BertConfig | UViTConfig) -> int:
    """Hidden width of the feed-forward layers."""
    return trunk.hidden if isinstance(trunk, UViTConfig) else round(trunk.width * trunk.mlp_ratio)


def bert_entries(depth: int) -> list[Entry | Stack]:
    """Key table of a BERT of so many layers."""
    table = [
        same("trunk.positions", "model.embeddings.position_embeddings.weight"),
        Stack(
            "model.embeddings.token_type_embeddings.weight", (("trunk.token_type", 1), (None, 1))
        ),
        *pair("trunk.norm", "model.embeddings.LayerNorm"),
    ]
    names = {
        "attention.out": "attention.output.dense",
        "norm_attention": "attention.output.LayerNorm",
        "mlp.up": "intermediate.dense",
        "mlp.out": "output.dense",
        "norm_mlp": "output.LayerNorm",
    }
    for i in range(depth):
        ours, theirs = f"trunk.blocks.{i}", f"model.encoder.layer.{i}"
        for kind in ("weight", "bias"):
            three = tuple(
                f"{theirs}.attention.self.{name}.{kind}" for name in ("query", "key", "value")
            )
            table.append(
                Entry(
                    f"{ours}.attention.qkv.{kind}",
                    three,
                    load=lambda *parts: torch.cat(parts),
                    save=lambda tensor: tensor.chunk(3),
                )
            )
        for own, official in names.items():
            table += pair(f"{ours}.{own}", f"{theirs}.{official}")
    return table


def uvit_entries(half: int) -> list[Entry | Stack]:
    """Key table of a U-ViT with so many blocks before the one in the middle."""
    table = [same("trunk.positions", "pos_embed", **squeeze(0)), *pair("trunk.norm", "norm")]
    blocks = [(f"trunk.early.{i}", f"in_blocks.{i}") for i in range(half)]
    blocks += [("trunk.middle", "mid_block")]
    for i in range(half):
        table += pair(f"trunk.late.{i}.skip", f"out_blocks.{i}.skip_linear")
        blocks.append((f"trunk.late.{i}.block", f"out_blocks.{i}"))
    names = {
        "norm_attention": "norm1",
        "attention.out": "attn.proj",
        "norm_mlp": "norm2",
        "mlp.up": "mlp.fc1",
        "mlp.out": "mlp.fc2",
    }
    for ours, theirs in blocks:
        table.append(same(f"{ours}.attention.qkv.weight", f"{theirs}.attn.qkv.weight"))
        for own, official in names.items():
            table += pair(f"{ours}.{own}", f"{theirs}.{official}")
    return table
