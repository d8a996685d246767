"""VAR's multi-scale VQ-VAE (arXiv 2404.02905, FoundationVision/VAR): ten residual scales.

The weights are a bare state dict; arguments of the official constructor may come as its config.
What is not given is read from the shapes of the tensors, and the scales are those of 256 pixels.
The same weights serve other sizes with other scales: the second release is the first one's file.
Their training was never published; what a new one needs of it is in the recipe.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from vistok.config import ConfigError
from vistok.core.text import printable
from vistok.pretrained import published
from vistok.pretrained.base import (
    Entry,
    Family,
    Release,
    flag,
    same,
    squeeze,
    warn_of_unknown,
)
from vistok.pretrained.tokenizers import xqgan_quantizers as quantizers
from vistok.pretrained.tokenizers.llamagen import refuse_others
from vistok.pretrained.tokenizers.taming import cnn_official, cnn_trees, level_entries
from vistok.tokenizer import TokenizerConfig

SCALES_256 = [1, 2, 3, 4, 5, 6, 8, 10, 13, 16]
SCALES_512 = [1, 2, 3, 4, 6, 9, 13, 18, 24, 32]
FILE = "vae_ch160v4096z32.pth"
HUB = "FoundationVision/var"
LICENSE = "MIT (weights without a text of their own)"
DEFAULTS: dict[str, Any] = {  # of the official constructor, and of the network that it names
    "vocab_size": 4096,
    "z_channels": 32,
    "ch": 128,
    "dropout": 0.0,
    "beta": 0.25,
    "using_znorm": False,
    "quant_conv_ks": 3,
    "quant_resi": 0.5,
    "share_quant_resi": 4,
    "default_qresi_counts": 0,
    "v_patch_nums": SCALES_256,
    "ch_mult": [1, 1, 2, 2, 4],
    "num_res_blocks": 2,
}
_SILENT = {"test_mode"}  # evaluation mode and no gradients, which are the caller's here
_KERNELS = (1, 3, 5, 7)


class VARTokenizer(Family):
    name = "var_vqvae"
    inert = ("quantize.ema_vocab_hit_SV",)  # counts of codes; of ten scales, whatever the scales

    def recognizes(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:
        keys = set(keys)
        marks = {"quant_conv.weight", "post_quant_conv.weight", "quantize.ema_vocab_hit_SV"}
        marks |= {"quantize.embedding.weight", "encoder.mid.attn_1.qkv.weight"}
        return marks <= keys and (not config or bool(set(config) & set(DEFAULTS)))

    def constants(self, state: Mapping[str, Tensor]) -> Mapping[str, Any] | None:
        return {} if self.recognizes({}, state) else None  # the tensors tell it, but the scales

    def observed(
        self, official: Mapping[str, Any], state: Mapping[str, Tensor]
    ) -> Mapping[str, Any]:
        try:
            return {**_sizes(state), **official}
        except (KeyError, IndexError, ZeroDivisionError):
            return official  # importing says what is missing

    # -- configs --------------------------------------------------------------------------------

    def config(self, official: Mapping[str, Any]) -> dict[str, Any]:
        warn_of_unknown(self.name, official, {*DEFAULTS, *_SILENT})
        args = {**DEFAULTS, **official}
        kernel = args["quant_conv_ks"]
        if kernel not in _KERNELS or isinstance(kernel, bool):
            raise ConfigError(
                f"{self.name}: quant_conv_ks={printable(str(kernel))}; expected one of {_KERNELS}: "
                "others change the sides of a map"
            )
        network = {key: args[key] for key in ("ch", "ch_mult", "num_res_blocks")}
        encoder, decoder = cnn_trees(self.name, network | {"dropout_p": args["dropout"]})
        z, stride = args["z_channels"], 2 ** (len(args["ch_mult"]) - 1)
        last = args["v_patch_nums"][-1]
        sides = [last, last] if isinstance(last, int) else list(last)
        return {
            "image_size": [side * stride for side in sides],
            "encoder": encoder | {"z_channels": z, "kernel_proj": kernel},
            "quantizer": quantizer_tree(self.name, args),
            "decoder": decoder | {"z_channels": z, "kernel_embed": kernel},
        }

    def official(self, config: TokenizerConfig) -> dict[str, Any]:
        quantizer = config.quantizer
        if quantizer.kind != "multi_scale" or quantizer.quantizer.kind != "vq":
            raise ConfigError(
                f"{self.name}: quantizer.kind={quantizer.kind} has no place in the official "
                "layout; expected multi_scale over vq"
            )
        cnn = cnn_official(config.encoder, config.decoder)
        official = {
            "ch": cnn["ch"],
            "ch_mult": cnn["encoder_ch_mult"],
            "num_res_blocks": cnn["num_res_blocks"],
            "dropout": cnn["dropout_p"],
            "z_channels": config.encoder.z_channels,
            "quant_conv_ks": config.encoder.kernel_proj,
            **quantizer_official(quantizer),
        }
        refuse_others(self, config, official)
        theirs = quantizer_tree(self.name, {**DEFAULTS, **official})
        again = type(quantizer).model_validate(theirs)
        for name in ("normalize", "magnitude", "scales", "phi"):
            if getattr(quantizer, name) != getattr(again, name):
                raise ConfigError(
                    f"{self.name}: quantizer.{name}={getattr(quantizer, name)} has no place in the "
                    "official layout"
                )
        if quantizer.quantizer.l2_norm:
            raise ConfigError(
                f"{self.name}: quantizer.quantizer.l2_norm=true has no place in the official "
                "layout; expected search: cosine"
            )
        return official

    # -- keys -----------------------------------------------------------------------------------

    def entries(self, config: TokenizerConfig) -> list[Entry]:
        kernel = config.encoder.kernel_proj
        table = [
            *level_entries(config.encoder.conv, "encoder", "down", fused=True),
            *level_entries(config.decoder.conv, "decoder", "up", fused=True),
            *quantizers.entries(config.quantizer, "quantizer.", "quantize."),
        ]
        for ours, theirs in (("encoder.proj", "quant_conv"), ("decoder.embed", "post_quant_conv")):
            how = squeeze(2, 3) if kernel == 1 else {}
            table.append(same(f"{ours}.weight", f"{theirs}.weight", **how))
            table.append(same(f"{ours}.bias", f"{theirs}.bias"))
        return table

    def fixed(self, config: TokenizerConfig) -> dict[str, Tensor]:
        tensors = quantizers.fixed(config.quantizer)
        return {f"quantize.{name}": tensor for name, tensor in tensors.items()}

    def _release(name: str, scales: list[int], **figures: Any) -> Release:
        config = {"ch": 160, "v_patch_nums": scales}
        recipe = "tokenizers/var/vqvae" + ("" if scales == SCALES_256 else "_512")
        return Release(name, HUB, FILE, LICENSE, config, recipe=(recipe,), **figures)

    releases = (
        _release(
            "var-vqvae",
            SCALES_256,
            rfid=0.90,
            protocol=published.VAR,
        ),
        _release("var-vqvae-512", SCALES_512),
    )


# -- the quantizer, which the generators read too -------------------------------------------------


def quantizer_tree(family: str, args: Mapping[str, Any]) -> dict[str, Any]:
    """Config of the quantizer of the official constructor's arguments, all of them given.

    ConfigError names an argument with a value that ours does not have.
    """
    scales, share = args["v_patch_nums"], args["share_quant_resi"]
    if len(scales) < 2:
        raise ConfigError(
            f"{family}: v_patch_nums={list(scales)}: the original divides by the number of scales "
            "less one; expected two scales or more"
        )
    if abs(args["quant_resi"]) > 1:
        raise ConfigError(f"{family}: quant_resi={args['quant_resi']}; expected -1..1")
    counts = args["default_qresi_counts"]
    if share == 0 and counts not in (0, len(scales)):
        raise ConfigError(
            f"{family}: default_qresi_counts={counts} with share_quant_resi=0; expected 0: a "
            "convolution for each scale"
        )
    tree = quantizers.vector_quantizer_2(
        {
            "vocab_size": args["vocab_size"],
            "Cvae": args["z_channels"],
            "using_znorm": flag(args, "using_znorm", False),
            "v_patch_nums": scales,
            "quant_resi": args["quant_resi"],
            "share_quant_resi": share,
        }
    )
    # Both of its losses are means over the scales, where XQ-GAN adds one of them up.
    tree["quantizer"]["loss_weights"] = {"codebook": 1.0, "commitment": args["beta"]}
    return tree


def quantizer_official(quantizer: Any) -> dict[str, Any]:
    """The inverse of `quantizer_tree`."""
    atom, phi = quantizer.quantizer, quantizer.phi
    return {
        "vocab_size": atom.codebook_size,
        "beta": atom.loss_weights.get("commitment", 0.0),
        "using_znorm": atom.search == "cosine",
        "quant_resi": 0.0 if phi is None else phi.ratio,
        "share_quant_resi": 4 if phi is None else phi.count or 0,
        "v_patch_nums": [s if isinstance(s, int) else list(s) for s in quantizer.scales],
    }


# -- tables ---------------------------------------------------------------------------------------


def _sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments of the constructor that the shapes of the tensors tell."""
    ch = len(state["encoder.conv_in.weight"])
    vocab, z = state["quantize.embedding.weight"].shape
    levels = {key.split(".")[2] for key in state if key.startswith("encoder.down.")}
    blocks = {key.split(".")[4] for key in state if key.startswith("encoder.down.0.block.")}
    widths = [len(state[f"encoder.down.{i}.block.0.conv2.weight"]) for i in range(len(levels))]
    sizes = {
        "ch": ch,
        "vocab_size": vocab,
        "z_channels": z,
        "quant_conv_ks": state["quant_conv.weight"].shape[-1],
        "ch_mult": [width // ch for width in widths],
        "num_res_blocks": len(blocks),
    }
    phis = [key.split(".")[2] for key in state if key.startswith("quantize.quant_resi.")]
    if not phis:
        sizes["quant_resi"] = 0.0
    elif "qresi_ls" in phis:
        known = {key.split(".")[3] for key in state if key.startswith("quantize.quant_resi.")}
        sizes["share_quant_resi"] = len(known)
    else:
        sizes["share_quant_resi"] = 1 if "qresi" in phis else 0
    return sizes
