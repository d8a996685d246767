"""Length as a dial: the shortest prefix of each image that reaches a quality or fits into bytes.

The search bisects the lengths that the spec allows. Each step decodes, in one batch, one prefix of
every image that is still undecided. Images are compared as a file would hold them, in 8 bits.

PSNR need not grow with length, so the result is defined by what was measured: at the length that
is returned all goals were met, and at the next shorter one they were missed (or there is none).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vistok.core.errors import InputError
from vistok.core.records import Condition
from vistok.data.batch import to_uint8
from vistok.frozen import PerceptualNetwork, perceptual_network
from vistok.layers.frames import frames
from vistok.tokens import Tokens, TokenSpec
from vistok.tokens.codec import Codec

if TYPE_CHECKING:
    from vistok.tokenizer import Tokenizer

_NOBODY = "0" * 8  # in place of a tokenizer's hash, which all files hold in as many bytes
_NAMED = 5  # images that a warning names


class UnmetTargetWarning(UserWarning):
    """A quality that no prefix of an image reaches, or none that fits into `max_bytes`."""


@dataclass(frozen=True)
class Goal:
    """Goals of one search; those that are None do not count. With several, all must be met.

    `max_bytes` is never exceeded: where a quality needs more bytes, the cap wins.
    """

    target_psnr: float | None = None  # decibels of each image (clip), at least
    max_perceptual: float | None = None  # perceptual distance of each image (clip), at most
    max_bytes: int | None = None  # of each image's .vtk file, header and all, at most
    perceptual: PerceptualNetwork | str = "vistok-cnn"  # the network of max_perceptual
    codec: Codec | None = None  # writes the files whose bytes count; None = packed codes
    seed: int = 0  # of a decoder that samples
    index: Tensor | None = None  # [B] sample numbers that key its noise; None = 0..B-1
    sampling: Any = None  # its settings, as in `Tokenizer.decode`
    fps: float | None = None  # of clips, where the tokens will say it: their headers are larger

    @property
    def quality(self) -> bool:
        """True if some goal needs images to be decoded."""
        return self.target_psnr is not None or self.max_perceptual is not None

    def check(self, spec: TokenSpec) -> None:
        """InputError for goals without a meaning, or for a tokenizer that has one length only."""
        given = {
            "target_psnr": self.target_psnr,
            "max_perceptual": self.max_perceptual,
            "max_bytes": self.max_bytes,
        }
        named = {name: value for name, value in given.items() if value is not None}
        if not named:
            raise InputError(f"no goal to search a length for; expected one of {', '.join(given)}")
        for name, value in named.items():
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{name}={value}: expected a number above 0")
        if spec.prefix == "none":
            name, value = next(iter(named.items()))
            raise InputError(
                f"{name}={value}: this tokenizer decodes only whole sequences, so there is no "
                "length to choose; use one that was trained with a length regularizer"
            )
        if not spec.vocab and self.max_bytes is not None:
            raise InputError(
                f"max_bytes={self.max_bytes}: continuous tokens have no bytes; leave it out"
            )


@dataclass(frozen=True)
class Chosen:
    """Result of a search. Numbers that no goal asked for are None."""

    tokens: Tokens
    lengths: Tensor  # [B] int64, in units of the spec's prefix
    met: Tensor  # [B] bool: all goals are met
    psnr: Tensor | None  # [B] decibels at that length
    perceptual: Tensor | None  # [B]
    bytes: Tensor | None  # [B] int64
    steps: int  # batches that were decoded


def allowed_lengths(spec: TokenSpec) -> list[int]:
    """All lengths that `spec.check_length` takes, ascending."""
    if spec.prefix == "none":
        return [spec.max_prefix]
    if spec.lengths is not None:
        return sorted({*spec.lengths, spec.max_prefix})
    return list(range(1, spec.max_prefix + 1))


@torch.no_grad()
def choose(
    tokenizer: Tokenizer, pixels: Tensor, goal: Goal, condition: Condition | None = None
) -> Chosen:
    """The prefix of each image's tokens that meets the goal; pixels [B, 3, *sides] in 0..1.

    With a quality, the shortest that meets it (see the module); where none does, the longest
    allowed one, and `met` is False. With `max_bytes` alone, the longest that fits.

    Args:
        condition: of encoder and decoder.
    Raises InputError if even the shortest prefix of an image is larger than `max_bytes`.
    """
    goal.check(tokenizer.spec())
    pixels = tokenizer.as_clips(pixels)
    tokens = tokenizer.encode(pixels, condition=condition)
    return _Search(tokenizer, pixels, tokens, goal, condition).run()


def encode(
    tokenizer: Tokenizer, pixels: Tensor, goal: Goal, condition: Condition | None = None
) -> Tokens:
    """The tokens of `choose`; an UnmetTargetWarning names the images that miss the quality."""
    found = choose(tokenizer, pixels, goal, condition)
    if not bool(found.met.all()):
        missed = (~found.met).nonzero()[:, 0].tolist()
        what = ", ".join(f"image {i} ({_told(found, i)})" for i in missed[:_NAMED])
        more = f" and {len(missed) - _NAMED} more" if len(missed) > _NAMED else ""
        line = f"{_asked(goal)}: not met by {what}{more}"
        warnings.warn(line, UnmetTargetWarning, stacklevel=4)
    return found.tokens


def told_miss(found: Chosen, goal: Goal, row: int) -> str:
    """One line on an image that misses the goal, without its name."""
    return f"{_asked(goal)} is not met: {_told(found, row)}"


def _asked(goal: Goal) -> str:
    asked = []
    if goal.target_psnr is not None:
        asked.append(f"target_psnr={goal.target_psnr:g}")
    if goal.max_perceptual is not None:
        asked.append(f"max_perceptual={goal.max_perceptual:g}")
    within = "" if goal.max_bytes is None else f" within max_bytes={goal.max_bytes}"
    return " and ".join(asked) + within


def _told(found: Chosen, row: int) -> str:
    reached = []
    if found.psnr is not None:
        reached.append(f"{float(found.psnr[row]):.2f} dB")
    if found.perceptual is not None:
        reached.append(f"perceptual distance {float(found.perceptual[row]):.4f}")
    return f"{', '.join(reached)} at length {int(found.lengths[row])}"


class _Search:
    """State of one search: measured numbers of each image at each allowed length, NaN = not yet."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        pixels: Tensor,
        tokens: Tokens,
        goal: Goal,
        condition: Condition | None,
    ) -> None:
        self.tokenizer, self.goal = tokenizer, goal
        self.tokens = tokens if goal.fps is None else replace(tokens, fps=goal.fps)
        self.condition, self.steps = condition, 0
        spec = tokens.spec  # a causal tokenizer's clips may have other numbers of frames
        self.lengths = torch.tensor(allowed_lengths(spec))
        coarse = torch.isin(self.lengths, torch.tensor(spec.eval_lengths))
        self.coarse = coarse.nonzero()[:, 0].flip(0).tolist()  # places, the longest first
        index = torch.arange(len(tokens)) if goal.index is None else goal.index
        self.index = index.cpu()
        self.real = to_uint8(pixels.to(next(tokenizer.parameters()).device))
        network = goal.perceptual
        if goal.max_perceptual is not None and isinstance(network, str):
            network = perceptual_network(network)
        self.network = None if isinstance(network, str) else network.to(self.real.device)
        self.codec = goal.codec
        if goal.max_bytes is not None and self.codec is None:
            self.codec = Codec(spec, _NOBODY, block=tokenizer.block_spec)
        shape = (len(tokens), len(self.lengths))
        empty = lambda: torch.full(shape, torch.nan, dtype=torch.float64)
        self.psnr, self.perceptual, self.bytes = empty(), empty(), empty()

    def run(self) -> Chosen:
        everyone = torch.arange(len(self.tokens))
        last = torch.full_like(everyone, len(self.lengths) - 1)
        if self.goal.max_bytes is not None:
            self._fit_shortest(everyone)
            last = self._longest_fit(everyone, last)
        place, met = last, torch.ones_like(last, dtype=torch.bool)
        if self.goal.quality:
            place, met = self._shortest_good(everyone, last)
        at = lambda table: table.gather(1, place[:, None])[:, 0]
        tokens = self._cut(everyone, place)
        quality = self.goal.target_psnr, self.goal.max_perceptual
        return Chosen(
            tokens,
            self.lengths[place],
            met,
            None if quality[0] is None else at(self.psnr),
            None if quality[1] is None else at(self.perceptual),
            None if self.goal.max_bytes is None else at(self.bytes).long(),
            self.steps,
        )

    @property
    def _device(self) -> torch.device:
        held = self.tokens.values if self.tokens.indices is None else self.tokens.indices
        return held.device

    def _fit_shortest(self, rows: Tensor) -> None:
        fits = self._fits(rows, torch.zeros_like(rows))
        if not bool(fits.all()):
            first = int((~fits).nonzero()[0, 0])
            least = int(self.bytes[:, 0].max())
            where = f"image {first}: " if len(rows) > 1 else ""
            raise InputError(
                f"{where}max_bytes={self.goal.max_bytes}: even the shortest prefix, of length "
                f"{int(self.lengths[0])}, takes {int(self.bytes[first, 0])} bytes with its "
                f"header; expected {least} or more"
            )

    def _longest_fit(self, rows: Tensor, last: Tensor) -> Tensor:
        """Places [B] that were measured to fit; the next longer one does not."""
        over = torch.where(self._fits(rows, last), len(self.lengths), last)
        whole = over == len(self.lengths)
        low = torch.where(whole, last, 0)
        high = torch.where(whole, last + 1, over)
        return self._bisect(low, high, lambda some, at: ~self._fits(some, at))[0]

    def _shortest_good(self, rows: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        """(places [B], whether the goals are met there)."""
        good = self._good(rows, last)
        high = last.clone()
        for place in self.coarse:
            # A longer prefix may be worse: the lengths that evaluation visits are tried too.
            left = (~good & (last > place)).nonzero()[:, 0]
            if len(left):
                found = self._good(left, torch.full_like(left, place))
                high[left[found]], good[left[found]] = place, True
        low = torch.where(good, -1, high - 1)
        return self._bisect(low, high, self._good)[1], good

    @staticmethod
    def _bisect(
        low: Tensor, high: Tensor, above: Callable[[Tensor, Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Neighboring places with `above` False at the first and True at the second, per image."""
        low, high = low.clone(), high.clone()
        while len(open_ := (high - low > 1).nonzero()[:, 0]):
            middle = (low[open_] + high[open_]) // 2
            yes = above(open_, middle)
            high[open_[yes]] = middle[yes]
            low[open_[~yes]] = middle[~yes]
        return low, high

    def _cut(self, rows: Tensor, places: Tensor) -> Tokens:
        lengths = self.lengths[places].to(self._device)
        return self.tokens.select(rows.to(self._device)).prefix(lengths)

    def _fits(self, rows: Tensor, places: Tensor) -> Tensor:
        """[n] bool: the files of these prefixes are small enough; measured once each."""
        if self.goal.max_bytes is None:
            return torch.ones(len(rows), dtype=torch.bool)
        new = self.bytes[rows, places].isnan()
        if bool(new.any()):
            sizes = [len(data) for data in self.codec.write(self._cut(rows[new], places[new]))]
            self.bytes[rows[new], places[new]] = torch.tensor(sizes, dtype=torch.float64)
        return self.bytes[rows, places] <= self.goal.max_bytes

    def _good(self, rows: Tensor, places: Tensor) -> Tensor:
        """[n] bool: these prefixes fit and have the quality; a decode in one batch."""
        fits = self._fits(rows, places)
        cut = self._cut(rows, places)
        condition = None if self.condition is None else self.condition.select(rows)
        sampling: Mapping[str, Any] = {}
        if self.tokenizer.sampling is not None:
            sampling = {"seed": self.goal.seed, "index": self.index[rows]}
            sampling["sampling"] = self.goal.sampling
        decoded = to_uint8(self.tokenizer.decode(cut, condition, **sampling))
        real = self.real[rows.to(self.real.device)]
        self.steps += 1
        good = fits
        if self.goal.target_psnr is not None:
            values = psnr_of_each(decoded, real)
            self.psnr[rows, places] = values
            good = good & (values >= self.goal.target_psnr)
        if self.goal.max_perceptual is not None:
            pair = [frames(images).float() / 255 for images in (decoded, real)]
            values = self.network(*pair).reshape(len(rows), -1).double().mean(1).cpu()
            self.perceptual[rows, places] = values
            good = good & (values <= self.goal.max_perceptual)
        return good


def psnr_of_each(decoded: Tensor, real: Tensor) -> Tensor:
    """[B] float64 decibels on the CPU, of each image or clip; both uint8, infinite where equal."""
    error = (decoded.double() - real.double()).div_(255).square_().flatten(1).mean(1)
    return (-10 * error.log10()).cpu()
