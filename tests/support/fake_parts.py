"""Throw-away parts, one for each hole that the contracts close: `plugins=tests.support.fake_parts`.

They stand for systems that differ from an image, one block of N latents, N positions and a
deterministic decoder.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.draws import Draws, PartDraws
from vistok.core.records import Batch, Condition, Latents, Noisy, Quantized, Reconstruction
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.core.shapes import Grid, Layout, Shape, cells
from vistok.decoders.flow import FlowDecoder, FlowSamplingConfig
from vistok.encoders.base import Encoder
from vistok.encoders.vit import ViTEncoder, ViTEncoderConfig
from vistok.frozen.network import Frozen
from vistok.layers.flow import path
from vistok.losses.base import Loss
from vistok.quantizers.base import Quantizer
from vistok.quantizers.nearest import nearest_codes
from vistok.quantizers.straight_through import straight_through
from vistok.regularizers.base import Regularizer
from vistok.spaces.base import Space
from vistok.tokens import TokenSpec


class TwoMapsConfig(Config):
    kind: Literal["two_maps"] = "two_maps"
    patch: int = 4


@register("encoder", TwoMapsConfig)
class TwoMaps(Encoder):
    """Two maps of latents beside each other: N = 2 h w (ImageFolder's branches)."""

    def __init__(self, config: TwoMapsConfig, shape: Shape, dim: int) -> None:
        super().__init__()
        grid = tuple(side // config.patch for side in shape.sides)
        self.grids = (grid, grid)
        self.proj = nn.Conv2d(shape.channels, 2 * dim, config.patch, stride=config.patch)

    def forward(self, x: Tensor, condition: Condition | None = None) -> Latents:
        values = rearrange(self.proj(x), "b (p d) h w -> b (p h w) d", p=2)
        return Latents(values.float(), self.grids)


class TwoScaleConfig(Config):
    kind: Literal["two_scale_product"] = "two_scale_product"
    codes: int = 8
    dim: int = 3


@register("quantizer", TwoScaleConfig)
class TwoScaleProduct(Quantizer):
    """Two branches of two scales: N = 2 h w latents, L = 1 + h w tokens of two factors, M = h w
    values of width 2 d (VAR's scales, ImageFolder's product)."""

    branches = 2

    def __init__(self, config: TwoScaleConfig) -> None:
        super().__init__()
        self.latent_dim, self.value_dim = config.dim, 2 * config.dim
        self.vocab = (config.codes, config.codes)
        self.loss_weights = {"commitment": 1.0}
        self.codebook = nn.Parameter(torch.randn(2, config.codes, config.dim))

    def layout(self, grids, stored: int | None = None) -> Layout:
        self.grid = grids[0]
        spec = TokenSpec(
            blocks=((1, 1), self.grid),
            vocab=self.vocab,
            dim=self.value_dim,
            branches=2,
            prefix="block",
        )
        return Layout(spec, (self.grid,), self.value_dim)

    def quantize(self, latents: Latents, draws: Draws) -> Quantized:
        z = rearrange(latents.values, "b (p n) d -> b n p d", p=2)
        coarse = z.mean(1, keepdim=True)
        first = self._nearest(coarse)
        fine = z - self._codes(first)
        indices = torch.cat([first, self._nearest(fine)], dim=1)
        queries = torch.cat([coarse, fine], dim=1).detach()
        clean = self._sum(indices)
        kept = self._sum(indices, draws.levels, draws.keep)
        flat = z.flatten(2)
        losses = {"commitment": F.mse_loss(flat, clean.detach()) + F.mse_loss(clean, flat.detach())}
        values, clean = straight_through(kept, flat), straight_through(clean, flat)
        return Quantized(values, clean, indices, queries, losses)

    def lookup(self, indices: Tensor, keep: Tensor | None = None) -> Tensor:
        return self._sum(indices, keep=keep)

    def partial(self, indices: Tensor, blocks: int, onto: Grid) -> Tensor:
        keep = torch.full((len(indices),), blocks, device=indices.device)
        whole = rearrange(self._sum(indices, keep=keep), "b (h w) d -> b d h w", h=self.grid[0])
        return F.interpolate(whole, onto, mode="area").flatten(2).transpose(1, 2)

    def neighbours(self, queries: Tensor, count: int) -> Tensor:
        near = [
            nearest_codes(queries[:, :, p].flatten(0, 1), self.codebook[p].detach(), count)
            for p in range(2)
        ]
        batch = len(queries)
        return torch.stack([one.view(batch, -1, one.shape[1]) for one in near], dim=2)[..., None]

    def _nearest(self, z: Tensor) -> Tensor:
        """[B, n, 2, d] -> [B, n, 2]."""
        return self.neighbours(z.detach(), 1)[..., 0, 0]

    def _codes(self, indices: Tensor) -> Tensor:
        """[B, n, 2] -> [B, n, 2, d]."""
        return torch.stack([self.codebook[p][indices[..., p]] for p in range(2)], dim=2)

    def _sum(self, indices: Tensor, levels: Tensor | None = None, keep: Tensor | None = None):
        """Indices [B, L, 2] -> the sum of the scales that count, [B, M, 2 d]."""
        codes = self._codes(indices).flatten(2)
        fine = codes[:, 1:]
        if levels is not None:
            fine = fine * levels[:, 1, None, None].to(fine)
        if keep is not None:
            fine = fine * (keep[:, None, None] > 1).to(fine)
        return codes[:, :1] + fine


class ScaleDropConfig(Config):
    kind: Literal["scale_drop"] = "scale_drop"


@register("regularizer", ScaleDropConfig)
class ScaleDrop(Regularizer):
    """Half of the samples train without their last scale."""

    fills = ("levels",)

    def __init__(self, config: ScaleDropConfig) -> None:
        pass

    def draw(self, spec: TokenSpec, index: Tensor, rng: Rng, progress: Progress) -> Draws:
        levels = torch.ones(len(index), len(spec.blocks), dtype=torch.bool)
        levels[:, -1] = rng.uniform(index) < 0.5
        return Draws(levels=levels)


class PaddedConfig(ViTEncoderConfig):
    kind: Literal["padded"] = "padded"


@register("encoder", PaddedConfig)
class Padded(ViTEncoder):
    """One latent token more than it stores (ReTok's padding)."""

    def __init__(self, config: PaddedConfig, shape: Shape, dim: int) -> None:
        super().__init__(config, shape, dim)
        self.stored = cells(self.grids[0]) - 1


class FramewiseConfig(ViTEncoderConfig):
    kind: Literal["framewise"] = "framewise"


@register("encoder", FramewiseConfig)
class Framewise(ViTEncoder):
    """Its latent tokens are two blocks, each with prefixes of its own (VideoFlexTok)."""

    def __init__(self, config: FramewiseConfig, shape: Shape, dim: int) -> None:
        super().__init__(config, shape, dim)
        half = cells(self.grids[0]) // 2
        self.grids = ((half,), (half,))


class Borrowed(Frozen):
    """A frozen pair of convolutions, the same wherever it is built: stands for a VAE."""

    def __init__(self, sha256: str) -> None:
        super().__init__("fake-vae", sha256)
        generator = torch.Generator().manual_seed(5)
        self.weight = nn.Parameter(torch.randn(4, 3, 2, 2, generator=generator, device="cpu"))
        self.freeze()


class BorrowedSpaceConfig(Config):
    kind: Literal["borrowed"] = "borrowed"
    sha256: str = "5" * 64


@register("space", BorrowedSpaceConfig)
class BorrowedSpace(Space):
    """Latents of a frozen network: 4 channels at half the sides, with a posterior's noise."""

    def __init__(self, config: BorrowedSpaceConfig, shape: Shape) -> None:
        super().__init__()
        self.shape = Shape(4, tuple(side // 2 for side in shape.sides))
        self.network = Borrowed(config.sha256)

    def forward(self, pixels: Tensor, draws: PartDraws | None = None) -> Tensor:
        mean = F.conv2d(pixels, self.network.weight, stride=2)
        return mean if draws is None or draws.noise is None else mean + 0.1 * draws.noise.to(mean)

    def inverse(self, y: Tensor) -> Tensor:
        return F.conv_transpose2d(y, self.network.weight, stride=2) / 8

    def draw(self, index: Tensor, rng: Rng, progress: Progress) -> PartDraws:
        return PartDraws(noise=rng.normal(index, (self.shape.channels, *self.shape.sides)))


class FlowConfig(Config):
    kind: Literal["fake_flow"] = "fake_flow"
    sampling: FlowSamplingConfig = FlowSamplingConfig(steps=4)


@register("decoder", FlowConfig)
class FakeFlow(FlowDecoder):
    """Velocities from x, the time, and the mean of the values that are present."""

    prefix = "token"

    def __init__(self, config: FlowConfig, shape: Shape, grids, dim: int) -> None:
        super().__init__()
        self.shape, self.sampling = shape, config.sampling
        self.proj = nn.Linear(dim + 1, shape.channels)
        self.out = nn.Conv2d(2 * shape.channels, shape.channels, 3, padding=1)

    def velocity(
        self, noisy: Noisy, values: Tensor, present: Tensor | None, condition: Condition | None
    ) -> Tensor:
        if present is not None:
            values = values * present[..., None].to(values)
        told = torch.cat([values.mean(1), noisy.time[:, None].to(values)], dim=-1)
        hint = self.proj(told)[:, :, None, None].expand_as(noisy.x)
        return self.out(torch.cat([noisy.x, hint], dim=1))

    @property
    def last_layer(self) -> nn.Parameter:
        return self.out.weight


class FlowLossConfig(Config):
    kind: Literal["fake_flow"] = "fake_flow"


@register("loss", FlowLossConfig)
class FlowLoss(Loss):
    """Squared error of a predicted velocity."""

    needs_pixels = False

    def __init__(self, config: FlowLossConfig) -> None:
        super().__init__()

    def forward(
        self, reconstruction: Reconstruction, batch: Batch, progress: Progress
    ) -> dict[str, Tensor]:
        noise = reconstruction.draws.part("decoder").noise
        wanted = path.velocity(reconstruction.target_in_space, noise)
        return {"flow": F.mse_loss(reconstruction.decoded.prediction, wanted)}

    def weights(self, progress: Progress) -> dict[str, float]:
        return {"flow": 1.0}
