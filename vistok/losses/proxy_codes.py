"""Cross-entropy against the codes that a frozen tokenizer gives to the same image.

TiTok's first stage (arXiv 2406.07550): the decoder predicts logits over the codes of a 2D
tokenizer, its teacher, and sees no pixel loss at all.
Letters: B batch, h w the teacher's grid, K its codes.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from vistok.config import ConfigError
from vistok.config.registry import register
from vistok.core.errors import InputError
from vistok.core.records import Batch, Reconstruction
from vistok.core.schedules import Progress
from vistok.frozen.network import Frozen, exact_convolutions
from vistok.losses.base import Loss, LossConfig
from vistok.runtime.precision import no_autocast


class ProxyCodesConfig(LossConfig):
    kind: Literal["proxy_codes"] = "proxy_codes"
    teacher: str = "maskgit-vqgan"
    """The frozen tokenizer: a saved folder, a run, or the name of a released one."""
    weight: float = Field(default=1.0, ge=0)
    """Weight of the cross-entropy."""


class Teacher(Frozen):
    """The half of a tokenizer that gives codes; its decoder is let go."""

    def __init__(self, tokenizer: nn.Module, sha256: str) -> None:
        super().__init__("teacher", sha256)
        self.input_space, self.encoder = tokenizer.input_space, tokenizer.encoder
        self.quantizer = tokenizer.quantizer
        self.image_size = tokenizer.shape.image_size
        self.spec = tokenizer.spec()
        self.float().freeze()

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        """pixels [B, 3, H, W] in 0..1 -> codes [B, h*w] int64.

        In fp32 whatever the autocast state: coarser numbers turn close decisions over.
        """
        with no_autocast(pixels.device):
            with exact_convolutions(pixels.is_cuda):
                latents = self.encoder(self.input_space(pixels.float()))
                return self.quantizer(latents).indices[..., 0]


@register("loss", ProxyCodesConfig)
class ProxyCodesLoss(Loss):
    """Reads `decoded.prediction`, logits [B, K, h, w]; its teacher is handed in by `teach`."""

    needs_pixels = False

    def __init__(self, config: ProxyCodesConfig) -> None:
        super().__init__(config)
        self.wants_teacher = config.teacher
        self.teacher: Teacher | None = None

    def teach(self, tokenizer: nn.Module, sha256: str) -> None:
        spec, name = tokenizer.spec(), self.config.teacher
        if len(spec.vocab) != 1:
            what = f"has the vocabulary {spec.vocab}" if spec.vocab else "has no codes"
            raise ConfigError(
                f"losses: teacher {name} {what}; expected a tokenizer of one code per position"
            )
        self.teacher = Teacher(tokenizer, sha256)

    def bind(self, tokenizer: nn.Module) -> None:
        if self.teacher is None:
            raise ConfigError(
                f"losses: proxy_codes has not been given its teacher {self.config.teacher}; "
                "call teach(tokenizer, sha256) before bind"
            )
        if tokenizer.shape.is_clip:
            raise ConfigError(
                "losses: proxy_codes compares images, but this tokenizer rebuilds clips; remove it"
            )
        size = tokenizer.shape.image_size
        if size != self.teacher.image_size:
            raise ConfigError(
                f"losses: teacher {self.config.teacher} reads images of "
                f"{self.teacher.image_size}, this tokenizer rebuilds {size}; use one size for both"
            )

    def forward(
        self, reconstruction: Reconstruction, batch: Batch, progress: Progress
    ) -> dict[str, Tensor]:
        logits, spec = reconstruction.decoded.prediction, self.teacher.spec
        if logits.shape[1] != spec.vocab[0] or logits[0, 0].numel() != spec.length:
            raise InputError(
                f"proxy_codes: the decoder gives {tuple(logits.shape)}, its teacher has "
                f"{spec.vocab[0]} codes at {spec.length} positions; expected logits [B, K, h, w]"
            )
        codes = self.teacher(reconstruction.target)
        return {"proxy_codes": F.cross_entropy(logits.float().flatten(2), codes)}

    def weights(self, progress: Progress) -> dict[str, float]:
        return {"proxy_codes": self.config.weight}
