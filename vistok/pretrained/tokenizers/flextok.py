"""FlexTok (arXiv 2502.13967, apple/ml-flextok): registers, FSQ, a rectified-flow decoder in VAE
latents.

The config is a tree of class paths (`flextok_config`); it lies beside the weights as config.json,
or in the safetensors header as Python literals. A checkpoint carries its own copy of the VAE, which
an import keeps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from vistok.config import validate
from vistok.frozen.vae import OWN, VAENetworkConfig
from vistok.layers.fitted_positions import scrambled_sincos
from vistok.pretrained.base import Entry, Family, Release, same
from vistok.pretrained.published import FLEXTOK
from vistok.pretrained.tokenizers import flextok_config as official
from vistok.pretrained.tokenizers.flextok_official import written
from vistok.pretrained.tokenizers.flextok_weights import WRAPPED, networks, patches
from vistok.tokenizer import TokenizerConfig

_MARKS = (
    "decoder.module_dict.dec_time_embedder.mlp.0.weight",
    "decoder.module_dict.dec_from_latents.proj.weight",
)
_LICENSE = (
    "code: Apple/EPFL sample code license, non-commercial; weights: Apple ML Research Model "
    "license, research purposes only, with attribution"
)


class FlexTok(Family):
    name = "flextok"
    inert = ("vae.logvar",)

    # -- configs --------------------------------------------------------------------------------

    def recognizes(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:
        tree = official.unwrapped(config)
        if not tree:  # it stands in the header
            return {"encoder.module_dict.enc_register_module.registers", *_MARKS} <= set(keys)
        vae, encoder = tree.get("vae"), tree.get("encoder")
        named = encoder.get("module_dict") if isinstance(encoder, Mapping) else None
        return (
            isinstance(vae, Mapping)
            and vae.get("_target_") == official.VAE
            and isinstance(named, Mapping)
            and "enc_register_module" in named
        )

    def unwrapped(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {key.replace(WRAPPED, ""): tensor for key, tensor in state.items()}

    def observed(
        self, official_config: Mapping[str, Any], state: Mapping[str, Tensor]
    ) -> Mapping[str, Any]:
        """With a mark where the weights carry a copy of the VAE, wherever that once came from."""
        tree = official.unwrapped(official_config)
        if not any(key.startswith("vae.vae.") for key in state):
            return tree
        return {**tree, "constants": {**(tree.get("constants") or {}), "own_vae": True}}

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        tree = official.unwrapped(config)
        constants = tree.get("constants") or {}
        encoder = official.TREE.modules(tree.get("encoder"), "encoder", official.ENCODER)
        decoder = official.TREE.modules(tree.get("decoder"), "decoder", official.DECODER)
        space = self._space(official.TREE.options(tree.get("vae"), "vae", official.VAE), constants)
        network = validate(VAENetworkConfig, space["network"], f"{self.name}: constants.vae")
        place = "flow_matching_noise_module"
        noise = official.TREE.options(tree.get(place), place, official.NOISE)
        return {
            "image_size": constants.get("image_size") or _image_size(encoder, network.factor),
            "input_space": space,
            "output_space": space,
            "encoder": _encoder(encoder),
            "quantizer": official.fsq_of(official.TREE, tree, official.FSQ),
            "regularizers": _regularizers(decoder),
            "decoder": {
                **_decoder(decoder),
                "times": official.times_of(noise),
                "sampling": _SAMPLING,
            },
        }

    def _space(self, vae: Mapping[str, Any], constants: Mapping[str, Any]) -> dict[str, Any]:
        borrowed = vae["hf_hub_path"] if not constants.get("own_vae") else None
        if not (vae["scaling_factor"] or borrowed):
            official.TREE.refuse(
                "vae.scaling_factor", vae["scaling_factor"], "the number in the VAE's config.json"
            )
        why = "this VAE computes in fp32"
        official.TREE.ignored(vae, "vae", why, dtype_override="fp32")
        return {
            "kind": "vae",
            "weights": borrowed or OWN,
            "network": {"latent_channels": vae["latent_channels"], **(constants.get("vae") or {})},
            "scaling_factor": vae["scaling_factor"] or None,
            "sample_posterior": vae["sample_posterior"],
        }

    def official(self, config: TokenizerConfig) -> dict[str, Any]:
        return written(config)

    # -- keys -----------------------------------------------------------------------------------

    def entries(self, config: TokenizerConfig) -> list[Entry]:
        channels = config.input_space.network.latent_channels
        table = networks(config, lambda ours, theirs, _: patches(ours, theirs, channels))
        if config.decoder.null in ("learned", "single"):
            theirs = "decoder.module_dict.dec_latent_dropout.nullcond"
            table.append(same("decoder.null_token", theirs))
        if config.input_space.weights != OWN:
            return table
        with torch.device("meta"):
            network = config.input_space.network.build()
        names = network.state_dict()
        return table + [same(f"input_space.vae.network.{k}", f"vae.vae.{k}") for k in names]

    def fixed(self, config: TokenizerConfig) -> dict[str, Tensor]:
        """Sin-cos tables, which the official state dict holds as parameters that do not train."""
        encoder, decoder = config.encoder, config.decoder
        factor = config.input_space.network.factor
        tables = {
            "encoder.module_dict.enc_posemb_module.posembs": encoder,
            "decoder.module_dict.dec_patches_posemb_module.posembs": decoder,
        }
        found = {}
        for key, part in tables.items():
            positions = part.patches.positions
            if positions == "none" or positions.kind != "sincos":
                continue
            own = tuple(side // factor // part.patches.size for side in config.image_size)
            rows = scrambled_sincos(positions.sides or own, part.transformer.width)
            found[key] = rows.permute(2, 0, 1)[None].contiguous()
        return found

    def _release(name: str, rfid: float, gfid: float | None = None) -> Release:
        ours = name.replace("_", "-")
        return Release(
            f"flextok-{ours}", f"EPFL-VILAB/flextok_{name}", "model.safetensors", _LICENSE,
            rfid=rfid, gfid=gfid, recipe=(f"tokenizers/flextok/flextok_{name}",),
            research_only=True, protocol=FLEXTOK,
        )  # fmt: skip

    releases = (
        _release("d12_d12_in1k", 4.20, 3.83),
        _release("d18_d18_in1k", 1.61, 2.02),
        _release("d18_d28_in1k", 1.45, 1.86),
        _release("d18_d28_dfn", 1.08),
    )


# As the authors' page decodes: 20 steps, APG at 7.5.
_SAMPLING = {"steps": 20, "guidance": {"kind": "apg", "scale": 7.5}}


def _image_size(encoder: Mapping[str, Any], factor: int) -> list[int]:
    """(H, W) that the encoder's position table covers."""
    place = "encoder.module_dict.enc_posemb_module"
    if "enc_posemb_module" not in encoder:
        official.TREE.refuse("constants.image_size", None, f"a size, since there is no {place}")
    sides = encoder["enc_posemb_module"]["max_sizes"]
    side = official.square(encoder["enc_patch_emb"]["patch_sizes"], "enc_patch_emb.patch_sizes")
    return [cells * side * factor for cells in sides]


