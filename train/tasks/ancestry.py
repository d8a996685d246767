"""The lineage of a tokenizer in training: which weights it began with, and what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vistok.config import ConfigError, UserError
from vistok.core.rng import Rng
from vistok.pretrained.identity import identify
from vistok.storage.lineage import Identity, Lineage, Parent, Step, joined
from vistok.storage.weights import content_sha256
from vistok.tokenizer import Tokenizer

_PROBES = 4  # images by which two tokenizers of the same weights are compared


@dataclass(frozen=True)
class Ancestor:
    """A saved tokenizer that a stage begins with."""

    identity: Identity
    parts: tuple[str, ...]
    """Parts, or modules inside one, that take its weights."""
    hashes: dict[str, str]
    """Hash of the weights of each of its parts."""
    license: str | None
    otherwise: tuple[str, ...] = ()
    """Parts by whose config alone the tokenizer in training makes other tokens of an image."""


@dataclass(frozen=True)
class Ancestry:
    """The tokenizers that a stage begins with; none if it begins with fresh weights."""

    ancestors: tuple[Ancestor, ...] = ()
    whole: bool = False
    """True if every part begins with the weights of an ancestor."""
    post: bool = False
    """True if the stage rebuilds the targets of other inputs: pairs."""

    @classmethod
    def of(
        cls, tokenizer: Tokenizer, inits: Sequence[tuple[str, Sequence[str]]], post: bool
    ) -> Ancestry:
        """The ancestry of a tokenizer that has just taken its weights from others.

        Args:
            inits: (name of a saved tokenizer, parts that were taken), in order.
            post: see `Ancestry.post`.
        """
        if not inits:
            return cls()
        begun = _hashes(tokenizer)
        found = tuple(_ancestor(tokenizer, name, parts) for name, parts in inits)
        whole = all(any(a.hashes.get(n) == digest for a in found) for n, digest in begun.items())
        return cls(found, whole, post)

    def record(self) -> dict[str, str]:
        """{fact: sha256} of the ancestors: a run that resumes must still find the same ones."""
        return {f"init {a.identity.name} (sha256)": a.identity.sha256 for a in self.ancestors}

    def lineage(self, tokenizer: Tokenizer, stage: str) -> Lineage:
        """The lineage of the finished tokenizer of the run called `stage`."""
        if not self.ancestors:
            return ()
        changed = [
            name
            for name, digest in _hashes(tokenizer).items()
            if all(a.hashes.get(name) != digest for a in self.ancestors)
        ]
        codes = tokenizer.codes_sha256()
        same = [a for a in self.ancestors if a.identity.codes_sha256 == codes]
        changed += [name for a in same for name in a.otherwise if name not in changed]
        kind = "fine-tuning" if self.whole else "next stage"
        parents = tuple(
            Parent(a.identity.name, a.identity.sha256, a.identity.codes_sha256, a.parts, a.license)
            for a in self.ancestors
        )
        step = Step(stage, "post-training" if self.post else kind, tuple(changed), codes, parents)
        return joined([a.identity.lineage for a in self.ancestors], step)


def _ancestor(tokenizer: Tokenizer, name: str, parts: Sequence[str]) -> Ancestor:
    try:
        source, identity = identify(name)
    except UserError as error:
        raise ConfigError(f"task.init: {error}") from None
    otherwise = ()
    if identity.codes_sha256 == tokenizer.codes_sha256():
        otherwise = _otherwise(tokenizer, source)
    return Ancestor(identity, tuple(parts), _hashes(source), source.config.license, otherwise)


def _hashes(tokenizer: Tokenizer) -> dict[str, str]:
    """Hash of the weights of each part that has some."""
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tokenizer.state_dict().items():
        part, _, name = key.partition(".")
        parts.setdefault(part, {})[name] = tensor
    return {part: content_sha256(tensors) for part, tensors in parts.items()}


def _otherwise(mine: Tokenizer, source: Tokenizer) -> tuple[str, ...]:
    """Parts in front of the tokens whose config differs, if noise becomes other tokens by it.

    Most differences (dropout, weights of losses) change no token; whether one does is tried.
    """
    names = ("input_space", "encoder", "quantizer")
    differ = tuple(n for n in names if getattr(mine.config, n) != getattr(source.config, n))
    if mine.shape != source.shape or mine.spec() != source.spec():
        return differ or ("encoder",)
    if not differ or mine.config.text is not None:
        return ()
    pixels = Rng(0, "lineage").uniform(torch.arange(_PROBES), (3, *mine.shape.sides))
    ours, theirs = (one.encode(pixels) for one in (mine, source))
    same = all(
        getattr(ours, kind) is None or torch.equal(getattr(ours, kind), getattr(theirs, kind))
        for kind in ("indices", "values")
    )
    return () if same else differ
