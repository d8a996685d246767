"""Base of families of released weights: releases, a config mapping, a key table, both ways.

A family never builds or reads anything; `vistok.pretrained.exchange` does, by its tables. Families
of tokenizers map a TokenizerConfig; those of generators a Generator, whose spec belongs to it.
"""

from __future__ import annotations

import fnmatch
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from vistok.config import ConfigError
from vistok.core.text import printable
from vistok.generators import Generator
from vistok.pretrained.published import PLAIN, SAMPLED, Preset, PublishedProtocol
from vistok.tokenizer import TokenizerConfig

Kind = Literal["tokenizer", "generator"]
Described = TokenizerConfig | Generator
Load = Callable[..., Tensor]
Save = Callable[[Tensor], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Entry:
    """One tensor of ours and the official ones it is made of.

    No official ones: a counter of ours that importing leaves as it was built (usage of codes).
    """

    ours: str
    theirs: tuple[str, ...]
    load: Load = lambda tensor: tensor
    save: Save = lambda tensor: (tensor,)
    borrowed: bool = False
    """It belongs to the tokenizer's release (`Family.companion`): an export leaves it out."""

    @property
    def names(self) -> tuple[str, ...]:
        return (self.ours,)

    def read(self, *parts: Tensor) -> dict[str, Tensor]:
        """Our tensor, of the official ones."""
        return {self.ours: self.load(*parts)}

    def write(self, own: Mapping[str, Tensor], inert: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """The official tensors, of ours and the inert ones of an import."""
        return self.save(own[self.ours])

    def inert(self, *parts: Tensor) -> dict[str, Tensor]:
        """Pieces of the official tensors that the model does not read."""
        return {}


@dataclass(frozen=True)
class Stack:
    """An official table [*, rows, W] whose rows belong to several tensors of ours, or to none.

    Rows that no model reads are carried along like inert tensors, by a name with their places; a
    model that was trained here has zeros there.
    """

    table: str
    pieces: tuple[tuple[str | None, int], ...]
    """(tensor of ours [rows, W] or None, rows), in their order."""
    lead: int = 0
    """Axes of length 1 in front of the official table."""
    borrowed: bool = False
    """As of `Entry`."""

    @property
    def theirs(self) -> tuple[str, ...]:
        return (self.table,)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(ours for ours, _ in self.pieces if ours is not None)

    def _split(self, table: Tensor) -> list[tuple[str | None, str, Tensor]]:
        """(tensor of ours, name of the rows, the rows); RuntimeError for another shape."""
        total = sum(rows for _, rows in self.pieces)
        if table.ndim != self.lead + 2 or table.shape[:-1] != (*(1,) * self.lead, total):
            raise RuntimeError(f"has shape {tuple(table.shape)}; expected {total} rows")
        found, start = [], 0
        for ours, rows in self.pieces:
            name = f"{self.table}[{start}:{start + rows}]"
            found.append((ours, name, table.reshape(total, -1)[start : start + rows]))
            start += rows
        return found

    def read(self, *parts: Tensor) -> dict[str, Tensor]:
        return {ours: rows for ours, _, rows in self._split(parts[0]) if ours is not None}

    def inert(self, *parts: Tensor) -> dict[str, Tensor]:
        return {name: rows.clone() for ours, name, rows in self._split(parts[0]) if ours is None}

    def write(self, own: Mapping[str, Tensor], inert: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        like, start, rows = own[self.names[0]], 0, []
        for ours, count in self.pieces:
            name = f"{self.table}[{start}:{start + count}]"
            given = own.get(ours) if ours is not None else inert.get(name)
            zeros = like.new_zeros(count, like.shape[-1])
            rows.append(zeros if given is None else given.to(like))
            start += count
        return (torch.cat(rows).reshape(*(1,) * self.lead, start, -1),)


@dataclass(frozen=True)
class Release:
    """Published weights. `config`: the official one, for files that do not carry their own."""

    name: str
    hub: str
    file: str
    license: str
    config: Mapping[str, Any] | None = None
    sha256: str | None = None
    rfid: float | None = None
    """The authors' own rFID, measured as `protocol` says."""
    gfid: float | None = None
    """The authors' own gFID of a generator on these tokens, or of this one: 50,000 samples against
    ADM's reference batch."""
    protocol: PublishedProtocol = PLAIN
    """Images and protocol of `rfid`."""
    sampled: PublishedProtocol = SAMPLED
    """Protocol of `gfid`."""
    recipe: tuple[str, ...] = ()
    """Names of the shipped configs that train it, one per stage."""
    research_only: bool = False
    page: str | None = None
    """Where people find the file, for weights that lie on no hub (`hub` is then empty)."""

    def published(self, makes: Kind) -> Preset | None:
        """The published figure of these weights themselves: rFID of a tokenizer, gFID of a
        generator; None where the authors give none."""
        found = {
            "tokenizer": ("rFID", self.rfid, self.protocol),
            "generator": ("gFID", self.gfid, self.sampled),
        }
        metric, value, protocol = found[makes]
        return None if value is None else Preset(self.name, metric, value, protocol)


class Family:
    """Base of the families; subclasses live one in a file."""

    name: str
    makes: Kind = "tokenizer"
    """Kind of model whose weights these are."""
    releases: tuple[Release, ...] = ()
    companion: str | None = None
    """Release of the tokenizer whose codes the weights of a generator are read with, if any."""
    inert: tuple[str, ...] = ()
    """Patterns (fnmatch) of official keys that the model does not read; they are carried along."""

    def is_inert(self, key: str) -> bool:
        """True for an official key that is carried along where no part of ours has it."""
        return any(fnmatch.fnmatch(key, pattern) for pattern in self.inert)

    def recognizes(self, config: Mapping[str, Any], keys: Iterable[str]) -> bool:
        """True if an official config and the keys of its state dict look like this family."""
        raise NotImplementedError

    def constants(self, state: Mapping[str, Tensor]) -> Mapping[str, Any] | None:
        """The official config of weights that came without one; None if they are not of this
        family, or of no release whose constants are known."""
        known = [r.config for r in self.releases if r.config is not None]
        return known[0] if known and self.recognizes({}, state) else None

    def unwrapped(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The official state dict without levels that wrappers of training left in its keys."""
        return state

    def completed(
        self, state: Mapping[str, Tensor], tokenizer: Mapping[str, Tensor]
    ) -> Mapping[str, Tensor]:
        """An official state dict with what is read of its tokenizer's, if there is a companion."""
        raise NotImplementedError

    def observed(
        self, official: Mapping[str, Any], state: Mapping[str, Tensor]
    ) -> Mapping[str, Any]:
        """The official config with what only the weights say."""
        return official

    def config(self, official: Mapping[str, Any]) -> dict[str, Any]:
        """Official config -> tree of a TokenizerConfig, or what a generator's config.json says.
        ValueError names what is not supported."""
        raise NotImplementedError

    def official(self, config: Described) -> dict[str, Any]:
        """The inverse, for models that were trained here."""
        raise NotImplementedError

    def entries(self, config: Described) -> list[Entry | Stack]:
        """The whole key table of a model."""
        raise NotImplementedError

    def refuse(self, wrong: Sequence[str]) -> None:
        """ConfigError for the first of a model's settings that the official layout cannot hold."""
        if wrong:
            raise ConfigError(f"{self.name}: {wrong[0]} has no place in the official layout")

    def fixed(self, config: Described) -> dict[str, Tensor]:
        """Official tensors that follow from the config and that no part of ours holds.

        An import checks them, unless they are inert; an export writes them.
        """
        return {}


def changed(
    place: str, mine: Mapping[str, Any], theirs: Mapping[str, Any], but: Collection[str]
) -> list[str]:
    """Settings, as "place.key=value", that the way to the official layout and back would change.

    Args:
        mine: the settings of a model; theirs: after that way; but: keys that are not compared.
    """
    return [
        f"{place}.{key}={value}"
        for key, value in mine.items()
        if key not in but and theirs[key] != value
    ]


def flag(config: Mapping[str, Any], key: str, default: bool) -> bool:
    """A switch of an official config; ConfigError for text and numbers, which are no switch."""
    value = config.get(key, default)
    if not isinstance(value, bool):
        raise ConfigError(f"{key}: got {value!r}; expected true or false")
    return value


def warn_of_unknown(
    family: str, given: Mapping[str, Any], known: Collection[str], place: str = ""
) -> None:
    """A warning for every key of an official config that its mapping does not read.

    Args:
        place: of these keys in the config ("model.generator.").
    """
    for key in sorted(set(given) - set(known), key=str):
        warnings.warn(
            f"{family}: config key {place}{printable(key)} is not known and changes nothing",
            stacklevel=3,
        )


def without_wrappers(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """A state dict without the levels that a compiled or distributed model puts before all keys."""
    for prefix in ("_orig_mod.", "module.", "_orig_mod."):
        if state and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): tensor for key, tensor in state.items()}
    return state


def squeeze(*axes: int) -> dict[str, Any]:
    """Load and save of a tensor whose official form has axes of length 1 (1x1 convolutions)."""

    def load(tensor: Tensor) -> Tensor:
        for axis in sorted(axes, reverse=True):
            tensor = tensor.squeeze(axis)
        return tensor

    def save(tensor: Tensor) -> tuple[Tensor, ...]:
        for axis in sorted(axes):
            tensor = tensor.unsqueeze(axis)
        return (tensor,)

    return {"load": load, "save": save}


def same(ours: str, theirs: str, **how: Any) -> Entry:
    return Entry(ours, (theirs,), **how)


def pair(ours: str, theirs: str) -> list[Entry]:
    """A layer's weight and bias under other names."""
    return [same(f"{ours}.{kind}", f"{theirs}.{kind}") for kind in ("weight", "bias")]


def own(*names: str) -> list[Entry]:
    """Buffers of ours that no release has."""
    return [Entry(name, ()) for name in names]
