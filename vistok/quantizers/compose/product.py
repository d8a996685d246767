"""Product quantization: P quantizers side by side, each with codebooks of its own.

Branches are parts of the latents' channels, or whole maps of latents that the encoder lays out one
after another (ImageFolder's folded tokens, arXiv 2410.01756). Values lie side by side on channels,
in the order of branches; a token position holds the factors of all branches.
Letters: B batch, N latents, M values, L positions, F factors, P branches, d code width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from vistok.config import Config, ConfigError, PartOf
from vistok.config.registry import build, register
from vistok.core.draws import Draws, PartDraws
from vistok.core.errors import InputError
from vistok.core.records import Latents, Quantized
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.core.shapes import Grid, Layout, cells
from vistok.quantizers.atoms.vq import VQConfig
from vistok.quantizers.base import Quantizer
from vistok.quantizers.compose.levels import after_steps


class ProductConfig(Config):
    kind: Literal["product"] = "product"
    branches: int = Field(default=2, ge=1, le=256)
    """P."""
    split: Literal["channels", "grids"] = "channels"
    """Input of a branch: its share of the channels, or its own map of latents, of those that the
    encoder lays out one after another."""
    quantizer: Annotated[Any, PartOf("quantizer")] = VQConfig()
    """Quantizer of a branch; each has codebooks of its own."""
    dependency: float = Field(default=0.0, ge=0, le=1e3)
    """Weight of the mean cosine between averaged values of the first and of the last branch, which
    keeps them apart (XQ-GAN)."""

    @classmethod
    def tiny(cls) -> ProductConfig:
        return cls(quantizer=VQConfig.tiny())


@register("quantizer", ProductConfig)
class Product(Quantizer):
    def __init__(self, config: ProductConfig) -> None:
        super().__init__()
        self.config = config
        self.parts = nn.ModuleList(build(config.quantizer) for _ in range(config.branches))
        part = self.parts[0]
        if not part.vocab:
            raise ConfigError(
                f"quantizer: '{config.quantizer.kind}' has no codes, so that 'product' has none to "
                "put side by side; expected a quantizer with codes, such as vq"
            )
        folded = config.split == "grids"
        self.latent_dim = part.latent_dim if folded else config.branches * part.latent_dim
        self.value_dim = config.branches * part.value_dim
        self.vocab = part.vocab * config.branches
        self.branches = config.branches * part.branches
        self.residual = part.residual and not folded
        self.curved = part.curved
        self.remedy = part.remedy
        self.loss_weights = dict(part.loss_weights)
        if config.dependency:
            self.loss_weights["dependency"] = config.dependency

    def layout(self, grids: Sequence[Grid], stored: int | None = None) -> Layout:
        own = tuple(grids)
        if self.config.split == "grids":
            count, rest = divmod(len(grids), self.config.branches)
            own = tuple(grids[:count])
            if rest or stored is not None or own * self.config.branches != tuple(grids):
                raise InputError(
                    f"product with split=grids reads {self.config.branches} equal maps of latents, "
                    f"all of them; got latents on {tuple(grids)}"
                    + (f" of which {stored} are stored" if stored is not None else "")
                    + ": give the encoder as many branches, or set split=channels"
                )
        layouts = [part.layout(own, stored) for part in self.parts]
        one = layouts[0]
        changes = {"vocab": self.vocab, "dim": self.value_dim, "branches": self.branches}
        return replace(one, spec=one.spec.model_copy(update=changes), dim=self.value_dim)

    def quantize(self, latents: Latents, draws: Draws) -> Quantized:
        made = [
            part.quantize(own, self._draws(draws, number))
            for number, (part, own) in enumerate(zip(self.parts, self._split(latents), strict=True))
        ]
        side = lambda name: torch.cat([getattr(one, name) for one in made], dim=-1)
        losses = _means([one.losses for one in made])
        if self.config.dependency:
            losses["dependency"] = _cosine(made[0].values.mean(1), made[-1].values.mean(1))
        queries = torch.cat([one.queries for one in made], dim=2)
        return Quantized(side("values"), side("clean"), side("indices"), queries, losses)

    @torch.no_grad()
    def search(self, latents: Latents) -> tuple[Tensor, Tensor]:
        found = [
            part.search(own) for part, own in zip(self.parts, self._split(latents), strict=True)
        ]
        indices, queries = zip(*found, strict=True)
        return torch.cat(indices, dim=-1), torch.cat(queries, dim=2)

    def entropies(
        self, z: Tensor, weights: Tensor | None = None, magnitude: float = 1.0
    ) -> dict[str, Tensor]:
        shares = zip(self.parts, z.chunk(len(self.parts), dim=-1), strict=True)
        given = [part.entropies(own, weights, magnitude) for part, own in shares]
        return _means(given)

    def weights_at(self, progress: Progress) -> Mapping[str, float]:
        return {**self.loss_weights, **self.parts[0].weights_at(progress)}

    def pass_through(self, values: Tensor, through: Tensor) -> Tensor:
        both = zip(
            self.parts,
            values.chunk(len(self.parts), dim=-1),
            through.chunk(len(self.parts), dim=-1),
            strict=True,
        )
        return torch.cat([part.pass_through(value, latent) for part, value, latent in both], dim=-1)

    def restored(self, values: Tensor) -> Tensor:
        if self.config.split == "grids":
            return super().restored(values)  # several latents have one value
        shares = values.chunk(len(self.parts), dim=-1)
        found = [part.restored(own) for part, own in zip(self.parts, shares, strict=True)]
        return torch.cat(found, dim=-1)

    def lookup(self, indices: Tensor, keep: Tensor | None = None) -> Tensor:
        return self._each(indices, lambda part, own: part.lookup(own, keep))

    def rebuilt(self, indices: Tensor, draws: Draws) -> Tensor:
        return self._each(indices, lambda part, own: part.rebuilt(own, draws))

    def partial(self, indices: Tensor, blocks: int, onto: Grid) -> Tensor:
        return self._each(indices, lambda part, own: part.partial(own, blocks, onto))

    def neighbours(self, queries: Tensor, count: int) -> Tensor:
        shares = queries.chunk(len(self.parts), dim=2)
        near = [part.neighbours(own, count) for part, own in zip(self.parts, shares, strict=True)]
        return torch.cat(near, dim=2)

    def draw(self, layout: Layout, index: Tensor, rng: Rng, progress: Progress) -> PartDraws | None:
        """Outcomes of each branch, stacked behind the batch: [B, P, ...]."""
        drawn = [
            part.draw(layout, index, rng.child(f"branch{number}"), progress)
            for number, part in enumerate(self.parts)
        ]
        if drawn[0] is None:
            return None
        names = [name for name, value in vars(drawn[0]).items() if value is not None]
        stack = lambda name: torch.stack([getattr(one, name) for one in drawn], dim=1)
        return PartDraws(**{name: stack(name) for name in names})

    @property
    def wants_data(self) -> bool:
        return any(part.wants_data for part in self.parts)

    @torch.no_grad()
    def initialize(self, latents: Latents, rng: Rng) -> None:
        for number, own in enumerate(self._split(latents)):
            self.parts[number].initialize(own, rng.child(f"branch{number}"))

    def remember(self, quantized: Quantized) -> None:
        shares = quantized.queries.chunk(len(self.parts), dim=2)
        for part, queries in zip(self.parts, shares, strict=True):
            part.remember(replace(quantized, queries=queries))

    @torch.no_grad()
    def after_step(self, rng: Rng) -> dict[str, float | Tensor]:
        return after_steps(self.parts, rng, "branch")

    @torch.no_grad()
    def forget(self) -> None:
        for part in self.parts:
            part.forget()

    def _split(self, latents: Latents) -> list[Latents]:
        """The latents of each branch."""
        count = len(self.parts)
        if self.config.split == "channels":
            shares = latents.values.chunk(count, dim=-1)
            return [replace(latents, values=share) for share in shares]
        own = latents.grids[: len(latents.grids) // count]
        shares = latents.values.split(sum(map(cells, own)), dim=1)
        return [Latents(share, own) for share in shares]

    def _each(self, indices: Tensor, function: Any) -> Tensor:
        """Values of every branch from its own factors of indices [B, L, F], side by side."""
        shares = indices.chunk(len(self.parts), dim=-1)
        given = [function(part, own) for part, own in zip(self.parts, shares, strict=True)]
        return torch.cat(given, dim=-1)

    def _draws(self, draws: Draws, number: int) -> Draws:
        """Draws of one branch: dropped levels and prefixes are those of all, outcomes its own."""
        own = draws.part("quantizer").map(lambda tensor: tensor[:, number])
        return replace(draws, parts={**draws.parts, "quantizer": own})


def _means(terms: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Terms of the branches -> their mean, by name."""
    return {name: sum(one[name] for one in terms) / len(terms) for name in terms[0]}


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    """[B, d] each -> their mean cosine."""
    return nn.functional.cosine_similarity(a, b, dim=-1).mean()
