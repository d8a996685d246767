"""Speculative Jacobi decoding: fewer passes of the network for the same distribution of samples
(SJD, arXiv 2410.01699; MC-SJD, arXiv 2510.24211).

A pass reads the drafts of a window of positions at once and predicts all of them. A coupling then
turns each draft into a code that is distributed as the prediction. Positions up to the first draft
that changes, and that one too, are final: all they were predicted from was final. The others are
the drafts of the next pass, whose window begins behind.

Samples are distributed as without it. Claim: given all that ever happened in front of a position,
its draft is distributed as the prediction q that it was made from. It holds for the next draft,
since a coupling makes p of q with numbers that nothing in front has seen; and when a position
becomes final is decided in front of it. So its final code is distributed as p, given the final
codes in front. The noise of `gumbel` and `quantile` is fixed for each position: there the final
code is a function of that noise and of the final codes in front, whatever the window.

A position of several factors is coupled factor by factor in the head's own order, each predicted
from the *new* codes of the factors before it, and is kept if all of them are: the claim holds with
"factor" for "position", and the hidden state of a position does not depend on its own factors.
Letters: B samples, n places of a window, N = B n, F factors, V vocabulary of a factor, P positions
that are sampled, R rows (B, or 2B with guidance), W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from vistok.config import Config
from vistok.core.rng import Rng
from vistok.generators.coupling import Coupling, behind_change, first_change, keeps, residual
from vistok.generators.decoding import Decoding
from vistok.generators.guidance import guide
from vistok.generators.sampling import choose, invert, narrowed

_PASSES = 8  # random numbers of so many passes are made together


class JacobiConfig(Config):
    """Settings of speculative Jacobi decoding: a window of positions is predicted in each pass of
    the network, from drafts of them; samples are distributed as without it."""

    window: int = Field(default=16, ge=1, le=2**14)
    """Positions that a pass predicts. A wider one needs fewer passes, each of which costs more
    where the device has no arithmetic to spare; 1 = position by position."""
    coupling: Coupling = "maximal"
    """Next drafts. maximal: each stays with the largest probability that there is (MC-SJD); gumbel:
    the most likely code under noise that is fixed for its position (MC-SJD); quantile: the code at
    a quantile that is fixed for its position, which gives the very samples of plain decoding; none:
    independent of the last ones behind the first that changed (SJD)."""
    init: Literal["repeat", "sample", "random"] = "repeat"
    """First draft of a position that comes into the window. repeat: the last draft in front of it;
    sample: drawn from the last prediction; random: from all codes alike, as in the first pass."""


def decode(
    run: Decoding,
    positions: int,
    settings: Any,
    index: Tensor,
    seed: int,
    known: Tensor | None = None,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Codes [B, P, F] of the first P positions, and the passes [B] that each sample took.

    Args:
        run: fresh, of B samples.
        settings: a SequentialSampling whose `jacobi` is set.
        index, seed: sample numbers [B] and seed, which key all random numbers.
        known: codes [B, L, F] that are taken over where `mask` [B, L] is true.
    """
    config, samples, device = settings.jacobi, run.samples, run.start.device
    model, vocab = run.model, run.model.inner.vocab
    rows = torch.arange(samples, device=device)[:, None]
    everywhere = torch.arange(positions, device=device)
    codes = torch.zeros(samples, positions, len(vocab), dtype=torch.long, device=device)
    fixed = torch.zeros(samples, positions, dtype=torch.bool, device=device)
    if known is not None:
        fixed = mask[:, :positions]
        codes = torch.where(fixed[..., None], known[:, :positions], codes)
    each = settings.of_factors(len(vocab))
    scales = [_scales(one, positions, model.spec.length, device) for one in each]
    greedy = any(one.temperature == 0 for one in each)  # such a factor has no distribution
    kind = _COUPLINGS["quantile" if greedy else config.coupling]
    window = kind(each, config, vocab, positions, index, seed, device)
    passes, number = torch.zeros(samples, dtype=torch.long), 0
    final, first, count = [0] * samples, [0] * samples, min(config.window, positions)
    while True:
        passes += torch.tensor(final) < positions
        places = torch.tensor(first, device=device)[:, None] + everywhere[:count]
        window.move(places, number)
        window.guess(codes, fixed)
        hidden = _hidden(run, codes, first, places)
        drafts, settled = codes[rows, places], fixed[rows, places]
        scale = [one if isinstance(one, float) else one[places].view(-1, 1) for one in scales]

        def pick(
            logits: Tensor,
            f: int,
            drafts: Tensor = drafts,
            settled: Tensor = settled,
            scale: list[float | Tensor] = scale,
        ) -> Tensor:
            given, stay = drafts[..., f].flatten(), settled.flatten()
            codes = window.choose(guide(logits, scale[f], len(given)), f, given, stay)
            return torch.where(stay, given, codes)

        new = model.head.sample(hidden.flatten(0, 1), pick).view_as(drafts)
        codes[rows, places] = new
        # The first change is final too: it was predicted from final codes. Nothing was predicted
        # from the last draft of the window.
        kept = (new == drafts).all(-1)
        ends = places[:, 0] + 1 + first_change(kept).clamp(max=count - 1)
        final = ends.tolist()
        if min(final) == positions:
            return codes, passes
        fixed = fixed | (everywhere < ends[:, None])
        # Windows end with the sequence, and what they hold in front is fixed then.
        number, count = number + 1, min(config.window, positions - 1)
        first = [min(end, positions - count) for end in final]


