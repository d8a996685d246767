"""The panels of the page: from a visit and the settings of its controls to HTML."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence

from vistok.config.errors import UserError
from vistok.demo import cards
from vistok.demo.edits import By, mix, perturb, places
from vistok.demo.images import data_url, grid, png
from vistok.demo.measure import quality
from vistok.demo.models import Models
from vistok.demo.samples import class_names, sample
from vistok.demo.token_map import token_map
from vistok.demo.visit import FIRST, SECOND, Dial, Visit

_log = logging.getLogger(__name__)


def told(view: Callable[..., str]) -> Callable[..., str]:
    """A view whose errors are one line in its place; what is no user's mistake is logged whole."""

    @functools.wraps(view)
    def safe(*args, **kwargs) -> str:
        try:
            return view(*args, **kwargs)
        except UserError as error:
            return cards.message(str(error), "error")
        except Exception as error:
            _log.exception("the playground failed")
            kind = type(error).__name__
            return cards.message(f"this failed ({kind}); the terminal says more", "error")

    return safe


@told
def reconstructions(models: Models, visit: Visit, names: Sequence[str], step: float) -> str:
    """A card for each model: the image at the slider's length."""
    if not names:
        return cards.message("Choose a model.")
    return _cards(models, visit, names, step, cards.reconstruction)


@told
def comparison(models: Models, visit: Visit, names: Sequence[str], step: float) -> str:
    """The models' images beside WebP and JPEG of as many bytes."""
    return _cards(models, visit, names, step, cards.equal_bytes)


def _cards(
    models: Models, visit: Visit, names: Sequence[str], step: float, card: Callable[..., str]
) -> str:
    """A card for each model, of its encoded image and what that is at the slider's length."""
    dial, found = Dial(models, names), []
    for name in names:
        encoded = visit.encoded(FIRST, models[name])
        found.append(card(encoded, encoded.at(dial.length(name, step))))
    return "".join(found)


@told
def tokens(
    models: Models,
    visit: Visit,
    names: Sequence[str],
    step: float,
    share: float,
    by: By,
    reach: float,
    seed: float,
) -> str:
    """The token map of each model, and what it decodes to with a share of the codes replaced."""
    if not names:
        return cards.message("Choose a model.")
    dial = Dial(models, names)
    found = []
    for name in names:
        encoded = visit.encoded(FIRST, models[name])
        shown = encoded.at(dial.length(name, step))
        images = [
            cards.figure(encoded.original, "original"),
            cards.figure(shown.pixels, f"as encoded, {_dB(shown.quality.psnr)}"),
        ]
        changed, facts = None, [("tokens", f"{shown.positions:,}", "")]
        drawn = shown.tokens
        if share > 0:
            drawn, changed = perturb(encoded, shown.length, share / 100, by, int(reach), int(seed))
            made = models[name].tokenizer.decode(drawn)[0].float().cpu()
            after = quality(made, encoded.original)
            images.append(cards.figure(made, f"with other codes, {_dB(after.psnr)}"))
            count = int(changed.sum())
            facts.append(("changed", f"{count:,}", f"{count / shown.positions:.0%}"))
        body = f'<div class="vt-pair">{token_map(drawn, changed)}{cards.row(images)}</div>'
        found.append(cards.card(name, facts, body))
    return "".join(found)


@told
def mixed(
    models: Models, visit: Visit, names: Sequence[str], first: float, blocks: Sequence[int]
) -> str:
    """Two images, and both mixtures of their tokens.

    Args:
        first: percent of the sequence that comes from the second image, of a model with one block.
        blocks: numbers of the blocks that do, of a model with several.
    """
    if not names:
        return cards.message("Choose a model.")
    if not visit.has(SECOND):
        return cards.message("Choose a second image to mix with.")
    found = []
    for name in names:
        spec = models[name].spec
        pair = [visit.encoded(which, models[name]) for which in (FIRST, SECOND)]
        count = round(spec.length * first / 100) if len(spec.blocks) == 1 else None
        inside = [block for block in blocks if block < len(spec.blocks)]
        taken = places(spec, count, inside)
        one, other = mix(*pair, taken)
        images = [
            cards.figure(pair[0].at(spec.max_prefix).pixels, "first image"),
            cards.figure(one, f"first, with {len(taken):,} tokens of the second"),
            cards.figure(other, f"second, with {len(taken):,} tokens of the first"),
            cards.figure(pair[1].at(spec.max_prefix).pixels, "second image"),
        ]
        facts = [("exchanged", f"{len(taken):,}", f"of {spec.length:,} tokens")]
        found.append(cards.card(name, facts, cards.row(images)))
    return "".join(found)


@told
def samples(
    models: Models,
    name: str,
    label: str | None,
    count: float,
    seed: float,
    guidance: float | None,
    temperature: float | None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> str:
    """A grid of a generator's samples, with a link to the image file."""
    sampler = models.sampler(name)
    known = class_names(sampler)
    number = known.index(label) if label in known else None
    made = sample(sampler, number, int(count), int(seed), guidance, temperature, progress)
    columns = next(c for c in (1, 2, 3, 4) if c * c >= len(made) or c == 4)
    sheet = png(grid(made, columns))
    about = f"{len(made)} samples of {label}" if label else f"{len(made)} samples"
    link = cards.link("PNG", sheet, "samples.png", "image/png")
    body = f'<div class="vt-sheet"><img src="{data_url(sheet)}" alt="{len(made)} samples"></div>'
    return cards.card(f"{about}, seed {int(seed)}", [], body, link)


def _dB(value: float) -> str:
    return f"{cards.decibels(value)} dB"
