"""The CNN of taming-transformers: configs, and keys in two layouts.

LlamaGen's and ReTok's `conv_blocks.i` are numbered in the order in which they run: 0 is the level
of the image in an encoder, the smallest map in a decoder; ours count from the image on both sides.
So do the original's `down.i` and `up.i` (IBQ, VAR).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vistok.config import ConfigError
from vistok.pretrained.base import Entry, flag, pair, same, squeeze


def cnn_trees(family: str, official: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(encoder, decoder) of an official config; ConfigError for batch norms."""
    if official.get("norm_type", "group") != "group":
        raise ConfigError(
            f"{family}: norm_type={official['norm_type']!r}: no release has other norms than "
            "groups'; expected group"
        )
    resample = flag(official, "resamp_with_conv", True)
    shared = {
        "channels": official.get("ch", 128),
        "mid_blocks": 2,
        "norm_groups": official.get("norm_groups", 32),
        "norm_eps": official.get("norm_eps", 1e-6),
        "dropout": official.get("dropout_p", 0.0),
        "attention": flag(official, "use_attn", True),
    }
    blocks, both = official.get("num_res_blocks", 2), official.get("ch_mult", [1, 1, 2, 2, 4])
    mults = [list(official.get(f"{side}_ch_mult", both)) for side in ("encoder", "decoder")]
    encoder = {
        "kind": "cnn",
        "conv": shared | {"channel_mult": mults[0], "blocks": blocks},
        "downsample": "conv" if resample else "average",
    }
    decoder = {
        "kind": "cnn",
        "conv": shared | {"channel_mult": mults[1], "blocks": blocks + 1},
        "upsample": "conv" if resample else "nearest",
    }
    return encoder, decoder


def cnn_official(encoder: Any, decoder: Any) -> dict[str, Any]:
    """The inverse of `cnn_trees`."""
    conv = encoder.conv
    return {
        "ch": conv.channels,
        "encoder_ch_mult": list(conv.channel_mult),
        "decoder_ch_mult": list(decoder.conv.channel_mult),
        "num_res_blocks": conv.blocks,
        "norm_groups": conv.norm_groups,
        "norm_eps": conv.norm_eps,
        "dropout_p": conv.dropout,
        "use_attn": conv.attention,
        "resamp_with_conv": encoder.downsample == "conv",
    }


