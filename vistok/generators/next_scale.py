"""Next-scale prediction (VAR, arXiv 2404.02905): all tokens of a scale at once from the sum of the
earlier scales, which the tokenizer's quantizer makes.

The first scale is predicted from the condition. The input of a later one is the sum of all before
it, averaged onto its grid; its tokens see each other and all earlier scales, and are independent
given those. STAR (arXiv 2406.10797) is the form with text: no modulation, attention to the text in
every block, rotary positions that span all grids alike.
A copy of the quantizer, which never trains, is saved with the generator.
Letters: B batch, L positions, K kept positions, S scales, F factors, W width, d width of the sums,
R rows (guidance doubles B).
"""

from __future__ import annotations

import itertools
import math
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from vistok.config import PartOf
from vistok.config.registry import register
from vistok.core.draws import Draws, PartDraws
from vistok.core.errors import InputError
from vistok.core.records import Condition
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.core.shapes import Grid
from vistok.generators.base import Generator, GeneratorConfig
from vistok.generators.conditioning import ConditionTokens, LayerTexts
from vistok.generators.guidance import GuidanceConfig, guide
from vistok.generators.heads import check_choice, choose_head, make_head
from vistok.generators.sampling import ChoiceConfig, choose
from vistok.generators.scale_sums import copied_quantizer
from vistok.layers.positions import grid_positions, new_levels, rotary_table
from vistok.layers.scale_transformer import ScaleTransformer, ScaleTransformerConfig
from vistok.layers.text_transformer import LayerText
from vistok.tokens import Tokens, TokenSpec


class NextScaleSampling(ChoiceConfig, GuidanceConfig):
    """Sampling settings of the next-scale generator; a step is a scale."""

    guidance_schedule: Literal["constant", "linear", "power", "cosine"] = "linear"
    """Growth of the scale from `guidance_start` to `guidance`, from the first scale to the last."""
    cache: bool = True
    """Keep keys and values of past scales; false runs the whole sequence at every scale."""


class NextScaleConfig(GeneratorConfig):
    kind: Literal["next_scale"] = "next_scale"
    transformer: ScaleTransformerConfig = ScaleTransformerConfig()
    quantizer: Annotated[Any, PartOf("quantizer")] | None = None
    """Quantizer whose sums of scales are read: that of the tokenizer whose tokens are learned; it
    stands in the config of a saved generator. A recipe names it for a dry run alone."""
    head: Literal["joint", "independent", "causal", "bernoulli", "bit_rounds"] | None = None
    """Prediction of a position's factors. null: joint for one factor, bernoulli for bits, causal
    for other factors; bit_rounds: bits that see those of earlier rounds."""
    head_rounds: int = Field(default=4, ge=1, le=64)
    """Rounds of head=bit_rounds."""
    regroup: tuple[int, ...] | None = None
    """Vocabulary to model instead of the tokenizer's, with the same product: [64, 4096] for
    2**18."""
    positions: Literal["learned", "rope"] = "learned"
    """learned: a table; rope: rotary, columns and rows of every grid from 0 to `rope_extent`, so
    that a place has the same angles in all scales (STAR)."""
    rope_extent: float = Field(default=64.0, gt=0, allow_inf_nan=False)
    rope_base: float = Field(default=10000.0, gt=1, allow_inf_nan=False)
    max_length: int | None = Field(default=None, ge=1)
    """Positions of a sample that training reads; the others are drawn at random from the scales
    `drop_from`.. and left out (STAR at 1024 pixels: 8800); null = all."""
    drop_from: int = Field(default=1, ge=1)
    """Number of the first scale, from 0, that may lose positions (STAR: 13)."""
    sampling: NextScaleSampling = NextScaleSampling()
    """Default settings of sampling; they are saved with the model."""

    @classmethod
    def tiny(cls) -> NextScaleConfig:
        return cls(transformer=ScaleTransformerConfig.tiny())

    @property
    def wants_codes(self) -> bool:
        return True

    @model_validator(mode="after")
    def _fits(self) -> NextScaleConfig:
        text, trunk = self.condition.text, self.transformer
        if text is not None and text.layers not in (1, trunk.depth):
            raise InputError(
                f"condition.text.layers={text.layers}: kind=next_scale reads text in its blocks; "
                f"expected 1, or {trunk.depth}: a layer for each block"
            )
        if self.positions == "rope" and trunk.head_dim % 4:
            raise InputError(
                f"positions=rope turns columns and rows by pairs of channels; expected heads whose "
                f"width, {trunk.head_dim}, is a multiple of 4"
            )
        return self


