"""Training between frame rates (VFRTok, arXiv 2505.12053): one rate is read, another rebuilt.

Each step draws one rate for all samples of all processes: the batch stays uniform in fps.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor

from vistok.config import Config, ConfigError
from vistok.core.draws import Draws, PartDraws
from vistok.core.records import Batch
from vistok.core.rng import Rng
from vistok.rates import transcoded, transcoded_frames
from vistok.tokenizer import Tokenizer

PART = "frame_rates"


class FrameRatesConfig(Config):
    """Rates to which clips are transcoded: lowest, lowest + step, ... up to their own."""

    lowest: float = Field(default=12.0, gt=0, le=1000)
    """Lowest frames per second."""
    step: float = Field(default=6.0, gt=0, le=1000)
    """Distance of the rates."""
    symmetric: float = Field(default=0.0, ge=0, le=1)
    """Share of steps that read and rebuild one rate, `symmetric_fps`; the others read the low rate
    and rebuild the clip's own, or the other way round."""
    symmetric_fps: float = Field(default=24.0, gt=0, le=1000)
    symmetric_of: tuple[float, ...] | None = None
    """Frame rates of the clips with such steps; null = all above `symmetric_fps`. VFRTok: [30]."""


def check(tokenizer: Tokenizer) -> None:
    """ConfigError for a tokenizer with an encoder or a decoder of a fixed number of frames."""
    for name in ("encoder", "decoder"):
        if getattr(tokenizer, name).any_frames is None:
            raise ConfigError(
                f"task.frame_rates: the {name} takes clips of one number of frames; expected one "
                f"of any number, such as a ViT with {name}.patches.positions=none; change it or "
                "leave frame_rates out"
            )


def draw(index: Tensor, rng: Rng) -> Draws:
    """Three uniform numbers of the step, the same for every sample: [B, 3]."""
    return Draws(parts={PART: PartDraws(uniform=rng.uniform(torch.zeros_like(index), (3,)))})


def low_rates(config: FrameRatesConfig, frames: int, fps: float, patch: int) -> list[float]:
    """The rates that leave at least one patch of frames; the clip's own is the last."""
    count = max(0, int((fps - config.lowest) / config.step + 1e-6) + 1)
    low = [config.lowest + i * config.step for i in range(count)]
    low = [rate for rate in low if rate < fps and transcoded_frames(frames, fps, rate, patch)]
    return [*low, fps]


def between(config: FrameRatesConfig, batch: Batch, draws: Draws, patch: int) -> Batch:
    """The batch with the pixels and the target of this step, or as it is where nothing was drawn;
    ConfigError without a frame rate."""
    uniform = draws.part(PART).uniform
    if uniform is None:
        return batch
    if batch.fps is None or batch.pixels is None or batch.pixels.ndim != 5:
        raise ConfigError("task.frame_rates needs clips with a frame rate; use data of videos")
    fps, frames = float(batch.fps[0]), batch.pixels.shape[2]
    first, second, third = uniform[0].tolist()
    whole = lambda rate: torch.full_like(batch.fps, rate)
    low_ends = low_rates(config, frames, fps, patch)
    some = config.symmetric_of is None or any(abs(fps - one) < 0.5 for one in config.symmetric_of)
    if some and first < config.symmetric and config.symmetric_fps < fps:
        pixels, rate = transcoded(batch.pixels, fps, config.symmetric_fps, patch)
        return replace(batch, pixels=pixels, fps=whole(rate))
    low = low_ends[min(int(second * len(low_ends)), len(low_ends) - 1)]
    pixels, rate = transcoded(batch.pixels, fps, low, patch)
    if third < 0.5:
        return replace(
            batch, pixels=pixels, fps=whole(rate), target=batch.pixels, target_fps=whole(fps)
        )
    return replace(batch, target=pixels, target_fps=whole(rate))
