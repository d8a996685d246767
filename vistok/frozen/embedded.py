"""`vistok-cnn`, the network that is shipped with vistok: its weight file and its two uses.

The file holds fp16 (the rounding moves test accuracy by less than 0.1 %) and the network's config
as JSON in the header. Numbers made with it are never Inception or LPIPS numbers: the
perceptual one is called the "perceptual distance of vistok-cnn".
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from vistok.config import validate
from vistok.config.bounded import parse_json
from vistok.core.errors import InputError
from vistok.frozen.cnn import WEIGHTS, CNNConfig, ResNet9
from vistok.frozen.files import BadWeights, MissingWeights, fitted, hollow, read_state
from vistok.frozen.network import FeatureNetwork, Features, PerceptualNetwork
from vistok.storage.files import write_bytes
from vistok.storage.weights import sha256

NAME = "vistok-cnn"


def save_weights(module: ResNet9, path: str | Path = WEIGHTS) -> str:
    """Write parameters and batch-norm statistics as fp16 safetensors; returns the file's sha256.

    Raises BadWeights for values that fp16 cannot hold. The file is renamed into place, so readers
    see the old one or the new one.
    """
    state = {}
    for key, value in module.state_dict().items():
        half = value.detach().cpu().half() if value.is_floating_point() else value.cpu()
        if not torch.isfinite(half).all():
            raise BadWeights(f"{NAME}: '{key}' has values beyond fp16 (65504) or not finite")
        state[key] = half.contiguous()
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"format": NAME, "config": module.config.model_dump_json()}
    write_bytes(path, save(state, header))
    return sha256(path)


def load_weights(path: str | Path | None = None) -> tuple[ResNet9, str]:
    """The network in fp32 and the sha256 of its file (None: the one inside the package)."""
    path = WEIGHTS if path is None else Path(path)
    if hollow() and not path.is_file():
        return ResNet9(), ""
    if not path.is_file():
        raise MissingWeights(f"{NAME}: no weights at {path}; `vistok train feature_net` makes it")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
    except SafetensorError as error:
        raise BadWeights(
            f"{NAME}: {path} is not a safetensors file ({error}); expected one that "
            f"`vistok train feature_net` made"
        ) from None
    if header.get("format") != NAME or "config" not in header:
        raise BadWeights(
            f"{NAME}: {path} has format={header.get('format')!r}; expected '{NAME}' and a config, "
            f"as `vistok train feature_net` writes them"
        )
    try:
        described = parse_json(header["config"], f"{NAME}: the config in {path}")
    except InputError as error:
        raise BadWeights(str(error)) from None
    module = ResNet9(validate(CNNConfig, described, source=str(path)))
    if hollow():
        return module, ""
    module.load_state_dict(fitted(module.state_dict(), read_state(path, NAME), NAME))
    return module, sha256(path)


class EmbeddedFeatures(FeatureNetwork):
    """Pooled features of the last two stages, 320 wide, and the logits of CIFAR-10's classes."""

    preprocess = "bilinear, antialiased, to 32; CIFAR-10 mean and std"

    def __init__(self, weights: str | Path | None = None) -> None:
        network, digest = load_weights(weights)
        super().__init__(NAME, digest)
        self.network, self.dim = network, network.dim
        self.classes = network.config.classes
        self.freeze()

    def look(self, pixels: Tensor) -> Features:
        maps, pool = self.network.features(pixels.float() / 255)
        return Features(pool, logits=self.network.head(pool), maps=maps)


class EmbeddedDistance(PerceptualNetwork):
    """Perceptual distance of vistok-cnn: unit-normalized maps, squared difference summed over
    channels, mean over positions and over the four stages. No learned weights; 0 to 2.
    """

    def __init__(self, weights: str | Path | None = None) -> None:
        network, digest = load_weights(weights)
        super().__init__(NAME, digest)
        self.network = network
        self.freeze()

    def maps(self, pixels: Tensor) -> list[Tensor]:
        return self.network.features(pixels)[0]

    def weigh(self, stage: int, difference: Tensor) -> Tensor:
        return difference.sum(1) / len(self.network.stages)
