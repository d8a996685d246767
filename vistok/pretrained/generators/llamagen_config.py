"""LlamaGen's configs of its GPT: of the model, or the trainer's arguments, and our tree of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vistok.config import ConfigError
from vistok.core.text import printable
from vistok.pretrained.base import flag

INERT = "freqs_cis"  # a table that the config makes; older files hold it
MODELS = {  # by the trainer's name: width, layers, heads
    "GPT-B": (768, 12, 12),
    "GPT-L": (1024, 24, 16),
    "GPT-XL": (1280, 36, 20),
    "GPT-XXL": (1536, 48, 24),
    "GPT-XXXL": (2560, 48, 40),
    "GPT-1B": (2048, 22, 32),
    "GPT-3B": (3200, 24, 32),
    "GPT-7B": (4096, 32, 32),
}
DEFAULTS: dict[str, Any] = {  # of the official code
    "n_kv_head": None,
    "multiple_of": 256,
    "ffn_dim_multiplier": None,
    "rope_base": 10000,
    "norm_eps": 1e-5,
    "initializer_range": 0.02,
    "token_dropout_p": 0.1,
    "attn_dropout_p": 0.0,
    "resid_dropout_p": 0.1,
    "ffn_dropout_p": 0.1,
    "drop_path_rate": 0.0,
    "num_classes": 1000,
    "caption_dim": 2048,
    "class_dropout_prob": 0.1,
    "model_type": "c2i",
    "vocab_size": 16384,
    "block_size": 256,
}
SIZES = frozenset({"dim", "n_layer", "n_head", "cls_token_num"})
SAMPLING = {"cfg_scale": 1.0, "cfg_interval": -1, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
# Of the script that samples captions: padding behind the text stays there.
SCRIPT = {"no_left_padding": False}
SILENT = frozenset({"max_batch_size", "max_seq_len"})  # of caches; no number depends on them


def translated(family: str, official: Mapping[str, Any]) -> dict[str, Any]:
    """A config under the names of the model; the trainer's arguments, if it has `gpt_model`, are
    told in them and the rest of them (paths, logging) is left out."""
    if "gpt_model" not in official:
        return dict(official)
    name = official["gpt_model"]
    if not isinstance(name, str) or name not in MODELS:
        raise ConfigError(
            f"{family}: gpt_model={printable(name)}; expected one of {', '.join(MODELS)}"
        )
    width, depth, heads = MODELS[name]
    found = {"dim": width, "n_layer": depth, "n_head": heads}
    known = {*DEFAULTS, *SIZES, *SAMPLING, *SCRIPT}
    found |= {key: value for key, value in official.items() if key in known}
    if "gpt_type" in official:
        found["model_type"] = official["gpt_type"]
    if "image_size" in official:
        side = official["image_size"] // official.get("downsample_size", 16)
        found["block_size"] = side * side
    if "dropout_p" in official:
        found |= dict.fromkeys(("resid_dropout_p", "ffn_dropout_p"), official["dropout_p"])
    if "drop_path" in official:  # so called in the trainer of captions
        found["drop_path_rate"] = official["drop_path"]
    return found


def transformer_tree(given: Mapping[str, Any]) -> dict[str, Any]:
    width, resid = given["dim"], given["resid_dropout_p"]
    hidden: dict[str, Any] = {"mlp_ratio": 4.0, "mlp_hidden": "two_thirds"}
    if given["ffn_dim_multiplier"] is not None:
        wide = int(given["ffn_dim_multiplier"] * int(2 * (4 * width) / 3))
        hidden = {"mlp_ratio": wide / width, "mlp_hidden": "round"}
    out = given["ffn_dropout_p"]
    return {
        "width": width,
        "depth": given["n_layer"],
        "heads": given["n_head"],
        "kv_heads": None if given["n_kv_head"] == given["n_head"] else given["n_kv_head"],
        "mlp": "swiglu",
        **hidden,
        "mlp_multiple": given["multiple_of"],
        "norm": "rmsnorm",
        "norm_eps": given["norm_eps"],
        "bias": False,
        "dropout": resid,
        "mlp_out_dropout": None if out == resid else out,
        "attention_dropout": given["attn_dropout_p"],
        "drop_path": given["drop_path_rate"],
        "init": "normal",
        "init_std": given["initializer_range"],
        "branch_scale": "none",
    }


def condition_tree(family: str, given: Mapping[str, Any]) -> dict[str, Any]:
    kind, count = given["model_type"], given.get("cls_token_num")
    dropout = given["class_dropout_prob"]
    if kind == "c2i":
        if count not in (None, 1):
            raise ConfigError(
                f"{family}: cls_token_num={count} with model_type=c2i; expected 1: a class is one "
                "token, and the official network cuts more off its logits"
            )
        return {"classes": given["num_classes"], "dropout": dropout, "null_class": dropout > 0}
    if kind != "t2i":
        raise ConfigError(f"{family}: model_type={printable(kind)}; expected c2i or t2i")
    text = {
        "dim": given["caption_dim"],
        "length": 120 if count is None else count,
        "projection": "mlp",
        "empty": "stored",
        "mask": True,
        "align": "given" if flag(given, "no_left_padding", False) else "end",
        "class_token": False,
        "textless": "ignored",
    }
    return {"classes": 0, "text": text, "dropout": dropout}


def sampling_tree(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of sampling; the official sampler takes a scale of 1 or less as no guidance.

    It guides the first code and, of the others counted from 0, those up to cfg_interval; -1 is all.
    """
    guided, length = math.floor(given["cfg_interval"]) + 2, given["block_size"]
    ends = given["cfg_interval"] > -1 and guided < length
    return {
        "guidance_interval": (0.0, guided / length if ends else 1.0),
        "temperature": given["temperature"],
        "top_k": given["top_k"],
        "top_p": given["top_p"],
        "guidance": max(given["cfg_scale"], 1.0),
    }


def cfg_interval(interval: tuple[float, float], length: int) -> int:
    """The official option for an interval of guidance."""
    return -1 if interval[1] == 1 else round(interval[1] * length) - 2


def sizes_of(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Sizes of a network as the shapes of its tensors tell them."""
    rows, width = state["tok_embeddings.weight"].shape
    found = {
        "vocab_size": rows,
        "dim": width,
        "n_layer": len({key.split(".")[1] for key in state if key.startswith("layers.")}),
    }
    table = state.get("cls_embedding.embedding_table.weight")
    captions = state.get("cls_embedding.uncond_embedding")
    if captions is not None:
        found |= {"model_type": "t2i", "cls_token_num": captions.shape[0]}
        found["caption_dim"] = captions.shape[1]
    elif table is not None:
        found |= {"model_type": "c2i", "cls_token_num": 1}
    if INERT in state:
        found["block_size"] = len(state[INERT]) - found["cls_token_num"]
    return found