def _encoder(found: Mapping[str, Any]) -> dict[str, Any]:
    registers, head = found["enc_register_module"], found["enc_to_latents"]
    place, count = "enc_register_module", registers["n_max"]
    if {registers["n_min"], registers["n_eval"] or count} != {count}:
        official.TREE.refuse(
            f"{place}.n_min, n_eval", (registers["n_min"], registers["n_eval"]), f"n_max={count}"
        )
    official.TREE.only(registers, place, extra_registers_dim=None)
    trunk = official.TREE.transformer(found["enc_transformer"], "enc_transformer")
    official.TREE.check_head(head, "enc_to_latents", trunk)
    for name in ("enc_transformer", "enc_to_latents"):
        official.TREE.only(found[name], name, adaLN_emb_read_key=None)
    modes = {"full": "full", "causal": "causal", "causal_last": "causal_latents"}
    return {
        "kind": "vit",
        "patches": _patches_of(found, "enc_patch_emb", "enc_posemb_module"),
        "latents": {"count": count, "gain": 0.0 if head["weight_init_style"] == "zero" else 1.0},
        "transformer": trunk,
        "attention": official.TREE.mask(found, "enc_seq_packer", modes),
        "token_std": "constant",
    }


def _decoder(found: Mapping[str, Any]) -> dict[str, Any]:
    trunk, time = found["dec_transformer"], found["dec_time_embedder"]
    head, null = found["dec_to_patches"], found.get("dec_latent_dropout")
    official.TREE.only(found["dec_from_latents"], "dec_from_latents", proj_bias=True)
    official.TREE.only(time, "dec_time_embedder", temb_as_tokens=False)
    kinds = 2 if found.get("dec_seq_packer", {}).get("per_subseq_embs") else 1
    official.TREE.only(trunk, "dec_transformer", adaLN_expansion=kinds)
    if trunk["adaLN_emb_read_key"] is None:
        official.TREE.refuse("dec_transformer.adaLN_emb_read_key", None, "the time embedding")
    ours = {**official.TREE.transformer(trunk, "dec_transformer"), "modulation_kinds": kinds}
    official.TREE.check_head(head, "dec_to_patches", ours)
    official.TREE.only(head, "dec_to_patches", adaLN_bias=True)
    blocks = list(trunk["intermediate_layers"] or ())
    names = ["repa"] if len(blocks) == 1 else [f"repa_{i}" for i in blocks]
    modes = {"full": "full", "causal": "causal", "causal_last": "causal_values"}
    kind = "none"
    if null is not None:
        kind = "zero" if null["_target_"] == official.ZERO else "learned"
        kind = "single" if null.get("replace_with_single_token") else kind
    return {
        "kind": "flow_vit",
        "patches": _patches_of(found, "dec_noise_patch_emb", "dec_patches_posemb_module"),
        "transformer": ours,
        "time": {
            "channels": time["frequency_embedding_size"],
            "max_period": 256.0,
            "scale": 1000.0 / time["max_timestep"],
            "scale_frequencies": True,
        },
        "attention": official.TREE.mask(found, "dec_seq_packer", modes),
        "value_positions": official.TREE.positions(found, "dec_registers_posemb_module"),
        "missing": "mask_token" if "dec_nested_dropout" in found else "refuse",
        "null": kind,
        "head_modulation": head["adaLN_emb_read_key"] is not None,
        "taps": {name: block + 1 for name, block in zip(names, blocks, strict=True)},
    }


def _regularizers(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    parts = []
    if "dec_nested_dropout" in found:
        mode = found["dec_nested_dropout"]["size_sampling_mode"]
        parts.append({"kind": "nested_dropout", "lengths": mode})
    share = found.get("dec_latent_dropout", {}).get("dropout_prob")
    if share:
        parts.append({"kind": "condition_dropout", "share": share})
    return parts


def _patches_of(found: Mapping[str, Any], patches: str, positions: str) -> dict[str, Any]:
    size = official.square(found[patches]["patch_sizes"], f"{patches}.patch_sizes")
    return {"size": size, "positions": official.TREE.positions(found, positions) or "none"}
