"""KL-16, the autoencoder of MAR (arXiv 2406.11838), which xAR and TokenBridge build on: taming's
CNN and a normal posterior of 16 channels.

Its file is a bare state dict under "model", without a config. Sizes, levels with attention and the
way down follow from names and shapes, so that other autoencoders of this layout (latent diffusion's
first stages) open too; the size of images does not, and is taken to be the one at which levels with
attention have maps of 16 x 16. Generators multiply its latents by 0.2325, which is a setting of
theirs: tokens and decoder have the autoencoder's own units.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from vistok.pretrained.base import Entry, Family, Release, flag, same, squeeze, warn_of_unknown
from vistok.pretrained.tokenizers.llamagen import refuse_others
from vistok.pretrained.tokenizers.seed_voken import require_kinds
from vistok.pretrained.tokenizers.taming import (
    attended_levels,
    attention_counters,
    cnn_official,
    cnn_trees,
    level_entries,
)
from vistok.tokenizer import TokenizerConfig

LICENSE = "MIT (code and weights)"
HUB, FILE = "Epiphqny/TokenBridge", "vae/kl16.ckpt"
DEFAULTS: dict[str, Any] = {
    "embed_dim": 16,
    "ch_mult": [1, 1, 2, 2, 4],
    "use_variational": True,
    # Of its encoder and its decoder, which the official class leaves as they are.
    "z_channels": None,  # as embed_dim
    "ch": 128,
    "num_res_blocks": 2,
    "attn_resolutions": [16],
    "decoder_attn_resolutions": [],
    "dropout": 0.0,
    "resamp_with_conv": True,
    "resolution": 256,
}
_MARKS = frozenset(
    f"{side}.{key}.weight"
    for side in ("encoder", "decoder")
    for key in ("conv_in", "mid.attn_1.q", "norm_out", "conv_out")
) | {"quant_conv.weight", "post_quant_conv.weight"}
_LOGVAR = 1.0  # of every latent where use_variational is false
_KL = 5.1e-12  # of our losses, as the recipe says; not published


class MARVAE(Family):
    name = "mar_vae"
    inert = ("loss.*", "model_ema.*")
    known: frozenset[str] = frozenset(DEFAULTS)
    """Keys of its official config."""

    def recognizes(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:
        if not set(keys) >= _MARKS or set(config) - self.known:
            return False
        if not isinstance(keys, Mapping):
            return True
        # The encoder's map has two channels for each that the decoder's first map has.
        given, read = (keys[f"{name}quant_conv.weight"].shape for name in ("", "post_"))
        if min(len(given), len(read)) < 2:
            return True  # damaged; what reads it names it
        return given[1] == 2 * read[0]

    def constants(self, state: Mapping[str, Tensor]) -> Mapping[str, Any] | None:
        return sizes_of(state) if self.recognizes({}, state) else None

    # -- configs --------------------------------------------------------------------------------

    def config(self, official: Mapping[str, Any]) -> dict[str, Any]:
        warn_of_unknown(self.name, official, self.known)
        given = {**DEFAULTS, **official}
        both = flag(given, "use_variational", True)
        encoder, decoder = cnn_trees(
            self.name,
            {key: given[key] for key in ("ch", "ch_mult", "num_res_blocks", "resamp_with_conv")}
            | {"dropout_p": given["dropout"]},
        )
        channels = given["z_channels"] or given["embed_dim"]
        encoder["z_channels"], decoder["z_channels"] = 2 * channels, channels
        levels = len(given["ch_mult"])
        down, _ = attended_levels(self.name, given, levels)
        _, up = attended_levels(self.name, given, levels, "decoder_attn_resolutions")
        for side, found in ((encoder, down), (decoder, up)):
            side["conv"]["attention_levels"] = None if found == [levels - 1] else found
        quantizer = {"kind": "kl", "dim": given["embed_dim"], "loss_weights": {"kl": _KL}}
        return {
            "image_size": given["resolution"],
            "encoder": encoder,
            "quantizer": quantizer if both else quantizer | {"logvar": _LOGVAR},
            "decoder": decoder,
        }

    def official(self, config: TokenizerConfig) -> dict[str, Any]:
        require_kinds(self.name, config, encoder="cnn", quantizer="kl")
        return self.network(config, config.quantizer)

    def network(self, config: TokenizerConfig, kl: Any) -> dict[str, Any]:
        """The official config of a tokenizer whose posterior `kl` describes."""
        encoder, decoder, side = config.encoder, config.decoder, config.image_size[0]
        cnn = cnn_official(encoder, decoder)
        down, up = attention_counters(side, len(encoder.conv.channel_mult))
        at = lambda conv, counter: [one for i, one in enumerate(counter) if conv.attends(i)]
        official = {
            "embed_dim": kl.dim,
            "ch_mult": cnn["encoder_ch_mult"],
            "use_variational": kl.logvar is None,
            "z_channels": decoder.z_channels,
            "ch": cnn["ch"],
            "num_res_blocks": cnn["num_res_blocks"],
            "attn_resolutions": at(encoder.conv, down),
            "decoder_attn_resolutions": at(decoder.conv, up),
            "dropout": cnn["dropout_p"],
            "resamp_with_conv": cnn["resamp_with_conv"],
            "resolution": side,
        }
        refuse_others(self, config, official)
        if kl.logvar not in (None, _LOGVAR):
            self.refuse([f"quantizer.logvar={kl.logvar}"])
        if kl.logvar_range != type(kl)().logvar_range:
            self.refuse([f"quantizer.logvar_range={kl.logvar_range}"])
        return official

    # -- keys -----------------------------------------------------------------------------------

    def entries(self, config: TokenizerConfig) -> list[Entry]:
        encoder, decoder = config.encoder, config.decoder
        table = [
            *level_entries(encoder.conv, "encoder", "down", ways=encoder.downsample == "conv"),
            *level_entries(decoder.conv, "decoder", "up", ways=decoder.upsample == "conv"),
        ]
        for ours, theirs in (("encoder.proj", "quant_conv"), ("decoder.embed", "post_quant_conv")):
            table.append(same(f"{ours}.weight", f"{theirs}.weight", **squeeze(2, 3)))
            table.append(same(f"{ours}.bias", f"{theirs}.bias"))
        return table

    releases = (
        Release("mar-kl16", HUB, FILE, LICENSE, dict(DEFAULTS), recipe=("tokenizers/mar/kl16",)),
    )


def sizes_of(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The official config that names and shapes of a state dict tell."""
    channels = lambda key: state[key].shape[0]
    width = channels("encoder.conv_in.weight")
    levels, blocks = _counted(state, "encoder.down.{}.block.0"), "encoder.down.0.block.{}"
    widths = [channels(f"encoder.down.{i}.block.0.conv1.weight") for i in range(levels)]
    at = {
        side: [i for i in range(levels) if f"{side}.{i}.attn.0.q.weight" in state]
        for side in ("encoder.down", "decoder.up")
    }
    both = [i for found in at.values() for i in found]
    side = 16 * 2 ** max(both) if both else DEFAULTS["resolution"]
    counter = [side // 2**i for i in range(levels)]
    dim = state["post_quant_conv.weight"].shape[1]
    return {
        "embed_dim": dim,
        "ch_mult": [one // width for one in widths],
        "use_variational": channels("quant_conv.weight") == 2 * dim,
        "z_channels": channels("post_quant_conv.weight"),
        "ch": width,
        "num_res_blocks": _counted(state, blocks),
        "attn_resolutions": [counter[i] for i in at["encoder.down"]],
        "decoder_attn_resolutions": [counter[i] for i in at["decoder.up"]],
        "dropout": 0.0,
        "resamp_with_conv": levels == 1 or "encoder.down.0.downsample.conv.weight" in state,
        "resolution": side,
    }


def _counted(state: Mapping[str, Tensor], place: str) -> int:
    """Number of modules of that numbered place."""
    count = 0
    while f"{place.format(count)}.conv1.weight" in state:
        count += 1
    return count
