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
from vistok.generators import Generator
from vistok.layers.transformer import TransformerConfig
from vistok.pretrained.base import Entry, Family, Release, same, warn_of_unknown
from vistok.pretrained.generators.llamagen_config import (
    DEFAULTS,
    INERT,
    MODELS,
    SAMPLING,
    SCRIPT,
    SILENT,
    SIZES,
    cfg_interval,
    condition_tree,
    sampling_tree,
    sizes_of,
    transformer_tree,
    translated,
)

_LICENSE = "MIT (code; weights without a text of their own, trained on ImageNet: research purposes)"
_CAPTIONS = "MIT (code; weights without a text of their own: research purposes)"
_ROOTS = frozenset({"cls_embedding", "tok_embeddings", "layers", "norm", "output"})
# Of a transformer: how it starts and trains, and what is compared by the width that it makes.
_NO_LAYOUT = {"mlp_ratio", "mlp_hidden", "mlp_multiple"}


def _release(size: str, pixels: int, scale: float, gfid: float | None = None) -> Release:
    """A release with the sampling settings that the paper measured it with."""
    width, depth, heads = MODELS[f"GPT-{size}"]
    config = {"dim": width, "n_layer": depth, "n_head": heads, "block_size": (pixels // 16) ** 2}
    config |= {"cls_token_num": 1, "cfg_scale": scale}
    return Release(
        f"llamagen-gpt-{size.lower()}-{pixels}",
        "FoundationVision/LlamaGen",
        f"c2i_{size}_{pixels}.pt",
        _LICENSE,
        config,
        gfid=gfid,
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
    inert = (INERT,)
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
        return blocks <= keys and {key.split(".")[0] for key in keys} - {INERT} == _ROOTS

    def unwrapped(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The state dict of a compiled or distributed model under the names of the model."""
        for prefix in ("_orig_mod.", "module.", "_orig_mod."):
            if state and all(key.startswith(prefix) for key in state):
                state = {key.removeprefix(prefix): tensor for key, tensor in state.items()}
        return state

    def constants(self, state: Mapping[str, Tensor]) -> Mapping[str, Any] | None:
        """Sizes of the tensors, with the heads and the grid of the only releases of these sizes.

        ConfigError where the weights leave these open.
        """
        if not self.recognizes({}, state):
            return None
        try:
            sizes = sizes_of(state)
        except (KeyError, IndexError, ValueError):
            return self.releases[0].config  # importing says what is missing
        named = ("dim", "n_layer", "model_type")
        full = [(release, DEFAULTS | dict(release.config)) for release in self.releases]
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
        return {**sizes_of(state), **translated(self.name, official)}

    def config(self, official: Mapping[str, Any]) -> dict[str, Any]:
        official = translated(self.name, official)
        warn_of_unknown(self.name, official, {*DEFAULTS, *SIZES, *SAMPLING, *SCRIPT, *SILENT})
        given = {**DEFAULTS, **SAMPLING, **SCRIPT, **official}
        side = math.isqrt(given["block_size"])
        if side * side != given["block_size"]:
            raise ConfigError(f"{self.name}: block_size={given['block_size']}; expected a square")
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
            "sampling": sampling_tree(given),
            "spec": {"blocks": [[side, side]], "vocab": [given["vocab_size"]], "dim": 8},
            "tokenizer": {"name": f"vq_ds16_{'t2i' if captions else 'c2i'}", "sha256": ""},
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
        dropout, out = transformer.dropout, transformer.mlp_out_dropout
        tree = {
            "model_type": "c2i" if text is None else "t2i",
            "dim": transformer.width,
            "n_layer": transformer.depth,
            "n_head": transformer.heads,
            "n_kv_head": transformer.kv_heads,
            # The official width is a rounded multiple of 8/3; the factor leads to any other.
            "multiple_of": 1,
            "ffn_dim_multiplier": (transformer.hidden + 0.5) / int(8 * transformer.width / 3),
            "norm_eps": transformer.norm_eps,
            "rope_base": own.rope_base,
            "initializer_range": transformer.init_std,
            "token_dropout_p": dropout if own.token_dropout is None else own.token_dropout,
            "attn_dropout_p": transformer.attention_dropout,
            "resid_dropout_p": dropout,
            "ffn_dropout_p": dropout if out is None else out,
            "drop_path_rate": transformer.drop_path,
            "class_dropout_prob": own.condition.dropout,
            "vocab_size": config.inner.vocab[0],
            "block_size": spec.length,
            "cfg_scale": sampling.guidance,
            "cfg_interval": cfg_interval(sampling.guidance_interval, spec.length),
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
        }
        usual = {"ffn_dim_multiplier": None, "multiple_of": 256}
        plain = transformer_tree({**DEFAULTS, **tree, **usual})
        if TransformerConfig.model_validate(plain).hidden == transformer.hidden:
            tree |= usual
        if text is None:
            tree |= {"cls_token_num": 1, "num_classes": own.condition.classes or 0}
        else:
            tree |= {"cls_token_num": text.length, "caption_dim": text.dim}
            tree["no_left_padding"] = text.align == "given"
        self._check(own.model_dump(), self.config(tree))
        return tree

    def _check(self, ours: Mapping[str, Any], again: Mapping[str, Any]) -> None:
        """ConfigError for what the way there and back would change of the network."""
        mine = ours["transformer"]
        theirs = TransformerConfig().model_dump() | again["transformer"]
        training = {"init", "init_std", "branch_scale", "dropout", "mlp_out_dropout"}
        training |= {"attention_dropout", "drop_path"}
        wrong = [
            f"transformer.{key}={value}"
            for key, value in mine.items()
            if key not in _NO_LAYOUT | training and theirs[key] != value
        ]
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
        if wrong:
            raise ConfigError(f"{self.name}: {wrong[0]} has no place in the official layout")

    # -- keys -----------------------------------------------------------------------------------

    def entries(self, config: Generator) -> list[Entry]:
        if config.config.condition.text is None:
            table = [same("condition.label.weight", "cls_embedding.embedding_table.weight")]
        else:
            table = [
                same("condition.text.0.weight", "cls_embedding.cap_proj.fc1.weight"),
                same("condition.text.2.weight", "cls_embedding.cap_proj.fc2.weight"),
                same("condition.empty", "cls_embedding.uncond_embedding"),
            ]
        table += [
            same("embed.0.weight", "tok_embeddings.weight"),
            same("transformer.norm.weight", "norm.weight"),
            same("head.out.weight", "output.weight"),
        ]
        names = {
            "norm_attention": "attention_norm",
            "attention.qkv": "attention.wqkv",
            "attention.out": "attention.wo",
            "norm_mlp": "ffn_norm",
            "mlp.gate": "feed_forward.w1",
            "mlp.up": "feed_forward.w3",
            "mlp.out": "feed_forward.w2",
        }
        for i in range(config.config.transformer.depth):
            for ours, theirs in names.items():
                table.append(
                    same(f"transformer.blocks.{i}.{ours}.weight", f"layers.{i}.{theirs}.weight")
                )
        return table
