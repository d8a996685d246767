"""Checks, their registry, and what comes of running one."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from vistok.config import own_code
from vistok.config.errors import UserError


class Broken(AssertionError):
    """The part does not keep a promise: what was found, and what was expected."""


class Left(Exception):
    """The part leaves something out that it may leave out: what cannot run then."""


@dataclass(frozen=True)
class Check:
    """One promise of a family's parts."""

    families: tuple[str, ...]
    name: str
    run: Callable[[Any], None]


class Outcome(NamedTuple):
    """Result of one check of one part."""

    check: Check
    state: Literal["ok", "failed", "missing"]
    text: str = ""


CHECKS: list[Check] = []


def check(*families: str, name: str) -> Callable[[Callable], Callable]:
    """Register a function of a `Case` as a check of some families; `name` is the promise."""

    def add(function: Callable[[Any], None]) -> Callable[[Any], None]:
        CHECKS.append(Check(families, name, function))
        return function

    return add


def checks_of(family: str) -> list[Check]:
    """The checks of a family's parts, in the order in which they are run."""
    return [one for one in CHECKS if family in one.families]


def run_check(one: Check, case: Any) -> Outcome:
    """Run a check of a part; whatever it raises becomes one line."""
    torch.manual_seed(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            one.run(case)
    except Left as error:
        return Outcome(one, "missing", str(error))
    except (Broken, UserError) as error:
        return Outcome(one, "failed", _line(error))
    except Exception as error:  # the part's own code: any error may come out of it
        place = own_code.place(error)
        where = "" if place is None else f"{place}: "
        return Outcome(one, "failed", f"{where}{type(error).__name__}: {_line(error)}")
    return Outcome(one, "ok")


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 400 else f"{text[:400]} ..."


def expect(holds: bool, otherwise: str) -> None:
    """Raise `Broken` with the words `otherwise` unless a promise holds."""
    if not holds:
        raise Broken(otherwise)


def expect_shape(name: str, tensor: Any, shape: tuple[int, ...], dtype: Any = None) -> None:
    """Raise `Broken` unless a value is a tensor of this shape, and type if one is given."""
    expect(isinstance(tensor, Tensor), f"{name} is {tensor!r:.60}; expected a tensor")
    found = tuple(tensor.shape)
    expect(found == tuple(shape), f"{name} has shape {found}; expected {tuple(shape)}")
    if dtype is not None:
        expect(tensor.dtype == dtype, f"{name} is {tensor.dtype}; expected {dtype}")


def expect_equal(name: str, found: Tensor, wanted: Tensor, than: str, atol: float = 0.0) -> None:
    """Raise `Broken` unless two tensors are equal (up to `atol`)."""
    expect_shape(name, found, tuple(wanted.shape))
    if torch.equal(found, wanted):
        return
    off = (found.double() - wanted.double()).abs().max().item() if wanted.numel() else 0.0
    expect(off <= atol, f"{name} differs from {than} by up to {off:.3g}; expected {_within(atol)}")


def _within(atol: float) -> str:
    return "equal numbers" if atol == 0 else f"at most {atol:.0e}"


def expect_gradients(module: torch.nn.Module, of: str) -> None:
    """Raise `Broken` unless every parameter that asks for a gradient has a finite one."""
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        expect(
            parameter.grad is not None,
            f"{name} gets no gradient from {of}; expected every parameter to learn: use it in the "
            "forward pass, give it a loss, or make it a buffer",
        )
        finite = bool(parameter.grad.isfinite().all())
        expect(finite, f"{name} has a gradient that is not finite; expected finite numbers")
