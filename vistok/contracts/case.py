"""A part under test: the part in the smallest tokenizer that holds it, and four tiny images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

# Importing the packages registers the parts.
import vistok.data
import vistok.generators
import vistok.losses  # noqa: F401
from vistok.config import ConfigError, validate
from vistok.config.overrides import apply, parse
from vistok.config.registry import Entry, build, entries
from vistok.core.draws import Draws
from vistok.core.records import Batch, Latents
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.tokenizer import Tokenizer, TokenizerConfig

HALFWAY = Progress(5, 10)
IN_A_TOKENIZER = ("space", "head", "encoder", "quantizer", "decoder", "regularizer")


def small(family: str, kind: str) -> dict[str, Any]:
    """A part's tiny config as plain data."""
    return entries(family)[kind].config.tiny().model_dump(mode="json")


def tiny_tree(**parts: Any) -> dict[str, Any]:
    """The config of a tiny tokenizer of 8 x 8 images, four latents, as plain data."""
    tree = {
        "image_size": 8,
        "encoder": small("encoder", "vit"),
        "quantizer": small("quantizer", "fsq"),
        "decoder": small("decoder", "vit"),
    }
    return tree | parts


def tiny(seed: int = 0, **parts: Any) -> Tokenizer:
    """A tiny tokenizer with these parts, its weights of this seed."""
    torch.manual_seed(seed)
    return Tokenizer(validate(TokenizerConfig, tiny_tree(**parts)))


def around(family: str, kind: str, part: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The parts of a tiny tokenizer that hold a part: what it cannot do without comes along.

    Args:
        part: its config as plain data; None = its tiny one.
    """
    part = small(family, kind) if part is None else dict(part)
    if family == "head" or (family, kind) == ("space", "codes"):
        part = small("head", kind) if family == "space" else part
        codes = small("space", "codes") if kind == "codes" else {"kind": "pixels"}
        patches = {"size": 1} if kind == "codes" else {"size": 4}
        decoder = small("decoder", "vit") | {"head": part, "patches": patches}
        return {"decoder": decoder, "output_space": codes}
    if family == "space" and getattr(entries(family)[kind].part, "reads_only", False):
        patches = {"size": 1}  # of a few cells
        return {"input_space": part, "encoder": small("encoder", "vit") | {"patches": patches}}
    if family == "space":
        return {"input_space": part, "output_space": part}
    if family != "regularizer":
        return {family: part}
    found: dict[str, Any] = {"regularizers": [part]}
    fills = entries(family)[kind].part.fills
    if "null" in fills:  # there must be something to leave out
        found["decoder"] = small("decoder", "vit") | {"text": {"dim": 4, "length": 3}}
    if "levels" in fills:  # and levels to drop
        found["quantizer"] = small("quantizer", "multi_scale")
    return found


def images(count: int = 4, sides: Sequence[int] = (8, 8)) -> Batch:
    """The same random images in every check: [count, 3, *sides] in 0..1."""
    generator = torch.Generator().manual_seed(7)
    return Batch(torch.arange(count), torch.rand(count, 3, *sides, generator=generator))


@dataclass(frozen=True)
class Case:
    """A registered part with the config that it is tested with."""

    entry: Entry
    config: Any
    settings: tuple[str, ...] = ()
    """KEY=VALUE words of the tokenizer around the part, such as image_size=32."""
    cached: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, entry: Entry, words: Sequence[str] = ()) -> Case:
        """The case of a part: its `tiny()` config with KEY=VALUE changes; `tokenizer.KEY=VALUE`
        changes the tokenizer around it. ConfigError for values that do not fit."""
        outside = tuple(w.removeprefix("tokenizer.") for w in words if w.startswith("tokenizer."))
        own = [word for word in words if not word.startswith("tokenizer.")]
        parse(outside)  # a word that is no setting is told before anything runs
        try:
            start = entry.config.tiny().model_dump(mode="json")
        except Exception as error:  # required fields, or a tiny() of the user's that fails
            raise ConfigError(
                f"{entry.kind}: {entry.config.__name__}.tiny() gives no config "
                f"({type(error).__name__}: {' '.join(str(error).split())[:160]}); expected the "
                "smallest config: give every field a default, or a classmethod tiny()"
            ) from None
        return cls(entry, validate(entry.config, apply(start, own), entry.kind), outside)

    @property
    def family(self) -> str:
        return self.entry.family

    def tree(self) -> dict[str, Any]:
        """The part's config as plain data."""
        return self.config.model_dump(mode="json")

    def part(self, *args: Any) -> Any:
        """The part alone, with weights of one seed."""
        torch.manual_seed(0)
        return build(self.config, *args)

    def tokenizer(self, **parts: Any) -> Tokenizer:
        """A tiny tokenizer that holds the part, codes taken from data where it wants that."""
        if self.family in IN_A_TOKENIZER:
            parts = around(self.family, self.entry.kind, self.tree()) | parts
        tree = apply(tiny_tree(**parts), self.settings)
        torch.manual_seed(0)
        tokenizer = Tokenizer(validate(TokenizerConfig, tree))
        if tokenizer.quantizer.wants_data:
            rows = torch.randn(1, 50, tokenizer.quantizer.latent_dim)
            tokenizer.quantizer.initialize(Latents(rows, ((50,),)), Rng(0))
        return tokenizer

    def images(self, tokenizer: Tokenizer) -> Batch:
        """Four images, or clips, as a tokenizer takes them."""
        return images(4, tokenizer.shape.sides)

    def quantized(self, tokenizer: Tokenizer, draws: Draws | None = None) -> Any:
        """(latents, Quantized) of the four images."""
        latents = tokenizer.latents(self.images(tokenizer).pixels)
        return latents, tokenizer.quantize(latents, draws)


def halves(batch: Batch) -> list[Batch]:
    """A batch cut in two of unequal sizes: indices come along."""
    return [batch.select(slice(0, 1)), batch.select(slice(1, len(batch.index)))]


def with_values(latents: Latents, values: Tensor) -> Latents:
    return replace(latents, values=values)
