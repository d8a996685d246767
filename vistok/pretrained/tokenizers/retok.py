"""ReTok (arXiv 2601.01535, zfu006/ReTok) and GigaTok (2504.08736), on whose code it is built.

ReTok has N + M latents, M = N - K0, with K0 the shortest length it trained; the second tables of
positions (`_comp`) hold the M. Weights without them are GigaTok's plain ones: M = 0, and whole
sequences only (min_tokens: null). A config is the official YAML, its `model.init_args`, or flat
with sizes by number (`width`, `heads`, `layers_enc`, `layers_dec`); without one, sizes are read
from the shapes of the weights.
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
    flag,
    warn_of_unknown,
)
from vistok.pretrained.tokenizers import retok_keys
from vistok.pretrained.tokenizers.llamagen import (
    quantizer_official,
    quantizer_tree,
    refuse_others,
    z_channels,
)
from vistok.pretrained.tokenizers.retok_keys import SIDES
from vistok.pretrained.tokenizers.taming import cnn_official, cnn_trees
from vistok.tokenizer import TokenizerConfig

SIZES = {  # width, layers, heads
    "tiny": (256, 4, 4),
    "small": (512, 6, 8),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
    "xl": (1280, 36, 20),
    "xxl": (1536, 48, 24),
}
FLOOR = 32  # K0 of the released code, a literal there
_LICENSE = "unknown: neither code nor weights come with a license, so no use is granted (research)"
_PAGE = "https://drive.google.com/drive/folders/1Qne5GwCILuJVH_fqQSN2MQFK7YF82UAn"
_KNOWN = frozenset(
    "image_size codebook_size codebook_embed_dim codebook_l2_norm codebook_show_usage "
    "commit_loss_beta entropy_loss_ratio rot ch ch_mult encoder_ch_mult decoder_ch_mult "
    "num_res_blocks z_channels dropout_p norm_groups norm_eps norm_type use_attn resamp_with_conv "
    "adaptive_gn d2s_up patch_downsample model_size encoder_size decoder_size width heads "
    "layers_enc layers_dec sizes mlp_ratio num_latent_tokens min_tokens use_qk_norm "
    "multi_level_query_init learnable_1d_query_init learnable_2d_query_init distill_depth "
    "out_inner_dim".split()
)
# What changes the network and no release has, with the value that leaves it as it is.
_REFUSED: dict[str, Any] = {
    **dict.fromkeys(
        "use_lfq simvq freeze_codebook stochastic use_rope rope_1d rope_2d use_flash_attn "
        "last_level_2d_query_init multi_level_2d_query_init res_up_down_sample "
        "downsample_match_channel upsample_match_channel res_codebook_updown_sample "
        "downsample_improve encoder_2d_distill with_prior_model".split(),
        False,
    ),
    "codebook_transform": None,
    "prior_model_config": None,
}
# Of training, or of an option that is refused.
_SILENT = frozenset(
    "fea_rec_loss_type fea_rec_loss_weight bernoulli_sample eval_deterministic "
    "stochastic_temperature".split()
)
_SB256 = {
    "encoder_size": "small",
    "decoder_size": "base",
    "multi_level_query_init": True,
    "adaptive_gn": True,
    "d2s_up": True,
    "rot": True,
    "use_attn": False,
    "distill_depth": 3,
}


class ReTok(Family):
    name = "retok"
    inert = ("quantize.codebook_used",)

    # -- configs --------------------------------------------------------------------------------

    def recognizes(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:
        marks = {f"{side}.latent_token_positional_embedding" for side in SIDES.values()}
        said = not config or "model" in config or bool(_KNOWN & set(config))
        return said and marks | {"quantize.embedding.weight"} <= set(keys)

    def constants(self, state: Mapping[str, Tensor]) -> Mapping[str, Any] | None:
        if not self.recognizes({}, state):
            return None
        found = dict(_SB256)
        for side, prefix in SIDES.items():
            width = state[f"{prefix}.ln_post.weight"].shape[0]
            layers = len({k.split(".")[2] for k in state if k.startswith(f"{prefix}.transformer.")})
            names = [n for n, (w, depth, _) in SIZES.items() if (w, depth) == (width, layers)]
            if not names:
                return None
            found[f"{side}_size"] = names[0]
        return found

    def observed(self, official: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Any]:
        official = dict(_inner(self.name, official))
        if not any(key.endswith("_embedding_comp") for key in state):
            official["min_tokens"] = None
        return official

    def config(self, official: Mapping[str, Any]) -> dict[str, Any]:
        official = _arguments(self.name, official)
        mults = official.get("encoder_ch_mult", official.get("ch_mult", [1, 1, 2, 2, 4]))
        stride = 2 ** (len(mults) - 1)
        if official.get("patch_downsample", stride) != stride:
            raise ConfigError(
                f"{self.name}: patch_downsample={official['patch_downsample']}, and "
                f"{len(mults)} levels of ch_mult divide by {stride}; expected one number"
            )
        count = official.get("num_latent_tokens", 256)
        floor = official.get("min_tokens", FLOOR)
        redundant = 0 if floor is None else count - floor
        if redundant < 0:
            raise ConfigError(
                f"{self.name}: min_tokens={floor} is more than num_latent_tokens={count}"
            )
        encoder, decoder = cnn_trees(self.name, official)
        decoder["adaptive_norm"] = flag(official, "adaptive_gn", False)
        if flag(official, "d2s_up", False):
            decoder["upsample"] = "depth_to_space"
        z, (first, second) = z_channels(self.name, official), _sizes(self.name, official)
        distill = official.get("distill_depth")
        padding = {"kind": "redundant_padding", "padding": redundant, "floor": max(floor or 1, 1)}
        return {
            "image_size": official.get("image_size", 256),
            "regularizers": [padding] if redundant else [],
            "encoder": {
                "kind": "qformer",
                "cnn": encoder,
                "z_channels": z,
                "qformer": first,
                "count": count,
                "redundant": redundant,
                "queries": _queries(self.name, official),
                "init": "trunc_normal",
            },
            "quantizer": quantizer_tree(official, _gradient(official)),
            "decoder": {
                "kind": "qformer",
                "qformer": second,
                "queries": "learned"
                if flag(official, "learnable_2d_query_init", False)
                else "first",
                "missing": "refuse" if floor is None else "drop",
                "z_channels": z,
                "cnn": decoder,
                "distill": None
                if distill is None
                else {"depth": distill, "dim": official.get("out_inner_dim", 768)},
                "init": "trunc_normal",
            },
        }

    def official(self, config: TokenizerConfig) -> dict[str, Any]:
        encoder, decoder, distill = config.encoder, config.decoder, config.decoder.distill
        cnn = cnn_official(encoder.cnn, decoder.cnn)
        if decoder.cnn.upsample == "depth_to_space":
            cnn["resamp_with_conv"] = True
        official = {
            "image_size": config.image_size[0],
            **cnn,
            **quantizer_official(config.quantizer),
            "rot": config.quantizer.gradient != "straight_through",
            "z_channels": encoder.z_channels,
            "sizes": [_numbers(part.qformer) for part in (encoder, decoder)],
            "mlp_ratio": encoder.qformer.mlp_ratio,
            "use_qk_norm": encoder.qformer.qk_norm,
            "num_latent_tokens": encoder.count,
            "min_tokens": encoder.count - encoder.redundant,
            "multi_level_query_init": encoder.queries == "pooled",
            "learnable_1d_query_init": encoder.queries == "learned",
            "learnable_2d_query_init": decoder.queries == "learned",
            "adaptive_gn": decoder.cnn.adaptive_norm,
            "d2s_up": decoder.cnn.upsample == "depth_to_space",
            "distill_depth": None if distill is None else distill.depth,
        }
        if distill is not None:
            official["out_inner_dim"] = distill.dim
        if decoder.missing == "refuse" and not encoder.redundant:
            official["min_tokens"] = None
        refuse_others(self, config, official)
        return official

    # -- keys -----------------------------------------------------------------------------------

    def fixed(self, config: TokenizerConfig) -> dict[str, Tensor]:
        return retok_keys.fixed(config)

    def entries(self, config: TokenizerConfig) -> list[Entry]:
        return retok_keys.entries(config)

    def _release(name: str, file: str, size: str) -> Release:
        return Release(
            name, "", file, _LICENSE, {**_SB256, "decoder_size": size}, page=_PAGE,
            recipe=(f"tokenizers/retok/{name.replace('-', '_')}",), research_only=True,
        )  # fmt: skip

    releases = (
        _release("retok-sb256", "VQ_SB256_e250.pt", "base"),
        _release("retok-ss256", "VQ_SS256*.pt", "small"),
    )


def _inner(family: str, official: Mapping[str, Any]) -> Mapping[str, Any]:
    """The model's own arguments, of a whole YAML or as they are."""
    if "model" not in official:
        return official
    model = official["model"]
    kind = model.get("model_cls", "VQVitModelPlus")
    if kind != "VQVitModelPlus":
        raise ConfigError(f"{family}: model.model_cls={kind!r}; expected VQVitModelPlus")
    return model["init_args"]


