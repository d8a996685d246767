"""MaskGen-VQ (arXiv 2501.07730, bytedance/1d-tokenizer): texts to TA-TiTok's 128 tokens.

Hub repositories hold a config.json with model.vq_model and model.maskgen beside safetensors. Rows
of the embedding table: K codes, the mask token, and those of classes that nothing reads. The head
is tied to the table, and listed a second time under its own name; files of the hub may leave it
out. In the last block the text only gives keys and values: its map to queries, which is in the
files, changes nothing. MaskGen-KL, over continuous tokens, is another network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from vistok.config import ConfigError
from vistok.generators import Generator
from vistok.layers.mmdit import MMDiTConfig
from vistok.pretrained.base import (
    Entry,
    Family,
    Release,
    Stack,
    changed,
    flag,
    warn_of_unknown,
)
from vistok.pretrained.generators.maskgen_keys import ALIAS, CLASSES, TABLE, Table, key_table
from vistok.pretrained.tokenizers.tatitok import CLIP
from vistok.pretrained.tokenizers.titok import within

_WIDTH, _LENGTH = 768, 77  # of CLIP's features of a text
_READ = frozenset(
    "decoder_embed_dim decoder_depth decoder_num_heads micro_condition micro_condition_embed_dim "
    "text_drop_prob condition_num_classes cfg num_iter temperature sample_aesthetic_score "
    "weight_tying mask_schedule_strategy cfg_schedule cfg_decay_scale_pow randomize_temperature "
    "softmax_temperature_annealing prob_sorting".split()
)
_MARKS = {"text_embed_proj.weight", "cond_pooled_proj.weight", "norm.linear.weight"}
_MARKS_KL = {"text_pooled_emb.weight", "diffusion_pos_embed_learned"}
_SCHEDULES = {"cosine": "cosine", "linear": "linear", "none": "constant"}
_MASKS = ("arccos", "cosine", "linear", "root", "square")
_LICENSE = "Apache-2.0 (weights: only for research purposes)"
_NO_LAYOUT = {"init", "modulation_init"}  # of a trunk: how it starts
_ENCODER = {
    "network": "clip",
    "path": CLIP,
    "layer": "penultimate",
    "pooled": "projected",
    "length": _LENGTH,
    "pad_id": 0,  # open_clip's; padding is attended to here
}


def _release(size: str, width: int, depth: int) -> Release:
    config = {
        "experiment": {"tokenizer_checkpoint": "tatitok_bl128_vq.bin"},
        "model": {
            "vq_model": {"codebook_size": 8192, "token_size": 64, "num_latent_tokens": 128},
            "maskgen": {
                "decoder_embed_dim": width,
                "decoder_depth": depth,
                "decoder_num_heads": 16,
                "micro_condition": True,
                "micro_condition_embed_dim": 256,
                "text_drop_prob": 0.1,
                "condition_num_classes": CLASSES,
                "cfg": 12.0,
                "num_iter": 16,
                "temperature": 2.0,
                "sample_aesthetic_score": 6.5,
            },
        },
    }
    return Release(
        f"maskgen-vq-{size}",
        f"turkeyju/generator_maskgen_vq_{size}",
        "model.safetensors",
        _LICENSE,
        config,
        recipe=tuple(f"generators/maskgen/vq_{size}_stage{stage}" for stage in (1, 2)),
        research_only=True,
    )


class MaskGen(Family):
    name = "maskgen"
    makes = "generator"
    releases = (_release("l", 1024, 16), _release("xl", 1280, 20))
    inert = ("blocks.*.attn.add_q_proj.*",)  # of the last block; the others are read

    # -- configs --------------------------------------------------------------------------------

    def recognizes(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:
        keys = set(keys)
        return keys >= _MARKS or keys >= _MARKS_KL

    def constants(self, state: Mapping[str, Tensor]) -> Mapping[str, Any] | None:
        """The config of the release of this width and depth; heads cannot be told from tensors."""
        if not self.recognizes({}, state):
            return None
        if TABLE not in state or "pos_embed" not in state:
            return self.releases[0].config  # importing says what is missing
        for release in self.releases:
            model = release.config["model"]["maskgen"]
            last = f"blocks.{model['decoder_depth'] - 1}.norm1_context.linear.bias"
            width = model["decoder_embed_dim"]
            if state[TABLE].shape[-1] == width and state.get(last, _NONE).shape == (2 * width,):
                return release.config
        return None

    def unwrapped(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The state dict with both names of a tied table; safetensors keeps one of them."""
        if set(state) < _MARKS or "lm_head.bias" in state:
            return state
        for name, other in ((TABLE, ALIAS), (ALIAS, TABLE)):
            if name not in state and other in state:
                return {**state, name: state[other]}
        return state

    def observed(
        self, official: Mapping[str, Any], state: Mapping[str, Tensor]
    ) -> Mapping[str, Any]:
        """The config as it is, its sizes compared with the table; MaskGen-KL is refused."""
        if set(state) >= _MARKS_KL:
            raise ConfigError(
                f"{self.name}: weights of MaskGen-KL, over continuous tokens; expected those of "
                f"MaskGen-VQ ({', '.join(release.name for release in self.releases)})"
            )
        table, model = state.get(TABLE), official["model"]
        rows = model["vq_model"]["codebook_size"] + model["maskgen"]["condition_num_classes"] + 2
        if table is not None and table.shape[0] != rows:
            raise ValueError(f"{TABLE} has {table.shape[0]} rows, the config makes it {rows}")
        return official

    def config(self, official: Mapping[str, Any]) -> dict[str, Any]:
        model, tokens = (within(official, "model", name) for name in ("maskgen", "vq_model"))
        if not isinstance(model, Mapping) or not isinstance(tokens, Mapping):
            raise ConfigError(
                f"{self.name}: the config lacks model.maskgen or model.vq_model; expected the "
                "official config.json"
            )
        warn_of_unknown(self.name, model, _READ, "model.maskgen.")
        losses, masks = official.get("losses") or {}, model.get("mask_schedule_strategy", "arccos")
        if masks not in _MASKS:
            raise ConfigError(
                f"{self.name}: mask_schedule_strategy: got {masks!r}; expected one of "
                f"{', '.join(_MASKS)}"
            )
        for key in ("softmax_temperature_annealing", "prob_sorting"):
            if not flag(model, key, True):  # the last step would divide by 0; or rank without noise
                raise ConfigError(f"{self.name}: {key}=false is not supported; expected true")
        width = tokens.get("text_embed_dim", _WIDTH)
        length = tokens.get("text_context_length", _LENGTH)
        tree = {
            "kind": "masked",
            "trunk": {
                "kind": "mmdit",
                "width": model["decoder_embed_dim"],
                "depth": model["decoder_depth"],
                "heads": model["decoder_num_heads"],
                "init": "trunc_normal",
                "modulation_init": "normal",
            },
            "tied": flag(model, "weight_tying", True),
            "condition": {
                "classes": 0,
                "text": {"dim": width, "length": length},
                "pooled": width,
                "score": _score(model),
                "dropout": model["text_drop_prob"],
            },
            "masks": masks,
            "label_smoothing": losses.get("label_smoothing", 0.1),
            "unmasked_weight": losses.get("loss_weight_unmasked_token", 0.1),
            "sampling": {
                "steps": model.get("num_iter", 16),
                "schedule": masks,
                "count_precision": "float32",
                "noise": model.get("randomize_temperature", model.get("temperature", 1.5)),
                **_guidance(model),
                "temperature": 0.5,
                "temperature_fall": 0.8,
            },
            "spec": {
                "blocks": [[tokens["num_latent_tokens"]]],
                "vocab": [tokens["codebook_size"]],
                "dim": tokens.get("token_size", 0),
            },
            "tokenizer": _tokenizer(official),
        }
        known = (width, length) == (_WIDTH, _LENGTH)
        return tree | ({"text_encoder": {"config": _ENCODER, "sha256": ""}} if known else {})

    def official(self, config: Generator) -> dict[str, Any]:
        """The official config of a generator that was trained here; ConfigError for what the
        official layout has no place for."""
        own, spec = config.config, config.spec
        if own.kind != "masked" or own.trunk.kind != "mmdit" or len(config.inner.vocab) != 1:
            trunk = f", trunk.kind={own.trunk.kind}" if own.kind == "masked" else ""
            raise ConfigError(
                f"{self.name}: kind={own.kind}{trunk} over vocabulary {spec.vocab} has no place in "
                "the official layout; expected kind=masked, a trunk of kind mmdit, and one code "
                "per position"
            )
        trunk, sampling, read = own.trunk, own.sampling, own.condition
        schedules = {ours: theirs for theirs, ours in _SCHEDULES.items()}
        tree = {
            "model": {
                "vq_model": {
                    "codebook_size": config.inner.vocab[0],
                    "token_size": spec.dim,
                    "num_latent_tokens": spec.length,
                    "text_embed_dim": read.text.dim,
                    "text_context_length": read.text.length,
                },
                "maskgen": {
                    "decoder_embed_dim": trunk.width,
                    "decoder_depth": trunk.depth,
                    "decoder_num_heads": trunk.heads,
                    "micro_condition": read.score is not None,
                    "micro_condition_embed_dim": 256 if read.score is None else read.score.channels,
                    "sample_aesthetic_score": 6.0 if read.score is None else read.score.value,
                    "text_drop_prob": read.dropout,
                    "condition_num_classes": CLASSES,
                    "weight_tying": own.tied,
                    "mask_schedule_strategy": own.masks,
                    "cfg": sampling.guidance - 1.0,
                    "cfg_schedule": schedules.get(sampling.guidance_schedule, "cosine"),
                    "cfg_decay_scale_pow": sampling.guidance_power,
                    "num_iter": sampling.steps,
                    "temperature": sampling.noise,
                },
            },
            "losses": {
                "label_smoothing": own.label_smoothing,
                "loss_weight_unmasked_token": own.unmasked_weight,
            },
        }
        self._check(config, self.config(tree))
        return tree

    def _check(self, config: Generator, again: Mapping[str, Any]) -> None:
        """ConfigError for what the way there and back would change of the network."""
        own = config.config
        theirs = MMDiTConfig(**again["trunk"]).model_dump()
        wrong = changed("trunk", own.trunk.model_dump(), theirs, _NO_LAYOUT)
        if own.regroup is not None:
            wrong.append(f"regroup={own.regroup}")
        read, score = own.condition, own.condition.score
        if read.classes:
            wrong.append(f"condition.classes={read.classes}")
        if read.pooled != read.text.dim:
            wrong.append(f"condition.pooled={read.pooled} (text.dim={read.text.dim})")
        if score is not None:
            kept = {"scale": score.scale, "max_period": score.max_period}
            wrong += [
                f"condition.score.{key}={value}"
                for key, value in kept.items()
                if type(score).model_fields[key].default != value
            ]
        self.refuse(wrong)

    # -- keys -----------------------------------------------------------------------------------

    def entries(self, config: Generator) -> list[Entry | Stack | Table]:
        return key_table(config)

    def fixed(self, config: Generator) -> dict[str, Tensor]:
        """The map to queries that nothing reads: zeros of a model that was trained here."""
        width, last = config.config.trunk.width, config.config.trunk.depth - 1
        key = f"blocks.{last}.attn.add_q_proj"
        return {f"{key}.weight": torch.zeros(width, width), f"{key}.bias": torch.zeros(width)}


