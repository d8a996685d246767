"""Frozen vision transformers by name: DINO (arXiv 2104.14294) and DINOv2 (arXiv 2304.07193).

Made of vistok's own layers, with the names that `ViTEncoder` gives them (class_token, patch_embed,
positions, transformer), so that the state also starts an encoder. The network works at any image
and patch size: the position table and the patch kernels of the file are resampled when it is read,
as timm does.
Letters: B batch, H W pixels, h w patches, n their number, D width.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.errors import InputError
from vistok.core.shapes import Shape
from vistok.frozen.files import MissingWeights, Source, fitted, hollow, read_state
from vistok.frozen.network import IMAGENET_STATISTICS, VisionFeatures, VisionNetwork
from vistok.frozen.vit_layouts import to_ours
from vistok.layers.mlp import MlpKind
from vistok.layers.patchify import PatchEmbed, PatchesConfig
from vistok.layers.positions import PositionTable
from vistok.layers.resize import resize
from vistok.layers.transformer import Transformer, TransformerConfig
from vistok.storage.weights import content_sha256, sha256

RANDOM = "random"
_DINO = "https://dl.fbaipublicfiles.com/dino"
_DINOV2 = "https://dl.fbaipublicfiles.com/dinov2"


@dataclass(frozen=True)
class Release:
    """A published network: its sizes, and where its weights are."""

    width: int
    depth: int
    heads: int
    patch: int  # pixels of a side, as it was trained
    folder: str  # of the project's server
    stem: str  # of the file's name
    mlp: MlpKind = "gelu"
    mlp_ratio: float = 4.0
    layer_scale: bool = True

    def source(self, network: str) -> Source:
        file = f"{self.stem}_pretrain.pth"
        project = "DINO (Meta)" if self.folder.startswith(_DINO + "/") else "DINOv2 (Meta)"
        return Source(network, file, project, f"{self.folder}/{file}")


def _dino(width: int, heads: int, patch: int, stem: str) -> Release:
    folder = f"{_DINO}/{stem}_pretrain"
    return Release(width, 12, heads, patch, folder, stem, layer_scale=False)


def _dinov2(width: int, depth: int, heads: int, letter: str, **rest: Any) -> Release:
    stem = f"dinov2_vit{letter}14"
    return Release(width, depth, heads, 14, f"{_DINOV2}/{stem}", stem, **rest)


RELEASES = {
    "dino-s16": _dino(384, 6, 16, "dino_deitsmall16"),
    "dino-s8": _dino(384, 6, 8, "dino_deitsmall8"),
    "dino-b16": _dino(768, 12, 16, "dino_vitbase16"),
    "dinov2-s": _dinov2(384, 12, 6, "s"),
    "dinov2-b": _dinov2(768, 12, 12, "b"),
    "dinov2-l": _dinov2(1024, 24, 16, "l"),
    # Two thirds of four times the width, rounded to a multiple of 8: the gate is a third matrix.
    "dinov2-g": _dinov2(1536, 40, 24, "g", mlp="swiglu", mlp_ratio=4096 / 1536),
}
_PLAIN = Release(384, 12, 6, 16, "", "", layer_scale=True)


class FrozenViTConfig(Config):
    """A frozen ViT: whose weights, at which image and patch size."""

    kind: Literal["vit"] = "vit"
    network: Literal[
        "dino-s16", "dino-s8", "dino-b16", "dinov2-s", "dinov2-b", "dinov2-l", "dinov2-g", "vit"
    ] = "dinov2-b"
    """vit is a network of any sizes in a file of the same layouts, which `weights` names."""
    weights: str | None = None
    """A file, or a folder with the official file or model.safetensors; null = $VISTOK_WEIGHTS or
    the usual download. `random` = seeded random numbers, for tests and offline recipes."""
    image_size: int = Field(default=224, ge=1, le=2**14)
    """Side of the square that the network sees; images are resized to it."""
    patch: int | None = Field(default=None, ge=1, le=2**12)
    """Pixels of a patch's side; null = as the network was trained."""
    width: int | None = Field(default=None, ge=2, le=2**14)
    """Width of the network; null = that of the published one."""
    depth: int | None = Field(default=None, ge=1, le=512)
    """Blocks; null = all. Fewer leave the last blocks of the file out."""
    heads: int | None = Field(default=None, ge=1, le=512)
    mlp: MlpKind | None = None
    """null = that of the published network. gelu_tanh is the formula with which VAR's and
    ImageFolder's discriminators run DINO, which was trained with the exact GELU."""
    mlp_ratio: float | None = Field(default=None, gt=0, le=64)
    layer_scale: bool | None = None
    """A gain on each residual branch (DINOv2); null = as the published network."""
    norm_eps: float = Field(default=1e-6, gt=0)
    zero_key_bias: bool = False
    """Set the biases of all keys to zero when the file is read; softmax does not see them, up to
    rounding (VAR's and ImageFolder's discriminators)."""
    resize: Literal["bicubic", "bilinear"] = "bicubic"
    """Interpolation to that square; antialiased where images shrink."""

    @model_validator(mode="after")
    def _fits(self) -> FrozenViTConfig:
        if self.network == "vit" and self.weights is None:
            raise InputError("network=vit needs `weights`: a file, or 'random'")
        if self.image_size % self.shape.patch:
            raise InputError(
                f"image_size={self.image_size} is no multiple of patch={self.shape.patch}; change "
                "one of them: kernels and positions are resampled to any size"
            )
        return self

    @classmethod
    def tiny(cls) -> FrozenViTConfig:
        return cls(
            network="vit",
            weights=RANDOM,
            **{"image_size": 16, "patch": 8, "width": 16, "depth": 2, "heads": 2},
        )

    @property
    def shape(self) -> Release:
        """Sizes of the published network with the changes that this config makes."""
        given = {name: value for name in _SIZES if (value := getattr(self, name)) is not None}
        return replace(RELEASES.get(self.network, _PLAIN), **given)

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the patches."""
        return (self.image_size // self.shape.patch,) * 2


_SIZES = ("width", "depth", "heads", "patch", "mlp", "mlp_ratio", "layer_scale")


@register("vision", FrozenViTConfig)
class FrozenViT(VisionNetwork):
    """Pre-norm ViT with a class token and a learned position table."""

    def __init__(self, config: FrozenViTConfig) -> None:
        """Raises MissingWeights or BadWeights in one line; on the meta device no file is read."""
        shape = config.shape
        path = None
        if not hollow() and config.weights != RANDOM:
            path = _find(config)
        super().__init__(config.network, "" if path is None else sha256(path))
        self.config, self.grid = config, config.grid
        self.dim = self.pooled_dim = shape.width
        self.depth = shape.depth
        self.preprocess = (
            f"{config.resize}, antialiased, to {config.image_size}; ImageNet mean and std"
        )
        patches = PatchesConfig(size=shape.patch, positions="learned", class_token=True)
        inner = TransformerConfig(
            width=shape.width,
            depth=shape.depth,
            heads=shape.heads,
            mlp=shape.mlp,
            mlp_ratio=shape.mlp_ratio,
            norm_eps=config.norm_eps,
            layer_scale=1.0 if shape.layer_scale else None,
        )
        # Without storage: the file's tensors take their places.
        with torch.device("meta"):
            side = (config.image_size, config.image_size)
            self.patch_embed = PatchEmbed(patches, Shape(3, side), shape.width)
            self.class_token = nn.Parameter(torch.zeros(shape.width))
            self.positions = PositionTable("learned", self.grid, shape.width, lead=1)
            self.transformer = Transformer(inner)
        if path is not None:
            self._take(to_ours(read_state(path, self.name), self.state_dict(), config.grid))
        elif not hollow():
            self._take(_random(self.state_dict()))
            self.sha256 = content_sha256(self.state_dict())
        for name, values in zip(("mean", "std"), IMAGENET_STATISTICS, strict=True):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)
        self.freeze()

    def _take(self, state: dict[str, Tensor]) -> None:
        """Hold the tensors of a state in this network's names and sizes."""
        state = fitted(self.state_dict(), state, self.name)
        if self.config.zero_key_bias:
            for key in [name for name in state if name.endswith("attention.qkv.bias")]:
                bias = state[key].clone()
                bias[self.dim : 2 * self.dim] = 0
                state[key] = bias
        self.load_state_dict(state, assign=True)

    def load_official(self, state: dict[str, Tensor]) -> None:
        """Take tensors in an official layout, resampled where they have another size.

        Raises BadWeights for keys or shapes that do not fit.
        """
        device = self.class_token.device
        ours = to_ours(state, self.state_dict(), self.grid)
        self._take({name: tensor.to(device) for name, tensor in ours.items()})
        self.sha256 = content_sha256(self.state_dict())
        self.freeze()

    def seen(self, pixels: Tensor) -> Tensor:
        """Pixels [B, 3, H, W] in 0..1 -> the network's square, normalized."""
        side = self.config.image_size
        return (resize(pixels, side, self.config.resize, antialias=True) - self.mean) / self.std

    def embed(self, x: Tensor) -> Tensor:
        """Normalized images [B, 3, side, side] -> [B, 1 + n, D]: class token and patches, with
        their positions, before the first block."""
        y = self.patch_embed(x)
        token = self.class_token.to(y.dtype).expand(len(y), 1, -1)
        return self.positions(torch.cat([token, y], dim=1))

    def tapped(self, x: Tensor, taps: Collection[int] = ()) -> tuple[Tensor, dict[int, Tensor]]:
        """Normalized images -> (states [B, 1 + n, D] behind the final norm, {block: its states}).

        Args:
            taps: numbers of blocks, the first is 1; 0 = before the first. Differentiable in x.
        """
        y = self.embed(x)
        last, states = self.transformer.tapped(y, taps)
        return last, {0: y, **states} if 0 in taps else states

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels [B, 3, H, W] in 0..1 -> (class feature [B, D], patch features [B, n, D]), both
        behind the final norm; differentiable."""
        states, _ = self.tapped(self.seen(pixels))
        return states[:, 0], states[:, 1:]

    def look(self, pixels: Tensor, depth: int | None = None) -> VisionFeatures:
        """As in `VisionNetwork`; the pooled vector is the class token."""
        self.check_depth(depth)
        last, taps = self.tapped(self.seen(pixels), () if depth is None else (depth,))
        states = last if depth is None else taps[depth]
        return VisionFeatures(states[:, 0], states[:, 1:], self.grid)


def published(config: FrozenViTConfig) -> tuple[dict[str, Tensor], str]:
    """The tensors of a network as `to_ours` takes them, and the sha256 of their file.

    Raises MissingWeights or BadWeights in one line. Random weights have the sizes that the config
    names, and our names.
    """
    if config.weights == RANDOM:
        network = FrozenViT(config)
        state = {name: tensor.detach() for name, tensor in network.state_dict().items()}
        state["positions.table"] = state["positions.table"][None]  # as files have it
        return state, network.sha256
    path = _find(config)
    return read_state(path, config.network), sha256(path)


def _find(config: FrozenViTConfig) -> Path:
    """The weight file of a config; MissingWeights in one line."""
    given = None if config.weights is None else Path(config.weights)
    if given is not None and given.is_dir() and (given / "model.safetensors").is_file():
        given = given / "model.safetensors"
    release = RELEASES.get(config.network)
    if release is not None:
        return release.source(config.network).find(given)
    if not given.is_file():
        raise MissingWeights(
            f"{config.network}: no weights at {given}; expected a .safetensors or .pth file in "
            "the layout of DINO, DINOv2, timm or transformers"
        )
    return given


def _random(expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """Seeded numbers that leave every part of the network at work: norms near 1, matrices scaled by
    their fan-in. The same on every machine and process."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, tensor in expected.items():
        values = torch.randn(tensor.shape, generator=generator)
        if "norm" in name or name.endswith("gamma"):
            values = values * 0.1 + (0.0 if name.endswith("bias") else 1.0)
        elif tensor.ndim > 1 and "table" not in name:
            values = values * tensor[0].numel() ** -0.5
        else:
            values = values * 0.1
        state[name] = values
    return state
