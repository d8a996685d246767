"""Base class of heads."""

from __future__ import annotations

from torch import Tensor, nn

from vistok.config.contract import base_of, needed_by, required


@base_of("head")
class Head(nn.Module):
    """Rows [B, cells, W] of a transformer's last layer -> [B, C, *sides] of the output space.

    Subclasses take (config, patches, shape of the space, width W).
    """

    @required
    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def start(self) -> None:
        """Set what differs from the usual initialization, which swept over all layers before."""

    @needed_by("losses that are balanced by gradients (adversarial)")
    @property
    def last_layer(self) -> nn.Parameter:
        """The weight whose gradients balance losses against each other."""
        raise NotImplementedError
