"""Weight files of presets: names under which people have them, and how to get them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from vistok.frozen.files import FOLDER, MissingWeights, Source

_PLAIN = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class PresetFiles:
    """Where a preset's weights may lie; all names hold the same numbers in different layouts."""

    preset: str
    names: tuple[str, ...]  # below $VISTOK_WEIGHTS, the usual one first
    repo: str = ""  # on the Hub, whose model.safetensors is fetched
    source: Source | None = None  # or the file that is fetched into torch's own cache

    def find(self, weights: str | Path | None = None) -> Path:
        """The file: `weights` (a file or its folder), else one of the names in $VISTOK_WEIGHTS,
        else the usual download, which HF_HUB_OFFLINE forbids.

        Raises MissingWeights in one line; an explicit `weights` is never replaced.
        """
        if weights is not None:
            path = Path(weights)
            if path.is_dir():
                known = [Path(name).name for name in self.names]
                inside = [path / name for name in dict.fromkeys((*known, *_PLAIN))]
                path = next((one for one in inside if one.is_file()), path)
            if not path.is_file():
                raise MissingWeights(f"{self.preset}: no weights at {path}; {self._advice()}")
            return path
        folder = os.environ.get(FOLDER)
        for name in self.names if folder else ():
            if (Path(folder) / name).is_file():
                return Path(folder) / name
        if self.source is not None:
            return self.source.find()
        return self._download()

    def _download(self) -> Path:
        from huggingface_hub import hf_hub_download

        try:
            return Path(hf_hub_download(self.repo, _PLAIN[0]))
        except Exception as error:  # offline, not found, no space: the library has many kinds
            reason = " ".join(str(error).split())[:160]
            raise MissingWeights(
                f"{self.preset}: cannot download {self.repo} ({reason}); {self._advice()}"
            ) from None

    def _advice(self) -> str:
        page = f"https://huggingface.co/{self.repo}" if self.repo else self.source.url
        return (
            f"fetch the weights of {page} and put them as {' or '.join(self.names)} into the "
            f"folder that the environment variable {FOLDER} names, or pass their path "
            f"(weights.{self.preset}=FILE)"
        )
