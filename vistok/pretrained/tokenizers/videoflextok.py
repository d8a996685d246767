"""VideoFlexTok (arXiv 2604.12887, apple/ml-videoflextok): registers of each time step, FSQ, a
rectified-flow decoder in latents of VidTok.

The config is a tree of class paths (`videoflextok_config`), bare or in the Hub's wrapper, which
cuts long clips into chunks and puts `video_tokenizer.` in front of every key. A checkpoint carries
its own copy of the VAE, which an import keeps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vistok.config import validate
from vistok.frozen.clip_vae import NAME
from vistok.frozen.vae import OWN
from vistok.frozen.vidtok import VidTokConfig
from vistok.layers.fitted_positions import scrambled_sincos
from vistok.pretrained.base import Entry, Family, Release, same, warn_of_unknown
from vistok.pretrained.tokenizers import flextok_config as images
from vistok.pretrained.tokenizers import videoflextok_config as official
from vistok.pretrained.tokenizers.flextok_weights import WRAPPED, networks
from vistok.pretrained.tokenizers.videoflextok_config import TREE
from vistok.pretrained.tokenizers.videoflextok_modules import decoder_of, encoder_of, lengths_of
from vistok.pretrained.tokenizers.videoflextok_official import written
from vistok.tokenizer import TokenizerConfig

_WRAPPER = "video_tokenizer."
_MARKS = ("enc_register_module.registers", "dec_from_latents.proj.weight")
_LICENSE = (
    "code: Apple/EPFL sample code license, non-commercial; weights: Apple ML Research Model "
    "license, research purposes only, with attribution"
)
# As the authors' page decodes: 30 steps, APG at 15 to 30, whose norms are those of channels.
_SAMPLING = {
    "steps": 30,
    "guidance": {
        **{"kind": "apg", "scale": 15.0, "momentum": 0.0, "norm_threshold": 0.6, "eta": 0.0},
        "norms": "channel",
    },
}


class VideoFlexTok(Family):
    name = "videoflextok"
    # A transformer that aligned features in training.
    inert = ("*decoder.module_dict.dec_repa*",)

    # -- configs --------------------------------------------------------------------------------

    def recognizes(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:
        tree = official.model_of(official.unwrapped(config))
        if tree.get("_target_") in official.MODELS:
            return True
        vae = tree.get("vae")
        if isinstance(vae, Mapping):
            return vae.get("_target_") == official.VAE
        keys = set(keys)  # the config stands in the header
        marks = {f"{_side(mark)}.module_dict.{mark}" for mark in _MARKS}
        own = any(key.removeprefix(_WRAPPER).startswith("vae.vidtok.") for key in keys)
        return own and marks <= {key.removeprefix(_WRAPPER) for key in keys}

    def unwrapped(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {key.replace(WRAPPED, ""): tensor for key, tensor in state.items()}

    def observed(
        self, official_config: Mapping[str, Any], state: Mapping[str, Tensor]
    ) -> Mapping[str, Any]:
        """With a mark where the weights carry a copy of the VAE."""
        config = official.unwrapped(official_config)
        tree = official.model_of(config)
        if not any(key.removeprefix(_WRAPPER).startswith("vae.vidtok.") for key in state):
            return config
        tree = {**tree, "constants": {**(tree.get("constants") or {}), "own_vae": True}}
        return {**config, "video_flex_tok": tree} if "video_flex_tok" in config else tree

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        config = official.unwrapped(config)
        tree, wrapped = official.model_of(config), "video_flex_tok" in config
        constants = tree.get("constants") or {}
        encoder = TREE.modules(tree.get("encoder"), "encoder", official.ENCODER)
        decoder = _known(tree.get("decoder"))
        order = list(decoder["module_dict"]) if isinstance(decoder, Mapping) else []
        decoder = TREE.modules(decoder, "decoder", official.DECODER)
        space = self._space(TREE.options(tree.get("vae"), "vae", official.VAE), constants)
        network = validate(VidTokConfig, space["network"], f"{self.name}: constants.vae")
        sides = _sides(config if wrapped else None, constants, network)
        TREE.only(
            TREE.options(tree.get("pipeline"), "pipeline", official.PIPELINE),
            "pipeline",
            zero_noise=False,
        )
        noise = "flow_matching_noise_module"
        noises = (official.NOISE, official.PREFIX_NOISE)
        times = TREE.options(tree.get(noise), noise, *noises)
        found = {
            "image_size": list(sides[1:]),
            "frames": sides[0],
            "input_space": space,
            "output_space": space,
            "encoder": encoder_of(encoder),
            "quantizer": images.fsq_of(TREE, tree, official.FSQ),
            "regularizers": lengths_of(decoder, sides[0], network.frame_stride),
            "decoder": {**decoder_of(decoder, order, times), "sampling": _SAMPLING},
        }
        if wrapped:
            warn_of_unknown(self.name, config, official.WRAPPER)
            overlap = config.get("overlap_size_frames", 1)
            found["chunks"] = {"frames": sides[0], "overlap": overlap}
            if overlap and found["decoder"].get("given") is not None:
                found["chunks"]["join"] = "condition"
        return found

    def _space(self, vae: Mapping[str, Any], constants: Mapping[str, Any]) -> dict[str, Any]:
        if vae["tokenizer_id"] != official.VIDTOK:
            TREE.refuse("vae.tokenizer_id", vae["tokenizer_id"], official.VIDTOK)
        TREE.only(vae, "vae", chunk_size=None)
        return {
            "kind": "clip_vae",
            "weights": OWN if constants.get("own_vae") else NAME,
            "network": dict(constants.get("vae") or {}),
            "sample_posterior": True,  # the code always does, in evaluation too; ours in training
        }

    def official(self, config: TokenizerConfig) -> dict[str, Any]:
        return written(config)

    # -- keys -----------------------------------------------------------------------------------

    def entries(self, config: TokenizerConfig) -> list[Entry]:
        decoder, head = config.decoder, _head(config)
        dec = f"{head}decoder.module_dict.dec_"
        channels = config.input_space.network.latent_channels
        table = networks(config, partial(_patches, channels=channels), head)
        if decoder.given is not None and decoder.given.hidden:
            table.append(same("decoder.given_token", f"{dec}prefix_masking.dropout_mask_token"))
        if decoder.null == "learned":
            table.append(same("decoder.null_token", f"{dec}latent_dropout.nullcond"))
        if config.input_space.weights != OWN:
            return table
        with torch.device("meta"):
            names = config.input_space.network.build().state_dict()
        vae = f"{head}vae.vidtok."
        return table + [same(f"input_space.vae.network.{k}", f"{vae}{k}") for k in names]

    def fixed(self, config: TokenizerConfig) -> dict[str, Tensor]:
        """Sin-cos tables of registers, (time, register), which the official state holds."""
        positions = config.decoder.value_positions
        if positions is None or positions.kind != "sincos":
            return {}
        own = (len_of(config), config.encoder.latents.count)
        rows = scrambled_sincos(positions.sides or own, config.decoder.transformer.width)
        key = f"{_head(config)}decoder.module_dict.dec_registers_posemb_module.posembs"
        return {key: rows.permute(2, 0, 1)[None].contiguous()}

    releases = (
        Release(
            "videoflextok-d18-d28", "EPFL-VILAB/videoflextok_d18_d28", "model.safetensors",
            _LICENSE, recipe=("tokenizers/videoflextok/videoflextok_d18_d28",), research_only=True,
        ),
        Release(
            "videoflextok-d18-d18-k600", "EPFL-VILAB/videoflextok_d18_d18_k600",
            "model.safetensors", _LICENSE,
            recipe=("tokenizers/videoflextok/videoflextok_d18_d18_k600",), research_only=True,
        ),
    )  # fmt: skip


def len_of(config: TokenizerConfig) -> int:
    """Time steps of a clip."""
    latent = 1 + (config.frames - 1) // config.input_space.network.frame_stride
    return latent // config.encoder.patches.frames


def _side(mark: str) -> str:
    return "encoder" if mark.startswith("enc_") else "decoder"


def _head(config: TokenizerConfig) -> str:
    """What stands in front of every key: the wrapper for long clips, if there is one."""
    return "" if config.chunks is None else _WRAPPER


def _known(decoder: Any) -> Any:
    """The decoder without the transformers that align features in training, named dec_repa_..."""
    named = decoder.get("module_dict") if isinstance(decoder, Mapping) else None
    if not isinstance(named, Mapping):
        return decoder
    left = {
        name: part
        for name, part in named.items()
        if not (
            name.startswith("dec_repa")
            and isinstance(part, Mapping)
            and part.get("_target_") == official.REPA_HEAD
        )
    }
    return {**decoder, "module_dict": left}


def _sides(
    wrapper: Mapping[str, Any] | None, constants: Mapping[str, Any], network: VidTokConfig
) -> tuple[int, int, int]:
    """(frames, height, width) of a clip."""
    stride, factor = network.frame_stride, network.factor
    if wrapper is None:
        size, frames = constants.get("image_size"), constants.get("frames")
        if size is None or frames is None:
            missing = "image_size" if size is None else "frames"
            TREE.refuse(f"constants.{missing}", None, "a number, since no wrapper says it")
        size = [size, size] if isinstance(size, int) else size
        return frames, *size
    steps, *sides = _three(wrapper.get("vae_video_sizes", (5, 32, 32)))
    frames = wrapper.get("chunk_size", 17)
    if 1 + (frames - 1) // stride != steps or (frames - 1) % stride:
        expected = f"1 + {stride} x {steps - 1}, those of vae_video_sizes={steps, *sides}"
        TREE.refuse("chunk_size", frames, expected)
    return frames, *(side * factor for side in sides)


def _three(sizes: Any) -> Sequence[int]:
    if not isinstance(sizes, list | tuple) or len(sizes) != 3:
        TREE.refuse("vae_video_sizes", sizes, "three numbers: latent frames, rows, columns")
    return sizes


def _patches(ours: str, theirs: str, part: Any, channels: int) -> list[Entry]:
    """A 3D convolution of ours that is a linear layer over (frame, row, column, channel) there."""
    frames, side = part.patches.frames, part.patches.size
    load = lambda weight: weight.unflatten(1, (frames, side, side, channels)).movedim(-1, 1)
    save = lambda kernel: (kernel.movedim(1, -1).flatten(1),)
    return [
        same(f"{ours}.weight", f"{theirs}.patch_proj.weight", load=load, save=save),
        same(f"{ours}.bias", f"{theirs}.patch_proj.bias"),
    ]