def _scales(settings: Any, positions: int, length: int, device: torch.device) -> float | Tensor:
    """Guidance scale of each position [P], or the one of all."""
    scales = torch.tensor([settings.scale_at(i / length) for i in range(positions)])
    return scales.to(device) if len(scales.unique()) > 1 else float(scales[0])


def _hidden(run: Decoding, codes: Tensor, first: list[int], places: Tensor) -> Tensor:
    """Hidden states [R, n, W] that predict the places [B, n], from the codes in front of them."""
    if max(first) == 0:  # the first pass, which reads the slots in front too
        return run.begin(codes[:, : places.shape[1] - 1])
    rows = torch.arange(len(places), device=places.device)[:, None]
    if run.caches is None:
        run.rollback(0)
        whole = run.feed(codes[:, :-1])  # predicts the positions from 1 on
        copies = run.rows // run.samples
        every = torch.arange(run.rows, device=places.device)[:, None]
        return whole[every, (places - 1).repeat(copies, 1)]
    together = len(set(first)) == 1
    run.rollback(first[0] - 1 if together else places[:, 0] - 1)
    return run.feed(codes[rows, places - 1])


class _Window:
    """Drafts of a window of places; a subclass makes codes of them, by a coupling."""

    def __init__(
        self,
        each: Sequence[Any],
        config: JacobiConfig,
        vocab: Sequence[int],
        positions: int,
        index: Tensor,
        seed: int,
        device: torch.device,
    ) -> None:
        self.each, self.config, self.init, self.vocab = each, config, config.init, vocab
        self.index, self.seed, self.device = index, seed, device
        self.rows = torch.arange(len(index), device=device)[:, None]
        self.count, self.start = 0, torch.zeros(len(index), 1, dtype=torch.long, device=device)
        shape = (positions, len(vocab))
        # A number of each position: of its first draft.
        self.first_u = self.numbers("drafts", shape)
        self.prepare(shape)

    def prepare(self, shape: tuple[int, int]) -> None:
        """Make what lasts the whole run; shape: (P, F)."""

    def numbers(self, name: str, shape: tuple[int, ...], step: int = 0) -> Tensor:
        """Uniform numbers [B, *shape], keyed by the sample, a name and a step."""
        part = f"sampling/{name}" if name else "sampling"
        return Rng(self.seed, part, step).uniform(self.index, shape).to(self.device)

    def move(self, places: Tensor, number: int) -> None:
        """To the places [B, n] of a pass, the `number`-th from 0."""
        source = places - self.start  # place in the last window
        self.places, self.number = places, number
        self.new = source >= self.count  # no drafts yet
        # Row of the last predictions [B n] for each place; of the last one in the window, if none.
        self.source = (self.rows * self.count + source.clamp(max=self.count - 1)).flatten()
        self.end = self.start[:, 0] + self.count - 1
        self.start, self.count = places[:, :1], places.shape[1]

    def guess(self, codes: Tensor, fixed: Tensor) -> None:
        """Write first drafts into codes [B, P, F], for the places that have none."""
        row, place = self.new.nonzero(as_tuple=True)
        at = self.places[row, place]
        if self.init == "random" or self.number == 0:  # there is no prediction, no code
            sizes = torch.tensor(self.vocab, device=self.device)
            drafts = (self.first_u[row, at].double() * sizes).long()
        elif self.init == "repeat":
            drafts = codes[row, self.end[row]]
        else:
            every = range(len(self.vocab))
            drafts = torch.stack([self.predicted(f, row, place) for f in every], dim=-1)
        codes[row, at] = torch.where(fixed[row, at][:, None], codes[row, at], drafts)

    def predicted(self, f: int, row: Tensor, place: Tensor) -> Tensor:
        """First drafts [K] of factor f, for `place` [K] of the windows of samples `row` [K], by the
        last prediction of each sample."""
        raise NotImplementedError

    def choose(self, logits: Tensor, f: int, drafts: Tensor, settled: Tensor) -> Tensor:
        """Codes [B n] of guided logits [B n, V] of factor f.

        Args:
            drafts: [B n]. settled: [B n] bool, drafts that stay whatever is chosen.
        """
        raise NotImplementedError


