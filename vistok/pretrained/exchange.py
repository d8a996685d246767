"""Official state dict and config <-> model, by a family's tables, every key accounted for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vistok.config import ConfigError, UserError, validate
from vistok.config.names import close
from vistok.core.errors import InputError
from vistok.generators import Generator
from vistok.pretrained.base import Described, Entry, Family, Stack
from vistok.storage.hollow import filled, put
from vistok.storage.origin import Origin
from vistok.storage.weights import WeightsError, all_finite, misfit
from vistok.tokenizer import Tokenizer, TokenizerConfig

Model = Tokenizer | Generator


def from_official(
    family: Family,
    state: Mapping[str, Tensor],
    config: Mapping[str, Any],
    source: str = "state dict",
    release: str | None = None,
    license: str | None = None,
    inside: str | None = None,
) -> Model:
    """A model in evaluation mode that holds the official weights.

    Raises ConfigError for a config that the family cannot map, WeightsError for missing,
    unexpected, misshapen, mistyped or non-finite tensors: one line with source and key.
    """
    try:
        state = family.unwrapped(state)
    except WeightsError as error:
        raise WeightsError(f"{source}: {error}") from None
    tree = _mapped(family, config, state, source)
    model, inert = filled(
        lambda: _built(family, tree, license, f"{source} ({family.name})"),
        lambda model: _fill(family, model, state, source),
    )
    types = {
        k: str(t.dtype) for k, t in state.items() if t.dtype != torch.float32 and k not in inert
    }
    model.origin = Origin(family.name, dict(config), inert, types, release, license, inside)
    return model.eval()


def to_official(family: Family, model: Model) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(state dict, config) in the official layout, dtypes as they came; inert keys come along."""
    origin, described = model.origin, _described(family, model)
    own = {key: tensor.detach().cpu() for key, tensor in model.state_dict().items()}
    config = family.official(described) if origin is None else dict(origin.config)
    inert = {} if origin is None else dict(origin.inert)
    state = family.fixed(described)
    for entry in family.entries(described):
        if entry.theirs and not entry.borrowed:
            written = entry.write(own, inert)
            state.update(zip(entry.theirs, written, strict=True))
            for name in entry.inert(*written):  # part of what was written
                inert.pop(name, None)
    if origin is not None:
        for key, name in origin.types.items():
            if key in state:
                state[key] = state[key].to(getattr(torch, name.removeprefix("torch.")))
        state.update(inert)
    return {key: tensor.contiguous().clone() for key, tensor in state.items()}, config


def _fill(
    family: Family, model: Model, state: Mapping[str, Tensor], source: str
) -> dict[str, Tensor]:
    """Put an official state in the place of a model's tensors; the inert ones that are left."""
    described = _described(family, model)
    entries, fixed = family.entries(described), family.fixed(described)
    inert = _account(family, entries, fixed, state, source)
    own, loaded = model.state_dict(), {}
    _check_table(family, entries, own)
    for entry in entries:
        if entry.theirs:
            for name, tensor in _read(entry, state, own, source).items():
                loaded[name] = tensor.clone(memory_format=torch.contiguous_format)
            inert |= entry.inert(*(state[key] for key in entry.theirs))
    put(model, loaded)
    return inert


def _built(family: Family, tree: dict[str, Any], license: str | None, source: str) -> Model:
    if family.makes == "generator":
        return Generator.from_description(tree, source)
    return Tokenizer(validate(TokenizerConfig, tree | {"license": license}, source))


def _described(family: Family, model: Model) -> Described:
    """The model as its family's tables read it; InputError if it is of the other kind."""
    made = "generator" if isinstance(model, Generator) else "tokenizer"
    if made != family.makes:
        raise InputError(f"family={family.name}: a layout of {family.makes}s, not of a {made}")
    return model if family.makes == "generator" else model.config


def _read(
    entry: Entry | Stack, state: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str
) -> dict[str, Tensor]:
    """Our tensors that an entry makes of the official ones, which are looked at first."""
    parts, wanted = [state[key] for key in entry.theirs], own[entry.names[0]].dtype
    for key, part in zip(entry.theirs, parts, strict=True):
        if (wrong := misfit(part, wanted)) is not None:
            raise WeightsError(f"{source}: {key} {wrong}")
    if len(parts) > 1:  # together they may fit where one of them does not
        _check_shapes(entry, parts, own, source)
    try:
        found = entry.read(*(part.float() if part.is_floating_point() else part for part in parts))
    except (RuntimeError, IndexError, ValueError) as error:
        _check_shapes(entry, parts, own, source)
        raise WeightsError(f"{source}: {entry.theirs[0]}: {_reason(error)}") from None
    if any(tensor.shape != own[name].shape for name, tensor in found.items()):
        _check_shapes(entry, parts, own, source)
        official = entry.write(own, {})[0].shape
        raise WeightsError(
            f"{source}: {entry.theirs[0]} has shape {tuple(parts[0].shape)}; expected "
            f"{tuple(official)} by its config"
        )
    for key, part in zip(entry.theirs, parts, strict=True):
        if not all_finite(part):
            raise WeightsError(f"{source}: {key} has values that are not finite")
    return {name: tensor.to(own[name].dtype) for name, tensor in found.items()}


