"""Position tables: fixed sin-cos over a grid, learned, and rotary (RoPE) from explicit positions.

Letters: L positions, A axes, D width, d width of a head.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from vistok.core.errors import InputError
from vistok.layers.fitted_positions import FittedPositions, FittedPositionsConfig
from vistok.layers.resize import bicubic_matrix
from vistok.runtime.precision import no_autocast

PositionKind = Literal["sincos", "learned", "none", "sincos_sum", "learned_sum"]
PositionsConfig = PositionKind | FittedPositionsConfig
"""A table made for the grid, none, or one that is fitted to it."""


def grid_positions(grid: tuple[int, ...]) -> Tensor:
    """[L, A] float: integer coordinates of every cell of a grid, row-major."""
    axes = torch.meshgrid(*(torch.arange(side).float() for side in grid), indexing="ij")
    return torch.stack([axis.reshape(-1) for axis in axes], dim=-1)


def sincos(positions: Tensor, width: int, base: float = 10000.0) -> Tensor:
    """[L, A] positions -> [L, width]: for each axis width/A channels, sines then cosines.

    Left-over channels, where width does not divide by 2A, are zero.
    """
    axes = positions.shape[-1]
    half = width // (2 * axes)
    frequency = base ** (-torch.arange(half, dtype=torch.float32) / max(half, 1))
    parts = []
    for axis in range(axes):
        angle = positions[:, axis : axis + 1] * frequency  # [L, half]
        parts += [angle.sin(), angle.cos()]
    table = torch.cat(parts, dim=-1)
    return torch.nn.functional.pad(table, (0, width - table.shape[-1]))


def sincos_sum(grid: tuple[int, ...], width: int, base: float = 10000.0) -> Tensor:
    """[L, width] of a grid (N,), (h, w) or (t, h, w), computed in fp64 (LARP, arXiv 2410.21264).

    Half of the channels for the column, half for the row, each sines then cosines; those of the
    frame, in all channels, are added.
    """
    if len(grid) > 1 and width % 4:
        raise InputError(f"positions=sincos_sum with width={width}; expected a multiple of 4")
    if len(grid) == 1:
        return sequence_sincos(grid[0], width, base)
    *time, h, w = grid
    rows, columns = (sequence_sincos(side, width // 2, base) for side in (h, w))
    table = torch.cat([columns[None].expand(h, -1, -1), rows[:, None].expand(-1, w, -1)], dim=-1)
    for frames in time:
        table = table + sequence_sincos(frames, width, base)[:, None, None]
    return table.reshape(-1, width)


class PositionTable(nn.Module):
    """Adds a table [L, D] to the first n positions of [B, n, D].

    `lead` rows in front of the grid's are for tokens that lie in no cell (a class token); the
    sin-cos table is zero there. `learned_sum` has a learned table of each axis, which begins as
    sines and cosines of all channels, and adds them up.
    """

    def __init__(
        self,
        kind: PositionsConfig,
        grid: tuple[int, ...],
        width: int,
        base: float = 10000.0,
        lead: int = 0,
        std: float = 0.02,
    ) -> None:
        super().__init__()
        self.kind, self.lead = kind, lead
        if isinstance(kind, FittedPositionsConfig):
            self.fitted = FittedPositions(kind, grid, width, base)
            return
        length = grid_positions(grid).shape[0]
        if kind == "learned":
            self.table = nn.Parameter(torch.randn(lead + length, width) * std)
        elif kind == "learned_sum":
            self.axes = nn.ParameterList(sequence_sincos(side, width, base) for side in grid)
        elif kind == "sincos_sum":
            table = torch.cat([torch.zeros(lead, width), sincos_sum(grid, width, base)])
            self.register_buffer("table", table, persistent=False)
        elif kind == "sincos":
            table = torch.cat([torch.zeros(lead, width), sincos(grid_positions(grid), width, base)])
            self.register_buffer("table", table, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "none":
            return x
        if isinstance(self.kind, FittedPositionsConfig):
            rows = nn.functional.pad(self.fitted(), (0, 0, self.lead, 0))
            return x + rows[: x.shape[1]].to(x.dtype)
        if self.kind == "learned_sum":
            rows = nn.functional.pad(self._sum(), (0, 0, self.lead, 0))
            return x + rows[: x.shape[1]].to(x.dtype)
        return x + self.table[: x.shape[1]].to(x.dtype)

    def _sum(self) -> Tensor:
        """Rows [L, D] of the axes' learned tables."""
        table = self.axes[0]
        for rows in self.axes[1:]:
            table = table[..., None, :] + rows
        return table.reshape(-1, table.shape[-1])


