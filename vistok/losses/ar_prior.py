"""An autoregressive prior that is trained with the tokenizer (LARP, arXiv 2410.21264).

A small causal transformer reads code vectors and predicts the next one; its logits are the inner
products of normalized predictions and codes. The gradient of its cross-entropy passes from the
straight-through vectors to the encoder; codes are detached in the logits. In later rounds the
prior reads some of its own samples (scheduled sampling): each position, but the first, takes the
code that the round before drew for it, with a probability that grows to `sampled`.
Letters: B batch, L positions, d width of a code, K codes, R rounds.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from vistok.config import ConfigError
from vistok.config.registry import register
from vistok.core.draws import PartDraws, picked
from vistok.core.records import Batch, Reconstruction
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.layers.dropout import Dropout
from vistok.layers.transformer import (
    InitKind,
    Transformer,
    TransformerConfig,
    init_weights,
)
from vistok.losses.base import Loss, LossConfig
from vistok.runtime.precision import no_autocast

NORM_EPS = 1e-12


class PriorTransformerConfig(TransformerConfig):
    """LARP's GPTC-S."""

    width: int = Field(default=384, ge=2, le=2**14)
    depth: int = Field(default=12, ge=1, le=512)
    heads: int = Field(default=6, ge=1, le=512)
    norm_eps: float = 1e-5
    dropout: float = Field(default=0.1, ge=0, lt=1)
    attention_dropout: float = Field(default=0.1, ge=0, lt=1)
    init: InitKind = "xavier"
    branch_scale: Literal["depth", "none"] = "none"


