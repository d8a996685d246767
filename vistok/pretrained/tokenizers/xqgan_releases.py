"""Released weights of XQ-GAN (arXiv 2412.01762) and ImageFolder (2410.01756).

The model's part of each shipped config; figures are those of the papers, gFID that of VAR-d17.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vistok.pretrained.base import Release
from vistok.pretrained.published import XQGAN

LICENSE = "none stated, code under the Adobe Research License (research only, non-commercial)"

_SCALES = [1, 1, 2, 3, 3, 4, 5, 6, 8, 11]
_NETWORK = {
    "enc_type": "dinov2",
    "dec_type": "dinov2",
    "encoder_model": "vit_base_patch14_dinov2.lvd142m",
    "decoder_model": "vit_base_patch14_dinov2.lvd142m",
    "abs_pos_embed": True,
    "semantic_guide": "dinov2",
}


def _scales(size: int, bits: int | None = None) -> dict[str, Any]:
    """MSVR10P2 of `size` codes, or MSBR10P2 of `bits` binary channels."""
    binary = {"lfq": True, "codebook_l2_norm": True, "entropy_loss_ratio": 0.1, "clip_norm": True}
    return {
        **_NETWORK,
        "codebook_size": size,
        "codebook_embed_dim": 32 if bits is None else bits,
        "v_patch_nums": _SCALES,
        "num_latent_tokens": 121,
        "product_quant": 2,
        "half_sem": True,
        "codebook_drop": 0.1,
        "start_drop": 3,
        **({} if bits is None else binary),
    }


def _plain(size: int, dim: int, branches: int) -> dict[str, Any]:
    """VQ, or VP2 of two branches."""
    return {
        **_NETWORK,
        "codebook_size": size,
        "codebook_embed_dim": dim,
        "v_patch_nums": [16],
        "num_latent_tokens": 256,
        "product_quant": branches,
        "half_sem": branches > 1,
    }


def _release(
    name: str, file: str, recipe: str, config: Mapping[str, Any], hub: str = "XQ-GAN", **own: Any
) -> Release:
    return Release(
        name,
        f"qiuk6/{hub}",
        file,
        LICENSE,
        config=config,
        protocol=XQGAN,
        recipe=(f"tokenizers/{recipe}",),
        research_only=True,
        **own,
    )


_MSVR, _MSBR = "imagefolder-msvr10p2", "imagefolder-msbr10p2"
_4096, _16384 = _scales(4096), _scales(16384)

RELEASES = (
    _release(
        f"{_MSVR}-4096",
        "MSVR10P2-4096/best_ckpt.pt",
        "imagefolder/msvr10p2_4096",
        _4096,
        rfid=0.80,
        gfid=2.60,
    ),
    _release(
        f"{_MSVR}-8192",
        "MSVR10P2-8192/best_ckpt.pt",
        "imagefolder/msvr10p2_8192",
        _scales(8192),
        rfid=0.70,
    ),
    _release(
        f"{_MSVR}-16384",
        "MSVR10P2-16384/best_ckpt.pt",
        "imagefolder/msvr10p2_16384",
        _16384,
        rfid=0.67,
    ),
    # The same network, trained on other images.
    _release(
        f"{_MSVR}-4096-imed",
        "IMed-MSVR10P2-4096/IMed361M.pt",
        "imagefolder/msvr10p2_4096",
        _4096,
    ),
    _release(
        f"{_MSVR}-4096-laion",
        "LAION-MSVR10P2-4096/laion.pt",
        "imagefolder/msvr10p2_4096",
        _4096,
    ),
    _release(
        f"{_MSBR}-4096",
        "MSBR10P2-4096/best_ckpt.pt",
        "imagefolder/msbr10p2_4096",
        _scales(4096, 12),
        rfid=0.86,
    ),
    _release(
        f"{_MSBR}-16384",
        "MSBR10P2-16384/best_ckpt.pt",
        "imagefolder/msbr10p2_16384",
        _scales(16384, 14),
        rfid=0.78,
    ),
    _release(
        "xqgan-vp2-4096", "vq-4096/best_ckpt.pt", "xqgan/vp2_4096", _plain(4096, 32, 2), rfid=0.90
    ),
    _release(
        "xqgan-vp2-16384",
        "vq-16384/best_ckpt.pt",
        "xqgan/vp2_16384",
        _plain(16384, 32, 2),
        rfid=0.64,
    ),
    _release(
        "xqgan-vq-4096",
        "XQGAN-4096.pt",
        "xqgan/vq_4096",
        _plain(4096, 64, 1),
        hub="RobustTok",
        rfid=0.91,
    ),
    _release(
        "xqgan-vq-8192",
        "XQGAN-8192.pt",
        "xqgan/vq_8192",
        _plain(8192, 32, 1),
        hub="RobustTok",
        rfid=0.81,
    ),
)
