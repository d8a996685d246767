"""The families and their releases, by name."""

from __future__ import annotations

from vistok.config.errors import InputError
from vistok.config.names import nearest
from vistok.pretrained.base import Family, Release
from vistok.pretrained.maskgit_vqgan import MaskGITVQGAN
from vistok.pretrained.one_d_piece import OneDPiece
from vistok.pretrained.tatitok import TATiTok
from vistok.pretrained.titok import TiTok

FAMILIES: dict[str, Family] = {
    family.name: family for family in (MaskGITVQGAN(), TiTok(), TATiTok(), OneDPiece())
}


def family_of(name: str) -> Family:
    """InputError with the nearest name for an unknown one."""
    if name not in FAMILIES:
        raise InputError(f"unknown family '{name}'; {nearest(name, FAMILIES)}")
    return FAMILIES[name]


def releases() -> dict[str, tuple[Family, Release]]:
    """Every released name."""
    return {r.name: (family, r) for family in FAMILIES.values() for r in family.releases}


def release_of(name: str) -> tuple[Family, Release]:
    """InputError with the nearest name for an unknown one."""
    known = releases()
    if name not in known:
        raise InputError(f"unknown release '{name}'; {nearest(name, known)}")
    return known[name]
