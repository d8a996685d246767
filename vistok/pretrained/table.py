"""The families and their releases, by name."""

from __future__ import annotations

import difflib

from vistok.pretrained.base import Family, Release
from vistok.pretrained.maskgit_vqgan import MaskGITVQGAN
from vistok.pretrained.one_d_piece import OneDPiece
from vistok.pretrained.tatitok import TATiTok
from vistok.pretrained.titok import TiTok

FAMILIES: dict[str, Family] = {
    family.name: family for family in (MaskGITVQGAN(), TiTok(), TATiTok(), OneDPiece())
}


def family_of(name: str) -> Family:
    """ValueError with the nearest name for an unknown one."""
    if name not in FAMILIES:
        raise ValueError(f"unknown family '{name}'; {_nearest(name, list(FAMILIES))}")
    return FAMILIES[name]


def releases() -> dict[str, tuple[Family, Release]]:
    """Every released name."""
    return {r.name: (family, r) for family in FAMILIES.values() for r in family.releases}


def release_of(name: str) -> tuple[Family, Release]:
    """ValueError with the nearest name for an unknown one."""
    known = releases()
    if name not in known:
        raise ValueError(f"unknown release '{name}'; {_nearest(name, list(known))}")
    return known[name]


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}known: {', '.join(known)}"
