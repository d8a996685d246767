"""Networks of the `transformers` library: `dinov2`, `clip`, `videomae`.

A folder with config.json and model.safetensors (or pytorch_model.bin, read as plain tensors): the
one that was passed, `$VISTOK_WEIGHTS/<folder>`, or for images the library's own download, which
keeps the Hub's cache. torch-fidelity knows DINOv2 and CLIP too, but runs downloaded code to get
them.

Letters: B batch, T frames, H W pixels, D feature width.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vistok.core.errors import InputError
from vistok.frozen.clips import preset
from vistok.frozen.files import FOLDER, BadWeights, MissingWeights, check_loaded, hollow
from vistok.frozen.network import (
    IMAGENET_STATISTICS,
    FeatureNetwork,
    Features,
    VideoNetwork,
)
from vistok.layers.resize import resize
from vistok.storage.weights import sha256

_FILES = ("model.safetensors", "pytorch_model.bin")
CLIP_STATISTICS = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


@dataclass(frozen=True)
class Home:
    """Origin of a network's folder, and the names of its classes in the library."""

    network: str
    repo: str  # on the Hub
    model: str
    config: str
    shape: dict[str, Any]  # of the published network, for building it without weights
    fetched: bool = True

    @property
    def folder(self) -> str:
        return self.repo.rpartition("/")[2]

    def find(self, weights: str | Path | None = None) -> Path:
        """The folder; MissingWeights in one line. An explicit one is never replaced."""
        if weights is not None:
            path = Path(weights)
            path = path.parent if path.is_file() else path
            if self._file(path) is None:
                raise MissingWeights(f"{self.network}: no weights at {path}; {self._advice()}")
            return path
        root = os.environ.get(FOLDER)
        if root and self._file(Path(root) / self.folder) is not None:
            return Path(root) / self.folder
        if not self.fetched:
            raise MissingWeights(f"{self.network}: no weights here; {self._advice()}")
        return self._download()

    def _download(self) -> Path:
        from huggingface_hub import snapshot_download

        for file in _FILES:
            try:
                path = Path(snapshot_download(self.repo, allow_patterns=["config.json", file]))
            except Exception as error:  # offline, not found, no space: the library has many kinds
                reason = " ".join(str(error).split())[:160]
                raise MissingWeights(
                    f"{self.network}: cannot download {self.repo} ({reason}); {self._advice()}"
                ) from None
            if (path / file).is_file():
                return path
        raise MissingWeights(f"{self.network}: {self.repo} has no weights; {self._advice()}")

    @staticmethod
    def _file(path: Path) -> Path | None:
        if not (path / "config.json").is_file():
            return None
        return next((path / name for name in _FILES if (path / name).is_file()), None)

    def _advice(self) -> str:
        return (
            f"fetch config.json and model.safetensors of https://huggingface.co/{self.repo} into "
            f"{self.folder}/ in the folder that the environment variable {FOLDER} names, or pass "
            f"their folder (--weights)"
        )

    def open(self, weights: str | Path | None) -> tuple[torch.nn.Module, str]:
        """The library's module in fp32, and the sha256 of its weight file."""
        library = _library(self.network)
        kind, described = getattr(library, self.model), getattr(library, self.config)
        if hollow():
            return kind(described(**self.shape)), ""
        path = self.find(weights)
        file = self._file(path)
        try:
            with _quiet(library):
                model, report = kind.from_pretrained(
                    path,
                    local_files_only=True,
                    use_safetensors=file.suffix == ".safetensors",
                    trust_remote_code=False,
                    dtype=torch.float32,
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,  # refused below, by name
                )
        except Exception as error:  # the library's readers raise many kinds
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise self._bad(path, lines[0][:200]) from None
        other = [one if isinstance(one, str) else one[0] for one in report["mismatched_keys"]]
        absent = sorted(report["missing_keys"]) + sorted(other)
        if absent:
            raise self._bad(path, f"'{absent[0]}' is absent or of another shape")
        check_loaded(model, [file], self.network)
        return model, sha256(file)

    def _bad(self, path: Path, why: str) -> BadWeights:
        return BadWeights(
            f"{self.network}: {path} does not fit ({why}); expected the files of {self.repo} or "
            f"another {self.model}"
        )