def _arguments(family: str, official: Mapping[str, Any]) -> dict[str, Any]:
    """The same, after a look at every key; ConfigError for what would need another network."""
    official = _inner(family, official)
    for key, value in _REFUSED.items():
        if key in official and official[key] not in (value, None):
            raise ConfigError(
                f"{family}: {key}={official[key]!r}: no release has it, and its network is not "
                f"here; expected {value!r}"
            )
    warn_of_unknown(family, official, _KNOWN | _SILENT | set(_REFUSED))
    return dict(official)


def _sizes(family: str, official: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Q-Formers of both sides, by names or by numbers."""
    trees = []
    for i, side in enumerate(("encoder", "decoder")):
        if "sizes" in official:
            width, depth, heads = official["sizes"][i]
        elif "width" in official:
            width, heads = official["width"], official["heads"]
            depth = official[f"layers_{side[:3]}"]
        else:
            name = official.get(f"{side}_size") or official.get("model_size", "small")
            if name not in tuple(SIZES):
                raise ConfigError(
                    f"{family}: {side}_size={name!r}; expected one of {', '.join(SIZES)}"
                )
            width, depth, heads = SIZES[name]
        trees.append(
            {
                "width": width,
                "depth": depth,
                "heads": heads,
                "mlp_ratio": official.get("mlp_ratio", 4.0),
                "norm_eps": 1e-5,
                "qk_norm": flag(official, "use_qk_norm", False),
                "dropout": official.get("dropout_p", 0.0),
            }
        )
    return trees


def _numbers(qformer: Any) -> list[int]:
    return [qformer.width, qformer.depth, qformer.heads]


def _queries(family: str, official: Mapping[str, Any]) -> str:
    pooled = flag(official, "multi_level_query_init", False)
    learned = flag(official, "learnable_1d_query_init", False)
    if pooled and learned:
        raise ConfigError(
            f"{family}: multi_level_query_init and learnable_1d_query_init exclude each other: set "
            "one of them to false"
        )
    return "pooled" if pooled else "learned" if learned else "mean"


def _gradient(official: Mapping[str, Any]) -> str:
    if not flag(official, "rot", False):
        return "straight_through"
    # Of unit latents, which they are with l2_norm in any case.
    return "rotation" if flag(official, "codebook_l2_norm", True) else "rotation_of_direction"
