"""Names that a user chose for runs, thinned training curves, and the mark of few images."""

import json

import pytest

from tests.support.eval_results import made, row
from vistok.core.errors import InputError
from vistok.eval.results.history import POINTS, thinned
from vistok.eval.results.names import chosen_names, renamed
from vistok.eval.results.text import FEWEST, few, few_reasons, value_text


def test_names_in_the_order_of_the_command_line_or_by_old_name():
    given, known = ["tok", "gen"], ["tok", "gen", "earlier"]
    assert chosen_names(["base", "GPT"], given, known) == {"tok": "base", "gen": "GPT"}
    assert chosen_names({"earlier": "2025"}, given, known) == {"earlier": "2025"}
    assert chosen_names((), given, known) == {}
    for wanted, word in (
        (["a"], "1 names for 2 runs"),
        ({"toc": "a"}, "no such run"),
        (["a", "a"], "name of its own"),
        (["a", "earlier"], "name of its own"),
        (["a", " "], "name of its own"),
    ):
        with pytest.raises(InputError, match=word) as caught:
            chosen_names(wanted, given, known)
        assert "\n" not in str(caught.value)


def test_a_run_is_renamed_wherever_it_stands():
    results = made(2)
    new = renamed(results, {"nested": "A"})
    assert not any(r.run.startswith("nested") for r in new.rows)
    assert [run["name"] for run in new.runs] == ["A", "A/probe-tiny", "tail", "tail/probe-tiny"]
    kept = {name: fact for name, fact in new.facts.items() if name != "command"}
    assert "nested" not in json.dumps(kept)
    assert new.facts["pairs"] == {"A": ["A/probe-tiny"], "tail": ["tail/probe-tiny"]}
    assert len(new.find("PSNR", "A")) == len(results.find("PSNR", "nested")) > 0
    assert {grid["run"] for grid in new.facts["image_grids"]} >= {"A", "A/probe-tiny"}


def test_histories_are_thinned_to_what_a_chart_shows():
    lines = [
        {"step": s, "split": split, "loss": 1.0, "grad_norm/head": 2.0}
        for s in range(1, 3001)
        for split in (("train", "val") if s % 100 == 0 else ("train",))
    ]
    kept = thinned(lines)
    train = [line["step"] for line in kept if line["split"] == "train"]
    assert len(train) == POINTS and train[0] == 1 and train[-1] == 3000
    assert sum(line["split"] == "val" for line in kept) == 30
    assert all(set(line) == {"step", "split", "loss"} for line in kept)
    assert [line["step"] for line in kept] == sorted(line["step"] for line in kept)
    assert thinned(()) == [] and len(thinned(lines[:1])) == 1


def test_one_rule_marks_small_counts_of_every_metric():
    for metric in ("rFID", "PSNR", "SSIM", "perceptual", "codebook-usage", "gFID"):
        small, large = (row(metric, "a", 1.0, count=n) for n in (4, FEWEST))
        assert "4 images" in few(small) and value_text(small).endswith("†"), metric
        assert few(large) == "" and not value_text(large).endswith("†")
    said = row("rFID", "a", 1.0, few="biased upwards: 64 images for 320 features")
    assert few(said).startswith("biased")  # what the measurement says comes first
    clip = lambda name: row(name, "a", 1.0, count=4, size=(2, 8, 8))
    assert few(clip("flicker")).startswith("4 clips") and few(clip("PSNR")).startswith("4 frames")
    for exact in ("bits/image", "bytes/clip", "encode-images/s"):
        assert few(row(exact, "a", 1.0, count=4)) == ""
    assert few_reasons([row("PSNR", "a", 1.0, count=4)], lambda r: r.metric) == [
        f"PSNR: 4 images, fewer than {FEWEST}"
    ]
