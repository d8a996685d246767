"""Base of frozen networks: parameters without gradient, evaluation mode for good.

Letters: B batch, T frames, H W pixels, c channels, h w positions of a map, D feature width,
S spatial feature width, C classes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from vistok.core.errors import InputError

IMAGENET_STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean, std


@dataclass(frozen=True)
class Features:
    """Everything that one look at images gives, float32; None: this network has no such thing."""

    pool: Tensor  # [B, D] Fréchet distance, KID, precision and recall
    spatial: Tensor | None = None  # [B, S] a map, flattened: sFID
    logits: Tensor | None = None  # [B, C] Inception Score
    maps: list[Tensor] | None = (
        None  # what `PerceptualNetwork.between` compares, of the same weights
    )


class Frozen(nn.Module):
    """A network that is only looked through; `name` and `sha256` of its weights identify it."""

    name: str
    sha256: str
    preprocess: str = ""  # what it does to pixels first; part of every number made with it
    recorded: bool = False  # a loss's: its hash stands in the run's record

    def __init__(self, name: str, sha256: str) -> None:
        super().__init__()
        self.name, self.sha256 = name, sha256
        self._register_load_state_dict_pre_hook(self._keep_own)

    def freeze(self) -> Frozen:
        """Called once all parts are there."""
        self.requires_grad_(False)
        return self.eval()

    def train(self, mode: bool = True) -> Frozen:
        """Stays in evaluation mode, whatever the module around it does."""
        return super().train(False)

    def state_dict(self, *args: Any, destination: Any = None, **options: Any) -> Any:
        """Nothing, if a module around it asks: borrowed weights are saved by name and hash."""
        if destination is not None:
            return destination
        return super().state_dict(*args, **options)

    def _keep_own(self, state: dict[str, torch.Tensor], prefix: str, *_: Any) -> None:
        """Loading a module around it, whose files hold nothing of it, leaves it as it is."""
        if prefix and not any(key.startswith(prefix) for key in state):
            state.update({prefix + key: value for key, value in self.state_dict().items()})

    def __deepcopy__(self, memo: dict[int, Any]) -> Frozen:
        """Itself: an average of weights, or another copy of a model, shares what never changes."""
        memo[id(self)] = self
        return self


def share_frozen(*modules: nn.Module) -> None:
    """Let frozen networks of one class, name and hash be one module, where several parts borrow
    it. One that wraps another has the other's name and hash."""
    known: dict[tuple[type, str, str], Frozen] = {}
    for module in modules:
        for name, part in list(module.named_modules()):
            if isinstance(part, Frozen):
                first = known.setdefault((type(part), part.name, part.sha256), part)
                if first is not part and name:
                    module.set_submodule(name, first)


