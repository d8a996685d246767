"""Attention masks of interleaved sequences of time steps (VideoFlexTok, arXiv 2604.12887).

Each time step is a block of patches followed by registers: (patches_0, registers_0, patches_1,
...). A mask is bool [queries, keys], True = may look. Later blocks see earlier ones.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from vistok.config import Config
from vistok.core.errors import InputError
from vistok.layers.masks import causal_last

_FLEXIBLE = "flexible_time_block_causal_last"
STEPPED = ("time_block_causal", "time_block_causal_last", _FLEXIBLE)
TimeMask = Literal["full", "causal", "patches", *STEPPED]


class EarlierBlocks(Config):
    """Attention to earlier time steps, of `flexible_time_block_causal_last`.

    The defaults show earlier blocks whole, which is `time_block_causal_last`.
    """

    patches_to_patches: Literal["full", "none"] = "full"
    """Patches see the patches of earlier steps (prefix2prefix in the original's words)."""
    patches_to_registers: Literal["full", "none"] = "full"
    """Patches see the registers of earlier steps (prefix2nonprefix)."""
    registers_to_patches: Literal["full", "none"] = "full"
    """Registers see the patches of earlier steps (nonprefix2prefix)."""
    registers_to_registers: Literal["full", "none", "causal"] = "full"
    """Registers see the registers of earlier steps (nonprefix2nonprefix); causal: register i sees
    those up to i of each earlier step."""


def time_mask(
    kind: TimeMask,
    steps: int,
    patches: int,
    registers: int,
    earlier: EarlierBlocks | None = None,
) -> Tensor:
    """[L, L] mask of `steps` blocks, L = steps * (patches + registers).

    full: everything; causal: each position sees itself and what stands before it; patches: patches
    of all steps see each other, and registers see and are seen by nothing; time_block_causal: a
    block sees earlier blocks and itself; time_block_causal_last: the same, but inside of a block
    patches see patches and register i sees the patches and the registers up to i.

    Args:
        earlier: attention to earlier steps, of flexible_time_block_causal_last; None = to all.
    """
    block = patches + registers
    length = steps * block
    if kind == "full":
        return torch.ones(length, length, dtype=torch.bool)
    if kind == "causal":
        return torch.ones(length, length, dtype=torch.bool).tril()
    if kind == "patches":
        shown = (torch.arange(block) < patches).repeat(steps)
        return shown[:, None] & shown
    own = torch.ones(block, block, dtype=torch.bool)
    before = own
    if kind != "time_block_causal":
        own = causal_last(patches, registers)
    if kind == _FLEXIBLE:
        before = _earlier(patches, registers, earlier or EarlierBlocks())
    rows = torch.ones(steps, steps, dtype=torch.bool)
    past, same = rows.tril(-1), torch.eye(steps, dtype=torch.bool)
    return _tiled(past, before) | _tiled(same, own)


def check_steps(kind: str, earlier: EarlierBlocks | None, stepped: bool) -> None:
    """InputError for an attention that needs time steps, or that they need another one for."""
    in_steps = kind in STEPPED
    if in_steps and not stepped:
        raise InputError(
            f"attention={kind} is of tokens in time steps; give the steps, or another attention"
        )
    if stepped and not in_steps and kind not in ("full", "causal"):
        raise InputError(
            f"attention={kind} is of one list of tokens, and these lie in time steps; expected "
            f"full, causal, time_block_causal, time_block_causal_last or {_FLEXIBLE}"
        )
    if earlier is not None and kind != _FLEXIBLE:
        raise InputError(f"earlier is a key of attention={_FLEXIBLE}, not of {kind}")


def steps_apart(
    kind: TimeMask, steps: int, patches: int, registers: int, earlier: EarlierBlocks | None
) -> Tensor | None:
    """`time_mask` for a network with its patches in front (`apart`); None where all see all."""
    if kind == "full":
        return None
    return apart(time_mask(kind, steps, patches, registers, earlier), steps, patches)


def apart(mask: Tensor, steps: int, patches: int) -> Tensor:
    """A mask [L, L] of interleaved steps -> that of (patches of all steps, registers of all).

    Networks keep their patches in front of everything else; only their masks know the steps.
    """
    place = torch.arange(len(mask)).view(steps, -1)
    order = torch.cat([place[:, :patches].flatten(), place[:, patches:].flatten()])
    return mask[order][:, order]


def first_steps(mask: Tensor, of: int, steps: int, patches: int, registers: int) -> Tensor:
    """The mask of the first `steps` of `of` steps, both as `apart` has them."""
    place = torch.arange(len(mask), device=mask.device)
    later = place[of * patches :]
    kept = torch.cat([place[: steps * patches], later[: steps * registers]])
    return mask[kept][:, kept]


def _earlier(patches: int, registers: int, seen: EarlierBlocks) -> Tensor:
    """[block, block]: positions of an earlier step that each position of a later one sees."""
    mask = torch.ones(patches + registers, patches + registers, dtype=torch.bool)
    mask[:patches, :patches] = seen.patches_to_patches == "full"
    mask[:patches, patches:] = seen.patches_to_registers == "full"
    mask[patches:, :patches] = seen.registers_to_patches == "full"
    mask[patches:, patches:] = seen.registers_to_registers != "none"
    if seen.registers_to_registers == "causal":
        mask[patches:, patches:] = mask[patches:, patches:].tril()
    return mask


def _tiled(blocks: Tensor, inside: Tensor) -> Tensor:
    """[S, S] and [b, b] -> [S*b, S*b]: the inside where a block is True."""
    steps, size = len(blocks), len(inside)
    tiles = blocks[:, None, :, None] & inside[None, :, None, :]
    return tiles.reshape(steps * size, steps * size)
