"""LARP's generators (arXiv 2410.21264, hywang66/LARP): class to clip, and frame prediction.

Forks of LlamaGen's GPT with a table of positions, which dropout does not reach. Files hold the
weights beside a config of the official `ModelArgs`, or, of the trainer, a name and arguments. Sizes
come from the tensors; the number of heads is that of the official sizes.

Frame prediction reads tokens of the known frames and a separator in front of the codes. The
separator is the last row of the official table of tokens, and here the condition's own token.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from vistok.config import ConfigError
from vistok.generators import Generator
from vistok.pretrained.base import (
    Entry,
    Family,
    Release,
    Stack,
    flag,
    same,
    warn_of_unknown,
    without_wrappers,
)
from vistok.pretrained.generators.gpt_layout import (
    DEFAULTS,
    MODELS,
    cfg_interval,
    condition_tree,
    named_sizes,
    sampling_tree,
    shared_entries,
    tensor_sizes,
    transformer_arguments,
    transformer_tree,
    unlike,
)

_LICENSE = "MIT (code; weights without a text of their own, trained on {}: research purposes)"
_MODELS = {size: MODELS[size] for size in ("B", "L", "XL", "XXL", "XXXL")}
_MODELS |= {"S": (384, 12, 6), "LP": (1280, 30, 20)}
_DEFAULTS: dict[str, Any] = {
    **DEFAULTS,
    "model_type": "class_cond",
    "num_classes": 101,
    "vocab_size": 8192,
    "cls_token_num": 1,
    "max_seq_len": 1024,
    "use_fixed_pe": False,
    "frame_prediction": False,
}
_SIZES = frozenset({"dim", "n_layer", "n_head"})
_SAMPLING = {"cfg_scale": 1.0, "cfg_interval": -1, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
_CODE_DIM = "codebook_embed_dim"  # of the tokenizer
_KNOWN_FRAMES = "num_cond_frames"  # of the trainer
_OTHERS = {_CODE_DIM: None, _KNOWN_FRAMES: 5}
_CODE_DIMS = {8192: 16}  # of LARP's tokenizer
# Caches of sampling, and an argument of rotary positions, which this network does not have.
_SILENT = frozenset({"max_batch_size", "rope_base"})
_MARKS = frozenset({"abs_pe", "tok_embeddings.weight", "layers.0.attention.wqkv.weight"})
_MARKS |= {"layers.0.feed_forward.w3.weight", "norm.weight", "output.weight"}
_ROOTS = frozenset({"abs_pe", "cls_embedding", "tok_embeddings", "layers", "norm", "output"})
_LP = dict(zip(("dim", "n_layer", "n_head"), _MODELS["LP"], strict=True))
_TOKENIZER = "larp-l-long"


def _release(name: str, hub: str, data: str, recipe: str, config: dict[str, Any]) -> Release:
    return Release(
        name,
        f"hywang66/{hub}",
        "model.safetensors",
        _LICENSE.format(data),
        {**_LP, **config},
        recipe=(f"generators/larp/{recipe}",),
        research_only=True,
    )


class LARPGenerator(Family):
    name = "larp_ar"
    makes = "generator"
    releases = (
        _release("larp-l-long-ar", "LARP-L-long-AR", "UCF-101", "class", {"cfg_scale": 1.25}),
        _release(
            "larp-l-long-ar-fp",
            "LARP-L-long-AR-FP",
            "Kinetics-600",
            "frame_prediction",
            {"frame_prediction": True, "cls_token_num": 1025},
        ),
    )

    # -- configs --------------------------------------------------------------------------------

    def recognizes(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:
        """True for weights with a table of positions and one head."""
        keys = set(keys)
        return keys >= _MARKS and {key.split(".")[0] for key in keys} <= _ROOTS

    def unwrapped(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return without_wrappers(state)

    def constants(self, state: Mapping[str, Tensor]) -> Mapping[str, Any] | None:
        return {} if self.recognizes({}, state) else None  # all of it is observed

    def observed(
        self, official: Mapping[str, Any], state: Mapping[str, Tensor]
    ) -> Mapping[str, Any]:
        """The config under the names of the model, with what it leaves to the tensors."""
        given = _translated(official)
        return {**_sizes(state, given), **given}

    def config(self, official: Mapping[str, Any]) -> dict[str, Any]:
        given = _translated(official)
        known = {*_DEFAULTS, *_SIZES, *_SAMPLING, *_OTHERS, *_SILENT}
        warn_of_unknown(self.name, given, known)
        args = {**_DEFAULTS, **_SAMPLING, **_OTHERS, **given}
        length, codes = args["max_seq_len"], args["vocab_size"]
        if flag(args, "frame_prediction", False):
            condition = self._known_frames(args)
        elif args["model_type"] != "class_cond":
            raise ConfigError(f"{self.name}: model_type={args['model_type']}; expected class_cond")
        else:
            condition = condition_tree(self.name, args)
        dim = args[_CODE_DIM]
        return {
            "kind": "autoregressive",
            "transformer": transformer_tree(args),
            "token_dropout": args["token_dropout_p"],
            "positions": "sincos" if flag(args, "use_fixed_pe", False) else "learned",
            "position_dropout": False,
            "condition": condition,
            "head": "joint",
            "sampling": sampling_tree(args, length),
            "spec": {
                "blocks": [[length]],
                "vocab": [codes],
                "dim": _CODE_DIMS.get(codes, 0) if dim is None else dim,
            },
            **({"tokenizer": {"name": _TOKENIZER, "sha256": ""}} if codes in _CODE_DIMS else {}),
        }

    def _known_frames(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """Condition of frame prediction; ConfigError for what is not the tokens of a whole clip."""
        count, length = args["cls_token_num"], args["max_seq_len"]
        if count != length + 1:
            raise ConfigError(
                f"{self.name}: cls_token_num={count} with frame_prediction=true, "
                f"max_seq_len={length}; expected {length + 1}: tokens of a clip and the separator"
            )
        if args["cfg_scale"] > 1:
            raise ConfigError(
                f"{self.name}: cfg_scale={args['cfg_scale']} with frame_prediction=true; expected "
                "1: there is nothing to guide by"
            )
        return {"classes": 0, "dropout": 0.0, "first_frames": args[_KNOWN_FRAMES]}

    def official(self, config: Generator) -> dict[str, Any]:
        """The official config of an autoregressive generator that was trained here.

        ConfigError for what the official layout has no place for.
        """
        own, spec = config.config, config.spec
        codes = config.inner.vocab if hasattr(config, "inner") else ()
        if own.kind != "autoregressive" or len(codes) != 1 or own.positions not in _POSITIONS:
            raise ConfigError(
                f"{self.name}: kind={own.kind}, vocab={codes}, "
                f"positions={getattr(own, 'positions', None)} have no place in the official "
                "layout; expected kind=autoregressive, one code per position, and "
                "positions=learned or sincos"
            )
        sampling, dropout = own.sampling, own.transformer.dropout
        tree = {
            **transformer_arguments(own.transformer),
            "model_type": "class_cond",
            "token_dropout_p": dropout if own.token_dropout is None else own.token_dropout,
            "class_dropout_prob": own.condition.dropout,
            "vocab_size": codes[0],
            _CODE_DIM: spec.dim,
            "max_seq_len": spec.length,
            "cls_token_num": config.front,
            "use_fixed_pe": own.positions == "sincos",
            "frame_prediction": own.condition.first_frames is not None,
            "cfg_scale": sampling.guidance,
            "cfg_interval": cfg_interval(sampling.guidance_interval, spec.length),
            **{key: getattr(sampling, key) for key in ("temperature", "top_k", "top_p")},
        }
        if own.condition.first_frames is None:
            tree["num_classes"] = own.condition.classes or 0
        else:
            tree[_KNOWN_FRAMES] = own.condition.first_frames
        self._check(own, self.config(tree))
        return tree

    def _check(self, own: Any, again: Mapping[str, Any]) -> None:
        """ConfigError for what the way there and back would change of the network."""
        wrong = unlike(own.transformer, again["transformer"])
        plain = {"embed": "learned", "regroup": None, "position_dropout": False}
        wrong += [f"{k}={getattr(own, k)}" for k, v in plain.items() if getattr(own, k) != v]
        theirs = type(own.condition)(**again["condition"]).model_dump()
        mine = {**own.condition.model_dump(), "classes": own.condition.classes or 0}
        unread = {"dropout"} if own.condition.first_frames is not None else set()
        wrong += [
            f"condition.{key}={mine[key]}"
            for key in mine
            if mine[key] != theirs[key] and key not in unread
        ]
        self.refuse(wrong)

    # -- keys -----------------------------------------------------------------------------------

    def entries(self, config: Generator) -> list[Entry | Stack]:
        table: list[Entry | Stack] = list(
            shared_entries(config.config.transformer.depth, captions=False)
        )
        if config.config.condition.first_frames is not None:
            shared = ("embed.0.weight", "condition.label.weight")
            table = [one for one in table if one.names[0] not in shared]
            pieces = tuple(zip(shared, (config.inner.vocab[0], 1), strict=True))
            table.append(Stack("tok_embeddings.weight", pieces))
        return [
            *table,
            same("transformer.norm.weight", "norm.weight"),
            same("head.out.weight", "output.weight"),
            same("position_table", "abs_pe", load=_with_a_row, save=_without_it),
        ]


_POSITIONS = ("learned", "sincos")


def _with_a_row(table: Tensor) -> Tensor:
    """The official table [1, n, W] with a row for the last code, which is never fed."""
    return torch.nn.functional.pad(table.squeeze(0), (0, 0, 0, 1))


def _without_it(table: Tensor) -> tuple[Tensor, ...]:
    return (table[:-1][None],)


def _translated(official: Mapping[str, Any]) -> dict[str, Any]:
    """A config under the names of the model: as it is, or of the name and arguments of the
    trainer."""
    if "name" in official and isinstance(official.get("args"), Mapping):
        sizes = named_sizes("larp_ar", "name", official["name"], "llama-abs-", _MODELS)
        return {**sizes, **official["args"]}
    return dict(official)


def _sizes(state: Mapping[str, Tensor], given: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes of a network as the shapes of its tensors tell them; ConfigError where they leave the
    number of heads open."""
    found = tensor_sizes(state, given.get("class_dropout_prob", 0.1) > 0)
    rows = state["abs_pe"].shape[1]
    found |= {"max_seq_len": rows}
    if "cls_embedding.embedding_table.weight" not in state:
        found |= {"frame_prediction": True, "max_seq_len": rows // 2}
        found["cls_token_num"] = rows // 2 + 1
        found["vocab_size"] -= 1  # the separator
    known = {sizes[:2]: sizes[2] for sizes in _MODELS.values()}
    heads = known.get((found["dim"], found["n_layer"]))
    if heads is None and "n_head" not in given:
        raise ConfigError(
            f"larp_ar: the weights do not tell n_head, and no official size is dim={found['dim']} "
            f"with n_layer={found['n_layer']}; give a config with n_head"
        )
    return found | ({} if heads is None else {"n_head": heads})
