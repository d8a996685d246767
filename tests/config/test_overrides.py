"""`key.sub=value`: one grammar for every command."""

import pytest

from vistok.config import ConfigError
from vistok.config.names import close, nearest
from vistok.config.overrides import apply, parse


def test_a_tree_from_nothing():
    tree = parse(["kind=photos", "a.b=1e-4", "a.c=[1, x]", "text=x=y", "empty=", "a.d={e: null}"])
    assert tree == {
        "kind": "photos",
        "a": {"b": 1e-4, "c": [1, "x"], "d": {"e": None}},
        "text": "x=y",
        "empty": None,
    }


def test_the_tree_below_stays_as_it_was_and_the_last_wins():
    below = {"a": {"b": 1, "c": 2}, "losses": [{"start": 1}, {"start": 2}], "d": "text"}
    above = apply(below, ["a={b: 3}", "losses[1].start=5", "losses.0.weight=2", "d.e=1", "d.e=2"])
    assert above == {
        "a": {"b": 3},
        "losses": [{"start": 1, "weight": 2}, {"start": 5}],
        "d": {"e": 2},
    }
    assert below["a"] == {"b": 1, "c": 2} and below["losses"][1] == {"start": 2}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("size", "'size': expected an override of the form key.sub=value"),
        ("=3", "'=3': expected"),
        ("a..b=3", "'a..b=3': expected"),
        ("a=[1", r"'\[1': not a YAML value .*quotes"),
        ("parts.2=1", "'parts.2=1': place 2 is out of range, parts has 2 entries"),
    ],
)
def test_what_is_no_override_is_one_line(fails, override, words):
    with fails(ConfigError, words):
        apply({"parts": [1, 2]}, [override])


def test_the_nearest_name():
    assert nearest("fsqq", ["vq", "fsq"]) == "did you mean 'fsq'? valid: vq, fsq"
    assert nearest("zzz", ["vq", "fsq"]) == "valid: vq, fsq"
    assert close("encoder.wieght", ["encoder.weight", "x"]) == "encoder.weight"
    assert close("abc", []) is None
