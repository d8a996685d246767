"""Base class of encoders whose tokens are groups of patches, as many as a sample has.

Each group becomes a row of what its patches hold and one of where they lie; the rows may read all
patches and see each other. Tokens are ordered by size, so that every prefix holds the largest
groups. Letters: B batch, M patches, T frames, K groups, A axes, W width, D width of the quantizer's
input.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from vistok.config import Config
from vistok.core.errors import InputError
from vistok.core.records import Condition, Latents
from vistok.core.shapes import Shape
from vistok.encoders.base import Encoder
from vistok.layers.grouping import by_size, gathered
from vistok.layers.patchify import PatchEmbed, PatchesConfig
from vistok.layers.positions import PositionTable, grid_positions
from vistok.layers.resampler import ResamplerConfig, ResamplerLayer
from vistok.layers.transformer import Transformer, TransformerConfig, init_weights
from vistok.runtime.precision import no_autocast


class GroupedConfig(Config):
    """Fields that these encoders have in common."""

    patches: PatchesConfig = PatchesConfig()
    """Cells that are grouped: by their values in the input space, so that groups stay as they are
    while the encoder learns. Best in a space whose values mean something (features). The reader
    sees their `positions`."""
    width: int = Field(default=512, ge=2, le=2**14)
    """W, channels of a patch and of a group."""
    count: int = Field(default=32, ge=1, le=2**14)
    """K, the most groups of a sample."""
    reader: ResamplerConfig | None = None
    """Layers in which groups read all patches and each other; null = there are none."""
    transformer: TransformerConfig | None = None
    """Groups see each other; null = they do not."""
    places: Literal["added", "appended"] = "added"
    """Where its cells lie is added to a group's row; appended: besides, the last 2 A + 1 numbers of
    a latent are mean and deviation of their coordinates in 0..1 and their share, as they are."""

    @model_validator(mode="after")
    def _fits(self) -> GroupedConfig:
        if self.patches.class_token:
            raise InputError("patches.class_token=true: this encoder has none; leave it out")
        for name in ("reader", "transformer"):
            part = getattr(self, name)
            if part is not None and part.width != self.width:
                raise InputError(f"{name}.width={part.width}; expected width={self.width}")
        return self


class GroupedEncoder(Encoder):
    """Subclasses implement `group` and `gather`."""

    counted = True

    def __init__(self, config: GroupedConfig, shape: Shape, dim: int) -> None:
        """
        Args:
            shape: of the input space; sides are multiples of the patches'.
            dim: D, the width of a token.
        """
        super().__init__()
        self.config, width = config, config.width
        self.grid, self.window = config.patches.grid(shape), config.patches.window(shape)
        self.frames = self.grid[0] if shape.is_clip else 1
        sides = torch.tensor(self.grid)
        self.register_buffer("where", (grid_positions(self.grid) + 0.5) / sides, persistent=False)
        self.grids, axes = ((config.count,),), len(self.grid)
        self.patch_embed = PatchEmbed(config.patches, shape, width)
        self.positions = PositionTable(
            config.patches.positions, self.grid, width, config.patches.position_base
        )
        self.place = nn.Linear(2 * axes + 1, width)
        self.norm = nn.LayerNorm(width, 1e-6)
        mixer = config.transformer
        self.transformer = None if mixer is None else Transformer(mixer)
        appended = 2 * axes + 1 if config.places == "appended" else 0
        if dim <= appended:
            raise InputError(
                f"tokens of {dim} numbers, the last {appended} of them places; expected a "
                "quantizer of more, or places=added"
            )
        self.proj = nn.Linear(width, dim - appended)
        init_weights(self, TransformerConfig() if mixer is None else mixer)
        self.reader = None
        if config.reader is not None:
            layers = (ResamplerLayer(config.reader) for _ in range(config.reader.depth))
            self.reader = nn.ModuleList(layers)

    def group(self, rows: Tensor) -> Tensor:
        """Values of the patches [B, M, C] fp32, frame by frame -> ids [B, M] in 0..K - 1."""
        raise NotImplementedError

    def gather(self, rows: Tensor, ids: Tensor) -> Tensor:
        """Rows [B, K, W] of the groups of embedded patches [B, M, W]."""
        raise NotImplementedError

    @torch.no_grad()
    def groups(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(ids [B, M], the largest group is 0; how many groups each sample has [B])."""
        with no_autocast(x.device):
            ids = self.group(self.cut(x.float()))
        return by_size(ids, self.config.count)

    def cut(self, x: Tensor) -> Tensor:
        """x [B, C, (T,) H, W] -> its patches [B, M, values of a patch]."""
        for axis, part in enumerate(self.window, 2):
            x = x.unfold(axis, part, part)
        axes = len(self.window)
        return x.flatten(2, 1 + axes).flatten(3).permute(0, 2, 1, 3).flatten(2)

    def forward(self, x: Tensor, condition: Condition | None = None) -> Latents:
        """x [B, C, (T,) H, W] -> latents [B, K, D], `counts` of which each sample has."""
        config = self.config
        ids, counts = self.groups(x)
        present = torch.arange(config.count, device=x.device) < counts[:, None]
        patches = self.patch_embed(x)
        where = self.whereabouts(ids)
        rows = self.gather(patches, ids) + self.place(where.to(patches.dtype))
        if self.reader is not None:
            memory = self.positions(patches)
            mask = F.pad(present, (patches.shape[1], 0), value=True)[:, None, None]
            for layer in self.reader:
                rows = layer(rows, memory, mask, None)
        if self.transformer is not None:
            rows = self.transformer(rows, mask=present[:, None, None])
        values = self.proj(self.norm(rows)).float()
        if config.places == "appended":
            values = torch.cat([values, where], dim=-1)
        # What is not there repeats the largest group: a codebook learns nothing of its own from it.
        values = torch.where(present[..., None], values, values[:, :1])
        return Latents(values, self.grids, {"latents": rows}, counts)

    def whereabouts(self, ids: Tensor) -> Tensor:
        """[B, K, 2 A + 1] fp32: mean and standard deviation of the coordinates of each group's
        cells, in 0..1, and their share of all cells."""
        where = self.where.expand(len(ids), -1, -1)
        both = torch.cat([where, where.square()], dim=-1)
        with no_autocast(where.device):
            sums, sizes = gathered(both, ids, self.config.count)
        mean, square = (sums / sizes.clamp_min(1)[..., None]).chunk(2, dim=-1)
        deviation = (square - mean.square()).clamp_min(0).sqrt()
        return torch.cat([mean, deviation, sizes[..., None] / ids.shape[1]], dim=-1)
