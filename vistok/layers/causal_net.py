"""Factorized causal residual networks of clips, as Cosmos's video tokenizers have them.

Every 3x3x3 convolution is one over space and one over time; norms and attention over space look at
single frames; attention over time, like convolutions over time, looks back only.
Source: arXiv 2501.03575. Letters: B batch, C channels, T frames, h w positions of a map.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from pydantic import Field
from torch import Tensor, nn

from vistok.config import Config
from vistok.core.errors import InputError
from vistok.layers.causal_conv import CausalChain, CausalConv3d, Stream, starts
from vistok.layers.dropout import Dropout
from vistok.layers.frames import frames, unfold


class CausalNetConfig(Config):
    """A pyramid of levels, level 0 of the input's resolution; options of encoder and decoder."""

    channels: int = Field(default=128, ge=1, le=2**14)
    """Channels of level 0 before its multiplier."""
    channel_mult: tuple[Annotated[int, Field(ge=1, le=256)], ...] = Field(
        default=(1, 1, 2, 2, 4), min_length=1, max_length=12
    )
    """Level i has channels x channel_mult[i]."""
    blocks: int = Field(default=2, ge=1, le=256)
    """Residual blocks of a level of the encoder; the decoder's have one more."""
    space_levels: int = Field(default=4, ge=0, le=12)
    """Times that the sides of frames are halved."""
    time_levels: int = Field(default=2, ge=0, le=12)
    """Times that frames are halved, 1 + 2k to 1 + k."""
    resolution: int = Field(default=256, ge=1, le=2**16)
    """Resolution that is counted for level 0; each level has half of the one before, even where
    only time is halved. It places attention and has nothing to do with the input's size."""
    attention_resolutions: tuple[Annotated[int, Field(ge=0, le=2**16)], ...] = (16,)
    """Counted resolutions whose blocks are followed by attention; the middle always has it."""
    time_window: int | None = Field(default=None, ge=1, le=2**16)
    """Latent frames, itself among them, that attention over time looks back at; null = all, as the
    releases do. Streaming keeps as many, so that null keeps the whole past."""
    norm_eps: float = Field(default=1e-6, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of activations inside blocks that training drops, keyed by sample."""
    init: Literal["torch", "fan_in"] = "torch"
    """First weights: as torch makes its layers (the original), which leaves so little of the pixels
    in the latents that a short run rounds them all to a few codes; or fan_in, std 1/sqrt(fan-in)
    and no biases."""
    branch_gain: float = Field(default=1.0, gt=0, le=1)
    """Factor on the first weights of convolutions whose output is added to their input, and of the
    decoder's last one; below 1 a network begins near its skip connections."""

    @classmethod
    def tiny(cls) -> CausalNetConfig:
        return cls(
            channels=8,
            channel_mult=(1, 1, 2),
            blocks=1,
            space_levels=2,
            time_levels=1,
            resolution=16,
        )

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.channels * mult for mult in self.channel_mult)

    def attends(self, level: int, decoder: bool = False) -> bool:
        """True if attention follows the blocks of this level. The decoder counts from the smallest
        level up, which differs from the encoder's count where a half was rounded down."""
        counted = self.resolution // 2**level
        if decoder:
            last = len(self.channel_mult) - 1
            counted = self.resolution // 2**last * 2 ** (last - level)
        return counted in self.attention_resolutions

    def check_levels(self) -> None:
        """InputError unless there are levels enough to halve space and time that often."""
        ways = len(self.channel_mult) - 1
        for name in ("space_levels", "time_levels"):
            if getattr(self, name) > ways:
                raise InputError(
                    f"net.{name}={getattr(self, name)}: {ways + 1} levels of channel_mult halve "
                    f"{ways} times at most; use more levels or a smaller {name}"
                )


class FrameNorm(nn.GroupNorm):
    """Norm over all channels and positions of each frame: [B, C, T, h, w] -> same."""

    def __init__(self, config: CausalNetConfig, channels: int) -> None:
        super().__init__(1, channels, eps=config.norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        return unfold(super().forward(frames(x).contiguous()), len(x))


def factorized(inside: int, out: int) -> CausalChain:
    """A convolution over space, then one over time."""
    return CausalChain(CausalConv3d(inside, out, (1, 3, 3)), CausalConv3d(out, out, (3, 1, 1)))


class CausalBlock(nn.Module):
    """Norm, SiLU, factorized convolution, twice, added to the input."""

    def __init__(self, config: CausalNetConfig, inside: int, out: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = FrameNorm(config, inside), factorized(inside, out)
        self.norm2, self.conv2 = FrameNorm(config, out), factorized(out, out)
        self.dropout = Dropout(config.dropout)
        self.shortcut = None if inside == out else CausalConv3d(inside, out, 1)

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)), stream)
        y = self.conv2(self.dropout(F.silu(self.norm2(y))), stream)
        return y + (x if self.shortcut is None else self.shortcut(x))


class _Attention(nn.Module):
    def __init__(self, config: CausalNetConfig, channels: int) -> None:
        super().__init__()
        self.norm = FrameNorm(config, channels)
        self.q, self.k, self.v, self.out = (nn.Conv3d(channels, channels, 1) for _ in range(4))


class SpaceAttention(_Attention):
    """Attention of a frame's positions to each other, one head, added to the input."""

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        y = self.norm(x)
        rows = [rearrange(part(y), "b c t h w -> b t (h w) c") for part in (self.q, self.k, self.v)]
        found = F.scaled_dot_product_attention(*rows)
        return x + self.out(rearrange(found, "b t (h w) c -> b c t h w", h=x.shape[3]))


