"""Arguments and keys of networks that are forks of LlamaGen's GPT (arXiv 2406.06525).

Their configs carry the names of the official `ModelArgs`; most sizes are those of the tensors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vistok.config import ConfigError
from vistok.core.text import printable
from vistok.layers.transformer import TransformerConfig
from vistok.pretrained.base import Entry, changed, flag, same

MODELS = {  # size in the trainer's name of a network: width, layers, heads
    "B": (768, 12, 12),
    "M": (1024, 18, 16),
    "L": (1024, 24, 16),
    "XL": (1280, 36, 20),
    "XXL": (1536, 48, 24),
    "XXXL": (2560, 48, 40),
    "1B": (2048, 22, 32),
    "3B": (3200, 24, 32),
    "7B": (4096, 32, 32),
}
DEFAULTS: dict[str, Any] = {  # of the official code
    "n_kv_head": None,
    "multiple_of": 256,
    "ffn_dim_multiplier": None,
    "norm_eps": 1e-5,
    "initializer_range": 0.02,
    "token_dropout_p": 0.1,
    "attn_dropout_p": 0.0,
    "resid_dropout_p": 0.1,
    "ffn_dropout_p": 0.1,
    "drop_path_rate": 0.0,
    "class_dropout_prob": 0.1,
}
_BLOCK = {
    "norm_attention": "attention_norm",
    "attention.qkv": "attention.wqkv",
    "attention.out": "attention.wo",
    "norm_mlp": "ffn_norm",
    "mlp.gate": "feed_forward.w1",
    "mlp.up": "feed_forward.w3",
    "mlp.out": "feed_forward.w2",
}
_T5 = {"network": "t5", "path": "hf:google/flan-t5-xl", "length": 120}
_T5_WIDTH = 2048
# Of a transformer: what is compared by the width that it makes, and how it starts.
_NO_LAYOUT = {"mlp_ratio", "mlp_hidden", "mlp_multiple", "mlp_out_dropout"}
_NO_LAYOUT |= {"init", "branch_scale", "dropout"}


def named_sizes(
    family: str, key: str, name: object, prefix: str, models: Mapping[str, tuple[int, ...]]
) -> dict[str, int]:
    """Sizes of the network `prefix` + size; ConfigError for an unknown one."""
    size = name.removeprefix(prefix) if isinstance(name, str) else None
    if size not in models or name == size:
        known = ", ".join(prefix + one for one in models)
        raise ConfigError(f"{family}: {key}={printable(str(name))}; expected one of {known}")
    return dict(zip(("dim", "n_layer", "n_head"), models[size], strict=True))


def transformer_tree(args: Mapping[str, Any]) -> dict[str, Any]:
    """Official arguments -> tree of a TransformerConfig."""
    width, dropout, out = args["dim"], args["resid_dropout_p"], args["ffn_dropout_p"]
    hidden: dict[str, Any] = {"mlp_ratio": 4.0, "mlp_hidden": "two_thirds"}
    if args["ffn_dim_multiplier"] is not None:
        wide = int(args["ffn_dim_multiplier"] * int(2 * (4 * width) / 3))
        hidden = {"mlp_ratio": wide / width, "mlp_hidden": "round"}
    return {
        "width": width,
        "depth": args["n_layer"],
        "heads": args["n_head"],
        "kv_heads": None if args["n_kv_head"] == args["n_head"] else args["n_kv_head"],
        "mlp": "swiglu",
        **hidden,
        "mlp_multiple": args["multiple_of"],
        "norm": "rmsnorm",
        "norm_eps": args["norm_eps"],
        "bias": False,
        "dropout": dropout,
        "mlp_out_dropout": None if out == dropout else out,
        "attention_dropout": args["attn_dropout_p"],
        "drop_path": args["drop_path_rate"],
        "init": "normal",
        "init_std": args["initializer_range"],
        "branch_scale": "none",
    }


def transformer_arguments(config: TransformerConfig) -> dict[str, Any]:
    """The inverse of `transformer_tree`."""
    dropout, out = config.dropout, config.mlp_out_dropout
    return {
        "dim": config.width,
        "n_layer": config.depth,
        "n_head": config.heads,
        "n_kv_head": config.kv_heads,
        **hidden_arguments(config.width, config.hidden),
        "norm_eps": config.norm_eps,
        "initializer_range": config.init_std,
        "attn_dropout_p": config.attention_dropout,
        "resid_dropout_p": dropout,
        "ffn_dropout_p": dropout if out is None else out,
        "drop_path_rate": config.drop_path,
    }


def hidden_arguments(width: int, hidden: int) -> dict[str, Any]:
    """Official arguments that give a hidden width of the feed-forward layers."""
    multiple, base = DEFAULTS["multiple_of"], int(2 * (4 * width) / 3)
    if -(-base // multiple) * multiple == hidden:
        return {"multiple_of": multiple, "ffn_dim_multiplier": None}
    # The official width is a rounded multiple of 8/3; the factor leads to any other.
    return {"multiple_of": 1, "ffn_dim_multiplier": (hidden + 0.5) / base}


def unlike(ours: TransformerConfig, again: Mapping[str, Any]) -> list[str]:
    """Settings of a transformer that have no place in the official layout.

    Args:
        again: the tree that its official arguments lead to.
    """
    mine, theirs = ours.model_dump(), TransformerConfig(**again)
    wrong = changed("transformer", mine, theirs.model_dump(), _NO_LAYOUT)
    if ours.hidden != theirs.hidden:
        wrong.append(f"transformer.mlp_ratio={ours.mlp_ratio}")
    return wrong


def condition_tree(family: str, args: Mapping[str, Any]) -> dict[str, Any]:
    """Official arguments -> tree of a ConditionConfig; ConfigError for a class of several
    tokens."""
    count, dropout = args.get("cls_token_num"), args["class_dropout_prob"]
    if args["model_type"] == "t2i":
        text = {
            "dim": args["caption_dim"],
            "length": 120 if count is None else count,
            "projection": "mlp",
            "empty": "stored",
            "mask": True,
            # Of the scripts that sample captions: padding behind the text stays there.
            "align": "given" if flag(args, "no_left_padding", False) else "end",
            "class_token": False,
            "textless": "ignored",
        }
        return {"classes": 0, "text": text, "dropout": dropout}
    if count not in (None, 1):
        raise ConfigError(
            f"{family}: cls_token_num={count} with model_type={args['model_type']}; expected 1: a "
            "class is one token, and the official network cuts more off its logits"
        )
    return {"classes": args["num_classes"], "dropout": dropout, "null_class": dropout > 0}


def sampling_tree(given: Mapping[str, Any], length: int) -> dict[str, Any]:
    """Settings of sampling; the official sampler takes a scale of 1 or less as no guidance.

    It guides the first code and, of the others counted from 0, those up to cfg_interval; -1 is all.
    """
    guided = math.floor(given["cfg_interval"]) + 2
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


def text_encoder_tree(args: Mapping[str, Any]) -> dict[str, Any]:
    """Record of the text encoder whose features captions are: FLAN-T5-XL, whose padding the scripts
    that sample move to the front; {} for classes and for features of other sizes."""
    if args["model_type"] != "t2i" or args["caption_dim"] != _T5_WIDTH:
        return {}
    if args.get("cls_token_num") not in (None, _T5["length"]):
        return {}
    padding = {} if flag(args, "no_left_padding", False) else {"padding": "left"}
    return {"text_encoder": {"config": _T5 | padding, "sha256": ""}}


def tensor_sizes(state: Mapping[str, Tensor], null_class: bool = True) -> dict[str, Any]:
    """Official arguments that the shapes of the tensors tell; `n_layer` counts all layers."""
    codes, width = state["tok_embeddings.weight"].shape
    rows = len(state["layers.0.feed_forward.w1.weight"])
    found = {
        "vocab_size": codes,
        "dim": width,
        "n_layer": len({key.split(".")[1] for key in state if key.startswith("layers.")}),
        **hidden_arguments(width, rows),
    }
    table = state.get("cls_embedding.embedding_table.weight")
    captions = state.get("cls_embedding.uncond_embedding")
    if captions is not None:
        length, dim = captions.shape
        found |= {"model_type": "t2i", "cls_token_num": length, "caption_dim": dim}
    elif table is not None:
        found |= {"cls_token_num": 1, "num_classes": len(table) - null_class}
    return found


def shared_entries(blocks: int, captions: bool) -> list[Entry]:
    """Keys of the condition, the embedding of tokens and the blocks."""
    names = {"embed.0": "tok_embeddings"}
    if captions:
        names["condition.text.0"] = "cls_embedding.cap_proj.fc1"
        names["condition.text.2"] = "cls_embedding.cap_proj.fc2"
    else:
        names["condition.label"] = "cls_embedding.embedding_table"
    table = [same(f"{a}.weight", f"{b}.weight") for a, b in names.items()]
    table += shared_blocks(blocks, "layers")
    if captions:
        table.append(same("condition.empty", "cls_embedding.uncond_embedding"))
    return table


def shared_blocks(blocks: int, theirs: str) -> list[Entry]:
    """Keys of the blocks, which are called `theirs`.0, ... there."""
    return [
        same(f"transformer.blocks.{i}.{a}.weight", f"{theirs}.{i}.{b}.weight")
        for i in range(blocks)
        for a, b in _BLOCK.items()
    ]
