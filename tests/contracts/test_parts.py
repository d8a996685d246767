"""Contracts: every registered part keeps them. Add a part and it is tested here.

The promises themselves are in vistok.contracts, where `vistok test-part` runs them on parts of a
user's own, too.
"""

import json
import sys

import pytest
import torch

from tests.support.generators import spec_for
from vistok.config import Config, validate
from vistok.config.registry import build, entries
from vistok.contracts import Case, checks_of, run_check
from vistok.contracts.case import small
from vistok.core.shapes import Shape
from vistok.generators.base import SavedCodes

FAMILIES = (
    "space",
    "head",
    "encoder",
    "quantizer",
    "regularizer",
    "decoder",
    "loss",
    "discriminator",
    "generator",
)


def kinds(*families: str):
    cases = [(family, kind) for family in families for kind in entries(family)]
    ids = [f"{family}-{kind}" for family, kind in cases]
    return pytest.mark.parametrize(("family", "kind"), cases, ids=ids)


# -- configs and documentation ---------------------------------------------------------------------


@kinds(*FAMILIES)
def test_a_part_says_what_it_is(family, kind):
    entry = entries(family)[kind]
    assert entry.part.__module__.startswith("vistok.")
    assert (sys.modules[entry.part.__module__].__doc__ or "").strip()
    assert issubclass(entry.config, Config)
    assert entry.config.model_fields["kind"].default == kind == entry.kind


@kinds(*FAMILIES)
def test_configs_survive_json(family, kind):
    config = entries(family)[kind].config
    for given in (config(), validate(config, small(family, kind))):
        text = json.dumps(given.model_dump(mode="json"))
        assert validate(config, json.loads(text)) == given


@kinds(*FAMILIES)
def test_configs_refuse_unknown_keys(fails, family, kind):
    with fails(ValueError, "no_such_key: unknown key"):
        validate(entries(family)[kind].config, {"no_such_key": 1})


# -- building and training -------------------------------------------------------------------------


def grids_for(kind: str):
    """Grids of 32 x 32 pixels for a decoder: those of the encoder of its kind, if there is one."""
    entry = entries("encoder").get(kind)
    if entry is None:
        return ((2, 2),)
    with torch.device("meta"):
        return build(entry.config(), Shape(3, (32, 32)), 4).grids


@kinds("space", "encoder", "quantizer", "decoder", "discriminator", "generator")
def test_parts_are_built_on_the_meta_device(family, kind):
    config = entries(family)[kind].config()
    extra = {
        "encoder": (Shape(3, (32, 32)), 4),
        "decoder": (Shape(3, (32, 32)), grids_for(kind) if family == "decoder" else (), 4),
        "space": (Shape(3, (32, 32)),),
    }
    if family == "generator":
        extra[family] = (spec_for(kind, vocab=(8,)), SavedCodes())
    with torch.device("meta"):
        part = build(config, *extra.get(family, ()))
    assert all(p.device.type == "meta" for p in part.parameters())


PARTS = [entry for family in FAMILIES for entry in entries(family).values()]
PROMISES = [(entry, one) for entry in PARTS for one in checks_of(entry.family)]


@pytest.mark.parametrize(
    ("entry", "promise"),
    PROMISES,
    ids=[f"{entry.family}-{entry.kind}-{one.run.__name__}" for entry, one in PROMISES],
)
def test_a_part_keeps_its_contract(entry, promise):
    outcome = run_check(promise, Case.of(entry))
    assert outcome.state != "failed", outcome.text


def test_every_family_has_parts():
    assert all(entries(family) for family in FAMILIES)
