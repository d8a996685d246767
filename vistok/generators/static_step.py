"""A step of a sampling run whose shapes never change, captured as a CUDA graph.

On a GPU a step of a few rows takes less time than the host needs to launch its kernels. A graph
launches all of them at once, but only with the shapes and addresses of its capture: so the numbers
of the slots that are fed are a tensor, keys and values are written where it says, all keys there is
room for are read, and a mask made of it hides those that are not there yet.
Letters: W width, R rows, n positions that are fed.
"""

from __future__ import annotations

import warnings
import weakref
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from vistok.generators.decoding import Decoding


class StaticStep:
    """Feeds n positions of a run, always the same number.

    Args:
        like: [R, n, W] embedded codes; their shape counts.
        capture: run as a CUDA graph; False runs the same operations one by one.
    """

    def __init__(self, run: Decoding, like: Tensor, *, capture: bool) -> None:
        self.run, self.capture = run, capture
        self.x = torch.zeros_like(like)
        self.slots = torch.zeros(like.shape[:2], dtype=torch.long, device=like.device)
        self.places = torch.zeros_like(self.slots)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.hidden: Tensor | None = None

    def __call__(self, x: Tensor, slots: Tensor) -> Tensor:
        """Hidden states [R, n, W] of the embedded codes x [R, n, W] at the slots [R, n]."""
        self.x.copy_(x)
        self.slots.copy_(slots)
        self.places.copy_(slots + self.run.front)
        self.run.place(self.places, None)
        if self.capture:
            if self.graph is None:
                self._capture()
            self.graph.replay()
            return self.hidden.clone()
        return self.run.step(self.x, self.slots)

    def _capture(self) -> None:
        """Record the graph. What runs before, to warm up, only writes the same keys twice."""
        stream = torch.cuda.Stream(self.x.device)
        stream.wait_stream(torch.cuda.current_stream(self.x.device))
        with torch.cuda.stream(stream):
            for _ in range(2):
                self.run.step(self.x, self.slots)
        torch.cuda.current_stream(self.x.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.hidden = self.run.step(self.x, self.slots)
        self.graph = graph


class StaticSteps:
    """The captured steps of a run, by how many positions they feed; off where there is no CUDA."""

    def __init__(self, run: Decoding, wanted: bool) -> None:
        kind = run.start.device.type
        # Weakly: a cycle would keep caches and packed weights until the next garbage collection.
        self.run, self.made = weakref.proxy(run), {}
        self.on = wanted and kind == "cuda" and not torch.is_autocast_enabled(kind)

    def feed(self, x: Tensor, slots: Tensor) -> Tensor | None:
        """Hidden states [R, n, W] of embedded codes; None if steps are not captured."""
        count = x.shape[1]
        if not self.on:
            return None
        if count not in self.made:
            self.made[count] = StaticStep(self.run, x, capture=True)
        try:
            return self.made[count](x, slots)
        except RuntimeError as error:
            reason = str(error).strip().split("\n")[0][:200]
            warnings.warn(f"sampling without CUDA graphs: {reason}", stacklevel=2)
            self.on, self.made = False, {}
            return None
