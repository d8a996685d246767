"""Lineage: what fits which tokens, and damaged records are one line."""

from dataclasses import replace

import pytest

from vistok.config import ConfigError
from vistok.core.errors import InputError
from vistok.storage.lineage import (
    COMPATIBLE,
    TAKEN,
    UNKNOWN,
    Identity,
    Parent,
    Step,
    describe,
    joined,
    pairing,
    read,
    read_record,
)

A, B, C, D = ("a" * 64, "b" * 64, "c" * 64, "d" * 64)
CODES, OTHERS = "1" * 64, "2" * 64


def step(parent, before=CODES, after=CODES, changed=("decoder",), stage="post"):
    return Step(
        stage, "fine-tuning", changed, after, (Parent("runs/p", parent, before, ("decoder",)),)
    )


PARENT = Identity("runs/p", A, CODES)
CHILD = Identity("runs/c", B, CODES, (step(A),))
GRANDCHILD = Identity("runs/g", C, CODES, (step(A), step(B, stage="again")))
RETRAINED = Identity("runs/r", D, OTHERS, (step(A, after=OTHERS, changed=("encoder", "decoder")),))


@pytest.mark.parametrize("found", [CHILD, GRANDCHILD])
def test_a_changed_decoder_is_compatible(found):
    assert pairing(PARENT.record(), PARENT).text == ""
    assert pairing(PARENT.record(), found) == pairing(found.record(), PARENT)
    assert pairing(PARENT.record(), found).text == COMPATIBLE
    old = {"name": "runs/p", "sha256": A}  # of before codes were hashed: the lineage tells
    assert pairing(old, found).text == COMPATIBLE
    assert not pairing({**old, "sha256": D}, found).fits


def test_any_other_change_is_refused_with_its_reason():
    pair = pairing(PARENT.record(), RETRAINED)
    assert not pair.fits and pair.text == "its encoder changed since then, in post"
    pair = pairing(Identity("x", D, OTHERS).record(), PARENT)
    assert pair.text == f"other weights: sha256 {A[:12]}, not {D[:12]}"
    assert not pairing({}, PARENT).fits and not pairing({"sha256": ""}, Identity("x", "", "")).fits


def test_a_record_without_hashes_names_a_release():
    """Released generators do; the weights are known by the name they were opened by."""
    record = {"name": "some-release", "sha256": ""}
    released = Identity("x", A, CODES, release="some-release")
    assert pairing(record, released).fits and not pairing(record, released).text
    file = replace(released, release="")  # an official file that was not opened by name
    assert pairing(record, file).fits and pairing(record, file).text == TAKEN
    for other in (replace(released, release="another"), PARENT):
        pair = pairing(record, other)
        assert not pair.fits and pair.text == "other weights than those released as some-release"
    parent = Parent("some-release", A, CODES, ("decoder",))
    child = Identity("c", B, CODES, (replace(step(A), parents=(parent,)),))
    assert pairing(record, child).text == COMPATIBLE
    front = replace(step(A, after=OTHERS, changed=("encoder",)), parents=(parent,))
    pair = pairing(record, Identity("c", B, OTHERS, (front,)))
    assert not pair.fits and pair.text == "its encoder changed since then, in post"
    hashed = {**record, "sha256": D}  # a hash is believed, not the name
    assert not pairing(hashed, released).fits and not pairing(hashed, child).fits


def test_the_same_weights_under_another_config_are_refused():
    """The same encoder that is fed other pixels makes other tokens."""
    found = replace(CHILD, lineage=(step(A, changed=("decoder", "input_space")),))
    pair = pairing(PARENT.record(), found)
    assert not pair.fits and pair.text == "its input_space changed since then, in post"


def test_a_record_that_does_not_say_is_not_refused():
    pair = pairing({"sha256": ""}, PARENT)
    assert not pair.fits and not pair.refused and pair.text == UNKNOWN
    assert pairing({"name": "x", "sha256": D}, PARENT).refused


def test_weights_that_come_back_fit_again():
    there = step(A, after=OTHERS, changed=("encoder",), stage="there")
    back = replace(step(B, before=OTHERS, stage="back"), changed=("encoder",))
    assert pairing(PARENT.record(), Identity("x", D, CODES, (there, back))).text == COMPATIBLE


def test_lineages_are_joined_each_step_once():
    new = step(C, stage="new")
    assert joined([GRANDCHILD.lineage, CHILD.lineage], new) == (*GRANDCHILD.lineage, new)
    assert read(describe(GRANDCHILD.lineage), "x") == GRANDCHILD.lineage
    assert read(None, "x") == ()


def damaged(**changes):
    return [{**describe(CHILD.lineage)[0], **changes}]


@pytest.mark.parametrize(
    ("data", "word"),
    [
        ({}, "expected a list"),
        ("x", "expected a list"),
        (["x"], "expected the keys stage"),
        ([{}], "expected the keys stage"),
        (damaged(more=1), "expected the keys stage"),
        (damaged(parents=[]), "a step without parents"),
        (damaged(parents=[{"name": "x"}]), "expected the keys name"),
        (damaged(changed="decoder"), "changed='decoder'"),
        (damaged(changed=[3]), "changed=3"),
        (damaged(stage=None), "stage=None"),
        (damaged(codes_sha256="A" * 64), "is no hash"),
        (damaged(codes_sha256=7), "is no hash"),
        ([describe(CHILD.lineage)[0]] * 1001, "expected a list"),
    ],
)
def test_a_damaged_lineage_is_one_line(data, word, fails):
    with fails(ConfigError, "^x/config.json: lineage: ", word, "save the model again"):
        read(data, "x/config.json")


@pytest.mark.parametrize("data", [None, [], {"name": "x"}, {"name": "x", "sha256": 3}])
def test_a_damaged_record_is_an_error(data):
    with pytest.raises(InputError, match="expected its name and sha256"):
        read_record(data)
