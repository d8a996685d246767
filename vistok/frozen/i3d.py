"""`i3d`: the inflated Inception-v1 (Carreira and Zisserman 2017, arXiv 1705.07750), Kinetics-400.

Read from `i3d_pretrained_400.pt`, the state dict that VideoGPT, TATS and OmniTokenizer use; its
features are the 400 logits, averaged over time. `i3d_torchscript.pt` (StyleGAN-V, LARP) holds the
same network as code, under names of its own, and code of a file is never run. Every convolution
and pooling pads as TensorFlow's SAME does (an odd pixel goes to the end), with zeros.

Letters: B batch, c channels, T frames, H W pixels.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vistok.core.errors import InputError
from vistok.frozen.clips import preset
from vistok.frozen.files import BadWeights, Source, fitted, hollow, read_state
from vistok.frozen.network import VideoNetwork
from vistok.storage.weights import sha256

NAME = "i3d"
SOURCE = Source(
    network=NAME,
    file="i3d_pretrained_400.pt",
    project="VideoGPT",
    url="https://github.com/wilson1yan/VideoGPT",
    fetched=False,
)
MIN_FRAMES = 9  # three halvings, rounded up, must leave the two that the last pooling takes

# Channels: 1x1; reduced and 3x3; reduced and second 3x3 (the "5x5" of the original); after pooling.
_MIXED = {
    "Mixed_3b": (192, (64, 96, 128, 16, 32, 32)),
    "Mixed_3c": (256, (128, 128, 192, 32, 96, 64)),
    "Mixed_4b": (480, (192, 96, 208, 16, 48, 64)),
    "Mixed_4c": (512, (160, 112, 224, 24, 64, 64)),
    "Mixed_4d": (512, (128, 128, 256, 24, 64, 64)),
    "Mixed_4e": (512, (112, 144, 288, 32, 64, 64)),
    "Mixed_4f": (528, (256, 160, 320, 32, 128, 128)),
    "Mixed_5b": (832, (256, 160, 320, 32, 128, 128)),
    "Mixed_5c": (832, (384, 192, 384, 48, 128, 128)),
}


def same_padding(size: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...]):
    """Argument of F.pad for TensorFlow's SAME: ceil(size / stride) positions come out."""
    pad: list[int] = []
    for n, k, s in zip(reversed(size), reversed(kernel), reversed(stride), strict=True):
        total = max((-(-n // s) - 1) * s + k - n, 0)
        pad += [total // 2, total - total // 2]
    return pad


class _Unit(nn.Module):
    """SAME convolution; batch norm and ReLU unless it is the classifier."""

    def __init__(self, inside: int, outside: int, kernel: int, stride: int = 1, last: bool = False):
        super().__init__()
        self.conv3d = nn.Conv3d(inside, outside, kernel, stride, bias=last)
        self.bn = None if last else nn.BatchNorm3d(outside)

    def forward(self, x: Tensor) -> Tensor:
        conv = self.conv3d
        x = conv(F.pad(x, same_padding(x.shape[2:], conv.kernel_size, conv.stride)))
        return x if self.bn is None else F.relu(self.bn(x))


class _Pool(nn.Module):
    """SAME max pooling; its input is never negative, so padding with zeros is neutral."""

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, same_padding(x.shape[2:], self.kernel, self.stride))
        return F.max_pool3d(x, self.kernel, self.stride)


class _Mixed(nn.Module):
    """Four branches side by side; names are those of the file."""

    def __init__(self, inside: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        one, reduced, three, reduced_too, three_too, pooled = widths
        self.b0 = _Unit(inside, one, 1)
        self.b1a, self.b1b = _Unit(inside, reduced, 1), _Unit(reduced, three, 3)
        self.b2a, self.b2b = _Unit(inside, reduced_too, 1), _Unit(reduced_too, three_too, 3)
        self.b3a, self.b3b = _Pool((3, 3, 3), (1, 1, 1)), _Unit(inside, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        branches = (self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x)))
        return torch.cat(branches, 1)


class InceptionI3D(nn.Module):
    """Clips [B, 3, T, H, W] in -1..1 -> logits [B, 400]."""

    def __init__(self, classes: int = 400) -> None:
        super().__init__()
        mixed = lambda name: (name, _Mixed(*_MIXED[name]))
        self.trunk = nn.Sequential()
        for name, part in (
            ("Conv3d_1a_7x7", _Unit(3, 64, 7, 2)),
            ("MaxPool3d_2a_3x3", _Pool((1, 3, 3), (1, 2, 2))),
            ("Conv3d_2b_1x1", _Unit(64, 64, 1)),
            ("Conv3d_2c_3x3", _Unit(64, 192, 3)),
            ("MaxPool3d_3a_3x3", _Pool((1, 3, 3), (1, 2, 2))),
            *map(mixed, ("Mixed_3b", "Mixed_3c")),
            ("MaxPool3d_4a_3x3", _Pool((3, 3, 3), (2, 2, 2))),
            *map(mixed, ("Mixed_4b", "Mixed_4c", "Mixed_4d", "Mixed_4e", "Mixed_4f")),
            ("MaxPool3d_5a_2x2", _Pool((2, 2, 2), (2, 2, 2))),
            *map(mixed, ("Mixed_5b", "Mixed_5c")),
        ):
            self.trunk.add_module(name, part)
        self.logits = _Unit(1024, classes, 1, last=True)

    def forward(self, clips: Tensor) -> Tensor:
        x = F.avg_pool3d(self.trunk(clips), (2, 7, 7), stride=1)
        return self.logits(x)[..., 0, 0].mean(2)


class I3D(VideoNetwork):
    """400 Kinetics logits of clips of 9 frames or more, at 224x224."""

    dim, side = 400, 224

    def __init__(self, weights: str | Path | None = None, clips: str = "larp") -> None:
        """clips: the preset of preprocessing, a name of `vistok.frozen.clips.PRESETS`."""
        prepare = preset(clips)
        path = None if hollow() else SOURCE.find(weights)
        super().__init__(NAME, "" if path is None else sha256(path))
        self.prepare, self.preprocess = prepare, f"{clips}; to {self.side}; 2 x - 1"
        network = InceptionI3D(self.dim)
        if path is not None:
            try:
                state = {_ours(key): value for key, value in read_state(path, NAME).items()}
            except BadWeights as error:
                raise BadWeights(f"{error}; {SOURCE.file} of {SOURCE.project} is one") from None
            network.load_state_dict(fitted(network.state_dict(), state, NAME))
        self.network = network
        self.freeze()

    def look(self, clips: Tensor) -> Tensor:
        if clips.shape[2] < MIN_FRAMES:
            raise InputError(
                f"{NAME}: clips of {clips.shape[2]} frames; expected {MIN_FRAMES} or more"
            )
        return self.network(2 * clips - 1)


def _ours(key: str) -> str:
    """The file's name of a tensor -> ours; it lists the trunk's layers without a common head."""
    return key if key.startswith("logits.") else f"trunk.{key}"
