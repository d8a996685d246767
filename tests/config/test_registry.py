"""Names -> parts."""

from typing import Literal

import pytest

import vistok.tokenizer  # noqa: F401  (registers the parts)
from vistok.config import Config
from vistok.config.registry import build, entries, entry_of, families
from vistok.quantizers.atoms.fsq import FSQ, FSQConfig


def test_entries_are_found_by_kind_and_by_config():
    entry = entries("quantizer")["fsq"]
    assert (entry.family, entry.kind, entry.config, entry.part) == (
        "quantizer",
        "fsq",
        FSQConfig,
        FSQ,
    )
    assert entry_of(FSQConfig()) is entry
    assert {"encoder", "quantizer", "regularizer", "decoder", "space"} <= set(families())
    assert entries("no such family") == {}


def test_what_is_handed_out_is_a_copy():
    entries("quantizer").clear()
    assert "fsq" in entries("quantizer")


def test_build_gives_the_part_of_the_config():
    part = build(FSQConfig(levels=(3, 5)))
    assert type(part) is FSQ and part.vocab == (15,)


def test_a_config_that_is_no_parts(fails):
    class Lonely(Config):
        kind: Literal["lonely"] = "lonely"

    with pytest.raises(KeyError, match="Lonely is not the config of a registered part"):
        build(Lonely())
