"""TA-TiTok (arXiv 2501.07730): one-stage TiTok whose decoder also reads a caption.

The text enters the decoder alone, 77 features of CLIP ViT-L/14-336's last layer, padding included.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vistok.pretrained.base import Entry, Release, pair, same
from vistok.pretrained.published import TATITOK, TATITOK_VAE
from vistok.pretrained.tokenizers.titok import TiTok, within
from vistok.tokenizer import TokenizerConfig

CLIP = "hf:openai/clip-vit-large-patch14-336"  # the weights of open_clip's ViT-L-14-336 "openai"
_LICENCE = "Apache-2.0"


class TATiTok(TiTok):
    name = "tatitok"
    keys = TiTok.keys | {"text_context_length", "text_embed_dim"}

    def recognizes(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:
        vq, keys = within(config, "model", "vq_model"), set(keys)
        return isinstance(vq, Mapping) and (
            ("text_context_length" in vq and "latent_tokens" in keys)
            or "decoder.text_guidance_proj.weight" in keys
        )

    def config(self, official: Mapping[str, Any]) -> dict[str, Any]:
        tree = super().config(official)
        model = official["model"]["vq_model"]
        length = model.get("text_context_length", 77)
        tree["decoder"]["text"] = {
            "dim": model.get("text_embed_dim", 768),
            "length": length,
            "padding": "attended",
            "optional": False,
        }
        tree["text"] = {
            "network": "clip",
            "path": CLIP,
            "layer": "last",
            "length": length,
            "pad_id": 0,  # open_clip's; padding is attended to here
        }
        return tree

    def extend(self, model: dict[str, Any], config: TokenizerConfig) -> dict[str, Any]:
        text = config.decoder.text
        return model | {"text_context_length": text.length, "text_embed_dim": text.dim}

    def entries(self, config: TokenizerConfig) -> list[Entry]:
        return [
            *super().entries(config),
            *pair("decoder.text.proj", "decoder.text_guidance_proj"),
            same("decoder.text.table", "decoder.text_guidance_positional_embedding"),
        ]

    releases = tuple(
        Release(
            f"tatitok-{name.replace('_', '-')}",
            f"turkeyju/tokenizer_tatitok_{name}",
            "model.safetensors",
            _LICENCE,
            rfid=rfid,
            protocol=TATITOK_VAE if "vae" in name else TATITOK,
            recipe=(f"tokenizers/tatitok/tatitok_{name}",),
        )
        for name, rfid in (
            ("bl32_vq", 3.95),
            ("bl64_vq", 2.43),
            ("bl128_vq", 1.53),
            ("bl32_vae", 1.53),
            ("bl64_vae", 1.47),
            ("sl128_vae", 0.90),
        )
    )
