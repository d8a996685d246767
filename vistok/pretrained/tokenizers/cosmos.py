"""Cosmos's causal video tokenizers DV (arXiv 2501.03575, NVIDIA/Cosmos-Tokenizer).

Releases are TorchScript archives and, from Cosmos-Tokenize1 on, a `model.pt` with native keys.
TorchScript is code and never run: convert it once with torch alone, in an environment of your own,
    torch.save(torch.jit.load("autoencoder.jit", map_location="cpu").state_dict(), "model.pt")
Weights of the `encoder.jit` and `decoder.jit` have the same keys, each its half.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from vistok.config import ConfigError
from vistok.decoders.causal_cnn import CausalCNNDecoderConfig
from vistok.pretrained.base import (
    Entry,
    Family,
    Release,
    changed,
    pair,
    same,
    squeeze,
    warn_of_unknown,
)
from vistok.tokenizer import TokenizerConfig

LICENSE = "NVIDIA Open Model License (weights), Apache-2.0 (code)"
_DEFAULTS: dict[str, Any] = {
    "attn_resolutions": [32],
    "channels": 128,
    "channels_mult": [2, 4, 4],
    "dropout": 0.0,
    "in_channels": 3,
    "num_res_blocks": 2,
    "out_channels": 3,
    "resolution": 1024,
    "patch_size": 4,
    "patch_method": "haar",
    "z_channels": 16,
    "z_factor": 1,
    "num_groups": 1,
    "legacy_mode": False,
    "spatial_compression": 16,
    "temporal_compression": 8,
    "quantizer": "FSQ",
    "embedding_dim": 6,
    "levels": [8, 8, 8, 5, 5, 5],
    "encoder": "FACTORIZED",
    "decoder": "FACTORIZED",
    "name": "DV",
}
_ONLY = {  # options of the official code that these parts have one value of
    "in_channels": 3,
    "out_channels": 3,
    "quantizer": "FSQ",
    "encoder": "FACTORIZED",
    "decoder": "FACTORIZED",
}
# Read by other networks or quantizers of the official code alone.
_IGNORED = ("num_groups", "name", "num_quantizers", "persistent_quantizer", "dtype")
_FRAMES = 17  # of the windows that the official program runs


class Cosmos(Family):
    name = "cosmos"
    inert = (
        "*wavelets",
        "*_arange",
        "*patch_size_buffer",
        "quantizer.*",
        "inv_quant.*",
    )

    def recognizes(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:
        marks = {"encoder.conv_in.0.conv3d.weight", "quant_conv.conv3d.weight"}
        marks |= {"post_quant_conv.conv3d.weight", "decoder.mid.attn_1.1.q.conv3d.weight"}
        said = not config or "temporal_compression" in config or "patch_method" in config
        return said and marks <= set(keys)

    def unwrapped(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        for prefix in ("network.", "model."):
            if f"{prefix}encoder.conv_in.0.conv3d.weight" in state:
                cut = {k.removeprefix(prefix): t for k, t in state.items() if k.startswith(prefix)}
                return cut
        return state

    def config(self, official: Mapping[str, Any]) -> dict[str, Any]:
        known = {*_DEFAULTS, *_IGNORED, "frames"}
        warn_of_unknown(self.name, official, known)
        full = _DEFAULTS | dict(official)
        for key, value in _ONLY.items():
            if full[key] != value:
                raise ConfigError(
                    f"cosmos: {key}={full[key]!r} is not supported; expected {value!r}"
                )
        for key, default in (*_DEFAULTS.items(), ("frames", _FRAMES)):
            check(self.name, key, full.get(key, default), default)
        patch = full["patch_size"]
        if len(full["levels"]) != full["embedding_dim"]:
            raise ConfigError(
                f"cosmos: embedding_dim={full['embedding_dim']} but {len(full['levels'])} levels; "
                "expected one level for each channel"
            )
        counts = {}
        for name, key in (("space", "spatial_compression"), ("time", "temporal_compression")):
            times = full[key] / patch
            counts[name] = int(times).bit_length() - 1
            if times < 1 or 2 ** counts[name] != times:
                raise ConfigError(
                    f"cosmos: {key}={full[key]!r} is not patch_size={patch} times a power of two"
                )
        last = len(full["channels_mult"]) - 1
        net = {
            "channels": full["channels"],
            "channel_mult": list(full["channels_mult"]),
            "blocks": full["num_res_blocks"],
            "space_levels": min(counts["space"], last),
            "time_levels": min(counts["time"], last),
            "resolution": full["resolution"] // patch,
            "attention_resolutions": list(full["attn_resolutions"]),
            "dropout": full["dropout"],
        }
        space = {"kind": "haar", "patch": patch, "method": full["patch_method"]}
        z, legacy = full["z_channels"], full["legacy_mode"]
        time, side = full["temporal_compression"], patch * 2 ** net["space_levels"]
        decoder = {"kind": "causal_cnn", "net": net, "z_channels": z, "time_first": legacy}
        self._check_ways(decoder, full)
        return {
            "image_size": max(min(full["resolution"], 256) // side, 1) * side,
            "frames": full.get("frames", 1 + -(-(_FRAMES - 1) // time) * time),
            "input_space": space,
            "output_space": space,
            "encoder": {"kind": "causal_cnn", "net": net, "z_channels": z * full["z_factor"]},
            "quantizer": {"kind": "fsq", "levels": list(full["levels"])},
            "decoder": decoder,
        }

    def _check_ways(self, decoder: Mapping[str, Any], full: Mapping[str, Any]) -> None:
        """ConfigError where the original's decoder doubles less, or more, than its encoder halves:
        it runs, but its clips have other sides or frames than those that came in."""
        config = CausalCNNDecoderConfig.model_validate(decoder)
        made = tuple(2 ** sum(way[i] for way in config.ways()) for i in (0, 1))
        net = config.net
        if made != (2**net.space_levels, 2**net.time_levels):
            told = {
                key: full[key]
                for key in (
                    "spatial_compression",
                    "temporal_compression",
                    "patch_size",
                    "channels_mult",
                    "legacy_mode",
                )
            }
            raise ConfigError(
                f"cosmos: {', '.join(f'{key}={value}' for key, value in told.items())}: the "
                f"original's decoder enlarges latents {made[0]} times in space and {made[1]} in "
                f"time, expected {2**net.space_levels} and {2**net.time_levels} as the encoder "
                "makes them smaller; use more levels of channels_mult, or another legacy_mode"
            )

    def official(self, config: TokenizerConfig) -> dict[str, Any]:
        net, patch = config.encoder.net, config.input_space.patch
        found = _DEFAULTS | {
            "attn_resolutions": list(net.attention_resolutions),
            "channels": net.channels,
            "channels_mult": list(net.channel_mult),
            "dropout": net.dropout,
            "num_res_blocks": net.blocks,
            "resolution": net.resolution * patch,
            "patch_size": patch,
            "patch_method": config.input_space.method,
            "z_channels": config.decoder.z_channels,
            "z_factor": config.encoder.z_channels // config.decoder.z_channels,
            "legacy_mode": config.decoder.time_first,
            "spatial_compression": patch * 2**net.space_levels,
            "temporal_compression": patch * 2**net.time_levels,
            "embedding_dim": len(config.quantizer.levels),
            "levels": list(config.quantizer.levels),
            "frames": config.frames,
        }
        again = TokenizerConfig.model_validate(self.config(found))
        wrong = []
        for part in ("input_space", "output_space", "encoder", "quantizer", "decoder"):
            mine, theirs = (getattr(one, part).model_dump() for one in (config, again))
            for tree in (mine, theirs):  # how a network starts is no matter to weights
                for key in ("init", "branch_gain"):
                    tree.get("net", {}).pop(key, None)
            if mine["kind"] != theirs["kind"]:
                wrong.append(f"{part}.kind={mine['kind']}")
            else:
                wrong += changed(part, mine, theirs, ("loss_weights",))
        self.refuse(wrong)
        return found

    def entries(self, config: TokenizerConfig) -> list[Entry]:
        one = squeeze(2, 3, 4)
        table = []
        for ours, theirs in (("encoder.proj", "quant_conv"), ("decoder.embed", "post_quant_conv")):
            table.append(same(f"{ours}.weight", f"{theirs}.conv3d.weight", **one))
            table.append(same(f"{ours}.bias", f"{theirs}.conv3d.bias"))
        return (
            table
            + _network("encoder", config.encoder.net)
            + _network("decoder", config.decoder.net)
        )

    def _release(name: str, hub: str, **changes: Any) -> Release:
        return Release(
            f"cosmos-{name}",
            f"nvidia/{hub}",
            "model.pt",
            LICENSE,
            _DEFAULTS | changes,
            recipe=(f"tokenizers/cosmos/{name.split('-')[0]}",),
        )

    # Cosmos-Tokenize1 ships `model.pt` of native keys; the 0.1 and 1.0 repositories hold
    # TorchScript, which a file converted as the header says replaces. Names there: uncertain.
    releases = (
        _release("dv8x16x16-720p", "Cosmos-Tokenize1-DV8x16x16-720p"),
        _release(
            "dv4x8x8-360p", "Cosmos-Tokenize1-DV4x8x8-360p",
            patch_size=2, z_channels=256, spatial_compression=8, temporal_compression=4,
        ),
    )  # fmt: skip


def check(family: str, key: str, value: Any, like: Any) -> None:
    """ConfigError for a value of another type than a default of the official config has."""
    kinds = (int, float) if isinstance(like, float) else type(like)
    fits = isinstance(value, kinds) and (isinstance(value, bool) == isinstance(like, bool))
    if fits and isinstance(like, list):
        fits = all(isinstance(one, int) and not isinstance(one, bool) for one in value)
    if fits and isinstance(like, int) and not isinstance(like, bool):
        fits = value > 0
    if not fits:
        raise ConfigError(f"{family}: {key}={value!r}; expected a value like {like!r}")


def _network(half: str, net: Any) -> list[Entry]:
    """Key table of encoder or decoder, without the linear layer to the quantizer."""
    down = half == "encoder"
    table = [
        *_chain(f"{half}.conv_in", f"{half}.conv_in"),
        *_block(f"{half}.mid.0", f"{half}.mid.block_1"),
        *_attention(f"{half}.mid.1", f"{half}.mid.attn_1"),
        *_block(f"{half}.mid.2", f"{half}.mid.block_2"),
        *pair(f"{half}.norm", f"{half}.norm_out.norm"),
        *_chain(f"{half}.conv_out", f"{half}.conv_out"),
    ]
    widths = net.widths
    inputs = (net.channels, *widths) if down else (*widths[1:], widths[-1])
    way = "downsample" if down else "upsample"
    for level, width in enumerate(widths):
        ours, theirs = f"{half}.levels.{level}", f"{half}.{'down' if down else 'up'}.{level}"
        for i in range(net.blocks + (not down)):
            widens = i == 0 and inputs[level] != width
            table += _block(f"{ours}.blocks.{i}", f"{theirs}.block.{i}", widens)
            if net.attends(level, decoder=not down):
                table += _attention(f"{ours}.attention.{i}", f"{theirs}.attn.{i}")
        if level != (len(widths) - 1 if down else 0):
            # Space is ours' first convolution; the decoder's first is the one over time.
            order = (1, 2, 3) if down else (2, 1, 3)
            for mine, number in enumerate(order, 1):
                table += pair(f"{ours}.way.conv{mine}", f"{theirs}.{way}.conv{number}.conv3d")
    return table


def _chain(ours: str, theirs: str) -> list[Entry]:
    return [e for i in (0, 1) for e in pair(f"{ours}.{i}", f"{theirs}.{i}.conv3d")]


def _block(ours: str, theirs: str, widens: bool = False) -> list[Entry]:
    table = pair(f"{ours}.shortcut", f"{theirs}.nin_shortcut.conv3d") if widens else []
    for i in (1, 2):
        table += pair(f"{ours}.norm{i}", f"{theirs}.norm{i}.norm")
        table += _chain(f"{ours}.conv{i}", f"{theirs}.conv{i}")
    return table


def _attention(ours: str, theirs: str) -> list[Entry]:
    """Attention over space, then over time."""
    table = []
    for i in (0, 1):
        table += pair(f"{ours}.{i}.norm", f"{theirs}.{i}.norm.norm")
        for mine, name in (("q", "q"), ("k", "k"), ("v", "v"), ("out", "proj_out")):
            table += pair(f"{ours}.{i}.{mine}", f"{theirs}.{i}.{name}.conv3d")
    return table
