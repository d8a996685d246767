"""A learned codebook and its upkeep: usage, EMA, k-means start, revival of dead codes, clustering.

With `l2_norm` rows are normalized where they are compared and given; stored rows may have any
length. With `search: cosine` they are normalized where they are compared, and given as stored.
Letters: K codes, d width, n latents.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from vistok.config import Config
from vistok.core.errors import InputError
from vistok.core.records import Latents, Quantized
from vistok.core.rng import Rng
from vistok.quantizers.base import Quantizer
from vistok.quantizers.clustering import Anchors, blend
from vistok.quantizers.nearest import nearest_code
from vistok.quantizers.rotation import rotate
from vistok.quantizers.straight_through import straight_through
from vistok.runtime import distributed

NORM_EPS = 1e-12


class CodebookConfig(Config):
    """Size, learning and upkeep of a codebook."""

    kind: str
    codebook_size: int = Field(default=4096, ge=2, le=2**22)
    """K, number of codes."""
    dim: int = Field(default=12, ge=1, le=2**14)
    """Width of a code."""
    l2_norm: bool = True
    """Distances between directions instead of vectors."""
    search: Literal["euclidean", "cosine"] = "euclidean"
    """Nearest code by squared distance, or by direction, while codes are given with their stored
    length (XQ-GAN's and ImageFolder's scales). l2_norm makes both the same."""
    update: Literal["gradient", "ema"] = "gradient"
    """Learning of the codebook: by the codebook loss, or as a running mean of its latents."""
    gradient: Literal["straight_through", "rotation", "rotation_of_direction"] = "straight_through"
    """Way of the gradient from a code to its latent: copied, or turned and scaled with it (the
    rotation trick). The last goes on to the latent's direction alone, whatever l2_norm says, as
    GigaTok's and ReTok's code does."""
    decay: float = Field(default=0.99, gt=0, lt=1)
    """Decay of the running means (EMA codebook, usage)."""
    init: Literal["uniform", "sphere", "normal", "kaiming", "data", "kmeans"] = "uniform"
    """uniform(-1/K, 1/K); the same rows scaled to length 1 (XQ-GAN); normal(0, 1); kaiming:
    uniform(-sqrt(6/d), sqrt(6/d)) (LARP); latents of the first batch; their k-means centers."""
    kmeans_steps: int = Field(default=10, ge=1, le=10_000)
    """Iterations of init=kmeans."""
    revive_below: float = Field(default=0.0, ge=0)
    """Replace a code by a recent latent when its running usage falls below this share of 1/K."""
    cluster: bool = False
    """Move codes onto data, the further the less they are used (TA-TiTok's online clustering)."""
    loss_weights: dict[Literal["codebook", "commitment"], float] = {
        "codebook": 1.0,
        "commitment": 0.25,
    }

    @model_validator(mode="after")
    def _learns(self) -> CodebookConfig:
        if self.update == "gradient" and not self.loss_weights.get("codebook"):
            raise InputError(
                "update=gradient learns the codebook by its loss: give loss_weights.codebook a "
                "weight, or set update=ema"
            )
        if self.l2_norm and self.dim == 1 and self.codebook_size > 2:
            raise InputError(
                f"l2_norm=true leaves two directions of dim=1, and codebook_size is "
                f"{self.codebook_size}: use a larger dim, or l2_norm=false"
            )
        if self.cluster and (self.update == "ema" or self.revive_below):
            raise InputError(
                "cluster=true moves codes by itself: use update=gradient and revive_below=0"
            )
        return self


class CodebookQuantizer(Quantizer):
    """Base of quantizers with one learned codebook [K, d].

    Subclasses call `count` in the forward passes of training. Buffers: usage [K] (running share of
    hits, sums to 1), embed_sum [K, d] (EMA only).
    """

    residual = True
    remedy = (
        "try quantizer.init=kmeans, quantizer.revive_below=0.1, quantizer.l2_norm=true, "
        "quantizer.update=ema or a smaller codebook_size"
    )

    def __init__(self, config: CodebookConfig) -> None:
        super().__init__()
        size, dim = config.codebook_size, config.dim
        self.config = config
        self.ema = config.update == "ema"
        # A running mean is not trained by gradients: its codebook loss does not exist.
        self.loss_weights = {
            name: weight
            for name, weight in config.loss_weights.items()
            if not (self.ema and name == "codebook")
        }
        codebook = torch.empty(size, dim)
        if config.init in ("uniform", "sphere"):
            nn.init.uniform_(codebook, -1.0 / size, 1.0 / size)
            if config.init == "sphere":
                codebook = self.directions(codebook)
        elif config.init == "kaiming":
            nn.init.kaiming_uniform_(codebook)
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
        """[K, d] fp32 rows as they are given."""
        return self.given(self.codebook)

    def given(self, rows: Tensor) -> Tensor:
        """Stored rows [..., d] -> fp32 rows as they are given."""
        rows = rows.float()
        return self.directions(rows) if self.config.l2_norm else rows

    def restored(self, values: Tensor) -> Tensor:
        if self.config.l2_norm:
            raise InputError(
                f"quantizer: '{self.config.kind}' with l2_norm=true keeps the direction of a "
                "latent alone, so that no trained decoder can read its codes; set l2_norm=false"
            )
        if self.config.search == "cosine":
            raise InputError(
                f"quantizer: '{self.config.kind}' with search=cosine chooses a code by the "
                "direction of a latent alone, so that no trained decoder can read its codes; set "
                "search=euclidean"
            )
        return super().restored(values)

    def compared(self, given: Tensor) -> Tensor:
        """Rows or latents [..., d] as they are given -> as distances see them."""
        directions = self.config.search == "cosine" and not self.config.l2_norm
        return self.directions(given) if directions else given

    def directions(self, rows: Tensor) -> Tensor:
        """Rows or latents [..., d] divided by their length."""
        return F.normalize(rows, dim=-1, eps=NORM_EPS)

    def pass_through(self, values: Tensor, through: Tensor) -> Tensor:
        """`values` [..., d] in the forward pass, with the gradient that the config names."""
        gradient = self.config.gradient
        if gradient == "rotation_of_direction":
            through = self.directions(through)
        return (straight_through if gradient == "straight_through" else rotate)(values, through)

    def count(self, raw: Tensor, z: Tensor, indices: Tensor) -> None:
        """Count a training pass for `after_step`.

        Args:
            raw, z: latents [n, d] as they came, and as codes are given. indices: [n] of codes.
        """
        # Not `bincount`: it asks a GPU for the largest index first.
        self._hits.index_add_(0, indices, torch.ones_like(indices, dtype=self._hits.dtype))
        if self.ema:
            self._sums.index_add_(0, indices, z)
        if self.config.cluster:
            self._anchors.add(raw, self.compared(z), self.compared(self.codes().detach()))

    def remember(self, quantized: Quantized) -> None:
        if self.training and self.config.revive_below:
            self._recent.append(quantized.queries.flatten(0, 2))

    @torch.no_grad()
    def initialize(self, latents: Latents, rng: Rng) -> None:
        """Rows from latents [B, N, d] of the global batch: random ones or their k-means centers."""
        z = latents.values.flatten(0, 1)
        if self.config.l2_norm:
            z = self.directions(z.float())
        rows = _random_rows(z, len(self.codebook), rng)
        if self.config.init == "kmeans":
            rows = kmeans(z, rows, self.config.kmeans_steps)
            if self.config.l2_norm:
                rows = self.directions(rows)
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
