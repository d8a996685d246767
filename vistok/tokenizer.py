"""The tokenizer: the one sentence that every system of this field says.

pixels -> (space) -> encoder -> quantizer -> decoder -> (space) -> pixels in 0..1. Regularizers
only sample draws; `draws=None` is evaluation.
Letters: B batch, H W pixels, N latents, L positions, F factors, D width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

# Importing the rooms registers their parts, which the config below is built from.
import vistok.decoders
import vistok.encoders
import vistok.quantizers
import vistok.regularizers
import vistok.spaces  # noqa: F401
from vistok.config import Config, ConfigError, PartOf, validate
from vistok.config.registry import build
from vistok.core.draws import Draws
from vistok.core.records import Batch, Condition, Decoded, Latents, Quantized, Reconstruction
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.frozen.text import TextEncoder, TextEncoderConfig
from vistok.layers.text import TextInputConfig
from vistok.runtime.modes import evaluating
from vistok.spaces.pixels import PixelsConfig
from vistok.storage.hub import Saved
from vistok.storage.origin import Origin
from vistok.tokens import Tokens, TokenSpec, keep_mask

NO_TEXTS = (
    "data: this tokenizer reads text, and the data give none; use texts of the data (text=txt of "
    "webdataset, text_column of huggingface), or data.caption for one of each class"
)


class TokenizerConfig(Config):
    image_size: tuple[int, int] = (256, 256)
    """(H, W) in pixels."""
    input_space: Annotated[Any, PartOf("space")] = PixelsConfig()
    output_space: Annotated[Any, PartOf("space")] = PixelsConfig()
    encoder: Annotated[Any, PartOf("encoder")]
    quantizer: Annotated[Any, PartOf("quantizer")]
    regularizers: tuple[Annotated[Any, PartOf("regularizer")], ...] = ()
    decoder: Annotated[Any, PartOf("decoder")]
    text: TextEncoderConfig | None = None
    """Which text encoder's features encoder or decoder read (their own `text` says how)."""
    license: str | None = Field(default=None)
    """License of the weights; kept with them."""

    @model_validator(mode="before")
    @classmethod
    def _square(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("image_size"), int):
            data = {**data, "image_size": (data["image_size"],) * 2}
        return data

    @property
    def reading(self) -> dict[str, TextInputConfig]:
        """The parts that read text, and how."""
        parts = {"encoder": self.encoder, "decoder": self.decoder}
        found = {name: getattr(part, "text", None) for name, part in parts.items()}
        return {name: how for name, how in found.items() if how is not None}

    @model_validator(mode="after")
    def _texts(self) -> TokenizerConfig:
        """What would otherwise fail at the first batch."""
        reading = self.reading
        if self.text is not None and not reading:
            raise ValueError(
                "text names a text encoder, and no part reads text; set encoder.text or "
                "decoder.text, or leave text out"
            )
        for name, how in reading.items():
            if self.text is not None and how.length != self.text.length:
                raise ValueError(
                    f"{name}.text.length={how.length}, but text.length={self.text.length}; give "
                    "both the same"
                )
        if len({how.dim for how in reading.values()}) > 1:
            dims = ", ".join(f"{name}.text.dim={how.dim}" for name, how in reading.items())
            raise ValueError(f"{dims}: one text encoder has one width; give both the same")
        return self


