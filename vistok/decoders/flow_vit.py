"""Flow decoder on a ViT: registers condition a rectified flow by concatenation (FlexTok, arXiv
2502.13967, figure 2).

Patches of the noisy sample and the values go through one transformer, which the time modulates;
the patches' rows become the velocity. A value that is missing is overwritten by a learned vector
*after* its position was added (`missing: mask_token`) or not attended (`missing: drop`). For the
unconditional prediction all values are overwritten, whatever was missing (`null`).
Letters: B batch, g patches, M values, W width, D width of the values, C channels of the space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from vistok.config.registry import register
from vistok.core.errors import InputError
from vistok.core.records import Condition, Noisy
from vistok.core.shapes import Grid, Shape, cells
from vistok.decoders.base import prefix_of
from vistok.decoders.flow import (
    Embedded,
    FlowDecoder,
    FlowDecoderConfig,
    FlowSamplingConfig,
)
from vistok.decoders.given import GivenConfig, overwritten, values_of
from vistok.layers.fitted_positions import FittedPositions, FittedPositionsConfig
from vistok.layers.masks import causal_last, joined
from vistok.layers.modulation import Modulation, SinusoidsConfig, TimeEmbedding, modulate
from vistok.layers.patchify import PatchEmbed, PatchesConfig, Unpatchify
from vistok.layers.positions import PositionTable
from vistok.layers.time_masks import STEPPED, EarlierBlocks, check_steps, steps_apart
from vistok.layers.transformer import (
    Transformer,
    TransformerConfig,
    check_taps,
    init_weights,
)

Overwrite = Literal["missing", "given", "null"]


class FlowViTConfig(FlowDecoderConfig):
    kind: Literal["flow_vit"] = "flow_vit"
    patches: PatchesConfig = PatchesConfig(size=2)
    """Patches of the output space."""
    transformer: TransformerConfig = TransformerConfig(
        norm_eps=1e-5,
        norm_affine=False,
        qk_norm=True,
        qk_norm_kind="layernorm",
        qk_norm_affine=False,
        attention_scale="mup",
        mlp="swiglu",
        mlp_hidden="two_thirds",
        bias=False,
        modulation_kinds=2,
        init="xavier",
        branch_scale="none",
    )
    """The time modulates it, with `modulation_kinds: 2` patches and values each by their own
    layers; `modulation` stays null, it is the width."""
    time: SinusoidsConfig = SinusoidsConfig(max_period=256.0, scale_frequencies=True)
    """Sinusoids of the time."""
    time_steps: bool = False
    """Values lie in blocks, one for each time step of the patches (VideoFlexTok)."""
    attention: Literal["full", "causal", "causal_values", *STEPPED] = "full"
    """full: all see all; causal: each position those before it, patches in front; causal_values:
    patches see patches, value i sees patches and values 0..i. With time_steps, of each step,
    patches in front: causal; time_block_causal: a step sees itself and those before it;
    time_block_causal_last: of itself as causal_values; flexible_...: and of those before it what
    `earlier` says."""
    earlier: EarlierBlocks | None = None
    """Attention to earlier time steps, of the flexible attention; null = to all."""
    given: GivenConfig | None = None
    """Training with given first frames, of clips with time_steps; null = none."""
    value_positions: FittedPositionsConfig | None = FittedPositionsConfig(kind="sum")
    """Table of the values' positions; null = none."""
    missing: Literal["mask_token", "drop", "refuse"] = "mask_token"
    """Stand-in for a missing value: a learned vector, nothing, or none: only whole sequences can
    be decoded."""
    null: Literal["learned", "zero", "single", "none"] = "learned"
    """All values of the unconditional prediction: one learned vector in each place, zeros, the
    vector in one place alone; none: it has as many missing values, and training knows no null."""
    overwrites: tuple[Overwrite, ...] = ("missing", "given", "null")
    """Order in which missing values, those of given time steps and those of the unconditional
    prediction are overwritten: the last one wins."""
    start: Literal["zero", "random"] = "zero"
    """zero: the last layer and all modulations start at zero, so that the first step teaches them
    alone (DiT); random: the last layer as the others, modulations with std 0.02."""
    head_modulation: bool = True
    """The time also shifts and scales the rows before the last layer."""
    taps: dict[str, int] = Field(default_factory=dict)
    """Features for losses: name -> number of the block whose rows [B, g, W] are given."""

    @model_validator(mode="after")
    def _agrees(self) -> FlowViTConfig:
        check_taps(self.taps, self.transformer)
        check_steps(self.attention, self.earlier, self.time_steps)
        if self.given is not None and not (self.time_steps and self.patches.frames == 1):
            raise InputError("given needs time_steps=true and patches.frames=1")
        if sorted(self.overwrites) != ["given", "missing", "null"]:
            raise InputError(
                f"overwrites={list(self.overwrites)}: expected missing, given and null in an order"
            )
        if self.overwrites[-1] != "null" and self.null == "single":
            raise InputError("null=single is one place alone; expected null last in overwrites")
        if self.transformer.modulation not in (None, self.transformer.width):
            raise InputError(
                f"transformer.modulation={self.transformer.modulation}: the time has the width "
                f"{self.transformer.width}; leave it out"
            )
        if self.transformer.modulation_kinds > 2:
            raise InputError(
                f"transformer.modulation_kinds={self.transformer.modulation_kinds}; expected 1, or "
                "2: patches and values"
            )
        if self.patches.class_token:
            raise InputError("patches.class_token=true: this decoder has none; leave it out")
        return self

    @classmethod
    def tiny(cls) -> FlowViTConfig:
        return cls(
            patches=PatchesConfig(size=4),
            transformer=cls().transformer.model_copy(update={"width": 16, "depth": 1, "heads": 2}),
            time=SinusoidsConfig(channels=8, max_period=256.0, scale_frequencies=True),
            sampling=FlowSamplingConfig(steps=2),
        )


