"""The records that parts hand each other: fields and shapes, no logic.

Letters: B batch, N latents, L token positions, F factors per position, P branches, S blocks,
T frames, H W pixels, D width, d code width, n features of a tap, c their channels.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from vistok.core.draws import Draws
    from vistok.tokens import Tokens


@dataclass(frozen=True)
class Batch:
    """What a loader yields. `index` is the place in the data set's order: the key of all draws."""

    index: Tensor  # [B] int64, always on the CPU
    pixels: Tensor | None = None  # [B, 3, (T,) H, W] 0..1 float (uint8 until it is on the device)
    target: Tensor | None = None  # like pixels: what must be rebuilt, if it is not `pixels`
    label: Tensor | None = None  # [B] int64
    text: tuple[str, ...] | None = None
    fps: Tensor | None = None  # [B]
    tokens: Tokens | None = None
    latents: Tensor | None = None  # cached: [B, N, D] before quantization
    condition: Condition | None = None  # cached features of texts: text, text_mask, pooled


@dataclass(frozen=True)
class Condition:
    """What an encoder, decoder or generator may look at besides its input."""

    label: Tensor | None = None  # [B] int64
    text: Tensor | None = None  # [B, (K,) M, C]; K layers of a language model
    text_mask: Tensor | None = None  # [B, M] bool
    pooled: Tensor | None = None  # [B, C]
    size: tuple[int, int, int] | None = None  # (T, H, W)
    fps: Tensor | None = None  # [B]
    frames: Tensor | None = None  # [B, 3, t, H, W]
    prefix: Tokens | None = None  # what is already known
    null: Tensor | None = None  # [B] bool: these samples see the learned "nothing" (guidance)

    def rows(self, start: int, stop: int) -> Condition:
        """The condition of samples start..stop of the batch."""
        return self.pick(slice(start, stop))

    def pick(self, which: Tensor | slice) -> Condition:
        """The condition of some samples of the batch: their places, or a slice of them."""
        cut = {
            name: value[which]
            for name in ("label", "text", "text_mask", "pooled", "fps", "frames", "null")
            if (value := getattr(self, name)) is not None
        }
        return replace(self, **cut)


@dataclass(frozen=True)
class Latents:
    """What an encoder emits."""

    values: Tensor  # [B, N, D]
    grid: tuple[int, ...]  # (N,) | (h, w) | (t, h, w)
    features: dict[str, Tensor] = field(default_factory=dict)  # tap -> [B, n, c]


@dataclass(frozen=True)
class Quantized:
    """What a quantizer emits. `losses` are unweighted and carry the papers' names."""

    values: Tensor  # [B, N, D] straight-through; what the decoder sees, draws obeyed
    clean: Tensor  # [B, N, D] the same before level dropout and perturbation
    indices: Tensor | None  # [B, L, F] int64 of `clean`; None = continuous
    queries: Tensor | None  # [B, L, P, d] the vector each code was chosen from
    losses: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Decoded:
    """What a decoder emits."""

    prediction: Tensor  # pixels, logits over proxy codes, or velocity
    estimate: Tensor  # clean guess in the decoded space (x0 for flow; else the prediction)
    features: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Reconstruction:
    """One trip through a tokenizer, with everything a loss may want to see."""

    pixels: Tensor | None  # [B, 3, (T,) H, W] unclamped
    target: Tensor
    decoded: Decoded
    quantized: Quantized
    latents: Latents
    draws: Draws | None = None
