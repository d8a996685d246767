"""Training on a cached input space: latents of a VAE that the cache job kept.

The batches then have no pixels. Losses that look at images are refused, and validation rebuilds
images from the cached space.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace

from vistok.config import ConfigError
from vistok.core.records import Batch
from vistok.data.base import Facts
from vistok.frozen.files import hollow
from vistok.frozen.network import Frozen
from vistok.losses.base import Loss
from vistok.storage.weights import content_sha256
from vistok.tokenizer import Tokenizer


def space_identity(tokenizer: Tokenizer) -> str:
    """Hash of the input space: its config and the weights of its networks."""
    space = tokenizer.input_space
    facts = {
        "config": tokenizer.config.input_space.model_dump(mode="json"),
        "frozen": {part.name: part.sha256 for part in space.modules() if isinstance(part, Frozen)},
        "weights": content_sha256(space.state_dict()),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def is_cached(data: Facts | None) -> bool:
    """True if the data are a cache that holds an input space."""
    return data is not None and data.spec is not None and "space" in data.features


def check_cached(data: Facts, tokenizer: Tokenizer) -> None:
    """ConfigError unless the cached space is that of the tokenizer, made by the same weights."""
    own = tokenizer.input_space.shape
    wanted, found = (own.channels, *own.sides), tuple(data.features["space"])
    if found != wanted:
        raise ConfigError(
            f"data: the cached space is {list(found)}, this tokenizer's input space "
            f"{list(wanted)}; cache the data with a tokenizer of the same input_space"
        )
    if tokenizer.config.input_space != tokenizer.config.output_space:
        raise ConfigError(
            "data: a cached space is input and target at once; expected output_space to be "
            "input_space, or images (data.kind=folder)"
        )
    if hollow():
        return  # a dry run has shapes and no weights
    if data.record()["images"].get("space") != space_identity(tokenizer):
        raise ConfigError(
            "data: the cached space was made by another input_space (its config or its weights); "
            "use the same one, starting from the same tokenizer with task.init where its weights "
            "are its own"
        )


def check_losses(losses: Iterable[Loss]) -> None:
    """ConfigError for a loss that looks at images."""
    for loss in losses:
        if loss.needs_images:
            raise ConfigError(
                f"losses: {loss.config.kind} looks at images, and a cached space has none; remove "
                "it, or train on images (data.kind=folder)"
            )


def with_pixels(tokenizer: Tokenizer, batch: Batch) -> Batch:
    """The batch with images; those of a cached space are rebuilt from it."""
    if batch.pixels is not None:
        return batch
    return replace(batch, pixels=tokenizer.input_space.inverse(batch.space).clamp(0, 1))