@register("decoder", FlowViTConfig)
class FlowViT(FlowDecoder):
    whole_taps: bool = False
    """True: taps hold the rows of the values too, behind those of the patches; the last block then
    works for all positions."""

    def __init__(
        self, config: FlowViTConfig, shape: Shape, grids: Sequence[Grid], dim: int
    ) -> None:
        """
        Args:
            shape: of the output space; sides are multiples of the patches'.
            grids: of the M values. dim: D, the width of a value.
        """
        super().__init__()
        self.config, self.shape = config, shape
        self.times, self.sampling = config.times, config.sampling
        self.reads_null = config.null != "none"
        self.prefix = prefix_of(config.missing, grids)
        inner, patches = config.transformer, config.patches
        width, grid, count = inner.width, patches.grid(shape), sum(map(cells, grids))
        self.given, self.steps = config.given, None
        if config.time_steps:
            self.steps = _steps(grid, grids)
        if config.given is not None:
            config.given.check(grid[0])
        inner = inner.model_copy(update={"modulation": width})
        self.cells, self.count = cells(grid), count
        self.embed_values = nn.Linear(dim, width)
        self.value_positions = None
        if config.value_positions is not None:
            rows = (count,) if self.steps is None else (self.steps, count // self.steps)
            self.value_positions = FittedPositions(config.value_positions, rows, width)
        vector = lambda: nn.Parameter(nn.init.trunc_normal_(torch.empty(width), std=0.02))
        if config.missing == "mask_token":
            self.missing_token = vector()
        if config.null in ("learned", "single"):
            self.null_token = vector()
        if config.given is not None and config.given.hidden:
            self.given_token = vector()
        self.patch_embed = PatchEmbed(patches, shape, width)
        self.positions = PositionTable(patches.positions, grid, width, patches.position_base)
        self.time = TimeEmbedding(width, **config.time.model_dump())
        self.transformer = Transformer(inner)
        self.modulation = Modulation(width, width, 2) if config.head_modulation else None
        self.unpatchify = Unpatchify(patches, shape, width)
        self.register_buffer("mask", self._mask(), persistent=False)
        init_weights(self, inner)
        if config.start == "zero":
            nn.init.zeros_(self.unpatchify.proj.weight)
        else:
            for module in self.modules():
                if isinstance(module, Modulation):
                    nn.init.normal_(module.proj.weight, std=0.02)

    def _mask(self) -> Tensor | None:
        """[L, L] bool; None where all see all."""
        if self.steps is not None:
            sizes = (self.steps, self.cells // self.steps, self.count // self.steps)
            return steps_apart(self.config.attention, *sizes, self.config.earlier)
        if self.config.attention == "full":
            return None
        if self.config.attention == "causal_values":
            return causal_last(self.cells, self.count)
        total = self.cells + self.count
        return torch.ones(total, total, dtype=torch.bool).tril()

    # -- once per image -------------------------------------------------------------------------

    def embed(
        self, values: Tensor, present: Tensor | None, condition: Condition | None
    ) -> Embedded:
        """values [B, M, D] -> what the transformer sees of them [B, M, W]."""
        config = self.config
        x = self.embed_values(values.to(self.embed_values.weight.dtype))
        if self.value_positions is not None:
            x = x + self.value_positions().to(x.dtype)
        if present is not None and config.missing == "refuse":
            raise InputError(
                "this decoder cannot leave values out (missing: refuse); set decoder.missing to "
                "mask_token or drop and train with a length regularizer"
            )
        for what in config.overwrites:
            if what == "missing" and config.missing == "mask_token":
                # Where nothing is missing too: a parameter that is in no graph stops DDP.
                shown = self._all(x) if present is None else present
                x, present = overwritten(x, ~shown, self.missing_token), None
            elif what == "given" and self.given is not None and self.given.hidden:
                x = overwritten(x, self._of_given(x, condition), self.given_token)
            elif what == "null" and self.reads_null:
                x, seen = self._nulls(x, present, values, condition)
                later = config.overwrites.index("missing") > config.overwrites.index("null")
                # Values that are missing are overwritten too where that comes last.
                present = present if later and config.missing == "mask_token" else seen
        return Embedded(x, present)

    def _of_given(self, x: Tensor, condition: Condition | None) -> Tensor:
        """[B, M] bool: values of given time steps."""
        if condition is None or condition.given is None:
            return torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)
        return values_of(condition.given.to(x.device), self.steps, self.count // self.steps)

    def _nulls(
        self, x: Tensor, present: Tensor | None, values: Tensor, condition: Condition | None
    ) -> tuple[Tensor, Tensor | None]:
        """x [B, M, W] and `present`, those of unconditional samples replaced."""
        null = None if condition is None else condition.null
        nulls = torch.zeros_like(self._all(x)[:, :1]) if null is None else null[:, None]
        nothing = self.embed_nothing(values, None)
        x = torch.where(nulls[..., None], nothing.values.to(x.dtype), x)
        if present is not None or (nothing.present is not None and null is not None):
            shown = self._all(x) if present is None else present
            of_null = self._all(x) if nothing.present is None else nothing.present
            present = torch.where(nulls, of_null, shown)
        return x, present

    def embed_nothing(self, values: Tensor, condition: Condition | None) -> Embedded:
        if not self.reads_null:
            return super().embed_nothing(values, condition)
        batch, width = len(values), self.config.transformer.width
        if self.config.null == "zero":
            return Embedded(values.new_zeros(batch, self.count, width))
        rows = Embedded(self.null_token.expand(batch, self.count, width))
        if self.config.null == "learned":
            return rows
        first = torch.arange(self.count, device=values.device) == 0
        return Embedded(rows.values, first.expand(batch, -1))

    def embed_alone(
        self, values: Tensor, present: Tensor | None, condition: Condition | None
    ) -> Embedded:
        """Rows that are equal stay equal in every block, where all see all: the missing values
        become one row that counts for as many. A prefix then costs what it is long."""
        whole = self.embed(values, present, condition)
        told = condition is not None and (condition.null is not None or self._holds(condition))
        mask_token = self.config.missing == "mask_token" and self.config.attention == "full"
        if present is None or told or not mask_token:
            return whole
        kept = present.sum(1)
        rows = min(int(kept.max()) + 1, self.count)  # known once per image, not at every time
        order = present.int().argsort(dim=1, descending=True, stable=True)[:, :rows]
        x = whole.values.gather(1, order[..., None].expand(-1, -1, whole.values.shape[-1]))
        place = torch.arange(rows, device=x.device)
        counts = (place < kept[:, None]).long()
        missing = self.count - kept[:, None]
        return Embedded(x, counts=torch.where(place == kept[:, None], missing, counts))

    def embed_guided(
        self, values: Tensor, present: Tensor | None, condition: Condition | None
    ) -> tuple[Embedded, Embedded, bool]:
        """The unconditional prediction's values are equal too, so one row stands for them all."""
        one = self.embed_alone(values, present, condition)
        if self.reads_null and (self._holds(condition) or self.config.overwrites[-1] != "null"):
            every = torch.ones(len(values), dtype=torch.bool, device=values.device)
            null = replace(condition or Condition(), null=every)
            return self.embed(values, present, condition), self.embed(values, present, null), True
        nothing = self.embed_nothing(values, condition)
        if self.config.null not in ("learned", "zero") or self.config.attention != "full":
            return one, nothing, True
        rows = one.values.shape[1]
        if rows <= self.cells // 4 and one.counts is not None:  # filled up, it is one batch
            counts = torch.zeros_like(one.counts)
            counts[:, 0] = self.count
            return one, Embedded(nothing.values[:, :rows], counts=counts), True
        counts = torch.full((len(values), 1), self.count, device=values.device)
        return one, Embedded(nothing.values[:, :1], counts=counts), False

    def _holds(self, condition: Condition | None) -> bool:
        """True if a condition gives frames whose values are overwritten by a vector."""
        told = condition is not None and condition.given is not None
        return told and self.given is not None and self.given.hidden

    @staticmethod
    def _all(x: Tensor) -> Tensor:
        """[B, M] bool: all of them."""
        return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)

    # -- at every time --------------------------------------------------------------------------

    def velocity(
        self, noisy: Noisy, values: Tensor, present: Tensor | None, condition: Condition | None
    ) -> Tensor:
        return self.tapped(noisy, Embedded(values, present))[0]

    def tapped(self, noisy: Noisy, embedded: Embedded) -> tuple[Tensor, dict[str, Tensor]]:
        values, present, taps = embedded.values, embedded.present, self.config.taps
        patches = self.positions(self.patch_embed(noisy.x.to(self.embed_values.weight.dtype)))
        y = torch.cat([patches, values.to(patches.dtype)], dim=1)
        vector = self.time(noisy.time)
        mask = self._seen(embedded, present)
        kinds = self.config.transformer.modulation_kinds
        rows, seen = self.transformer.tapped(
            y,
            taps.values(),
            mask=mask,
            only=None if self.whole_taps else slice(0, self.cells),
            vector=vector,
            lengths=(self.cells, values.shape[1]) if kinds == 2 else None,
        )
        rows = rows[:, : self.cells]
        if self.modulation is not None:
            rows = modulate(rows, *self.modulation(vector))
        return self.unpatchify(rows), {name: seen[i] for name, i in taps.items()}

    def _seen(self, embedded: Embedded, present: Tensor | None) -> Tensor | None:
        """Mask of the attention; None where all see all."""
        if embedded.counts is not None:
            # n equal keys weigh as much as one whose score is larger by log n.
            bias = embedded.counts.float().log()[:, None, None]
            return nn.functional.pad(bias, (self.cells, 0))
        pieces = (self.cells, self.count if present is None else present)
        mask = joined(*pieces, batch=len(embedded.values), device=embedded.values.device)
        if self.mask is not None:
            mask = self.mask if mask is None else self.mask & mask
        return mask

    @property
    def last_layer(self) -> nn.Parameter:
        return self.unpatchify.last_layer


def _steps(grid: Grid, grids: Sequence[Grid]) -> int:
    """Time steps of patches and values; InputError unless there is one block of values for each."""
    if len(grid) != 3 or len(grids) != grid[0] or len(set(grids)) > 1:
        raise InputError(
            f"time_steps: values lie on {len(grids)} grids, patches on {grid}; expected a clip and "
            "one list of values for each time step of its patches"
        )
    return grid[0]
