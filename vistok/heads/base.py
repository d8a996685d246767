"""Base class of heads."""

from __future__ import annotations

from torch import Tensor, nn


class Head(nn.Module):
    """Rows [B, cells, W] of a transformer's last layer -> [B, C, *sides] of the output space.

    Subclasses take (config, patches, shape of the space, width W).
    """

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def start(self) -> None:
        """Set what differs from the usual initialization, which swept over all layers before."""

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight whose gradients balance losses against each other."""
        raise NotImplementedError