_NONE = torch.empty(0)


def _guidance(model: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of cond + g (cond - uncond), a scale of 1 + g here; g grows from 1, by the share of
    the steps with the present one."""
    schedule = model.get("cfg_schedule", "cosine")
    if schedule not in _SCHEDULES:
        raise ConfigError(
            f"maskgen: cfg_schedule: got {schedule!r}; expected one of {', '.join(_SCHEDULES)}"
        )
    return {
        "guidance": 1.0 + model.get("cfg", 12.0),
        "guidance_start": 2.0,
        "guidance_schedule": _SCHEDULES[schedule],
        "guidance_power": model.get("cfg_decay_scale_pow", 1.0),
        "guidance_share": "after",
    }


def _score(model: Mapping[str, Any]) -> dict[str, Any] | None:
    if not flag(model, "micro_condition", True):
        return None
    return {
        "channels": model["micro_condition_embed_dim"],
        "value": model.get("sample_aesthetic_score", 6.0),
    }


def _tokenizer(official: Mapping[str, Any]) -> dict[str, str]:
    """Record of the tokenizer: its released name, as the config tells it; {} if it does not."""
    file = within(official, "experiment", "tokenizer_checkpoint")
    sizes = [
        within(official, "model", "vq_model", key)
        for key in ("codebook_size", "token_size", "num_latent_tokens")
    ]
    if file == "tatitok_bl128_vq.bin" or (file is None and sizes == [8192, 64, 128]):
        return {"name": "tatitok-bl128-vq", "sha256": ""}
    return {}
