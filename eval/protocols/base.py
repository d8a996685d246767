"""The contract of protocols, and their registry.

A protocol has a config; whatever its numbers depend on stands in it, since the digest of that
config is part of the key under which the result cache keeps them. It cuts its work into jobs and
measures one at a time: `run(context, config) -> rows`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

from vistok.config import Config
from vistok.core.errors import InputError
from vistok.eval.results.rows import Row
from vistok.eval.systems.runs import Run, System

if TYPE_CHECKING:
    from vistok.eval.config import EvalConfig
    from vistok.eval.context import Context

Media = Literal["image", "video"]

T = TypeVar("T")


class _Selects:
    """Marks a key that says which numbers are measured, not how: rows do not carry it."""


Selects = Annotated[T, _Selects()]


class ProtocolConfig(Config):
    """Base class of protocols' configs."""


def setting_of(config: Config) -> dict[str, Any]:
    """The keys of a protocol's config on which its numbers depend, as JSON: a row's `setting`."""
    dumped = config.model_dump(mode="json")
    selects = lambda field: any(isinstance(one, _Selects) for one in field.metadata)
    return {
        name: dumped[name]
        for name, field in type(config).model_fields.items()
        if not selects(field)
    }


@dataclass(frozen=True)
class Job:
    """One piece of a protocol's work, kept in the result cache by itself."""

    protocol: Protocol
    config: ProtocolConfig
    generator: Run | None = None  # whose weights the outcome also depends on
    data: Any = None  # objects for `run` that its config or `identity` describes
    identity: Any = None  # JSON of further images that the outcome depends on
    networks: tuple[Any, ...] = ()  # frozen ones beside the context's: the outcome depends on them
    seed: int | None = None  # of its draws; None = the evaluation's

    @property
    def whose(self) -> str:
        """ "" or the name of the generator that it measures."""
        return "" if self.generator is None else self.generator.name


@dataclass(frozen=True)
class Skip:
    """A number that is not measured, and why; the report lists them."""

    what: str
    reason: str
    run: str = ""  # "" = the tokenizer


class Protocol(ABC):
    """Base class of protocols.

    Attributes:
        name: key of its config in an evaluation's config, and its name in `protocols=[...]`.
        version: raised whenever the same config gives other numbers.
        media: the kinds of samples that it can measure.
        Config: class of its config.
        first_rank: True if the first process does it alone.
        every_network: True if it measures through all feature networks (`context.networks`); others
            are given the first alone, and are not measured again when there are more.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    media: ClassVar[tuple[Media, ...]] = ("image",)
    Config: ClassVar[type[ProtocolConfig]] = ProtocolConfig
    first_rank: ClassVar[bool] = False
    every_network: ClassVar[bool] = False

    def jobs(self, system: System, config: EvalConfig) -> Sequence[Job | Skip]:
        """The work on a tokenizer and its generators; one job of the user's config by default."""
        return [Job(self, getattr(config, self.name))]

    @abstractmethod
    def run(self, context: Context, config: Any) -> list[Row]:
        """Measure one job (`context.job`) on every rank: its rows; facts, skips and image grids
        are left in the context."""


PROTOCOLS: dict[str, Protocol] = {}


def register(protocol: type[Protocol]) -> type[Protocol]:
    """File a protocol under its name."""
    taken = PROTOCOLS.get(protocol.name)
    if taken is not None and type(taken).__qualname__ != protocol.__qualname__:
        raise InputError(f"two protocols are named '{protocol.name}': {type(taken)}, {protocol}")
    PROTOCOLS[protocol.name] = protocol()
    return protocol
