"""Verdicts on constructed numbers: claims that hold, that do not, and all that decides nothing."""

import json

import pytest

from tests.support.claims import claim, results, verdict
from vistok.config import ConfigError
from vistok.eval.results.rows import Row
from vistok.eval.study.claims.judge import judge

HOLDS, FAILS, OPEN = "holds here", "does not hold here", "not decided"
SCATTERED = (5, 2, 9, 1, 7, 3, 8, 4, 6, 10, 12, 11)


def tokenizers(points, metrics=("rFID", "pFID-v1-quick", "gFID"), seed=0):
    """Tokenizers with these numbers, one a run."""
    return {(f"t{i}", seed): dict(zip(metrics, p, strict=True)) for i, p in enumerate(points)}


PREDICTS = claim("correlation", better="pFID-v1-quick", than=["rFID"])


def test_a_correlation_that_holds_and_one_that_does_not():
    found = verdict(PREDICTS, tokenizers([(r, p, p) for p, r in enumerate(SCATTERED, 1)]))
    assert found["verdict"] == HOLDS and "paired bootstrap" in found["sentence"]
    assert "nothing of other data" in found["sentence"] and found["needed"] == ""
    test = found["readings"][0]["tests"][0]
    assert test["interval"][0] > 0 and test["n"] == 12
    other = verdict(PREDICTS, tokenizers([(p, r, p) for p, r in enumerate(SCATTERED, 1)]))
    assert other["verdict"] == FAILS and "rFID orders these tokenizers better" in other["sentence"]
    json.dumps([found, other], allow_nan=False)


