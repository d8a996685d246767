"""Frame rates of tokenizers whose tokens stand for a duration (VFRTok): what the encoder and the
decoder are told of the rate, and of the frames to make."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vistok.core.errors import InputError
from vistok.core.records import Batch, Condition
from vistok.core.shapes import Shape
from vistok.layers.patch_rotary import frames_of
from vistok.tokens import Tokens


def shape_of(pixels: Tensor, shape: Shape, any_frames: int | None) -> Shape:
    """The shape that pixels must have: `shape`, or with their own number of frames where the
    encoder takes any multiple of `any_frames`; InputError for other numbers."""
    if any_frames is None or pixels.ndim != 5 or pixels.shape[2] == shape.frames:
        return shape
    frames = pixels.shape[2]
    if frames < 1 or frames % any_frames:
        raise InputError(
            f"pixels have {frames} frames; this tokenizer takes {any_frames}, {2 * any_frames}, "
            f"{3 * any_frames}, ... frames"
        )
    return Shape(shape.channels, (frames, *shape.image_size))


def sized(tokens: Tokens, pixels: Tensor, any_frames: int | None) -> Tokens:
    """The tokens with the size of their pixels, of an encoder that takes several numbers."""
    return replace(tokens, size=tuple(pixels.shape[2:])) if any_frames else tokens


def of_target(
    batch: Batch, condition: Condition | None, any_frames: int | None
) -> Condition | None:
    """The decoder's condition: the rate and the frames of the target, if it is another one."""
    if any_frames is None or batch.target is None:
        return condition
    condition = condition or Condition()
    fps = condition.fps if batch.target_fps is None else batch.target_fps
    return replace(condition, fps=fps, sides=tuple(batch.target.shape[2:]))


def of_tokens(
    tokens: Tokens, condition: Condition | None, any_frames: int | None
) -> Condition | None:
    """The decoder's condition: what `condition` leaves open is as the tokens were encoded."""
    if any_frames is None:
        return condition
    condition = condition or Condition()
    if condition.sides is None and tokens.size is not None:
        condition = replace(condition, sides=tuple(tokens.size))
    if condition.fps is None and tokens.fps is not None:
        rate = torch.full((len(tokens),), float(tokens.fps))
        condition = replace(condition, fps=rate)
    return condition


def at_rate(tokenizer: Any, tokens: Tokens, fps: float) -> Condition:
    """The condition under which tokens decode to the same duration at another frame rate.

        pixels = tokenizer.decode(tokens, at_rate(tokenizer, tokens, 60))

    Raises InputError for a tokenizer whose decoder makes one number of frames, and for tokens that
    do not say at which rate they were encoded.
    """
    patch = tokenizer.decoder.any_frames
    if patch is None:
        raise InputError(
            f"fps={fps:g}: this tokenizer decodes to {tokenizer.shape.frames or 1} frames only; "
            "leave it out, or use a tokenizer that decodes at any rate (VFRTok)"
        )
    if not 0 < fps <= 1000:
        raise InputError(f"fps={fps:g}: expected frames per second in 0..1000")
    if tokens.fps is None or tokens.size is None:
        raise InputError(f"fps={fps:g}: these tokens do not say at which rate they were encoded")
    frames = frames_of(tokens.size[0] / tokens.fps, fps, patch)
    return Condition(sides=(frames, *tokens.size[1:]), fps=torch.full((len(tokens),), float(fps)))
