"""Code usage of generated tokens beside that of real ones: does the generator use the codebook as
the data do?

Nothing is decoded and no network looks on, so it is the cheapest check of a generator: it sees
codes that are never sampled, favored ones (low temperature, guidance), and codes at wrong
positions; not how they fit together. Real tokens are those of training images (validation images
where there are none). The floor is the distance between two disjoint halves of real images, as many
in each as there are samples.

Letters: n samples, L positions, F factors, C codes of a position that are counted apart.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field, field_validator
from torch import Tensor

from vistok.eval.context import Context
from vistok.eval.images import Views
from vistok.eval.protocols import generated, gfid
from vistok.eval.protocols.base import Job, Protocol, ProtocolConfig, Selects, Skip, register
from vistok.eval.reference.training_set import TrainingSet, training_set
from vistok.eval.results.rows import Row
from vistok.eval.systems.runs import System
from vistok.metrics.code_distance import CodeColumns, CodeDistance, code_columns, code_distance
from vistok.runtime.distributed import sum_
from vistok.tokens import Tokens

if TYPE_CHECKING:
    from vistok.eval.config import EvalConfig

NAME = "code_usage"


class CodeUsageConfig(ProtocolConfig):
    samples: Selects[int] = Field(default=2048, ge=1)
    """Generated sequences; of real ones twice as many are needed, else fewer are taken of both."""
    guidance: Selects[tuple[float, ...] | None] = (1.0,)
    """Guidance scales beside 1.0, which is always measured; null: those of gfid.guidance."""

    _one_scale = field_validator(
        "guidance", mode="before", json_schema_input_type=float | tuple[float, ...] | None
    )(gfid.one_scale)
    _not_negative = field_validator("guidance")(gfid.not_negative)


class CodesPass(generated.Pass):
    """Config of the sequences sampled at one guidance."""


@register
class CodeUsage(Protocol):
    """Code usage: distances between the code frequencies of generated and of real tokens."""

    name = NAME
    media = ("image", "video")
    Config = CodeUsageConfig

    def jobs(self, system: System, config: EvalConfig) -> list[Job | Skip]:
        """One for each guidance scale of each generator, at full length."""
        own, likewise, spec = config.code_usage, config.gfid, system.tokenizer.spec
        if not system.generators:
            return [Skip(NAME, gfid.missing(system, config))]
        if not spec.vocab:
            return [Skip(NAME, "continuous tokens have no codebook")]
        real = training_set(system.tokenizer, config.data, 2 * own.samples)
        training = real if isinstance(real, str) else real.identity
        asked = likewise.guidance if own.guidance is None else own.guidance
        found: list[Job | Skip] = []
        for generator in system.generators:
            for scale in generated.scales_of(generator.generator, asked):
                given = {"samples": own.samples, "training": training, "labels": likewise.labels}
                one = CodesPass(length=spec.max_prefix, guidance=scale, **given)
                found.append(Job(self, one, generator, real))
        return found

    def run(self, context: Context, config: CodesPass) -> list[Row]:
        """Total variation and Jensen-Shannon divergence, over all positions and by position."""
        made = generated.prepared(context, config, NAME)
        if made is None:
            return []
        model, note = made
        columns = code_columns(context.spec)
        views, which = real_images(context, context.job.data)
        halves = real_halves(context, columns, views, config.samples)
        count = len(halves[0])
        if count < 1:
            context.skip(NAME, f"real tokens of 1 {context.unit}; two halves need 2 or more")
            return []
        drawn = sampled(context, model, columns, config, count)
        tokens, codes = drawn.shape[0] * drawn.shape[1], max(columns.sizes)
        few = f"{tokens:,} tokens for {codes:,} codes" if tokens < codes else ""
        common = generated.common_fields(context, config) | {"count": count, "few": few}
        common["reference"] = views.reference
        rows = []
        for by_position, ending in ((False, ""), (True, "-position")):
            found, floor = (
                code_distance(one, halves[0], by_position) for one in (drawn, halves[1])
            )
            counted = "at each position" if by_position else "over all positions"
            said = f"{note}; {columns.what}, {counted}; real: {which}"
            for name, value, least in _named(found, floor):
                noted = f"{said}; floor {least:.4g}: two disjoint sets of {count:,} real ones"
                about = {"note": noted, "measured": {"floor": least}}
                rows.append(context.row(name + ending, value, **about, **common))
        return rows


def _named(found: CodeDistance, floor: CodeDistance) -> list[tuple[str, float, float]]:
    return [
        ("code-TV", found.total_variation, floor.total_variation),
        ("code-JSD", found.jensen_shannon, floor.jensen_shannon),
    ]


def codes_of(context: Context, tokens: Tokens, columns: CodeColumns) -> Tensor:
    """[B, L, C] int64 on the CPU: the codes of tokens, -1 at positions that are not kept."""
    if tokens.spec.vocab != context.spec.vocab:
        tokens = tokens.regroup(context.spec.vocab)
    codes = columns.of(tokens.indices, context.spec.vocab)
    return codes.masked_fill(~tokens.kept().to(codes.device)[..., None], -1).cpu()


def real_images(context: Context, real: TrainingSet | str) -> tuple[Views, str]:
    """The images whose tokens are compared with, and how notes call them."""
    views = context.views
    if isinstance(real, str):
        return views, f"{views.reference.split} {context.unit}s"
    views = Views(real.dataset, views.batch, None, views.device, views.workers)
    return views, f"training {context.unit}s"


def real_halves(
    context: Context, columns: CodeColumns, views: Views, samples: int
) -> tuple[Tensor, Tensor]:
    """(codes [n, L, C], codes [n, L, C]) of disjoint real images, with n `samples` or half of what
    there is. All guidance scales of a run share them."""
    memo = context.views.memo
    record = json.dumps(views.identity, sort_keys=True, default=str)
    key = (NAME, context.run.sha256, id(context.tokenizer), record)
    if key not in memo:
        # One more than the code, so that 0 is what another rank has.
        codes = torch.zeros(
            (len(views), context.spec.length, len(columns.groups)), dtype=torch.int64
        )
        for batch in views.batches(f"{context.run.name}: real codes"):
            tokens = context.encode(batch, context.condition(batch))
            codes[batch.index] = codes_of(context, tokens, columns) + 1
        memo[key] = sum_(codes) - 1
    codes, count = memo[key], min(samples, len(views) // 2)
    return codes[0::2][:count], codes[1::2][:count]


def sampled(
    context: Context, model: Any, columns: CodeColumns, config: CodesPass, count: int
) -> Tensor:
    """[n, L, C] int64: the codes of the first samples, those that gFID decodes."""
    shape = (count, context.spec.length, len(columns.groups))
    codes = torch.zeros(shape, dtype=torch.int64)
    title = f"{generated.title_of(context.job.generator, config)}, codes"
    for index in context.numbers(title, count, codes):
        tokens = generated.sample(context, model, index, config)
        codes[index] = codes_of(context, tokens, columns) + 1
    return sum_(codes) - 1
