"""One sampling run of a sequential generator: its rows, its caches, and how far it is.

    run = Decoding(model, condition, samples, positions, guided=True)
    hidden = run.begin()          # [R, 1, W], predicts position 0
    hidden = run.feed(codes)      # [R, n, W], of the n positions fed; row j predicts the next one
    run.rollback(position)        # what was fed from there on is forgotten

Slots in front of the sequence hold the condition, slot S + i the code of position i. Rows of a
batch may be at different places: `rollback` then takes a position for each sample.
Letters: B batch, F factors, L positions, W width, S slots in front, R rows (B, or 2B with guidance:
conditional, then unconditional), n positions that are fed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vistok.core.errors import InputError
from vistok.core.records import Condition
from vistok.generators.static_step import StaticSteps
from vistok.layers.attention import Attention, KVCache
from vistok.layers.packed import run_copy
from vistok.layers.segments import SegmentedCache

if TYPE_CHECKING:
    from vistok.generators.sequential import SequentialGenerator


class Decoding:
    """State of one sampling run.

    Args:
        model: in evaluation mode.
        condition: of the B samples.
        positions: how many of the first positions are sampled; at most L.
        guided: True = unconditional rows follow the conditional ones.
        cache: keep keys and values of past slots; False runs the whole sequence at every call.
        fast: with a cache: steps on packed weights (CPUs), or as one captured graph (CUDA).
        dtype: of weights and caches; None = as the model's are.
        single: positions will be fed one by one, for which CPUs have a faster cache.

    Attributes:
        model: what runs: with `fast` or another dtype a copy, which lives as long as the run. Its
            head predicts from the states that `begin` and `feed` give.
        position: number of positions that are fed; [B] after a rollback to several places.
    """

    position: int | Tensor

    def __init__(
        self,
        model: SequentialGenerator,
        condition: Condition,
        samples: int,
        positions: int,
        *,
        guided: bool = False,
        cache: bool = True,
        fast: bool = True,
        dtype: torch.dtype | None = None,
        single: bool = False,
    ) -> None:
        fast = fast and cache
        if fast or dtype is not None:
            model = run_copy(model, dtype, pack=fast)
        self.model, self.samples, self.position = model, samples, 0
        self.start, self.text = model.start(condition, samples), model.texts_of(condition, samples)
        if guided:
            nothing = Condition(prefix=condition.prefix)  # known frames are no part of guidance
            self.start = torch.cat([self.start, model.start(nothing, samples)])
            free = model.texts_of(nothing, samples)
            self.text = {name: one.join(free[name]) for name, one in self.text.items()}
        # Keys in front of the slots, and the last slot that there is room for.
        self.front = sum(one.keys for one in self.text.values())
        self.last = self.start.shape[1] + positions - 1
        self.sequence, self.caches = self.start, None
        if cache:
            capacity = self.front + self.last + 1
            kind = SegmentedCache if fast and single and self._single() else KVCache
            self.caches = model.transformer.new_caches(self.rows, capacity, self.start, kind)
        self.steps = StaticSteps(self, fast)

    @property
    def rows(self) -> int:
        """R."""
        return len(self.start)

    def begin(self, codes: Tensor | None = None) -> Tensor:
        """Read the slots in front: hidden state [R, 1, W] that predicts position 0; with the codes
        [B, n, F] of the first positions, [R, 1 + n, W] that predict one more."""
        x, slots = self.start, self.start.shape[1]
        if codes is not None:
            fed = self.model.embed(codes).repeat(self.rows // self.samples, 1, 1)
            x, self.position = torch.cat([x, fed], dim=1), codes.shape[1]
            self.sequence = x
        return self.model.run(x, 0, self.start, self.caches, **self.text)[:, slots - 1 :]

    def feed(self, codes: Tensor) -> Tensor:
        """Read the codes [B, n, F] of the next n positions: hidden states [R, n, W], each of which
        predicts the position behind its own.

        Samples may be fed beyond their last position: such states mean nothing, and disturb none.
        """
        x = self.model.embed(codes).repeat(self.rows // self.samples, 1, 1)
        count = x.shape[1]  # of windows of codes, where the model merges them
        first = self.start.shape[1] + self.position
        self.position = self.position + count
        if self.caches is None:
            self.sequence = torch.cat([self.sequence, x], dim=1)
            return self.model.run(self.sequence, 0, self.start, **self.text)[:, -count:]
        if self.steps.on:
            hidden = self.steps.feed(x, self._slots(first, count))
            if hidden is not None:
                return hidden
        if isinstance(first, Tensor):
            first = self._slots(first, count)
            places = first + self.front
            # Reading a number back from another device would make it wait.
            self.place(places, int(places.max()) + 1 if places.device.type == "cpu" else None)
        else:
            for cache in self.caches:
                cache.length, cache.places = self.front + first, None
        return self.step(x, first)

    def rollback(self, position: int | Tensor) -> None:
        """Back to an earlier number of positions fed: one for all samples, or [B]."""
        if self.caches is None:
            if isinstance(position, Tensor):
                raise InputError("cache=False: samples cannot be at different places; keep a cache")
            self.sequence = self.sequence[:, : self.start.shape[1] + position]
        self.position = position

    # -- pieces ---------------------------------------------------------------------------------

    def step(self, x: Tensor, first: int | Tensor) -> Tensor:
        """Run the embedded codes [R, n, W] at the slots first.., or [R, n]; the caches are set."""
        return self.model.run(x, first, self.start, self.caches, **self.text)

    def place(self, places: Tensor, reach: int | None) -> None:
        """Tell the caches where the next keys of each row [R, n] belong, and how many are read."""
        for cache in self.caches:
            cache.places, cache.reach = places, reach

    def _single(self) -> bool:
        """True if the cache for single steps serves: on a CPU, without texts in front of the keys
        (masked), and for plain attention."""
        layers = (one for one in self.model.transformer.modules() if isinstance(one, Attention))
        on_cpu = self.start.device.type == "cpu"
        return on_cpu and not self.text and all(one.plain for one in layers)

    def _slots(self, first: int | Tensor, count: int) -> Tensor:
        """Slots [R, n] of the next n positions; the last one stands for those behind it."""
        steps = torch.arange(count, device=self.start.device)
        if isinstance(first, Tensor):
            first = first[:, None]
        slots = (first + steps).clamp(max=self.last).expand(self.samples, -1)
        return slots.repeat(self.rows // self.samples, 1)
