"""The rotation trick (arXiv 2410.06424): a gradient that turns with the latent.

With u and v the directions of a latent e and of its code q, w = (u + v) / |u + v|, all of them
constants, the map

    R e = |q| / |e| (e - 2 (e . w) w + 2 (e . u) v)

rotates and scales e to q. The gradient at q goes back through R, where the straight-through
estimator copies it: angles between gradient and vector are kept.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vistok.quantizers.straight_through import straight_through

EPS = 1e-6


def rotate(values: Tensor, through: Tensor) -> Tensor:
    """`values` [..., d] in the forward pass, bit by bit; in the backward pass the gradient of the
    rotation that takes `through` [..., d] to them."""
    q, e = values.detach(), through.detach()
    u, v = F.normalize(e, dim=-1, eps=EPS), F.normalize(q, dim=-1, eps=EPS)
    w = F.normalize(u + v, dim=-1, eps=EPS)
    scale = q.norm(dim=-1, keepdim=True) / e.norm(dim=-1, keepdim=True).clamp(min=EPS)
    reflected = 2 * (through * w).sum(-1, keepdim=True) * w
    turned = through - reflected + 2 * (through * u).sum(-1, keepdim=True) * v
    return straight_through(q, scale * turned)
