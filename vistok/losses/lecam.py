"""A discriminator with the running means that LeCam compares with (arXiv 2104.03310)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LeCamDiscriminator(nn.Module):
    """A discriminator with LeCam's running means, so that both are trained and saved as one."""

    def __init__(self, discriminator: nn.Module) -> None:
        super().__init__()
        self.discriminator = discriminator
        self.register_buffer("ema_real", torch.zeros(()))
        self.register_buffer("ema_fake", torch.zeros(()))

    def forward(self, pixels: Tensor, uniform: Tensor | None = None, parts: int = 1) -> Tensor:
        """[B, 3, H, W] in 0..1 -> logits.

        Args:
            uniform: [B, U] numbers of a discriminator that samples; None = it samples nothing.
            parts: equal shares of the batch that are seen one after the other.
        """
        if parts == 1:
            return self._seen(pixels, uniform)
        numbers = [None] * parts if uniform is None else uniform.chunk(parts)
        shares = zip(pixels.chunk(parts), numbers, strict=True)
        return torch.cat([self._seen(share, own) for share, own in shares])

    def _seen(self, pixels: Tensor, uniform: Tensor | None) -> Tensor:
        if uniform is None:
            return self.discriminator(pixels)
        return self.discriminator(pixels, uniform)
