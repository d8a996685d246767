"""Multi-head attention over torch's SDPA, with optional QK-norm, RoPE and a KV cache.

Letters: B batch, L queries, M keys, D width, h heads, d width of a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vistok.core.errors import InputError
from vistok.layers.dropout import Dropout
from vistok.layers.norms import NormKind, make_norm
from vistok.layers.positions import rotate
from vistok.runtime.precision import no_autocast


class KVCache:
    """Keys and values of the positions seen so far: [B, h, capacity, d] each, written in place.

    Attributes:
        length: how many are there.
        places: [B, n] where the next keys of each row belong, if rows are at different places;
            what a row holds behind them is not seen. None = behind what is there.
        reach: with `places`, how many are read; None = all that there is room for.
    """

    places: Tensor | None = None
    reach: int | None = None

    def __init__(self, batch: int, heads: int, capacity: int, head_dim: int, like: Tensor) -> None:
        shape = (batch, heads, capacity, head_dim)
        self.keys, self.values = like.new_zeros(shape), like.new_zeros(shape)
        self.length = 0

    def after(self, count: int) -> int:
        """How many keys are read once `count` further ones are stored."""
        if self.places is None:
            return self.length + count
        return self.keys.shape[2] if self.reach is None else self.reach

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store [B, h, n, d] behind what is there, or at `places`; all keys and values so far."""
        if self.places is not None:
            rows = torch.arange(len(keys), device=keys.device)[:, None]
            for held, new in ((self.keys, keys), (self.values, values)):
                # Under autocast what comes is narrower than the cache.
                held.transpose(1, 2)[rows, self.places] = new.transpose(1, 2).to(held.dtype)
            return self.keys[:, :, : self.reach], self.values[:, :, : self.reach]
        stop = self.length + keys.shape[2]
        self.keys[:, :, self.length : stop] = keys
        self.values[:, :, self.length : stop] = values
        self.length = stop
        return self.keys[:, :, :stop], self.values[:, :, :stop]

    def attend(self, q: Tensor, keys: Tensor, values: Tensor, scale: float | None) -> Tensor | None:
        """Attention [B, h, 1, d] of one query to all keys and its own, which are stored; None for
        a cache that leaves it to the caller, keys and all."""
        return None

    def seen(self, count: int, keys: int) -> Tensor:
        """bool [count, keys], or [B, 1, count, keys] of rows at different places: who may look
        where, for the last `count` positions that were stored."""
        numbers = torch.arange(keys, device=self.keys.device)
        if self.places is not None:
            return numbers <= self.places[:, None, :, None]
        return numbers <= numbers[keys - count :, None]


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    causal: bool,
    dropout: Dropout | None = None,
    scale: float | None = None,
) -> Tensor:
    """softmax(scale q k^T + mask) v for [B, h, L, d]; a bool mask says who may look.

    Args:
        scale: of the scores; None = 1 / sqrt(d).
        dropout: of the softmax's output; torch's kernels cannot key theirs by sample, so that one
            takes the plain formula.
    """
    if dropout is None and (q.device.type != "cpu" or q.dtype != torch.bfloat16):
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=causal, scale=scale
        )
    # On CPUs torch's fused bf16 kernel is 2-7 times slower (forward and backward) than the plain
    # formula, whose two products run on the bf16 units.
    if causal:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    if q.shape[2] == 1:  # a product of a matrix and a vector is faster in this order
        scores = (k @ (q * factor).transpose(-1, -2)).transpose(-1, -2)
    else:
        scores = (q * factor) @ k.transpose(-1, -2)
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, -torch.inf)
    elif mask is not None:
        scores = scores + mask.to(scores.dtype)
    # torch's softmax of bf16 adds up in fp32 inside; an fp32 copy of the scores only costs memory
    # and a fifth of the time.
    weights = scores.softmax(-1)
    return (weights if dropout is None else dropout(weights)) @ v


def _both(mask: Tensor | None, seen: Tensor) -> Tensor:
    """A mask, bool or of numbers, that also hides what is not `seen`, [L, M] or more."""
    if mask is None:
        return seen
    if mask.dtype == torch.bool:
        return mask & seen
    return mask.masked_fill(~seen, -torch.inf)