class ARPriorConfig(LossConfig):
    kind: Literal["ar_prior"] = "ar_prior"
    weight: float = Field(default=0.06, ge=0)
    """Weight of the cross-entropy, in nats."""
    transformer: PriorTransformerConfig = PriorTransformerConfig()
    embed_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of the input activations that training drops."""
    positions: int | None = Field(default=None, ge=1, le=2**18)
    """Rows of the learned table of positions; null = as many as there are tokens."""
    l2_norm: bool = True
    """Predictions are normalized before the logits."""
    temperature: float = Field(default=1.0, gt=0)
    """Divides the logits. With l2_norm these lie within -1/temperature .. 1/temperature: at 1 the
    cross-entropy of 8,192 codes cannot fall much below 7."""
    rounds: int = Field(default=2, ge=1, le=16)
    """R passes of the prior in a step; the first reads true codes alone."""
    average_rounds: bool = True
    """The loss is the mean over rounds; false: that of the last."""
    gradient: Literal["all", "last_round"] = "all"
    """last_round: the rounds before have no gradient, and no part in the loss."""
    sampled: float = Field(default=0.5, ge=0, le=1)
    """Largest probability that a position reads a sample."""
    sampled_ramp: float = Field(default=0.3, ge=0, le=1)
    """Share of the training over which that probability grows from 0."""

    @classmethod
    def tiny(cls) -> ARPriorConfig:
        return cls(transformer=PriorTransformerConfig(width=16, depth=1, heads=2))


class Prior(nn.Module):
    """Vectors [B, n, d] -> predictions [B, n, d] of those that follow."""

    def __init__(self, config: ARPriorConfig, positions: int, dim: int) -> None:
        super().__init__()
        width = config.transformer.width
        self.embed = nn.Linear(dim, width)
        self.positions = nn.Parameter(torch.randn(positions, width) * 0.02)
        self.dropout = Dropout(config.embed_dropout)
        self.transformer = Transformer(config.transformer)
        self.head = nn.Linear(width, dim)
        init_weights(self, config.transformer)

    def forward(self, x: Tensor) -> Tensor:
        y = self.embed(x)
        y = self.dropout(y + self.positions[: x.shape[1]].to(y.dtype))
        return self.head(self.transformer(y, causal=True))


@register("loss", ARPriorConfig)
class ARPriorLoss(Loss):
    """Reconstruction -> `prior`, a cross-entropy in nats, and `prior_top1`, the share of codes that
    the first round predicts.

    Without draws, in evaluation, there is the first round alone.
    """

    needs_pixels = needs_images = False

    def __init__(self, config: ARPriorConfig) -> None:
        super().__init__(config)
        self.prior: Prior | None = None
        self._length = 0
        self._quantizer: list[nn.Module] = []  # in a list: it is the tokenizer's

    @property
    def trained(self) -> tuple[str, ...]:  # type: ignore[override]
        return () if self.prior is None else ("prior",)

    def bind(self, tokenizer: nn.Module) -> None:
        spec, layout = tokenizer.spec(), tokenizer.layout
        if not hasattr(tokenizer.quantizer, "codes") or layout.count != spec.length:
            raise ConfigError(
                f"losses: ar_prior predicts one code of a codebook for each token, and quantizer "
                f"{tokenizer.config.quantizer.kind} has none; expected vq or stochastic_vq"
            )
        self._length, self._quantizer = spec.length, [tokenizer.quantizer]
        rows = self.config.positions
        if rows is not None and rows < spec.length - 1:
            raise ConfigError(
                f"losses: ar_prior.positions={rows}, but {spec.length - 1} tokens are read; give "
                "as many or more, or null"
            )
        self.prior = Prior(self.config, spec.length if rows is None else rows, layout.dim)

    def share(self, progress: Progress) -> float:
        """Probability that a position of a later round reads a sample."""
        length = progress.steps * self.config.sampled_ramp
        grown = progress.step / length if length > 0 else 1.0
        return self.config.sampled * min(grown, 1.0)

    def draw(self, index: Tensor, rng: Rng, progress: Progress) -> PartDraws | None:
        """mask [B, L-1]: positions behind the first that read samples; uniform [B, L-1, R-1]: these
        samples, as places among the cumulated shares of codes."""
        rounds, count = self.config.rounds, self._length - 1
        if rounds == 1:
            return None
        mask = rng.child("mask").uniform(index, (count,)) < self.share(progress)
        uniform = rng.child("codes").uniform(index, (count, rounds - 1))
        return PartDraws(mask=mask, uniform=uniform)

    # -- one step -------------------------------------------------------------------------------

    def forward(
        self, reconstruction: Reconstruction, batch: Batch, progress: Progress
    ) -> dict[str, Tensor]:
        draws, quantized = reconstruction.draws, reconstruction.quantized
        own = PartDraws() if draws is None else draws.part(f"loss.{self.key}")
        rounds = self.rounds(quantized.clean, own)
        targets = quantized.indices[:, 1:, 0]
        top1 = (rounds[0].detach().argmax(-1) == targets).float().mean()
        counted = self._counted(rounds)
        wanted = targets.repeat(len(counted), 1)
        loss = F.cross_entropy(torch.cat(counted).flatten(0, 1), wanted.flatten())
        return {"prior": loss, "prior_top1": top1}

    def weights(self, progress: Progress) -> dict[str, float]:
        return {"prior": self.config.weight}

    def _counted(self, rounds: list[Tensor]) -> list[Tensor]:
        """Logits of the rounds that are part of the loss."""
        config = self.config
        return rounds if config.average_rounds and config.gradient == "all" else rounds[-1:]

    def rounds(self, values: Tensor, draws: PartDraws) -> list[Tensor]:
        """values [B, L, d] of codes -> logits [B, L-1, K] of each round.

        Args:
            draws: `mask` with `uniform`, or with `chosen` [B, L-1, R-1], codes instead of places;
                without a mask there is one round.
        """
        total = 1 if draws.mask is None else self.config.rounds
        read, found = values, []
        for i in range(total):
            last = i == total - 1
            if self.config.gradient == "last_round" and not last:
                with torch.no_grad():
                    logits = self.logits(self.predictions(read))
            else:
                logits = self.logits(self.predictions(read))
            found.append(logits)
            if not last:
                read = self.mixed(values, logits.detach(), draws, i)
        return found

    def predictions(self, values: Tensor) -> Tensor:
        """values [B, L, d] -> [B, L, d] fp32: the first vector, then that of each next code as it
        is predicted from those before."""
        predicted = self.prior(values[:, :-1])
        found = torch.cat([values[:, :1].float(), predicted.float()], dim=1)
        return F.normalize(found, dim=-1, eps=NORM_EPS) if self.config.l2_norm else found

    def logits(self, predictions: Tensor) -> Tensor:
        """predictions [B, L, d] -> logits [B, L-1, K] of all codes but the first."""
        with no_autocast(predictions.device):
            codes = self._quantizer[0].codes().detach()
            return predictions[:, 1:] @ codes.T / self.config.temperature

    def mixed(self, values: Tensor, logits: Tensor, draws: PartDraws, number: int) -> Tensor:
        """values [B, L, d] with samples of a round's logits where the mask says so."""
        if draws.chosen is not None:
            indices = draws.chosen[..., number].to(values.device)
        else:
            place = draws.uniform[..., number].to(logits)
            indices = picked(logits.softmax(-1), place)
        sampled = F.embedding(indices, self._quantizer[0].codes().detach()).to(values.dtype)
        mask = draws.mask.to(values.device)[..., None]
        return torch.cat([values[:, :1], torch.where(mask, sampled, values[:, 1:])], dim=1)
