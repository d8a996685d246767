"""The pre-norm transformer that encoders, decoders and generators share.

Initialization is by fan-in: with the usual std of 0.02 a narrow network learns nothing in its first
thousand steps. The last layer of each residual branch is scaled down by the depth.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from vistok.config import Config
from vistok.core.errors import InputError
from vistok.layers.attention import Attention, KVCache
from vistok.layers.dropout import Dropout, DropPath
from vistok.layers.mlp import MlpKind, make_mlp
from vistok.layers.modulation import Modulation, modulate
from vistok.layers.norms import NormKind, make_norm

InitKind = Literal["fan_in", "trunc_normal", "normal", "torch", "xavier", "xavier_fused"]


class TransformerConfig(Config):
    width: int = Field(default=512, ge=2, le=2**14)
    """D, channels of a position; a multiple of heads."""
    depth: int = Field(default=8, ge=1, le=512)
    heads: int = Field(default=8, ge=1, le=512)
    kv_heads: int | None = Field(default=None, ge=1, le=512)
    """Heads of keys and values, a divisor of heads: each is shared by a group of heads of queries;
    null = as many as heads."""
    mlp: MlpKind = "gelu"
    mlp_ratio: float = Field(default=4.0, gt=0, le=64)
    """Hidden width of the feed-forward layer, as a multiple of width."""
    mlp_hidden: Literal["round", "floor", "two_thirds", "two_thirds_once"] = "round"
    """Rounding of that width; two_thirds: 2/3 of it, both rounded down, so that a gated layer costs
    as much as a plain one (FlexTok); two_thirds_once: 2/3 of it, rounded down at the end alone
    (xAR)."""
    mlp_multiple: int = Field(default=1, ge=1, le=2**14)
    """The rounded width is raised to the next multiple of this (Llama, LlamaGen: 256)."""
    norm: NormKind = "layernorm"
    norm_eps: float = 1e-6
    norm_out: bool = True
    """A norm behind the last block; false: none (LARP's encoder)."""
    norm_out_eps: float | None = Field(default=None, gt=0)
    """Its epsilon; null = norm_eps (LARP's decoder has 1e-6 behind blocks of 1e-5)."""
    norm_affine: bool = True
    """Norms have a learned gain (and offset); false: FlexTok."""
    qk_norm: bool = False
    """Norm of queries and keys, per head."""
    qk_norm_kind: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    """Kind of that norm; layernorm: RAR."""
    qk_norm_affine: bool = True
    """That norm has a learned gain; false: FlexTok."""
    attention_scale: Literal["sqrt", "mup"] = "sqrt"
    """Factor of the scores, with d channels of a head: sqrt, d**-0.5; mup, 8 / d, which is the same
    for 64 channels (FlexTok, arXiv 2203.03466)."""
    attention_fp32: bool = False
    """Attention itself is computed in fp32, whatever the precision of the rest (TiTok's U-ViT)."""
    bias: bool = True
    """Biases of all linear layers, unless one of the next three says otherwise."""
    qkv_bias: bool | None = None
    out_bias: bool | None = None
    """Bias of the attention's output."""
    mlp_bias: bool | None = None
    layer_scale: float | None = None
    """Initial value of a learned gain on each residual branch; null = no gain."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of activations of the residual branches that training drops, keyed by sample."""
    mlp_out_dropout: float | None = Field(default=None, ge=0, lt=1)
    """That share for the feed-forward branch alone; null = as `dropout` (LlamaGen names both)."""
    attention_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of attention weights that training drops, keyed by sample: slower, and in memory the
    square of the length."""
    mlp_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of hidden activations of the feed-forward layers that training drops, keyed by sample
    (timm's Mlp drops these as well as its outputs)."""
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    """Share of samples for which training skips a residual branch of the last block (stochastic
    depth), keyed by sample; it grows linearly over the blocks, from 0 at the first (timm)."""
    init: InitKind = "fan_in"
    """fan_in: std 1/sqrt(fan-in); trunc_normal: `init_std`, cut at three of it (TiTok, GPT-2);
    normal: `init_std`, uncut (LlamaGen); torch: as its layers are made (TA-TiTok's decoder);
    xavier: uniform, by fan-in and fan-out (FlexTok); xavier_fused: the same, queries, keys and
    values counted as one layer (LARP)."""
    init_std: float = Field(default=0.02, gt=0, le=10)
    """Standard deviation of init=normal and init=trunc_normal, and of a generator's embeddings."""
    modulation: int | None = Field(default=None, ge=1, le=2**14)
    """Width of a vector per sample, or per position, that scales, shifts and gates both branches of
    every block (adaLN-Zero, DiT); null = none."""
    modulation_kinds: int = Field(default=1, ge=1, le=64)
    """Kinds of positions, one behind the other, that are each modulated by layers of their own
    (FlexTok: patches, registers)."""
    branch_scale: Literal["depth", "none"] = "depth"
    """depth: the last layer of a residual branch starts divided by sqrt(2 depth) (GPT-2)."""

    @classmethod
    def tiny(cls) -> TransformerConfig:
        return cls(width=16, depth=1, heads=2)

    @model_validator(mode="after")
    def _divides(self) -> TransformerConfig:
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise InputError(
                f"width={self.width} must be a multiple of heads={self.heads} with an even quotient"
            )
        if self.kv_heads is not None and self.heads % self.kv_heads:
            raise InputError(f"kv_heads={self.kv_heads}: expected a divisor of heads={self.heads}")
        return self

    @property
    def hidden(self) -> int:
        """Hidden width of the feed-forward layer."""
        wide = self.width * self.mlp_ratio
        if self.mlp_hidden == "two_thirds":
            wide = int(2 * int(wide) / 3)
        if self.mlp_hidden == "two_thirds_once":
            wide = wide * 2 / 3
        hidden = round(wide) if self.mlp_hidden == "round" else max(int(wide), 1)
        return -(-hidden // self.mlp_multiple) * self.mlp_multiple


class UnrotatedConfig(TransformerConfig):
    """A transformer without rotary positions: heads may have odd widths."""

    @model_validator(mode="after")
    def _divides(self) -> UnrotatedConfig:
        if self.width % self.heads:
            raise InputError(f"width={self.width} must be a multiple of heads={self.heads}")
        return self


class LayerScale(nn.Module):
    """A learned gain per channel on a residual branch (CaiT, arXiv 2103.17239)."""

    def __init__(self, width: int, value: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), value))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    """x + attention(norm x), then x + mlp(norm x); [B, L, D] -> [B, L, D]."""

    def __init__(self, config: TransformerConfig, number: int = 0) -> None:
        """
        Args:
            number: of the block, from 0; later ones are skipped more often (`drop_path`).
        """
        super().__init__()
        width, eps = config.width, config.norm_eps
        self.norm_attention = make_norm(config.norm, width, eps, config.norm_affine)
        bias = lambda own: config.bias if own is None else own
        self.attention = Attention(
            width,
            config.heads,
            bias(config.qkv_bias),
            config.qk_norm,
            eps,
            config.qk_norm_kind,
            config.attention_dropout,
            config.qk_norm_affine,
            8 * config.heads / width if config.attention_scale == "mup" else None,
            bias(config.out_bias),
            config.kv_heads,
            config.attention_fp32,
        )
        self.norm_mlp = make_norm(config.norm, width, eps, config.norm_affine)
        self.mlp = make_mlp(
            config.mlp, width, config.hidden, bias(config.mlp_bias), config.mlp_dropout
        )
        gain = config.layer_scale
        self.scale_attention = nn.Identity() if gain is None else LayerScale(width, gain)
        self.scale_mlp = nn.Identity() if gain is None else LayerScale(width, gain)
        self.dropout_attention = Dropout(config.dropout)
        own = config.mlp_out_dropout
        self.dropout_mlp = Dropout(config.dropout if own is None else own)
        skipped = config.drop_path * number / max(config.depth - 1, 1)
        self.skip_attention, self.skip_mlp = DropPath(skipped), DropPath(skipped)
        self.modulation = None
        if config.modulation is not None:
            self.modulation = Modulation(config.modulation, width, 6, config.modulation_kinds)

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor] | None = None,
        mask: Tensor | None = None,
        causal: bool = False,
        cache: KVCache | None = None,
        only: slice | None = None,
        vector: Tensor | None = None,
        lengths: Sequence[int] | None = None,
    ) -> Tensor:
        """x [B, L, D] -> [B, L, D]; or [B, n, D] of the positions `only`, the rest is just seen.

        Args:
            vector: [B, C], or [B, L, C], that modulates, if the config has a modulation.
            lengths: positions of each kind, if there are several kinds; or that share each vector
                of [B, S, C].
        """
        if self.modulation is not None:
            return self._modulated(x, rotary, mask, causal, cache, only, vector, lengths)
        y = self.attention(self.norm_attention(x), rotary, mask, causal, cache, only)
        x = x if only is None else x[:, only]
        x = x + self.skip_attention(self.dropout_attention(self.scale_attention(y)))
        y = self.mlp(self.norm_mlp(x))
        return x + self.skip_mlp(self.dropout_mlp(self.scale_mlp(y)))

    def _modulated(self, x, rotary, mask, causal, cache, only, vector, lengths) -> Tensor:
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = self.modulation(vector, lengths)
        y = modulate(self.norm_attention(x), shift, scale)
        y = self.attention(y, rotary, mask, causal, cache, only)
        if only is not None:
            x = x[:, only]
            if gate.shape[1] > 1:  # a vector of each position
                gate, shift_mlp, scale_mlp, gate_mlp = (
                    part[:, only] for part in (gate, shift_mlp, scale_mlp, gate_mlp)
                )
        x = x + gate * self.skip_attention(self.dropout_attention(self.scale_attention(y)))
        y = self.mlp(modulate(self.norm_mlp(x), shift_mlp, scale_mlp))
        return x + gate_mlp * self.skip_mlp(self.dropout_mlp(self.scale_mlp(y)))


