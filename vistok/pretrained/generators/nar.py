"""NAR (arXiv 2503.10696, ThisisBillhe/NAR): class and caption to image, class to clip.

Forks of LlamaGen's GPT and of LARP's generator, with a head for each axis. Files hold the weights
alone, or under "model" beside the trainer's `args`. Sizes come from the tensors, the number of
heads from the official sizes; the grid is that of 256 pixels (4 x 16 x 16 of clips) unless the
arguments, or a config under the names of the official `ModelArgs`, say otherwise.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from vistok.config import ConfigError
from vistok.core.text import printable
from vistok.generators import Generator
from vistok.generators.orders import near_to_far
from vistok.pretrained.base import Entry, Family, Release, flag, same, squeeze, warn_of_unknown
from vistok.pretrained.generators.gpt_layout import (
    DEFAULTS,
    MODELS,
    condition_tree,
    named_sizes,
    shared_entries,
    tensor_sizes,
    text_encoder_tree,
    transformer_arguments,
    transformer_tree,
    unlike,
)

_LICENSE = "MIT (code; weights without a text of their own, trained on ImageNet: research purposes)"
_PAGE = "the collection chenfeng1271/nar-67d13fa93fe913b2e187ee1f of the hub"
_CLIP_MODELS = {**MODELS, "S": (384, 12, 6), "LP": (1280, 30, 20)}
_IMAGES = {
    **DEFAULTS,
    "model_type": "c2i",
    "num_classes": 1000,
    "caption_dim": 2048,
    "vocab_size": 16384,
    "block_size": 256,
    "rope_base": 10000,
    "medusa_attention_num": 1,
}
_CLIPS = {
    **DEFAULTS,
    "model_type": "class_cond",
    "num_classes": 101,
    "vocab_size": 8192,
    "latent_shape": (4, 16, 16),
    "attn_num_back": 1,
    "attn_num_down": 1,
    "use_fixed_pe": False,
    "frame_prediction": False,
}
_OTHERS = frozenset({"dim", "n_layer", "n_head", "cls_token_num", "max_seq_len"})
_CODE_DIM = "codebook_embed_dim"  # of the tokenizer, as the sampling scripts name it
_CODE_DIMS = {16384: 8, 8192: 16}  # of LlamaGen's and LARP's tokenizers
_SAMPLING = {"cfg_interval": -1, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
_SAMPLING_KEYS = frozenset({*_SAMPLING, "cfg_scale", "no_left_padding"})
_SCALES = {"c2i": 2.0, "t2i": 7.5, "class_cond": 2.5}  # of the sampling scripts
# Caches of sampling, and an argument of rotary positions that the network of clips does not have.
_SILENT = frozenset({"max_batch_size", "rope_base"})
_HEADS_OF_IMAGES = {"norms.0": "medusa_norm", "norms.1": "norm"}
_HEADS_OF_IMAGES |= {"head.0.out": "medusa_output", "head.1.out": "output"}
_HEADS_OF_CLIPS = {f"norms.{i}": f"norm_{side}" for i, side in enumerate("BDR")}
_HEADS_OF_CLIPS |= {f"head.{i}.out": f"output_{side}" for i, side in enumerate("BDR")}
_MARKS = frozenset({"tok_embeddings.weight", "layers.0.attention.wqkv.weight"})


def _release(size: str) -> Release:
    sizes = dict(zip(("dim", "n_layer", "n_head"), MODELS[size], strict=True))
    return Release(
        f"nar-{size.lower()}",
        "",
        f"c2i_{size.lower()}.pt",
        _LICENSE,
        {**sizes, "model_type": "c2i", "cls_token_num": 1, "block_size": 256, "cfg_scale": 2.0},
        recipe=(f"generators/nar/{size.lower()}",),
        research_only=True,
        page=_PAGE,
    )


class NAR(Family):
    name = "nar"
    makes = "generator"
    releases = tuple(_release(size) for size in ("B", "L", "XL", "XXL"))
    inert = ("freqs_cis",)  # a table that the config makes; older files hold it

    # -- configs --------------------------------------------------------------------------------

    def recognizes(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:
        keys = set(keys)
        heads = ({"medusa_output.weight"}, {"output_R.weight", "output_D.weight"})
        return keys >= _MARKS and any(keys >= names for names in heads)

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
        clips = given.get("model_type") == "class_cond" or "latent_shape" in given
        defaults = _CLIPS if clips else _IMAGES
        known = {*defaults, *_OTHERS, *_SAMPLING_KEYS, *_SILENT, _CODE_DIM}
        warn_of_unknown(self.name, given, known)
        args = {**defaults, **_SAMPLING, **given}
        if args["model_type"] not in (("class_cond",) if clips else ("c2i", "t2i")):
            raise ConfigError(
                f"{self.name}: model_type={printable(str(args['model_type']))}; expected c2i or "
                "t2i, or class_cond of clips"
            )
        grid, codes = self._grid(args, clips), args["vocab_size"]
        tree = {
            "kind": "neighbouring",
            "transformer": transformer_tree(args),
            "token_dropout": args["token_dropout_p"],
            "condition": condition_tree(self.name, args),
            "head": "joint",
            "sampling": _sampling(args, grid),
            "spec": {
                "blocks": [[math.prod(grid)] if clips else grid],
                "vocab": [codes],
                "dim": args.get(_CODE_DIM, _CODE_DIMS.get(codes, 0)),
            },
        }
        if clips:
            # The code reads "down" behind attn_num_back further blocks and "back" behind
            # attn_num_down more: their names are swapped.
            tree["extra_blocks"] = [args["attn_num_back"], args["attn_num_down"]]
            tree["positions"] = "sincos" if flag(args, "use_fixed_pe", False) else "learned"
            return tree | {"grid": grid}
        tree |= {"rope_base": args["rope_base"], "extra_blocks": [args["medusa_attention_num"]]}
        if codes == _IMAGES["vocab_size"]:
            name = f"vq_ds16_{args['model_type']}"
            tree["tokenizer"] = {"name": name, "sha256": ""}
        return tree | text_encoder_tree(args)

    def _grid(self, args: Mapping[str, Any], clips: bool) -> list[int]:
        """The grid of the tokens; ConfigError where the official code has none."""
        if not clips:
            side = math.isqrt(args["block_size"])
            if side * side != args["block_size"]:
                raise ConfigError(
                    f"{self.name}: block_size={args['block_size']}; expected a square"
                )
            return [side, side]
        if flag(args, "frame_prediction", False):
            raise ConfigError(
                f"{self.name}: frame_prediction=true; expected false: the official mask hides all "
                "known tokens but the first"
            )
        grid = list(args["latent_shape"])
        if args.get("max_seq_len", math.prod(grid)) != math.prod(grid):
            raise ConfigError(
                f"{self.name}: max_seq_len={args['max_seq_len']} with latent_shape={grid} of "
                f"{math.prod(grid)} cells; expected equal numbers"
            )
        return grid

    def official(self, config: Generator) -> dict[str, Any]:
        """The official config of a neighbouring generator that was trained here.

        ConfigError for what the official layout has no place for.
        """
        own, codes = config.config, config.inner.vocab if hasattr(config, "inner") else ()
        grid = config.grid if own.kind == "neighbouring" else ()
        clips = len(grid) == 3
        if len(codes) != 1 or not (clips or (len(grid) == 2 and grid[0] == grid[1])):
            raise ConfigError(
                f"{self.name}: kind={own.kind}, blocks={config.spec.blocks}, vocab={codes} have no "
                "place in the official layout; expected kind=neighbouring, a square grid or one of "
                "a clip, and one code per position"
            )
        text, sampling = own.condition.text, own.sampling
        further = [a - b for a, b in itertools.pairwise(config.depths)][::-1]
        tree = {
            **transformer_arguments(own.transformer),
            "token_dropout_p": config.dropout.p,
            "class_dropout_prob": own.condition.dropout,
            "vocab_size": codes[0],
            _CODE_DIM: config.spec.dim,
            "cls_token_num": config.condition.count,
            "cfg_scale": sampling.guidance,
            "cfg_interval": _cfg_interval(sampling.guidance_interval, grid),
            **{key: getattr(sampling, key) for key in ("temperature", "top_k", "top_p")},
        }
        if text is None:
            tree["num_classes"] = own.condition.classes or 0
        else:
            tree |= {"caption_dim": text.dim, "no_left_padding": text.align == "given"}
        if clips:
            tree |= {"model_type": "class_cond", "latent_shape": list(grid)}
            tree |= dict(zip(("attn_num_back", "attn_num_down"), further, strict=True))
            tree |= {"max_seq_len": math.prod(grid), "use_fixed_pe": own.positions == "sincos"}
        else:
            tree |= {"model_type": "c2i" if text is None else "t2i", "rope_base": own.rope_base}
            tree |= {"block_size": math.prod(grid), "medusa_attention_num": further[0]}
        self._check(own, self.config(tree))
        return tree

    def _check(self, ours: Any, again: Mapping[str, Any]) -> None:
        """ConfigError for what the way there and back would change of the network."""
        wrong = unlike(ours.transformer, again["transformer"])
        plain = {"embed": "learned", "regroup": None, "positions": again.get("positions", "rope")}
        plain |= {"condition_positions": "zero"} if plain["positions"] == "rope" else {}
        mine = {key: getattr(ours, key) for key in plain}
        wrong += [f"{key}={mine[key]}" for key, value in plain.items() if mine[key] != value]
        theirs = type(ours.condition)(**again["condition"]).model_dump()
        mine = {**ours.condition.model_dump(), "classes": ours.condition.classes or 0}
        wrong += [f"condition.{key}={mine[key]}" for key in mine if mine[key] != theirs[key]]
        self.refuse(wrong)

    # -- keys -----------------------------------------------------------------------------------

    def entries(self, config: Generator) -> list[Entry]:
        clips = len(config.grid) == 3
        table = shared_entries(max(config.depths), config.config.condition.text is not None)
        heads = _HEADS_OF_CLIPS if clips else _HEADS_OF_IMAGES
        table += [same(f"{ours}.weight", f"{theirs}.weight") for ours, theirs in heads.items()]
        if clips:
            table.append(same("position_table", "abs_pe", **squeeze(0)))
        return table


def _translated(official: Mapping[str, Any]) -> dict[str, Any]:
    """A config under the names of the model: as it is; of the trainer's arguments, most of which
    are no model's; or of a name and arguments, as the trainer of clips has it."""
    if "gpt_model" in official:
        found = named_sizes("nar", "gpt_model", official["gpt_model"], "GPT-", MODELS)
        known = {*_IMAGES, *_SAMPLING_KEYS, _CODE_DIM, "cls_token_num"}
        found |= {key: official[key] for key in known & set(official)}
        names = {"gpt_type": "model_type", "drop_path": "drop_path_rate"}
        found |= {b: official[a] for a, b in names.items() if a in official}
        if "image_size" in official:
            side = official["image_size"] // official.get("downsample_size", 16)
            found["block_size"] = side * side
        if "dropout_p" in official:  # which the trainer leaves out beside stochastic depth
            dropout = 0.0 if found.get("drop_path_rate", 0.0) > 0 else official["dropout_p"]
            found |= dict.fromkeys(("resid_dropout_p", "ffn_dropout_p"), dropout)
        return found
    if isinstance(official.get("args"), Mapping) and "name" in official:
        sizes = named_sizes("nar", "name", official["name"], "llama-abs-", _CLIP_MODELS)
        return {"model_type": "class_cond", **sizes, **official["args"]}
    return dict(official)


