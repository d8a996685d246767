"""Post-training quantization of any continuous tokenizer: codes for its latents, no training.

The tokenizer `init` keeps its networks; its quantizer goes on reading their output, and one with
codes rounds what it reads (`vistok.quantizers.compose.post_training`). Shift, scale and codebooks
are taken from the latents of some training images. Writes `model/` below the run's folder: a
tokenizer that every command opens.

The data are those of the run of `init`, unless the config names others; with levels and scale that
are given none are needed. Runs in one process; the latents stay in memory: images x N x D x 4
bytes.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from tqdm import tqdm

from vistok.config import Config, ConfigError, PartOf, UserError, validate
from vistok.config.registry import register
from vistok.core.records import Condition, Latents
from vistok.core.rng import Rng
from vistok.core.text import printable
from vistok.core.verbosity import note, quiet
from vistok.data.batch import to_device
from vistok.data.loading.loader import EvalLoader
from vistok.pretrained.identity import identify
from vistok.quantizers.atoms.scalar import ScalarConfig
from vistok.quantizers.compose.post_training import PostTrainingConfig
from vistok.runtime.modes import evaluating
from vistok.storage.lineage import Identity, Lineage, Parent, Step, joined
from vistok.tokenizer import Tokenizer, TokenizerConfig
from vistok.train.jobs.base import Context, Job, looked_at
from vistok.train.tasks.base import check_sides

_FRESH = "uniform", "sphere", "normal", "kaiming"  # codebooks that only training makes useful
_AT_ONCE = 64  # images that are quantized at a time, to count codes


class QuantizeConfig(Config):
    kind: Literal["quantize"] = "quantize"
    init: str
    """A continuous tokenizer: a run, a folder made by save_pretrained, official weights or a
    released name."""
    quantizer: Annotated[Any, PartOf("quantizer")] = ScalarConfig()
    """The quantizer with codes. A width (`dim`), or a product's number of branches, that stands at
    its default follows the tokenizer's channels."""
    normalize: Literal["channel", "global", "given"] = "channel"
    """Shift and scale of the latents in front of it: measured for each channel, or for all
    together; or the two below."""
    shift: float = 0.0
    scale: float = Field(default=1.0, gt=0)
    """Given shift and scale, for normalize=given (KL-16 and TokenBridge: 0.2325)."""
    sample: bool = False
    """Later training reads samples of a posterior instead of its mean (TokenBridge)."""
    limit: int | None = Field(default=2_000, ge=1)
    """Training images to look at, a keyed pick; null = all."""


@register("task", QuantizeConfig)
class Quantize(Job):
    def __init__(self, config: QuantizeConfig, data: Any) -> None:
        self.config, self.tokenizer = config, config.init

    def rows(self, split: str, count: int) -> int:
        limit = self.config.limit if split == "train" else 0
        return count if limit is None else min(limit, count)

    @torch.no_grad()
    def run(self, context: Context) -> None:
        config, accelerator = self.config, context.accelerator
        if accelerator.num_processes > 1:
            raise ConfigError(
                f"task.kind=quantize runs in one process, not in {accelerator.num_processes}; "
                "start it without a launcher"
            )
        try:
            source, identity = identify(config.init)
        except UserError as error:
            raise ConfigError(f"task.init: {error}") from None
        tokenizer = quantized(config, source).to(accelerator.device).eval()
        latents = None
        if context.data is not None:
            latents = self._latents(context, tokenizer)
        if tokenizer.quantizer.wants_data:
            if latents is None:
                raise ConfigError(
                    f"data: missing, and {config.init} is no run that names some; give the images "
                    "to look at, e.g. 'data={kind: folder, path: my/images, size: 32}'"
                )
            self._check_enough(latents)
            tokenizer.quantizer.initialize(latents, Rng(context.config.seed, "quantize"))
        tokenizer.lineage = _lineage(tokenizer, source, identity, str(context.config.name))
        tokenizer.notes = {**source.notes, "run": printable(str(context.config.name))}
        tokenizer.cpu().save_pretrained(context.folder / "model")
        said = f"{config.init}, quantized: {context.folder / 'model'}"
        spec = tokenizer.spec()
        said += f"; {spec.length:,} tokens, {spec.bits:,} bits per sample"
        note(said if latents is None else f"{said}; {_outcome(tokenizer, latents)}")

    def _latents(self, context: Context, tokenizer: Tokenizer) -> Latents:
        """Latents [B, N, D] of training samples in front of the quantizer, on the device; in one
        row [1, n, D] where samples have different numbers of them."""
        train = context.config
        dataset = context.data.open("train", augment=False)
        check_sides(dataset, tokenizer.shape.sides, "this tokenizer")
        rows = looked_at(len(dataset), self.rows("train", len(dataset)), train.seed)
        loader = EvalLoader(dataset, train.batch_size, workers=train.workers, only=rows)
        found: list[Latents] = []
        for batch in tqdm(loader, desc="latents", unit="batch", disable=quiet()):
            batch = to_device(batch, context.accelerator.device)
            reads = "encoder" in tokenizer.config.reading
            condition = tokenizer.condition_of(batch) if reads else None
            if condition is None and tokenizer.encoder.reads_fps and batch.fps is not None:
                condition = Condition(fps=batch.fps)
            with evaluating(tokenizer):
                found.append(tokenizer.latents(batch.pixels, condition))
        stored = tokenizer.encoder.stored
        values = torch.cat([one.values[:, :stored].float() for one in found])
        if found[0].counts is not None:
            counts = torch.cat([one.counts for one in found]).to(values.device)
            there = torch.arange(values.shape[1], device=values.device) < counts[:, None]
            rows = values[there][None]
            return Latents(rows, ((rows.shape[1],),))
        return replace(found[0], values=values, features={}, counts=None)

    def _check_enough(self, latents: Latents) -> None:
        """ConfigError if a codebook has more codes than there are latents."""
        most, count = max(_codebooks(self.config.quantizer), default=0), latents.values.shape[1]
        if most > len(latents.values) * count:
            raise ConfigError(
                f"task.quantizer: {most:,} codes, but there are {len(latents.values) * count:,} "
                "latents; look at more images (task.limit), or ask for fewer codes"
            )


