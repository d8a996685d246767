"""MaskGIT on TiTok's tokens (arXiv 2406.07550, bytedance/1d-tokenizer): ImageBert and UViTBert.

Hub repositories hold a config.json with model.vq_model and model.generator beside safetensors; the
older .bin files are bare state dicts. Token space of the embedding table: K codes, the mask token,
the classes, and "no class".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from vistok.config import ConfigError
from vistok.generators import Generator
from vistok.generators.masked import MaskedConfig
from vistok.pretrained.base import Entry, Family, Release, Stack, changed, pair, warn_of_unknown
from vistok.pretrained.generators.masked_trunks import (
    TRUNKS,
    bert_entries,
    hidden_width,
    trunk_tree,
    uvit_entries,
)
from vistok.pretrained.published import MASKGIT_SAMPLED
from vistok.pretrained.tokenizers.titok import within

_READ = frozenset(
    "model_type hidden_size num_hidden_layers num_attention_heads intermediate_size dropout "
    "attn_drop num_steps class_label_dropout image_seq_len condition_num_classes "
    "randomize_temperature guidance_scale guidance_decay guidance_scale_pow".split()
)
_MARKS = {
    "ViT": {"model.embeddings.word_embeddings.weight", "model.lm_head.weight"},
    "UViT": {"embeddings.weight", "pos_embed", "mid_block.norm1.weight", "lm_head.weight"},
}
_DECAYS = {"constant": "constant", "linear": "linear", "power-cosine": "cosine"}
_LENGTH_OF_TOKENS = "${model.vq_model.num_latent_tokens}"  # config.json holds it unresolved
# Of a trunk: how it starts and trains, and what is compared by the width that it makes.
_NO_LAYOUT = {"init", "branch_scale", "dropout", "attention_dropout", "mlp_dropout", "mlp_ratio",
              "drop_path", "mlp_hidden"}  # fmt: skip
_LICENSE = "Apache-2.0 (weights trained on ImageNet: research purposes)"
_BERT = {
    "model_type": "ViT",
    "hidden_size": 768,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 3072,
}
_UVIT = {
    "model_type": "UViT",
    "hidden_size": 1024,
    "num_hidden_layers": 20,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}


def _release(
    name: str, gfid: float, sizes: dict, steps: int, noise: float, scale: float, decay: str
) -> Release:
    """A release with the sampling settings that its paper measured it with."""
    length = int(name[1:])
    config = {
        "experiment": {"tokenizer_checkpoint": f"tokenizer_titok_{name}.bin"},
        "model": {
            "vq_model": {"codebook_size": 4096, "token_size": 12, "num_latent_tokens": length},
            "generator": {
                **sizes,
                "dropout": 0.1,
                "attn_drop": 0.1,
                "num_steps": steps,
                "class_label_dropout": 0.1,
                "image_seq_len": length,
                "condition_num_classes": 1000,
                "randomize_temperature": noise,
                "guidance_scale": scale,
                "guidance_decay": decay,
            },
        },
    }
    return Release(
        f"maskgit-titok-{name}",
        f"yucornetto/generator_titok_{name}_imagenet",
        "model.safetensors",
        _LICENSE,
        config,
        gfid=gfid,
        sampled=MASKGIT_SAMPLED,
        recipe=(f"generators/maskgit/titok_{name}",),
        research_only=True,
    )


class MaskGIT(Family):
    name = "maskgit"
    makes = "generator"
    releases = (
        _release("l32", 2.77, _BERT, 8, 9.5, 4.5, "linear"),
        _release("b64", 2.48, _BERT, 8, 11.0, 3.0, "linear"),
        _release("s128", 1.97, _UVIT, 64, 2.8, 6.9, "power-cosine"),
    )
    # Counters that older versions of transformers save.
    inert = ("model.embeddings.position_ids", "model.embeddings.token_type_ids")

    # -- configs --------------------------------------------------------------------------------

    def recognizes(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:
        return _type_of(keys) is not None

    def constants(self, state: Mapping[str, Tensor]) -> Mapping[str, Any] | None:
        """The config of the release of these sizes; heads cannot be told from tensors."""
        kind = _type_of(state)
        if kind is None:
            return None
        for release in self.releases:
            model = release.config["model"]["generator"]
            if model["model_type"] == kind and _rows(state, kind) == (
                model["image_seq_len"] + 1,
                release.config["model"]["vq_model"]["codebook_size"]
                + model["condition_num_classes"]
                + 2,
                model["hidden_size"],
            ):
                return release.config
        return None

    def observed(
        self, official: Mapping[str, Any], state: Mapping[str, Tensor]
    ) -> Mapping[str, Any]:
        """The config with the type of trunk, if it does not say so: its class knew."""
        model, kind = within(official, "model", "generator"), _type_of(state)
        if not isinstance(model, Mapping) or "model_type" in model or kind is None:
            return official
        tree = {**official["model"], "generator": {**model, "model_type": kind}}
        return {**official, "model": tree}

    def config(self, official: Mapping[str, Any]) -> dict[str, Any]:
        model, tokens = (within(official, "model", name) for name in ("generator", "vq_model"))
        if not isinstance(model, Mapping) or not isinstance(tokens, Mapping):
            raise ConfigError(
                f"{self.name}: the config lacks model.generator or model.vq_model; expected the "
                "official config.json"
            )
        warn_of_unknown(self.name, model, _READ, "model.generator.")
        losses = official.get("losses") or {}
        return {
            "kind": "masked",
            "trunk": trunk_tree(model),
            "condition": {
                "classes": model["condition_num_classes"],
                "dropout": model.get("class_label_dropout", 0.1),
            },
            "label_smoothing": losses.get("label_smoothing", 0.1),
            "unmasked_weight": losses.get("loss_weight_unmasked_token", 0.1),
            "sampling": sampling_tree(
                steps=model.get("num_steps", 8),
                scale=model.get("guidance_scale", 3.0),
                decay=model.get("guidance_decay", "constant"),
                power=model.get("guidance_scale_pow", 3.0),
                noise=model.get("randomize_temperature", 4.5),
                annealing=True,  # as the script that measures the releases samples
            ),
            "spec": {
                "blocks": [[_length(model, tokens)]],
                "vocab": [tokens["codebook_size"]],
                "dim": tokens.get("token_size", 0),
            },
            "tokenizer": _tokenizer(official),
        }

    def official(self, config: Generator) -> dict[str, Any]:
        """The official config of a masked generator that was trained here.

        ConfigError for what the official layout has no place for.
        """
        own, spec = config.config, config.spec
        kinds = {trunk.model_fields["kind"].default: name for name, trunk in TRUNKS.items()}
        if own.kind != "masked" or own.trunk.kind not in kinds or len(config.inner.vocab) != 1:
            trunk = f", trunk.kind={own.trunk.kind}" if own.kind == "masked" else ""
            raise ConfigError(
                f"{self.name}: kind={own.kind}{trunk} over vocabulary {config.spec.vocab} has no "
                "place in the official layout; expected kind=masked, a trunk of kind bert or uvit, "
                "and one code per position"
            )
        trunk, sampling = own.trunk, own.sampling
        decays = {ours: theirs for theirs, ours in _DECAYS.items()}
        decay = decays.get(sampling.guidance_schedule, "constant")
        tree = {
            "model": {
                "vq_model": {
                    "codebook_size": config.inner.vocab[0],
                    "token_size": spec.dim,
                    "num_latent_tokens": spec.length,
                },
                "generator": {
                    "model_type": kinds[trunk.kind],
                    "hidden_size": trunk.width,
                    "num_hidden_layers": trunk.depth,
                    "num_attention_heads": trunk.heads,
                    "intermediate_size": hidden_width(trunk),
                    "dropout": trunk.dropout,
                    "attn_drop": trunk.attention_dropout,
                    "num_steps": sampling.steps,
                    "class_label_dropout": own.condition.dropout,
                    "image_seq_len": spec.length,
                    "condition_num_classes": own.condition.classes or 0,
                    "randomize_temperature": sampling.noise,
                    "guidance_scale": sampling.guidance - (decay != "power-cosine"),
                    "guidance_decay": decay,
                    "guidance_scale_pow": sampling.guidance_power,
                },
            },
            "losses": {
                "label_smoothing": own.label_smoothing,
                "loss_weight_unmasked_token": own.unmasked_weight,
            },
        }
        self._check(own, self.config(tree))
        return tree

    def _check(self, own: MaskedConfig, again: Mapping[str, Any]) -> None:
        """ConfigError for what the way there and back would change of the network."""
        mine, theirs = own.trunk.model_dump(), type(own.trunk)(**again["trunk"]).model_dump()
        wrong = changed("trunk", mine, theirs, _NO_LAYOUT)
        if own.tied:
            wrong.append("tied=true")
        if own.regroup is not None:
            wrong.append(f"regroup={own.regroup}")
        read = {key: getattr(own.condition, key) for key in ("text", "pooled")}
        wrong += [f"condition.{key}={value}" for key, value in read.items() if value is not None]
        if not own.condition.null_class:
            wrong.append("condition.null_class=false")
        self.refuse(wrong)

    # -- keys -----------------------------------------------------------------------------------

    def entries(self, config: Generator) -> list[Entry | Stack]:
        bert = config.config.trunk.kind == "bert"
        embeddings = (
            ("embed.0.weight", config.inner.vocab[0]),
            ("mask_token", 1),
            ("condition.tokens.label.weight", config.num_classes + 1),
        )
        if bert:
            return [
                Stack("model.embeddings.word_embeddings.weight", embeddings),
                *bert_entries(config.config.trunk.depth),
                *pair("head", "model.lm_head"),
            ]
        return [
            Stack("embeddings.weight", embeddings),
            *uvit_entries(config.config.trunk.half),
            *pair("head", "lm_head"),
        ]


def _type_of(keys: Iterable[str]) -> str | None:
    """The official name of the trunk that has these keys."""
    keys = set(keys)
    return next((name for name, marks in _MARKS.items() if marks <= keys), None)


def _rows(state: Mapping[str, Tensor], kind: str) -> tuple[int, int, int]:
    """(L + 1, K + C + 2, W) as the tables have them."""
    if kind == "ViT":
        positions = state["model.embeddings.position_embeddings.weight"]
        table = state["model.embeddings.word_embeddings.weight"]
    else:
        positions, table = state["pos_embed"], state["embeddings.weight"]
    return positions.shape[-2], *table.shape


def _length(model: Mapping[str, Any], tokens: Mapping[str, Any]) -> int:
    length = model.get("image_seq_len", _LENGTH_OF_TOKENS)
    return tokens["num_latent_tokens"] if length == _LENGTH_OF_TOKENS else length


def sampling_tree(
    *, steps: int, scale: float, decay: str, power: float, noise: float, annealing: bool
) -> dict[str, Any]:
    """Sampling settings of the arguments of the official `generate`."""
    if decay not in _DECAYS:
        raise ConfigError(
            f"maskgit: guidance_decay: got {decay!r}; expected one of {', '.join(_DECAYS)}"
        )
    # cond + g (cond - uncond) of the first two is a scale of 1 + g here.
    guidance = scale if decay == "power-cosine" else 1.0 + scale
    if guidance < 0:
        raise ConfigError(
            f"maskgit: guidance_scale={scale} with guidance_decay={decay}: a scale of {guidance} "
            "leads away from the class; expected one of 0 or more"
        )
    if decay == "power-cosine" and power == 0 and scale == 0:
        guidance = 1.0  # the official sampler takes a scale of 0 as "no guidance"
    return {
        "steps": steps,
        "schedule": "arccos",
        "noise": noise,
        "choice": "annealed",
        "confidence": "logit",
        "guidance": guidance,
        "guidance_schedule": _DECAYS[decay],
        "guidance_power": power if decay == "power-cosine" else 1.0,
        "temperature": 0.5 if annealing else 1.0,
        "temperature_fall": 0.8 if annealing else 0.0,
    }


def _tokenizer(official: Mapping[str, Any]) -> dict[str, str]:
    """Record of the tokenizer: its released name, as the config tells it; {} if it does not."""
    file = within(official, "experiment", "tokenizer_checkpoint")
    known = {f"tokenizer_titok_{name}.bin": f"titok-{name}" for name in ("l32", "b64", "s128")}
    name = known.get(file) if isinstance(file, str) else None
    return {} if name is None else {"name": name, "sha256": ""}
