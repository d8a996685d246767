"""Cosmos's image tokenizers DI and CI (arXiv 2501.03575, NVIDIA/Cosmos-Tokenizer, cosmos-predict1).

Files are those of the video tokenizers (see `cosmos`): TorchScript is converted once to a
`model.pt`. Where that comes without a config, sizes and levels are read from the weights. Attention
sits where a counter meets `attn_resolutions`, whatever sides images have: the encoder's starts at
resolution / patch_size and halves where sides do; the decoder's starts at that over
2 ** (levels - 1), also where fewer levels double, and doubles where sides do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from vistok.config import ConfigError
from vistok.pretrained.base import (
    Entry,
    Family,
    Release,
    changed,
    own,
    same,
    squeeze,
    warn_of_unknown,
)
from vistok.pretrained.published import COSMOS_SEED_VOKEN, PLAIN, PublishedProtocol
from vistok.pretrained.tokenizers.cosmos import LICENSE, check
from vistok.pretrained.tokenizers.cosmos_quantizers import (
    FSQ,
    READ,
    is_continuous,
    plain,
    quantizer_found,
    quantizer_official,
    quantizer_tree,
    turned,
)
from vistok.pretrained.tokenizers.llamagen import refuse_others
from vistok.pretrained.tokenizers.taming import (
    attention_counters,
    cnn_official,
    cnn_trees,
    level_entries,
)
from vistok.tokenizer import TokenizerConfig

_NETWORK: dict[str, Any] = {
    "attn_resolutions": [32],
    "channels": 128,
    "channels_mult": [2, 4, 4],
    "dropout": 0.0,
    "in_channels": 3,
    "spatial_compression": 16,
    "num_res_blocks": 2,
    "out_channels": 3,
    "resolution": 1024,
    "patch_size": 4,
    "patch_method": "haar",
    "z_factor": 1,
    "encoder": "Default",
    "decoder": "Default",
}
_DISCRETE = {"z_channels": 256, **FSQ}
_CONTINUOUS = {"z_channels": 16, "latent_channels": 16, "formulation": "AE"}
_ONLY = {"in_channels": 3, "out_channels": 3, "encoder": "Default", "decoder": "Default"}
_IGNORED = ("name", "num_groups", "legacy_mode", "loss_weights")  # of other networks alone
_WRAPPERS = ("network.", "model.")  # prefixes of a trainer


class CosmosImage(Family):
    name = "cosmos_image"
    inert = (
        *("*patcher.wavelets", "*patcher._arange"),
        *(f"{one}{kind}" for one in ("quantizer.", "quantizer.layers.*.")
          for kind in ("_levels", "_basis", "implicit_codebook")),
        *("quantizer.mask", "quantizer.zero", "quantizer.codebook", "inv_quant.*"),
    )  # fmt: skip

    def recognizes(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:
        held = {k.removeprefix(prefix) for k in keys for prefix in ("", *_WRAPPERS)}
        marks = {"encoder.mid.attn_1.q.weight", "quant_conv.weight", "post_quant_conv.weight"}
        said = "spatial_compression" in config or "patch_method" in config
        wavelets = {"encoder.patcher.wavelets", "decoder.unpatcher.wavelets"} & held
        return marks <= held and (said or (not config and bool(wavelets)))

    def unwrapped(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        for prefix in _WRAPPERS:
            if f"{prefix}encoder.mid.attn_1.q.weight" in state:
                return {k.removeprefix(prefix): t for k, t in state.items() if k.startswith(prefix)}
        return state

    # -- configs --------------------------------------------------------------------------------

    def constants(self, state: Mapping[str, Tensor]) -> Mapping[str, Any] | None:
        """What the weights' own keys and shapes say; the rest is that of all releases."""
        if not self.recognizes({}, state):
            return None
        state = self.unwrapped(state)
        into, embed = state["encoder.conv_in.weight"], state["post_quant_conv.weight"]
        channels, side = into.shape[0], round((into.shape[1] / 3) ** 0.5)
        levels, halved = (_count(state, f"encoder.down.{{}}.{one}.weight")
                          for one in ("block.0.conv1", "downsample.conv"))  # fmt: skip
        widths = [state[f"encoder.down.{i}.block.0.conv1.weight"].shape[0] for i in range(levels)]
        counters = attention_counters(_NETWORK["resolution"] // side, levels, halved)
        places = zip(("encoder.down", "decoder.up"), counters, strict=True)
        met = {one for place, counter in places for i, one in enumerate(counter)
               if f"{place}.{i}.attn.0.norm.weight" in state}  # fmt: skip
        usual = _NETWORK["attn_resolutions"]
        nowhere = [] if any(usual[0] in counter for counter in counters) else usual
        found = {
            "attn_resolutions": sorted(met) or nowhere,
            "channels": channels,
            "channels_mult": [width // channels for width in widths],
            "num_res_blocks": _count(state, "encoder.down.0.block.{}.conv1.weight"),
            "patch_size": side,
            "spatial_compression": side * 2**halved,
            "z_channels": embed.shape[0],
        }
        return _NETWORK | found | quantizer_found(state, embed.shape[1])

    def config(self, official: Mapping[str, Any]) -> dict[str, Any]:
        continuous = is_continuous(official)
        defaults = _NETWORK | (_CONTINUOUS if continuous else _DISCRETE)
        warn_of_unknown(self.name, official, {*_NETWORK, *READ, *_IGNORED, "image_size"})
        full = defaults | dict(official)
        for key, value in _ONLY.items():
            if full[key] != value:
                raise ConfigError(
                    f"{self.name}: {key}={full[key]!r} is not supported; expected {value!r}"
                )
        for key, default in defaults.items():
            check(self.name, key, full[key], default)
        quantizer = quantizer_tree(self.name, full, continuous)
        if not full["channels_mult"] or full["channels"] % 32:
            raise ConfigError(
                f"{self.name}: channels={full['channels']}, channels_mult="
                f"{full['channels_mult']}: expected a multiple of 32, the groups of its norms, and "
                "one multiplier or more"
            )
        patch, count = full["patch_size"], len(full["channels_mult"])
        # Rounded down, as there; compressions below the patch divide nothing further.
        ways = max(full["spatial_compression"].bit_length() - patch.bit_length(), 0)
        if ways > count:
            raise ConfigError(
                f"{self.name}: spatial_compression={full['spatial_compression']} of patch_size="
                f"{patch} is {ways} halvings, and channels_mult has {count} levels; use more"
            )
        sizes = {"ch": full["channels"], "ch_mult": full["channels_mult"]}
        sizes |= {"num_res_blocks": full["num_res_blocks"], "dropout_p": full["dropout"]}
        encoder, decoder = cnn_trees(self.name, sizes)
        counters = attention_counters(full["resolution"] // patch, count, ways)
        for part, counter in zip((encoder, decoder), counters, strict=True):
            attended = [i for i, one in enumerate(counter) if one in full["attn_resolutions"]]
            part["conv"] = part["conv"] | {"space_levels": ways, "attention_levels": attended}
            part["z_channels"] = full["z_channels"]
        # DI passes its factor on to nobody.
        encoder["z_channels"] *= full["z_factor"] if continuous else 1
        space = {"kind": "haar", "patch": patch, "method": full["patch_method"]}
        side = patch * 2**ways
        return {
            "image_size": full.get(
                "image_size", max(min(full["resolution"], 256) // side, 1) * side
            ),
            "input_space": space,
            "output_space": space,
            "encoder": encoder,
            "quantizer": quantizer,
            "decoder": decoder,
        }

    def official(self, config: TokenizerConfig) -> dict[str, Any]:
        kinds = {part: getattr(config, part).kind for part in ("input_space", "encoder", "decoder")}
        wanted = {"input_space": "haar", "encoder": "cnn", "decoder": "cnn"}
        self.refuse(
            [f"{part}.kind={kinds[part]}" for part in wanted if kinds[part] != wanted[part]]
        )
        conv, patch = config.encoder.conv, config.input_space.patch
        cnn = cnn_official(config.encoder, config.decoder)
        said = quantizer_official(self, config.quantizer)
        z = config.decoder.z_channels or 1
        if "formulation" in said:
            said["z_factor"] = max((config.encoder.z_channels or z) // z, 1)
        found = _NETWORK | {
            "channels": cnn["ch"],
            "channels_mult": cnn["encoder_ch_mult"],
            "num_res_blocks": cnn["num_res_blocks"],
            "dropout": cnn["dropout_p"],
            "patch_size": patch,
            "patch_method": config.input_space.method,
            "spatial_compression": patch * 2**conv.ways,
            "z_channels": z,
            **self._places(config),
            **said,
        }
        sides = self.config(found)["image_size"]
        if config.image_size != (sides, sides):
            found["image_size"] = list(config.image_size)
        # What is left out and what is said are one to the network.
        whole = {side: _plain(getattr(config, side)) for side in ("encoder", "decoder")}
        refuse_others(self, config.model_copy(update=whole), found)
        again = TokenizerConfig.model_validate(self.config(found)).quantizer
        mine, theirs = (plain(one.model_dump()) for one in (config.quantizer, again))
        self.refuse(changed("quantizer", mine, theirs, ()))
        return found

    def _places(self, config: TokenizerConfig) -> dict[str, Any]:
        """`resolution` and `attn_resolutions` that put attention where it is on both sides."""
        convs = config.encoder.conv, config.decoder.conv
        patch, count, ways = config.input_space.patch, len(convs[0].channel_mult), convs[0].ways
        if len(convs[1].channel_mult) != count:
            return {}
        wanted = [[conv.attends(i) for i in range(count)] for conv in convs]
        sides = (_NETWORK["resolution"], patch << count, *range(patch << count, patch << count + 2))
        for side in sides:
            counters = attention_counters(side // patch, count, ways)
            flat = [(one, want) for pair in zip(counters, wanted, strict=True)
                    for one, want in zip(*pair, strict=True)]  # fmt: skip
            met = {one for one, want in flat if want}
            if min(met, default=1) and not met & {one for one, want in flat if not want}:
                free = not met and _NETWORK["attn_resolutions"][0] not in dict(flat)
                return {
                    "resolution": side,
                    "attn_resolutions": _NETWORK["attn_resolutions"] if free else sorted(met),
                }
        return {}

    # -- keys -----------------------------------------------------------------------------------

    def entries(self, config: TokenizerConfig) -> list[Entry]:
        table = [
            *level_entries(config.encoder.conv, "encoder", "down"),
            *level_entries(config.decoder.conv, "decoder", "up"),
        ]
        rows, columns = (turned(config.quantizer, axis) for axis in (0, 1))
        table += [
            same("encoder.proj.weight", "quant_conv.weight", **(rows or squeeze(2, 3))),
            same("encoder.proj.bias", "quant_conv.bias", **(rows or {})),
            same("decoder.embed.weight", "post_quant_conv.weight", **(columns or squeeze(2, 3))),
            same("decoder.embed.bias", "post_quant_conv.bias"),
        ]
        if config.quantizer.kind == "vq":
            table.append(same("quantizer.codebook", "quantizer.embedding.weight"))
            table += own("quantizer.usage", "quantizer.filled")
        return table

    def _release(
        name: str,
        hub: str,
        rfid: float | None = None,
        protocol: PublishedProtocol = PLAIN,
        **changes: Any,
    ) -> Release:
        kind = _DISCRETE if name.startswith("di") else _CONTINUOUS
        return Release(
            f"cosmos-{name}",
            f"nvidia/{hub}",
            "model.pt",
            LICENSE,
            _NETWORK | kind | changes,
            rfid=rfid,
            protocol=protocol,
            recipe=(f"tokenizers/cosmos/{name.replace('-', '_')}",),
        )

    # The 0.1 repositories hold TorchScript, which a file converted as `cosmos` says replaces.
    releases = (
        _release("di16x16", "Cosmos-0.1-Tokenizer-DI16x16", 4.57, COSMOS_SEED_VOKEN),
        _release("di8x8", "Cosmos-0.1-Tokenizer-DI8x8", spatial_compression=8),
        _release("di16x16-360p", "Cosmos-Tokenize1-DI16x16-360p", patch_size=2),
        _release(
            "di8x8-360p", "Cosmos-Tokenize1-DI8x8-360p", patch_size=2, spatial_compression=8
        ),
        _release("ci16x16", "Cosmos-0.1-Tokenizer-CI16x16"),
        _release("ci8x8", "Cosmos-0.1-Tokenizer-CI8x8", spatial_compression=8),
    )  # fmt: skip


def _count(state: Mapping[str, Tensor], key: str) -> int:
    """How many keys of this form there are, numbered from 0."""
    number = 0
    while key.format(number) in state:
        number += 1
    return number


def _plain(part: Any) -> Any:
    """A part with what null stands for in its `conv` written out, as `config` writes it."""
    conv = part.conv
    attended = tuple(i for i in range(len(conv.channel_mult)) if conv.attends(i))
    told = {"space_levels": conv.ways, "attention_levels": attended if conv.attention else None}
    return part.model_copy(update={"conv": conv.model_copy(update=told)})
