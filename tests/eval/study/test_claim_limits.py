"""What verdicts must not say: more than their numbers, seeds and networks bear."""

import pytest

from tests.support.claims import claim, results, verdict
from vistok.config import ConfigError
from vistok.eval.results.rows import Network
from vistok.eval.study.claims.judge import judge

HOLDS, OPEN = "holds here", "not decided"
PREDICTS = claim("correlation", better="pFID-v1-quick", than=["rFID"])
SCATTERED = (5, 2, 9, 1, 7, 3, 8, 4, 6, 10, 12, 11)


def pair():
    """Three seeds of a and b: gFID about 2 lower, rFID about equal."""
    return {
        (run, seed): {"rFID": 10 + 0.1 * seed + 0.02 * (run == "b"), "gFID": 20 + seed - move}
        for seed, b in enumerate((2.0, 2.2, 1.9))
        for run, move in (("a", 0), ("b", b))
    }


def test_a_network_that_should_decide_and_did_not_measure_is_named():
    given = claim("paired", pairs=[["a", "b"]], lower=["gFID"], networks=["inception"])
    said = verdict(given, pair())
    assert said["verdict"] == OPEN and "inception" in said["needed"]
    assert "those that should (inception) were not measured" in said["sentence"]
    assert "training looked through every one" not in said["sentence"]


def test_a_metric_through_the_network_of_the_loss_decides_nothing():
    """Though another network saw more of the metrics, so that the claim is read through that."""
    given = claim("paired", pairs=[["a", "b"]], lower=["gFID"], equal={"rFID": 0.1, "LPIPS": 0.1})
    numbers = pair()
    for (run, seed), own in numbers.items():
        own["LPIPS"] = 0.3 + 0.01 * seed + 0.001 * (run == "b")
    for losses, expected in (({}, HOLDS), ({"b": ["lpips"]}, OPEN)):
        found, made = results(numbers, losses=losses)
        rows = [
            row.model_copy(update={"features": Network(name="lpips", sha256="1")})
            if row.metric == "LPIPS"
            else row
            for row in found.rows
        ]
        said = judge(given, found.model_copy(update={"rows": tuple(rows)}), made)
        assert said["verdict"] == expected, said["sentence"]
        assert "LPIPS was measured through lpips alone" in said["readings"][0]["notes"]
        assert any("of b looked through lpips" in doubt for doubt in said["doubts"]) == bool(losses)


def test_correlations_take_each_side_from_the_same_seeds():
    numbers = {
        (f"t{i}", seed): {"rFID": r, "pFID-v1-quick": i, "gFID": i}
        for i, r in enumerate(SCATTERED, 1)
        for seed in (0, 1)
    }
    for i in range(1, 13):  # a second seed without a gFID says the contrary
        numbers[f"t{i}", 1] = {"rFID": i, "pFID-v1-quick": SCATTERED[i - 1]}
    found = verdict(PREDICTS, numbers)
    assert found["verdict"] == HOLDS
    reading = found["readings"][0]
    assert {line[1] for line in reading["lines"]} == {"1"}
    assert "t1: mean of seed 0, at which all was measured" in reading["notes"]
    del numbers["t1", 0]["rFID"]
    numbers["t1", 1]["rFID"] = 3.0  # rFID and gFID of one tokenizer, of different seeds
    reading = verdict(PREDICTS, numbers)["readings"][0]
    assert reading["tests"][0]["n"] == 11
    assert "t1 has no seed at which all was measured, left out" in reading["notes"]


def test_a_curve_that_falls_and_rises_again_is_not_flat():
    given = claim("flat", runs=["nested"], flat="gFID", rises="rFID", within=0.05)

    def numbers(*gfid):
        return {
            ("nested", seed): {
                name: {n: v + 0.1 * ((seed + k) % 3) for k, (n, v) in enumerate(zip((4, 8, 16), own,
                                                                                    strict=True))}
                for name, own in (("gFID", gfid), ("rFID", (40, 20, 10)))
            }
            for seed in range(3)
        }  # fmt: skip

    assert verdict(given, numbers(20, 20.5, 20))["verdict"] == HOLDS
    found = verdict(given, numbers(20, 10, 20))
    assert found["verdict"] == OPEN and "yet at 8 tokens it is -36.8%" in found["sentence"]
    assert "changes evenly with the length" in found["needed"]


def test_pairs_that_share_a_run_are_no_sample(fails):
    pairs = [["a", "b"], ["a", "c"]]
    assert claim("paired", pairs=pairs, lower=["gFID"]).over == "seeds"
    with fails(ConfigError, "over=pairs", "a stands in several pairs"):
        claim("paired", pairs=pairs, lower=["gFID"], over="pairs")


@pytest.mark.parametrize(
    ("seeds", "said"), [(1, "of the measurement"), (2, ""), (3, "of the mean over seeds")]
)
def test_a_chart_says_what_its_bands_are(seeds, said):
    given = claim("curve", metric="rFID", better=["a"], than=["b"])
    numbers = {
        (run, seed): {"rFID": {4: 9.0 + seed, 8: 5.0 + seed}}
        for run in "ab"
        for seed in range(seeds)
    }
    intervals = {("a", 0, "rFID"): (4.0, 10.0)}
    text = verdict(given, numbers, intervals=intervals)["readings"][0]["charts"][0]["text"]
    assert text == (f"bands: 95% interval {said}" if said else "")
