"""Instella-T2I's generators as its code base describes them: configs, texts, tiny weights."""

from __future__ import annotations

import torch

from vistok.core.records import Condition
from vistok.generators import Generator
from vistok.pretrained import FAMILIES, from_official, to_official

RUN = {"temperature": "temp", "sampling_steps": "num_sampling_steps"}
NO_OPTION = {"batch_conditional"}  # how many rows of a recording have a condition


def official_config(recording, model: str) -> dict:
    """The official config of a recording, run arguments under their official names."""
    config = {RUN.get(key, key): v for key, v in recording.config.items() if key not in NO_OPTION}
    if model == "ar":  # has no steps
        config = {key: v for key, v in config.items() if key not in ("num_sampling_steps", "rho")}
    length = recording.io["text_mask"].shape[1]
    return {"model": model, "text_max_length": length, **config}


def model_of(recording, model: str) -> Generator:
    return from_official("instella_t2i", recording.weights, official_config(recording, model))


def text_of(recording) -> Condition:
    """Texts of all rows of a recording, conditional and not."""
    features, mask = recording.io["text_features"], recording.io["text_mask"]
    return Condition(text=features.transpose(0, 1), text_mask=mask > 0)


def official_instella(model: str, **changes) -> tuple[dict[str, torch.Tensor], dict]:
    """(state, config) of a tiny generator, "ar" or "diff", with random weights."""
    config = {
        "model": model,
        "in_channels": 6,
        "num_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "num_img_tkns": 4,
        "text_cond_dim": 5,
        "text_max_length": 3,
        **changes,
    }
    family = FAMILIES["instella_t2i"]
    made = Generator.from_description(family.config(config), "tiny")
    state, _ = to_official(made, "instella_t2i")
    torch.manual_seed(0)
    return {key: torch.randn_like(tensor) for key, tensor in state.items()}, config
