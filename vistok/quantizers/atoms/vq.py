"""Vector quantization with a learned codebook (VQ-VAE, arXiv 1711.00937).

One atom for the plain codebook of TiTok, the l2-normalized one of LlamaGen and RobusTok, EMA
codebooks, k-means initialization and the revival of dead codes. With `l2_norm` both latents and
rows are normalized before the distance, and losses and straight-through see normalized vectors;
stored rows may have any length.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.draws import Draws
from vistok.core.records import Latents, Quantized
from vistok.core.rng import Rng
from vistok.quantizers.atoms.clustering import Anchors, blend
from vistok.quantizers.base import Quantizer
from vistok.quantizers.nearest import nearest_code, nearest_codes
from vistok.quantizers.straight_through import straight_through
from vistok.runtime import distributed

_NORM_EPS = 1e-12


class VQConfig(Config):
    kind: Literal["vq"] = "vq"
    codebook_size: int = Field(default=4096, ge=2)
    """K."""
    dim: int = Field(default=12, ge=1)
    """Width of a code."""
    l2_norm: bool = True
    """Distances between directions instead of vectors."""
    update: Literal["gradient", "ema"] = "gradient"
    """How the codebook learns: by the codebook loss, or as a running mean of its latents."""
    decay: float = Field(default=0.99, gt=0, lt=1)
    """Of the running means (EMA codebook, usage)."""
    init: Literal["uniform", "normal", "data", "kmeans"] = "uniform"
    """uniform(-1/K, 1/K); normal(0, 1); latents of the first batch; their k-means centers."""
    revive_below: float = Field(default=0.0, ge=0)
    """Replace a code by a recent latent when its running usage falls below this share of 1/K."""
    cluster: bool = False
    """Move codes onto data, the further the less they are used (TA-TiTok's online clustering)."""
    loss_weights: dict[Literal["codebook", "commitment"], float] = {
        "codebook": 1.0,
        "commitment": 0.25,
    }

    @model_validator(mode="after")
    def _learns(self) -> VQConfig:
        if self.update == "gradient" and not self.loss_weights.get("codebook"):
            raise ValueError(
                "update=gradient learns the codebook by its loss: give loss_weights.codebook a "
                "weight, or set update=ema"
            )
        if self.cluster and (self.update == "ema" or self.revive_below):
            raise ValueError(
                "cluster=true moves codes by itself: use update=gradient and revive_below=0"
            )
        return self

    @classmethod
    def tiny(cls) -> VQConfig:
        return cls(codebook_size=16, dim=4)


@register("quantizer", VQConfig)
class VQ(Quantizer):
    """Buffers: usage [K] (running share of hits, sums to 1), embed_sum [K, d] (EMA only)."""

    remedy = (
        "try quantizer.init=kmeans, quantizer.revive_below=0.1, quantizer.l2_norm=true, "
        "quantizer.update=ema or a smaller codebook_size"
    )

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        size, dim = config.codebook_size, config.dim
        self.config = config
        self.latent_dim = self.value_dim = dim
        self.vocab = (size,)
        self.ema = config.update == "ema"
        # A running mean is not trained by gradients: its codebook loss does not exist.
        self.loss_weights = {
            name: weight
            for name, weight in config.loss_weights.items()
            if not (self.ema and name == "codebook")
        }
        codebook = torch.empty(size, dim)
        if config.init == "uniform":
            nn.init.uniform_(codebook, -1.0 / size, 1.0 / size)
        else:
            nn.init.normal_(codebook)
        self.codebook = nn.Parameter(codebook, requires_grad=not self.ema)
        # Clustering starts from no usage at all: every code may move.
        self.register_buffer("usage", torch.full((size,), 0.0 if config.cluster else 1.0 / size))
        self.register_buffer("filled", torch.tensor(config.init not in ("data", "kmeans")))
        if self.ema:
            self.register_buffer("embed_sum", codebook.detach().clone() / size)
        # Hits and sums of this step's micro-batches; emptied by `after_step`, so never saved.
        self.register_buffer("_hits", torch.zeros(size), persistent=False)
        self.register_buffer("_sums", torch.zeros(size, dim), persistent=False)
        self._recent: list[Tensor] = []
        self._anchors = Anchors(size, dim) if config.cluster else None

    @property
    def wants_data(self) -> bool:
        return not bool(self.filled)

    def codes(self) -> Tensor:
        """[K, d] fp32 rows as they are compared and given."""
        return self._given(self.codebook)

    def _given(self, rows: Tensor) -> Tensor:
        rows = rows.float()
        return F.normalize(rows, dim=-1, eps=_NORM_EPS) if self.config.l2_norm else rows

    def quantize(self, latents: Latents, draws: Draws) -> Quantized:
        z = latents.values
        raw = z
        if self.config.l2_norm:
            z = F.normalize(z, dim=-1, eps=_NORM_EPS)
        with torch.no_grad():
            indices = nearest_code(z.flatten(0, 1), self.codes()).view(z.shape[:2])
        chosen = self.lookup(indices[..., None])
        losses = {"commitment": F.mse_loss(z, chosen.detach())}
        if not self.ema:
            losses = {"codebook": F.mse_loss(chosen, z.detach()), **losses}
        if self.training:
            self._count(z.detach().flatten(0, 1), indices.flatten())
            if self.config.cluster:
                flat = z.detach().flatten(0, 1)
                self._anchors.add(raw.detach().flatten(0, 1), flat, self.codes().detach())
        values = straight_through(chosen.detach(), z)
        return Quantized(values, values, indices[..., None], z.detach()[:, :, None], losses)

    def lookup(self, indices: Tensor, keep: Tensor | None = None) -> Tensor:
        # Only the rows that were asked for are normalized, and differentiated.
        return self._given(F.embedding(indices[..., 0].long(), self.codebook))

    def distances(self, z: Tensor) -> Tensor:
        """z [..., d] -> squared distances to all codes [..., K] fp32, differentiable."""
        z, codes = self._given(z), self.codes()
        squares = z.square().sum(-1, keepdim=True) + codes.square().sum(-1)
        return squares - 2 * (z @ codes.T)

    def soft(self, z: Tensor, temperature: float = 1.0) -> Tensor:
        """z [..., d] -> shares of all codes [..., K], softmax(-distance / temperature)."""
        return (self.distances(z) / -temperature).softmax(-1)

    def neighbours(self, queries: Tensor, count: int) -> Tensor:
        batch, length = queries.shape[:2]
        near = nearest_codes(queries.flatten(0, 2).float(), self.codes().detach(), count)
        return near.view(batch, length, 1, -1, 1)

    def _count(self, z: Tensor, indices: Tensor) -> None:
        # Not `bincount`: it asks a GPU for the largest index first.
        self._hits.index_add_(0, indices, torch.ones_like(indices, dtype=self._hits.dtype))
        if self.ema:
            self._sums.index_add_(0, indices, z)

    def remember(self, quantized: Quantized) -> None:
        if self.training and self.config.revive_below:
            self._recent.append(quantized.queries.flatten(0, 2))

    @torch.no_grad()
    def initialize(self, latents: Latents, rng: Rng) -> None:
        """Rows from latents [B, N, d] of the global batch: random ones or their k-means centers."""
        z = latents.values.flatten(0, 1)
        if self.config.l2_norm:
            z = F.normalize(z.float(), dim=-1, eps=_NORM_EPS)
        rows = _random_rows(z, len(self.codebook), rng)
        if self.config.init == "kmeans":
            rows = kmeans(z, rows)
            if self.config.l2_norm:
                rows = F.normalize(rows, dim=-1, eps=_NORM_EPS)
        self._set_rows(torch.ones_like(self.usage, dtype=torch.bool), rows)
        self.filled.fill_(True)

    @torch.no_grad()
    def after_step(self, rng: Rng) -> dict[str, float | Tensor]:
        if not self.training:  # frozen
            self.forget()
            return {}
        hits = distributed.sum_(self._hits)
        total = hits.sum()
        decay = self.config.decay
        # Nothing moves if nothing was counted, which only the device knows: it is not asked.
        counted, total = total > 0, total.clamp(min=1)
        share = torch.where(counted, 1 - decay, 0.0).to(hits)
        self.usage.lerp_(hits / total, share)
        if self.ema:
            self.embed_sum.lerp_(distributed.sum_(self._sums) / total, share)
            # Laplace smoothing keeps the mean of a code that is almost never hit finite.
            smooth = (self.usage + 1e-5 / len(self.usage)) / (1 + 1e-5)
            means = self.embed_sum / smooth[:, None]
            self.codebook.copy_(torch.where(counted, means, self.codebook))
        if self.config.cluster:
            share = torch.where(counted, blend(self.usage, decay), 0.0)[:, None]
            self.codebook.copy_(self.codebook * (1 - share) + self._anchors.take() * share)
        events = {"revived_codes": self._revive(rng)} if self._recent else {}
        self.forget()
        return events

    @torch.no_grad()
    def forget(self) -> None:
        self._hits.zero_()
        self._sums.zero_()
        self._recent.clear()
        if self.config.cluster:
            self._anchors.clear()

    def _revive(self, rng: Rng) -> Tensor:
        """Codes below the limit become latents of this step, in a keyed order; how many they are.

        As many rows are drawn as there are codes: a GPU is not asked for the number of dead ones.
        """
        dead = self.usage < self.config.revive_below / len(self.usage)
        pool = distributed.gather(torch.cat(self._recent))
        rows = _random_rows(pool, len(dead), rng.child("revive"))
        self._set_rows(dead, rows[(dead.cumsum(0) - 1).clamp(min=0)])
        return dead.sum()

    def _set_rows(self, which: Tensor, rows: Tensor) -> None:
        """Give the codes `which` [K] new vectors, of `rows` [K, d], and an average code's usage."""
        rows = torch.where(which[:, None], rows.to(self.codebook), self.codebook)
        self.codebook.copy_(rows)
        self.usage.masked_fill_(which, 1.0 / len(self.usage))
        if self.ema:
            sums = torch.where(which[:, None], rows / len(self.usage), self.embed_sum)
            self.embed_sum.copy_(sums)


def _random_rows(pool: Tensor, count: int, rng: Rng) -> Tensor:
    """`count` rows of pool [n, d], without repetition as long as there are enough."""
    # Not a permutation of all: the pool is a whole batch of latents, and a GPU waits meanwhile.
    some = rng.generator().choice(len(pool), min(count, len(pool)), replace=False)
    rows = torch.from_numpy(some).repeat(-(-count // len(some)))[:count]
    return pool[rows.to(pool.device, non_blocking=True)]


def kmeans(points: Tensor, centers: Tensor, steps: int = 10) -> Tensor:
    """Lloyd's iterations from `centers` [K, d] over points [n, d]; empty centers stay."""
    for _ in range(steps):
        nearest = nearest_code(points, centers)
        hits = torch.bincount(nearest, minlength=len(centers)).to(points)
        sums = torch.zeros_like(centers).index_add_(0, nearest, points)
        centers = torch.where(hits[:, None] > 0, sums / hits.clamp(min=1)[:, None], centers)
    return centers
