"""What a tokenizer is composed of: the config under `tokenizer`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from vistok.conditioning import check_texts
from vistok.config import Config, PartOf
from vistok.core.errors import InputError
from vistok.core.shapes import Shape
from vistok.frozen.text import TextEncoderConfig
from vistok.layers.text import TextInputConfig
from vistok.layers.transformer import check_unmodulated
from vistok.spaces.pixels import PixelsConfig

Side = Annotated[int, Field(ge=1, le=2**14)]  # pixels


class ChunksConfig(Config):
    """Windows of clips that are longer than the tokenizer's."""

    frames: int | None = Field(default=None, ge=1, le=2**12)
    """Frames of a window; null = the tokenizer's, and no others work."""
    overlap: int = Field(default=0, ge=0)
    """Frames that neighboring windows share, at most half of a window."""
    join: Literal["blend", "condition"] = "blend"
    """`blend`: windows are decoded apart and mixed where they overlap. `condition`: in order, each
    is given the last decoded frames of the one before; for decoders with `given`."""


class TokenizerConfig(Config):
    image_size: tuple[Side, Side] = (256, 256)
    """(H, W) in pixels; one number for a square."""
    frames: int | None = Field(default=None, ge=1, le=2**12)
    """Frames of a clip; null = this tokenizer takes images."""
    input_space: Annotated[Any, PartOf("space")] = PixelsConfig()
    """Representation of the pixels that the encoder reads."""
    output_space: Annotated[Any, PartOf("space")] = PixelsConfig()
    """Representation that the decoder gives."""
    encoder: Annotated[Any, PartOf("encoder")]
    quantizer: Annotated[Any, PartOf("quantizer")]
    regularizers: tuple[Annotated[Any, PartOf("regularizer")], ...] = ()
    decoder: Annotated[Any, PartOf("decoder")]
    text: TextEncoderConfig | None = None
    """Text encoder whose features encoder or decoder read (their own `text` says how)."""
    chunks: ChunksConfig | None = None
    """Windows in which longer clips are encoded; null = the first frames, unless `vistok encode
    --overlap` asks for all."""
    license: str | None = None
    """License of the weights; kept with them."""

    @field_validator("image_size", mode="before", json_schema_input_type=Side | tuple[Side, Side])
    @classmethod
    def _square(cls, value: Any) -> Any:
        return (value, value) if isinstance(value, int) else value

    @property
    def shape(self) -> Shape:
        """Shape of the pixels of one sample."""
        sides = self.image_size if self.frames is None else (self.frames, *self.image_size)
        return Shape(3, tuple(sides))

    @property
    def reading(self) -> dict[str, TextInputConfig]:
        """The parts that read text, and how."""
        parts = {"encoder": self.encoder, "decoder": self.decoder}
        found = {name: getattr(part, "text", None) for name, part in parts.items()}
        return {name: how for name, how in found.items() if how is not None}

    @model_validator(mode="after")
    def _windows(self) -> TokenizerConfig:
        if self.chunks is None:
            return self
        if self.frames is None:
            raise InputError("chunks are for clips; set tokenizer.frames, or leave chunks out")
        frames = self.chunks.frames or self.frames
        if frames != self.frames:
            raise InputError(
                f"chunks.frames={frames} with frames={self.frames}: a window has the frames of the "
                "tokenizer; expected the same number"
            )
        if self.chunks.overlap > frames // 2:
            raise InputError(
                f"chunks.overlap={self.chunks.overlap}: expected 0..{frames // 2}, half of the "
                f"{frames} frames"
            )
        if self.chunks.join == "condition" and getattr(self.decoder, "given", None) is None:
            raise InputError(
                f"chunks.join=condition: decoder {self.decoder.kind} is given no frames; expected "
                "one with `given` (flow_vit), or join=blend"
            )
        if self.chunks.join == "condition" and not self.chunks.overlap:
            raise InputError("chunks.join=condition with overlap=0: no frames to give; use 1 up")
        return self

    @model_validator(mode="after")
    def _regions(self) -> TokenizerConfig:
        encoder, decoder = self.encoder, self.decoder
        tiles = [getattr(part, "tiles", None) for part in (encoder, decoder)]
        if None not in tiles and tiles[0] != tiles[1]:
            raise InputError(
                f"encoder.tiles={tiles[0]} with decoder.tiles={tiles[1]}: tokens lie in the tiles "
                "of both; expected the same number"
            )
        plain = getattr(encoder, "gaussians", None) is False
        if plain and decoder.kind == "splat" and decoder.features is None:
            raise InputError(
                "decoder.features=null takes Gaussians from the encoder, and encoder.gaussians is "
                "false; set encoder.gaussians=true, or give decoder.features a number"
            )
        return self

    @model_validator(mode="after")
    def _unmodulated(self) -> TokenizerConfig:
        for name in ("encoder", "decoder", "output_space"):
            check_unmodulated(getattr(self, name), name)
        return self

    @model_validator(mode="after")
    def _texts(self) -> TokenizerConfig:
        check_texts(self.text, self.reading)
        return self