class FeatureNetwork(Frozen):
    """Images -> one vector each, for Fréchet distances and the like."""

    dim: int
    spatial_dim: int | None = None
    classes: int | None = None
    measures: frozenset[str] = frozenset({"fid", "kid", "prdc"})
    """Measures of sets of images that are defined on these features: fid (Fréchet distances), kid,
    prdc (precision, recall, density, coverage), cmmd."""

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels [B, 3, H, W] uint8 -> features [B, D] float32, no gradient; see `features`."""
        return self.features(pixels).pool

    def features(self, pixels: Tensor) -> Features:
        """The same with the spatial features and logits of those networks that have them.

        fp32 throughout, whatever the autocast state; TF32 off. Raises ValueError for anything that
        is not uint8, since features of unrounded pixels are not comparable with published ones.
        """
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] != 3:
            raise InputError(
                f"{self.name}: pixels are {tuple(pixels.shape)} {pixels.dtype}; expected "
                f"uint8 [B, 3, H, W] (round with `(x * 255).round().clamp(0, 255).byte()`)"
            )
        with _plainly(pixels):
            seen = self.look(pixels)
        single = lambda tensor: None if tensor is None else tensor.float()
        return replace(
            seen, **{name: single(getattr(seen, name)) for name in ("pool", "spatial", "logits")}
        )

    def look(self, pixels: Tensor) -> Features:
        """The network itself: checked uint8 pixels -> features of any float type."""
        raise NotImplementedError


@dataclass(frozen=True)
class VisionFeatures:
    """Features of images that a tokenizer is aligned with."""

    pooled: Tensor  # [B, P] one vector per image
    patches: Tensor  # [B, h*w, D] one per cell of a grid, row-major
    grid: tuple[int, int]  # (h, w)


class VisionNetwork(Frozen):
    """Images -> a pooled vector and patch features, at a chosen depth."""

    recorded = True
    dim: int  # D of the patches
    pooled_dim: int  # P
    depth: int  # blocks, or stages

    def look(self, pixels: Tensor, depth: int | None = None) -> VisionFeatures:
        """Pixels [B, 3, H, W] in 0..1 -> features, differentiable.

        Args:
            depth: number of the block whose raw states are taken, the first is 1; None = the
                network's output behind its last norm. ValueError for one that it has not.
        """
        raise NotImplementedError

    def sizes(self, depth: int | None = None) -> tuple[int, int]:
        """(D of the patches, P of the pooled vector) at a depth."""
        self.check_depth(depth)
        return self.dim, self.pooled_dim

    def check_depth(self, depth: int | None) -> None:
        """ValueError unless there is a block of that number."""
        if depth is not None and not 1 <= depth <= self.depth:
            raise InputError(f"{self.name}: depth={depth}; expected 1..{self.depth}, or null")


class VideoNetwork(Frozen):
    """Clips -> one vector each, for Fréchet video distances.

    How frames become the network's square is a named preset of `vistok.frozen.clips`, since the
    programs in use differ there.
    """

    media = "video"
    dim: int
    side: int  # of the square that the network sees
    prepare: Callable[[Tensor, int], Tensor]

    def forward(self, clips: Tensor) -> Tensor:
        """clips [B, 3, T, H, W], uint8 or float in 0..1 -> features [B, D] float32, no gradient.

        fp32 throughout, TF32 off. Raises ValueError for other shapes and ranges.
        """
        if clips.ndim != 5 or clips.shape[1] != 3 or clips.numel() == 0:
            raise InputError(
                f"{self.name}: clips are {tuple(clips.shape)}; expected [B, 3, T, H, W]"
            )
        if clips.dtype == torch.uint8:
            clips = clips.float() / 255
        elif not clips.is_floating_point():
            raise InputError(f"{self.name}: clips are {clips.dtype}; expected uint8 or 0..1 float")
        low, high = float(clips.min()), float(clips.max())
        if not (low >= -1e-3 and high <= 1 + 1e-3):
            raise InputError(
                f"{self.name}: clips have values from {low:.4g} to {high:.4g}; expected 0..1 "
                f"(clamp reconstructions)"
            )
        with _plainly(clips):
            return self.look(self.prepare(clips.float(), self.side)).float()

    def look(self, clips: Tensor) -> Tensor:
        """The network itself: clips [B, 3, T, side, side] in 0..1 -> [B, D]."""
        raise NotImplementedError


class PerceptualNetwork(Frozen):
    """Two batches of images -> one distance each, differentiable in the first."""

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """pred, target [B, 3, H, W] in 0..1 -> distance [B] float32; gradients flow to `pred`."""
        self.check(pred, target)
        return self.compare(pred, target)

    def check(self, pred: Tensor, target: Tensor) -> None:
        """ValueError unless both are images of one shape."""
        if pred.shape != target.shape or pred.ndim != 4 or pred.shape[1] != 3:
            raise InputError(
                f"{self.name}: pred is {tuple(pred.shape)}, target {tuple(target.shape)}; "
                f"expected two equal shapes [B, 3, H, W]"
            )
        if not (pred.is_floating_point() and target.is_floating_point()):
            raise InputError(
                f"{self.name}: pred is {pred.dtype}, target {target.dtype}; expected float in 0..1"
            )

    def compare(self, pred: Tensor, target: Tensor) -> Tensor:
        """Checked images -> [B]."""
        with torch.no_grad():
            seen = self.maps(target)
        return self.between(self.maps(pred), seen)

    def between(self, pred: list[Tensor], target: list[Tensor]) -> Tensor:
        """`maps` of both sides -> distance [B], LPIPS's way: weighed squares between unit vectors.
        Whoever compares with one side several times looks at it once."""
        distance = pred[0].new_zeros(len(pred[0]), dtype=torch.float32)
        for stage, (a, b) in enumerate(zip(pred, target, strict=True)):
            # The maps may be bf16 under autocast; differences of unit vectors need fp32.
            difference = (unit(a.float()) - unit(b.float())) ** 2
            distance = distance + self.weigh(stage, difference).mean((1, 2))
        return distance

    def maps(self, pixels: Tensor) -> list[Tensor]:
        """Pixels in 0..1 -> maps [B, c, h, w], fine first, or whatever `between` compares."""
        raise NotImplementedError

    def weigh(self, stage: int, difference: Tensor) -> Tensor:
        """Squared differences [B, c, h, w] of a stage -> [B, h, w]."""
        raise NotImplementedError


def unit(maps: Tensor) -> Tensor:
    """Each position's vector over the length of it: x / (|x| + 1e-10), zero for a zero vector.

    The floor under the root leaves values alone and keeps the gradient of a zero vector finite.
    """
    length = (maps**2).sum(1, keepdim=True).clamp_min(1e-20).sqrt()
    return maps / (length + 1e-10)


@contextlib.contextmanager
def _plainly(pixels: Tensor) -> Iterator[None]:
    """No gradient and fp32 throughout, whatever the autocast state."""
    with torch.no_grad(), torch.autocast(pixels.device.type, enabled=False):
        with exact_convolutions(pixels.is_cuda), exact_products(pixels.is_cuda):
            yield


@contextlib.contextmanager
def exact_convolutions(cuda: bool) -> Iterator[None]:
    """TF32 off inside: its 10-bit products move a feature by about 1e-3."""
    if not cuda:
        yield
        return
    convolution = torch.backends.cudnn.conv
    before = convolution.fp32_precision
    convolution.fp32_precision = "ieee"
    try:
        yield
    finally:
        convolution.fp32_precision = before


@contextlib.contextmanager
def exact_products(cuda: bool) -> Iterator[None]:
    """The same for matrix products, of which transformers are made."""
    if not cuda:
        yield
        return
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.allow_tf32 = False  # the old name of the setting, which kernels still read, and the new
    try:
        yield
    finally:
        matmul.allow_tf32 = before == "tf32"
        matmul.fp32_precision = before