DINOV2 = Home(
    "dinov2",
    "facebook/dinov2-large",
    "Dinov2Model",
    "Dinov2Config",
    {
        **{"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
        **{"image_size": 518, "patch_size": 14},
    },
)
CLIP = Home(
    "clip",
    "openai/clip-vit-base-patch32",
    "CLIPVisionModelWithProjection",
    "CLIPVisionConfig",
    {},  # the library's defaults are this network
)
VIDEOMAE = Home(
    "videomae",
    "MCG-NJU/videomae-base-finetuned-kinetics",
    "VideoMAEModel",
    "VideoMAEConfig",
    {"use_mean_pooling": True},
    fetched=False,
)


class DINOv2(FeatureNetwork):
    """The class token after the last norm (1024 of ViT-L/14), as Stein et al. 2023 take it."""

    side = 224

    def __init__(self, weights: str | Path | None = None) -> None:
        network, digest = DINOV2.open(weights)
        super().__init__(DINOV2.network, digest)
        self.network, self.dim = network, network.config.hidden_size
        self.preprocess = _described("bicubic, antialiased", self.side, "ImageNet")
        self.freeze()

    def look(self, pixels: Tensor) -> Features:
        seen = self.network(pixel_values=_square(pixels, self.side, IMAGENET_STATISTICS))
        return Features(seen.pooler_output)


class CLIPVision(FeatureNetwork):
    """The projected image embedding (512 of ViT-B/32), not normalized."""

    def __init__(self, weights: str | Path | None = None) -> None:
        network, digest = CLIP.open(weights)
        super().__init__(CLIP.network, digest)
        self.network, self.dim = network, network.config.projection_dim
        self.side = network.config.image_size
        self.preprocess = _described("bicubic, antialiased", self.side, "CLIP")
        self.freeze()

    def look(self, pixels: Tensor) -> Features:
        return Features(
            self.network(pixel_values=_square(pixels, self.side, CLIP_STATISTICS)).image_embeds
        )


class VideoMAE(VideoNetwork):
    """Mean over the encoder's last tokens (768 of ViT-B), of clips of exactly its frames (16)."""

    def __init__(self, weights: str | Path | None = None, clips: str = "larp") -> None:
        """clips: the preset of preprocessing, a name of `vistok.frozen.clips.PRESETS`."""
        prepare = preset(clips)
        network, digest = VIDEOMAE.open(weights)
        super().__init__(VIDEOMAE.network, digest)
        self.network, self.prepare, self.dim = network, prepare, network.config.hidden_size
        self.side, self.frames = network.config.image_size, network.config.num_frames
        self.preprocess = f"{clips}; to {self.side}; ImageNet mean and std"
        self.freeze()

    def look(self, clips: Tensor) -> Tensor:
        if clips.shape[2] != self.frames:
            raise InputError(
                f"videomae: clips of {clips.shape[2]} frames; expected exactly {self.frames}"
            )
        frames = _normalized(clips.transpose(1, 2), IMAGENET_STATISTICS)  # [B, T, 3, H, W]
        return self.network(pixel_values=frames).last_hidden_state.mean(1)


def _square(pixels: Tensor, side: int, statistics: tuple) -> Tensor:
    """uint8 [B, 3, H, W] -> normalized [B, 3, side, side]; values between the 256 levels stay."""
    small = resize(pixels.float() / 255, side, "bicubic", antialias=True).clamp(0, 1)
    return _normalized(small, statistics)


def _normalized(pixels: Tensor, statistics: tuple) -> Tensor:
    mean, std = (pixels.new_tensor(values).view(3, 1, 1) for values in statistics)
    return (pixels - mean) / std


def _described(how: str, side: int, statistics: str) -> str:
    return f"{how}, to {side}; {statistics} mean and std"


def _library(network: str) -> Any:
    try:
        import transformers
    except ImportError:
        raise MissingWeights(
            f"{network}: needs the transformers library; pip install 'vistok[features]'"
        ) from None
    return transformers


@contextlib.contextmanager
def _quiet(library: Any):
    """No progress bars and no reports on standard error while a model is read."""
    log = library.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()