def attention_counters(
    side: int, levels: int, ways: int | None = None
) -> tuple[list[int], list[int]]:
    """What the originals compare with `attn_resolutions` at each level, that of the image first:
    the encoder's counter starts at `side` and halves, rounded down; the decoder's starts at the
    encoder's last and doubles. They differ where `side` cannot be halved so often.

    Args:
        ways: how many of the levels halve and double; None = all but the last.
    """
    ways = levels - 1 if ways is None else ways
    down = [side // 2 ** min(i, ways) for i in range(levels)]
    up = [(side // 2 ** (levels - 1)) * 2 ** min(levels - 1 - i, ways) for i in range(levels)]
    return down, up


def attended_levels(
    family: str, given: Mapping[str, Any], levels: int, key: str = "attn_resolutions"
) -> tuple[list[int], list[int]]:
    """Levels with attention of an encoder and of a decoder, whatever sides images have; ConfigError
    unless `resolution` is a number and `key` a list of them."""
    side, sides = given["resolution"], given[key]
    if isinstance(side, bool) or not isinstance(side, int):
        raise ConfigError(f"{family}: resolution={side!r}; expected one whole number")
    if not isinstance(sides, list | tuple):
        raise ConfigError(f"{family}: {key}={sides!r}; expected a list of sides")
    down, up = attention_counters(side, levels)
    met = lambda counter: [i for i, one in enumerate(counter) if one in sides]
    return met(down), met(up)


def encoder_entries(encoder: Any, ours: str, theirs: str) -> list[Entry]:
    """Key table of an encoder without its `proj`."""
    conv = encoder.conv
    inputs = [conv.channels, *conv.widths[:-1]]
    table = [*pair(f"{ours}.conv_in", f"{theirs}.conv_in"), *_mid(conv, ours, theirs)]
    for i, inside in enumerate(inputs):
        mine, their = f"{ours}.levels.{i}", f"{theirs}.conv_blocks.{i}"
        table += _level(conv, i, inside, mine, their)
        if encoder.downsample == "conv" and i + 1 < len(inputs):
            table += pair(f"{mine}.way.conv", f"{their}.downsample.conv")
    return table + _end(ours, theirs)


def decoder_entries(decoder: Any, ours: str, theirs: str) -> list[Entry]:
    """Key table of a decoder without its `embed`."""
    conv = decoder.conv
    inputs = [*conv.widths[1:], conv.widths[-1]]
    way = {"conv": "upsample.conv", "depth_to_space": "upsample.conv1"}.get(decoder.upsample)
    table = [*pair(f"{ours}.conv_in", f"{theirs}.conv_in"), *_mid(conv, ours, theirs)]
    for i, inside in enumerate(inputs):
        mine, run = f"{ours}.levels.{i}", len(inputs) - 1 - i
        table += _level(conv, i, inside, mine, f"{theirs}.conv_blocks.{run}")
        if way is not None and i:
            table += pair(f"{mine}.way.conv", f"{theirs}.conv_blocks.{run}.{way}")
        if decoder.adaptive_norm:
            table += pair(f"{ours}.adaptive.{i}.scale", f"{theirs}.adaptive.{run}.gamma")
            table += pair(f"{ours}.adaptive.{i}.shift", f"{theirs}.adaptive.{run}.beta")
    return table + _end(ours, theirs)


def level_entries(
    conv: Any, side: str, way: str, fused: bool = False, ways: bool = True
) -> list[Entry]:
    """Key table of an encoder (`down`) or a decoder (`up`) in the original's layout.

    Args:
        side: "encoder" or "decoder", here and there. fused: attention has one `qkv` (VAR).
        ways: the ways between levels have convolutions.
    """
    attention = _fused_attention if fused else _attention
    inputs = [conv.channels, *conv.widths[:-1]]
    if way == "up":
        inputs = [*conv.widths[1:], conv.widths[-1]]
    last = 2 if conv.attention else 1
    table = [
        *pair(f"{side}.conv_in", f"{side}.conv_in"),
        *_block(f"{side}.mid.0", f"{side}.mid.block_1"),
        *_block(f"{side}.mid.{last}", f"{side}.mid.block_2"),
        *_end(side, side),
    ]
    if conv.attention:
        table += attention(f"{side}.mid.1", f"{side}.mid.attn_1")
    for i, (inside, out) in enumerate(zip(inputs, conv.widths, strict=True)):
        ours, theirs = f"{side}.levels.{i}", f"{side}.{way}.{i}"
        for j in range(conv.blocks):
            widens = j == 0 and inside != out
            table += _block(f"{ours}.blocks.{j}", f"{theirs}.block.{j}", widens)
            if conv.attends(i):
                table += attention(f"{ours}.attention.{j}", f"{theirs}.attn.{j}")
        if ways and way == "down" and conv.halves(i):
            table += pair(f"{ours}.way.conv", f"{theirs}.downsample.conv")
        if ways and way == "up" and conv.doubles(i):
            table += pair(f"{ours}.way.conv", f"{theirs}.upsample.conv")
    return table


def _end(ours: str, theirs: str) -> list[Entry]:
    return pair(f"{ours}.norm", f"{theirs}.norm_out") + pair(
        f"{ours}.conv_out", f"{theirs}.conv_out"
    )


def _level(conv: Any, level: int, inside: int, ours: str, theirs: str) -> list[Entry]:
    table, out = [], conv.widths[level]
    for block in range(conv.blocks):
        widens = block == 0 and inside != out
        table += _block(f"{ours}.blocks.{block}", f"{theirs}.res.{block}", widens)
        if conv.attends(level):
            table += _attention(f"{ours}.attention.{block}", f"{theirs}.attn.{block}")
    return table


def _mid(conv: Any, ours: str, theirs: str) -> list[Entry]:
    first, last = (f"{ours}.mid", f"{theirs}.mid"), 2 if conv.attention else 1
    table = [*_block(f"{first[0]}.0", f"{first[1]}.0"), *_block(*(f"{m}.{last}" for m in first))]
    return table + (_attention(*(f"{m}.1" for m in first)) if conv.attention else [])


def _block(ours: str, theirs: str, widens: bool = False) -> list[Entry]:
    table = pair(f"{ours}.shortcut", f"{theirs}.nin_shortcut") if widens else []
    for name in ("norm1", "conv1", "norm2", "conv2"):
        table += pair(f"{ours}.{name}", f"{theirs}.{name}")
    return table


def _attention(ours: str, theirs: str) -> list[Entry]:
    """Three 1x1 convolutions there, one linear layer here."""
    table = pair(f"{ours}.norm", f"{theirs}.norm")
    for kind in ("weight", "bias"):
        for mine, names in (("qkv", ("q", "k", "v")), ("out", ("proj_out",))):
            their = tuple(f"{theirs}.{name}.{kind}" for name in names)
            cut = _cut(len(names), kind == "weight")
            table.append(Entry(f"{ours}.attention.{mine}.{kind}", their, _joined, cut))
    return table


def _fused_attention(ours: str, theirs: str) -> list[Entry]:
    """1x1 convolutions there, linear layers here."""
    table = pair(f"{ours}.norm", f"{theirs}.norm")
    for mine, other in (("qkv", "qkv"), ("out", "proj_out")):
        name = f"{ours}.attention.{mine}"
        table.append(same(f"{name}.weight", f"{theirs}.{other}.weight", **squeeze(2, 3)))
        table.append(same(f"{name}.bias", f"{theirs}.{other}.bias"))
    return table


def _joined(*parts: Tensor) -> Tensor:
    return torch.cat([part[..., 0, 0] if part.ndim == 4 else part for part in parts])


def _cut(count: int, maps: bool) -> Any:
    def save(tensor: Tensor) -> tuple[Tensor, ...]:
        return tuple(part[..., None, None] if maps else part for part in tensor.chunk(count))

    return save
