"""Contracts of families: what a part must have, checked when it is built.

A base class marks its methods: `@required` must be defined by every part (`when="vocab"`: by those
whose `vocab` is not empty or None), `@needed_by("pFID")` may be left out, and says what will not
work then. What it annotates without a value (`latent_dim: int`) must be set when a part is built.
So a missing method is one line in the first second, not an AttributeError hours later.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from vistok.config import own_code
from vistok.config.errors import ConfigError

C = TypeVar("C", bound=type)
_BASES: dict[str, list[type]] = {}
_DUCKS: dict[str, tuple[str, ...]] = {}


@dataclass(frozen=True)
class Need:
    """How a method of a base class is needed."""

    required: bool
    when: str | None = None
    """Attribute of the part that makes it required where it is not empty; None = always."""
    by: str = ""
    """What cannot run without it."""


def required(method: Any = None, *, when: str | None = None) -> Any:
    """Mark a method, or property, that parts must define."""
    mark = _marker(Need(True, when))
    return mark if method is None else mark(method)


def needed_by(what: str) -> Callable[[Any], Any]:
    """Mark a method, or property, without which only `what` cannot run."""
    return _marker(Need(False, by=what))


def base_of(*families: str) -> Callable[[C], C]:
    """Mark the base class of the parts of some families; a family may have several."""

    def add(base: C) -> C:
        for family in families:
            _BASES.setdefault(family, []).append(base)
        return base

    return add


def ducks(family: str, *methods: str) -> None:
    """A family without a base class, whose parts need only have these methods."""
    _DUCKS[family] = methods


def bases(family: str) -> tuple[type, ...]:
    return tuple(_BASES.get(family, ()))


def lacks(part: Any, method: str) -> bool:
    """True if a part has not defined a method that its base class marks."""
    return method in dict(_undefined(type(part)))


def check_class(family: str, kind: str, part: type) -> None:
    """ConfigError for a class that is not of its family, or lacks a required method."""
    if not isinstance(part, type):  # a function that builds one
        return
    who = f"{family} '{kind}'"
    for name in _DUCKS.get(family, ()):
        found = getattr(part, name, None)
        if found is None or getattr(found, "__name__", "") == "_forward_unimplemented":
            raise ConfigError(f"{who}: {_at(part)} has no {name}(); expected this method")
    known = bases(family)
    if known and not issubclass(part, known):
        names = " or ".join(f"{base.__module__}.{base.__name__}" for base in known)
        raise ConfigError(f"{who}: {_at(part)} is no {family}; expected a subclass of {names}")
    check_methods(who, part)
    for name, theirs, base in _overridden(part):
        if not _takes(theirs, base):
            raise ConfigError(
                f"{who}: {_at(part)}: {name}{_shown(theirs)} cannot be called as "
                f"{name}{_shown(base)}; expected these arguments"
            )


def check_methods(who: str, part: type) -> None:
    """ConfigError for a class that lacks a method which is required of every one."""
    for name, need in _undefined(part):
        if need.required and need.when is None:
            raise ConfigError(f"{who}: {_at(part)} has no {_expected(part, name)}")


def check_built(family: str, kind: str, part: Any) -> None:
    """ConfigError for a part that did not set what its base class annotates, or lacks a method that
    its own attributes require."""
    who = f"{family} '{kind}'"
    for base in bases(family):
        for name, annotation in inspect.get_annotations(base).items():
            if isinstance(part, base) and not _has(part, name):
                raise ConfigError(
                    f"{who}: {_at(type(part))} sets no {name}; expected {annotation}, set in "
                    "__init__ or the class"
                )
    for name, need in _undefined(type(part)):
        if need.required and need.when is not None and getattr(part, need.when, None):
            raise ConfigError(
                f"{who}: {_at(type(part))} has {need.when}={getattr(part, need.when)} and no "
                f"{_expected(type(part), name)}"
            )


# -- inside ---------------------------------------------------------------------------------------


def _marker(need: Need) -> Callable[[Any], Any]:
    def mark(method: Any) -> Any:
        (method.fget if isinstance(method, property) else method).need = need
        return method

    return mark


def _need_of(member: Any) -> Need | None:
    return getattr(member.fget if isinstance(member, property) else member, "need", None)


def _undefined(part: type) -> Iterator[tuple[str, Need]]:
    """Marked methods that a class still has from the class that marks them."""
    for name in dict.fromkeys(name for cls in part.__mro__ for name in vars(cls)):
        need = _need_of(inspect.getattr_static(part, name))
        if need is not None:
            yield name, need


def _overridden(part: type) -> Iterator[tuple[str, Any, Any]]:
    """(name, the part's method, the marked one of its base) of marked methods that it defines."""
    for base in part.__mro__:
        for name, member in vars(base).items():
            own = inspect.getattr_static(part, name)
            if _need_of(member) is not None and inspect.isfunction(own) and own is not member:
                yield name, own, member


def _takes(method: Any, base: Any) -> bool:
    """True if a method can be called with the arguments of the base's, by place."""
    given = inspect.signature(base).parameters.values()
    by_place = [p for p in given if p.kind is not p.KEYWORD_ONLY]
    by_name = {p.name: p for p in given if p.kind is p.KEYWORD_ONLY}
    try:
        inspect.signature(method).bind(*by_place, **by_name)
    except TypeError:
        return False
    return True


def _shown(method: Any) -> str:
    """(latents, draws): names of the arguments, without self and types."""
    _, *arguments = inspect.signature(method).parameters.values()
    shown = [p.name if p.default is p.empty else f"{p.name}={p.default}" for p in arguments]
    return f"({', '.join(shown)})"


def _expected(part: type, name: str) -> str:
    member = inspect.getattr_static(part, name)
    call = "" if isinstance(member, property) else _shown(member)
    said = (inspect.getdoc(member) or "").partition("\n")[0].rstrip(".:")
    return f"{name}{call}; expected: {said}" if said else f"{name}{call}; expected this method"


def _has(part: Any, name: str) -> bool:
    """True if an attribute is set; a property counts without being computed."""
    missing = object()
    found = inspect.getattr_static(part, name, missing)
    return found is not missing or hasattr(part, name)


def _at(part: type) -> str:
    """Name of a class with the file and line of a part of the user's own."""
    if part.__module__.partition(".")[0] == "vistok":
        return part.__name__
    try:
        file, line = inspect.getsourcefile(part), inspect.getsourcelines(part)[1]
    except (OSError, TypeError):  # made while running
        return part.__name__
    return f"{part.__name__} ({own_code.shown(file)}, line {line})"