class TimeAttention(_Attention):
    """Attention of a position to itself in this frame and those before, one head, added."""

    def __init__(self, config: CausalNetConfig, channels: int) -> None:
        super().__init__(config, channels)
        self.window = config.time_window

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        y = self.norm(x)
        rows = [rearrange(part(y), "b c t h w -> b (h w) t c") for part in (self.q, self.k, self.v)]
        past = None if stream is None else stream.get(self)
        if past is not None:
            rows[1:] = [torch.cat([old, new], 2) for old, new in zip(past, rows[1:], strict=True)]
        q, k, v = rows
        if stream is not None:
            kept = None if self.window is None else self.window - 1
            start = 0 if kept is None else max(k.shape[2] - kept, 0)
            stream.put(self, (k[:, :, start:].clone(), v[:, :, start:].clone()))
        place = torch.arange(k.shape[2], device=x.device)
        back = place[-q.shape[2] :, None] - place[None]
        seen = back >= 0
        if self.window is not None:
            seen &= back < self.window
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        return x + self.out(rearrange(found, "b (h w) t c -> b c t h w", h=x.shape[3]))


def attention(config: CausalNetConfig, channels: int) -> CausalChain:
    return CausalChain(SpaceAttention(config, channels), TimeAttention(config, channels))


class _Way(nn.Module):
    """Three convolutions of the way to the next level.

    All exist, like those of the releases, even where space or time stays as it is; then they
    have no effect and are not trained.
    """

    def __init__(self, channels: int, space: bool, time: bool, stride: int) -> None:
        super().__init__()
        c, around = channels, 0 if stride == 2 else None
        self.space, self.time = space, time
        self.conv1 = CausalConv3d(c, c, (1, 3, 3), stride=(1, stride, stride), space_padding=around)
        self.conv2 = CausalConv3d(c, c, (3, 1, 1), stride=(stride, 1, 1))
        self.conv3 = CausalConv3d(c, c, 1)
        idle = [] if space else [self.conv1]
        idle += [] if time else [self.conv2]
        idle += [] if space or time else [self.conv3]
        for conv in idle:
            conv.requires_grad_(False)


class HybridDownsample(_Way):
    """Strided convolution plus mean, over space, then over time, then a 1x1x1 convolution."""

    def __init__(self, channels: int, space: bool, time: bool) -> None:
        super().__init__(channels, space, time, 2)

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        if self.space:
            x = F.pad(x, (0, 1, 0, 1))  # on the right and below, of which the mean sees nothing
            x = self.conv1(x, stream) + F.avg_pool3d(x, (1, 2, 2))
        if self.time:
            pairs = x
            if starts(stream, self):
                pairs = torch.cat([x[:, :, :1], x], 2)
            x = self.conv2(x, stream) + F.avg_pool3d(pairs, (2, 1, 1))
        return self.conv3(x, stream) if self.space or self.time else x


class HybridUpsample(_Way):
    """Repeated frames plus their convolution, then positions alike, then a 1x1x1 convolution."""

    def __init__(self, channels: int, space: bool, time: bool) -> None:
        super().__init__(channels, space, time, 1)

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        if self.time:
            x = x.repeat_interleave(2, 2)
            if starts(stream, self):
                x = x[:, :, 1:]  # 1 + k frames are 1 + 2k
            x = x + self.conv2(x, stream)
        if self.space:
            x = x.repeat_interleave(2, 3).repeat_interleave(2, 4)
            x = x + self.conv1(x, stream)
        return self.conv3(x, stream) if self.space or self.time else x


class CausalLevel(nn.Module):
    """Blocks of one resolution, each with attention behind it or none, and the way on, if any."""

    def __init__(
        self,
        config: CausalNetConfig,
        inside: int,
        out: int,
        blocks: int,
        attend: bool,
        way: nn.Module | None,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            CausalBlock(config, inside if i == 0 else out, out) for i in range(blocks)
        )
        self.attention = nn.ModuleList(
            attention(config, out) for _ in range(blocks if attend else 0)
        )
        self.way = way

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        for i, block in enumerate(self.blocks):
            x = block(x, stream)
            if self.attention:
                x = self.attention[i](x, stream)
        return x if self.way is None else self.way(x, stream)


def causal_middle(config: CausalNetConfig) -> CausalChain:
    """Block, attention, block of the last level's width."""
    width = config.widths[-1]
    first, last = CausalBlock(config, width, width), CausalBlock(config, width, width)
    return CausalChain(first, attention(config, width), last)


@torch.no_grad()
def init_weights(
    network: nn.Module, config: CausalNetConfig, last: nn.Module | None = None
) -> None:
    """The first weights of an encoder or decoder, as `init` and `branch_gain` say.

    Args:
        last: the decoder's last convolution.
    """
    added = [] if last is None else [last]
    for layer in network.modules():
        if config.init == "fan_in" and isinstance(layer, nn.Conv3d | nn.Linear):
            nn.init.normal_(layer.weight, std=layer.weight[0].numel() ** -0.5)
            nn.init.zeros_(layer.bias)
        if isinstance(layer, CausalBlock):
            added.append(layer.conv2[-1])
        elif isinstance(layer, _Attention):
            added.append(layer.out)
        elif isinstance(layer, _Way):
            added += [layer.conv1, layer.conv2]
    for layer in added:
        layer.weight.mul_(config.branch_gain)