class Transformer(nn.Module):
    """A stack of blocks and a final norm; [B, L, D] -> [B, L, D]."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(Block(config, i) for i in range(config.depth))
        eps = config.norm_eps if config.norm_out_eps is None else config.norm_out_eps
        kind = config.norm if config.norm_out else "none"
        self.norm = make_norm(kind, config.width, eps, config.norm_affine)

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor] | None = None,
        mask: Tensor | None = None,
        causal: bool = False,
        caches: list[KVCache] | None = None,
        only: slice | None = None,
        vector: Tensor | None = None,
        lengths: Sequence[int] | None = None,
    ) -> Tensor:
        """x [B, L, D] -> [B, L, D]; or [B, n, D], of the positions `only` alone."""
        return self.tapped(x, (), rotary, mask, causal, caches, only, vector, lengths)[0]

    def tapped(
        self,
        x: Tensor,
        taps: Collection[int],
        rotary: tuple[Tensor, Tensor] | None = None,
        mask: Tensor | None = None,
        causal: bool = False,
        caches: list[KVCache] | None = None,
        only: slice | None = None,
        vector: Tensor | None = None,
        lengths: Sequence[int] | None = None,
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """The output of `forward`, and the states [B, L, D] after some blocks.

        Args:
            taps: numbers of blocks, the first is 1. States are those before the final norm; with
                `only`, all of them hold just those positions.
        """
        last, seen = len(self.blocks) - 1, {}
        for i, block in enumerate(self.blocks):
            cache = None if caches is None else caches[i]
            asked = only if i == last else None
            x = block(x, rotary, mask, causal, cache, asked, vector, lengths)
            if i + 1 in taps:
                seen[i + 1] = x if only is None or i == last else x[:, only]
        return self.norm(x), seen

    def new_caches(
        self, batch: int, capacity: int, like: Tensor, kind: type[KVCache] = KVCache
    ) -> list[KVCache]:
        """Empty KV caches, one per block."""
        heads, head_dim = self.config.heads, self.config.width // self.config.heads
        heads = heads if self.config.kv_heads is None else self.config.kv_heads
        return [kind(batch, heads, capacity, head_dim, like) for _ in self.blocks]


def check_unmodulated(part: Any, path: str) -> None:
    """InputError for a config whose transformers, or those of parts inside it, are told to be
    modulated: a part that has a vector sets the width itself.

    Args:
        path: of the config, for the message.
    """
    if isinstance(part, TransformerConfig) and part.modulation is not None:
        raise InputError(
            f"{path}.modulation={part.modulation}: a part that modulates its transformer sets the "
            "width by itself, and others have no vector; leave it out"
        )
    if isinstance(part, Config):
        for name in type(part).model_fields:
            check_unmodulated(getattr(part, name), f"{path}.{name}")
    elif isinstance(part, list | tuple):
        for number, one in enumerate(part):
            check_unmodulated(one, f"{path}.{number}")


def check_taps(taps: Mapping[str, int], config: TransformerConfig) -> None:
    """ValueError unless every tap is the number of a block."""
    for name, number in taps.items():
        if not 1 <= number <= config.depth:
            raise InputError(
                f"taps.{name}={number}: expected the number of a block, 1..{config.depth}"
            )


def init_weights(module: nn.Module, config: TransformerConfig) -> None:
    """Initialize every linear and convolution of `module`; perhaps shrink residual branches."""
    for layer in module.modules():
        if config.init == "torch":
            if isinstance(layer, Attention):  # as nn.MultiheadAttention makes them
                nn.init.xavier_uniform_(layer.qkv.weight)
                for linear in (layer.qkv, layer.out):
                    if linear.bias is not None:
                        nn.init.zeros_(linear.bias)
        elif config.init.startswith("xavier"):
            if isinstance(layer, nn.Linear | nn.Conv2d | nn.Conv3d):
                _xavier(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Linear | nn.Conv2d | nn.Conv3d):
            fan_in = layer.weight[0].numel()
            std = fan_in**-0.5 if config.init == "fan_in" else config.init_std
            if config.init == "normal":
                nn.init.normal_(layer.weight, std=std)
            else:
                nn.init.trunc_normal_(layer.weight, std=std, a=-3 * std, b=3 * std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    for layer in module.modules():
        if isinstance(layer, Modulation):
            layer.reset()
        elif isinstance(layer, Attention) and config.init == "xavier":
            for part in layer.qkv.weight.detach().split(layer.parts):  # three layers, kept as one
                _xavier(part)
    if config.branch_scale == "none":
        return
    for layer in module.modules():
        if isinstance(layer, Block):
            with torch.no_grad():
                layer.attention.out.weight.div_(math.sqrt(2 * config.depth))
                layer.mlp.out.weight.div_(math.sqrt(2 * config.depth))


@torch.no_grad()
def _xavier(weight: Tensor) -> None:
    """Uniform numbers by fan-in and fan-out (Glorot 2010), of a kernel as of its matrix."""
    rows, columns = len(weight), weight[0].numel()
    end = math.sqrt(6 / (rows + columns))
    weight.uniform_(-end, end)
