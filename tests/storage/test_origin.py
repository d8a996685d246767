"""The record of an import: what comes back, damage, and a folder that another model was in."""

from __future__ import annotations

import json

import pytest
import torch

from tests.support.official import official
from vistok.core.errors import InputError
from vistok.pretrained import from_official
from vistok.storage.origin import Origin
from vistok.tokenizer import Tokenizer

GOOD = {"family": "titok", "config": {}, "types": {}, "release": None, "license": None}


def test_a_record_comes_back(tmp_path):
    origin = Origin("titok", {"a": 1}, {"x": torch.ones(2)}, {"k": "torch.float16"}, None, "MIT")
    origin.save(tmp_path)
    found = Origin.load(tmp_path)
    assert torch.equal(found.inert["x"], torch.ones(2)) and found.types == origin.types
    assert (found.family, found.config, found.license) == ("titok", {"a": 1}, "MIT")


@pytest.mark.parametrize(
    "change",
    [
        {"family": ["titok"]},
        {"config": "x"},
        {"types": []},
        {"types": {"k": "torch.save"}},
        {"types": {"k": 3}},
        {"license": 7},
        {"more": 1},
    ],
)
def test_a_damaged_record_is_one_line(tmp_path, fails, change):
    (tmp_path / "origin.json").write_text(json.dumps({**GOOD, **change}))
    with fails(InputError, "origin.json: not a record of an import"):
        Origin.load(tmp_path)


def test_another_model_in_the_folder_takes_no_record_over(make_tokenizer, tmp_path):
    family, state, config = official("titok-pixel")
    from_official(family, state, config).save_pretrained(tmp_path)
    assert Tokenizer.from_pretrained(tmp_path).origin.family == "titok"
    make_tokenizer("vq").save_pretrained(tmp_path)
    assert Tokenizer.from_pretrained(tmp_path).origin is None
