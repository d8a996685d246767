"""Regions of an image, cut where its edges are most varied (GPSToken, arXiv 2509.01109, 3.2).

A region's complexity is H^p times its pixels, with H the entropy of the histogram of its edges'
strengths. The most complex region is halved along its longer side, until there are as many as
asked for; a square is halved the way that leaves the less complex half. Nothing learns and nothing
is drawn. Edges and entropies are fp64, so that every device finds the same regions.
Letters: B batch, H W pixels, n regions, R regions whose complexity is taken, S side of a patch.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

SIDE = 64  # S: a region is resized to so many pixels before its edges are looked at
_BINS, _TOP = 256, 5.5  # bins of the histogram of edges, from 0 on; pixels of 0..1 reach 5.66
_GREY = (0.299, 0.587, 0.114)


def grey_of(x: Tensor) -> Tensor:
    """RGB [B, 3, H, W] -> luma [B, H, W] fp32."""
    red, green, blue = x.float().unbind(1)
    return _GREY[0] * red + _GREY[1] * green + _GREY[2] * blue


@functools.cache
def halves(height: int, width: int, least: int) -> tuple[int, int]:
    """(Regions that an image can be cut into at most, pixels of the thinnest of them).

    Args:
        least: a region is halved while one of its sides is larger than least + 1.
    """
    if max(height, width) - 1 <= least:
        return 1, min(height, width)
    long, short = max(height, width), min(height, width)
    parts = [halves(part, short, least) for part in (long // 2, long - long // 2)]
    return sum(count for count, _ in parts), min(thin for _, thin in parts)


@torch.compiler.disable
@torch.no_grad()
def partition(grey: Tensor, count: int, least: int = 8, power: float = 2.5) -> Tensor:
    """Regions of images [B, H, W] in -1..1 -> [B, n, 4] int64: first and last row, first and last
    column.

    The order is that of the search: by complexity as of the last cut, then its two halves.

    Args:
        count: n, at most as many as `halves` says. least, power: see there and the module.
    """
    device, batch = grey.device, len(grey)
    rows = torch.arange(batch, device=device)
    whole = torch.tensor([0, grey.shape[1] - 1, 0, grey.shape[2] - 1], device=device)
    if grey.is_meta or isinstance(grey, FakeTensor):
        # There are no numbers to search, and every cut would cost a plan as much as a layer does.
        return whole.expand(batch, count, 4).clone()
    boxes = whole.expand(batch, 1, 4)
    scores = complexity(grey, boxes, power)
    for have in range(1, count):
        order = scores.argsort(dim=1, descending=True, stable=True)
        boxes = boxes.gather(1, order[..., None].expand(-1, -1, 4))
        scores = scores.gather(1, order)
        top, bottom, left, right = boxes.unbind(-1)
        divisible = (bottom - top > least) | (right - left > least)
        place = divisible.int().argmax(1)  # the first one
        pieces = _cut(boxes[rows, place])  # [B, 4, 4]: left, right, upper, lower half
        found = complexity(grey, pieces, power)
        top, bottom, left, right = boxes[rows, place].unbind(-1)
        tall, wide = bottom - top, right - left
        across = found[:, :2].amin(1) < found[:, 2:].amin(1)
        first = torch.where((wide > tall) | ((wide == tall) & across), 0, 2)  # [B]
        both = first[:, None] + torch.arange(2, device=device)
        others = torch.arange(have - 1, device=device).expand(batch, -1)
        others = others + (others >= place[:, None])
        take = lambda table, at: table.gather(1, at[..., None].expand(-1, -1, 4))
        boxes = torch.cat([take(boxes, others), take(pieces, both)], dim=1)
        scores = torch.cat([scores.gather(1, others), found.gather(1, both)], dim=1)
    return boxes


def _cut(box: Tensor) -> Tensor:
    """Box [B, 4] -> its left, right, upper and lower half [B, 4, 4]; the first is the smaller."""
    top, bottom, left, right = box.unbind(-1)
    row, column = top + (bottom - top + 1) // 2, left + (right - left + 1) // 2
    pieces = (
        (top, bottom, left, column - 1),
        (top, bottom, column, right),
        (top, row - 1, left, right),
        (row, bottom, left, right),
    )
    return torch.stack([torch.stack(piece, -1) for piece in pieces], 1)


@torch.no_grad()
def complexity(grey: Tensor, boxes: Tensor, power: float) -> Tensor:
    """[B, R] fp64 of boxes [B, R, 4] (as `partition` gives them) of images [B, H, W] in -1..1."""
    batch, count = boxes.shape[:2]
    top, bottom, left, right = boxes.flatten(0, 1).unbind(-1)
    image = torch.arange(batch, device=grey.device).repeat_interleave(count)
    patch = _resized((grey + 1) / 2, image, (top, bottom), (left, right))
    entropies = entropy(edges(patch))
    pixels = (bottom - top + 1) * (right - left + 1)
    return (entropies**power * pixels).view(batch, count)


def _resized(grey: Tensor, image: Tensor, rows: tuple, columns: tuple) -> Tensor:
    """Boxes of images, resized to [R, S, S]: bilinear between pixel centers, not antialiased."""
    y, below, down = _samples(*rows)
    x, beside, across = _samples(*columns)
    pick = lambda y, x: grey[image[:, None, None], y[:, :, None], x[:, None, :]]
    upper = _between(pick(y, x), pick(y, beside), across[:, None, :])
    lower = _between(pick(below, x), pick(below, beside), across[:, None, :])
    return _between(upper, lower, down[:, :, None])


def _between(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """a + share (b - a), rounded to fp32 twice only, as OpenCV's resize does it: an edge on the
    border of two bins is counted in the same one."""
    return torch.addcmul(a.double(), (b - a).double(), share).float()


def _samples(first: Tensor, last: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(place, its next one, share of the next one), each [R, S], along an axis from `first` to
    `last` [R]."""
    size = (last - first + 1).double()[:, None]
    steps = torch.arange(SIDE, device=first.device, dtype=torch.float64)
    at = ((steps + 0.5) * (size / SIDE) - 0.5).clamp_min(0)
    place = at.floor().minimum(size - 1)
    share = torch.where(place < size - 1, at - place, 0.0).float().double()
    place = place.long()
    beside = (place + 1).minimum((last - first)[:, None])
    return place + first[:, None], beside + first[:, None], share