@register("generator", NextScaleConfig)
class NextScale(Generator):
    """Predicts each scale from the condition and the sum of the scales before it."""

    metrics = ("nll", "bits_per_image")
    judged_by = ("nll", -1)
    takes_known = True

    def __init__(
        self, config: NextScaleConfig, spec: TokenSpec, codes: nn.Module | None = None
    ) -> None:
        super().__init__(config, spec)
        self.inner = spec if config.regroup is None else spec.regroup(config.regroup)
        self.sums, chosen = copied_quantizer(codes, config.quantizer, spec)
        self.config = config = config.model_copy(update={"quantizer": chosen})
        text, width = config.condition.text, config.transformer.width
        self.condition = ConditionTokens(config.condition, width)
        self.texts = None if text is None else LayerTexts(text)
        self.embed = nn.Linear(self.sums.value_dim, width)
        self.transformer = ScaleTransformer(config.transformer, None if text is None else text.dim)
        self.starts = list(itertools.accumulate(spec.block_lengths, initial=0))
        self.start_table = new_levels(spec.block_lengths[0], width)
        self.levels = new_levels(len(spec.blocks), width)
        level = [number for number, n in enumerate(spec.block_lengths) for _ in range(n)]
        self.register_buffer("level", torch.tensor(level), persistent=False)
        self.position_table = None
        if config.positions == "learned":
            self.position_table = new_levels(spec.length, width)
        else:
            places = torch.cat([_spread(grid, config.rope_extent) for grid in spec.blocks])
            cos, sin = rotary_table(places, config.transformer.head_dim, config.rope_base)
            self.register_buffer("rotary_cos", cos, persistent=False)
            self.register_buffer("rotary_sin", sin, persistent=False)
        self.kept = self._kept_length()
        self.transformer.initialize()
        for layer in (self.embed, *self.condition.modules()):
            if isinstance(layer, nn.Linear | nn.Embedding):
                nn.init.trunc_normal_(layer.weight, std=(3 * width) ** -0.5)
                if isinstance(layer, nn.Linear):
                    nn.init.zeros_(layer.bias)
        # Heads start from zero, so the first loss is log V exactly.
        self.head_kind = config.head or choose_head(self.inner.vocab)
        self.head = make_head(
            self.head_kind, width, self.inner.vocab, bias=True, rounds=config.head_rounds
        )

    @classmethod
    def unable(cls, config: NextScaleConfig, spec: TokenSpec) -> str | None:
        reason = super().unable(config, spec)
        if reason is not None:
            return reason
        grids, vocab = spec.blocks, set(spec.vocab)
        flat = any(len(grid) != 2 for grid in grids)
        pairs = list(itertools.pairwise(grids))
        falls = flat or any(a > b for one, two in pairs for a, b in zip(one, two, strict=True))
        if flat or falls or grids[0] == grids[-1]:
            return "models scales: grids (height, width) that grow from the first block to the last"
        if len(vocab) > 1:
            return "reads sums of a multi_scale quantizer, whose factors are all of one size"
        return None

    # -- the network ----------------------------------------------------------------------------

    @torch.no_grad()
    def summed(self, indices: Tensor, scale: int) -> Tensor:
        """Input of a scale above the first: the sum of those before it, on its grid [B, n, d].

        Args:
            indices: [B, L, F] in the tokenizer's vocabulary; those of later scales do not matter.
        """
        return self.sums.partial(indices, scale, self.spec.blocks[scale])

    def inputs(self, indices: Tensor) -> Tensor:
        """Inputs of all scales above the first, one behind the other: [B, L - n, d]."""
        count = len(self.spec.blocks)
        return torch.cat([self.summed(indices, scale) for scale in range(1, count)], dim=1)

    def places(self) -> Tensor:
        """What is added to each position's input [L, W]: its level, and its row of the table."""
        places = self.levels[self.level]
        return places if self.position_table is None else places + self.position_table

    def rotary(self, rows: slice | Tensor) -> tuple[Tensor, Tensor] | None:
        """cos and sin of some positions [n, d / 2], or [B, K, d / 2] of the places [B, K]."""
        if self.config.positions == "learned":
            return None
        return self.rotary_cos[rows], self.rotary_sin[rows]

    def text_of(
        self, condition: Condition, batch: int, null: Tensor | None = None
    ) -> LayerText | None:
        return None if self.texts is None else self.texts(condition, batch, null)

    def hidden(
        self,
        indices: Tensor,
        condition: Condition,
        null: Tensor | None = None,
        order: Tensor | None = None,
    ) -> Tensor:
        """States [B, L, W] that predict the tokens of indices [B, L, F], in the tokenizer's
        vocabulary; [B, K, W] of the places `order` [B, K], which alone are read and seen."""
        batch = len(indices)
        vector = self.condition(condition, batch, null)[:, 0]
        first = vector[:, None] + self.start_table
        x = torch.cat([first, self.embed(self.inputs(indices).to(first.dtype))], dim=1)
        x = x + self.places()
        level, rotary = self.level, self.rotary(slice(None))
        if order is not None:
            x = x.gather(1, order[..., None].expand(-1, -1, x.shape[-1]))
            level, rotary = level[order], self.rotary(order)
            if rotary is not None:
                rotary = tuple(table[:, None] for table in rotary)
        mask = level[..., :, None] >= level[..., None, :]
        mask = mask if order is None else mask[:, None]
        text = self.text_of(condition, batch, null)
        return self.transformer(x, vector, rotary, mask, text=text)

    # -- training -------------------------------------------------------------------------------

    def draw(self, index: Tensor, rng: Rng, progress: Progress) -> Draws:
        """Draws of a step: `null`, and the positions [B, L] that are read, if not all are.

        STAR drops the same positions of all samples; here each sample draws its own.
        """
        draws, length = super().draw(index, rng, progress), self.spec.length
        if self.kept == length:
            return draws
        first = self.starts[self.config.drop_from]
        u = rng.child("positions").uniform(index, (length - first,))
        rank = u.argsort(dim=1).argsort(dim=1)
        mask = torch.ones(len(index), length, dtype=torch.bool)
        mask[:, first:] = rank < self.kept - first
        return draws.join(Draws(parts={"generator": PartDraws(mask=mask)}))

    def nats(self, tokens: Tokens, condition: Condition, draws: Draws | None = None) -> Tensor:
        """Negative log-likelihood [B, L] of each position; 0 behind the prefix of cut tokens, and
        of positions that the draws leave out."""
        draws = draws or Draws()
        mask, indices = draws.part("generator").mask, tokens.indices.long()
        target, order = self.regrouped(tokens).indices.long(), None
        if mask is not None:
            mask = mask.to(indices.device)
            order = mask.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
            order = order[:, : self.kept]
            target = target.gather(1, order[..., None].expand(-1, -1, target.shape[-1]))
        nats = self.head(self.hidden(indices, condition, draws.null, order), target)
        if order is not None:
            nats = nats.new_zeros(mask.shape).scatter(1, order, nats)
        return nats if tokens.keep is None else nats * tokens.kept()

    def forward(
        self, tokens: Tokens, condition: Condition, draws: Draws | None = None
    ) -> dict[str, Tensor]:
        """loss: nats per position that is read; bits_per_image: length of an arithmetic code, of
        positions that are left out estimated by the others of their scales."""
        nats = self.nats(tokens, condition, draws)
        length = self.spec.length
        loss = nats.mean() * (length / self.kept)
        bits = nats.detach().sum(-1).mean()
        if self.kept < length:
            first = self.starts[self.config.drop_from]
            more = (length - first) / (self.kept - first) - 1
            bits = bits + nats.detach()[:, first:].sum(-1).mean() * more
        return {"loss": loss, "bits_per_image": bits / math.log(2)}

    @torch.no_grad()
    def evaluate(
        self, tokens: Tokens, condition: Condition
    ) -> dict[str, tuple[Tensor | float, int]]:
        """nll: nats per position; bits_per_image: length of an arithmetic code."""
        nats = self.nats(tokens, condition)
        total = float(nats.double().sum())
        return {
            "nll": (total, nats.numel()),
            "bits_per_image": (total / math.log(2), len(nats)),
        }

    # -- sampling -------------------------------------------------------------------------------

    @property
    def can_stop(self) -> bool:
        return self.spec.prefix == "block"

    def check_settings(self, settings: NextScaleSampling) -> None:
        check_choice(self.head_kind, settings.narrows)

    def generate(
        self, condition: Condition, index: Tensor, seed: int, positions: int, settings: Any
    ) -> Tokens:
        spec, samples, count = self.spec, len(index), len(self.spec.blocks)
        vector, text = self.condition(condition, samples)[:, 0], self.text_of(condition, samples)
        if settings.guided:
            vector = torch.cat([vector, self.condition(Condition(), samples)[:, 0]])
            text = None if text is None else text.join(self.text_of(Condition(), samples))
        factors, device = len(self.inner.vocab), vector.device
        u = Rng(seed, "sampling").uniform(index, (spec.length, factors)).to(device)
        chosen = torch.zeros(samples, spec.length, len(spec.vocab), dtype=torch.long, device=device)
        known = None if condition.known is None else condition.known.indices.long()
        places, sequence, caches = self.places(), None, None
        if settings.cache:
            caches = self.transformer.new_caches(len(vector), positions, vector)
        for scale, (start, stop) in enumerate(itertools.pairwise(self.starts)):
            if start >= positions:
                break
            if scale:
                x = self.embed(self.summed(chosen, scale).to(vector.dtype))
                x = x.repeat(len(vector) // samples, 1, 1)
            else:
                x = vector[:, None] + self.start_table
            x = x + places[start:stop]
            if settings.cache:
                rotary = self.rotary(slice(start, stop))
                hidden = self.transformer(x, vector, rotary, caches=caches, text=text)
            else:
                sequence = torch.cat([sequence, x], dim=1) if scale else x
                level = self.level[:stop]
                mask, rotary = level[:, None] >= level, self.rotary(slice(stop))
                hidden = self.transformer(sequence, vector, rotary, mask, text=text)[:, start:]
            push, rows = settings.scale_at(scale / (count - 1)), samples * (stop - start)
            numbers = u[:, start:stop].flatten(0, 1)

            def pick(
                logits: Tensor, f: int, push: float = push, rows: int = rows, u: Tensor = numbers
            ) -> Tensor:
                return choose(guide(logits, push, rows), u[:, f], settings)

            codes = self.head.sample(hidden.flatten(0, 1), pick).view(samples, -1, factors)
            codes = self.tokens_of(codes).indices.long()
            if known is not None:
                taken = condition.known_mask[:, start:stop, None]
                codes = torch.where(taken, known[:, start:stop], codes)
            chosen[:, start:stop] = codes
        return Tokens(spec, indices=chosen.to(Tokens.dtype(spec)))

    # -- pieces ---------------------------------------------------------------------------------

    def summary(self) -> dict[str, object]:
        return {
            **super().summary(),
            "scales": len(self.spec.blocks),
            "vocabulary": " x ".join(map(str, self.inner.vocab)),
            "head": self.head_kind,
        }

    def _kept_length(self) -> int:
        """K; InputError for a length that leaves the scales from `drop_from` on without any."""
        longest, first = self.config.max_length, self.config.drop_from
        if longest is None or longest >= self.spec.length:
            return self.spec.length
        if first >= len(self.spec.blocks) or longest <= self.starts[first]:
            raise InputError(
                f"max_length={longest}, drop_from={first}: the scales before it, of "
                f"{len(self.spec.blocks)}, are never cut; expected drop_from < "
                f"{len(self.spec.blocks)} and max_length above what lies before it"
            )
        return longest


def _spread(grid: Grid, extent: float) -> Tensor:
    """Columns and rows [cells, 2] of a grid, from 0 to `extent` whatever its sides."""
    last = torch.tensor([max(side - 1, 1) for side in grid])
    return (grid_positions(grid) / last * extent).flip(-1)