def test_equal_orders_and_ties_decide_nothing():
    same = verdict(PREDICTS, tokenizers([(p, 2 * p, p) for p in range(1, 13)]))
    assert same["verdict"] == OPEN and "do not tell which" in same["sentence"]
    assert "hardly decide" in same["needed"]
    # Ties on both sides: half of all tokenizers have one number.
    tied = [(x // 2, -(-y // 3), y // 2) for y, x in enumerate(SCATTERED, 1)]
    assert verdict(PREDICTS, tokenizers(tied))["verdict"] in (HOLDS, OPEN)
    flat = verdict(PREDICTS, tokenizers([(1, p, p) for p in range(1, 8)]))
    assert flat["verdict"] == OPEN and "one side is constant" in flat["sentence"]


def test_an_inverse_order_does_not_win():
    """pFID without a relation does not beat rFID's perfect inverse one."""
    none = (7, 1, 12, 4, 9, 2, 11, 3, 8, 6, 5, 10)
    found = verdict(PREDICTS, tokenizers([(-p, x, p) for p, x in enumerate(none, 1)]))
    assert found["verdict"] == OPEN and "itself is not shown to go with gFID" in found["sentence"]
    right = verdict(PREDICTS, tokenizers([(-p, p, p) for p in range(1, 13)]))
    assert right["verdict"] == HOLDS
    swapped = verdict(PREDICTS, tokenizers([(p, -p, p) for p in range(1, 13)]))
    assert swapped["verdict"] == FAILS


def test_better_goes_with_better():
    """A metric of which more is better predicts by falling where the other rises."""
    given = claim("correlation", better="PSNR", than=["rFID"])
    points = [(r, -p, p) for p, r in enumerate(SCATTERED, 1)]
    numbers = tokenizers(points, ("rFID", "PSNR", "gFID"))
    assert verdict(given, numbers)["verdict"] == HOLDS


@pytest.mark.parametrize("n", [0, 1, 4])
def test_fewer_than_five_tokenizers_claim_nothing(n):
    found = verdict(PREDICTS, tokenizers([(n - p, p, p) for p in range(n)]))
    assert found["verdict"] == OPEN
    if n:
        assert "nothing may be claimed, whatever the coefficients" in found["sentence"]
        assert "At least 5" in found["needed"] or "at least 5" in found["needed"]
    else:
        assert "missing: pFID-v1-quick of any tokenizer, rFID" in found["sentence"]


def test_a_correlation_takes_the_tokenizers_that_have_all():
    numbers = tokenizers([(r, p, p) for p, r in enumerate(SCATTERED, 1)])
    for number in range(8):
        del numbers[f"t{number}", 0]["rFID"]
    found = verdict(PREDICTS, numbers)
    assert "with 4 tokenizers nothing" in found["sentence"]
    assert "rFID was not measured of t0, t1" in found["readings"][0]["notes"][0]


def test_a_point_is_the_mean_over_seeds():
    numbers = tokenizers([(r, p, p) for p, r in enumerate(SCATTERED, 1)])
    numbers |= tokenizers([(r, p + 2, p + 4) for p, r in enumerate(SCATTERED, 1)], seed=1)
    found = verdict(PREDICTS, numbers)["readings"][0]
    assert found["lines"][0] == ["t0", "2", "2.00", "5.00", "3.00"]
    assert found["charts"][0]["points"][0] == ["t0", 2.0, 3.0]


# -- pairs -----------------------------------------------------------------------------------------

LOWERS = claim("paired", pairs=[["a", "b"]], lower=["gFID"], equal={"rFID": 0.1})


def pair(moves, ratios=(1.0, 1.01, 0.99), base=20.0):
    """One pair over seeds: gFID moves, rFID is multiplied."""
    numbers = {}
    for seed, (move, ratio) in enumerate(zip(moves, ratios, strict=True)):
        numbers["a", seed] = {"rFID": 10.0, "gFID": base + seed}
        numbers["b", seed] = {"rFID": 10.0 * ratio, "gFID": base + seed + move}
    return numbers


def test_a_pair_that_holds():
    found = verdict(LOWERS, pair((-2.0, -2.2, -1.9)))
    assert found["verdict"] == HOLDS
    assert "Fewer than 5 bear little: nothing general" in found["sentence"]
    lower, equal = found["readings"][0]["tests"]
    assert lower["value"] == pytest.approx(-2.0333, abs=1e-3)
    assert lower["interval"] == pytest.approx([-2.4128, -1.6539], abs=1e-3)  # t(2) = 4.303
    assert equal["answer"] == "yes" and equal["interval"][1] < 0.1


@pytest.mark.parametrize(
    ("moves", "ratios", "expected", "words"),
    [
        ((2.0, 2.2, 1.9), (1.0, 1.01, 0.99), FAILS, "higher"),
        ((-2.0, 2.2, 0.1), (1.0, 1.01, 0.99), OPEN, "neither lower nor higher is shown"),
        ((-2.0, -2.2, -1.9), (1.5, 1.51, 1.49), FAILS, "not within 10%"),
        ((-2.0, -2.2, -1.9), (1.0, 1.3, 0.8), OPEN, "neither within 10% nor outside"),
        ((-2.0,), (1.0,), OPEN, "one seed, which has no interval"),
        ((-2.0,) * 3, (1.0, 1.01, 0.99), OPEN, "the same with every seed"),
        ((0.0,) * 3, (1.0,) * 3, OPEN, "are the two runs one?"),
    ],
)
def test_pairs_that_do_not(moves, ratios, expected, words):
    found = verdict(LOWERS, pair(moves, ratios))
    assert found["verdict"] == expected and words in found["sentence"], found["sentence"]
    assert bool(found["needed"]) == (expected == OPEN)


def test_no_difference_worth_the_name_refutes():
    given = claim("paired", pairs=[["a", "b"]], lower=["gFID"], negligible=0.02)
    small = verdict(given, pair((-0.02, 0.03, -0.01)))
    assert small["verdict"] == FAILS and "no difference beyond 2%" in small["sentence"]
    # A difference that is shown, and is too small to count.
    assert verdict(given, pair((-0.02, -0.03, -0.025)))["verdict"] == FAILS
    assert verdict(given, pair((-2.0, -2.2, -1.9)))["verdict"] == HOLDS


def test_several_pairs_are_averaged_at_each_seed():
    given = claim("paired", pairs=[["a", "b"], ["a", "c"]], lower=["gFID"])
    numbers = pair((-2.0, -2.2, -1.9))
    for seed, move in enumerate((1.0, 1.2, 0.8)):
        numbers["c", seed] = {"rFID": 10.0, "gFID": 20.0 + seed + move}
    whole, first, second = verdict(given, numbers)["readings"][0]["tests"]
    assert whole["asked"] and not first["asked"] and not second["asked"]
    assert whole["value"] == pytest.approx((-0.5 - 0.5 - 0.55) / 3) and whole["n"] == 3
    assert (first["answer"], second["answer"]) == ("yes", "no")
    del numbers["c", 2]
    assert verdict(given, numbers)["readings"][0]["tests"][0]["n"] == 2
    over = claim("paired", pairs=[["a", "b"], ["d", "c"]], lower=["gFID"], over="pairs")
    numbers |= {("d", seed): numbers["a", seed] for seed in range(3)}
    assert verdict(over, numbers)["readings"][0]["tests"][0]["n"] == 2


def test_what_is_missing_decides_nothing():
    given = claim("paired", pairs=[["a", "b"], ["a", "gone"]], lower=["gFID"])
    numbers = pair((-2.0, -2.2, -1.9))
    found = verdict(given, numbers)
    assert found["verdict"] == OPEN and "missing: gFID of gone" in found["sentence"]
    assert "gFID of gone" in found["needed"]
    other = {("a", 0): {"gFID": 1.0}, ("b", 1): {"gFID": 2.0}}
    found = verdict(claim("paired", pairs=[["a", "b"]], lower=["gFID"]), other)
    assert found["verdict"] == OPEN and "b and a at one seed" in found["sentence"]
    assert verdict(LOWERS, {})["verdict"] == OPEN


# -- curves ----------------------------------------------------------------------------------------


def curves(**runs):
    """{run: (values at 4, 8, 16 tokens)}, three seeds that differ a little."""
    return {
        (run, seed): {
            metric: {
                n: v + 0.1 * ((seed + k) % 3)
                for k, (n, v) in enumerate(zip((4, 8, 16), own, strict=True))
            }
            for metric, own in metrics.items()
        }
        for run, metrics in runs.items()
        for seed in range(3)
    }


GRACEFUL = claim("curve", metric="rFID", better=["nested"], than=["fixed"])


def test_curves_by_their_areas():
    numbers = curves(nested={"rFID": (30, 20, 10)}, fixed={"rFID": (50, 30, 9)})
    found = verdict(GRACEFUL, numbers)
    assert found["verdict"] == HOLDS and "log length (4 to 16 tokens)" in found["sentence"]
    # Trapezoids over log2: (30 + 2 * 20 + 10) / 4 = 20, and 29.75; seeds add 0.1 on average.
    mean = {line[0]: float(line[2]) for line in found["readings"][0]["lines"]}
    assert mean == pytest.approx({"nested": 20.1, "fixed": 29.85})
    assert [line[0] for line in found["readings"][0]["lines"]] == ["nested", "fixed"]
    long = claim("curve", metric="rFID", better=["nested"], than=["fixed"], lengths=[16])
    assert verdict(long, numbers)["verdict"] == OPEN  # 1 less with every seed: no spread
    numbers["fixed", 0]["rFID"][16] += 0.2
    assert verdict(long, numbers)["verdict"] == FAILS
    higher = claim("curve", metric="PSNR", better=["fixed"], than=["nested"], over="share")
    psnr = curves(nested={"PSNR": (10, 20, 30)}, fixed={"PSNR": (20, 25, 30)})
    psnr["fixed", 0]["PSNR"][4] += 0.2
    assert verdict(higher, psnr)["verdict"] == HOLDS


def test_equal_areas_decide_nothing():
    numbers = curves(nested={"rFID": (30, 20, 10)}, fixed={"rFID": (28, 20, 12)})
    for seed, move in enumerate((-1.0, 1.2, -0.2)):
        numbers["fixed", seed]["rFID"][8] += move
    found = verdict(GRACEFUL, numbers)
    assert found["verdict"] == OPEN and "neither lower nor higher" in found["sentence"]


def test_a_curve_without_lengths_in_common():
    numbers = curves(nested={"rFID": (30, 20, 10)})
    numbers |= {("fixed", seed): {"rFID": {12: 9.0 + seed}} for seed in range(3)}
    found = verdict(GRACEFUL, numbers, sizes={"fixed": {"tokens": 12}})
    assert found["verdict"] == OPEN
    some = claim("curve", metric="rFID", better=["nested"], than=["fixed"], lengths=[4, 5])
    found = verdict(some, curves(nested={"rFID": (3, 2, 1)}, fixed={"rFID": (4, 3, 2)}))
    assert "rFID at 5 tokens" in found["sentence"] and found["verdict"] == OPEN


def test_bands_are_of_seeds_or_of_the_measurement():
    numbers = curves(nested={"rFID": (30, 20, 10)}, fixed={"rFID": (50, 30, 9)})
    one = {key: own for key, own in numbers.items() if key[1] == 0}
    intervals = {("nested", 0, "rFID"): (5.0, 40.0)}
    series = verdict(GRACEFUL, one, intervals=intervals)["readings"][0]["charts"][0]["series"]
    assert series[0]["points"][0][2:] == [5.0, 40.0] and series[1]["points"][0][2:] == [None] * 2
    series = verdict(GRACEFUL, numbers)["readings"][0]["charts"][0]["series"]
    low, high = series[0]["points"][0][2:]
    assert low == pytest.approx(30.1 - 4.303 * 0.1 / 3**0.5, abs=1e-3) and high > 30.1


FLAT = claim("flat", runs=["nested"], flat="gFID", rises="rFID", within=0.05)


@pytest.mark.parametrize(
    ("gfid", "rfid", "expected"),
    [
        ((20, 20, 20), (40, 20, 10), HOLDS),
        ((40, 28, 20), (40, 20, 10), FAILS),  # it rises too
        ((20, 20, 20), (9, 10, 11), FAILS),  # the other does not rise
    ],
)
def test_one_stays_flat_while_the_other_rises(gfid, rfid, expected):
    found = verdict(FLAT, curves(nested={"gFID": gfid, "rFID": rfid}))
    assert found["verdict"] == expected, found["sentence"]
    assert len(found["readings"][0]["charts"]) == 2


def test_flatness_takes_two_lengths():
    numbers = {("nested", seed): {"gFID": 20.0, "rFID": 10.0} for seed in range(3)}
    found = verdict(FLAT, numbers)
    assert found["verdict"] == OPEN and "two lengths of nested" in found["sentence"]


# -- equal sizes -----------------------------------------------------------------------------------


def test_equal_sizes_are_computed_from_the_runs():
    numbers = pair((-2.0, -2.2, -1.9))
    given = claim("matched", pairs=[["a", "b"]], lower=["gFID"], equal_in=["tokens", "parameters"])
    sizes = {"b": {"parameters": 1040, "bits": 640}}
    found = verdict(given, numbers, sizes=sizes)
    assert found["verdict"] == HOLDS
    assert "bits 160 and 640" in found["readings"][0]["notes"][0]
    apart = verdict(given, numbers, sizes={"b": {"parameters": 1400}})
    assert apart["verdict"] == OPEN
    assert "a and b with equal parameters (they have tokens 16 and 16" in apart["sentence"]
    bits = claim("matched", pairs=[["a", "b"]], lower=["gFID"], equal_in=["bits"])
    assert verdict(bits, numbers, sizes=sizes)["verdict"] == OPEN
    assert verdict(bits, numbers)["verdict"] == HOLDS


# -- doubts ----------------------------------------------------------------------------------------


def test_the_network_of_the_loss_decides_nothing():
    numbers = pair((-2.0, -2.2, -1.9))
    found = verdict(LOWERS, numbers, networks=("n",), losses={"b": ["n"]})
    assert found["verdict"] == OPEN and "No network decides" in found["sentence"]
    assert "The training of b looked through n" in found["doubts"][0]
    assert found["readings"][0]["answer"] == "yes"  # shown all the same
    two = verdict(LOWERS, numbers, networks=("n", "m"), losses={"b": ["n"]})
    assert two["verdict"] == HOLDS and [r["decides"] for r in two["readings"]] == [False, True]
    chosen = claim("paired", pairs=[["a", "b"]], lower=["gFID"], networks=["m"])
    assert verdict(chosen, numbers, networks=("n", "m"))["verdict"] == HOLDS
    absent = verdict(chosen, numbers, networks=("n",))
    assert absent["verdict"] == OPEN and "Not measured through m" in absent["doubts"][0]


def test_a_loss_with_other_weights_looks_through_another_network(tmp_path):
    """As the studies of the claims do: the same architecture, trained anew."""
    from vistok.storage.weights import sha256

    file = tmp_path / "own.safetensors"
    file.write_bytes(b"own weights")
    found, made = results(pair((-2.0, -2.2, -1.9)), losses={"a": ["n"], "b": ["n"]})

    def judged(path, digest="0"):
        runs = json.loads(json.dumps(found.runs))
        for run in runs:
            run["config"]["task"]["losses"][0]["weights_path"] = str(path)
        rows = [r.model_copy(update={"features": r.features.model_copy(update={"sha256": digest})})
                for r in found.rows]  # fmt: skip
        return judge(LOWERS, found.model_copy(update={"runs": runs, "rows": tuple(rows)}), made)

    assert judged(file)["verdict"] == HOLDS
    assert judged(file, sha256(file))["verdict"] == OPEN  # the very file that measures
    assert judged(tmp_path / "gone")["verdict"] == OPEN  # cannot be told apart


def test_numbers_below_their_floor_are_a_doubt():
    found, made = results(pair((-2.0, -2.2, -1.9)))
    floor = {"value": 19.5, "count": 600, "reference": found.rows[0].reference}
    rows = [Row.model_validate({**r.model_dump(exclude={"display"}), "floor": floor})
            if r.metric == "gFID" else r for r in found.rows]  # fmt: skip
    said = judge(LOWERS, found.model_copy(update={"rows": tuple(rows)}), made)
    (doubt,) = said["doubts"]
    assert "gFID of seed0/b/probe, seed1/b/probe is below" in doubt and said["verdict"] == HOLDS


def test_networks_that_disagree_decide_nothing():
    found, made = results(pair((-2.0, -2.2, -1.9)), networks=("n", "m"))
    other = {row.run: row for row in found.find("gFID") if "/b/" in row.run}
    rows = [
        r.model_copy(update={"value": r.value + 9})
        if r.run in other and r.metric == "gFID" and r.features.name == "m"
        else r
        for r in found.rows
    ]
    said = judge(LOWERS, found.model_copy(update={"rows": tuple(rows)}), made)
    assert said["verdict"] == OPEN and "The networks do not agree" in said["sentence"]


def test_a_generator_that_learned_nothing_is_left_out_on_trial():
    numbers = tokenizers([(r, p, p) for p, r in enumerate(SCATTERED, 1)])
    for own in numbers.values():
        own["gFID-untrained"] = 40.0
    numbers["t0", 0]["gFID-untrained"] = 0.5
    found = verdict(PREDICTS, numbers)
    assert found["verdict"] == HOLDS and "of t0 (seed 0) is not better than" in found["doubts"][0]
    assert "Without them the answer is the same." in found["doubts"][0]
    numbers["t0", 0]["gFID"] = 100.0  # what it spoils stays open, and is told
    spoiled = verdict(PREDICTS, numbers)
    assert spoiled["verdict"] == OPEN
    assert "Without them the answer would be yes." in spoiled["doubts"][0]
    behind = pair((-2.0, -2.2, -1.9))
    for own in behind.values():
        own["gFID-untrained"] = own["gFID"] - 1
    lost = verdict(LOWERS, behind)
    assert lost["verdict"] == OPEN and "Without them the answer changes" in lost["doubts"][0]
    assert "learn more than their baselines" in lost["needed"]


def test_a_network_that_saw_only_some_metrics_is_not_asked():
    """Such as that of a measure of its own, which is told beside."""
    numbers = tokenizers([(r, p, p) for p, r in enumerate(SCATTERED, 1)])
    found, made = results(numbers, networks=("n", "m"))
    third = found.rows[0].features.model_copy(update={"name": "third"})
    more = [r.model_copy(update={"features": third, "metric": "pFID-v1"})
            for r in found.find("pFID-v1-quick") if r.features.name == "n"]  # fmt: skip
    given = claim("correlation", better="pFID-v1-quick", than=["rFID"], also=["pFID-v1"])
    said = judge(given, found.model_copy(update={"rows": (*found.rows, *more)}), made)
    assert [one["network"] for one in said["readings"]] == ["n", "m"]
    assert said["verdict"] == HOLDS
    beside = [test for test in said["readings"][0]["tests"] if not test["asked"]]
    assert len(beside) == 1 and "do not tell which" in beside[0]["text"]


def test_rows_of_another_protocol_are_left_out():
    found, made = results(tokenizers([(r, p, p) for p, r in enumerate(SCATTERED, 1)]))
    rows = [r.model_copy(update={"count": 7}) if r.metric == "rFID" and r.run == "seed0/t3" else r
            for r in found.rows]  # fmt: skip
    said = judge(PREDICTS, found.model_copy(update={"rows": tuple(rows)}), made)
    assert "rFID of seed0/t3 has another protocol" in " ".join(said["readings"][0]["notes"])
    assert said["readings"][0]["tests"][0]["n"] == 11


def test_several_generators_of_a_tokenizer_need_a_name():
    found, made = results(pair((-2.0, -2.2, -1.9)))
    pairs = {name: [*own, f"{name}/other"] for name, own in found.facts["pairs"].items()}
    more = [r.model_copy(update={"run": r.run.replace("probe", "other"), "value": 9.0})
            for r in found.rows if r.metric == "gFID"]  # fmt: skip
    found = found.model_copy(update={"rows": (*found.rows, *more), "facts": {"pairs": pairs}})
    said = judge(LOWERS, found, made)
    assert said["verdict"] == OPEN
    assert any("several generators" in note for note in said["readings"][0]["notes"])
    named = claim("paired", pairs=[["a", "b"]], lower=["gFID"], generator="probe")
    assert judge(named, found, made)["verdict"] == HOLDS


# -- mistakes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "keys", "words"),
    [
        ("paird", {}, ("paird", "paired")),
        ("paired", {"pairs": [["a"]], "lower": ["gFID"]}, ("pairs",)),
        ("paired", {"pairs": [["a", "b"]]}, ("nothing is claimed",)),
        ("paired", {"pairs": [["a", "a"]], "lower": ["gFID"]}, ("one run twice",)),
        ("paired", {"pairs": [["a", "b"]], "lower": ["gFDI"]}, ("gFDI", "gFID")),
        ("paired", {"pairs": [["a", "b"]], "lower": ["gFID"], "equal": {"gFID": 0.1}}, ("twice",)),
        ("correlation", {"better": "rFID", "than": ["rFID"]}, ("twice",)),
        ("curve", {"metric": "rFID", "better": ["a"], "than": ["a"]}, ("better and in than",)),
        ("matched", {"pairs": [["a", "b"]], "lower": ["gFID"], "equal_in": ["size"]}, ("size",)),
        ("paired", {"id": "a/b", "pairs": [["a", "b"]], "lower": ["gFID"]}, ("a/b", "file name")),
    ],
)
def test_mistakes_are_one_line(kind, keys, words, fails):
    with fails(ConfigError, *words):
        claim(kind, **keys)
