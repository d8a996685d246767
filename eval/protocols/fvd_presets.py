"""Named conventions of FVD: clips, preprocessing and covariance of programs that publish it.

A preset fixes everything that its number depends on, and is part of a row's setting and name:
numbers of two presets never share a column. `own` takes the clips as the run's data give them.

Square roots differ in form alone: TF-GAN's recipe (LARP, VideoGPT, TATS, OmniTokenizer,
Open-MAGVIT2) takes singular values, StyleGAN-V `sqrtm` of the product. Both stand for the sum of
singular values that `vistok.metrics.frechet` computes, so `root` says which program is meant and
moves no number by more than its rounding.
Sources: LARP@8aaed633, OmniTokenizer@701b6190, SEED-Voken@b9a17eac (Open-MAGVIT2), StyleGAN-V as
common_metrics has it; MAGVIT (arXiv 2212.05199) and MAGVIT-v2 (2310.05737), whose code for this is
not public: they name TF-GAN's distance, and the frames and pixels here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from vistok.core.errors import InputError

Clips = Literal["larp", "omnitokenizer", "styleganv"]
PresetName = Literal["own", "larp", "omnitokenizer", "open_magvit2", "styleganv", "magvit"]


@dataclass(frozen=True)
class Preset:
    """One convention; None in `frames`, `side` or `stride` asks for nothing."""

    clips: Clips  # preprocessing, a name of vistok.frozen.clips.PRESETS
    covariance: Literal["n-1", "n"]  # divisor: unbiased, biased
    root: Literal["svd", "sqrtm"]
    frames: tuple[int, ...] | None = None  # counts that a clip may have
    side: int | None = None  # pixels of a square frame
    stride: int | None = None  # of the file's frames
    rounded: bool = False  # pixels to 8 bits first, as a file holds them
    real: Literal["", "train", "val"] = ""  # split whose clips published numbers take

    @property
    def ddof(self) -> int:
        """What is taken from the count in the covariance's divisor."""
        return 1 if self.covariance == "n-1" else 0

    @property
    def setting(self) -> dict[str, Any]:
        """All of it as JSON: what rows carry beside the preset's name."""
        return {**asdict(self), "frames": list(self.frames or ()) or None}


PRESETS: dict[str, Preset] = {
    "own": Preset("larp", "n-1", "svd", rounded=True),
    # The program draws a clip's start at random; without augmentation the data begin in the middle.
    "larp": Preset("larp", "n", "svd", (16,), 128, 1, real="train"),
    "omnitokenizer": Preset("omnitokenizer", "n-1", "svd", (17,), 256, 1, real="val"),
    "open_magvit2": Preset("omnitokenizer", "n-1", "svd", (17,), 128, 1, real="val"),
    "styleganv": Preset("styleganv", "n-1", "sqrtm", (16,), real="train"),
    "magvit": Preset("larp", "n-1", "svd", (16, 17), 128, real="train"),
}


def chosen(name: str, clips: str | None) -> Preset:
    """A preset by its name; `clips`: preprocessing of `own`, which alone leaves it free."""
    found = PRESETS[name]
    if clips is None or clips == found.clips:
        return found
    if name != "own":
        raise InputError(
            f"preset={name} and clips={clips} contradict: it has clips={found.clips}; leave clips "
            f"out, or use preset=own"
        )
    return replace(found, clips=clips)


def misfit(name: str, preset: Preset, sides: tuple[int, ...], record: Mapping[str, Any]) -> str:
    """Why clips of these sides (T, H, W) and this data record are not the preset's; "" if they
    are. One line that says what the preset asks for."""
    wrong = []
    if preset.frames is not None and sides[0] not in preset.frames:
        wrong.append(f"{' or '.join(map(str, preset.frames))} frames")
    if preset.side is not None and tuple(sides[1:]) != (preset.side, preset.side):
        wrong.append(f"{preset.side}x{preset.side} pixels")
    stride = record.get("stride")
    if preset.stride is not None and record.get("kind") == "video":
        if stride != preset.stride:
            wrong.append(f"frames at the file's own rate (data.stride={preset.stride})")
    if not wrong:
        return ""
    here = "x".join(map(str, sides)) + (f" at stride {stride}" if stride not in (None, 1) else "")
    return (
        f"preset {name} asks for {', '.join(wrong)}; these clips are {here}: preset=own measures "
        f"them as they are"
    )
