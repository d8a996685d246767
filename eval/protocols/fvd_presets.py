"""Named conventions of FVD: clips, preprocessing and covariance of programs that publish it.

A preset fixes everything that its number depends on, and is part of a row's setting and name:
numbers of two presets never share a column. `own` takes the clips as the run's data give them.

Square roots differ in form alone: TF-GAN's recipe (LARP, VideoGPT, TATS, OmniTokenizer,
Open-MAGVIT2) takes singular values, StyleGAN-V `sqrtm` of the product. Both stand for the sum of
singular values that `vistok.metrics.frechet` computes, so `root` says which program is meant and
moves no number by more than its rounding.
Sources: LARP@8aaed633, OmniTokenizer@701b6190, SEED-Voken@b9a17eac (Open-MAGVIT2), VideoGPT and
TATS, StyleGAN-V's own program and common_metrics' form of it (`styleganv`); MAGVIT (arXiv
2212.05199) and MAGVIT-v2 (2310.05737), whose code for this is not public: they name TF-GAN's
distance, and the frames and pixels here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from vistok.core.errors import InputError

Clips = Literal["larp", "omnitokenizer", "styleganv", "videogpt"]
PresetName = Literal[
    "own",
    "larp",
    "larp_prediction",
    "magvit",
    "magvit_prediction",
    "omnitokenizer",
    "omnitokenizer_prediction",
    "open_magvit2",
    "styleganv",
    "styleganv_original",
    "tats",
    "videogpt",
]


@dataclass(frozen=True)
class Preset:
    """One convention; None in `frames`, `side`, `stride` or `resized` asks for nothing."""

    clips: Clips  # preprocessing, a name of vistok.frozen.clips.PRESETS
    covariance: Literal["n-1", "n"]  # divisor: unbiased, biased
    root: Literal["svd", "sqrtm"]
    frames: tuple[int, ...] | None = None  # counts that a clip may have
    side: int | None = None  # pixels of a square frame
    stride: int | None = None  # of the file's frames
    rounded: bool = False  # pixels to 8 bits first, as a file holds them
    resized: int | None = None  # pixels of a side to which both sides are brought, antialiased
    known: int | None = None  # first frames that a generator is given; None = none
    real: Literal["", "train", "val"] = ""  # split whose clips published numbers take
    samples: int | None = None  # generated clips behind published numbers

    @property
    def ddof(self) -> int:
        """What is taken from the count in the covariance's divisor."""
        return 1 if self.covariance == "n-1" else 0

    @property
    def setting(self) -> dict[str, Any]:
        """All of it as JSON: what rows carry beside the preset's name."""
        return {**asdict(self), "frames": list(self.frames or ()) or None}

    def prediction(self, **other: Any) -> Preset:
        """The same for clips that a generator continues from their first 5 frames: Kinetics-600,
        50,000 clips of its validation split."""
        return replace(self, known=5, real="val", samples=50_000, **other)


# The program draws a clip's start at random; without augmentation the data begin in the middle.
_LARP = Preset("larp", "n", "svd", (16,), 128, 1, real="train", samples=10_000)
_OMNI = Preset("omnitokenizer", "n-1", "svd", (17,), 256, 1, real="val", samples=2048)
_MAGVIT = Preset("larp", "n-1", "svd", (16, 17), 128, real="train", samples=10_000)
PRESETS: dict[str, Preset] = {
    "own": Preset("larp", "n-1", "svd", rounded=True),
    "larp": _LARP,
    "larp_prediction": _LARP.prediction(resized=64),
    "magvit": _MAGVIT,
    "magvit_prediction": _MAGVIT.prediction(side=64),
    "omnitokenizer": _OMNI,
    "omnitokenizer_prediction": _OMNI.prediction(),
    # The program crops at random even here; the data crop the center.
    "open_magvit2": replace(_OMNI, side=128, samples=None),
    "styleganv": Preset("styleganv", "n-1", "sqrtm", (16,), real="train", samples=2048),
    # Its network is handed 8 bits and resizes by itself.
    "styleganv_original": Preset(
        "larp", "n-1", "sqrtm", (16, 128), rounded=True, real="train", samples=2048
    ),
    "tats": Preset("omnitokenizer", "n-1", "svd", (16,), 128, real="train", samples=2048),
    "videogpt": Preset("videogpt", "n-1", "svd", (16,), real="val", samples=256),
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


def name_of(name: str, clips: str | None) -> str:
    """A preset's name in rows, which names the preprocessing of `own` unless it is its usual
    one."""
    return name if chosen(name, clips) == PRESETS[name] else f"{name}, clips={clips}"


def misfit(
    name: str,
    preset: Preset,
    sides: tuple[int, ...],
    record: Mapping[str, Any],
    known: int | None = None,
) -> str:
    """Why clips of these sides (T, H, W) and this data record are not the preset's; "" if they
    are. One line that says what the preset asks for.

    Args:
        known: first frames that the clips were continued from; None = they were not.
    """
    wrong = []
    if preset.frames is not None and sides[0] not in preset.frames:
        wrong.append(f"{' or '.join(map(str, preset.frames))} frames")
    if preset.side is not None and tuple(sides[1:]) != (preset.side, preset.side):
        wrong.append(f"{preset.side}x{preset.side} pixels")
    stride = record.get("stride")
    if preset.stride is not None and record.get("kind") == "video":
        if stride != preset.stride:
            wrong.append(f"frames at the file's own rate (data.stride={preset.stride})")
    if name != "own" and preset.known != known:
        asked = "no known frames" if preset.known is None else f"{preset.known} known frames"
        wrong.append(f"{asked} (condition.first_frames of the generator)")
    if not wrong:
        return ""
    here = "x".join(map(str, sides)) + (f" at stride {stride}" if stride not in (None, 1) else "")
    here += "" if known is None else f" with {known} known frames"
    return (
        f"preset {name} asks for {', '.join(wrong)}; these clips are {here}: preset=own measures "
        f"them as they are"
    )
