"""ViT decoder with mask tokens (TiTok, arXiv 2406.07550).

A grid of copies of one mask token and the values go through one transformer; the grid comes out,
and a head makes patches of it. A value that is missing is overwritten by a learned vector *after*
its position was added (`missing: mask_token`, FlexTok) or not attended at all (`missing: drop`,
One-D-Piece), which equals a shorter sequence without changing any shape.
Letters: B batch, g patches, M values, W width, D width of the values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from vistok.config import Config, PartOf
from vistok.config.registry import build, register
from vistok.core.errors import InputError
from vistok.core.records import Condition, Decoded, Noisy
from vistok.core.shapes import Grid, Shape, cells
from vistok.decoders.base import Decoder, prefix_of
from vistok.layers.masks import joined
from vistok.layers.norms import make_norm
from vistok.layers.patch_rotary import PatchRotary, PatchRotaryConfig
from vistok.layers.patchify import PatchesConfig
from vistok.layers.positions import (
    PositionTable,
    SharedPositions,
    new_levels,
    sequence_sincos,
)
from vistok.layers.spectrum import Synthesis
from vistok.layers.text import TextInput, TextInputConfig
from vistok.layers.transformer import (
    Transformer,
    TransformerConfig,
    check_taps,
    init_weights,
)


class ViTDecoderConfig(Config):
    kind: Literal["vit"] = "vit"
    patches: PatchesConfig = PatchesConfig()
    """Grid of mask tokens, in the output space."""
    transformer: TransformerConfig = TransformerConfig()
    slot_projection: bool = False
    """Each value has its own input projection."""
    mask_token: bool = True
    """A learned vector at all places of the grid; false: positions alone tell what is asked for
    (LARP without its type embedding)."""
    value_positions: Literal["own", "shared", "sincos"] = "own"
    """own: a learned table of the values. shared: the values read the table of the mask tokens,
    resized to their grid where it differs (RobusTok). sincos: fixed sines, then cosines, of their
    place in the sequence (LARP)."""
    value_position_base: float = Field(default=10000.0, gt=0)
    """Base of the frequencies of value_positions=sincos."""
    value_rows: Literal["behind", "onto"] = "behind"
    """behind: values are rows of their own, behind the mask tokens. onto: a value for each patch is
    added to its mask token, half as many rows (ViT-VQGAN, arXiv 2110.04627)."""
    spectrum: int | None = Field(default=None, ge=1, le=2**14)
    """With value_rows=onto: values are frequencies of C channels of the patches, the lowest first
    (`vistok.layers.spectrum`; the encoder's latents.spectrum)."""
    value_class_token: bool = False
    """The class token also stands in front of the values, with its position if they are shared;
    nothing reads it (RobusTok)."""
    levels: bool | Literal["values"] = False
    """A learned vector is added to all mask tokens, and another one to all values (RobusTok); or to
    the values alone (LARP)."""
    missing: Literal["mask_token", "drop", "refuse"] = "refuse"
    """Stand-in for a missing value: a learned vector, nothing, or none: only whole sequences can
    be decoded."""
    rotary: PatchRotaryConfig | None = None
    """Rotary positions of the mask tokens, in physical time (VFRTok); null = none. With
    patches.positions=none it decodes to any number of frames that a condition's sides ask for."""
    norm_in: bool = False
    """The transformer's norm also before the first block (TiTok's ln_pre)."""
    text: TextInputConfig | None = None
    """Text features behind the values (TA-TiTok, TexTok); null = none are read."""
    token_std: Literal["unit", "width", "small", "constant"] = "unit"
    """Standard deviation of learned tokens and tables at the start: the own scale of each,
    width**-0.5 (TiTok), 1e-6 (tables 0.02; RobusTok, whose class token and table come from
    DINOv2), or 0.02 (LARP)."""
    taps: dict[str, int] = Field(default_factory=dict)
    """Features for losses: name -> number of the block whose rows [B, g, W] are given."""
    head: Annotated[Any, PartOf("head")] = {"kind": "pixels"}
    """pixels, or codes for logits over the codes of `output_space: {kind: codes}`."""

    @model_validator(mode="after")
    def _agrees(self) -> ViTDecoderConfig:
        check_taps(self.taps, self.transformer)
        if self.value_positions == "shared" and self.patches.positions == "none":
            raise InputError("value_positions=shared needs a table: patches.positions is none")
        if self.value_positions == "shared" and not isinstance(self.patches.positions, str):
            raise InputError(
                "value_positions=shared reads a table of the patches' own grid; expected "
                "patches.positions=sincos or learned"
            )
        if self.value_positions == "shared" and self.patches.positions == "learned_sum":
            raise InputError("value_positions=shared reads one table; learned_sum has several")
        if not self.mask_token and self.patches.positions == "none":
            raise InputError(
                "mask_token=false leaves the grid to its positions, and patches.positions is none; "
                "give one of both"
            )
        own = self.value_class_token or self.levels
        if self.value_rows == "onto" and (own or self.value_positions != "own"):
            raise InputError(
                "value_rows=onto adds values to mask tokens: it excludes value_class_token=true, "
                "levels, and value_positions=shared or sincos"
            )
        if self.spectrum and (self.value_rows == "behind" or self.slot_projection):
            raise InputError(
                f"spectrum={self.spectrum} makes rows of patches, with projections of its own; "
                "give value_rows=onto and slot_projection=false"
            )
        if self.spectrum and self.missing == "mask_token":
            raise InputError("a frequency that is missing adds nothing: give missing=drop")
        if self.value_class_token and not self.patches.class_token:
            raise InputError("value_class_token=true needs patches.class_token=true")
        return self

    @classmethod
    def tiny(cls) -> ViTDecoderConfig:
        return cls(
            patches=PatchesConfig(size=4),
            transformer=TransformerConfig.tiny(),
            missing="mask_token",
        )


@register("decoder", ViTDecoderConfig)
class ViTDecoder(Decoder):
    def __init__(
        self, config: ViTDecoderConfig, shape: Shape, grids: Sequence[Grid], dim: int
    ) -> None:
        """
        Args:
            shape: of the output space; sides are multiples of the patches'.
            grids: of the M values. dim: D, the width of a value.
        """
        super().__init__()
        self.config = config
        width, patches = config.transformer.width, config.patches
        grid, count = patches.grid(shape), sum(map(cells, grids))
        self.prefix = prefix_of(config.missing, grids)
        self.grid, self.cells = grid, cells(grid)
        if config.value_rows == "onto" and count != self.cells:
            raise InputError(
                f"decoder.value_rows=onto wants one value for each of {self.cells} patches, and "
                f"there are {count}; use other patches, or value_rows=behind"
            )
        token, table = width**-0.5, 0.02
        place = 1.0  # of the values' table
        if config.token_std == "width":
            table = place = token
        elif config.token_std == "small":
            token, place = 1e-6, table
        elif config.token_std == "constant":
            token = place = table
        if config.slot_projection:
            self.slots = nn.Parameter(torch.randn(count, dim, width) * dim**-0.5)
        elif config.spectrum is not None:
            self.spectrum = Synthesis(grid, width, config.spectrum, dim)
        else:
            self.embed = nn.Linear(dim, width)
        if config.mask_token:
            self.mask_token = nn.Parameter(torch.randn(width) * token)
        lead = int(patches.class_token)
        if patches.class_token:
            self.class_token = nn.Parameter(torch.randn(width) * token)
        self.positions = PositionTable(
            patches.positions, grid, width, patches.position_base, lead, table
        )
        if config.value_rows == "onto":
            pass  # the mask tokens have positions
        elif config.value_positions == "own":
            self.latent_positions = nn.Parameter(torch.randn(count, width) * place)
        elif config.value_positions == "sincos":
            waves = sequence_sincos(count, width, config.value_position_base)
            self.register_buffer("latent_positions", waves, persistent=False)
        else:
            self.shared = nn.ModuleList(SharedPositions(grid, one, lead) for one in grids)
        if config.levels:
            self.levels = new_levels(1 if config.levels == "values" else 2, width)
        self.text = None if config.text is None else TextInput(config.text, width, table)
        if config.missing == "mask_token":
            self.missing_token = nn.Parameter(torch.randn(width) * token)
        inner = config.transformer
        norm = inner.norm if config.norm_in else "none"
        self.norm_in = make_norm(norm, width, inner.norm_eps)
        self.rotary: PatchRotary | None = None
        if config.rotary is not None:
            self.rotary = PatchRotary(config.rotary, width, inner.heads, "decoder.rotary")
            self.reads_fps = config.rotary.reads_fps and shape.is_clip
        free = patches.positions == "none" and config.value_rows == "behind"
        if free and shape.is_clip and config.head.kind == "pixels":
            self.any_frames = patches.frames
        self.transformer = Transformer(inner)
        self.head = build(config.head, patches, shape, width)
        init_weights(self, inner)
        self.head.start()

    def forward(
        self,
        values: Tensor,
        present: Tensor | None = None,
        condition: Condition | None = None,
        noisy: Noisy | None = None,
    ) -> Decoded:
        """values [B, M, D], present [B, M] bool (None = all) -> [B, C, *sides] of the space."""
        if present is not None and self.config.missing == "refuse":
            raise InputError(
                "this decoder cannot leave values out (missing: refuse); "
                "set decoder.missing to mask_token or drop and train with a length regularizer"
            )
        if self.config.spectrum is not None:
            latents, present = self.spectrum(values, present), None
        elif self.config.slot_projection:
            latents = torch.einsum("bnd,ndw->bnw", values.to(self.slots.dtype), self.slots)
        else:
            latents = self.embed(values.to(self.embed.weight.dtype))
        if self.config.value_rows == "behind":
            latents = latents + self._value_positions().to(latents.dtype)
        if present is None and self.config.missing == "mask_token":
            # Nothing is missing, but a parameter that is in no graph stops DDP.
            present = torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
        if present is not None and self.config.missing == "mask_token":
            stand_in = self.missing_token.to(latents.dtype)
            latents = torch.where(present[..., None], latents, stand_in)
        sides = self._grid(condition)
        count = cells(sides)
        if self.config.mask_token:
            grid = self.mask_token.to(latents.dtype).expand(len(values), count, -1)
        else:
            grid = latents.new_zeros(len(values), count, latents.shape[2])
        first = int(self.config.patches.class_token)
        if first:
            token = self.class_token.to(latents.dtype).expand(len(values), 1, -1)
            grid = torch.cat([token, grid], dim=1)
        grid = self.positions(grid)
        if self.config.value_rows == "onto":
            if present is not None and self.config.missing == "drop":
                latents, present = latents * present[..., None].to(latents.dtype), None
            lead = latents.new_zeros(len(values), first, latents.shape[2])
            grid, latents = grid + torch.cat([lead, latents], dim=1), latents[:, :0]
        dropped = present is not None and self.config.missing == "drop"
        pieces = [grid.shape[1], present if dropped else latents.shape[1]]
        if self.config.value_class_token:
            if self.config.value_positions == "shared":
                token = token + self.positions.table[:1].to(token.dtype)
            latents = torch.cat([token, latents], dim=1)
            pieces.insert(1, 1)
        if self.config.levels:
            levels = self.levels.to(latents.dtype)
            latents = latents + levels[-1]
            if self.config.levels is True:
                grid = grid + levels[0]
        y = torch.cat([grid, latents], dim=1)
        if self.text is not None:
            tokens, seen = self.text(condition, len(values), y)
            pieces.append(tokens.shape[1] if seen is None else seen)
            y = torch.cat([y, tokens], dim=1)
        mask = joined(*pieces, batch=len(values), device=y.device)
        wanted = slice(first, first + count)
        rotary = None
        if self.rotary is not None:
            rotary = self.rotary.tables(sides, first, y.shape[1], condition, y)
        taps = self.config.taps
        y = self.norm_in(y)
        rows, seen = self.transformer.tapped(y, taps.values(), rotary, mask=mask, only=wanted)
        out = (self.head(rows) if sides == self.grid else self.head(rows, sides)).float()
        return Decoded(out, out, {"grid": rows, **{name: seen[i] for name, i in taps.items()}})

    def _grid(self, condition: Condition | None) -> Grid:
        """Grid of the mask tokens: the shape's, or that of as many frames as are asked for."""
        sides = None if condition is None else condition.sides
        if not self.any_frames or sides is None or len(sides) != 3:
            return self.grid
        if sides[0] % self.any_frames:
            raise InputError(
                f"sides={tuple(sides)}: this decoder makes multiples of {self.any_frames} frames"
            )
        return (sides[0] // self.any_frames, *self.grid[1:])

    def _value_positions(self) -> Tensor:
        """Positions of the values, [M, W]."""
        if self.config.value_positions != "shared":
            return self.latent_positions
        first, table = int(self.config.patches.class_token), self.positions.table
        return torch.cat([shared(table)[first:] for shared in self.shared])

    @property
    def last_layer(self) -> nn.Parameter:
        return self.head.last_layer
