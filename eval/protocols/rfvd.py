"""rFVD: Fréchet distance between features of whole clips, reconstructed and real.

Published FVDs use I3D (rfvd.features=i3d rfvd.weights=FILE), each program with conventions of its
own: rfvd.preset=larp (`fvd_presets`). Without weights of a video network the embedded image network
looks at the frames, or at the changes between them, and the number is named after that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import field_validator
from torch import Tensor

from vistok.data.batch import to_uint8
from vistok.eval.context import Context
from vistok.eval.frame_rates import Between, RatesConfig
from vistok.eval.images import network_of
from vistok.eval.intervals import error_of_images, sample_of
from vistok.eval.protocols.base import Job, Protocol, ProtocolConfig, Selects, register
from vistok.eval.protocols.fvd_presets import (
    Clips,
    Preset,
    PresetName,
    chosen,
    misfit,
    name_of,
)
from vistok.eval.results.rows import Row
from vistok.eval.systems.runs import System
from vistok.frozen import video_network
from vistok.layers.frames import frames
from vistok.layers.resize import resize
from vistok.metrics import FeatureStats
from vistok.metrics.video import FrameFeatures, MotionFeatures

if TYPE_CHECKING:
    from vistok.eval.config import EvalConfig

_EMBEDDED = {"frames": FrameFeatures, "motion": MotionFeatures}


class FVDConfig(ProtocolConfig):
    """Keys that rFVD and gFVD share."""

    features: Literal["frames", "motion", "i3d", "videomae"] = "frames"
    """Network of clips: frames (the image network over all frames), motion (the same over the
    changes from frame to frame), i3d or videomae (weights of your own)."""
    weights: Selects[str | None] = None
    """Weight file of i3d, or folder of videomae, if it is not in the usual place."""
    preset: tuple[PresetName, ...] = ("own",)
    """Conventions of published FVDs (frames, pixels, preprocessing, covariance), one number each;
    NAME_prediction: of clips continued from known frames. own: the clips as the data give them."""
    clips: Clips | None = None
    """Preprocessing of clips for i3d and videomae under preset=own, as that program does it;
    null = larp."""

    @field_validator(
        "preset", mode="before", json_schema_input_type=PresetName | tuple[PresetName, ...]
    )
    @classmethod
    def _one_preset(cls, value: Any) -> Any:
        """A single name stands for a list of one."""
        return (value,) if isinstance(value, str) else value

    @field_validator("clips")
    @classmethod
    def _fits(cls, value: Any, info: Any) -> Any:
        for name in info.data.get("preset", ()):
            chosen(name, value)
        return value

    @property
    def convention(self) -> Preset:
        """The preset of a job, which has one."""
        return chosen(self.preset[0], self.clips)

    @property
    def setting(self) -> dict[str, Any]:
        """The setting that rows of a job carry: the preset's name with all that it stands for."""
        name = name_of(self.preset[0], self.clips)
        preset = {"preset": name, "convention": self.convention.setting}
        return {"features": self.features, **preset}


class RFVDConfig(FVDConfig, RatesConfig):
    """Config of rFVD."""

    @property
    def setting(self) -> dict[str, Any]:
        """The setting of FVD, and the rates that are asked for."""
        return {**super().setting, **self.rates}


