"""xAR (arXiv 2502.20388, OliverRensu/xAR): next-cell prediction over latents of MAR's KL-16.

Releases are bare state dicts; arguments of the official constructor may come as a config, with
those of its sampling command (`num_steps`, `cfg`), and what is not given is read from the tensors.
Every block carries a copy of the rotary tables, which are made anew here; they are carried along.
The class table has a row for each of 1,000 classes, whatever `class_num` says, and one for none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vistok.config import ConfigError
from vistok.generators import Generator
from vistok.generators.cells import cells_of
from vistok.layers.positions import grid_positions
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
from vistok.pretrained.generators.var import six_groups
from vistok.pretrained.published import XAR_H_SAMPLED, XAR_SAMPLED

TOKENIZER = "mar-kl16"
SCALE = 0.2325  # of latents, a literal of the official training loop
ROWS = 1000  # classes of the official table, a literal
_MARKS = frozenset(
    {
        "z_proj_ln.weight",
        "time_embed.mlp.0.weight",
        "encoder_pos_embed_learned",
        "decoder_pos_embed_learned",
        "encoder_blocks.0.mlp.fc1_g.weight",
    }
)
_SIZES = {  # model: width, blocks of each stage, heads
    "xar_base": (768, 8, 12),
    "xar_large": (1024, 16, 16),
    "xar_huge": (1280, 20, 16),
}
_DEFAULTS: dict[str, Any] = {
    "img_size": 256,
    "vae_stride": 16,
    "patch_size": 1,
    "vae_embed_dim": 16,
    "mlp_ratio": 4.0,
    "label_drop_prob": 0.1,
    "class_num": ROWS,
    "attn_dropout": 0.0,
    "proj_dropout": 0.0,
    "clusters": 4,
    "num_steps": 50,
    "cfg": 1.0,
}
_STAGES = ("encoder", "decoder")
_SIDED = {f"{stage}_{what}" for stage in _STAGES for what in ("embed_dim", "depth", "num_heads")}
_SILENT = {"norm_layer", "diffusion_batch_mul", "model", "num_iter", "cfg_schedule"}  # unread there
_LICENSE = "unknown: neither code nor weights come with a license, so no use is granted (research)"
_PLACES = {  # official modules of a block: ours
    "attn.qkv": "attention.qkv",
    "attn.proj": "attention.out",
    "mlp.fc1_g": "mlp.gate",
    "mlp.fc1_x": "mlp.up",
    "mlp.fc2": "mlp.out",
}
_NO_LAYOUT = {"init", "init_std", "branch_scale"}  # of a transformer: how it starts


@dataclass(frozen=True)
class ClassTable:
    """Rows of the classes and the last one, for none; those in between belong to no class."""

    classes: int
    rows: int = ROWS
    borrowed: bool = False
    ours: str = "condition.label.weight"

    theirs = ("class_emb.weight",)

    @property
    def names(self) -> tuple[str, ...]:
        return (self.ours,)

    @property
    def _spare(self) -> str:
        return f"{self.theirs[0]}[{self.classes}:{self.rows}]"

    def _whole(self, table: Tensor) -> Tensor:
        if table.ndim != 2 or len(table) != self.rows + 1:
            raise RuntimeError(f"has shape {tuple(table.shape)}; expected {self.rows + 1} rows")
        return table

    def read(self, *parts: Tensor) -> dict[str, Tensor]:
        table = self._whole(parts[0])
        return {self.ours: torch.cat([table[: self.classes], table[self.rows :]])}

    def inert(self, *parts: Tensor) -> dict[str, Tensor]:
        spare = self._whole(parts[0])[self.classes : self.rows]
        return {self._spare: spare.clone()} if len(spare) else {}

    def write(self, own: Mapping[str, Tensor], inert: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        table = own[self.ours]
        zeros = table.new_zeros(self.rows - self.classes, table.shape[1])
        spare = inert.get(self._spare, zeros).to(table)
        return (torch.cat([table[: self.classes], spare, table[self.classes :]]),)


class XAR(Family):
    name = "xar"
    makes = "generator"
    inert = ("*_blocks.*.attn.rope.*",)

    # -- weights --------------------------------------------------------------------------------

    def recognizes(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:
        return set(keys) >= _MARKS

    def constants(self, state: Mapping[str, Tensor]) -> Mapping[str, Any] | None:
        """The config of the release of this width and depth; {} for others: tensors tell theirs."""
        if not self.recognizes({}, state):
            return None
        depth, width = _depth(state, "encoder"), state["z_proj_ln.weight"].shape[-1]
        for release in self.releases:
            if _SIZES[release.config["model"]][:2] == (width, depth):
                return release.config
        return {}

    def observed(
        self, official: Mapping[str, Any], state: Mapping[str, Tensor]
    ) -> Mapping[str, Any]:
        try:
            sizes = _sizes(state)
        except (KeyError, IndexError, ZeroDivisionError):
            return official  # importing says what is missing
        return {**sizes, **_sizes_of_model(official), **official}

    # -- configs --------------------------------------------------------------------------------

    def config(self, official: Mapping[str, Any]) -> dict[str, Any]:
        warn_of_unknown(self.name, official, {*_DEFAULTS, *_SIDED, *_SILENT})
        args = {**_DEFAULTS, **_sizes_of_model(official), **official}
        width, other = (args[f"{stage}_embed_dim"] for stage in _STAGES)
        if width != other:
            raise ConfigError(
                f"{self.name}: encoder_embed_dim={width} with decoder_embed_dim={other}; expected "
                "equal widths: one table of classes and times modulates both"
            )
        side, cell = _grid(args)
        if not 1 <= args["class_num"] <= ROWS:
            raise ConfigError(
                f"{self.name}: class_num={args['class_num']}; expected 1..{ROWS}: the official "
                f"table has a row for each of {ROWS} classes"
            )
        return {
            "kind": "flow_ar",
            "transformer": {
                "width": width,
                "depth": args["encoder_depth"],
                "heads": args["encoder_num_heads"],
                "mlp": "geglu",
                "mlp_ratio": args["mlp_ratio"],
                "mlp_hidden": "two_thirds_once",
                "norm": "rmsnorm",
                "norm_affine": False,
                "dropout": args["proj_dropout"],
                "mlp_dropout": args["proj_dropout"],
                "attention_dropout": args["attn_dropout"],
                "init": "xavier_fused",
                "branch_scale": "none",
            },
            "second": {"depth": args["decoder_depth"], "heads": args["decoder_num_heads"]},
            "cells": {"size": cell},
            "latents": {"scale": SCALE},
            "time": {"truncate": True},
            "modulation_init": "as_others",
            "condition": {"classes": args["class_num"], "dropout": args["label_drop_prob"]},
            # A scale of 1 or less is none there.
            "sampling": {"guidance": max(args["cfg"], 1.0), "steps": args["num_steps"]},
            "spec": {
                "blocks": [[side, side]],
                "vocab": [],
                "dim": args["vae_embed_dim"] * args["patch_size"] ** 2,
            },
            "tokenizer": {"name": TOKENIZER, "sha256": ""} if args["vae_embed_dim"] == 16 else {},
        }

    def official(self, config: Generator) -> dict[str, Any]:
        """The official config of a generator of kind flow_ar that was trained here.

        ConfigError for what the official layout has no place for.
        """
        own, spec = config.config, config.spec
        if own.kind != "flow_ar" or own.second is None:
            raise ConfigError(
                f"{self.name}: kind={own.kind} has no place in the official layout; expected "
                "kind=flow_ar with a second stage"
            )
        trunk, second = own.transformer, own.second
        grid = spec.blocks[0]
        self.refuse([] if len(spec.blocks) == 1 and len(set(grid)) == 1 and len(grid) == 2
                    else [f"blocks={spec.blocks}"])  # fmt: skip
        tree = {
            "img_size": 16 * grid[0],
            "vae_embed_dim": spec.dim,
            "encoder_embed_dim": trunk.width,
            "encoder_depth": trunk.depth,
            "encoder_num_heads": trunk.heads,
            "decoder_embed_dim": trunk.width,
            "decoder_depth": second.depth,
            "decoder_num_heads": second.heads or trunk.heads,
            "mlp_ratio": trunk.mlp_ratio,
            "label_drop_prob": own.condition.dropout,
            "class_num": own.condition.classes or 0,
            "attn_dropout": trunk.attention_dropout,
            "proj_dropout": trunk.dropout,
            "clusters": len(config.cells),
            "num_steps": own.sampling.steps,
            "cfg": own.sampling.guidance,
        }
        self._check(config, self.config(tree))
        return tree

    def _check(self, config: Generator, again: Mapping[str, Any]) -> None:
        """ConfigError for what the way there and back would change of the network."""
        own = config.config
        twin = type(own).model_validate(
            {key: value for key, value in again.items() if key not in ("spec", "tokenizer")}
        )
        mine, theirs = own.model_dump(), twin.model_dump()
        wrong = changed("transformer", mine["transformer"], theirs["transformer"], _NO_LAYOUT)
        for name in ("latents", "time"):
            wrong += changed(name, mine[name] or {}, theirs[name], ())
        for name in ("position_table", "rope", "rope_base"):
            if mine[name] != theirs[name]:
                wrong.append(f"{name}={mine[name]}")
        if cells_of(twin.cells, config.spec) != config.cells:
            wrong.append(f"cells={own.cells}")
        if own.condition.pooled is not None:
            wrong.append(f"condition.pooled={own.condition.pooled}")
        self.refuse(wrong)

    # -- keys -----------------------------------------------------------------------------------

    def entries(self, config: Generator) -> list[Entry | ClassTable]:
        own = config.config
        table: list[Entry | ClassTable] = [
            ClassTable(own.condition.classes),
            *pair("time.up", "time_embed.mlp.0"),
            *pair("time.out", "time_embed.mlp.2"),
            same("stages.0.norm_in.weight", "z_proj_ln.weight"),
            *pair("head", "pred"),
        ]
        for i, (stage, project) in enumerate(
            zip(_STAGES, ("z_proj", "decoder_embed"), strict=True)
        ):
            table += [
                *pair(f"stages.{i}.project", project),
                same(f"stages.{i}.table", f"{stage}_pos_embed_learned", **squeeze(0)),
                same(f"stages.{i}.norm.weight", f"{stage}_norm.weight"),
            ]
            for j in range(own.trunks[i].depth):
                ours, theirs = f"stages.{i}.transformer.blocks.{j}", f"{stage}_blocks.{j}"
                for there, here in _PLACES.items():
                    table += pair(f"{ours}.{here}", f"{theirs}.{there}")
                table += six_groups(f"{ours}.modulation.proj", f"{theirs}.ada_lin.1")
        return table

    def fixed(self, config: Generator) -> dict[str, Tensor]:
        """The mask of training, and each block's rotary tables."""
        level = config.level.cpu()
        mask = torch.zeros(len(level), len(level))
        mask = mask.masked_fill(level[:, None] < level, -torch.inf)
        tensors = {"mask": mask[None, None]}
        places = grid_positions(config.spec.blocks[0])[config.order.cpu()]
        for stage, trunk in zip(_STAGES, config.config.trunks, strict=True):
            half = trunk.width // trunk.heads // 2
            frequency = 1.0 / (10000 ** (torch.arange(0, half, 2)[: half // 2].float() / half))
            angles = torch.cat([places[:, axis : axis + 1] * frequency for axis in (0, 1)], dim=-1)
            angles = angles.repeat_interleave(2, dim=-1)
            for j in range(trunk.depth):
                rope = f"{stage}_blocks.{j}.attn.rope"
                tensors |= {
                    f"{rope}.freqs": frequency,
                    f"{rope}.freqs_cos": angles.cos(),
                    f"{rope}.freqs_sin": angles.sin(),
                }
        return tensors

    def _release(size: str, gfid: float, **sampling: Any) -> Release:
        letter = size[0]
        return Release(
            f"xar-{letter}",
            "OliverRen/xAR",
            f"xAR-{letter.upper()}.pth",
            _LICENSE,
            {"model": f"xar_{size}", "attn_dropout": 0.1, "proj_dropout": 0.1, **sampling},
            gfid=gfid,
            sampled=XAR_H_SAMPLED if letter == "h" else XAR_SAMPLED,
            recipe=(f"generators/xar/{letter}",),
            research_only=True,
        )

    releases = (
        _release("base", 1.72, num_steps=40, cfg=2.7),
        _release("large", 1.28, num_steps=50, cfg=2.3),
        _release("huge", 1.24, num_steps=50, cfg=2.2),
    )


def _depth(state: Mapping[str, Tensor], stage: str) -> int:
    return len({key.split(".")[1] for key in state if key.startswith(f"{stage}_blocks.")})


def _sizes_of_model(official: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that the name of a released size stands for; {} without one."""
    if official.get("model") not in _SIZES:
        return {}
    width, depth, heads = _SIZES[official["model"]]
    return {
        f"{stage}_{name}": value
        for stage in _STAGES
        for name, value in (("embed_dim", width), ("depth", depth), ("num_heads", heads))
    }


def _grid(args: Mapping[str, Any]) -> tuple[int, int]:
    """Sides of the grid and of a cell; ConfigError for cells that do not fill it."""
    side = args["img_size"] // args["vae_stride"] // args["patch_size"]
    across = math.isqrt(args["clusters"])
    if across**2 != args["clusters"] or side % across:
        raise ConfigError(
            f"xar: clusters={args['clusters']} of a grid of {side} x {side}; expected the square "
            f"of a divisor of {side}"
        )
    return side, side // across


def _sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments of the constructor that the tensors tell."""
    width, channels = state["z_proj.weight"].shape
    length = state["encoder_pos_embed_learned"].shape[1]
    first = state["mask"][0, 0, 0]  # what the first position sees: its own cell
    sizes: dict[str, Any] = {
        "img_size": 16 * math.isqrt(length),
        "vae_embed_dim": channels,
        "clusters": length // int((first == 0).sum()),
    }
    hidden = len(state["encoder_blocks.0.mlp.fc1_g.weight"])
    if int(width * 4 * 2 / 3) != hidden:
        sizes["mlp_ratio"] = 1.5 * (hidden + 0.5) / width  # any that is rounded down to it
    for stage in _STAGES:
        table = state.get(f"{stage}_blocks.0.attn.rope.freqs_cos")
        sizes |= {
            f"{stage}_embed_dim": len(state[f"{stage}_norm.weight"]),
            f"{stage}_depth": _depth(state, stage),
            # Without the tables nothing tells the heads: of 64 channels, as the official B and L.
            f"{stage}_num_heads": max(width // (64 if table is None else table.shape[-1]), 1),
        }
    return sizes
