"""gFVD: Fréchet distance between features of generated and of real clips.

`gFVD` is taken to clips of the training split, as papers do it; `gFVD-val` to the clips that rFVD
uses. Networks and conventions are those of rFVD, passes and draws those of gFID: the same samples
stand behind both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from vistok.eval.context import Context
from vistok.eval.floors import floor_of
from vistok.eval.images import network_of
from vistok.eval.intervals import error_of_drawn, sample_of
from vistok.eval.protocols import generated, gfid
from vistok.eval.protocols.base import Job, Protocol, Selects, Skip, register
from vistok.eval.protocols.fvd_presets import misfit
from vistok.eval.protocols.rfvd import FVDConfig, Looking, clips_note, network_of_clips, presets_of
from vistok.eval.reference.real import RealStats
from vistok.eval.reference.training_set import TrainingSet, training_set
from vistok.eval.results.rows import Row
from vistok.eval.systems.runs import System
from vistok.metrics import FeatureStats

if TYPE_CHECKING:
    from vistok.eval.config import EvalConfig


class GFVDConfig(FVDConfig):
    """Config of gFVD."""

    guidance: Selects[tuple[float, ...] | None] = None
    """Guidance scales; 1.0 is always measured. null: those of gfid.guidance."""
    samples: Selects[int | None] = Field(default=None, ge=2)
    """Generated clips; null = gfid.samples, else as many as there are real ones."""
    seeds: Selects[int | None] = Field(default=None, ge=1, le=100)
    """Sampling seeds whose mean the number is; null = gfid.seeds."""
    train_clips: Selects[int | None] = Field(default=None, ge=2)
    """Training clips behind the statistics; null = gfid.train_images, else `limit`, else `samples`,
    else 50,000."""

    _one_scale = field_validator(
        "guidance", mode="before", json_schema_input_type=float | tuple[float, ...] | None
    )(gfid.one_scale)
    _not_negative = field_validator("guidance")(gfid.not_negative)


class ClipPass(FVDConfig, generated.Pass):
    """Config of one set of generated clips under one preset."""


@register
class GFVD(Protocol):
    """Generation of clips: Fréchet distance of features of whole clips (gFVD)."""

    name = "gfvd"
    media = ("video",)
    Config = GFVDConfig

    def jobs(self, system: System, config: EvalConfig) -> list[Job | Skip]:
        """One for each preset and pass of each generator; shorter prefixes are left to gFID."""
        own, likewise = config.gfvd, config.gfid
        if not system.generators:
            return [Skip("gFVD", gfid.missing(system, config))]
        samples = own.samples or likewise.samples
        limit = own.train_clips or likewise.train_images or config.limit or samples
        real = training_set(system.tokenizer, config.data, limit)
        training = real if isinstance(real, str) else real.identity
        found: list[Job | Skip] = [Skip("gFVD", real)] if isinstance(real, str) else []
        length, asked = system.tokenizer.spec.max_prefix, own.guidance or likewise.guidance
        for generator in system.generators:
            scales = generated.scales_of(generator.generator, asked)
            passes = [{"guidance": scale} for scale in scales] + [{"trained": False}]
            for keys, networks in presets_of(own):
                common = {"length": length, "samples": samples, "training": training, **keys}
                common |= {"labels": likewise.labels, "features": own.features, "clips": own.clips}
                for one in passes:
                    job = Job(self, ClipPass(**common, **one), generator, real, networks)
                    count = own.seeds or likewise.seeds if one.get("trained", True) else 1
                    found += gfid.of_seeds(job, config.seed, count)
        return found

    def run(self, context: Context, config: ClipPass) -> list[Row]:
        """gFVD (if there are training clips) and gFVD-val of one set of samples."""
        preset = config.convention
        known = context.job.generator.generator.config.condition.first_frames
        reason = misfit(config.preset[0], preset, context.sides, context.views.record, known)
        if reason:
            context.skip("gFVD", reason, context.job.generator.name)
            return []
        made = generated.prepared(context, config, "gFVD")
        if made is None:
            return []
        model, note = made
        network = network_of_clips(context, config)
        samples = config.samples or min(gfid.MOST, len(context.views))
        mine = FeatureStats(network.dim, context.device)
        sample = sample_of(context, network.dim, samples, frame_wise=False)
        title = generated.title_of(context.job.generator, config)
        for index in context.numbers(title, samples, [mine, sample]):
            features = network(generated.pixels_of(context, model, index, config))
            mine.update(features)
            sample.update(features, index)
        stats, sides = mine.reduce(), self._sides(context, config, network)
        rows = []
        for name, side in sides.items():
            reference = side.reference
            said = f"{note}; reference: {reference.count:,} {reference.split} clips"
            said += "" if name == "gFVD" else ", not training statistics"
            floor = None
            if config.trained:
                training = context.job.data
                floor = floor_of(context, side, samples, training, network, preset.ddof)
            rows.append(
                context.frechet_row(
                    name if config.trained else "gFVD-untrained",
                    stats,
                    side,
                    ddof=preset.ddof,
                    error=error_of_drawn(sample, stats, side.stats),
                    floor=floor,
                    note=f"{said}; {samples:,} samples, {clips_note(context, preset)}",
                    features=network_of(network),
                    setting=config.setting,
                    **generated.common_fields(context, config),
                )
            )
        return rows

    def _sides(self, context: Context, config: ClipPass, network: Looking) -> dict[str, RealStats]:
        real: TrainingSet | str = context.job.data
        sides: dict[str, RealStats] = {}
        if not isinstance(real, str):
            sides["gFVD"] = real.stats(context, network)
        if config.trained or not sides:
            sides["gFVD-val"] = context.views.real(network)
        return sides