class _Quantile(_Window):
    """The code at a quantile of the prediction that is fixed for each position, by the numbers of
    plain decoding. Greedy decoding is a case of it."""

    def prepare(self, shape: tuple[int, int]) -> None:
        self.u = self.numbers("", shape)
        self.last: list[Tensor | None] = [None] * shape[1]  # logits of the last place [B, V]

    def predicted(self, f: int, row: Tensor, place: Tensor) -> Tensor:
        return choose(self.last[f][row], self.u[row, self.places[row, place], f], self.each[f])

    def choose(self, logits: Tensor, f: int, drafts: Tensor, settled: Tensor) -> Tensor:
        self.last[f] = logits.unflatten(0, self.places.shape)[:, -1]
        return choose(logits, self.u[self.rows, self.places, f].flatten(), self.each[f])


class _Gumbel(_Window):
    """The most likely code under Gumbel noise [V] that is fixed for each position."""

    def prepare(self, shape: tuple[int, int]) -> None:
        self.noise = torch.zeros(0, sum(self.vocab), device=self.device)  # [B n, V of all factors]
        self.last: list[Tensor | None] = [None] * shape[1]  # logits of the last place [B, V]

    def move(self, places: Tensor, number: int) -> None:
        super().move(places, number)
        new = self.new.flatten()
        noise = self.noise.new_zeros(len(new), self.noise.shape[1])
        noise[~new] = self.noise[self.source[~new]]
        drawn = self.new.cpu()
        for at in places[self.new].unique().tolist():
            here = (places.cpu() == at) & drawn
            index = self.index[here.any(-1)]
            u = Rng(self.seed, "sampling/gumbel", at).uniform(index, noise.shape[1:])
            noise[here.flatten().to(new.device)] = -(-u.clamp(min=1e-12).log()).log().to(noise)
        self.noise = noise

    def predicted(self, f: int, row: Tensor, place: Tensor) -> Tensor:
        noise = self.noise[row * self.count + place].split(tuple(self.vocab), dim=-1)[f]
        return (self.last[f][row] + noise).argmax(-1)

    def choose(self, logits: Tensor, f: int, drafts: Tensor, settled: Tensor) -> Tensor:
        logits = narrowed(logits, self.each[f])
        self.last[f] = logits.unflatten(0, self.places.shape)[:, -1]
        return (logits + self.noise.split(tuple(self.vocab), dim=-1)[f]).argmax(-1)


class _Speculative(_Window):
    """Drafts that are kept, or replaced from the residual: everywhere (maximal coupling), or up to
    the first change and independent codes behind it (none)."""

    def prepare(self, shape: tuple[int, int]) -> None:
        self.p: list[Tensor | None] = [None] * shape[1]  # of the last pass, [B n, V]

    def move(self, places: Tensor, number: int) -> None:
        super().move(places, number)
        place = number % _PASSES
        if place == 0:
            shape = (_PASSES, 2, max(1, self.config.window), len(self.vocab))
            self.u = self.numbers("jacobi", shape, number // _PASSES)
        self.tests, self.draws = self.u[:, place, :, : self.count].unbind(1)
        self.kept = torch.ones_like(self.new)
        # Drafts that were not drawn from a prediction.
        drawn = self.init == "sample" and number > 0
        self.first = torch.zeros_like(self.new) if drawn else self.new

    def predicted(self, f: int, row: Tensor, place: Tensor) -> Tensor:
        source = self.source[row * self.count + place]
        return invert(self.p[f][source], self.first_u[row, self.places[row, place], f])

    def choose(self, logits: Tensor, f: int, drafts: Tensor, settled: Tensor) -> Tensor:
        p, old = narrowed(logits, self.each[f]).softmax(-1), self.p[f]
        first, size = self.first.flatten(), p.shape[-1]
        old = p if old is None else old  # then all drafts are first ones
        # A first draft was drawn from all codes alike, or could have been no other one.
        alike = self.init == "random" or self.number == 0
        certain = 1 / size if alike else 1.0
        given = torch.where(first, certain, old[self.source, drafts])
        wanted = p.gather(-1, drafts[:, None])[:, 0]
        kept = keeps(wanted, given, self.tests[..., f].flatten()) | settled
        self.p[f], codes = p, drafts.clone()
        self.kept = self.kept & kept.view_as(self.kept)
        anew = torch.zeros_like(kept)
        if self.config.coupling == "none":
            anew = behind_change(self.kept).flatten() & ~settled
        (at,) = (anew | ~kept).nonzero(as_tuple=True)
        q = old[self.source[at]]
        if alike:
            other = torch.full_like(q, certain)
        else:
            other = torch.zeros_like(q).scatter(-1, drafts[at, None], 1.0)
        q = torch.where(first[at, None], other, q)
        weights = torch.where(anew[at, None], p[at], residual(p[at], q))
        codes[at] = invert(weights, self.draws[..., f].flatten()[at])
        return codes


_COUPLINGS = {
    "maximal": _Speculative,
    "none": _Speculative,
    "gumbel": _Gumbel,
    "quantile": _Quantile,
}
