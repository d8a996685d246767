"""Instella-T2I's generators (arXiv 2506.21022, AMD-AGI/Instella-T2I) of its tokenizer's bits.

Releases are pickles of a training framework with the weights under "module", without a config:
sizes are read from the tensors, settings of sampling are those of the released scripts. Both
networks read all layers of a frozen language model (amd/AMD-OLMo-1B); the autoregressive file holds
layers of an embedding of time besides, which its network does not run.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from vistok.config import ConfigError
from vistok.core.text import printable
from vistok.generators import Generator
from vistok.layers.transformer import TransformerConfig
from vistok.pretrained.base import Entry, Family, Release, pair, same, squeeze
from vistok.pretrained.generators.rar import swapped

_LICENSE = "Instella_T2I_1B research-only RAIL-MS (code and weights)"
_SIZES = {
    "in_channels": 64,
    "num_layers": 16,
    "attention_head_dim": 128,
    "num_attention_heads": 16,
    "num_img_tkns": 128,
    "text_cond_dim": 2048,
    "text_max_length": 128,
}
_READ = frozenset(
    {*_SIZES, "model", "guidance_scale", "temp", "num_sampling_steps", "rho", "sampling_protocal"}
    | {"prediction_target", "non_uniform_t", "text_drop_prob"}
)
_SILENT = frozenset({"axes_dims_rope"})  # an argument that no code reads
_PROTOCOLS = {"protocal_1": "renoise", "protocal_2": "posterior"}  # spelled so
_TARGETS = ("epsilon", "x")
_MARKS = ("x_embedder.weight", "transformer_blocks.0.proj_cond.weight", "proj_out.weight")
_TIME = ("time_embed.linear_1", "time_embed.linear_2")
# Of a transformer: how it starts and trains.
_NO_LAYOUT = {"init", "branch_scale", "dropout", "attention_dropout", "mlp_dropout", "drop_path"}
_NO_LAYOUT |= {"init_std", "mlp_out_dropout"}


def _release(model: str, file: str) -> Release:
    steps = {"num_sampling_steps": 20, "rho": 1.0, "sampling_protocal": "protocal_1"}
    config = {
        **{"model": model, **_SIZES, "guidance_scale": 7.5, "temp": 1.0},
        **(steps if model == "diff" else {}),
    }
    name = {"diff": "diffusion", "ar": "ar"}[model]
    return Release(
        f"instella-{name}",
        "amd/Instella-T2I",
        file,
        _LICENSE,
        config,
        recipe=(f"generators/instella/{name}",),
        research_only=True,
    )


class InstellaT2I(Family):
    name = "instella_t2i"
    makes = "generator"
    releases = (_release("diff", "diffusion.pt"), _release("ar", "ar.pt"))
    inert = ("time_embed.*",)  # of the autoregressive network, which does not run them

    # -- configs --------------------------------------------------------------------------------

    def recognizes(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:
        return set(keys) >= set(_MARKS)

    def constants(self, state: Mapping[str, Tensor]) -> Mapping[str, Any] | None:
        """The release of these keys, with the sizes of these tensors."""
        if not self.recognizes({}, state):
            return None
        release = self.releases[1 if "split_token" in state else 0].config
        try:
            return {**release, **_sizes(state)}
        except (IndexError, KeyError, ZeroDivisionError, TypeError):
            return release  # importing says what is missing

    def observed(
        self, official: Mapping[str, Any], state: Mapping[str, Tensor]
    ) -> Mapping[str, Any]:
        kind = "ar" if "split_token" in state else "diff"
        return official if "model" in official else {"model": kind, **official}

    def config(self, official: Mapping[str, Any]) -> dict[str, Any]:
        for key in sorted(set(official) - _READ - _SILENT):
            warnings.warn(
                f"{self.name}: config key {printable(key)} is not known and changes nothing",
                stacklevel=2,
            )
        kind = official["model"]
        if kind not in ("ar", "diff"):
            raise ConfigError(f"{self.name}: model={printable(kind)}; expected ar or diff")
        heads, depth = official["num_attention_heads"], official["num_layers"]
        length = official.get("text_max_length", _SIZES["text_max_length"])
        autoregressive = kind == "ar"
        sampling = {
            # (1 + s) conditional - s unconditional is a scale of 1 + s here.
            "guidance": 1.0 + official.get("guidance_scale", 7.5),
            "temperature": official.get("temp", 1.0),
        }
        tree = {
            "kind": "autoregressive" if autoregressive else "bit_diffusion",
            "transformer": {
                "width": heads * official["attention_head_dim"],
                "depth": depth,
                "heads": heads,
                "mlp": "gelu_tanh",
                "mlp_ratio": 4.0,
                "norm": "rmsnorm" if autoregressive else "layernorm",
                "norm_affine": autoregressive,
                "norm_eps": 1e-6,
                "qk_norm": True,
                "qk_norm_kind": "rmsnorm",
                "qkv_bias": False,
                "out_bias": False,
                "init": "xavier",
                "branch_scale": "none",
            },
            "condition": {
                "classes": 0,
                "text": {"dim": official["text_cond_dim"], "length": length, "layers": depth},
                "dropout": official.get("text_drop_prob", 0.1),
            },
            "bit_values": "bits",
            "spec": {
                "blocks": [[official["num_img_tkns"]]],
                "vocab": [2] * official["in_channels"],
            },
            "sampling": sampling,
            "tokenizer": {"name": "instella-bae", "sha256": ""},
        }
        if autoregressive:
            return tree | {"positions": "per_block", "head": "bernoulli"}
        sampling |= {
            "steps": official.get("num_sampling_steps", 20),
            "rho": official.get("rho", 1.0),
            "protocol": _chosen(official, "sampling_protocal", _PROTOCOLS),
        }
        target = _chosen(official, "prediction_target", dict(zip(_TARGETS, _TARGETS, strict=True)))
        uniform = official.get("non_uniform_t", True) is False
        return tree | {"target": target, "times": "uniform" if uniform else "sigmoid_normal"}

    def official(self, config: Generator) -> dict[str, Any]:
        """The official config of a generator that was trained here; ConfigError for what the
        official layout has no place for."""
        own, spec = config.config, config.spec
        kinds = {"autoregressive": "ar", "bit_diffusion": "diff"}
        if own.kind not in kinds:
            raise ConfigError(
                f"{self.name}: kind={own.kind} has no place in the official layout; expected one "
                f"of {', '.join(kinds)}"
            )
        text, transformer, sampling = own.condition.text, own.transformer, own.sampling
        if text is None or set(spec.vocab) != {2}:
            raise ConfigError(
                f"{self.name}: condition.text={text}, vocab={spec.vocab[:4]}: the official layout "
                "holds networks that read text and model bits"
            )
        tree = {
            "model": kinds[own.kind],
            "in_channels": len(spec.vocab),
            "num_layers": transformer.depth,
            "attention_head_dim": transformer.width // transformer.heads,
            "num_attention_heads": transformer.heads,
            "num_img_tkns": spec.length,
            "text_cond_dim": text.dim,
            "text_max_length": text.length,
            "text_drop_prob": own.condition.dropout,
            "guidance_scale": sampling.guidance - 1.0,
            "temp": sampling.temperature,
        }
        if own.kind == "bit_diffusion":
            names = {ours: theirs for theirs, ours in _PROTOCOLS.items()}
            tree |= {
                "num_sampling_steps": sampling.steps,
                "rho": sampling.rho,
                "sampling_protocal": names[sampling.protocol],
                "prediction_target": own.target,
                "non_uniform_t": own.times == "sigmoid_normal",
            }
        self._check(own.model_dump(mode="json"), self.config(tree))
        return tree

    def _check(self, ours: Mapping[str, Any], again: Mapping[str, Any]) -> None:
        """ConfigError for what the way there and back would change of the network."""
        theirs = TransformerConfig(**again["transformer"]).model_dump(mode="json")
        wrong = [
            f"transformer.{key}={value}"
            for key, value in ours["transformer"].items()
            if key not in _NO_LAYOUT and theirs[key] != value
        ]
        plain = {"embed": "learned", "regroup": None, "positions": "per_block", "head": "bernoulli"}
        plain = {key: value for key, value in plain.items() if key in ours}
        if ours.get("head", 0) is None:
            plain.pop("head")  # bits have that head by themselves
        plain["bit_values"] = "bits"
        wrong += [f"{key}={ours[key]}" for key, value in plain.items() if ours[key] != value]
        read = ours["condition"]
        wrong += [f"condition.{key}={read[key]}" for key in ("classes", "pooled") if read[key]]
        if read["text"]["layers"] != ours["transformer"]["depth"]:
            wrong.append(f"condition.text.layers={read['text']['layers']}")
        self.refuse(wrong)

    # -- keys -----------------------------------------------------------------------------------

    def entries(self, config: Generator) -> list[Entry]:
        autoregressive = config.config.kind == "autoregressive"
        table = [
            *(Entry(f"texts.{name}", ()) for name in ("empty", "empty_mask")),
            *pair("embed", "x_embedder"),
        ]
        if autoregressive:
            table += [
                same("condition.label.weight", "split_token", **squeeze(0)),
                same("transformer.norm.weight", "norm_out.weight"),
                *pair("head.out", "proj_out"),
            ]
            names = {"mlp.up": "mlp.net.0.proj", "mlp.out": "mlp.net.2"}
        else:
            table += [entry for i in (0, 1) for entry in pair(f"time.{2 * i}", _TIME[i])]
            table += [
                same(
                    f"modulation_head.proj.{kind}",
                    f"norm_out.linear.{kind}",
                    load=swapped,
                    save=lambda tensor: (swapped(tensor),),
                )
                for kind in ("weight", "bias")
            ]
            table += pair("head", "proj_out")
            names = {"mlp.up": "ff.net.0.proj", "mlp.out": "ff.net.2"}
            names["modulation.proj"] = "norm1.linear"
        for i in range(config.config.transformer.depth):
            ours, theirs = f"transformer.blocks.{i}", f"transformer_blocks.{i}"
            table += _block(ours, theirs, autoregressive)
            for mine, other in {"text": "proj_cond", **names}.items():
                table += pair(f"{ours}.{mine}", f"{theirs}.{other}")
        return table

    def fixed(self, config: Generator) -> dict[str, Tensor]:
        """Layers that the autoregressive network holds and does not run: zeros."""
        if config.config.kind != "autoregressive":
            return {}
        width = config.config.transformer.width
        shapes = {f"{_TIME[0]}.weight": (width, 1), f"{_TIME[1]}.weight": (width, width)}
        shapes |= {f"{name}.bias": (width,) for name in _TIME}
        return {key: torch.zeros(shape) for key, shape in shapes.items()}


def _block(ours: str, theirs: str, autoregressive: bool) -> list[Entry]:
    """Tensors of a block that are no layer with a bias."""
    parts = tuple(f"{theirs}.attn.{name}_proj.weight" for name in "qkv")
    names = {
        "attention.out": "attn.o_proj",
        "attention.norm_q": "attn.norm_q",
        "attention.norm_k": "attn.norm_k",
    }
    if autoregressive:
        names["norm_attention"] = "input_layernorm"
        names["norm_mlp"] = "post_attention_layernorm"
    return [
        Entry(
            f"{ours}.attention.qkv.weight",
            parts,
            load=lambda *three: torch.cat(three),
            save=lambda tensor: tensor.chunk(3),
        ),
        same(f"{ours}.positions", f"{theirs}.pos_emb", **squeeze(0)),
        *(same(f"{ours}.{a}.weight", f"{theirs}.{b}.weight") for a, b in names.items()),
    ]


def _sizes(state: Mapping[str, Tensor]) -> dict[str, int]:
    """Sizes of a network as the shapes of its tensors tell them."""
    width, bits = state["x_embedder.weight"].shape
    head_dim = len(state["transformer_blocks.0.attn.norm_q.weight"])
    numbers = {key.split(".")[1] for key in state if key.startswith("transformer_blocks.")}
    rows = state["transformer_blocks.0.pos_emb"].shape[1]
    return {
        "in_channels": bits,
        "num_layers": len(numbers),
        "attention_head_dim": head_dim,
        "num_attention_heads": width // head_dim,
        "num_img_tkns": rows - ("split_token" in state),
        "text_cond_dim": state["transformer_blocks.0.proj_cond.weight"].shape[1],
    }


def _chosen(official: Mapping[str, Any], key: str, names: Mapping[str, str]) -> str:
    """Our name of an official choice, the first if there is none; ConfigError for others."""
    value = official.get(key, next(iter(names)))
    if not isinstance(value, str) or value not in names:
        raise ConfigError(f"{key}={printable(str(value))}; expected one of {', '.join(names)}")
    return names[value]
