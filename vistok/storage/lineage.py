"""Lineage of a tokenizer's weights, and the one rule by which tokens and tokenizers are paired.

A tokenizer that training started from saved ones keeps, in its config.json, one step for each stage
that led to it, the oldest first: the parents (name, sha256 of their weights, hash of the weights
that make their tokens), and the parts that the stage changed.

Generators, token caches and pairs of images name the tokenizer of their tokens by {name, sha256,
codes_sha256}. They go with other weights too if those make the same tokens: if the decoder alone
was changed. Released generators name the release of their tokenizer, without hashes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol

from vistok.config.errors import ConfigError
from vistok.core.errors import InputError
from vistok.core.text import printable

BEHIND = ("decoder", "output_space")  # parts that do not make tokens
COMPATIBLE = "compatible: decoder changed only"
TAKEN = "taken for the release whose tokens it learned: neither file says which weights they are"
UNKNOWN = "not known which weights made its tokens"
_MOST = 1000  # steps, and parents of one: what is damaged may name millions
_HASH = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Parent:
    """Saved weights that a stage started from."""

    name: str
    """A run, a folder or a released name, as the stage's config called it."""
    sha256: str
    """Hash of its model.safetensors."""
    codes_sha256: str
    """Hash of the weights that make its tokens (`Tokenizer.codes_sha256`)."""
    parts: tuple[str, ...]
    """Parts that took their weights from it."""
    license: str | None = None
    """License of its weights, if it is stated."""


@dataclass(frozen=True)
class Step:
    """A stage of training that began with weights of others."""

    stage: str
    """Name of the run."""
    kind: str
    """post-training, fine-tuning (all weights come from parents), next stage, or post-training
    quantization."""
    changed: tuple[str, ...]
    """Parts that are others than the parents'."""
    codes_sha256: str
    """Hash of the weights that make tokens after the stage."""
    parents: tuple[Parent, ...]

    @property
    def reads_otherwise(self) -> bool:
        """True if the same weights make other tokens after the stage: its config changed them."""
        same = any(parent.codes_sha256 == self.codes_sha256 for parent in self.parents)
        return same and any(name not in BEHIND for name in self.changed)


Lineage = tuple[Step, ...]


class Weights(Protocol):
    """A tokenizer's weights as `pairing` looks at them."""

    @property
    def sha256(self) -> str: ...

    @property
    def codes_sha256(self) -> str: ...

    @property
    def lineage(self) -> Lineage: ...

    @property
    def release(self) -> str | None: ...


@dataclass(frozen=True)
class Identity:
    """Hashes and lineage of a saved tokenizer."""

    name: str
    sha256: str
    codes_sha256: str
    lineage: Lineage = ()
    release: str | None = None
    """Released name of imported weights, "" for official files that were not opened by name; None:
    not imported."""

    @classmethod
    def of(cls, record: Mapping[str, str]) -> Identity:
        """The identity that a record of the tokenizer tells; hashes that it lacks are ""."""
        return cls(record["name"], record["sha256"], record.get("codes_sha256", ""))

    def record(self) -> dict[str, str]:
        """The record that whatever is made of its tokens keeps."""
        return {"name": self.name, "sha256": self.sha256, "codes_sha256": self.codes_sha256}


@dataclass(frozen=True)
class Pairing:
    """Answer of `pairing`."""

    fits: bool
    text: str
    """"" for the very same weights; `COMPATIBLE`; `TAKEN`; or the reason why they do not fit,
    `UNKNOWN` if nothing speaks against it."""

    @property
    def refused(self) -> bool:
        """True if the record tells that the weights are others."""
        return not self.fits and self.text != UNKNOWN


