"""`lpips-vgg`, `lpips-alex`: LPIPS 0.1 (Zhang et al. 2018, arXiv 1801.03924).

The linear heads lie in the `lpips` package; the trunks are torchvision's ImageNet classifiers.
Inputs in 0..1 are scaled to -1..1 inside.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from vistok.frozen.files import BadWeights, Source, fitted, hollow, read_state
from vistok.frozen.network import PerceptualNetwork
from vistok.storage.weights import sha256

_HOST = "https://download.pytorch.org/models/"
_FILES = {"vgg": "vgg16-397923af.pth", "alex": "alexnet-owt-7be5be79.pth"}


class LPIPS(PerceptualNetwork):
    """Learned distance over five maps of a VGG-16 or an AlexNet."""

    def __init__(self, trunk: Literal["vgg", "alex"], weights: str | Path | None = None) -> None:
        import lpips

        name, file = f"lpips-{trunk}", _FILES[trunk]
        source = Source(name, file, "torchvision (PyTorch)", _HOST + file)
        path = None if hollow() else source.find(weights)
        super().__init__(name, "" if path is None else sha256(path))
        # Built without storage: the trunk's classifier is 470 MB that nobody needs.
        with warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore")  # torchvision: 'pretrained' is deprecated
            network = lpips.LPIPS(net=trunk, pretrained=False, pnet_rand=True, verbose=False)
        if path is not None:
            network.load_state_dict(_state(network, path, trunk, name), assign=True)
        self.network = network
        self.freeze()

    def maps(self, pixels: Tensor) -> list[Tensor]:
        return list(self.network.net(self.network.scaling_layer(2 * pixels - 1)))

    def weigh(self, stage: int, difference: Tensor) -> Tensor:
        return self.network.lins[stage](difference)[:, 0]


def _state(network: torch.nn.Module, path: Path, trunk: str, name: str) -> dict[str, Tensor]:
    """Everything the network holds: torchvision's trunk, the package's heads and constants."""
    import lpips

    heads = Path(lpips.__file__).parent / "weights" / "v0.1" / f"{trunk}.pth"
    state = _trunk_state(network, read_state(path, name), name)
    for key, value in read_state(heads, name).items():
        state[key] = value
        state[key.replace("lin", "lins.", 1)] = value  # the same layers, listed twice
    for key in ("scaling_layer.shift", "scaling_layer.scale"):
        state[key] = network.state_dict()[key]
    return fitted(network.state_dict(), state, name)


def _trunk_state(network: torch.nn.Module, trunk: dict[str, Tensor], name: str) -> dict:
    """torchvision's `features.7.weight` under the keys of the package, `net.slice2.7.weight`."""
    state = {}
    for key in network.net.state_dict():
        theirs = f"features.{key.partition('.')[2]}"
        if theirs not in trunk:
            raise BadWeights(
                f"{name}: the weight file lacks '{theirs}'; expected the state dict of "
                f"torchvision's {_FILES[name.removeprefix('lpips-')]}"
            )
        state[f"net.{key}"] = trunk[theirs]
    return state
