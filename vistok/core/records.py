"""The records that parts hand each other: fields and shapes.

Letters: B batch, N latents, M values, L token positions, F factors per position, P branches,
S blocks, T frames, H W pixels, D width, d code width, n features of a tap, c their channels.
*sides is H, W of images and T, H, W of clips.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from vistok.core.draws import Draws
from vistok.core.selection import Record
from vistok.core.shapes import Grid

if TYPE_CHECKING:
    from vistok.tokens import Tokens


@dataclass(frozen=True)
class Batch(Record):
    """Samples of a data loader. `index` is the place in the data set's order: the key of draws."""

    index: Tensor  # [B] int64, always on the CPU
    pixels: Tensor | None = None  # [B, 3, *sides] 0..1 float (uint8 until it is on the device)
    target: Tensor | None = None  # like pixels: what must be rebuilt, if it is not `pixels`
    label: Tensor | None = None  # [B] int64
    text: tuple[str, ...] | None = None
    fps: Tensor | None = None  # [B] frames per second
    target_fps: Tensor | None = None  # [B] of the target, if it is not `fps`
    tokens: Tokens | None = None
    prefix: Tokens | None = None  # cached: of the first frames, see Condition.prefix
    latents: Tensor | None = None  # cached: [B, N, D] before quantization
    space: Tensor | None = None  # cached: [B, C, *sides] of the input space
    condition: Condition | None = None  # cached features of texts: text, text_mask, pooled


@dataclass(frozen=True)
class Condition(Record):
    """Inputs of an encoder, decoder or generator besides the main one."""

    label: Tensor | None = None  # [B] int64
    text: Tensor | None = None  # [B, (K,) M, C]; K layers of a language model
    text_mask: Tensor | None = None  # [B, M] bool
    pooled: Tensor | None = None  # [B, C]
    score: Tensor | None = None  # [B] of each sample, such as its aesthetics
    sides: Grid | None = None  # (H, W) or (T, H, W) that is asked for
    fps: Tensor | None = None  # [B] frames per second
    frames: Tensor | None = None  # [B, 3, t, H, W] that are known; a decoder: [B, C, t, h, w]
    given: Tensor | None = None  # [B] int64: first time steps that a decoder is given of a clip
    prefix: Tokens | None = None  # whole sequences of known first frames, which a clip continues
    known: Tokens | None = None  # codes that a generator takes over instead of its samples ...
    known_mask: Tensor | None = None  # [B, L] bool: ... at these positions
    null: Tensor | None = None  # [B] bool: these samples see the learned "nothing" (guidance)


@dataclass(frozen=True)
class Latents(Record):
    """Output of an encoder."""

    values: Tensor  # [B, N, D]
    grids: tuple[Grid, ...]  # ((N,),) | ((h, w),) | ((t, h, w),) | one for each of several
    features: dict[str, Tensor] = field(default_factory=dict)  # tap -> [B, n, c]
    counts: Tensor | None = None  # [B] int64: latents that a sample has, the first so many


@dataclass(frozen=True)
class Quantized(Record):
    """Output of a quantizer. `losses` are unweighted and carry the papers' names."""

    values: Tensor  # [B, M, D'] straight-through; the decoder's input, draws obeyed
    clean: Tensor  # [B, M, D'] the same before level dropout and perturbation
    indices: Tensor | None  # [B, L, F] int64 of `clean`; None = continuous
    queries: Tensor | None  # [B, L, P, d] the vector that each code was searched for
    losses: dict[str, Tensor] = field(default_factory=dict)  # scalars


@dataclass(frozen=True)
class Noisy(Record):
    """Input of a decoder that samples: x at a time between data (0) and noise (1)."""

    x: Tensor  # [B, C, *sides] of the output space
    time: Tensor  # [B] in 0..1
    given: Tensor | None = None  # [B] int64: first frames of x that are not to be predicted


@dataclass(frozen=True)
class Decoded(Record):
    """Output of a decoder, in the output space."""

    prediction: Tensor  # pixels, logits over proxy codes, or velocity
    estimate: Tensor  # clean guess in the output space (x0 of a flow; else the prediction)
    features: dict[str, Tensor] = field(default_factory=dict)  # tap -> [B, n, c]


@dataclass(frozen=True)
class Reconstruction(Record):
    """One pass through a tokenizer, with everything that a loss may look at."""

    pixels: Tensor | None  # [B, 3, *sides] around 0..1, unclamped; None: no loss asked for them
    target: Tensor  # [B, 3, *sides] in 0..1
    decoded: Decoded
    quantized: Quantized
    latents: Latents
    draws: Draws | None = None
    target_in_space: Tensor | None = None  # [B, C, *sides] of the output space, if it was computed
    noisy: Noisy | None = None  # input of a decoder that samples
