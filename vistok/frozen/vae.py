"""KL autoencoders of images (Rombach et al. 2022, arXiv 2112.10752), as `diffusers` has them.

Borrowed, they are frozen networks known by name and hash: a folder in the library's format, or one
of the Hub. `own` ones are frozen too, but saved with the model: a released FlexTok carries its own
copy. Every constant of the network stands in `VAENetworkConfig`.
Letters: B batch, C latent channels, h w their grid.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from torch import Tensor, nn

from vistok.config import Config, validate
from vistok.config.bounded import read_json
from vistok.core.errors import InputError
from vistok.frozen.files import FOLDER, BadWeights, MissingWeights, fitted, hollow, read_state
from vistok.frozen.network import Frozen
from vistok.storage.hollow import whole
from vistok.storage.weights import sha256

OWN = "own"
FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
_LOGVAR = (-30.0, 20.0)  # bounds of the posterior's log-variance
# Older files name the attention's layers by their first names.
_RENAMED = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
Down = Literal["DownEncoderBlock2D", "AttnDownEncoderBlock2D"]
Up = Literal["UpDecoderBlock2D", "AttnUpDecoderBlock2D"]
Width = Annotated[int, Field(ge=1, le=2**14)]


class VAENetworkConfig(Config):
    """Constants of an AutoencoderKL, under the library's names; the defaults are FlexTok's."""

    latent_channels: int = Field(default=16, ge=1, le=2**12)
    block_out_channels: tuple[Width, ...] = Field(default=(128, 256, 512, 512), min_length=1)
    """Widths of the levels; each but the first halves the sides."""
    layers_per_block: int = Field(default=2, ge=1, le=64)
    norm_num_groups: int = Field(default=32, ge=1, le=2**12)
    norm_eps: float = Field(default=1e-6, gt=0)
    """Of every group norm; the library offers no other."""
    act_fn: Literal["silu", "swish", "mish", "gelu", "relu"] = "silu"
    mid_block_add_attention: bool = True
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    down_block_types: tuple[Down, ...] | None = None
    """Kind of each level of the encoder; null = without attention."""
    up_block_types: tuple[Up, ...] | None = None

    @classmethod
    def tiny(cls) -> VAENetworkConfig:
        return cls(
            latent_channels=4, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4
        )

    @model_validator(mode="after")
    def _agrees(self) -> VAENetworkConfig:
        levels = len(self.block_out_channels)
        for name in ("down_block_types", "up_block_types"):
            kinds = getattr(self, name)
            if kinds is not None and len(kinds) != levels:
                raise InputError(f"{name} names {len(kinds)} levels; expected {levels}")
        if wrong := [c for c in self.block_out_channels if c % self.norm_num_groups]:
            raise InputError(
                f"block_out_channels has {wrong[0]}, no multiple of norm_num_groups="
                f"{self.norm_num_groups}; change one of them"
            )
        return self

    @property
    def factor(self) -> int:
        """Pixels of the side of a latent."""
        return 2 ** (len(self.block_out_channels) - 1)

    def build(self) -> nn.Module:
        """The library's network with these constants."""
        kind, levels = _library(), len(self.block_out_channels)
        arguments = self.model_dump(exclude={"norm_eps"})
        for name, plain in (("down", "DownEncoderBlock2D"), ("up", "UpDecoderBlock2D")):
            chosen = arguments[f"{name}_block_types"]
            arguments[f"{name}_block_types"] = tuple(chosen or (plain,) * levels)
        network = kind(in_channels=3, out_channels=3, sample_size=32, **arguments)
        for module in network.modules():
            if isinstance(module, nn.GroupNorm):
                module.eps = self.norm_eps
        return network


@dataclass(frozen=True)
class Posterior:
    """Distribution of the latents of images: normal, one mean and variance each."""

    mean: Tensor  # [B, C, h, w], not scaled
    logvar: Tensor  # [B, C, h, w], clamped to -30..20

    def sample(self, noise: Tensor) -> Tensor:
        """mean + std noise, with standard normal noise [B, C, h, w]."""
        return self.mean + (0.5 * self.logvar).exp() * noise.to(self.mean)

    def kl(self) -> Tensor:
        """[B] divergence from the standard normal distribution, summed over each sample."""
        terms = self.mean.square() + self.logvar.exp() - 1.0 - self.logvar
        return 0.5 * terms.flatten(1).sum(1)


class Coder:
    """Encoding and decoding with `network`; see the two modules below."""

    network: nn.Module

    def posterior(self, x: Tensor) -> Posterior:
        """Images [B, 3, H, W] in -1..1 -> the posterior of their latents."""
        moments = self.network.encoder(x)
        if self.network.quant_conv is not None:
            moments = self.network.quant_conv(moments)
        mean, logvar = moments.chunk(2, dim=1)
        return Posterior(mean, logvar.clamp(*_LOGVAR))

    def decode(self, z: Tensor) -> Tensor:
        """Latents [B, C, h, w], not scaled -> images [B, 3, H, W] around -1..1."""
        if self.network.post_quant_conv is not None:
            z = self.network.post_quant_conv(z)
        return self.network.decoder(z)


