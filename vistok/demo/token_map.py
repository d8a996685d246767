"""Tokens as colored cells: one grid for each block of the sequence, in decoding order."""

from __future__ import annotations

import colorsys
import html
import math

import torch
from torch import Tensor

from vistok.tokens import Tokens, TokenSpec, radix

_MOST = 4096  # cells that are drawn; more would only be a gray surface
_GOLDEN = 0.6180339887498949  # turns that keep the hues of successive codes apart
_UNIT = 10  # size of a cell in a grid's own coordinates


def token_map(tokens: Tokens, changed: Tensor | None = None) -> str:
    """HTML of one image's tokens, a drawing for each block.

    Colors tell codes apart and mean nothing else. Positions behind the prefix are empty cells;
    `changed` [L] bool are framed.
    """
    spec = tokens.spec
    kept = tokens.kept()[0].tolist()
    moved = [False] * spec.length if changed is None else changed.tolist()
    colors, names = _codes(tokens)
    grids, start = [], 0
    for block in spec.blocks:
        rows, columns = _sides(block)
        size = math.prod(block)
        cells = []
        for place in range(start, min(start + size, _MOST)):
            x, y = (place - start) % columns * _UNIT, (place - start) // columns * _UNIT
            look = f' fill="{colors[place]}"' if kept[place] else ' class="off"'
            frame = ' class="moved"' if kept[place] and moved[place] else ""
            title = f"token {place}: " + (names[place] if kept[place] else "not kept")
            cells.append(
                f'<rect x="{x}" y="{y}" width="{_UNIT}" height="{_UNIT}"{look}{frame}>'
                f"<title>{html.escape(title)}</title></rect>"
            )
        if cells:
            label = "×".join(map(str, block)) if len(block) > 1 else f"{size}"
            grids.append(_figure("".join(cells), columns, rows, label))
        start += size
    more = ""
    if spec.length > _MOST:
        more = f'<p class="vt-quiet">The first {_MOST:,} of {spec.length:,} tokens.</p>'
    return f'<div><div class="vt-map">{"".join(grids)}</div>{more}</div>'


def _figure(cells: str, columns: int, rows: int, label: str) -> str:
    # A block of one token must be seen, and one of 32 x 32 must not fill the screen.
    width = min(384, max(40, columns * (18 if columns > 8 else 26)))
    return (
        f'<figure style="width:{width}px"><svg viewBox="0 0 {columns * _UNIT} {rows * _UNIT}" '
        f'role="img" aria-label="{label} tokens">{cells}</svg>'
        f"<figcaption>{label}</figcaption></figure>"
    )


def _sides(block: tuple[int, ...]) -> tuple[int, int]:
    """(rows, columns) of a block; a list of tokens is folded into rows of up to 32."""
    if len(block) > 1:
        return math.prod(block[:-1]), block[-1]
    columns = min(block[0], 16 if block[0] <= 256 else 32)
    return -(-block[0] // columns), columns


def _codes(tokens: Tokens) -> tuple[list[str], list[str]]:
    """(a color, the code in words) of every position."""
    spec = tokens.spec
    if tokens.indices is None:
        values = tokens.values[0].float()
        low, high = values.min(), values.max()
        shade = ((values - low) / (high - low).clamp(min=1e-6)).mean(-1)
        levels = [f"hsl(220 12% {15 + 75 * float(one):.0f}%)" for one in shade]
        return levels, [f"{spec.dim} numbers" for _ in levels]
    digits = tokens.indices[0].long()
    colors = [_color(one) for one in _flat(digits, spec)]
    names = ["code " + " ".join(map(str, row)) for row in digits.tolist()]
    return colors, names


def _flat(digits: Tensor, spec: TokenSpec) -> list[int]:
    """One number of each position, from its factors."""
    if math.prod(spec.vocab) < 2**62:
        return radix.join(digits, spec.vocab).tolist()
    weights = torch.arange(1, digits.shape[1] + 1)
    return (digits * weights).sum(-1).tolist()


def _color(code: int) -> str:
    """A color of a code: hue by the golden ratio, two more levels by what is left."""
    hue = code * _GOLDEN % 1
    light = (0.48, 0.6, 0.72)[code // 7 % 3]
    red, green, blue = colorsys.hls_to_rgb(hue, light, 0.5)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"
