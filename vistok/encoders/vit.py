"""ViT encoder with learned latent tokens (TiTok, arXiv 2406.07550; FlexTok's registers; the grids
of RobusTok and ImageFolder, arXiv 2503.08354 and 2410.01756).

The patches of an image or clip and N learned latent tokens go through one transformer; the latents
come out. Without latent tokens the patches themselves are the latents.
Letters: B batch, g patches, N latents, P branches, W width, D width of the quantizer's input.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.errors import InputError
from vistok.core.records import Condition, Latents
from vistok.core.shapes import Grid, Shape, cells
from vistok.encoders.base import Encoder
from vistok.layers.latent_norm import LatentNormKind, make_latent_norm
from vistok.layers.masks import causal_last, joined
from vistok.layers.norms import make_norm
from vistok.layers.patch_rotary import PatchRotary, PatchRotaryConfig
from vistok.layers.patchify import PatchEmbed, PatchesConfig
from vistok.layers.positions import (
    PositionTable,
    SharedPositions,
    new_levels,
    sequence_sincos,
)
from vistok.layers.spectrum import Analysis
from vistok.layers.text import TextInput, TextInputConfig
from vistok.layers.time_masks import (
    STEPPED,
    EarlierBlocks,
    check_steps,
    first_steps,
    steps_apart,
)
from vistok.layers.transformer import (
    Transformer,
    TransformerConfig,
    check_taps,
    init_weights,
)


class InputPatchesConfig(PatchesConfig):
    """Patches that are read, and the table of their positions."""

    overlap: int = Field(default=0, ge=0, le=2**10)
    """Pixels by which a patch reaches into its neighbours, on each side."""


class LatentsConfig(Config):
    """Latent tokens, and the way from them to the quantizer."""

    count: int | None = Field(default=128, ge=1, le=2**16)
    """N latent tokens; null = the patches themselves are the latents, on their grid. With `grid`
    it follows from it and may be left out."""
    stored: int | None = Field(default=None, ge=1)
    """Latent tokens that are stored, the first so many; null = all. Those behind them are ReTok's
    redundant ones: training may show them to the decoder (regularizer redundant_padding)."""
    steps: int | None = Field(default=None, ge=1, le=2**12)
    """Time steps of a table of latent tokens: `count` tokens belong to each step of the patches'
    grid, which has no more of them, and prefixes are those of each step (VideoFlexTok); null = the
    tokens belong to the whole sample."""
    grid: tuple[Annotated[int, Field(ge=1, le=2**10)], ...] | None = None
    """Sides (h, w) of the grid on which the latents of a branch lie; null = they are a list."""
    spectrum: int | None = Field(default=None, ge=1, le=2**14)
    """C channels of the patches whose frequencies are the latents, the lowest first: a list, with
    count=null; null = the patches themselves (`vistok.layers.spectrum`)."""
    branches: int = Field(default=1, ge=1, le=64)
    """P grids of latent tokens, one behind the other, for a product quantizer (ImageFolder)."""
    tokens: Literal["learned", "learned_from_sincos", "sincos"] = "learned"
    """Latent tokens: learned, from random numbers or from sines and cosines of their place; or
    these, fixed (LARP's options)."""
    token_base: float = Field(default=10000.0, gt=0)
    """Base of the frequencies of such sines and cosines."""
    positions: bool | Literal["shared"] = False
    """true: a learned table of their own is added to the latent tokens (TiTok). shared: each branch
    reads the patches' table, resized to its grid where theirs differs (RobusTok)."""
    levels: bool | Literal["patches", "latents"] = False
    """A learned vector is added to all patches, and another one to all latents of each branch; or
    to one of both alone (LARP)."""
    norm: LatentNormKind = "none"
    """Norm of the latents before the quantizer (`vistok.layers.latent_norm`). layernorm, rmsnorm:
    without parameters, unit variance over channels; layernorm_affine, layernorm_all, batchnorm and
    batchnorm_each are learned (LARP's ln_d, ln_nd, bn_bn, bn_b)."""
    slot_projection: bool = False
    """Each latent slot has its own output projection, so that slots do not become duplicates."""
    reinterpret: bool = False
    """The latents' memory [N, W] is read as [W, N] before the output projection, without being
    transposed: an accident of TiTok's first release that its two-stage weights (and One-D-Piece's)
    depend on. Each output then mixes channels of all latents."""
    gain: float = Field(default=1.0, ge=0)
    """Scale of the output projection at the start; below 1 keeps FSQ's tanh out of saturation, and
    at 0 all latents start as zeros (FlexTok)."""

    @model_validator(mode="before")
    @classmethod
    def _counted(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("grid") and "count" not in value:
            try:
                count = math.prod(int(side) for side in value["grid"])
                return {**value, "count": count * int(value.get("branches", 1))}
            except (TypeError, ValueError):
                pass  # the fields themselves say what is wrong
        return value

    @model_validator(mode="after")
    def _agrees(self) -> LatentsConfig:
        if self.grid is None and self.branches > 1:
            raise InputError(f"branches={self.branches} needs the grid of a branch; give grid")
        if self.grid is not None and self.count != cells(self.grid) * self.branches:
            raise InputError(
                f"count={self.count}, but {self.branches} branches on the grid {self.grid} have "
                f"{cells(self.grid) * self.branches} latents: leave count out"
            )
        if self.stored is not None and (
            self.count is None or self.grid is not None or self.stored > self.count
        ):
            raise InputError(
                f"stored={self.stored}: expected at most count={self.count}, of latent tokens "
                "without a grid"
            )
        if self.positions == "shared" and self.grid is None:
            raise InputError("positions=shared needs the grid of a branch; give grid")
        if self.spectrum and (self.count is not None or self.slot_projection or self.reinterpret):
            raise InputError(
                f"spectrum={self.spectrum} transforms the patches themselves, with projections of "
                "its own; give count=null, slot_projection=false and reinterpret=false"
            )
        if self.count is None and self.levels:
            raise InputError("levels=true needs latent tokens; give count, or levels=false")
        if self.count is None and self.tokens != "learned":
            raise InputError(
                f"tokens={self.tokens} needs latent tokens; give count, or leave it out"
            )
        if self.reinterpret and self.slot_projection:
            raise InputError("reinterpret and slot_projection exclude each other: choose one")
        named = ("stored", "grid", "positions", "levels", "slot_projection", "reinterpret")
        wrong = [name for name in named if getattr(self, name)]
        if self.tokens != "learned":
            wrong.append(f"tokens={self.tokens}")
        if self.norm in ("layernorm_all", "batchnorm_each"):  # made for a fixed number of latents
            wrong.append(f"norm={self.norm}")
        if self.steps is not None and (self.count is None or wrong):
            raise InputError(
                f"steps={self.steps}: latent tokens of time steps are lists without "
                f"{wrong[0] if wrong else 'spectrum'}; leave it out, and give count"
            )
        if self.count is None and self.positions:
            raise InputError("positions=true needs latent tokens; give count, or positions=false")
        return self


class ViTEncoderConfig(Config):
    kind: Literal["vit"] = "vit"
    patches: InputPatchesConfig = InputPatchesConfig()
    latents: LatentsConfig = LatentsConfig()
    transformer: TransformerConfig = TransformerConfig()
    rotary: PatchRotaryConfig | None = None
    """Rotary positions of the patches, in physical time (VFRTok); null = none. With
    patches.positions=none clips may have any number of frames."""
    norm_in: bool = False
    """The transformer's norm also before the first block (TiTok's ln_pre)."""
    text: TextInputConfig | None = None
    """Text features behind the latents (TexTok); null = none are read."""
    attention: Literal["full", "causal_latents", "causal", *STEPPED] = "full"
    """causal_latents: patches see patches, latent i sees patches and latents 0..i (FlexTok);
    causal: each position sees those before it, patches in front. With latents.steps, of each step,
    patches in front: causal; time_block_causal: a step sees itself and those before it;
    time_block_causal_last: of itself as causal_latents (VideoFlexTok); flexible_...: and of those
    before it what `earlier` says."""
    earlier: EarlierBlocks | None = None
    """Attention to earlier time steps, of the flexible attention; null = to all."""
    taps: dict[str, int] = Field(default_factory=dict)
    """Features for losses: name -> number of the block whose latents [B, N, W] are given."""
    token_std: Literal["unit", "width", "small", "constant"] | Annotated[float, Field(gt=0)] = (
        "unit"
    )
    """Standard deviation of learned tokens and tables at the start: 1 (tables 0.02), width**-0.5
    (TiTok), 1e-6 (tables 0.02; RobusTok, whose class token and table come from DINOv2), 0.02
    (FlexTok, LARP), or a number (tables 0.02)."""

    @model_validator(mode="after")
    def _agrees(self) -> ViTEncoderConfig:
        if self.latents.positions == "shared" and self.patches.positions == "none":
            raise InputError("latents.positions=shared needs a table: patches.positions is none")
        if self.latents.positions == "shared" and not isinstance(self.patches.positions, str):
            raise InputError(
                "latents.positions=shared reads a table of the patches' own grid; expected "
                "patches.positions=sincos or learned"
            )
        if self.latents.positions == "shared" and self.patches.positions == "learned_sum":
            raise InputError("latents.positions=shared reads one table; learned_sum has several")
        if self.text is not None and self.attention != "full":
            raise InputError("text is read with attention=full only")
        check_taps(self.taps, self.transformer)
        check_steps(self.attention, self.earlier, self.latents.steps is not None)
        if self.latents.steps is not None and (self.patches.class_token or self.text is not None):
            raise InputError("latents.steps: no class token and no text; leave them out")
        if self.latents.count is None and self.attention == "causal_latents":
            raise InputError("attention=causal_latents needs latent tokens; give latents.count")
        return self

    @classmethod
    def tiny(cls) -> ViTEncoderConfig:
        return cls(
            patches=InputPatchesConfig(size=4),
            latents=LatentsConfig(count=4),
            transformer=TransformerConfig.tiny(),
        )


@register("encoder", ViTEncoderConfig)
class ViTEncoder(Encoder):
    wants_patches: bool = False
    """True gives the tap `patches` too; the last block then works for all positions, which costs a
    tenth of a small encoder."""

    def __init__(self, config: ViTEncoderConfig, shape: Shape, dim: int) -> None:
        """
        Args:
            shape: of the input space; sides are multiples of the patches'.
            dim: D, the width of a latent.
        """
        super().__init__()
        self.config = config
        width, tokens, patches = config.transformer.width, config.latents, config.patches
        grid = patches.grid(shape)
        count = cells(grid) if tokens.count is None else tokens.count
        plain = tokens.count is None and tokens.spectrum is None
        self.grids = (grid,) if plain else ((count,),)
        if tokens.grid is not None:
            self.grids = (tokens.grid,) * tokens.branches
        if tokens.steps is not None:
            self.grids = ((tokens.count,),) * _steps(tokens.steps, grid)
        self.stored = tokens.stored
        token, table = token_stds(config.token_std, width)
        lead = int(patches.class_token)
        self.patch_embed = PatchEmbed(patches, shape, width, patches.overlap)
        if patches.class_token:
            self.class_token = nn.Parameter(torch.randn(width) * token)
        self.positions = PositionTable(
            patches.positions, grid, width, patches.position_base, lead, table
        )
        if tokens.count is not None and tokens.tokens == "learned":
            rows = (count,) if tokens.steps is None else (tokens.steps, count)
            self.latent_tokens = nn.Parameter(torch.randn(*rows, width) * token)
        elif tokens.count is not None:
            waves = sequence_sincos(count, width, tokens.token_base)
            if tokens.tokens == "sincos":
                self.register_buffer("latent_tokens", waves, persistent=False)
            else:
                self.latent_tokens = nn.Parameter(waves)
        self.shared: SharedPositions | None = None
        if tokens.positions == "shared":
            self.shared = SharedPositions(grid, tokens.grid, lead)
        elif tokens.positions:
            self.latent_positions = nn.Parameter(torch.randn(count, width) * table)
        if tokens.levels:
            kinds = {True: 1 + tokens.branches, "patches": 1, "latents": tokens.branches}
            self.levels = new_levels(kinds[tokens.levels], width)
        self.text = None if config.text is None else TextInput(config.text, width, table)
        inner = config.transformer
        norm = inner.norm if config.norm_in else "none"
        self.norm_in = make_norm(norm, width, inner.norm_eps)
        self.rotary: PatchRotary | None = None
        if config.rotary is not None:
            self.rotary = PatchRotary(config.rotary, width, inner.heads, "encoder.rotary")
            self.reads_fps = config.rotary.reads_fps and shape.is_clip
        free = patches.positions == "none" and config.attention == "full" and not plain
        if free and tokens.spectrum is None and tokens.steps is None and shape.is_clip:
            self.any_frames = patches.frames
            self.anchor = config.rotary.anchor if self.reads_fps else None
        self.transformer = Transformer(inner)
        if tokens.slot_projection:
            self.slots = nn.Parameter(torch.randn(count, width, dim) * width**-0.5)
        elif tokens.spectrum is not None:
            self.spectrum = Analysis(grid, width, tokens.spectrum, dim)
        else:
            self.proj = nn.Linear(width, dim)
        self.latent_norm = make_latent_norm(tokens.norm, count, dim)
        mask, seen = None, lead + cells(grid)
        if tokens.steps is not None:
            frame = cells(grid[1:])
            mask = steps_apart(config.attention, grid[0], frame, count, config.earlier)
        elif config.attention == "causal_latents":
            mask = causal_last(seen, count)
        elif config.attention == "causal":
            total = seen + (0 if tokens.count is None else count)
            mask = torch.ones(total, total, dtype=torch.bool).tril()
        self.register_buffer("mask", mask, persistent=False)
        init_weights(self, inner)
        with torch.no_grad():
            if tokens.spectrum is not None:
                self.spectrum.slots.mul_(tokens.gain)
            else:
                (self.slots if tokens.slot_projection else self.proj.weight).mul_(tokens.gain)

    def forward(self, x: Tensor, condition: Condition | None = None) -> Latents:
        """x [B, C, (T,) H, W] -> latents [B, N, D].

        With `latents.steps` a clip may be shorter than the space's: then of its first steps.
        """
        config, mask, grids = self.config, self.mask, self.grids
        y = self.patch_embed(x)  # [B, g, W]
        seen, first = y.shape[1], int(config.patches.class_token)
        if first:
            y = torch.cat([self.class_token.to(y.dtype).expand(len(x), 1, -1), y], dim=1)
        y = self.positions(y)
        wanted = slice(first, first + seen)  # the patches, or the latent tokens behind them
        if config.latents.count is not None:
            latents = self.latent_tokens.to(y.dtype)
            if config.latents.steps is not None:
                grids = grids[: x.shape[2] // config.patches.frames]
                latents = latents[: len(grids)].flatten(0, 1)
                mask = self._first(len(grids), seen)
            if self.shared is not None:
                rows = self.shared(self.positions.table)[first:]
                latents = latents + rows.repeat(config.latents.branches, 1).to(y.dtype)
            elif config.latents.positions:
                latents = latents + self.latent_positions.to(y.dtype)
            kinds = config.latents.levels
            if kinds in (True, "patches"):
                y = y + self.levels[0].to(y.dtype)
            if kinds in (True, "latents"):
                each, own = config.latents.count // config.latents.branches, int(kinds is True)
                latents = latents + self.levels[own:].repeat_interleave(each, 0).to(y.dtype)
            y = torch.cat([y, latents.expand(len(x), -1, -1)], dim=1)
            wanted = slice(first + seen, first + seen + len(latents))
        if self.text is not None:
            tokens, visible = self.text(condition, len(x), y)
            pieces = (y.shape[1], tokens.shape[1] if visible is None else visible)
            mask = joined(*pieces, batch=len(x), device=y.device)
            y = torch.cat([y, tokens], dim=1)
        only, rotary = None if self.wants_patches else wanted, None
        if self.rotary is not None:
            grid = config.patches.grid(Shape(x.shape[1], tuple(x.shape[2:])))
            rotary = self.rotary.tables(grid, first, y.shape[1], condition, y)
        y, taps = self.transformer.tapped(
            self.norm_in(y), config.taps.values(), rotary, mask=mask, only=only
        )
        features = {}
        if self.wants_patches:
            features["patches"] = y[:, first : first + seen]
            y, taps = y[:, wanted], {i: tap[:, wanted] for i, tap in taps.items()}
        latents, features = y, features | {name: taps[i] for name, i in config.taps.items()}
        if config.latents.slot_projection:
            values = torch.einsum("bnw,nwd->bnd", latents, self.slots.to(latents.dtype))
        elif config.latents.spectrum is not None:
            values = self.spectrum(latents)
        else:
            values = self.proj(_reinterpreted(latents) if config.latents.reinterpret else latents)
        features["latents"] = latents
        return Latents(self.latent_norm(values.float()), grids, features)

    def _first(self, steps: int, seen: int) -> Tensor | None:
        """The mask of the first time steps, which have `seen` patches."""
        if self.mask is None or steps == len(self.grids):
            return self.mask
        sizes = (seen // steps, self.config.latents.count)
        return first_steps(self.mask, len(self.grids), steps, *sizes)


def _steps(table: int, grid: Grid) -> int:
    """Time steps of a grid of patches; InputError if they are more than the table has."""
    if len(grid) != 3:
        raise InputError("latents.steps is for clips; set tokenizer.frames, or leave it out")
    if grid[0] > table:
        raise InputError(
            f"latents.steps={table}: patches have {grid[0]} time steps; expected as many or more"
        )
    return grid[0]


def token_stds(kind: str | float, width: int) -> tuple[float, float]:
    """Standard deviations of learned tokens and of learned tables at the start."""
    if isinstance(kind, float):
        return kind, 0.02
    if kind == "width":
        return width**-0.5, width**-0.5
    return {"unit": 1.0, "small": 1e-6, "constant": 0.02}[kind], 0.02


def _reinterpreted(latents: Tensor) -> Tensor:
    """[B, N, W] in memory, read as [B, W, N] and handed on as [B, N, W]."""
    batch, count, width = latents.shape
    return latents.contiguous().view(batch, width, count).transpose(1, 2)