def _sizes(state: Mapping[str, Tensor], given: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes of a network as the shapes of its tensors tell them; ConfigError where they leave the
    heads open, or of a clip all but its length."""
    found = tensor_sizes(state, given.get("class_dropout_prob", 0.1) > 0)
    clips = "output_R.weight" in state
    further = ("attn_num_back", "attn_num_down") if clips else ("medusa_attention_num",)
    found["n_layer"] -= sum(given.get(key, 1) for key in further)
    width = found["dim"]
    known = {sizes[:2]: sizes[2] for sizes in _CLIP_MODELS.values()}
    heads = known.get((width, found["n_layer"]))
    if heads is None and "n_head" not in given:
        raise ConfigError(
            f"nar: the weights do not tell n_head, and no official size is dim={width} with "
            f"n_layer={found['n_layer']}; give a config with n_head, or the trainer's gpt_model"
        )
    found["n_head"] = heads
    if clips:
        cells = state["abs_pe"].shape[1] - 1
        found |= {"model_type": "class_cond", "max_seq_len": cells}
        if "latent_shape" not in given and cells != math.prod(_CLIPS["latent_shape"]):
            raise ConfigError(
                f"nar: latent_shape: these weights are of {cells} tokens, which may lie in any "
                "clip; give a config with it"
            )
    return found


def _sampling(args: Mapping[str, Any], grid: Iterable[int]) -> dict[str, Any]:
    """Settings of sampling; the official sampler takes a scale of 1 or less as no guidance, and
    guides planes in front of which no more than `cfg_interval` tokens are (-1: all)."""
    kind, before = args["model_type"], _before_planes(grid)
    scale = args.get("cfg_scale", _SCALES[kind])
    if kind != "t2i" and args["class_dropout_prob"] == 0:  # there is no null class
        scale = 1.0
    guided = 1 + sum(0 < count <= args["cfg_interval"] for count in before)
    ends = args["cfg_interval"] > -1 and guided < len(before)
    return {
        "guidance": max(scale, 1.0),
        "guidance_interval": (0.0, guided / len(before) if ends else 1.0),
        **{key: args[key] for key in ("temperature", "top_k", "top_p")},
    }


def _cfg_interval(interval: tuple[float, float], grid: Iterable[int]) -> int:
    """The official option for an interval of guidance."""
    before = _before_planes(grid)
    return -1 if interval[1] == 1 else before[max(round(interval[1] * len(before)) - 1, 0)]


def _before_planes(grid: Iterable[int]) -> list[int]:
    """Number of cells in front of each plane."""
    counts = [len(cells) for cells in near_to_far(tuple(grid))]
    return [0, *itertools.accumulate(counts[:-1])]