class Tokenizer(nn.Module, Saved, library_name="vistok", tags=["image-tokenizer"]):
    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.input_space = build(config.input_space, config.image_size)
        self.output_space = build(config.output_space, config.image_size)
        self.quantizer = build(config.quantizer)
        self.encoder = build(config.encoder, config.image_size, self.quantizer.latent_dim)
        latents = math.prod(self.encoder.grid)
        self.decoder = build(config.decoder, config.image_size, latents, self.quantizer.value_dim)
        self.regularizers = [build(part) for part in config.regularizers]
        self._spec = self.quantizer.spec(self.encoder.grid, self.decoder.prefix)
        self._check_regularizers()
        self.origin: Origin | None = None  # of imported weights
        self._text_encoder: list[Any] = []  # in a list, so that it is no submodule

    def _check_regularizers(self) -> None:
        """ConfigError for what would otherwise fail when the first draws are sampled."""
        claimed: dict[str, str] = {}
        for part, regularizer in zip(self.config.regularizers, self.regularizers, strict=True):
            if regularizer.needs_prefix and self.decoder.prefix == "none":
                raise ConfigError(
                    f"regularizers: '{part.kind}' shortens sequences, but decoder.missing is "
                    "'refuse'; set it to 'mask_token' or 'drop'"
                )
            if regularizer.fills in claimed:
                raise ConfigError(
                    f"regularizers: '{claimed[regularizer.fills]}' and '{part.kind}' both fill "
                    f"'{regularizer.fills}'; keep one of them"
                )
            claimed[regularizer.fills] = part.kind
            if regularizer.fills == "null" and not any(
                how.optional for how in self.config.reading.values()
            ):
                raise ConfigError(
                    f"regularizers: '{part.kind}' drops texts, and no part reads text that may "
                    "be missing; set encoder.text or decoder.text, with optional: true"
                )
            try:
                regularizer.check(self._spec)
            except ValueError as error:
                raise ConfigError(f"regularizers: '{part.kind}': {error}") from None

    # -- the sentence ---------------------------------------------------------------------------

    def forward(
        self,
        batch: Batch,
        draws: Draws | None = None,
        condition: Condition | None = None,
        pixels: bool = True,
    ) -> Reconstruction:
        """One training or evaluation pass over `batch.pixels` [B, 3, H, W] in 0..1.

        `pixels=False` leaves the way back from the decoded space out, where no loss looks at it
        (proxy codes: another tokenizer's decoder would run for nothing).
        """
        latents = self.latents(batch.pixels, condition, draws)
        quantized = self.quantize(latents, draws)
        present = self._present(draws, len(batch.pixels), batch.pixels.device)
        decoded = self.reconstruct(quantized.values, present, condition, draws)
        target = batch.pixels if batch.target is None else batch.target
        pixels = self.output_space.inverse(decoded.estimate) if pixels else None
        return Reconstruction(pixels, target, decoded, quantized, latents, draws)

    def latents(
        self, pixels: Tensor, condition: Condition | None = None, draws: Draws | None = None
    ) -> Latents:
        """pixels [B, 3, H, W] in 0..1 -> latents [B, N, D], differentiable."""
        return self.encoder(self.input_space(pixels, draws), condition)

    def quantize(self, latents: Latents, draws: Draws | None = None) -> Quantized:
        return self.quantizer(latents, draws)

    def reconstruct(
        self,
        values: Tensor,
        present: Tensor | None = None,
        condition: Condition | None = None,
        draws: Draws | None = None,
    ) -> Decoded:
        """values [B, N, D] -> the decoded space, differentiable and unclamped."""
        return self.decoder(values, present, condition, draws)

    def condition(self, texts: Sequence[str], null: Tensor | None = None) -> Condition:
        """The condition of B texts; `null` [B] bool: samples that see none of it.

        The text encoder is loaded when it is first needed and is no part of the saved model.
        """
        if self.config.text is None:
            raise ValueError(
                "this tokenizer's config names no text encoder; give tokenizer.text, or features: "
                "Condition(text=[B, M, C])"
            )
        device = next(self.parameters()).device
        features, mask = self.text_encoder.to(device)(texts)
        return Condition(text=features, text_mask=mask, null=null)

    def condition_of(self, batch: Batch, draws: Draws | None = None) -> Condition | None:
        """What is read besides the pixels of a batch of data: None, or its texts, which are kept
        from the samples that `draws.null` names. ConfigError if the data give no texts."""
        if self.config.text is None:
            return None
        if batch.text is None:
            raise ConfigError(NO_TEXTS)
        return self.condition(batch.text, None if draws is None else draws.null)

    @property
    def text_encoder(self) -> Any:
        """Texts -> (features, mask), loaded at the first look."""
        if not self._text_encoder:
            self.use_text_encoder(TextEncoder(self.config.text))
        return self._text_encoder[0]

    def use_text_encoder(self, encoder: Any) -> None:
        """Look through this one: several tokenizers may share it."""
        self._text_encoder = [encoder]

    # -- what users call ------------------------------------------------------------------------

    def spec(self, size: tuple[int, int] | None = None) -> TokenSpec:
        """The token spec of an image of `size` (H, W); None = the size it was trained for."""
        if size is not None and tuple(size) != tuple(self.config.image_size):
            raise ValueError(
                f"size={tuple(size)}: this tokenizer encodes {tuple(self.config.image_size)} only"
            )
        return self._spec

    @torch.no_grad()
    def encode(
        self, pixels: Tensor, length: int | None = None, condition: Condition | None = None
    ) -> Tokens:
        """pixels [B, 3, H, W] in 0..1 -> Tokens; `length` keeps a prefix of each sequence.

        Raises ValueError for another shape, type or range, and for a length the spec forbids.
        """
        spec = self.spec()
        if length is not None:
            spec.check_length(length)
        self.check_pixels(pixels)
        pixels = pixels.to(next(self.parameters()))
        with evaluating(self):
            quantized = self.quantize(self.latents(pixels, condition))
        size = (1, *self.config.image_size)
        if quantized.indices is None:
            tokens = Tokens(spec, values=quantized.values, size=size)
        else:
            tokens = Tokens(spec, indices=quantized.indices.to(Tokens.dtype(spec)), size=size)
        return tokens if length is None else tokens.prefix(length)

    @torch.no_grad()
    def decode(self, tokens: Tokens, condition: Condition | None = None, seed: int = 0) -> Tensor:
        """Tokens (whole or any prefix that the spec allows) -> pixels [B, 3, H, W] in 0..1."""
        if tokens.spec.vocab != self._spec.vocab and tokens.indices is not None:
            tokens = tokens.regroup(self._spec.vocab)
        if tokens.spec.blocks != self._spec.blocks:
            raise ValueError(
                f"tokens have blocks {tokens.spec.blocks}; this tokenizer decodes "
                f"{self._spec.blocks}"
            )
        tokens.check()
        values = self.values(tokens)
        present = None if tokens.keep is None else tokens.kept().to(values.device)
        if present is not None and self._spec.prefix == "none" and bool(present.all()):
            present = None  # such decoders take no mask, not even one that hides nothing
        with evaluating(self):
            decoded = self.reconstruct(values, present, condition)
        return self.output_space.inverse(decoded.estimate).clamp(0, 1)

    def values(self, tokens: Tokens) -> Tensor:
        """The code vectors [B, N, D] that the decoder sees."""
        device = next(self.parameters()).device
        if tokens.indices is None:
            return tokens.values.to(device)
        return self.quantizer.lookup(tokens.indices.to(device).long())

    def draw(self, index: Tensor, seed: int, progress: Progress) -> Draws:
        """Draws of a training step for samples `index` [B], from every regularizer and part."""
        draws = Draws()
        for config, regularizer in zip(self.config.regularizers, self.regularizers, strict=True):
            rng = Rng(seed, config.kind, progress.step)
            draws = draws.join(regularizer.draw(self._spec, index, rng, progress), config.kind)
        rng = Rng(seed, "quantizer", progress.step)
        return draws.join(self.quantizer.draw(self._spec, index, rng, progress), "quantizer")

    def part_parameters(self) -> dict[str, int]:
        """Parameters of each part; of a space only if it has some."""
        spaces = ("input_space", "output_space")
        names = ("encoder", "quantizer", "decoder", *spaces)
        counts = {name: sum(p.numel() for p in getattr(self, name).parameters()) for name in names}
        return {name: count for name, count in counts.items() if count or name not in spaces}

    def _present(self, draws: Draws | None, batch: int, device: torch.device) -> Tensor | None:
        if draws is None or (draws.keep is None and draws.present is None):
            return None
        present = keep_mask(self._spec, draws.keep, batch, device)
        return present if draws.present is None else present & draws.present.to(device)

    def check_pixels(self, pixels: Tensor) -> None:
        height, width = self.config.image_size
        if pixels.ndim != 4 or tuple(pixels.shape[1:]) != (3, height, width):
            raise ValueError(
                f"pixels have shape {tuple(pixels.shape)}; expected [B, 3, {height}, {width}]: "
                "resize and crop the image first"
            )
        if not pixels.is_floating_point():
            raise ValueError(
                f"pixels have type {pixels.dtype}; expected floats in 0..1: divide uint8 by 255"
            )
        low, high = pixels.aminmax() if len(pixels) else (0.0, 1.0)
        if not (low >= -1e-3 and high <= 1 + 1e-3):  # NaN fails it too
            raise ValueError(
                f"pixels lie in {low:.3g}..{high:.3g}; expected 0..1: do not rescale to -1..1"
            )

    # -- files ----------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        return self.config.model_dump(mode="json")

    def _save_pretrained(self, save_directory: Path) -> None:
        super()._save_pretrained(save_directory)
        if self.origin is not None:
            self.origin.save(Path(save_directory))

    @classmethod
    def from_pretrained(cls, name: str | Path, **options: Any) -> Tokenizer:
        tokenizer = super().from_pretrained(name, **options)
        tokenizer.origin = Origin.load(Path(name)) if Path(name).is_dir() else None
        return tokenizer

    def push_to_hub(self, *args: Any, research_only: bool = False, **options: Any) -> Any:
        """As in huggingface_hub; weights that are for research only need `research_only=True`.

        Raises ValueError without it, naming the license.
        """
        license = self.config.license or ""
        if "research" in license.lower() and not research_only:
            raise ValueError(
                f"these weights are licensed '{license}'; pushing them needs your explicit word: "
                "push_to_hub(..., research_only=True)"
            )
        return super().push_to_hub(*args, **options)

    @classmethod
    def from_description(cls, data: dict[str, Any], source: str) -> Tokenizer:
        return cls(validate(TokenizerConfig, data, source))