def pairing(wanted: Mapping[str, str], found: Weights) -> Pairing:
    """Tell if tokens of the tokenizer `wanted`, a record, are tokens of the weights `found`.

    They are if the weights are the same, or those of all parts in front of the tokens: then the
    decoder alone was changed. A record without hashes names a release, whose weights are known by
    that name.
    """
    digest, codes = wanted.get("sha256", ""), wanted.get("codes_sha256")
    name = "" if digest or codes else wanted.get("name", "")
    if (digest and found.sha256 == digest) or (name and found.release == name):
        return Pairing(True, "")
    if name and found.release == "":
        return Pairing(True, TAKEN)
    if not digest and not codes and not name:
        return Pairing(False, UNKNOWN)
    since, parent = _since(digest, name, found.lineage)
    if not codes and parent is not None:  # a record of before codes were hashed
        codes = parent.codes_sha256
    otherwise = [step for step in found.lineage if step.reads_otherwise]
    if codes and codes == found.codes_sha256 and not otherwise:
        return Pairing(True, COMPATIBLE)
    steps = since or otherwise
    front = dict.fromkeys(name for step in steps for name in step.changed if name not in BEHIND)
    if front:
        stages = printable(", ".join(step.stage for step in steps))
        return Pairing(False, f"its {', '.join(front)} changed since then, in {stages}")
    if name:
        return Pairing(False, f"other weights than those released as {printable(name)}")
    return Pairing(False, f"other weights: sha256 {found.sha256[:12]}, not {digest[:12]}")


def _since(digest: str, name: str, lineage: Lineage) -> tuple[Lineage, Parent | None]:
    """(the steps since the weights `digest`, or the release `name`, those weights), where they are
    among the ancestors."""
    for number in reversed(range(len(lineage))):
        for parent in lineage[number].parents:
            if (digest and parent.sha256 == digest) or (name and parent.name == name):
                return lineage[number:], parent
    return (), None


def read_record(data: Any) -> dict[str, str]:
    """The record of a tokenizer, {name, sha256, codes_sha256 if known}; InputError otherwise."""
    texts = isinstance(data, dict) and all(isinstance(v, str) for v in data.values())
    if not texts or not {"name", "sha256"} <= set(data):
        raise InputError(f"tokenizer={str(data)[:60]!r}: expected its name and sha256")
    return dict(data)


def joined(histories: Sequence[Lineage], step: Step) -> Lineage:
    """The steps of all parents, each once, and a new one behind them."""
    before = dict.fromkeys(one for history in histories for one in history)
    return (*before, step)


def describe(lineage: Lineage) -> list[dict[str, Any]]:
    """A lineage as config.json holds it."""
    return [asdict(step) for step in lineage]


def read(data: Any, source: str) -> Lineage:
    """The lineage in what `describe` wrote, None standing for none.

    ConfigError, one line with `source`, for anything else.
    """
    if data is None:
        return ()
    try:
        return tuple(_step(one) for one in _listed(data, "lineage"))
    except InputError as error:
        raise ConfigError(
            f"{source}: lineage: {error}; it is damaged: save the model again, or remove the key"
        ) from None


def _step(data: Any) -> Step:
    _check_keys(data, Step)
    parents = tuple(_parent(one) for one in _listed(data["parents"], "parents"))
    if not parents:
        raise InputError("a step without parents")
    return Step(
        stage=_text(data["stage"], "stage"),
        kind=_text(data["kind"], "kind"),
        changed=_texts(data["changed"], "changed"),
        codes_sha256=_hash(data["codes_sha256"], "codes_sha256"),
        parents=parents,
    )


def _parent(data: Any) -> Parent:
    _check_keys(data, Parent)
    license = data["license"]
    return Parent(
        name=_text(data["name"], "name"),
        sha256=_hash(data["sha256"], "sha256"),
        codes_sha256=_hash(data["codes_sha256"], "codes_sha256"),
        parts=_texts(data["parts"], "parts"),
        license=None if license is None else _text(license, "license"),
    )


def _check_keys(data: Any, kind: type) -> None:
    names = [field.name for field in fields(kind)]
    if not isinstance(data, dict) or set(data) != set(names):
        raise InputError(f"got {_short(data)}; expected the keys {', '.join(names)}")


def _listed(data: Any, key: str) -> Sequence[Any]:
    if not isinstance(data, list | tuple) or len(data) > _MOST:
        raise InputError(f"{key}={_short(data)}; expected a list")
    return data


def _texts(data: Any, key: str) -> tuple[str, ...]:
    return tuple(_text(one, key) for one in _listed(data, key))


def _hash(data: Any, key: str) -> str:
    if not isinstance(data, str) or not _HASH.fullmatch(data):
        raise InputError(f"{key}={_short(data)} is no hash")
    return data


def _text(data: Any, key: str) -> str:
    if not isinstance(data, str):
        raise InputError(f"{key}={_short(data)}; expected a text")
    return data


def _short(value: Any) -> str:
    return repr(value)[:60]
