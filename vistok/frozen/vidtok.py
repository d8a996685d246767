"""VidTok's causal KL autoencoder of clips (arXiv 2412.13061), whose latents VideoFlexTok models.

1 + 4k frames become 1 + k latent frames: the first frame is repeated in front, and what it decodes
to is cut off again. 2D convolutions of frames alternate with causal 1D convolutions over time;
norms and attention see one frame. Modules bear VidTok's names, so that its files load as they are.
Letters: B batch, C channels, T frames, h w positions of a map.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from pydantic import Field, model_validator
from torch import Tensor, nn

from vistok.config import Config
from vistok.core.errors import InputError
from vistok.layers.causal_conv import CausalConv3d
from vistok.layers.frames import frames, unfold


class VidTokConfig(Config):
    """Constants of the network; the defaults are those of kl_causal_488_16chn."""

    latent_channels: int = Field(default=16, ge=1, le=2**12)
    channels: int = Field(default=128, ge=1, le=2**14)
    """Channels of level 0 before its multiplier."""
    channel_mult: tuple[Annotated[int, Field(ge=1, le=256)], ...] = Field(
        default=(1, 2, 4, 4), min_length=2, max_length=12
    )
    """Level i has channels x channel_mult[i]; each level halves the sides of the one before it.
    The encoder halves time on its last two ways, the decoder doubles it on its last two; of two
    levels there is one."""
    blocks: int = Field(default=2, ge=1, le=64)
    """Residual blocks of a level of the encoder; the decoder has one more."""
    norm: Literal["layernorm", "groupnorm"] = "layernorm"
    """Over the channels of a position, or over groups of channels of a frame."""
    norm_groups: int = Field(default=32, ge=1, le=2**12)
    norm_eps: float = Field(default=1e-6, gt=0)
    first: Literal["replicate", "constant", "reflect"] = "replicate"
    """Frames in front of the first one: copies of it, zeros, or the next frames in reverse."""

    @classmethod
    def tiny(cls) -> VidTokConfig:
        return cls(latent_channels=4, channels=8, channel_mult=(1, 1), blocks=1, norm_groups=4)

    @model_validator(mode="after")
    def _fits(self) -> VidTokConfig:
        wrong = [w for w in self.widths if self.norm == "groupnorm" and w % self.norm_groups]
        if wrong:
            raise InputError(
                f"{wrong[0]} channels are no multiple of norm_groups={self.norm_groups}; change one"
            )
        return self

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.channels * mult for mult in self.channel_mult)

    @property
    def factor(self) -> int:
        """Pixels of the side of a latent."""
        return 2 ** (len(self.channel_mult) - 1)

    @property
    def frame_stride(self) -> int:
        """Frames that each latent frame after the first stands for."""
        return 2 ** min(2, len(self.channel_mult) - 1)

    def build(self) -> VidTok:
        return VidTok(self)


class VidTok(nn.Module):
    """`encoder`: clips [B, 3, 1 + 4k, H, W] in -1..1 -> mean and log-variance [B, 2C, 1 + k, h, w].
    `decoder`: latents [B, C, 1 + k, h, w] -> clips [B, 3, 1 + 4k, H, W] around -1..1."""

    quant_conv = post_quant_conv = None  # it has none of the layers between that images' VAEs have

    def __init__(self, config: VidTokConfig) -> None:
        super().__init__()
        self.encoder, self.decoder = _Encoder(config), _Decoder(config)


def _per_frame(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A layer of images on each frame of [B, C, T, h, w]."""
    return unfold(layer(frames(x)), len(x))


