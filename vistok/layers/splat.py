"""2D Gaussians with features, summed to a map (GPSToken, arXiv 2509.01109, eq. 2 and 3).

    map(X, Y) = sum over tokens of features * exp(-q / (2 (1 - rho^2)))
    q = (dx / sx)^2 - 2 rho dx dy / (sx sy) + (dy / sy)^2,   dx = X - x, dy = Y - y

inside a box of `reach` sigmas around each center, zero outside; nothing is normalized and nothing
hides anything. Gradients are those inside the box; its edge has none.
Letters: B batch, n tokens, c features, h w positions of the map, k tiles of a side.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vistok.runtime.precision import no_autocast

GEOMETRY = 5
"""Numbers of a Gaussian, the first ones of a token: sigma_x, sigma_y, rho, x, y."""
_LEAST, _MOST = 1e-12, 1 - 1e-7  # sigma and |rho|: beyond, the formula divides by zero
_AT_ONCE = 2**27  # numbers of weights that are held at once, 512 MiB


def render(
    tokens: Tensor, sides: tuple[int, int], reach: float = 3.0, present: Tensor | None = None
) -> Tensor:
    """Tokens [B, n, 5 + c] -> map [B, c, h, w] fp32, corners at -1 and 1.

    Args:
        sides: (h, w). reach: half a side of the box, in sigmas.
        present: [B, n] bool, tokens that are summed; None = all.
    """
    with no_autocast(tokens.device):
        tokens = tokens.float()
        height, width = sides
        most = max(1, _AT_ONCE // (len(tokens) * height * width))
        masks = [None] if present is None else present.split(most, 1)
        found = None
        for number, part in enumerate(tokens.split(most, 1)):
            seen = weights(part[..., :GEOMETRY], sides, reach, masks[number % len(masks)])
            summed = part[..., GEOMETRY:].transpose(1, 2) @ seen.flatten(2)
            found = summed if found is None else found + summed
        return found.unflatten(2, (height, width))


def weights(
    geometry: Tensor, sides: tuple[int, int], reach: float, present: Tensor | None = None
) -> Tensor:
    """Weights [B, n, h, w] of Gaussians [B, n, 5]; arguments as of `render`."""
    rho = geometry[..., 2, None].clamp(-_MOST, _MOST)
    # In sigmas, [B, n, w] and [B, n, h]; 0 outside the box, where nothing may overflow.
    u, across = _axis(geometry[..., 0, None], geometry[..., 3, None], sides[1], reach)
    v, down = _axis(geometry[..., 1, None], geometry[..., 4, None], sides[0], reach)
    half = 0.5 / (1 - rho * rho)
    # The box is an exponent of -inf on an axis: of size n h w there is one tensor, the weights.
    across = (-half * u.square()).masked_fill(across, -torch.inf)
    down = (-half * v.square()).masked_fill(down, -torch.inf)
    if present is not None:
        across = across.masked_fill(~present[..., None], -torch.inf)
    mixed = (2 * half * rho * u)[..., None, :] * v[..., None]
    return (mixed + across[..., None, :] + down[..., None]).exp()


def _axis(sigma: Tensor, center: Tensor, side: int, reach: float) -> tuple[Tensor, Tensor]:
    """(distances [B, n, side] in sigmas, 0 outside the box; bool, outside it)."""
    sigma = sigma.clamp_min(_LEAST)
    distance = _places(side, sigma) - center
    outside = distance.abs() > reach * sigma
    return (distance / sigma).masked_fill(outside, 0), outside


def _places(side: int, like: Tensor) -> Tensor:
    """[side] coordinates of the cells of an axis, -1 the first and 1 the last."""
    steps = torch.arange(side, device=like.device, dtype=torch.float64)
    return (steps * 2 / max(side - 1, 1) - 1).to(like.dtype)


def placed(tokens: Tensor, tiles: int, places: Tensor | None = None) -> Tensor:
    """Tokens [B, k^2, n, D] of each tile -> [B, k^2 n, D] of the whole image.

    Args:
        tiles: k; tiles are numbered row by row.
        places: [B, k^2] numbers of the places of the tiles; None = their own.
    """
    if places is None:
        places = torch.arange(tiles * tiles, device=tokens.device)[None]
    row, column = places[..., None] // tiles, places[..., None] % tiles
    sx, sy, rho, x, y = tokens[..., :GEOMETRY].unbind(-1)
    x = -1 + (2 * column + x + 1) / tiles
    y = -1 + (2 * row + y + 1) / tiles
    shape = torch.stack([sx / tiles, sy / tiles, rho, x, y], -1)
    return torch.cat([shape, tokens[..., GEOMETRY:]], -1).flatten(1, 2)