class BorrowedVAE(Coder, Frozen):
    """A VAE by name; no part of the saved model."""

    scaling_factor: float | None = None
    """As its own config gives it."""
    shift_factor: float = 0.0

    def __init__(self, weights: str, config: VAENetworkConfig) -> None:
        if hollow():
            super().__init__(f"vae {weights}", "")
            self.network, self.scaling_factor = config.build(), 1.0
            self.freeze()
            return
        folder = find(weights)
        file = _file(folder)
        described = _described(folder)
        _check(weights, folder, described, config)
        state = {_renamed(key): value for key, value in read_state(file, f"vae {weights}").items()}
        with whole():
            network = config.build()
        own = network.state_dict()
        # Older files keep the attention's matrices as 1x1 convolutions.
        state = {
            k: v.reshape(own[k].shape) if k in own and v.numel() == own[k].numel() else v
            for k, v in state.items()
        }
        network.load_state_dict(fitted(own, state, f"vae {weights}"))
        super().__init__(f"vae {folder.name}", sha256(file))
        self.network = network
        self.scaling_factor = described.get("scaling_factor") or 0.18215  # the library's default
        self.shift_factor = described.get("shift_factor") or 0.0
        self.freeze()


class OwnVAE(Coder, nn.Module):
    """A VAE whose weights are saved with the model around it; it never trains."""

    def __init__(self, config: Any) -> None:
        """
        Args:
            config: constants of a network, which it builds.
        """
        super().__init__()
        self.network = config.build().requires_grad_(False).eval()

    def train(self, mode: bool = True) -> OwnVAE:
        """Stays in evaluation mode, whatever the module around it does."""
        return super().train(False)


def find(weights: str) -> Path:
    """The folder of a VAE: a path, `$VISTOK_WEIGHTS/<last name>`, or a repository of the Hub.

    MissingWeights in one line if there is none.
    """
    root = os.environ.get(FOLDER)
    last = weights.rstrip("/").rpartition("/")[2]
    for path in (Path(weights), *([Path(root) / last] if root else [])):
        for folder in (path, path / "vae"):
            if (folder / "config.json").is_file() and _file(folder) is not None:
                return folder
    if Path(weights).exists() or weights.count("/") != 1 or weights.startswith((".", "/", "~")):
        raise MissingWeights(f"vae {weights}: {_advice(weights)}")
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(weights, allow_patterns=["config.json", FILES[0]]))
    except Exception as error:  # offline, not found, no space: the library has many kinds
        reason = " ".join(str(error).split())[:160]
        raise MissingWeights(
            f"vae {weights}: cannot download it ({reason}); {_advice(weights)}"
        ) from None
    if _file(folder) is None:
        raise MissingWeights(f"vae {weights}: the repository has no {FILES[0]}; {_advice(weights)}")
    return folder


def network_config(described: Mapping[str, Any], source: str) -> VAENetworkConfig:
    """Constants in a config.json of the library; BadWeights for another class."""
    kind = described.get("_class_name")
    if kind != "AutoencoderKL":
        raise BadWeights(f"{source}: _class_name={kind!r}; expected AutoencoderKL")
    fields = set(VAENetworkConfig.model_fields) - {"norm_eps"}
    given = {name: described[name] for name in fields if name in described}
    # What the library takes where a config of it says nothing.
    missing = {"latent_channels": 4, "block_out_channels": (64,), "layers_per_block": 1}
    found = validate(VAENetworkConfig, {**missing, **given}, source)
    plain = {"down_block_types": "DownEncoderBlock2D", "up_block_types": "UpDecoderBlock2D"}
    same = {name: None for name, kind in plain.items() if set(getattr(found, name) or ()) <= {kind}}
    return found.model_copy(update=same)


def _check(name: str, folder: Path, described: Mapping[str, Any], config: VAENetworkConfig) -> None:
    """BadWeights unless the folder's constants are those of the config."""
    found = network_config(described, str(folder / "config.json"))
    for field in VAENetworkConfig.model_fields:
        ours, theirs = getattr(config, field), getattr(found, field)
        if ours != theirs and field != "norm_eps":
            raise BadWeights(
                f"vae {name}: its config.json has {field}={theirs}; this model's config says "
                f"{ours}: set network.{field}, or use other weights"
            )


def _described(folder: Path) -> dict[str, Any]:
    described = read_json(folder / "config.json")
    if not isinstance(described, dict):
        raise BadWeights(f"{folder / 'config.json'}: expected a mapping")
    return described


def _file(folder: Path) -> Path | None:
    return next((folder / name for name in FILES if (folder / name).is_file()), None)


def _renamed(key: str) -> str:
    return ".".join(_RENAMED.get(p, p) for p in key.split(".")) if ".attentions." in key else key


def _advice(weights: str) -> str:
    return (
        f"expected a folder with config.json and {FILES[0]}: fetch those of the repository, pass "
        f"their folder, or put it into the folder that the environment variable {FOLDER} names"
    )


def _library() -> Any:
    try:
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    except ImportError:
        raise MissingWeights(
            "vae: needs the diffusers library; pip install 'vistok[vae]'"
        ) from None
    return AutoencoderKL