def quantized_config(config: QuantizeConfig, source: TokenizerConfig) -> TokenizerConfig:
    """The config of a continuous tokenizer with the quantizer in front of its own decoder."""
    keys = ("normalize", "shift", "scale", "sample")
    own = PostTrainingConfig(
        reads=source.quantizer,
        quantizer=fitted(config.quantizer, source.quantizer.dim),
        **{key: getattr(config, key) for key in keys},
    )
    tree = source.model_dump(mode="json") | {"quantizer": own.model_dump(mode="json")}
    return validate(TokenizerConfig, tree)


def quantized(config: QuantizeConfig, source: Tokenizer) -> Tokenizer:
    """A tokenizer with the networks of `source` and a quantizer that still wants its data.

    ConfigError for a tokenizer that has codes already, and for a quantizer that does not fit it.
    """
    if source.spec().vocab:
        raise ConfigError(
            f"task.init: {config.init} has codes already ({source.config.quantizer.kind}); "
            "expected a continuous tokenizer, whose quantizer is kl or none"
        )
    license = next(iter(dict.fromkeys(source.licenses)), None)
    own = quantized_config(config, source.config).model_copy(update={"license": license})
    try:
        made = Tokenizer(own)
    except UserError as error:
        raise ConfigError(f"task.quantizer: {error}") from None
    state = {
        key.replace("quantizer.", "quantizer.reads.", 1) if key.startswith("quantizer.") else key: v
        for key, v in source.state_dict().items()
    }
    fresh = {k: v for k, v in made.state_dict().items() if k.startswith("quantizer.")}
    made.load_state_dict({**fresh, **state})
    made.text_sha256 = source.text_sha256
    return made


def fitted(config: Any, dim: int) -> Any:
    """A quantizer's config for latents of `dim` channels, which widths at their defaults follow.

    ConfigError for a codebook that only training would fill.
    """
    if getattr(config, "init", None) in _FRESH:
        raise ConfigError(
            f"task.quantizer: init={config.init} makes codes that only training could place; set "
            "init=kmeans"
        )
    changes: dict[str, Any] = {}
    inner = getattr(config, "quantizer", None)
    if config.kind == "product":
        width = _width(inner)
        if width and config.branches == _default(config, "branches"):
            changes["branches"] = branches = max(1, dim // width)
        else:
            branches = config.branches
        if dim % branches:
            raise ConfigError(
                f"task.quantizer.branches={branches} does not divide the tokenizer's {dim} channels"
            )
        changes["quantizer"] = fitted(inner, dim // branches)
    elif inner is not None:
        changes["quantizer"] = fitted(inner, dim)
    elif hasattr(config, "parts"):
        pass  # dual: its width is that of both parts
    elif hasattr(config, "dim") and config.dim == _default(config, "dim"):
        changes["dim"] = dim
    return config.model_copy(update=changes)


def _default(config: Any, name: str) -> Any:
    return type(config).model_fields[name].default


def _width(config: Any) -> int | None:
    """Channels that a quantizer's own options fix (FSQ's levels, LFQ's bits); None: any."""
    if config.kind == "fsq":
        return len(config.levels)
    return getattr(config, "bits", None) if config.kind == "lfq" else None


def _codebooks(config: Any) -> list[int]:
    """Sizes of the codebooks inside a quantizer's config that are taken from data."""
    inner = getattr(config, "quantizer", None)
    own = getattr(config, "codebook_size", None)
    return [*([] if own is None else [own]), *([] if inner is None else _codebooks(inner))]


def _lineage(tokenizer: Tokenizer, source: Tokenizer, identity: Identity, stage: str) -> Lineage:
    """The lineage of the outcome: that of `source`, and one step more."""
    parts = tuple(dict.fromkeys(key.split(".")[0] for key in source.state_dict()))
    hashes = (identity.sha256, identity.codes_sha256)
    parent = Parent(identity.name, *hashes, parts, tokenizer.config.license)
    codes = tokenizer.codes_sha256()
    step = Step(stage, "post-training quantization", ("quantizer",), codes, (parent,))
    return joined([identity.lineage], step)


def _outcome(tokenizer: Tokenizer, latents: Latents) -> str:
    """How much of the latents' variance the codes lose, and how many codes are used."""
    quantizer, everything = tokenizer.quantizer, _part(latents, 0, len(latents.values))
    mean = quantizer.reads(everything).values.mean((0, 1))
    used: list[set[int]] = [set() for _ in quantizer.vocab]
    lost = total = 0.0
    for first in range(0, len(latents.values), _AT_ONCE):
        part = _part(latents, first, _AT_ONCE)
        read, made = quantizer.reads(part).values, quantizer(part)
        lost += float((made.values - read).square().sum())
        total += float((read - mean).square().sum())
        for factor, found in enumerate(used):
            found.update(made.indices[..., factor].unique().tolist())
    share = sum(map(len, used)) / sum(quantizer.vocab)
    ratio = 10 * math.log10(max(total, 1e-30) / max(lost, 1e-30))
    return f"signal to noise of the latents {ratio:.1f} dB, {100 * share:.1f} % of the codes used"


def _part(latents: Latents, first: int, count: int) -> Latents:
    """Some samples, on the CPU."""
    return replace(latents, values=latents.values[first : first + count].cpu())