@register
class RFVD(Protocol):
    """Reconstruction of clips: Fréchet distance of features of whole clips (rFVD)."""

    name = "rfvd"
    media = ("video",)
    Config = RFVDConfig

    def jobs(self, system: System, config: EvalConfig) -> list[Job]:
        """One for each preset; weights are read here, since the numbers depend on them and not on
        their path."""
        own = config.rfvd
        return [
            Job(self, own.model_copy(update=one), networks=networks)
            for one, networks in presets_of(own)
        ]

    def run(self, context: Context, config: RFVDConfig) -> list[Row]:
        """rFVD at each prefix length."""
        spec, preset = context.spec, config.convention
        between = Between(context, config)
        reason = between.reason or misfit(
            config.preset[0], preset, between.sides, context.views.record
        )
        if reason:
            context.skip("rFVD", reason)
            return []
        network = network_of_clips(context, config)
        stats = lambda: FeatureStats(network.dim, context.device)
        sample = lambda: sample_of(context, network.dim, len(context.views), frame_wise=False)
        real, real_sample = stats(), sample()
        decoded = {k: (stats(), sample()) for k in spec.eval_lengths}
        states = [real, real_sample, decoded]
        for batch in context.batches(f"{context.run.name}: clips", states):
            tokens, pixels, condition = between.encode(batch)
            features = network(pixels)
            real.update(features)
            real_sample.update(features, batch.index)
            for length, (own, some) in decoded.items():
                cut = tokens if length == spec.max_prefix else tokens.prefix(length)
                features = network(context.decode(cut, condition, batch.index))
                own.update(features)
                some.update(features, batch.index)
        whole, note = real.reduce(), clips_note(context, preset, between.sides[0])
        rows = []
        for length, (own, some) in decoded.items():
            made = own.reduce()
            rows.append(
                context.frechet_row(
                    "rFVD",
                    made,
                    against=whole,
                    ddof=preset.ddof,
                    error=error_of_images(context, network, some, made, whole, real_sample),
                    length=length,
                    features=network_of(network),
                    note=note,
                    setting=config.setting,
                    **between.size,
                )
            )
        return rows


def presets_of(own: FVDConfig) -> list[tuple[dict[str, Any], tuple[Any, ...]]]:
    """(keys of a job of its own, its networks) for each preset that a config asks for."""
    found = []
    for name in dict.fromkeys(own.preset):
        networks = ()
        if own.features not in _EMBEDDED:
            networks = (video_network(own.features, own.weights, chosen(name, own.clips).clips),)
        found.append(({"preset": (name,), "weights": None}, networks))
    return found


class Looking:
    """A network of clips, as a preset looks through it: clips [B, 3, T, H, W], uint8 or 0..1, ->
    features [B, D]. `preprocess` says what is done before the network's own treatment."""

    media = "video"

    def __init__(self, network: Any, preset: Preset, eight_bits: bool) -> None:
        """eight_bits: the network takes nothing else, so clips are rounded in any case."""
        self.network, self.side, self.dim = network, preset.resized, network.dim
        self.name, self.sha256 = network.name, network.sha256
        self.before, self.behind = preset.rounded, eight_bits
        said = ["rounded to 8 bits"] if self.before and not eight_bits else []
        said += [f"to {self.side}, antialiased"] if self.side else []
        self.preprocess = "; ".join([*said, network.preprocess])

    def __call__(self, clips: Tensor) -> Tensor:
        clips = to_uint8(clips) if self.before else clips
        clips = clips if clips.is_floating_point() else clips.float() / 255
        clips = clips.clamp(0, 1)
        if self.side is not None:
            small = resize(frames(clips), self.side, "bilinear", antialias=True).clamp(0, 1)
            clips = small.unflatten(0, (len(clips), -1)).transpose(1, 2)
        return self.network(to_uint8(clips) if self.behind else clips)


def network_of_clips(context: Context, config: FVDConfig) -> Looking:
    """The job's network of clips under its preset."""
    if context.job.networks:
        network = context.job.networks[0].to(context.device)
        return Looking(network, config.convention, eight_bits=False)
    network = _EMBEDDED[config.features](context.features)
    return Looking(network, config.convention, eight_bits=True)


def clips_note(context: Context, preset: Preset, frames: int | None = None) -> str:
    """How many clips of how many frames, and the split that published numbers take."""
    said = f"{len(context.views):,} clips of {frames or context.sides[0]} frames"
    if preset.real:
        said += f"; published numbers of this preset take clips of the {preset.real} split"
    if preset.samples and context.job.generator is not None:
        said += f", {preset.samples:,} of them generated"
    return said
