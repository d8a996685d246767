"""Image grids of the report: reconstructions at each length, perturbed tokens, samples.

Reconstructions are of validation images and, where the tokenizer's run names its data, of some
training images too. Clips play.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import Field

from vistok.config.contract import lacks
from vistok.config.errors import UserError
from vistok.data.batch import to_uint8
from vistok.eval.context import Context
from vistok.eval.images import Views, exact
from vistok.eval.protocols import generated, pfid
from vistok.eval.protocols.base import Job, Protocol, ProtocolConfig, Skip, register
from vistok.eval.reference.training_set import TrainingSet, training_set
from vistok.eval.results.facts import Scale
from vistok.eval.results.rows import Row
from vistok.eval.strips import FPS, grid
from vistok.eval.systems.runs import Run, System, class_names
from vistok.metrics.perturbed import QUICK_GRID, Cell

if TYPE_CHECKING:
    from vistok.eval.config import EvalConfig

COUNT, _CLIPS = 8, 4  # images of a strip, clips of one
_TRAINED = 4  # training images beside them
_CLASSES = 10  # rows of generated images at most
_SEARCHED = 256  # images among which one of each class is looked for


class ImageGridsConfig(ProtocolConfig):
    guidance: tuple[float, ...] | None = None
    """Guidance scales of the generated images; null = those of gfid.guidance."""


class _JobConfig(ProtocolConfig):
    guidance: tuple[Scale, ...] = ()
    count: int = Field(default=COUNT, ge=1)
    training: dict[str, Any] | None = None  # identity of the training images, where some are shown


@register
class ImageGrids(Protocol):
    """Image grids of the report: reconstructions, perturbed tokens, samples."""

    name = "image_grids"
    media = ("image", "video")
    Config = ImageGridsConfig
    first_rank = True

    def jobs(self, system: System, config: EvalConfig) -> list[Job | Skip]:
        scales = config.image_grids.guidance
        scales = config.gfid.guidance if scales is None else scales
        shown = trained_on(system.tokenizer)
        known = isinstance(shown, TrainingSet)
        own = _JobConfig(training=shown.identity if known else None)
        found: list[Job | Skip] = [Job(self, own, data=shown if known else None)]
        if isinstance(shown, str):
            found.append(Skip(self.name, shown))
        for generator in system.generators:
            own = _JobConfig(guidance=generated.scales_of(generator.generator, scales))
            found.append(Job(self, own, generator))
        return found

    def run(self, context: Context, config: _JobConfig) -> list[Row]:
        """Grids of the tokenizer, or of the job's generator; no rows."""
        generator = context.job.generator
        if generator is None:
            context.image_grids.append(reconstructions(context))
            if context.job.data is not None:
                context.image_grids.append(of_training(context, context.job.data))
            near = not lacks(context.tokenizer.quantizer, "neighbours")
            if context.spec.vocab and near and "image" in context.media:
                context.image_grids.append(perturbed(context))
        else:
            generator.generator.to(context.device).eval()
            if generated.readable(context, generator.generator):
                for scale in config.guidance:
                    context.image_grids.append(generated_grid(context, generator, scale))
        return []


def choose(dataset: Any, limit: int, count: int = COUNT) -> list[int]:
    """Places of `count` images: one of each class in turn as far as they go, else the first."""
    size = min(limit, len(dataset))
    if not dataset.classes:
        return list(range(min(count, size)))
    by_class: dict[int, list[int]] = {}
    for index in range(min(size, _SEARCHED)):
        by_class.setdefault(dataset[index].label, []).append(index)
    chosen, turn = [], 0
    while len(chosen) < min(count, size) and any(len(c) > turn for c in by_class.values()):
        places = [by_class[label] for label in sorted(by_class)]
        chosen += [own[turn] for own in places if len(own) > turn]
        turn += 1
    return chosen[:count]


