"""Rotary positions of patches in physical time, for some heads of a transformer (VFRTok, arXiv
2505.12053).

Patches turn by their column, row and time; class tokens, latents and texts never turn. Time is
counted in patches at an anchor rate, so that patches of one moment turn alike at every frame rate:
patch j of a clip at f frames per second stands at j * anchor / f. Of the d/2 pairs of channels
c = d // 6 belong to the columns, c to the rows and the rest to time; pair i of each turns by
position * theta ** (-6 i / d).
Letters: B batch, t h w the grid of patches, h heads, L positions, d width of a head.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from vistok.config import Config
from vistok.core.errors import InputError
from vistok.core.records import Condition
from vistok.core.shapes import Grid


class PatchRotaryConfig(Config):
    """Rotary positions of patches; see `vistok.layers.patch_rotary`."""

    heads: int | None = Field(default=None, ge=1, le=512)
    """Heads that turn, the first so many; the others know no positions. null = all."""
    theta: float = Field(default=10000.0, gt=1)
    """Base of the frequencies of columns and rows."""
    theta_time: float = Field(default=10000.0, gt=1)
    """Base of the frequencies of time."""
    dim: int | None = Field(default=None, ge=6, le=2**14)
    """Channels of a head that turn, the first so many, an even number; null = all."""
    anchor: float = Field(default=24.0, gt=0, le=1000)
    """Frames per second at which time is the number of the patch; also the rate of clips whose
    rate is not known."""
    reads_fps: bool = True
    """Clips stand in time by their frame rate. false: time is the number of the patch, whatever
    the rate (VFRTok's stages of one frame rate)."""


class PatchRotary:
    """Tables (cos, sin) of one transformer's patches; nothing in it is learned or kept."""

    def __init__(self, config: PatchRotaryConfig, width: int, heads: int, name: str) -> None:
        """
        Args:
            name: of the config, for errors.
        """
        self.config, self.heads, self.head_dim = config, heads, width // heads
        self.turning = heads if config.heads is None else config.heads
        self.dim = self.head_dim if config.dim is None else config.dim
        if self.turning > heads:
            raise InputError(f"{name}.heads={self.turning}: expected at most the {heads} heads")
        if self.dim > self.head_dim or self.dim % 2:
            raise InputError(
                f"{name}.dim={self.dim}: expected an even number up to {self.head_dim}, the "
                "channels of a head"
            )

    def angles(self, grid: Grid, fps: float | Tensor | None = None) -> Tensor:
        """Angles [L, dim / 2] of the patches of a grid (h, w) or (t, h, w): columns, rows, time.

        Args:
            fps: frames per second, a number or a tensor of one; None = the anchor.
        """
        steps = torch.arange(grid[0] if len(grid) == 3 else 1).float()
        if fps is not None and self.config.reads_fps:
            steps = steps.to(fps.device) if isinstance(fps, Tensor) else steps
            steps = steps * self.config.anchor / fps
        return self.angles_at(steps, grid[-2:])

    def angles_at(self, times: Tensor, sides: Grid) -> Tensor:
        """The same of patches at explicit `times` [t], in patches at the anchor rate.

        Patch j of a clip at f frames per second stands at j * anchor / f, whichever were left out.
        """
        each = self.dim // 6
        more = self.dim // 2 - 2 * each
        at = lambda count, theta: (
            1.0 / theta ** (torch.arange(count, device=times.device).float() * 6 / self.dim)
        )
        rows, columns = (torch.arange(side, device=times.device).float() for side in sides)
        t, y, x = (p.flatten() for p in torch.meshgrid(times, rows, columns, indexing="ij"))
        space, time = at(each, self.config.theta), at(more, self.config.theta_time)
        return torch.cat([torch.outer(x, space), torch.outer(y, space), torch.outer(t, time)], -1)

    def tables(
        self, grid: Grid, lead: int, rows: int, condition: Condition | None, like: Tensor
    ) -> tuple[Tensor, Tensor]:
        """cos and sin [h, rows, d / 2], or [B, h, rows, d / 2] if the samples' rates differ.

        Args:
            grid: of the patches, which stand behind `lead` other positions.
            rows: positions in all. like: its device is the tables'.
        """
        fps = None if condition is None else condition.fps
        if fps is None or not self.config.reads_fps or len(grid) < 3:
            angles = self.angles(grid)[None]
        elif not bool((fps > 0).all()):
            raise InputError(f"fps={fps.min().item():g}: expected frames per second above 0")
        elif bool((fps == fps.flatten()[0]).all()):
            angles = self.angles(grid, float(fps.flatten()[0]))[None]
        else:
            angles = torch.stack([self.angles(grid, one) for one in fps.tolist()])
        count = angles.shape[1]
        whole = angles.new_zeros(len(angles), self.heads, rows, self.head_dim // 2)
        whole[:, : self.turning, lead : lead + count, : self.dim // 2] = angles[:, None]
        whole = whole.to(like.device)
        whole = whole[0] if len(whole) == 1 else whole
        return whole.cos(), whole.sin()


def frames_of(period: float, fps: float, patch: int) -> int:
    """Frames of a clip of `period` seconds at a rate, a multiple of a patch's frames; at least one
    patch."""
    return max(1, round(period * fps / patch)) * patch