class Attention(nn.Module):
    """softmax(q k^T / sqrt(d)) v with one fused projection; [B, L, D] -> [B, L, D]."""

    def __init__(
        self,
        width: int,
        heads: int,
        bias: bool = True,
        qk_norm: bool = False,
        norm_eps: float = 1e-6,
        qk_norm_kind: NormKind = "rmsnorm",
        dropout: float = 0.0,
        qk_norm_affine: bool = True,
        scale: float | None = None,
        out_bias: bool | None = None,
        kv_heads: int | None = None,
        fp32: bool = False,
    ) -> None:
        """
        Args:
            scale: of the scores; None = 1 / sqrt(d). out_bias: of the output; None = as `bias`.
            kv_heads: heads of keys and values, each shared by as many heads of queries (grouped
                queries, arXiv 2305.13245); None = as many as heads.
            fp32: scores and their sums are computed in fp32, whatever the autocast state.
        """
        super().__init__()
        self.fp32 = fp32
        self.heads, self.scale = heads, scale
        self.shared = 1 if kv_heads is None else heads // kv_heads  # heads that share keys
        self.parts = (width, width // self.shared, width // self.shared)  # widths of q, k, v
        self.qkv = nn.Linear(width, sum(self.parts), bias=bias)
        self.out = nn.Linear(width, width, bias=bias if out_bias is None else out_bias)
        self.dropout = Dropout(dropout)  # of the attention weights
        kind = qk_norm_kind if qk_norm else "none"
        self.norm_q = make_norm(kind, width // heads, norm_eps, qk_norm_affine)
        self.norm_k = make_norm(kind, width // heads, norm_eps, qk_norm_affine)

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor] | None = None,
        mask: Tensor | None = None,
        causal: bool = False,
        cache: KVCache | None = None,
        only: slice | None = None,
        memory: Tensor | None = None,
    ) -> Tensor:
        """
        Args:
            rotary: cos and sin [L, d / 2] for these L positions.
            mask: bool, True = may look, or numbers added to the scores; broadcast to
                [B, h, L, M].
            causal: position i sees 0..i (of what the cache holds and itself).
            memory: [B, m, D] further positions in front of the others, without rotation: they are
                seen (by all, unless masked) and do not ask. A cache takes them in once.
            only: the positions that ask, and come out; all are still seen. Not with `causal`.
        """
        if causal and only is not None:
            raise InputError(f"attention: causal=True with only={only}; expected a mask instead")
        # Parts first, heads second: their gradients then need one copy on the way back, not two.
        q, k, v = (
            part.unflatten(-1, (heads, -1)).transpose(1, 2)
            for part, heads in zip(self.qkv(x).split(self.parts, dim=-1), self._heads, strict=True)
        )
        q, k = self.norm_q(q).to(v.dtype), self.norm_k(k).to(v.dtype)
        if rotary is not None:
            q, k = rotate(q, rotary), rotate(k, rotary)
        if mask is not None and mask.dtype != torch.bool:
            mask = mask.to(q.dtype)
        if only is not None:
            q = q[:, :, only]
            mask = mask if mask is None or mask.shape[-2] == 1 else mask[..., only, :]
        if memory is not None:
            k, v = self._behind(memory, k, v)
        if cache is not None and causal and mask is None and self.plain and k.shape[2] == 1:
            y = cache.attend(q, k, v, self.scale)
            if y is not None:
                return self.out(y.transpose(1, 2).flatten(2))
        if cache is not None:
            k, v = cache.append(k, v)
        if causal and cache is not None and cache.places is None and q.shape[2] == 1:
            causal = False  # the last one sees all
        elif causal and cache is not None and (cache.places is not None or mask is not None):
            mask, causal = _both(mask, cache.seen(q.shape[2], k.shape[2])), False
        elif causal and (mask is not None or k.shape[2] != q.shape[2]):
            # torch's own causal flag aligns the triangle to the start; a cache needs the end.
            first = k.shape[2] - q.shape[2]
            rows = torch.arange(q.shape[2], device=q.device)[:, None] + first
            before = torch.arange(k.shape[2], device=q.device)[None] <= rows
            mask, causal = _both(mask, before), False
        if self.shared > 1:
            k, v = (part.repeat_interleave(self.shared, dim=1) for part in (k, v))
        dropout = self.dropout if self.training and self.dropout.p else None
        if self.fp32:
            with no_autocast(v.device):
                parts = (part.float() for part in (q, k, v))
                y = attend(*parts, mask, causal, dropout, self.scale).to(v.dtype)
        else:
            y = attend(q, k, v, mask, causal, dropout, self.scale)
        return self.out(y.transpose(1, 2).flatten(2))

    @property
    def plain(self) -> bool:
        """True without shared heads and in the precision that its input has."""
        return self.shared == 1 and not self.fp32

    @property
    def _heads(self) -> tuple[int, int, int]:
        """Heads of queries, keys and values."""
        return self.heads, self.heads // self.shared, self.heads // self.shared

    def _behind(self, memory: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [B, h, m + n, d]: those of `memory` [B, m, D], then k and v."""
        width, bias = memory.shape[-1], self.qkv.bias
        bias = None if bias is None else bias[width:]
        parts = F.linear(memory, self.qkv.weight[width:], bias).chunk(2, dim=-1)
        heads = self._heads[1]
        keys, values = (rearrange(part, "b l (h d) -> b h l d", h=heads) for part in parts)
        keys = self.norm_k(keys).to(values.dtype)
        return torch.cat([keys, k], dim=2), torch.cat([values, v], dim=2)
