"""Several feature networks in one pass: each gives the numbers that it gives alone."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import adaptive_avg_pool2d

from tests.support.eval_tokenizers import PatchTokenizer
from tests.support.processes import run
from vistok.eval import measure
from vistok.eval.config import EvalConfig
from vistok.eval.images import Views, exact
from vistok.eval.jobs import do
from vistok.eval.measure import _weights, evaluate
from vistok.eval.protocols.base import PROTOCOLS, Job
from vistok.eval.protocols.rfid import RFIDConfig
from vistok.eval.results.rows import Results
from vistok.eval.systems.runs import open_data, resolve
from vistok.frozen import FeatureNetwork, Features, feature_network

EVERY = ("fid", "sfid", "kid", "is", "precision", "recall", "density", "coverage")


class Colors(FeatureNetwork):
    """Mean colors of side x side parts: a network that is quickly made."""

    def __init__(self, side: int = 2, name: str = "colors") -> None:
        super().__init__(name, str(side) * 64)
        self.side, self.dim, self.spatial_dim, self.classes = side, 3 * side * side, 48, 3

    def look(self, pixels):
        x = pixels.float() / 255
        pool = adaptive_avg_pool2d(x, self.side).flatten(1)
        return Features(pool, adaptive_avg_pool2d(x, 4).flatten(1), 9 * x.mean((2, 3)))


def rows_of(made, protocol: str, **config) -> list:
    named = PROTOCOLS[protocol]
    own = do(Job(named, named.Config(**config)), made).rows
    return [row.model_copy(update={"date": ""}) for row in own]


def seen_through(network, rows) -> list:
    seen = [row for row in rows if row.features and row.features.name == network.name]
    return [row for row in seen if row.metric != "perceptual"]


@pytest.mark.parametrize(
    ("protocol", "config"),
    [("rfid", {"metrics": EVERY, "stored": 20}), ("rfid", {}), ("pfid", {"mode": "quick"})],
)
@pytest.mark.filterwarnings("ignore:Fréchet")
def test_each_has_the_numbers_that_it_has_alone(context, features, protocol, config):
    networks = (Colors(), features, Colors(3, "more-colors"))
    made = context(PatchTokenizer(8)).seen_by(*networks)
    together = rows_of(made, protocol, **config)
    shared = [row for row in together if row.features is None]
    for network in networks:
        alone = rows_of(context(PatchTokenizer(8)).seen_by(network), protocol, **config)
        same = seen_through(network, together)
        assert same and same == seen_through(network, alone)
        assert shared == [row for row in alone if row.features is None]
    columns = {row.display for row in together if row.metric in ("rFID", "pFID-v1-quick")}
    assert len(columns) == 3  # no two networks in one column


def test_images_are_read_once_for_all(context, features, monkeypatch):
    networks = (features, Colors(), Colors(3, "more-colors"))
    made = context(PatchTokenizer(8)).seen_by(*networks)
    made.views.networks = networks
    passes = []
    plain = Views.batches
    count = lambda self, title, *rest: passes.append(title) or plain(self, title, *rest)
    monkeypatch.setattr(Views, "batches", count)
    rows_of(made, "rfid")
    assert passes == ["tiny: reconstruct", "real features"]
    rows_of(made, "rfid", metrics=EVERY)
    assert passes == 2 * ["tiny: reconstruct", "real features"]  # vectors were not kept before
    other = context(PatchTokenizer(8)).seen_by(*networks)
    other.views.networks = networks
    rows_of(other, "rfid", metrics=EVERY)
    assert passes == 3 * ["tiny: reconstruct", "real features"]


def test_a_measure_that_a_network_does_not_define_has_no_row(context, features):
    kernel = Colors()
    kernel.measures = frozenset({"kid"})
    made = context(PatchTokenizer(8)).seen_by(features, kernel)
    rows = rows_of(made, "rfid", metrics=("fid", "kid"))
    found = {(row.metric, row.features.name) for row in rows if row.metric in ("rFID", "KID")}
    assert found == {("rFID", "vistok-cnn"), ("KID", "vistok-cnn"), ("KID", "colors")}
    (network,) = {row.features.name for row in rows_of(made, "pfid", mode="quick")}
    assert network == "vistok-cnn"


def test_each_says_what_it_does_not_measure(context, features):
    """The outcome of each is found alone later, with what it has skipped."""
    made = context(PatchTokenizer(8), count=5).seen_by(features, Colors())
    outcome = do(Job(PROTOCOLS["rfid"], RFIDConfig(metrics=("precision",))), made)
    said = [one["network"] for one in outcome.skipped if one["protocol"].startswith("precision")]
    assert said == ["vistok-cnn", "colors"]


def test_nothing_is_decoded_for_networks_without_frechet_distance(context, monkeypatch):
    kernel = Colors()
    kernel.measures = frozenset({"kid"})
    made = context(PatchTokenizer(8)).seen_by(kernel)
    monkeypatch.setattr("vistok.eval.protocols.pfid.reconstruct", None)
    assert rows_of(made, "pfid") == []


@pytest.fixture
def two(monkeypatch):
    """`inception` stands for a network that needs no weights; the protocols and networks of the
    jobs that were really done."""
    done = []
    given = lambda name, weights=None: (
        Colors(name=name) if name == "inception" else feature_network(name, weights)
    )
    monkeypatch.setattr("vistok.eval.measure.feature_network", given)

    def note(job, context, *rest):
        done.append((job.protocol.name, [network.name for network in context.networks]))
        return do(job, context, *rest)

    monkeypatch.setattr("vistok.eval.result_cache.do", note)
    return done


def test_one_network_more_is_measured_alone(two, runs, tmp_path):
    """The other one has the name of the perceptual network, whose rows are not its own."""
    first, other = "inception", "vistok-cnn"
    common = {"protocols": ("rfid", "gfid", "linear_probe"), "limit": 12, "gfid": {"seeds": 1}}
    common |= {"linear_probe": {"train_images": 50}}
    go = lambda where, *networks: evaluate(
        runs, EvalConfig(features=networks, cache=str(tmp_path / where), **common)
    )
    fresh = go("a", first, other)
    assert ("rfid", [first, other]) in two and two.count(("linear_probe", [first])) == 1
    two.clear()
    go("b", first)
    assert {tuple(names) for _, names in two} == {(first,)}
    two.clear()
    added = go("b", first, other)
    assert {tuple(names) for _, names in two} == {(other,)}
    assert {protocol for protocol, _ in two} == {"rfid", "gfid"}  # that look through all of them
    strip = lambda r: [row.model_copy(update={"date": "", "versions": {}}) for row in r.rows]
    assert strip(added) == strip(fresh)
    assert added.facts["skipped"] == fresh.facts["skipped"]
    two.clear()
    alone = go("a", other)  # of what was measured together, one is found
    assert {protocol for protocol, _ in two} == {"linear_probe"}
    names = {row.features.name for row in alone.rows if row.metric in ("rFID", "gFID")}
    assert names == {other}
    assert len(alone.find("PSNR")) == len(fresh.find("PSNR")) > 0


def test_weights_and_references_name_their_network(fails, runs):
    assert EvalConfig(features="dinov2").features == ("dinov2",)
    assert EvalConfig(features=("clip", "clip")).features == ("clip",)
    assert _weights(EvalConfig(features="clip", weights="f")) == {"clip": "f"}
    both = ("clip", "inception")
    assert _weights(EvalConfig(features=both, weights={"clip": "f"})) == {"clip": "f"}
    with fails(ValueError, "weights=f: one file for clip, inception; .* weights.clip=f"):
        _weights(EvalConfig(features=both, weights="f"))
    with fails(ValueError, "weights.incepton: no such network here; .*inception"):
        _weights(EvalConfig(features=both, weights={"incepton": "f"}))
    with pytest.raises(ValueError, match="expected one network or more"):
        EvalConfig(features=())


def test_a_reference_for_each_network(two, runs, tmp_path, fails):
    files = {}
    for name in ("vistok-cnn", "inception"):
        files[name] = str(tmp_path / f"{name}.safetensors")
        real_stats(runs, name).save(files[name])
    options = {"features": tuple(files), "limit": 12, "protocols": ("rfid",)}
    options |= {"reference_rfid": True}
    found = evaluate(runs[:1], EvalConfig(reference=files, **options))
    values = {row.features.name: row.value for row in found.find("rFID") if row.length == 4}
    plain = evaluate(runs[:1], EvalConfig(**options | {"reference_rfid": False}))
    own = {row.features.name: row.value for row in plain.find("rFID") if row.length == 4}
    assert values == pytest.approx(own, abs=1e-9)
    with fails(ValueError, "no file for inception; expected one for each of features"):
        only = {"vistok-cnn": files["vistok-cnn"]}
        evaluate(runs[:1], EvalConfig(reference=only, **options))
    with fails(ValueError, "one file for vistok-cnn, inception; name the network"):
        evaluate(runs[:1], EvalConfig(reference="f", **options))


def real_stats(runs, name):
    """Statistics of the images that an evaluation of the first run looks at."""
    data = open_data(resolve(runs[:1])[0].tokenizer, {})
    with exact():
        return Views(data, 32, 12).real(measure.feature_network(name))


@pytest.mark.slow
def test_two_processes_give_the_same_numbers(runs, tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.Dinov2Config(**sizes, image_size=28, patch_size=14)
    transformers.Dinov2Model(config).save_pretrained(tmp_path / "dinov2")
    found = []
    for count in (1, 2):
        target = tmp_path / str(count) / "report.html"
        chosen = ["features=[vistok-cnn,dinov2]", f"weights.dinov2={tmp_path / 'dinov2'}"]
        chosen += ["protocols=[rfid,pfid,gfid]", "rfid.metrics=[fid,kid]", "pfid.mode=quick"]
        settings = ["limit=21", "batch=4", f"report={target}", *chosen]
        done = run("eval", *runs, *settings, processes=count)
        assert done.returncode == 0, done.stderr
        found.append(Results.load(target.with_name("results.json")))
    one, two = found
    assert two.facts["world_size"] == 2 and len(one.rows) == len(two.rows)
    assert {r.features.name for r in one.find("rFID")} == {"vistok-cnn", "dinov2"}
    for a, b in zip(one.rows, two.rows, strict=True):
        for name in ("metric", "run", "length", "point", "count", "features", "display"):
            assert getattr(a, name) == getattr(b, name), (a.metric, name)
        assert a.value == pytest.approx(b.value, rel=1e-6, abs=1e-9), a.metric
