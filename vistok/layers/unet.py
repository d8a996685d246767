"""U-Net whose residual blocks a time modulates (ADM, Dhariwal & Nichol 2021, arXiv 2105.05233).

Letters: B batch, C channels, h w positions of a map, T width of the time's vector.
"""

from __future__ import annotations

import itertools
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vistok.layers.conv import AttentionBlock, ConvConfig, Downsample, ResBlock, Upsample, map_norm
from vistok.layers.modulation import Modulation

Start = Literal["zero", "random"]


class TimedResBlock(ResBlock):
    """A residual block whose second norm is scaled and shifted by a vector."""

    def __init__(self, config: ConvConfig, inside: int, out: int, time: int) -> None:
        """
        Args:
            time: T.
        """
        super().__init__(config, inside, out)
        self.modulation = Modulation(time, out, 2)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x [B, C, h, w], time [B, T] -> [B, C', h, w]."""
        shift, scale = (g.transpose(1, 2)[..., None] for g in self.modulation(time))
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.norm2(y) * (1 + scale) + shift
        y = self.conv2(self.dropout(F.silu(y)))
        if self.shortcut is not None:
            x = self.shortcut(x if self.from_input else y)
        return x + y


class Blocks(nn.Module):
    """Residual blocks of one level, attention behind each where the config has it."""

    def __init__(self, config: ConvConfig, level: int, widths: list[int], time: int) -> None:
        """
        Args:
            widths: channels that each block reads; it gives those of the level.
        """
        super().__init__()
        out = config.widths[level]
        self.blocks = nn.ModuleList(TimedResBlock(config, one, out, time) for one in widths)
        attend = config.attends(level)
        self.attention = nn.ModuleList(
            AttentionBlock(config, out) if attend else nn.Identity() for _ in widths
        )


class UNet(nn.Module):
    """[B, C, h, w] and a vector of time [B, T] -> [B, C', h, w].

    Each level of the way down keeps its maps, and the way up reads them in reverse order beside its
    own (one block more than the way down has). The middle has attention between its blocks.
    """

    def __init__(
        self, config: ConvConfig, inside: int, out: int, time: int, start: Start = "zero"
    ) -> None:
        """
        Args:
            inside: C. out: C'. time: T. start: zero, the branches of the blocks and the last layer
                start at zero (ADM), so that the first steps teach a chain of shortcuts; random,
                they start as the others, modulations with std 0.02.
        """
        super().__init__()
        widths, last = config.widths, len(config.widths) - 1
        kept = [config.channels]  # channels of the maps that the way up reads
        self.conv_in = nn.Conv2d(inside, config.channels, 3, padding=1)
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(widths):
            read = [kept[-1]] + [width] * (config.blocks - 1)
            self.down.append(Blocks(config, level, read, time))
            kept += [width] * config.blocks
            if level < last:
                self.shrink.append(Downsample(width))
                kept.append(width)
        width = widths[-1]
        self.middle = nn.ModuleList(
            TimedResBlock(config, width, width, time) for _ in range(config.mid_blocks)
        )
        self.middle_attention = nn.ModuleList(
            AttentionBlock(config, width) for _ in range(config.mid_blocks - 1)
        )
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        for level in reversed(range(len(widths))):
            read = []
            for _ in range(config.blocks + 1):
                read.append(width + kept.pop())
                width = widths[level]
            self.up.append(Blocks(config, level, read, time))
            if level:
                self.grow.append(Upsample(width))
        self.norm_out = map_norm(config, width)
        self.conv_out = nn.Conv2d(width, out, 3, padding=1)
        self._start(start)

    def _start(self, start: Start) -> None:
        blocks = [module for module in self.modules() if isinstance(module, TimedResBlock)]
        if start == "random":
            for block in blocks:
                nn.init.normal_(block.modulation.proj.weight, std=0.02)
            return
        for layer in (*(block.conv2 for block in blocks), self.conv_out):
            nn.init.zeros_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        x = self.conv_in(x)
        kept = [x]
        for level, shrink in itertools.zip_longest(self.down, self.shrink):
            for block, attention in zip(level.blocks, level.attention, strict=True):
                x = attention(block(x, time))
                kept.append(x)
            if shrink is not None:
                x = shrink(x)
                kept.append(x)
        for block, attention in itertools.zip_longest(self.middle, self.middle_attention):
            x = block(x, time)
            x = x if attention is None else attention(x)
        for level, grow in itertools.zip_longest(self.up, self.grow):
            for block, attention in zip(level.blocks, level.attention, strict=True):
                x = attention(block(torch.cat([x, kept.pop()], dim=1), time))
            x = x if grow is None else grow(x)
        return self.conv_out(F.silu(self.norm_out(x)))