def _check_shapes(
    entry: Entry | Stack, parts: list[Tensor], own: Mapping[str, Tensor], source: str
) -> None:
    """WeightsError that names the first official tensor of another shape than the config makes."""
    if not isinstance(entry, Entry):  # tables say for themselves how many rows they need
        return
    for key, part, official in zip(entry.theirs, parts, entry.write(own, {}), strict=True):
        if part.shape != official.shape:
            raise WeightsError(
                f"{source}: {key} has shape {tuple(part.shape)}; expected "
                f"{tuple(official.shape)} by its config"
            )


def _mapped(
    family: Family, config: Mapping[str, Any], state: Mapping[str, Tensor], source: str
) -> dict[str, Any]:
    """The tree that a family makes of an official config.

    Config and weights are somebody else's files: a mapping reads them as the releases wrote them,
    and whatever fails there is a value of another type, a key that is not there, or a tensor of
    other axes.
    """
    failures = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
    try:
        config = family.observed(config, state)
    except failures as error:
        raise _named(error, source) or ConfigError(
            f"{source}: config or tensors are not those of {family.name} ({_reason(error)}); "
            "expected the released weights, and the config file that lies beside them, as they came"
        ) from None
    try:
        return family.config(config)
    except failures as error:
        raise _named(error, source) or ConfigError(
            f"{source}: not an official config of {family.name} ({_reason(error)}); expected the "
            "config file that lies beside the released weights, as it came"
        ) from None


def _named(error: Exception, source: str) -> Exception | None:
    """A mistake of the user's with the file that it is about; None for other errors."""
    if not isinstance(error, UserError):
        return None
    return error if source in str(error) else type(error)(f"{source}: {error}")


def _reason(error: Exception) -> str:
    """The first line of an error of Python or torch, which may add a trace of calls to it."""
    said = next(iter(str(error).splitlines()), type(error).__name__)
    return f"no key {said}" if isinstance(error, KeyError) else " ".join(said.split())[:200]


def _account(
    family: Family,
    entries: list[Entry | Stack],
    fixed: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    source: str,
) -> dict[str, Tensor]:
    """The inert tensors; WeightsError if a key is missing or nobody's, or if one that follows from
    the config has other numbers."""
    follow = {key: tensor for key, tensor in fixed.items() if not family.is_inert(key)}
    wanted = [*(key for entry in entries for key in entry.theirs), *follow]
    missing = [key for key in wanted if key not in state]
    known = set(wanted)
    extra = [key for key in state if key not in known]
    inert = {k: state[k] for k in extra if family.is_inert(k)}
    unknown = [key for key in extra if key not in inert]
    if missing or unknown:
        said = []
        if missing:
            near = close(missing[0], unknown, cutoff=0.8)
            hint = f" (is it {near}?)" if near else ""
            said.append(f"missing {missing[0]}{hint}{_more(missing)}")
        if unknown:
            said.append(f"unexpected {unknown[0]}{_more(unknown)}")
        raise WeightsError(
            f"{source}: {'; '.join(said)}; these are not the weights of this {family.name} config"
        )
    for key, tensor in follow.items():
        if state[key].shape != tensor.shape or not torch.equal(state[key].to(tensor), tensor):
            raise WeightsError(
                f"{source}: {key} has shape {tuple(state[key].shape)} and not the numbers that its "
                f"config makes, in shape {tuple(tensor.shape)}; expected weights of this config"
            )
    return inert


def _more(keys: list[str]) -> str:
    return f" and {len(keys) - 1} more" if len(keys) > 1 else ""


def _check_table(family: Family, entries: list[Entry | Stack], own: Mapping[str, Tensor]) -> None:
    """A table that forgets one of our tensors is a mistake of ours."""
    named = {name for entry in entries for name in entry.names}
    forgotten, invented = sorted(set(own) - named), sorted(named - set(own))
    if forgotten or invented:
        raise AssertionError(
            f"{family.name}: its key table lacks {forgotten[:3]} and invents {invented[:3]}"
        )
