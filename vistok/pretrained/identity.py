"""Hashes and lineage of a tokenizer behind a name: what `storage.lineage.pairing` looks at."""

from __future__ import annotations

from pathlib import Path

from vistok import pretrained
from vistok.storage.hub import WEIGHTS
from vistok.storage.lineage import Identity
from vistok.storage.weights import file_sha256, sha256
from vistok.tokenizer import Tokenizer


def identify(name: str | Path) -> tuple[Tokenizer, Identity]:
    """The tokenizer behind a name, and the identity of its weights; errors as in `open`.

    Official weights have the sha256 of the file that saving them would make.
    """
    folder = pretrained.locate(name, "tokenizer").folder
    tokenizer = pretrained.open(name, expect="tokenizer")
    weights = None if folder is None else folder / WEIGHTS
    digest = file_sha256(tokenizer.state_dict()) if weights is None else sha256(weights)
    return tokenizer, identity_of(tokenizer, str(name), digest)


def identity_of(tokenizer: Tokenizer, name: str, digest: str) -> Identity:
    """The identity of an opened tokenizer.

    Args:
        digest: sha256 of its model.safetensors.
    """
    codes = tokenizer.codes_sha256()
    return Identity(name, digest, codes, tokenizer.lineage, tokenizer.release)
