"""Frame rates of tokenizers whose tokens stand for a duration (VFRTok): what the encoder and the
decoder are told of the rate, and of the frames to make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vistok.core.errors import InputError
from vistok.core.records import Batch, Condition
from vistok.core.shapes import Shape
from vistok.layers.patch_rotary import frames_of
from vistok.tokens import Tokens

FASTEST = 1000  # frames per second


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


def frames_at(tokenizer: Any, fps: float | None) -> int:
    """Frames of one sample of clips at `fps`: those of the shape, or as many as make its period."""
    anchor, own = tokenizer.encoder.anchor, tokenizer.shape.frames
    if anchor is None or fps is None:
        return own
    return frames_of(own / anchor, fps, tokenizer.encoder.any_frames)


def sides_for(tokenizer: Any, sides: Sequence[int] | None) -> tuple[int, ...]:
    """The sides that samples must have: the shape's, or those of clips of `sides` where the
    tokenizer reads and makes any multiple of some frames."""
    own = tuple(tokenizer.shape.sides)
    patches = (tokenizer.encoder.any_frames, tokenizer.decoder.any_frames)
    if None in patches or sides is None or len(sides) != 3 or sides[0] < 1:
        return own
    return own if any(sides[0] % patch for patch in patches) else (sides[0], *own[1:])


def of_clips(tokenizer: Any, condition: Condition | None, fps: float | None) -> Condition | None:
    """The condition of one sample with the frame rate of its clip, for parts that look at it."""
    if not tokenizer.reads_fps or fps is None:
        return condition
    return replace(condition or Condition(), fps=torch.tensor([float(fps)]))


def sized(tokens: Tokens, pixels: Tensor, any_frames: int | None) -> Tokens:
    """The tokens with the size of their pixels, of an encoder that takes several numbers."""
    return replace(tokens, size=tuple(pixels.shape[2:])) if any_frames else tokens


def of_target(batch: Batch, condition: Condition | None, decoder: Any) -> Condition | None:
    """The decoder's condition: the rate and the frames of the target, or of the pixels."""
    target = batch.pixels if batch.target is None else batch.target
    if target is None or not _looks(decoder):
        return condition
    condition = condition or Condition()
    own = batch.target is None or batch.target_fps is None
    fps = condition.fps if own else batch.target_fps
    return replace(condition, fps=fps, sides=tuple(target.shape[2:]))


def of_tokens(tokens: Tokens, condition: Condition | None, decoder: Any) -> Condition | None:
    """The decoder's condition: what `condition` leaves open is as the tokens were encoded."""
    if not _looks(decoder):
        return condition
    condition = condition or Condition()
    if condition.sides is None and tokens.size is not None:
        condition = replace(condition, sides=tuple(tokens.size))
    if condition.fps is None and tokens.fps is not None:
        rate = torch.full((len(tokens),), float(tokens.fps))
        condition = replace(condition, fps=rate)
    return condition


def _looks(decoder: Any) -> bool:
    """True for a decoder that looks at the rate or at the number of frames."""
    return decoder.reads_fps or decoder.any_frames is not None


def transcoded_frames(frames: int, fps: float, low: float, patch: int) -> int:
    """Frames that `transcoded` leaves of so many: whole patches."""
    return int(frames / (fps / low) / patch) * patch


def transcoded(pixels: Tensor, fps: float, low: float, patch: int) -> tuple[Tensor, float]:
    """pixels [B, 3, T, H, W] at a lower rate, and the rate that they then really have.

    Frame i is frame floor(i * fps / low); as many are taken as make whole patches.
    """
    frames, ratio = pixels.shape[2], fps / low
    count = transcoded_frames(frames, fps, low, patch)
    places = (torch.arange(count) * ratio).floor().long().clamp(max=frames - 1)
    return pixels[:, :, places.to(pixels.device)], count / frames * fps


def check_rate(tokens: Tokens, fps: float, asked: str) -> None:
    """InputError, which begins with `asked`, for a rate that tokens cannot be decoded at."""
    if not 0 < fps <= FASTEST:
        raise InputError(f"{asked}: expected frames per second in 0..{FASTEST}")
    if tokens.fps is None or tokens.size is None:
        raise InputError(f"{asked}: these tokens do not say at which rate they were encoded")


def at_rate(tokenizer: Any, tokens: Tokens, fps: float) -> Condition:
    """The condition under which tokens decode to the same duration at another frame rate.

        pixels = tokenizer.decode(tokens, at_rate(tokenizer, tokens, 60))

    Raises InputError for a decoder that makes one number of frames, unless the duration has so many
    at that rate, and for tokens that do not say at which rate they were encoded.
    """
    decoder, own = tokenizer.decoder, tokenizer.shape.frames
    if not _looks(decoder):
        raise InputError(
            f"fps={fps:g}: this tokenizer decodes to {own or 1} frames only; leave it out, or use "
            "a tokenizer that decodes at any rate (VFRTok)"
        )
    check_rate(tokens, fps, f"fps={fps:g}")
    frames = frames_of(tokens.size[0] / tokens.fps, fps, decoder.any_frames or 1)
    if decoder.any_frames is None and frames != own:
        raise InputError(
            f"fps={fps:g}: {tokens.size[0] / tokens.fps:.3g} s have {frames} frames, and this "
            f"tokenizer's decoder has positions of {own} only; leave it out, or use one that "
            "decodes at any rate (decoder.patches.positions=none)"
        )
    return Condition(sides=(frames, *tokens.size[1:]), fps=torch.full((len(tokens),), float(fps)))