def edges(patch: Tensor) -> Tensor:
    """Strengths [R, S, S] fp64 of the edges of [R, S, S]: Sobel's 3x3 filters, borders repeated."""
    x = F.pad(patch.double()[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    smooth = x[:, :-2] + 2 * x[:, 1:-1] + x[:, 2:]  # down
    across = smooth[..., 2:] - smooth[..., :-2]
    smooth = x[..., :-2] + 2 * x[..., 1:-1] + x[..., 2:]
    down = smooth[:, 2:] - smooth[:, :-2]
    return (across.square() + down.square()).sqrt()


def entropy(strengths: Tensor) -> Tensor:
    """Entropy in bits [R] of the histogram of strengths [R, S, S], 512 bins of -5.5..5.5.

    What lies above is not counted; the shares are counts / (sum + 1e-5), and their logarithms are
    those of a share + 1e-10.
    """
    flat, step = strengths.flatten(1), _TOP / _BINS  # no strength is below 0
    bins = (flat * (1 / step)).floor()
    # Borders, whole multiples of the step, are exact; the quotient is rounded.
    bins = bins - (flat < bins * step).double() + (flat >= (bins + 1) * step).double()
    bins = torch.where(flat == _TOP, _BINS - 1, bins)  # the last bin has both of its ends
    bins = bins.long().clamp(0, _BINS)
    counts = torch.zeros(len(flat), _BINS + 1, dtype=torch.int64, device=flat.device)
    counts = counts.scatter_add_(1, bins, torch.ones_like(bins))[:, :_BINS].double()
    shares = counts / (counts.sum(1, keepdim=True) + 1e-5)
    return -(shares * (shares + 1e-10).log2()).sum(1)


def gaussians(boxes: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Boxes [B, n, 4] of an image -> (Gaussians [B, n, 5], boxes [B, n, 4]), fp32.

    A Gaussian is (sigma_x, sigma_y, rho, x, y) with coordinates in -1..1: it lies in the middle of
    its region, upright, a third of its sides wide. A box is (left, top, right, bottom) in -1..1.
    """
    top, bottom, left, right = boxes.double().unbind(-1)
    place = lambda at, side: (at / (side - 1) - 0.5) * 2
    spread = lambda first, last, side: (last - first) / side * 2 / 3
    found = (
        spread(left, right, width),
        spread(top, bottom, height),
        torch.zeros_like(top),
        place((right + left) / 2, width),
        place((bottom + top) / 2, height),
    )
    corners = (place(left, width), place(top, height), place(right, width), place(bottom, height))
    return torch.stack(found, -1).float(), torch.stack(corners, -1).float()