def reconstructions(context: Context) -> dict[str, Any]:
    """Originals, then the reconstruction at each length, longest first."""
    index = chosen(context)
    spec = context.spec
    with exact():
        batch = context.views.chosen(index)
        pixels, condition = batch.pixels, context.condition(batch)
        tokens = context.encode(batch, condition)
        rows, places = [("original", to_uint8(pixels))], [{}]
        for length in reversed(spec.eval_lengths):
            kept = spec.positions_in(length)
            places.append({"tokens": kept, "bits": kept * sum(spec.factor_bits)})
            cut = tokens if length == spec.max_prefix else tokens.prefix(length)
            decoded = context.decode(cut, condition, batch.index)
            rows.append((_tokens(context, length), to_uint8(decoded)))
    labels = _labels(context, index)
    return grid("reconstructions", context.run.name, rows, labels, places, _fps(context))


def trained_on(run: Run) -> TrainingSet | str | None:
    """Some images that a tokenizer was trained on; the reason why they cannot be shown; None for a
    model without a run, or a run without data."""
    if run.config is None or not run.config.get("data"):
        return None
    try:
        return training_set(run, None, _TRAINED)
    except UserError as error:  # of another evaluation's data, these need not be here
        return f"no training images: {error}"


def of_training(context: Context, training: TrainingSet) -> dict[str, Any]:
    """`reconstructions` of training images, marked as such."""
    views = context.views
    own = Views(training.dataset, views.batch, None, views.device)
    return {**reconstructions(replace(context, views=own)), "split": "train"}


def perturbed(context: Context) -> dict[str, Any]:
    """The same images decoded from perturbed tokens, in growing strength."""
    index = chosen(context)
    spec, tokenizer = context.spec, context.tokenizer
    cells = [Cell(a, min(d, pfid.branch_codes(spec))) for a, d in (Cell(0.0, 200), *QUICK_GRID)]
    with exact():
        batch = context.views.chosen(index)
        pixels, condition = batch.pixels, context.condition(batch)
        quantized = tokenizer.quantize(context.latents(batch, condition))
        near = tokenizer.quantizer.neighbours(quantized.queries, max(c.delta for c in cells))
        stored = quantized.indices[:, : spec.length]  # an encoder may emit more
        rows = [("original", to_uint8(pixels))]
        for cell in cells:
            job = pfid.Decoding(spec.max_prefix, cell, False)
            moved = pfid.perturb(spec, stored, near, batch.index, job, context.seed)
            decoded = context.decode(
                pfid.tokens_of(context, moved, spec.max_prefix), condition, batch.index
            )
            label = f"α {cell.alpha:g}, δ {cell.delta}" if cell.alpha else "not perturbed"
            rows.append((label, to_uint8(decoded)))
    labels = _labels(context, index)
    return grid("perturbed", context.run.name, rows, labels)


def generated_grid(context: Context, generator: Any, guidance: Any) -> dict[str, Any]:
    """Samples of the classes (of some, evenly spaced, if there are many) at one guidance."""
    model = generator.generator
    names = class_names(model) or ["samples"]
    shown = sorted({i * len(names) // _CLASSES for i in range(_CLASSES)})
    with exact():
        decoded = generated.samples_of(context, model, shown, _shown(context), guidance)
    rows = [(names[label], row) for label, row in zip(shown, decoded, strict=True)]
    note = f"{len(shown)} of {len(names)} classes" if len(shown) < len(names) else ""
    return {
        **grid("generated", generator.name, rows, [], fps=_fps(context)),
        "guidance": guidance,
        "note": note,
    }


def chosen(context: Context) -> list[int]:
    """Places of the images that are shown."""
    return choose(context.views.dataset, len(context.views), _shown(context))


def _shown(context: Context) -> int:
    """Samples of a strip; of clips fewer, since all of them move."""
    return COUNT if len(context.sides) == 2 else _CLIPS


def _fps(context: Context) -> float:
    """Frames per second at which clips play: those of the data."""
    return context.views.dataset[0].fps or FPS if len(context.sides) == 3 else FPS


def _labels(context: Context, index: list[int]) -> list[str]:
    """Names above the cells: classes or places."""
    dataset = context.views.dataset
    if not dataset.classes:
        return [str(i) for i in index]
    labels = [dataset[i].label for i in index]
    return [dataset.classes[label] if label >= 0 else "unlabeled" for label in labels]


def _tokens(context: Context, length: int) -> str:
    unit = "block" if context.spec.prefix == "block" else "token"
    inside = " per block" if context.spec.prefix == "per_block" else ""
    return f"{length} {unit}{'' if length == 1 else 's'}{inside}"