class _PositionNorm(nn.Module):
    """LayerNorm over the channels of each position of [B, C, T, h, w]."""

    def __init__(self, config: VidTokConfig, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=config.norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


class _FrameGroupNorm(nn.GroupNorm):
    """Group norm of each frame of [B, C, T, h, w]."""

    def forward(self, x: Tensor) -> Tensor:
        return _per_frame(super().forward, x)


class _PositionGroupNorm(nn.GroupNorm):
    """Group norm of each position alone, as VidTok's blocks over time apply it."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.movedim(1, -1)
        return super().forward(y.flatten(0, -2)).view(y.shape).movedim(-1, 1)


def _norm(config: VidTokConfig, channels: int, over_time: bool = False) -> nn.Module:
    if config.norm == "layernorm":
        return _PositionNorm(config, channels)
    kind = _PositionGroupNorm if over_time else _FrameGroupNorm
    return kind(config.norm_groups, channels, eps=config.norm_eps)


class _FrameConv(nn.Conv2d):
    """A 2D convolution of each frame of [B, C, T, h, w]."""

    def forward(self, x: Tensor) -> Tensor:
        return _per_frame(super().forward, x)


class _TimeConv(nn.Module):
    """Causal 1D convolution over time at each position, zeros in front."""

    def __init__(self, inside: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inside, out, 3)

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[3:]
        y = self.conv(F.pad(rearrange(x, "b c t h w -> (b h w) c t"), (2, 0)))
        return rearrange(y, "(b h w) c t -> b c t h w", h=h, w=w)


class _CausalConv(nn.Module):
    """3D convolution, zeros around, and in front alone of time."""

    def __init__(self, inside: int, out: int, kernel: int = 3, time_stride: int = 1) -> None:
        super().__init__()
        stride, front = (time_stride, 1, 1), kernel - time_stride
        self.conv = CausalConv3d(inside, out, kernel, stride=stride, front=front, time_mode="zeros")

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def _space(inside: int, out: int, kernel: int = 3) -> nn.Module:
    return _FrameConv(inside, out, kernel, padding=kernel // 2)


class _Block(nn.Module):
    """Norm, SiLU, convolution, twice, added to the input; [B, C, T, h, w] -> C' channels."""

    def __init__(
        self, config: VidTokConfig, kind: Callable[..., nn.Module], inside: int, out: int
    ) -> None:
        super().__init__()
        over_time = kind is _TimeConv
        self.norm1, self.conv1 = _norm(config, inside, over_time), kind(inside, out)
        self.norm2, self.conv2 = _norm(config, out, over_time), kind(out, out)
        if inside != out:
            self.nin_shortcut = kind(inside, out, 1)
        self.same = inside == out

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        return y + (x if self.same else self.nin_shortcut(x))


class _Attention(nn.Module):
    """Attention of one head among the positions of each frame, added to the input."""

    def __init__(self, config: VidTokConfig, width: int) -> None:
        super().__init__()
        self.norm = _norm(config, width)
        self.q, self.k, self.v, self.proj_out = (_CausalConv(width, width, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        y, (h, w) = self.norm(x), x.shape[3:]
        rows = (rearrange(part(y), "b c t h w -> b t (h w) c") for part in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(*(part.contiguous() for part in rows))
        return x + self.proj_out(rearrange(y, "b t (h w) c -> b c t h w", h=h, w=w))


class _SpaceDown(nn.Module):
    """3x3 convolution of stride 2; a zero row and column below and on the right."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = _FrameConv(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class _TimeDown(nn.Module):
    """Half the frames: a mean of three and a convolution, mixed by a learned share."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = _CausalConv(width, width, time_stride=2)
        self.mix_factor = nn.Parameter(torch.tensor([2.0]))

    def forward(self, x: Tensor) -> Tensor:
        share = self.mix_factor.sigmoid()
        mean = F.avg_pool3d(F.pad(x, (0, 0, 0, 0, 1, 0)), (3, 1, 1), stride=(2, 1, 1))
        return share * mean + (1 - share) * self.conv(x)


class _SpaceUp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = _space(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.repeat_interleave(2, 3).repeat_interleave(2, 4))


class _TimeUp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = _CausalConv(width, width)
        self.mix_factor = nn.Parameter(torch.tensor([2.0]))

    def forward(self, x: Tensor) -> Tensor:
        share, x = self.mix_factor.sigmoid(), x.repeat_interleave(2, 2)
        return share * x + (1 - share) * self.conv(x)


def _middle(config: VidTokConfig, width: int) -> nn.ModuleDict:
    block = lambda: _Block(config, _CausalConv, width, width)
    return nn.ModuleDict(
        {"block_1": block(), "attn_1": _Attention(config, width), "block_2": block()}
    )


def _level(
    config: VidTokConfig, inside: int, out: int, count: int
) -> tuple[nn.ModuleDict, nn.ModuleDict]:
    """Blocks of frames and blocks over time of one level, which alternate."""
    widths = [inside] + [out] * count
    space = [_Block(config, _space, a, b) for a, b in itertools.pairwise(widths)]
    time = [_Block(config, _TimeConv, out, out) for _ in range(count)]
    levels = (nn.ModuleDict({"block": nn.ModuleList(blocks)}) for blocks in (space, time))
    return tuple(levels)


class _Pyramid(nn.Module):
    """Levels of blocks, with a way behind a level where there is one."""

    def _run(self, space: nn.ModuleDict, time: nn.ModuleDict, x: Tensor) -> Tensor:
        for one, other in zip(space["block"], time["block"], strict=True):
            x = other(one(x))
        for blocks in (space, time):
            for name in ("downsample", "upsample"):
                if name in blocks:
                    x = blocks[name](x)
        return x

    def _mixed(self, x: Tensor) -> Tensor:
        for part in self.mid.values():
            x = part(x)
        return x


class _Encoder(_Pyramid):
    def __init__(self, config: VidTokConfig) -> None:
        super().__init__()
        self.first, self.stride = config.first, config.frame_stride
        widths, last = config.widths, len(config.widths) - 1
        self.conv_in = _CausalConv(3, config.channels)
        self.down, self.down_temporal = nn.ModuleList(), nn.ModuleList()
        for i, (inside, out) in enumerate(zip((config.channels, *widths), widths, strict=False)):
            space, time = _level(config, inside, out, config.blocks)
            if i < last:
                space["downsample"] = _SpaceDown(out)
            if last - 2 <= i < last:
                time["downsample"] = _TimeDown(out)
            self.down.append(space)
            self.down_temporal.append(time)
        self.mid = _middle(config, widths[-1])
        self.norm_out = _norm(config, widths[-1])
        self.conv_out = _CausalConv(widths[-1], 2 * config.latent_channels)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] % self.stride:
            x = F.pad(x, (0, 0, 0, 0, self.stride - 1, 0), mode=self.first)
        x = self.conv_in(x)
        for space, time in zip(self.down, self.down_temporal, strict=True):
            x = self._run(space, time, x)
        return self.conv_out(F.silu(self.norm_out(self._mixed(x))))


class _Decoder(_Pyramid):
    def __init__(self, config: VidTokConfig) -> None:
        super().__init__()
        self.stride, widths = config.frame_stride, config.widths
        self.conv_in = _CausalConv(config.latent_channels, widths[-1])
        self.mid = _middle(config, widths[-1])
        levels = []
        for i, (inside, out) in enumerate(zip((*widths[1:], widths[-1]), widths, strict=True)):
            space, time = _level(config, inside, out, config.blocks + 1)
            if i > 0:
                space["upsample"] = _SpaceUp(out)
            if i in (1, 2):
                time["upsample"] = _TimeUp(out)
            levels.append((space, time))
        self.up = nn.ModuleList(space for space, _ in levels)
        self.up_temporal = nn.ModuleList(time for _, time in levels)
        self.norm_out = _norm(config, widths[0])
        self.conv_out = _CausalConv(widths[0], 3)

    def forward(self, z: Tensor) -> Tensor:
        x = self._mixed(self.conv_in(z))
        for space, time in zip(reversed(self.up), reversed(self.up_temporal), strict=True):
            x = self._run(space, time, x)
        x = self.conv_out(F.silu(self.norm_out(x)))
        return x[:, :, self.stride - 1 :]
