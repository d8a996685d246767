"""TokenFlow's tokenizers (arXiv 2412.03069, ByteFlow-AI/TokenFlow): one index for a semantic and a
pixel code, on scales.

Weights came without a config: the constants stand in the official source, by teacher, and a given
config may carry any of them under the names of the recordings (`grid`, `embed_dim`, `pixel_ch`,
`scales`, ...), or be the trainer's own (`args` beside the weights). The window of last indices
(`quantize.codebook_used`) and SigLIP's last block are not read, and carried along.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from vistok.config import ConfigError
from vistok.frozen.hf import CLIP_STATISTICS
from vistok.pretrained.base import Entry, Family, Release, flag, own, pair, same, warn_of_unknown
from vistok.pretrained.published import TOKENFLOW, TOKENFLOW_256
from vistok.pretrained.tokenizers import tokenflow_towers as towers
from vistok.pretrained.tokenizers.llamagen import pointwise, refuse_others
from vistok.pretrained.tokenizers.taming import cnn_trees, decoder_entries, encoder_entries
from vistok.tokenizer import TokenizerConfig

_HUB = "ByteFlow-AI/TokenFlow"
_LICENSE = "Apache-2.0 (code; weights: check the card of the hub, and the teachers' licenses)"
_SCALES = {
    towers.CLIP: [1, 2, 4, 6, 8, 10, 12, 14],
    towers.VITAMIN: [1, 2, 4, 6, 8, 10, 12, 14, 16],
    towers.SIGLIP: [*range(1, 11), 12, 14, 17, 22, 27],
}
_INTERPOLATED = 16  # side of the grid of infer_interpolate, a scale of its own
_DEFAULTS: dict[str, Any] = {
    "codebook_size": 32768,
    "codebook_embed_dim": 8,
    "semantic_code_dim": 32,
    "codebook_l2_norm": True,
    "codebook_show_usage": True,
    "commit_loss_beta": 0.25,
    "entropy_loss_ratio": 0.0,
    "z_channels": 256,
    "dropout_p": 0.0,
    "kmeans": False,
    "teacher": towers.CLIP,
    "enhanced_decoder": False,
    "infer_interpolate": False,
    "num_heads": 12,
    "pixel_ch": 128,
    "num_res_blocks": 2,
    "semantic_decoder_depth": 3,
    "scale_drop_ratio": 0.1,
    "scale_drop_count": 1,
}
_OTHERS = frozenset(
    "embed_dim grid decoder_out_dim scales ch_mult encoder_ch_mult decoder_ch_mult image_size "
    "decoder_ch decoder_res_blocks encoder_depth encoder_heads encoder_patch encoder_stem "
    "encoder_mlp_ratio".split()
)
_MARKS = frozenset(
    ("quantize.embedding_vqkd.weight", "quantize.embedding_vqgan.weight", "decoder_vqkd.cls_token")
)
_SEMANTIC, _PIXELS = "encoder.branches.0.encoder", "encoder.branches.1.encoder"
_BLOCK = {
    "norm1": "norm_attention",
    "attn.proj": "attention.out",
    "norm2": "norm_mlp",
    "mlp.fc1": "mlp.up",
    "mlp.fc2": "mlp.out",
}


class TokenFlow(Family):
    name = "tokenflow"
    inert = ("quantize.codebook_used", *towers.UNREAD)

    def recognizes(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:
        said = not config or bool({"teacher", "semantic_code_dim"} & set(config))
        return said and set(keys) >= _MARKS

    def constants(self, state: Mapping[str, Tensor]) -> Mapping[str, Any] | None:
        teacher = towers.teacher_of(state)
        if teacher is None or not self.recognizes({}, state):
            return None
        tables = [state[f"quantize.embedding_{half}.weight"] for half in ("vqkd", "vqgan")]
        wide = len(state.get("decoder.norm_out.weight", ())) == 256
        released = next((r.config for r in self.releases if r.config["teacher"] == teacher), {})
        return {
            **released,
            "teacher": teacher,
            "codebook_size": len(tables[0]),
            "semantic_code_dim": tables[0].shape[-1],
            "codebook_embed_dim": tables[1].shape[-1],
            "enhanced_decoder": wide,
        }

    def observed(
        self, official: Mapping[str, Any], state: Mapping[str, Tensor]
    ) -> Mapping[str, Any]:
        found = towers.tower_sizes(self._teacher(official), state)
        if "pixel_ch" in official and "decoder.norm_out.weight" in state:  # constants were replaced
            blocks = {k.split(".")[4] for k in state if k.startswith("decoder.conv_blocks.0.res.")}
            found["decoder_ch"] = len(state["decoder.norm_out.weight"])
            found["decoder_res_blocks"] = len(blocks) - 1
        return {**found, **official}

    # -- configs --------------------------------------------------------------------------------

    def _teacher(self, official: Mapping[str, Any]) -> str:
        teacher = official.get("teacher", towers.CLIP)
        if teacher not in tuple(towers.TEACHERS):
            raise ConfigError(
                f"{self.name}: teacher={teacher!r}; expected one of {', '.join(towers.TEACHERS)}"
            )
        return teacher

    def _complete(self, official: Mapping[str, Any]) -> dict[str, Any]:
        """Every constant of an official config, by its teacher; ConfigError for what the original
        cannot do either."""
        known = {*_DEFAULTS, *_OTHERS}
        if "vq_model" in official:  # the trainer's arguments, most of which are no model's
            official = {key: official[key] for key in known & set(official)}
            official.pop("image_size", None)  # of its data
        warn_of_unknown(self.name, official, known)
        teacher = self._teacher(official)
        given = {**_DEFAULTS, **towers.TEACHERS[teacher], **official, "teacher": teacher}
        if not flag(given, "codebook_l2_norm", True):
            raise ConfigError(
                f"{self.name}: codebook_l2_norm=false looks codes up in a table that the original "
                "does not have; expected true"
            )
        if flag(given, "kmeans", False):
            raise ConfigError(
                f"{self.name}: kmeans=true averages one of the two tables, a start that the "
                "original only has for runs of many processes, and no release; expected false"
            )
        flag(given, "codebook_show_usage", True)  # a window of indices that nothing reads
        if flag(given, "infer_interpolate", False) and teacher == towers.CLIP:
            given.setdefault("scales", [*_SCALES[teacher], _INTERPOLATED])
        given.setdefault("scales", _SCALES[teacher])
        mult = given.get("ch_mult", [1, 1, 2, 2, 4])
        enhanced = flag(given, "enhanced_decoder", False)
        given = {
            "encoder_ch_mult": mult,
            "decoder_ch_mult": mult,
            "decoder_ch": 256 if enhanced else given["pixel_ch"],
            "decoder_res_blocks": 4 if enhanced else given["num_res_blocks"],
            "image_size": 384 if teacher == towers.SIGLIP else 16 * given["scales"][-1],
        } | given
        return given

    def config(self, official: Mapping[str, Any]) -> dict[str, Any]:
        given = self._complete(official)
        side, cells = given["image_size"], given["scales"][-1]
        sizes = {"dropout_p": given["dropout_p"]}
        for both in ("encoder_ch_mult", "decoder_ch_mult"):
            sizes[both] = list(given[both])
        encoder, _ = cnn_trees(
            self.name,
            sizes | {"ch": given["pixel_ch"], "num_res_blocks": given["num_res_blocks"]},
        )
        own = {"ch": given["decoder_ch"], "num_res_blocks": given["decoder_res_blocks"]}
        _, decoder = cnn_trees(self.name, sizes | own)
        for cnn in (encoder, decoder):
            cnn["z_channels"] = given["z_channels"]
        patch = towers.patch_of(given)
        seen = patch * cells if side // patch != cells else None
        inside, outside = (
            cells * 2 ** (len(given[f"{name}_ch_mult"]) - 1) for name in ("encoder", "decoder")
        )
        statistics = {towers.CLIP: None, towers.VITAMIN: "clip", towers.SIGLIP: "half"}
        drop = {
            "kind": "level_dropout",
            "which": "any",
            "proportion": given["scale_drop_ratio"],
            "start": 1,
            "count": given["scale_drop_count"],
            "choose": "batch",
        }
        return {
            "image_size": side,
            "encoder": {
                "kind": "branches",
                "branches": [
                    {
                        "encoder": {"kind": "vision_tower", "tower": towers.tower_tree(given)},
                        "dim": given["semantic_code_dim"],
                        "image_size": seen,
                        "statistics": statistics[given["teacher"]],
                    },
                    {
                        "encoder": encoder,
                        "dim": given["codebook_embed_dim"],
                        "image_size": None if inside == side else inside,
                    },
                ],
            },
            "quantizer": quantizer_tree(given),
            "regularizers": [drop]
            if given["scale_drop_ratio"] and len(given["scales"]) > 1
            else [],
            "decoder": {
                "kind": "branches",
                "semantic": {
                    "dim": given["semantic_code_dim"],
                    "out": given["decoder_out_dim"],
                    "positions": None if given["grid"] == cells else given["grid"],
                    "transformer": {
                        "width": given["embed_dim"],
                        "depth": given["semantic_decoder_depth"],
                        "heads": given["num_heads"],
                        "norm_eps": 1e-6,
                        "init": "trunc_normal",
                    },
                },
                "pixels": decoder,
                "image_size": None if outside == side else outside,
            },
        }

    def official(self, config: TokenizerConfig) -> dict[str, Any]:
        self._require(config)
        (semantic, pixels), decoder = config.encoder.branches, config.decoder
        tower, atom = semantic.encoder.tower, config.quantizer.quantizer
        teacher, cnn = towers.teacher_like(tower), pixels.encoder
        inner, weights = decoder.semantic.transformer, atom.loss_weights
        scales = [s if isinstance(s, int) else s[0] for s in config.quantizer.scales]
        sizes = (cnn.conv.channels, cnn.conv.blocks)
        wide = (decoder.pixels.conv.channels, decoder.pixels.conv.blocks - 1)
        drop = next((r for r in config.regularizers if r.kind == "level_dropout"), None)
        native = decoder.semantic.positions or scales[-1]
        official = {
            "teacher": teacher,
            "codebook_size": atom.codebook_size,
            "codebook_embed_dim": atom.parts[1],
            "semantic_code_dim": atom.parts[0],
            "commit_loss_beta": weights.get("commitment", 0.0),
            "entropy_loss_ratio": weights.get("entropy_sample", 0.0),
            "encoder_ch_mult": list(cnn.conv.channel_mult),
            "decoder_ch_mult": list(decoder.pixels.conv.channel_mult),
            "z_channels": cnn.z_channels,
            "dropout_p": cnn.conv.dropout,
            "enhanced_decoder": wide == (256, 4) and sizes != wide,
            "infer_interpolate": teacher == towers.CLIP and native != scales[-1],
            **towers.tower_official(teacher, tower),
            "num_heads": inner.heads,
            "grid": native,
            "pixel_ch": sizes[0],
            "num_res_blocks": sizes[1],
            "decoder_ch": wide[0],
            "decoder_res_blocks": wide[1],
            "scales": scales,
            "semantic_decoder_depth": inner.depth,
            "decoder_out_dim": decoder.semantic.out,
            "scale_drop_ratio": 0.0 if drop is None else drop.proportion,
            "scale_drop_count": 1 if drop is None else drop.count,
            "image_size": config.image_size[0],
        }
        refuse_others(self, config, official)
        return official

    def _require(self, config: TokenizerConfig) -> None:
        """ConfigError for a tokenizer of other parts than TokenFlow's."""
        encoder, decoder, quantizer = config.encoder, config.decoder, config.quantizer
        kinds = [encoder.kind, decoder.kind, quantizer.kind]
        wanted = ["branches", "branches", "multi_scale"]
        if kinds == wanted:
            kinds += [branch.encoder.kind for branch in encoder.branches]
            kinds += [quantizer.quantizer.kind, decoder.pixels.kind]
            wanted += ["vision_tower", "cnn", "dual", "cnn"]
        if kinds != wanted:
            raise ConfigError(
                f"{self.name}: parts of the kinds {', '.join(kinds)} have no place in the official "
                f"layout; expected {', '.join(wanted)}"
            )

    # -- keys -----------------------------------------------------------------------------------

    def entries(self, config: TokenizerConfig) -> list[Entry]:
        (semantic, pixels), decoder = config.encoder.branches, config.decoder
        tower = semantic.encoder.tower
        teacher, widths = towers.teacher_like(tower), config.quantizer.quantizer.parts
        return [
            *towers.tower_entries(teacher, tower, f"{_SEMANTIC}.tower"),
            *(e for i in (0, 2) for e in pair(f"{_SEMANTIC}.head.{i}", f"encode_task_layer.{i}")),
            *encoder_entries(pixels.encoder, _PIXELS, "encoder"),
            *pointwise(f"{_PIXELS}.proj", "quant_conv"),
            Entry(
                "quantizer.atoms.0.codebook",
                ("quantize.embedding_vqkd.weight", "quantize.embedding_vqgan.weight"),
                lambda *halves: torch.cat(halves, dim=1),
                lambda rows: rows.split(widths, dim=1),
            ),
            *own("quantizer.atoms.0.usage", "quantizer.atoms.0.filled"),
            *pointwise("decoder.pixels.embed", "post_quant_conv"),
            *decoder_entries(decoder.pixels, "decoder.pixels", "decoder"),
            *_semantic_entries(decoder.semantic),
        ]

    def fixed(self, config: TokenizerConfig) -> dict[str, Tensor]:
        semantic = config.encoder.branches[0]
        tower, tensors = semantic.encoder.tower, {}
        statistics = {"clip": CLIP_STATISTICS, "half": ((0.5,) * 3,) * 2}.get(semantic.statistics)
        for name, numbers in zip(("shift", "scale"), statistics or (), strict=False):
            tensors[f"scaling_layer.{name}"] = torch.tensor(numbers)[None, :, None, None]
        return tensors | towers.unread(towers.teacher_like(tower), tower)

    def _release(name: str, file: str, recipe: str, **rest: Any) -> Release:
        config = {"codebook_size": 32768} | rest.pop("config")
        recipes = (f"tokenizers/tokenflow/{recipe}",)
        return Release(name, _HUB, file, _LICENSE, config, recipe=recipes, **rest)

    _CLIPB = {"teacher": towers.CLIP, "enhanced_decoder": True}
    releases = (
        _release(
            "tokenflow-clipb-32k-enhanced",
            "tokenflow_clipb_32k_enhanced.pt",
            "clipb_enhanced",
            config=_CLIPB,
            protocol=TOKENFLOW_256,
        ),
        # The same file as the authors evaluate it, and as their generator reads it.
        _release(
            "tokenflow-clipb-32k-enhanced-256",
            "tokenflow_clipb_32k_enhanced.pt",
            "clipb_enhanced_256",
            config=_CLIPB | {"infer_interpolate": True},
            protocol=TOKENFLOW_256,
        ),
        _release(
            "tokenflow-siglip-32k",
            "tokenflow_siglip_32k.pt",
            "siglip",
            config={"teacher": towers.SIGLIP},
            rfid=0.63,
            protocol=TOKENFLOW,
        ),
    )


