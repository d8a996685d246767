"""RAR (arXiv 2411.00776, bytedance/1d-tokenizer) on MaskGIT-VQGAN's tokens and on RobusTok's.

Releases are bare state dicts. The one config of the code base has the sizes of RAR-B, which are
overridden on the command line for the others, so sizes are read from the tensors. Token space of
the embedding table: K codes, one mask token that nothing reads, the classes, and "no class".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from vistok.config import ConfigError
from vistok.generators import Generator
from vistok.layers.transformer import TransformerConfig
from vistok.pretrained.base import (
    Entry,
    Family,
    Release,
    Stack,
    changed,
    pair,
    same,
    squeeze,
    warn_of_unknown,
)
from vistok.pretrained.published import RAR_SAMPLED, ROBUSTOK_SAMPLED
from vistok.pretrained.tokenizers.titok import within

SPARE_POSITIONS, SPARE_STEPS = 1024, 100  # rows of the tables beyond the sequence, in part unused
STEPS, START, END = 250_000, 125_000, 187_500
_READ = frozenset(
    "hidden_size num_hidden_layers num_attention_heads intermediate_size dropout attn_drop "
    "class_label_dropout image_seq_len condition_num_classes randomize_temperature guidance_scale "
    "guidance_scale_pow randomness_anneal_start randomness_anneal_end".split()
)
_SILENT = frozenset({"use_checkpoint"})  # recomputes activations; no number depends on it
_MARKS = frozenset({"target_aware_pos_embed", "timesteps_embeddings", "adaln_before_head"})
# Of a transformer: how it starts and trains, and what is compared by the width that it makes.
_NO_LAYOUT = {"init", "init_std", "branch_scale", "dropout", "attention_dropout", "mlp_dropout"}
_NO_LAYOUT |= {"mlp_out_dropout", "mlp_ratio"}
MASKGIT = {
    "codebook_size": 1024,
    "token_size": 256,
    "num_latent_tokens": 256,
    "finetune_decoder": False,
    "pretrained_tokenizer_weight": "maskgit-vqgan-imagenet-f16-256.bin",
}
ROBUSTOK = {
    "codebook_size": 4096,
    "codebook_embed_dim": 64,
    "codebook_l2_norm": True,
    "v_patch_nums": [16],
    "enc_type": "dinov2",
    "num_latent_tokens": 256,
}


_SIZES = {  # width, depth, hidden width of the feed-forward layers
    "b": (768, 24, 3072),
    "l": (1024, 24, 4096),
    "xl": (1280, 32, 5120),
    "xxl": (1408, 40, 6144),
}
_RESEARCH = "Apache-2.0 (weights trained on ImageNet: research purposes)"
_UNSTATED = "none stated, code after Apache-2.0 (research only)"


def _release(
    name: str, size: str, gfid: float, temperature: float, scale: float, power: float
) -> Release:
    """A release with the sampling settings that its paper measured it with."""
    width, depth, hidden = _SIZES[size]
    robustok = name.startswith("robustok")
    config = {
        "model": {
            "vq_model": ROBUSTOK if robustok else MASKGIT,
            "generator": {
                "hidden_size": width,
                "num_hidden_layers": depth,
                "num_attention_heads": 16,
                "intermediate_size": hidden,
                "dropout": 0.1,
                "attn_drop": 0.1,
                "class_label_dropout": 0.1,
                "image_seq_len": 256,
                "condition_num_classes": 1000,
                "randomize_temperature": temperature,
                "guidance_scale": scale,
                "guidance_scale_pow": power,
                "randomness_anneal_start": START,
                "randomness_anneal_end": END,
            },
        },
        "training": {"max_train_steps": STEPS},
    }
    return Release(
        name,
        "qiuk6/RobusTok" if robustok else "yucornetto/RAR",
        f"rar_{size}.bin",
        _UNSTATED if robustok else _RESEARCH,
        config,
        gfid=gfid,
        sampled=ROBUSTOK_SAMPLED if robustok else RAR_SAMPLED,
        recipe=(f"generators/rar/{name.replace('-', '_')}",),
        research_only=True,
    )


class RAR(Family):
    name = "rar"
    makes = "generator"
    releases = (
        _release("rar-b", "b", 1.95, 1.0, 16.0, 2.75),
        _release("rar-l", "l", 1.70, 1.02, 15.5, 2.5),
        _release("rar-xl", "xl", 1.50, 1.02, 6.9, 1.5),
        _release("rar-xxl", "xxl", 1.48, 1.02, 8.0, 1.2),
        _release("robustok-rar-b", "b", 1.83, 1.02, 6.0, 1.15),
        _release("robustok-rar-l", "l", 1.60, 1.04, 6.75, 1.01),
    )
    inert = ("attn_mask",)  # a constant, which files that are older than the release hold

    # -- configs --------------------------------------------------------------------------------

    def recognizes(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:
        return {key.split(".")[0] for key in keys} >= _MARKS

    def constants(self, state: Mapping[str, Tensor]) -> Mapping[str, Any] | None:
        """The config of a release of these sizes, else one of the sizes alone."""
        if not self.recognizes({}, state):
            return None
        try:
            codes, sizes = _sizes(state)
        except (KeyError, IndexError, ZeroDivisionError, TypeError):
            return self.releases[0].config  # importing says what is missing
        for release in self.releases:
            known = release.config["model"]
            if known["vq_model"]["codebook_size"] == codes and all(
                known["generator"][key] == value for key, value in sizes.items()
            ):
                return release.config
        return {"model": {"vq_model": {"codebook_size": codes}, "generator": sizes}}

    def config(self, official: Mapping[str, Any]) -> dict[str, Any]:
        model, tokens = (within(official, "model", name) for name in ("generator", "vq_model"))
        if not isinstance(model, Mapping) or not isinstance(tokens, Mapping):
            raise ConfigError(
                f"{self.name}: the config lacks model.generator or model.vq_model; expected the "
                "official rar.yaml, with the sizes of these weights"
            )
        warn_of_unknown(self.name, model, _READ | _SILENT, "model.generator.")
        width, length = model["hidden_size"], model["image_seq_len"]
        # As the official code computes it: where the quotient rounds down, one row fewer.
        hidden = int(width * (model["intermediate_size"] / width))
        dropout = model.get("dropout", 0.0)
        return {
            "kind": "random_order",
            "transformer": {
                "width": width,
                "depth": model["num_hidden_layers"],
                "heads": model["num_attention_heads"],
                "mlp": "gelu",
                "mlp_ratio": hidden / width,
                "norm": "layernorm",
                "norm_eps": 1e-6,
                "qk_norm": True,
                "qk_norm_kind": "layernorm",
                "dropout": dropout,
                "attention_dropout": model.get("attn_drop", 0.0),
                "mlp_dropout": dropout,
                "init": "trunc_normal",
                "branch_scale": "none",
            },
            "condition": {
                "classes": model["condition_num_classes"],
                "dropout": model.get("class_label_dropout", 0.1),
            },
            "head": "joint",
            "randomness": _randomness(official, model),
            "sampling": _sampling(model),
            "spec": {
                "blocks": [_grid(length)],
                "vocab": [tokens["codebook_size"]],
                "dim": tokens.get("token_size", tokens.get("codebook_embed_dim", 0)),
            },
            "tokenizer": _tokenizer(tokens),
        }

    def official(self, config: Generator) -> dict[str, Any]:
        """The official config of a random-order generator that was trained here.

        ConfigError for what the official layout has no place for.
        """
        own, spec = config.config, config.spec
        if own.kind != "random_order" or len(config.inner.vocab) != 1:
            raise ConfigError(
                f"{self.name}: kind={own.kind} over vocabulary {config.inner.vocab} has no place "
                "in the official layout; expected kind=random_order and one code per position"
            )
        transformer, sampling, codes = own.transformer, own.sampling, config.inner.vocab[0]
        tree = {
            "model": {
                "vq_model": {
                    **(MASKGIT if config.tokenizer.get("name") == "maskgit-vqgan" else {}),
                    "codebook_size": codes,
                    "token_size": spec.dim,
                    "num_latent_tokens": spec.length,
                },
                "generator": {
                    "hidden_size": transformer.width,
                    "num_hidden_layers": transformer.depth,
                    "num_attention_heads": transformer.heads,
                    "intermediate_size": round(transformer.width * transformer.mlp_ratio),
                    "dropout": transformer.dropout,
                    "attn_drop": transformer.attention_dropout,
                    "class_label_dropout": own.condition.dropout,
                    "image_seq_len": spec.length,
                    "condition_num_classes": own.condition.classes or 0,
                    "randomize_temperature": sampling.temperature,
                    "guidance_scale": sampling.guidance,
                    "guidance_scale_pow": sampling.guidance_power
                    if sampling.guidance_schedule == "cosine"
                    else 0.0,
                    "randomness_anneal_start": round(own.randomness.start * STEPS),
                    "randomness_anneal_end": round(own.randomness.end * STEPS),
                },
            },
            "training": {"max_train_steps": STEPS},
        }
        self._check(own.model_dump(), self.config(tree))
        return tree

    def _check(self, ours: Mapping[str, Any], again: Mapping[str, Any]) -> None:
        """ConfigError for what the way there and back would change of the network."""
        mine = ours["transformer"]
        theirs = TransformerConfig().model_dump() | again["transformer"]
        wrong = changed("transformer", mine, theirs, _NO_LAYOUT)
        widths = [round(one["width"] * one["mlp_ratio"]) for one in (mine, theirs)]
        if widths[0] != widths[1]:
            wrong.append(f"transformer.mlp_ratio={mine['mlp_ratio']}")
        plain = {"embed": "learned", "regroup": None}
        wrong += [f"{key}={ours[key]}" for key, value in plain.items() if ours[key] != value]
        read = {key: ours["condition"][key] for key in ("text", "pooled")}
        wrong += [f"condition.{key}={value}" for key, value in read.items() if value is not None]
        self.refuse(wrong)

    # -- keys -----------------------------------------------------------------------------------

    def entries(self, config: Generator) -> list[Entry | Stack]:
        codes, length = config.inner.vocab[0], config.spec.length
        classes = config.num_classes + 1
        slots, spare = length + 2, SPARE_POSITIONS - 2  # cls and class stand in front
        table = [
            same("cls_token", "cls_token", **squeeze(0)),
            Stack(
                "embeddings.weight",
                (("embed.0.weight", codes), (None, 1), ("condition.label.weight", classes)),
            ),
            Stack("pos_embed", (("positions", slots), (None, spare)), lead=1),
            Stack(
                "target_aware_pos_embed",
                ((None, 2), ("target_positions", length), (None, spare)),
                lead=1,
            ),
            Stack("timesteps_embeddings", (("places", slots), (None, SPARE_STEPS - 2)), lead=1),
            *(
                same(
                    f"modulation_head.proj.{kind}",
                    f"adaln_before_head.adaLN_modulation.1.{kind}",
                    load=swapped,
                    save=lambda tensor: (swapped(tensor),),
                )
                for kind in ("weight", "bias")
            ),
            *pair("head.out", "lm_head"),
        ]
        names = {
            "norm_attention": "norm1",
            "attention.qkv": "attn.qkv",
            "attention.norm_q": "attn.q_norm",
            "attention.norm_k": "attn.k_norm",
            "attention.out": "attn.proj",
            "norm_mlp": "norm2",
            "mlp.up": "mlp.fc1",
            "mlp.out": "mlp.fc2",
            "modulation.proj": "adaLN_modulation.1",
        }
        for i in range(config.config.transformer.depth):
            for ours, theirs in names.items():
                table += pair(f"transformer.blocks.{i}.{ours}", f"blocks.{i}.{theirs}")
        return table


def swapped(tensor: Tensor) -> Tensor:
    """The two halves of the head's modulation, which is (scale, shift) there and the other way
    round in the blocks, and here."""
    first, second = tensor.chunk(2)
    return torch.cat([second, first])


def _sizes(state: Mapping[str, Tensor]) -> tuple[int, dict[str, int]]:
    """(K, sizes of the network) as the shapes of its tensors tell them."""
    width = state["cls_token"].shape[-1]
    codes = len(state["lm_head.weight"])
    return codes, {
        "hidden_size": width,
        "num_hidden_layers": len({key.split(".")[1] for key in state if key.startswith("blocks.")}),
        "num_attention_heads": width // len(state["blocks.0.attn.q_norm.weight"]),
        "intermediate_size": len(state["blocks.0.mlp.fc1.weight"]),
        "image_seq_len": state["pos_embed"].shape[1] - SPARE_POSITIONS,
        "condition_num_classes": len(state["embeddings.weight"]) - codes - 2,
    }


def _grid(length: int) -> list[int]:
    """The grid of the tokens: the official code knows only how many there are."""
    side = math.isqrt(length)
    return [side, side] if side * side == length else [length]


def _randomness(official: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, float]:
    """Steps of the annealing as shares of the training."""
    steps = within(official, "training", "max_train_steps") or STEPS
    start = model.get("randomness_anneal_start", START)
    end = model.get("randomness_anneal_end", END)
    return {"start": min(start / steps, 1.0), "end": min(end / steps, 1.0)}


def _sampling(model: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of sampling; a config without any samples without guidance."""
    scale = model.get("guidance_scale", 0.0)
    return {
        "temperature": model.get("randomize_temperature", 1.0),
        # The official sampler takes 0 as "no guidance", which is 1 here.
        "guidance": 1.0 if scale == 0 else scale,
        "guidance_schedule": "cosine",
        "guidance_power": model.get("guidance_scale_pow", 1.0),
    }


def _tokenizer(tokens: Mapping[str, Any]) -> dict[str, str]:
    """Record of the tokenizer: its released name, as the config tells it; {} if it does not. Which
    weights they were is not told."""
    weights = str(tokens.get("pretrained_tokenizer_weight", ""))
    if weights.startswith("maskgit-vqgan"):
        return {"name": "maskgit-vqgan", "sha256": ""}
    return {"name": "robustok-main", "sha256": ""} if "v_patch_nums" in tokens else {}
