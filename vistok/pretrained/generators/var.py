"""VAR (arXiv 2404.02905, FoundationVision/VAR) on the scales of its multi-scale VQ-VAE.

Releases are bare state dicts; arguments of the official constructor (VARHF's, with `vae_kwargs`)
may come as a config, and what is not given is read from the shapes of the tensors. The official
model reads codes and convolutions of the VQ-VAE, whose file therefore has to lie beside its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vistok.config import ConfigError
from vistok.generators import Generator
from vistok.pretrained.base import (
    Entry,
    Family,
    Release,
    flag,
    pair,
    same,
    squeeze,
    warn_of_unknown,
)
from vistok.pretrained.generators.rar import swapped
from vistok.pretrained.published import VAR_512_SAMPLED, VAR_D16_SAMPLED, VAR_SAMPLED
from vistok.pretrained.tokenizers import xqgan_quantizers as quantizers
from vistok.pretrained.tokenizers.var import DEFAULTS as VAE_DEFAULTS
from vistok.pretrained.tokenizers.var import (
    HUB,
    SCALES_256,
    SCALES_512,
    quantizer_official,
    quantizer_tree,
)

VAE = "vae."  # before the keys of the VQ-VAE, among those of the generator
_MARKS = frozenset({"pos_start", "pos_1LC", "lvl_embed.weight", "word_embed.weight"})
_SILENT = {"flash_if_available", "fused_if_available"}  # kernels; no number depends on them
_DEFAULTS: dict[str, Any] = {  # of the official constructor, as its own builder calls it
    "num_classes": 1000,
    "depth": 16,
    "mlp_ratio": 4.0,
    "drop_rate": 0.0,
    "attn_drop_rate": 0.0,
    "norm_eps": 1e-6,
    "shared_aln": False,
    "cond_drop_rate": 0.1,
    "attn_l2_norm": True,
    "patch_nums": SCALES_256,
}
_DERIVED = {"embed_dim", "num_heads", "drop_path_rate", "vae_kwargs"}
# Groups of channels of a modulation: (gate, gate, scale, scale, shift, shift) there, of attention
# and of the feed-forward layer; (shift, scale, gate) of the one, then of the other, here.
_OURS, _THEIRS = [4, 2, 0, 5, 3, 1], [2, 5, 1, 4, 0, 3]
_LICENSE = "MIT (weights without a text of their own, trained on ImageNet: research purposes)"
_SAMPLING = {  # with which the paper measures FID: cfg=1.5, which is a scale of 1 + 1.5 here
    "guidance": 2.5,
    "guidance_schedule": "linear",
    "top_k": 900,
    "top_p": 0.96,
}
PRESETS = {"guided": {}, "unguided": {"guidance": 1.0, "top_k": 0, "top_p": 1.0}}


class VAR(Family):
    name = "var"
    makes = "generator"
    companion = "var-vqvae"

    # -- weights --------------------------------------------------------------------------------

    def recognizes(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:
        return set(keys) >= _MARKS

    def constants(self, state: Mapping[str, Tensor]) -> Mapping[str, Any] | None:
        return {} if self.recognizes({}, state) else None  # the tensors tell it all

    def completed(
        self, state: Mapping[str, Tensor], tokenizer: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        read = ("quantize.embedding.", "quantize.quant_resi.")
        codes = {VAE + key: one for key, one in tokenizer.items() if key.startswith(read)}
        return {**state, **codes}

    def observed(
        self, official: Mapping[str, Any], state: Mapping[str, Tensor]
    ) -> Mapping[str, Any]:
        try:
            sizes = _sizes(state)
        except (KeyError, IndexError, ZeroDivisionError):
            return official  # importing says what is missing
        known = {**sizes["vae_kwargs"], **(official.get("vae_kwargs") or {})}
        return {**sizes, **official, "vae_kwargs": known}

    # -- configs --------------------------------------------------------------------------------

    def config(self, official: Mapping[str, Any]) -> dict[str, Any]:
        warn_of_unknown(self.name, official, {*_DEFAULTS, *_DERIVED, *_SILENT})
        args = {**_DEFAULTS, **official}
        depth = args["depth"]
        width = args.get("embed_dim", 64 * depth)
        scales = [int(side) for side in args["patch_nums"]]
        vae = {**VAE_DEFAULTS, "v_patch_nums": scales, **(args.get("vae_kwargs") or {})}
        if list(vae["v_patch_nums"]) != scales:
            raise ConfigError(
                f"{self.name}: patch_nums={scales} with vae_kwargs.v_patch_nums="
                f"{list(vae['v_patch_nums'])}; expected the same scales"
            )
        return {
            "kind": "next_scale",
            "transformer": {
                "width": width,
                "depth": depth,
                "heads": args.get("num_heads", depth),
                "mlp_ratio": args["mlp_ratio"],
                "norm_eps": args["norm_eps"],
                "unit_attention": flag(args, "attn_l2_norm", True),
                "modulation": "shared" if flag(args, "shared_aln", False) else "block",
                "dropout": args["drop_rate"],
                "attention_dropout": args["attn_drop_rate"],
                "drop_path": args.get("drop_path_rate", 0.1 * depth / 24),
            },
            "quantizer": quantizer_tree(self.name, vae),
            "head": "joint",
            "condition": {"classes": args["num_classes"], "dropout": args["cond_drop_rate"]},
            "sampling": _SAMPLING,
            "presets": PRESETS,
            "spec": {
                "blocks": [[side, side] for side in scales],
                "vocab": [vae["vocab_size"]],
                "dim": vae["z_channels"],
                "prefix": "block",
            },
            "tokenizer": _tokenizer(scales),
        }

    def official(self, config: Generator) -> dict[str, Any]:
        """The official config of a next-scale generator that was trained here.

        ConfigError for what the official layout has no place for.
        """
        own, spec = config.config, config.spec
        if own.kind != "next_scale" or own.quantizer.kind != "multi_scale":
            raise ConfigError(
                f"{self.name}: kind={own.kind} has no place in the official layout; expected "
                "kind=next_scale on tokens of a multi_scale quantizer"
            )
        trunk = own.transformer
        tree = {
            "vae_kwargs": {**quantizer_official(own.quantizer), "z_channels": spec.dim},
            "num_classes": own.condition.classes or 0,
            "depth": trunk.depth,
            "embed_dim": trunk.width,
            "num_heads": trunk.heads,
            "mlp_ratio": trunk.mlp_ratio,
            "drop_rate": trunk.dropout,
            "attn_drop_rate": trunk.attention_dropout,
            "drop_path_rate": trunk.drop_path,
            "norm_eps": trunk.norm_eps,
            "shared_aln": trunk.modulation == "shared",
            "cond_drop_rate": own.condition.dropout,
            "attn_l2_norm": trunk.unit_attention,
            "patch_nums": [block[0] for block in spec.blocks],
        }
        self._check(own.model_dump(mode="json"), self.config(tree), spec)
        return tree

    def _check(self, ours: Mapping[str, Any], again: Mapping[str, Any], spec: Any) -> None:
        """ConfigError for what the way there and back would change of the network."""
        wrong = [
            f"transformer.{key}={ours['transformer'][key]}"
            for key, value in again["transformer"].items()
            if ours["transformer"][key] != value
        ]
        plain = {"regroup": None, "positions": "learned", "max_length": None}
        wrong += [f"{key}={ours[key]}" for key, value in plain.items() if ours[key] != value]
        if ours["head"] not in (None, "joint"):
            wrong.append(f"head={ours['head']}")
        read = {key: ours["condition"][key] for key in ("text", "pooled")}
        wrong += [f"condition.{key}={value}" for key, value in read.items() if value is not None]
        if [list(block) for block in spec.blocks] != again["spec"]["blocks"]:
            wrong.append(f"blocks={spec.blocks}")
        self.refuse(wrong)

    # -- keys -----------------------------------------------------------------------------------

    def entries(self, config: Generator) -> list[Entry]:
        trunk = config.config.transformer
        codes = quantizers.entries(config.config.quantizer, "sums.", f"{VAE}quantize.")
        table = [
            *(replace(entry, borrowed=bool(entry.theirs)) for entry in codes),
            same("condition.label.weight", "class_emb.weight"),
            same("start_table", "pos_start", **squeeze(0)),
            same("position_table", "pos_1LC", **squeeze(0)),
            same("levels", "lvl_embed.weight"),
            *pair("embed", "word_embed"),
            *pair("head.out", "head"),
        ]
        for kind in ("weight", "bias"):
            ours, theirs = f"transformer.modulation_head.proj.{kind}", f"head_nm.ada_lin.1.{kind}"
            table.append(same(ours, theirs, load=swapped, save=lambda tensor: (swapped(tensor),)))
        if trunk.modulation == "shared":
            table += modulation_entries("transformer.shared.proj", "shared_ada_lin.1")
        for i in range(trunk.depth):
            ours, theirs = f"transformer.blocks.{i}", f"blocks.{i}"
            qkv = f"{ours}.attention.qkv"
            table += [
                same(f"{qkv}.weight", f"{theirs}.attn.mat_qkv.weight"),
                same(f"{qkv}.q_bias", f"{theirs}.attn.q_bias"),
                same(f"{qkv}.v_bias", f"{theirs}.attn.v_bias"),
                *pair(f"{ours}.attention.out", f"{theirs}.attn.proj"),
                *pair(f"{ours}.mlp.up", f"{theirs}.ffn.fc1"),
                *pair(f"{ours}.mlp.out", f"{theirs}.ffn.fc2"),
            ]
            if trunk.unit_attention:
                factor = f"{ours}.attention.norm_q.log_factor"
                table.append(same(factor, f"{theirs}.attn.scale_mul_1H11", **squeeze(0)))
            if trunk.modulation == "shared":
                how = {"load": lambda tensor: tensor[0, 0, _OURS],
                       "save": lambda tensor: (tensor[None, None, _THEIRS],)}  # fmt: skip
                table.append(same(f"{ours}.offsets", f"{theirs}.ada_gss", **how))
            else:
                table += modulation_entries(f"{ours}.modulation.proj", f"{theirs}.ada_lin.1")
        return table

    def fixed(self, config: Generator) -> dict[str, Tensor]:
        """Buffers of constants: levels, the mask of training, and a bias of keys that is zero."""
        lengths = torch.tensor(config.spec.block_lengths)
        level = torch.arange(len(lengths)).repeat_interleave(lengths)
        bias = torch.zeros(len(level), len(level))
        bias = bias.masked_fill(level[:, None] < level, -torch.inf)
        tensors = {"lvl_1L": level[None], "attn_bias_for_masking": bias[None, None]}
        trunk = config.config.transformer
        for i in range(trunk.depth):
            tensors[f"blocks.{i}.attn.zero_k_bias"] = torch.zeros(trunk.width)
        return tensors

    def _release(depth: int, gfid: float) -> Release:
        large = depth == 36
        config = {
            "depth": depth,
            "shared_aln": large,
            "patch_nums": SCALES_512 if large else SCALES_256,
        }
        return Release(
            f"var-d{depth}",
            HUB,
            f"var_d{depth}.pth",
            _LICENSE,
            config,
            gfid=gfid,
            sampled={16: VAR_D16_SAMPLED, 36: VAR_512_SAMPLED}.get(depth, VAR_SAMPLED),
            recipe=(f"generators/var/d{depth}",),
            research_only=True,
        )

    releases = (
        _release(16, 3.55),
        _release(20, 2.95),
        _release(24, 2.33),
        _release(30, 1.97),
        _release(36, 2.63),  # images of 512 pixels
    )


def modulation_entries(ours: str, theirs: str) -> list[Entry]:
    """A layer to six groups of channels, whose orders differ."""

    def moved(order: list[int]) -> Any:
        return lambda tensor: tensor.unflatten(0, (6, -1))[order].flatten(0, 1)

    load, save = moved(_OURS), moved(_THEIRS)
    how = {"load": load, "save": lambda tensor: (save(tensor),)}
    return [same(f"{ours}.{kind}", f"{theirs}.{kind}", **how) for kind in ("weight", "bias")]


def _tokenizer(scales: list[int]) -> dict[str, str]:
    """Record of the tokenizer: the release whose scales these are; {} for others. Which weights
    they were is not told."""
    names = {"var-vqvae": SCALES_256, "var-vqvae-512": SCALES_512}
    found = [name for name, known in names.items() if known == scales]
    return {"name": found[0], "sha256": ""} if found else {}


def _sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments of the constructor that the shapes of the tensors tell."""
    width = state["pos_start"].shape[-1]
    depth = len({key.split(".")[1] for key in state if key.startswith("blocks.")})
    counts = torch.bincount(state["lvl_1L"].flatten().long())
    factors = state.get("blocks.0.attn.scale_mul_1H11")
    sizes = {
        "num_classes": len(state["class_emb.weight"]) - 1,
        "depth": depth,
        "embed_dim": width,
        # Without it nothing tells them: as the official builder has them.
        "num_heads": max(width // 64, 1) if factors is None else factors.shape[1],
        "mlp_ratio": len(state["blocks.0.ffn.fc1.weight"]) / width,
        "shared_aln": "shared_ada_lin.1.weight" in state,
        "attn_l2_norm": factors is not None,
        "patch_nums": [round(count**0.5) for count in counts.tolist()],
        "drop_path_rate": 0.1 * depth / 24,
    }
    vocab, channels = len(state["head.weight"]), state["word_embed.weight"].shape[1]
    vae: dict[str, Any] = {"vocab_size": vocab, "z_channels": channels}
    start = f"{VAE}quantize.quant_resi."
    phis = {
        tuple(key.removeprefix(start).split(".")[:-1]) for key in state if key.startswith(start)
    }
    if not phis:
        vae["quant_resi"] = 0.0
    elif any(len(name) == 2 for name in phis):
        vae["share_quant_resi"] = len(phis)
    else:
        vae["share_quant_resi"] = 1 if ("qresi",) in phis else 0
    return {**sizes, "vae_kwargs": vae}