def quantizer_tree(given: Mapping[str, Any]) -> dict[str, Any]:
    """The quantizer of an official config with all its constants."""
    weights = {"codebook": 1.0, "commitment": given["commit_loss_beta"]}
    ratio = given["entropy_loss_ratio"]
    if ratio:
        weights |= {"entropy_sample": ratio, "entropy_batch": -ratio}
    return {
        "kind": "multi_scale",
        "scales": list(given["scales"]),
        "phi": None,
        "learn": "levels",
        "dropped": "skip",
        "quantizer": {
            "kind": "dual",
            "codebook_size": given["codebook_size"],
            "parts": [given["semantic_code_dim"], given["codebook_embed_dim"]],
            "loss_weights": weights,
        },
    }


def _semantic_entries(semantic: Any) -> list[Entry]:
    ours, theirs = "decoder.semantic", "decoder_vqkd"
    width = semantic.transformer.width
    table = [
        *pointwise(f"{ours}.embed", f"{theirs}.patch_embed.proj"),
        same(f"{ours}.class_token", f"{theirs}.cls_token", **_unsqueezed(2)),
        same(f"{ours}.table", f"{theirs}.pos_embed", **_unsqueezed(1)),
        *pair(f"{ours}.transformer.norm", f"{theirs}.fc_norm"),
        *(e for i in (0, 2) for e in pair(f"{ours}.head.{i}", f"decode_task_layer.{i}")),
    ]
    # Keys have no bias there, and softmax does not see one: ours begins as 0 and is left behind.
    fused = lambda q, v: torch.cat([q, torch.zeros_like(q), v])
    for number in range(semantic.transformer.depth):
        mine, place = f"{ours}.transformer.blocks.{number}", f"{theirs}.blocks.{number}"
        for name, part in _BLOCK.items():
            table += pair(f"{mine}.{part}", f"{place}.{name}")
        table += [
            same(f"{mine}.attention.qkv.weight", f"{place}.attn.qkv.weight"),
            Entry(
                f"{mine}.attention.qkv.bias",
                (f"{place}.attn.q_bias", f"{place}.attn.v_bias"),
                fused,
                lambda bias: (bias[:width], bias[2 * width :]),
            ),
        ]
    return table


def _unsqueezed(axes: int) -> dict[str, Any]:
    """Load and save of a tensor that has axes of length 1 in front there."""
    return {
        "load": lambda tensor: tensor.flatten(0, axes) if axes > 1 else tensor[0],
        "save": lambda tensor: (tensor[(None,) * axes],),
    }
