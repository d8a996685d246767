"""Adaptive layer norm (adaLN, DiT, arXiv 2212.09748): a vector scales, shifts and gates a block.

The vector is one per sample (DiT), or one per position (RAR); kinds of positions (patches,
registers) may each have their own layer for it (FlexTok).

Letters: B batch, L positions, D width, C width of the conditioning vector, E kinds of positions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from vistok.config import Config
from vistok.core.errors import InputError


class Modulation(nn.Module):
    """SiLU, then a linear layer, to `count` groups of D channels each.

    The layer starts at zero, so that a fresh block is modulated by nothing (adaLN-Zero).

    Args:
        kinds: E, kinds of positions that each have their own groups. bias: of the layer.
    """

    def __init__(
        self, cond_width: int, width: int, count: int, kinds: int = 1, bias: bool = True
    ) -> None:
        super().__init__()
        self.count, self.kinds = count, kinds
        self.proj = nn.Linear(cond_width, kinds * count * width, bias=bias)
        self.reset()

    def reset(self) -> None:
        """Back to zero; after an initialization that swept over all linear layers."""
        nn.init.zeros_(self.proj.weight)
        if self.proj.bias is not None:
            nn.init.zeros_(self.proj.bias)

    @torch.no_grad()
    def damp(self, gate_gain: float) -> None:
        """Half of the start of scales and shifts, and `gate_gain` of that of gates (VAR, IBQ); six
        groups have gates, two have none."""
        gain = torch.full((self.count,), 0.5)
        if self.count == 6:
            gain[[2, 5]] = gate_gain
        width = len(self.proj.weight) // self.count
        self.proj.weight.mul_(gain.repeat_interleave(width)[:, None])

    def forward(
        self, condition: Tensor, lengths: Sequence[int] | None = None
    ) -> tuple[Tensor, ...]:
        """condition [B, C] -> `count` tensors [B, 1, D], to be used over positions; or a condition
        of each position, [B, L, C] -> [B, L, D].

        Args:
            lengths: positions of each of several kinds, in order: [B, C] -> [B, L, D]; of one kind,
                how many positions share each vector of [B, S, C] -> [B, L, D].
        """
        if self.kinds > 1:
            if lengths is None or len(lengths) != self.kinds or condition.ndim != 2:
                raise InputError(
                    f"modulation of {self.kinds} kinds of positions; expected as many lengths and "
                    f"one vector per sample, got {lengths} and {tuple(condition.shape)}"
                )
            groups = self.proj(nn.functional.silu(condition)).unflatten(-1, (self.kinds, -1))
            rows = [groups[:, i : i + 1].expand(-1, n, -1) for i, n in enumerate(lengths)]
            return tuple(
                torch.cat(part, dim=1)
                for part in zip(*(row.chunk(self.count, dim=-1) for row in rows), strict=True)
            )
        if condition.ndim == 2:
            condition = condition[:, None]
        groups = self.proj(nn.functional.silu(condition))
        if lengths is not None:
            parts = zip(groups.unbind(1), lengths, strict=True)
            groups = torch.cat([part[:, None].expand(-1, n, -1) for part, n in parts], dim=1)
        return groups.chunk(self.count, dim=-1)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x [B, L, D] (1 + scale) + shift, with shift and scale [B, 1, D] or [B, L, D]."""
    return x * (1 + scale) + shift


class SinusoidsConfig(Config):
    """Sinusoids of a time in 0..1."""

    channels: int = Field(default=256, ge=2, le=2**14)
    """Half cosines, half sines; an odd last one is zero."""
    max_period: float = Field(default=10000.0, gt=1)
    """Longest wavelength: 10,000 in DiT, 256 in FlexTok."""
    scale: float = Field(default=1000.0, gt=0)
    """Factor of times."""
    scale_frequencies: bool = False
    """The factor is that of the frequencies, times come last (FlexTok): the same but for rounding,
    which is 2e-5 of an embedding."""
    truncate: bool = False
    """Scaled times are cut to whole numbers (xAR: thousandths of the way)."""

    @model_validator(mode="after")
    def _cuts(self) -> SinusoidsConfig:
        if self.truncate and self.scale_frequencies:
            raise InputError(
                "truncate=true with scale_frequencies=true: times are not scaled there, and all "
                "would be cut to 0; leave one out"
            )
        return self


class TimeEmbedding(nn.Module):
    """Times -> conditioning vectors: sinusoids, linear, SiLU, linear; [B] in 0..1 -> [B, C], or
    those of several places, [B, S] -> [B, S, C].

    Args:
        width: C. Others as in `SinusoidsConfig`.
    """

    def __init__(
        self,
        width: int,
        channels: int = 256,
        max_period: float = 10000.0,
        scale: float = 1000.0,
        scale_frequencies: bool = False,
        truncate: bool = False,
    ) -> None:
        super().__init__()
        self.truncate = truncate
        half, self.pad = channels // 2, channels % 2
        frequency = torch.exp(-math.log(max_period) * torch.arange(half).float() / half)
        if scale_frequencies:
            frequency, scale = scale * frequency, 1.0
        self.register_buffer("frequency", frequency, persistent=False)
        self.scale = scale
        self.up = nn.Linear(channels, width)
        self.out = nn.Linear(width, width)

    def waves(self, time: Tensor) -> Tensor:
        """Sinusoids [..., channels] of times [...]."""
        scaled = time.float() * self.scale
        if self.truncate:
            scaled = scaled.trunc()
        angles = scaled[..., None] * self.frequency
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1)
        return nn.functional.pad(waves, (0, self.pad)) if self.pad else waves

    def forward(self, time: Tensor) -> Tensor:
        waves = self.waves(time).to(self.up.weight.dtype)
        return self.out(nn.functional.silu(self.up(waves)))
