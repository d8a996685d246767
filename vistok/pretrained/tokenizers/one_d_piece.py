"""One-D-Piece (arXiv 2501.10064): legacy two-stage TiTok whose decoder takes any prefix.

The official code has no `is_legacy` switch: it is always on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vistok.pretrained.base import Release, flag
from vistok.pretrained.published import ONE_D_PIECE
from vistok.pretrained.tokenizers.titok import TiTok, within
from vistok.tokenizer import TokenizerConfig

_LICENCE = "as stated on the hub card (code: Apache-2.0)"


_RECIPES = "tokenizers/one_d_piece/one_d_piece"


class OneDPiece(TiTok):
    name = "one_d_piece"
    keys = TiTok.keys | {"strict_length_assertion"}

    def recognizes(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:
        model = within(config, "model", "vq_model")
        if not isinstance(model, Mapping):
            return False
        named = within(config, "model", "type") == "one_d_piece"
        return named or "strict_length_assertion" in model

    def legacy(self, model: Mapping[str, Any]) -> bool:
        return True

    def config(self, official: Mapping[str, Any]) -> dict[str, Any]:
        tree = super().config(official)
        # Strict models take whole sequences only, as plain TiTok does.
        if not flag(official["model"]["vq_model"], "strict_length_assertion", True):
            tree["decoder"]["missing"] = "drop"
            tree["regularizers"] = [{"kind": "tail_token_drop", "per": "batch"}]
        return tree

    def extend(self, model: dict[str, Any], config: TokenizerConfig) -> dict[str, Any]:
        del model["is_legacy"]
        return model | {"strict_length_assertion": config.decoder.missing == "refuse"}

    releases = tuple(
        Release(
            f"one-d-piece-{size}256",
            f"turing-motors/One-D-Piece-{size.upper()}-256",
            "model.safetensors",
            _LICENCE,
            rfid=rfid,
            gfid=gfid,
            protocol=ONE_D_PIECE,
            recipe=tuple(f"{_RECIPES}_{size}256_stage{stage}" for stage in (1, 2)),
        )
        for size, rfid, gfid in (("s", 1.48, 2.67), ("b", 1.11, 2.70), ("l", 1.08, 2.35))
    )
