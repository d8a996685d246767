"""LlamaGen's GPT (arXiv 2406.06525, FoundationVision/LlamaGen), of classes and of captions.

Files hold weights without sizes, or with the arguments of the trainer beside them. Most sizes are
those of the tensors. The number of heads and the grid of the tokens are in none of them: they come
from the release, the trainer's arguments, or a config under the names of the official code.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from vistok.config import ConfigError
from vistok.core.text import printable
from vistok.generators import Generator
from vistok.pretrained.base import (
    Entry,
    Family,
    Release,
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
    text_encoder_tree,
    transformer_arguments,
    transformer_tree,
    unlike,
)
from vistok.pretrained.published import RANDOM_CLASSES

_LICENSE = "MIT (code; weights without a text of their own, trained on ImageNet: research purposes)"
_CAPTIONS = "MIT (code; weights without a text of their own: research purposes)"
_DEFAULTS: dict[str, Any] = {
    **DEFAULTS,
    "rope_base": 10000,
    "num_classes": 1000,
    "caption_dim": 2048,
    "model_type": "c2i",
    "vocab_size": 16384,
    "block_size": 256,
}
_SIZES = frozenset({"dim", "n_layer", "n_head", "cls_token_num"})
_SAMPLING = {"cfg_scale": 1.0, "cfg_interval": -1, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
# Of the script that samples captions: padding behind the text stays there.
_SCRIPT = {"no_left_padding": False}
_SILENT = frozenset({"max_batch_size", "max_seq_len"})  # of caches; no number depends on them
_TRAINER = frozenset({"gpt_model", "gpt_type", "image_size", "downsample_size", "dropout_p"})
_ROOTS = frozenset({"cls_embedding", "tok_embeddings", "layers", "norm", "output"})
_INERT = "freqs_cis"  # a table that the config makes; older files hold it


def _release(size: str, pixels: int, scale: float, gfid: float | None = None) -> Release:
    """A release with the sampling settings that the paper measured it with."""
    width, depth, heads = MODELS[size]
    config = {"dim": width, "n_layer": depth, "n_head": heads, "block_size": (pixels // 16) ** 2}
    config |= {"cls_token_num": 1, "cfg_scale": scale}
    return Release(
        f"llamagen-gpt-{size.lower()}-{pixels}",
        "FoundationVision/LlamaGen",
        f"c2i_{size}_{pixels}.pt",
        _LICENSE,
        config,
        gfid=gfid,
        sampled=RANDOM_CLASSES,
        recipe=(f"generators/llamagen/gpt_{size.lower()}",),
        research_only=True,
    )


def _of_captions(stage: int, pixels: int) -> Release:
    config = {"dim": 1280, "n_layer": 36, "n_head": 20, "block_size": (pixels // 16) ** 2}
    config |= {"model_type": "t2i", "cls_token_num": 120, "cfg_scale": 7.5, "top_k": 1000}
    return Release(
        f"llamagen-gpt-t2i-xl-{pixels}",
        "peizesun/llamagen_t2i",
        f"t2i_XL_stage{stage}_{pixels}.pt",
        _CAPTIONS,
        config,
        recipe=(f"generators/llamagen/t2i_xl_stage{stage}",),
        research_only=True,
    )


class LlamaGenGPT(Family):
    name = "llamagen_gpt"
    makes = "generator"
    inert = (_INERT,)
    releases = (
        _release("B", 256, 2.0, 5.46),
        _release("L", 256, 2.0, 3.80),
        _release("B", 384, 2.0, 6.09),
        _release("L", 384, 2.0, 3.07),
        _release("XL", 384, 1.75, 2.62),
        _release("XXL", 384, 1.75, 2.34),
        _release("3B", 384, 1.65, 2.18),
        _of_captions(1, 256),
        _of_captions(2, 512),
    )

    # -- configs --------------------------------------------------------------------------------

    def recognizes(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:
        """True for weights whose layers are all of this network: others extend its layout."""
        keys = set(keys)
        blocks = {"layers.0.attention.wqkv.weight", "layers.0.feed_forward.w3.weight"}
        return blocks <= keys and {key.split(".")[0] for key in keys} - {_INERT} == _ROOTS

    def unwrapped(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return without_wrappers(state)

    def constants(self, state: Mapping[str, Tensor]) -> Mapping[str, Any] | None:
        """Sizes of the tensors, with the heads and the grid of the only releases of these sizes.

        ConfigError where the weights leave these open.
        """
        if not self.recognizes({}, state):
            return None
        try:
            sizes = _sizes(state)
        except (KeyError, IndexError, ValueError):
            return self.releases[0].config  # importing says what is missing
        named = ("dim", "n_layer", "model_type")
        full = [(release, _DEFAULTS | dict(release.config)) for release in self.releases]
        fit = [r for r, config in full if all(config[key] == sizes[key] for key in named)]
        grids = {release.config["block_size"] for release in fit}
        grids = {sizes["block_size"]} if "block_size" in sizes else grids
        if not fit or len(grids) != 1:
            raise ConfigError(
                f"{self.name}: the weights do not tell n_head and block_size (positions of the "
                f"grid; {' or '.join(r.name for r in fit) or 'no release has these sizes'}); give "
                "a config with them, or the trainer's gpt_model and image_size"
            )
        return {**fit[0].config, **sizes, "block_size": grids.pop()}

    def observed(
        self, official: Mapping[str, Any], state: Mapping[str, Tensor]
    ) -> Mapping[str, Any]:
        """The config under the names of the model, with what it leaves to the tensors."""
        return {**_sizes(state), **_translated(self.name, official)}

    def config(self, official: Mapping[str, Any]) -> dict[str, Any]:
        official = _translated(self.name, official)
        warn_of_unknown(self.name, official, {*_DEFAULTS, *_SIZES, *_SAMPLING, *_SCRIPT, *_SILENT})
        given = {**_DEFAULTS, **_SAMPLING, **_SCRIPT, **official}
        side = math.isqrt(given["block_size"])
        if side * side != given["block_size"]:
            raise ConfigError(f"{self.name}: block_size={given['block_size']}; expected a square")
        if given["model_type"] not in ("c2i", "t2i"):
            found = printable(given["model_type"])
            raise ConfigError(f"{self.name}: model_type={found}; expected c2i or t2i")
        captions = given["model_type"] == "t2i"
        return {
            "kind": "autoregressive",
            "transformer": transformer_tree(given),
            "token_dropout": given["token_dropout_p"],
            "positions": "rope",
            "condition_positions": "zero",
            "rope_base": given["rope_base"],
            "condition": condition_tree(self.name, given),
            "head": "joint",
            "sampling": sampling_tree(given, given["block_size"]),
            "spec": {"blocks": [[side, side]], "vocab": [given["vocab_size"]], "dim": 8},
            "tokenizer": {"name": _tokenizer(captions, side), "sha256": ""},
            **text_encoder_tree(given),
        }

    def official(self, config: Generator) -> dict[str, Any]:
        """The official config of an autoregressive generator that was trained here.

        ConfigError for what the official layout has no place for.
        """
        own, spec = config.config, config.spec
        grid = spec.blocks[0]
        square = len(spec.blocks) == 1 and len(grid) == 2 and grid[0] == grid[1]
        if own.kind != "autoregressive" or len(config.inner.vocab) != 1 or not square:
            raise ConfigError(
                f"{self.name}: kind={own.kind}, blocks={spec.blocks}, vocab={config.inner.vocab} "
                "have no place in the official layout; expected kind=autoregressive, a square grid "
                "and one code per position"
            )
        transformer, sampling, text = own.transformer, own.sampling, own.condition.text
        dropout = transformer.dropout
        tree = {
            "model_type": "c2i" if text is None else "t2i",
            **transformer_arguments(transformer),
            "rope_base": own.rope_base,
            "token_dropout_p": dropout if own.token_dropout is None else own.token_dropout,
            "class_dropout_prob": own.condition.dropout,
            "vocab_size": config.inner.vocab[0],
            "block_size": spec.length,
            "cfg_scale": sampling.guidance,
            "cfg_interval": cfg_interval(sampling.guidance_interval, spec.length),
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
        }
        if text is None:
            tree |= {"cls_token_num": 1, "num_classes": own.condition.classes or 0}
        else:
            tree |= {"cls_token_num": text.length, "caption_dim": text.dim}
            tree["no_left_padding"] = text.align == "given"
        self._check(own, self.config(tree))
        return tree

    def _check(self, own: Any, again: Mapping[str, Any]) -> None:
        """ConfigError for what the way there and back would change of the network."""
        ours, wrong = own.model_dump(), unlike(own.transformer, again["transformer"])
        plain = {"embed": "learned", "regroup": None, "positions": "rope"}
        plain |= {"condition_positions": "zero"}
        wrong += [f"{key}={ours[key]}" for key, value in plain.items() if ours[key] != value]
        read = ours["condition"]
        wrong += [f"condition.pooled={read['pooled']}"] if read["pooled"] is not None else []
        for key, value in (again["condition"].get("text") or {}).items():
            if read["text"][key] != value:
                wrong.append(f"condition.text.{key}={read['text'][key]}")
        null_class = again["condition"].get("null_class", True)
        if read["null_class"] != null_class:
            wrong.append(f"condition.null_class={read['null_class']}")
        self.refuse(wrong)

    # -- keys -----------------------------------------------------------------------------------

    def entries(self, config: Generator) -> list[Entry]:
        captions = config.config.condition.text is not None
        return [
            *shared_entries(config.config.transformer.depth, captions),
            same("transformer.norm.weight", "norm.weight"),
            same("head.out.weight", "output.weight"),
        ]


def _translated(family: str, official: Mapping[str, Any]) -> dict[str, Any]:
    """A config under the names of the model; the trainer's arguments, if it has `gpt_model`, are
    told in them and the rest of them (paths, logging) is left out."""
    if "gpt_model" not in official:
        return dict(official)
    found = named_sizes(family, "gpt_model", official["gpt_model"], "GPT-", MODELS)
    known = {*_DEFAULTS, *_SIZES, *_SAMPLING, *_SCRIPT}
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


def _sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
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
    if _INERT in state:
        found["block_size"] = len(state[_INERT]) - found["cls_token_num"]
    return found


def _tokenizer(captions: bool, side: int) -> str:
    """Released name of the tokenizer whose images have `side` tokens of 16 pixels on a side."""
    name = f"vq_ds16_{'t2i' if captions else 'c2i'}"
    return name if side == 16 else f"{name}_{16 * side}"
