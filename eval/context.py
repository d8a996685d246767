"""Input of a protocol: one tokenizer run, its images, the networks that look at them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from vistok.config import ConfigError
from vistok.core.records import Batch, Condition, Latents
from vistok.eval.images import Views, bar, network_of, shares
from vistok.eval.protocols.base import Job, Media, setting_of
from vistok.eval.reference.real import RealStats
from vistok.eval.results.metrics import counted
from vistok.eval.results.rows import Row
from vistok.eval.results.spread import around
from vistok.eval.resumable import Passes
from vistok.eval.sample_size import sample_size
from vistok.eval.systems.runs import Run, sides_of
from vistok.frozen import FeatureNetwork, PerceptualNetwork
from vistok.metrics import FeatureStats, frechet_distance
from vistok.metrics.sample_bias import bias_factor
from vistok.runtime import distributed
from vistok.tokenizer import Tokenizer
from vistok.tokens import Tokens, TokenSpec


@dataclass
class Context:
    """A tokenizer with all that is needed to measure it.

    Protocols return rows; what is no number they leave in `facts`, `skipped` and `image_grids`.
    """

    run: Run
    views: Views
    features: FeatureNetwork
    perceptual: PerceptualNetwork | None = None  # the first of them
    seed: int = 0
    stamp: dict[str, Any] = field(default_factory=dict)  # versions, commit, date
    facts: dict[str, Any] = field(default_factory=dict)
    skipped: list[dict[str, str]] = field(default_factory=list)
    image_grids: list[dict[str, Any]] = field(default_factory=list)  # for the report
    job: Job | None = None  # the one that is being done
    sampling: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Changes of the sampling settings of {generator, decoder}, as the user gave them."""
    more_perceptual: tuple[PerceptualNetwork, ...] = ()
    references: dict[str, dict[str, RealStats]] = field(default_factory=dict)
    """Files to compare with, where asked for: {protocol: {feature network: statistics}}."""
    passes: Passes = field(default_factory=Passes)
    more_features: tuple[FeatureNetwork, ...] = ()

    @property
    def networks(self) -> tuple[FeatureNetwork, ...]:
        """All feature networks that were asked for."""
        return (self.features, *self.more_features)

    def seen_by(self, *networks: FeatureNetwork) -> Context:
        """This context with these feature networks alone; facts, skips and images are the same."""
        return replace(self, features=networks[0], more_features=tuple(networks[1:]))

    def each(self, measure: str = "") -> list[Context]:
        """This context for each feature network (that defines a `measure` of sets): one whose only
        network it is."""
        defined = (one for one in self.networks if not measure or measure in one.measures)
        return [self.seen_by(one) for one in defined]

    @property
    def perceptuals(self) -> tuple[PerceptualNetwork, ...]:
        """All perceptual networks that were asked for."""
        return () if self.perceptual is None else (self.perceptual, *self.more_perceptual)

    @property
    def tokenizer(self) -> Tokenizer:
        return self.run.tokenizer

    @property
    def spec(self) -> TokenSpec:
        return self.tokenizer.spec()

    @property
    def device(self) -> torch.device:
        return self.views.device

    @property
    def batch(self) -> int:
        return self.views.batch

    @property
    def reference(self) -> RealStats | None:
        """Statistics of the (first) feature network that this protocol was told to compare with
        (`reference=`), if any."""
        return self.references.get(self.protocol, {}).get(self.features.name)

    @property
    def protocol(self) -> str:
        """Name of the protocol, which its rows carry."""
        return "" if self.job is None else self.job.protocol.name

    @property
    def sides(self) -> tuple[int, ...]:
        """Sides of a sample: (H, W) of images, (T, H, W) of clips."""
        return sides_of(self.tokenizer, self.views.sides)

    @property
    def media(self) -> tuple[str, ...]:
        """("image",) or ("video",): the kind of its samples, as protocols name it."""
        return (media_of(self.sides),)

    @property
    def unit(self) -> str:
        """The noun of a sample: "image" or "clip"."""
        return "image" if len(self.sides) == 2 else "clip"

    def per_frame(self, metric: str) -> str:
        """Name of a metric of single images: the same, or NAME-frame where samples are clips."""
        return metric if len(self.sides) == 2 else f"{metric}-frame"

    @property
    def decoder_sampling(self) -> dict[str, Any]:
        """The decoder's whole sampling settings, as rows carry them; {} if it does not sample, or
        samples without settings (`samples` tells them apart)."""
        return decoder_settings(self.tokenizer, self.sampling.get("decoder"))

    @property
    def samples(self) -> bool:
        """True for a decoder that samples."""
        return getattr(self.tokenizer, "sampling", None) is not None

    @property
    def condition_name(self) -> str:
        """The tokenizer's condition as rows name it: "none", or "text" and the source of the
        texts, since other captions are another measurement."""
        config, dataset = self.tokenizer.config, self.views.dataset
        if getattr(config, "text", None) is None:
            return "none"
        if not dataset.texts and all(how.optional for how in config.reading.values()):
            return "none"
        kind, what = next(iter(self.views.record.get("text", {"?": "?"}).items()))
        return f"text: {kind} {what}"

    def condition(self, batch: Batch) -> Condition | None:
        """The texts or frame rates of a batch of data for a tokenizer that reads them; None for
        others, and where the data have no texts for one that can do without. ConfigError for one
        that cannot."""
        if getattr(self.tokenizer, "reads_fps", False):
            return self.tokenizer.condition_of(batch)
        return None if self.condition_name == "none" else self.tokenizer.condition_of(batch)

    def encode(self, batch: Batch, condition: Condition | None) -> Tokens:
        """Tokens of the batch's pixels, under its `condition`."""
        if condition is None:
            return self.tokenizer.encode(batch.pixels)
        return self.tokenizer.encode(batch.pixels, condition=condition)

    def latents(self, batch: Batch, condition: Condition | None) -> Latents:
        """Latents of the batch's pixels, under its `condition`: the quantizer's input."""
        if condition is None:
            return self.tokenizer.latents(batch.pixels)
        return self.tokenizer.latents(batch.pixels, condition)

    def captions(self, labels: Tensor | None, count: int) -> tuple[str, ...] | None:
        """Texts of `count` generated samples, of classes `labels` [count] if they have any; None
        unless the data's texts are captions that say what these are."""
        caption = self.views.dataset.caption
        if caption is None or not caption.given or (caption.needs_class and labels is None):
            return None
        return tuple(
            caption(int(n), "a sample") for n in ([0] * count if labels is None else labels)
        )

    def decode(
        self, tokens: Tokens, condition: Condition | None, index: Tensor | None = None
    ) -> Tensor:
        """Pixels [B, 3, *sides] in 0..1 of tokens, under the `condition` of those same samples.

        Args:
            index: [B] sample numbers, which key the noise of decoders that sample.
        """
        given: dict[str, Any] = {} if condition is None else {"condition": condition}
        if self.samples:
            settings = self.decoder_sampling  # those that rows carry
            given |= {"seed": self.seed, "index": index, "sampling": settings}
        return self.tokenizer.decode(tokens, **given)

    def batches(
        self, title: str, states: Any, only: Sequence[int] | None = None
    ) -> Iterator[Batch]:
        """This rank's batches of the real images (of `only` those of these numbers), for a loop
        that adds each to `states`.

        `states`: all accumulators that the loop changes (those that `resumable.leaves` allows); a
        pass that was killed resumes where it was saved. Every image is seen exactly once over all
        ranks, which is checked; the loop must not end early, and must not talk to other ranks.
        """
        one = self.passes.begin(states, self.batch)
        for batch in self.views.batches(title, one.done, only):
            yield batch
            one.step(batch.index)
        one.finish(range(len(self.views)) if only is None else only)

    def numbers(self, title: str, count: int, states: Any) -> Iterator[Tensor]:
        """This rank's batches [B] of the sample numbers 0..count-1; see `batches`."""
        one, world = self.passes.begin(states, self.batch), distributed.world_size()
        done = one.done * self.batch * world
        with bar(count, title, f" {self.unit}s", done) as progress:
            for index in shares(count, self.batch)[one.done :]:
                yield index
                one.step(index)
                progress.update(len(index) * world)
        one.finish(count)

    def row(self, metric: str, value: float, **rest: Any) -> Row:
        """A row of this context; a `value` that is not finite becomes null, its name and a note."""
        note = rest.pop("note", "")
        not_finite = "" if math.isfinite(value) else str(float(value))
        if not_finite:
            note = f"{note + '; ' if note else ''}the value is {not_finite}"
        sampled: dict[str, Any] = {}
        if self.samples:
            sampled = {"sampling": {"decoder": self.decoder_sampling}, "seed": self.seed}
        common = {
            "protocol": self.protocol,
            "run": self.run.name,
            "weights": {"tokenizer": self.run.sha256},
            "setting": {} if self.job is None else setting_of(self.job.config),
            "count": len(self.views),
            "length": self.spec.max_prefix,
            "condition": self.condition_name,
            **sampled,
            **self.views.protocol,
            **self.stamp,
        }
        fields = {"value": None if not_finite else float(value), "not_finite": not_finite}
        return Row(metric=metric, note=note, **{**common, **fields, **rest})

    def frechet_row(
        self,
        metric: str,
        stats: FeatureStats,
        real: RealStats | None = None,
        against: FeatureStats | None = None,
        ddof: int = 1,
        error: float = math.nan,
        **rest: Any,
    ) -> Row:
        """Fréchet distance of decoded images (already summed over ranks) to real ones: the
        images of this context, or `real` (what it does not know stays that of the images).
        `against`: other features of this context's images. `ddof`: of the covariances. `error`:
        standard error of the distance over images, see `intervals`."""
        if against is None:
            against = self.views.stats(self.features) if real is None else real.stats
        with warnings.catch_warnings():  # its warning becomes the row's note
            warnings.simplefilter("ignore")
            value = frechet_distance(stats, against, ddof)
        known = real is None or real.reference.count > 0
        counts = (stats.count, against.count) if known else (stats.count,)
        generated = self.job is not None and self.job.generator is not None
        independent = real is not None or generated
        factor = lambda: self._bias_factor(against, known)
        noun = counted(metric, len(self.sides) == 3)
        size = sample_size(value, counts, stats.dim, factor, independent, noun)
        notes = [rest.get("note", ""), "" if real is None else real.note, size.note]
        rest["note"] = "; ".join(filter(None, notes))
        common = {"features": network_of(self.features), "count": stats.count}
        common |= {"bias": size.bias, "few": size.few}
        if interval := around(value, error):
            common |= {"interval": (max(0.0, interval[0]), interval[1])}
            common |= {"varies": f"{self.unit}s"}
        if real is not None:
            common |= real.protocol
        return self.row(metric, value, **{**common, **rest})

    def _bias_factor(self, real: FeatureStats, counted: bool) -> float:
        """`bias_factor` of the real side of a distance, computed once for all runs on it."""
        memo, key = self.views.memo, ("bias", id(real))
        if key not in memo:
            factor = bias_factor(real.cov, real.count if counted else None)
            memo[key] = (factor, real)  # which is kept, so that its id stays its own
        return memo[key][0]

    def new_stats(self) -> FeatureStats:
        return FeatureStats(self.features.dim, self.device)

    def skip(
        self, protocol: str, reason: str, run: str | None = None, network: str | None = None
    ) -> None:
        """Record a number that is not measured, and why: the report lists it. `network`: the
        feature network that it is owed to."""
        own = {} if network is None else {"network": network}
        said = {"protocol": protocol, "run": run or self.run.name, "reason": reason, **own}
        self.skipped.append(said)


def media_of(sides: Sequence[int]) -> Media:
    """The kind of samples with these sides: (H, W) of images, (T, H, W) of clips."""
    return "image" if len(sides) == 2 else "video"


def decoder_settings(tokenizer: Any, changes: Mapping[str, Any] | None) -> dict[str, Any]:
    """The whole sampling settings of a tokenizer's decoder with `changes` laid over its own, as
    JSON; {} for one that does not sample. ConfigError for wrong changes."""
    if getattr(tokenizer, "sampling", None) is None:
        return {}
    try:
        return tokenizer.settings(changes or None).model_dump(mode="json")
    except ConfigError as error:  # here `sampling` is the generator's key
        raise ConfigError(f"decoder_{error}") from None