class SharedPositions(nn.Module):
    """Reads the positions of another grid off a position table: table [lead + L, D] of the grid
    `old` -> [lead + L', D] for the grid `new`.

    Grids that differ are resized (bicubic, antialiased); the `lead` rows in front stay as they are.
    """

    def __init__(self, old: tuple[int, ...], new: tuple[int, ...], lead: int = 0) -> None:
        super().__init__()
        if old != new and not len(old) == len(new) == 2:
            raise InputError(
                f"positions: a table of the grid {old} cannot be read on the grid {new}; expected "
                "two grids (h, w), or equal ones: use a table of its own"
            )
        self.lead = lead
        self.register_buffer(
            "matrix", None if old == new else bicubic_matrix(old, new), persistent=False
        )

    def forward(self, table: Tensor) -> Tensor:
        if self.matrix is None:
            return table
        with no_autocast(table.device):
            resized = self.matrix @ table[self.lead :].float()
        return torch.cat([table[: self.lead], resized.to(table.dtype)])


def resample_positions(
    table: Tensor, old: tuple[int, int], new: tuple[int, int], lead: int = 0
) -> Tensor:
    """A position table [lead + L, D] of the grid `old`, resized to `new` (bicubic, antialiased).

    As timm does where a pretrained network is built for another image size.
    """
    return SharedPositions(old, new, lead).to(table.device)(table)


def new_levels(count: int, width: int) -> nn.Parameter:
    """Vectors that tell kinds of tokens apart [count, W], as VAR and RobusTok begin them."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(count, width), std=(3 * width) ** -0.5))


def rows_from(table: Tensor, first: int | Tensor, count: int) -> Tensor:
    """Rows of a table [L, D]: [count, D] from `first` on; or, of places [..., count] that are
    numbered one by one, [..., count, D]."""
    return table[first] if isinstance(first, Tensor) else table[first : first + count]


def rotary_table(positions: Tensor, head_dim: int, base: float = 10000.0) -> tuple[Tensor, Tensor]:
    """cos and sin [L, head_dim / 2] of RoPE; the pairs are shared out evenly over the A axes.

    Args:
        positions: [L, A] coordinates, built explicitly so that no row is ever left out.
    """
    axes = positions.shape[-1]
    pairs = head_dim // 2 // axes
    frequency = base ** (-torch.arange(pairs, dtype=torch.float32) / pairs)
    angles = torch.cat([positions[:, a : a + 1] * frequency for a in range(axes)], dim=-1)
    angles = torch.nn.functional.pad(angles, (0, head_dim // 2 - angles.shape[-1]))
    return angles.cos(), angles.sin()


def axis_angles(positions: Tensor, channels: tuple[int, ...], base: float = 10000.0) -> Tensor:
    """Angles [L, d / 2] fp64 of RoPE whose axes turn different numbers of channels, as FLUX has it.

    Args:
        positions: [L, A] coordinates. channels: of a head, for each axis, even; they add up to d.
    """
    parts = []
    for axis, count in enumerate(channels):
        pairs = torch.arange(0, count, 2, dtype=torch.float64, device=positions.device)
        parts.append(positions[:, axis : axis + 1].double() * base ** (-pairs / max(count, 1)))
    return torch.cat(parts, dim=-1)


def sequence_sincos(length: int, width: int, base: float = 10000.0) -> Tensor:
    """[length, width] fixed table of a sequence: all sines, then all cosines, computed in fp64."""
    angles = axis_angles(torch.arange(length)[:, None], (width,), base)
    return torch.cat([angles.sin(), angles.cos()], dim=-1).float()


class MixedTables(NamedTuple):
    """cos and sin [L, d] that hold each angle for two adjacent channels, for a rotation by halves.

    Channel c is combined with c + d/2, whose angle is another one, so that this is no rotation.
    Instella-T2I's weights were trained with it.
    """

    cos: Tensor
    sin: Tensor

    @classmethod
    def of(cls, angles: Tensor) -> MixedTables:
        """Tables of angles [L, d / 2]."""
        return cls(*(table.repeat_interleave(2, -1) for table in (angles.cos(), angles.sin())))


def rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate interleaved pairs (2i, 2i+1) of x [B, heads, L, d] by the table [L, d / 2], or
    [B, 1, L, d / 2] of each row; or what `MixedTables` says."""
    cos, sin = (table.to(x.dtype) for table in rotary)
    if isinstance(rotary, MixedTables):
        first, second = x.chunk(2, dim=-1)
        return x * cos + torch.cat([-second, first], dim=-1) * sin
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)
