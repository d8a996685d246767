"""Prediction of a cell from several neighbours, each with a head of its own.

A cell of a grid has up to one neighbour along each axis; the head of that axis predicts the cell
from the neighbour's hidden state. Predictions are averaged as logits, by given shares (NAR,
arXiv 2503.10696).
Letters: A axes, R rows (guidance doubles B), n cells, W width, F factors, V vocabulary of a factor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vistok.generators.heads import CausalHead, HeadKind, Pick, make_head

# Kinds of heads whose predictions are logits of one factor after another.
OF_AXES: tuple[HeadKind, ...] = ("joint", "independent", "causal", "bernoulli")


class AxisHeads(nn.ModuleList):
    """A head for each axis of a grid, all of one kind; their logits are averaged."""

    def __init__(self, axes: int, kind: HeadKind, width: int, vocab: tuple[int, ...], bias: bool):
        """
        Args:
            kind: one of OF_AXES. bias: of the last layers; bits have one in any case.
        """
        super().__init__(make_head(kind, width, vocab, bias) for _ in range(axes))
        self.kind, self.vocab = kind, vocab

    def nats(self, states: Sequence[Tensor], share: Tensor, indices: Tensor) -> Tensor:
        """Negative log-likelihood [B, n] of indices [B, n, F].

        Args:
            states: [B, n, W] of each axis: the hidden states of the cells' neighbours.
            share: [A, n] weights of the axes' predictions; 0 = a cell without that neighbour.
        """
        total: list[Tensor] = []

        def score(logits: Tensor, f: int) -> Tensor:
            target = indices[..., f]
            nats = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none")
            total.append(nats.view_as(target))
            return target

        self._factors(states, share, score)
        return torch.stack(total).sum(0)

    def sample(self, states: Sequence[Tensor], share: Tensor, pick: Pick) -> Tensor:
        """Codes [B, n, F] of cells; `pick` takes logits [R, n, V] and gives codes [B, n]."""
        return torch.stack(self._factors(states, share, pick), dim=-1)

    def logits(self, states: Sequence[Tensor], share: Tensor) -> Tensor:
        """[R, n, sum of the vocabulary], of bits [R, n, F]: averaged fp32 logits; not of a causal
        head, whose factors need those before them."""
        parts = (head.out(state).float() for head, state in zip(self, states, strict=True))
        return _averaged(parts, share)

    def _factors(
        self, states: Sequence[Tensor], share: Tensor, decide: Callable[[Tensor, int], Tensor]
    ) -> list[Tensor]:
        """What `decide` makes of the logits [R, n, V] of each factor in turn."""
        if self.kind == "causal":
            return self._causal(list(states), share, decide)
        logits = self.logits(states, share)
        if self.kind == "bernoulli":
            parts = torch.stack([torch.zeros_like(logits), logits], dim=-1).unbind(-2)
        else:
            parts = logits.split(self.vocab, dim=-1)
        return [decide(part, f) for f, part in enumerate(parts)]

    def _causal(
        self, states: list[Tensor], share: Tensor, decide: Callable[[Tensor, int], Tensor]
    ) -> list[Tensor]:
        found: list[Tensor] = []
        heads: list[CausalHead] = list(self)
        for f in range(len(self.vocab)):
            parts = (head.logits(state, f) for head, state in zip(heads, states, strict=True))
            found.append(decide(_averaged(parts, share), f))
            if f < len(self.vocab) - 1:
                # Guidance runs two rows per sample; both continue with the same code.
                codes = found[-1].repeat(len(states[0]) // len(found[-1]), 1)
                for axis, head in enumerate(heads):
                    states[axis] = states[axis] + head.embed[f](codes)
        return found


def _averaged(parts: Sequence[Tensor], share: Tensor) -> Tensor:
    """Sum of predictions [R, n, V] of the axes times their shares [A, n]."""
    return sum(part * weight[:, None] for part, weight in zip(parts, share, strict=True))
