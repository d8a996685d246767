"""ViTs whose latents or values lie on a grid: the sequence that they make, and a resized table."""

from __future__ import annotations

import torch.nn.functional as F

from vistok.core.shapes import Shape

WIDTH = 16
SHAPE = Shape(3, (16, 24))  # 4 x 6 patches
PATCHES = {"size": 4, "positions": "learned", "class_token": True}


def sequence(part, *inputs):
    """The sequence [B, L, W] that the transformer of a part is given."""
    seen = []
    hook = part.norm_in.register_forward_hook(lambda module, given, out: seen.append(out))
    part(*inputs)
    hook.remove()
    return seen[0]


def resized(table, old, new):
    """A position table without its first row, resized as an image."""
    image = table[1:].T.reshape(1, WIDTH, *old)
    return F.interpolate(image, new, mode="bicubic", antialias=True)[0].flatten(1).T
