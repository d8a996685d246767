"""The families and their releases, by name."""

from __future__ import annotations

from vistok.config.errors import InputError
from vistok.config.names import nearest
from vistok.pretrained.base import Family, Release
from vistok.pretrained.generators.ibq import IBQAR
from vistok.pretrained.generators.instella import InstellaT2I
from vistok.pretrained.generators.larp import LARPGenerator
from vistok.pretrained.generators.llamagen import LlamaGenGPT
from vistok.pretrained.generators.maskgen import MaskGen
from vistok.pretrained.generators.maskgit import MaskGIT
from vistok.pretrained.generators.nar import NAR
from vistok.pretrained.generators.open_magvit2 import OpenMAGVIT2AR
from vistok.pretrained.generators.rar import RAR
from vistok.pretrained.generators.tokenbridge import TokenBridgeAR
from vistok.pretrained.generators.var import VAR
from vistok.pretrained.generators.xar import XAR
from vistok.pretrained.tokenizers.cosmos import Cosmos
from vistok.pretrained.tokenizers.cosmos_image import CosmosImage
from vistok.pretrained.tokenizers.flextok import FlexTok
from vistok.pretrained.tokenizers.gpstoken import GPSToken
from vistok.pretrained.tokenizers.ibq import IBQTokenizer
from vistok.pretrained.tokenizers.instella import Instella
from vistok.pretrained.tokenizers.larp import LARP
from vistok.pretrained.tokenizers.llamagen import LlamaGen
from vistok.pretrained.tokenizers.mar import MARVAE
from vistok.pretrained.tokenizers.maskgit_vqgan import MaskGITVQGAN
from vistok.pretrained.tokenizers.one_d_piece import OneDPiece
from vistok.pretrained.tokenizers.open_magvit2 import OpenMAGVIT2
from vistok.pretrained.tokenizers.open_magvit2_video import OpenMAGVIT2Video
from vistok.pretrained.tokenizers.retok import ReTok
from vistok.pretrained.tokenizers.tatitok import TATiTok
from vistok.pretrained.tokenizers.titok import TiTok
from vistok.pretrained.tokenizers.tokenbridge import TokenBridge
from vistok.pretrained.tokenizers.tokenflow import TokenFlow
from vistok.pretrained.tokenizers.var import VARTokenizer
from vistok.pretrained.tokenizers.vfrtok import VFRTok
from vistok.pretrained.tokenizers.videoflextok import VideoFlexTok
from vistok.pretrained.tokenizers.xqgan import XQGAN
from vistok.storage.hub import HUB

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        *(MaskGITVQGAN(), TiTok(), TATiTok(), OneDPiece(), ReTok(), LlamaGen(), XQGAN()),
        FlexTok(),
        VideoFlexTok(),
        Cosmos(),
        CosmosImage(),
        Instella(),
        VFRTok(),
        LARP(),
        VARTokenizer(),
        IBQTokenizer(),
        OpenMAGVIT2(),
        OpenMAGVIT2Video(),
        MARVAE(),
        GPSToken(),
        TokenFlow(),
        TokenBridge(),
        RAR(),
        InstellaT2I(),
        LlamaGenGPT(),
        LARPGenerator(),
        NAR(),
        OpenMAGVIT2AR(),
        IBQAR(),
        MaskGIT(),
        MaskGen(),
        VAR(),
        TokenBridgeAR(),
        XAR(),
    )
}


def family_of(name: str) -> Family:
    """InputError with the nearest name for an unknown one."""
    if name not in FAMILIES:
        raise InputError(f"unknown family '{name}'; {nearest(name, FAMILIES)}")
    return FAMILIES[name]


def releases() -> dict[str, tuple[Family, Release]]:
    """(family, release) by released name."""
    return {r.name: (family, r) for family in FAMILIES.values() for r in family.releases}


def released_name(name: str) -> str | None:
    """The released name behind a released name or its id on the hub (`hf:owner/name`).

    InputError for an id that holds several releases.
    """
    known = releases()
    if name in known:
        return name
    held = [o for o, (_, r) in known.items() if r.hub and name == f"{HUB}{r.hub}"]
    if len(held) > 1:
        raise InputError(f"{name}: holds several releases; name one of {', '.join(held)}")
    return held[0] if held else None


def release_of(name: str) -> tuple[Family, Release]:
    """The release of a name or `hf:owner/name`; InputError with the nearest name for others."""
    known, own = releases(), released_name(name)
    if own is None:
        raise InputError(f"unknown release '{name}'; {nearest(name, known)}")
    return known[own]
