"""Decoders and generators that sample: one key for their settings, noise keyed by sample, rows that
say so."""

import pytest
import torch

from tests.support.fake_parts import FakeFlow
from vistok.config import ConfigError, validate
from vistok.eval.config import EvalConfig
from vistok.eval.measure import evaluate
from vistok.eval.results.compare import differences
from vistok.eval.speed.config import SpeedConfig
from vistok.eval.speed.measure import measure_speed
from vistok.eval.speed.parts import parts
from vistok.eval.systems.runs import RunError
from vistok.tokenizer import Tokenizer, TokenizerConfig

pytestmark = pytest.mark.filterwarnings("ignore:Fréchet")


@pytest.fixture
def flow(tree):
    """A tokenizer whose decoder samples, in 4 steps of its own."""
    torch.manual_seed(0)
    config = {**tree("fsq"), "decoder": {"kind": "fake_flow"}, "regularizers": []}
    return Tokenizer(validate(TokenizerConfig, config)).eval()


def values(rows):
    return {(row.metric, row.length, str(row.point)): row.value for row in rows}


def test_noise_is_keyed_by_the_image_and_rows_say_how_it_was_sampled(context, measure, flow):
    for name in ("rfid", "robust", "order", "pfid"):
        config = {"mode": "quick"} if name == "pfid" else {}
        one, two = (measure(context(flow, batch=size), name, **config) for size in (24, 7))
        for key, value in values(one).items():
            assert values(two)[key] == pytest.approx(value, rel=1e-5), (name, key)
        assert {row.sampling["decoder"]["steps"] for row in one} == {4}
        assert {row.seed for row in one} == {0}


def test_a_decoder_of_one_step_is_another_number(context, measure, flow):
    found = context(flow)
    four = measure(found, "rfid")[0]
    found.sampling = {"decoder": {"steps": 1}}
    one = measure(found, "rfid")[0]
    assert one.metric == four.metric == "rFID" and one.value != four.value
    assert differences(one, four) == ("sampling.decoder.steps",)
    found.seed = 1
    assert measure(found, "rfid")[0].value != one.value
    found.sampling = {"decoder": {"stpes": 1}}
    with pytest.raises(ConfigError, match=r"decoder_sampling: stpes.*steps"):
        measure(found, "rfid")


def test_one_step_of_such_a_decoder_is_timed(flow):
    with torch.no_grad():
        found = parts(flow, torch.rand(2, 3, 8, 8))
        assert found["decoder"]().shape == (2, 3, 8, 8)


def test_settings_of_a_generator_have_one_key(runs, fails):
    common = {"protocols": ("gfid",), "limit": 14, "gfid": {"guidance": (1.0, 2.0), "seeds": 1}}
    plain = evaluate(runs, EvalConfig(**common))
    cold = evaluate(runs, EvalConfig(**common, sampling={"top_k": 1}))
    for a, b in zip(plain.rows, cold.rows, strict=True):
        assert differences(a, b) == ("sampling.generator.top_k",)
        assert b.sampling["generator"]["top_k"] == 1 and a.guidance == b.guidance
    assert plain.find("gFID")[0].value != cold.find("gFID")[0].value
    with fails(ValueError, "temprature", "temperature"):
        evaluate(runs, EvalConfig(**common, sampling={"temprature": 1.0}))
    with fails(RunError, "decoder_sampling", "does not sample"):
        evaluate(runs, EvalConfig(**common, decoder_sampling={"steps": 1}))


def test_generator_settings_without_a_generator_are_refused(runs, flow, tmp_path, fails):
    common = {"protocols": ("rfid",), "limit": 4}
    with fails(ConfigError, "sampling={'stepz': 1}", "no generator is evaluated", "leave it out"):
        evaluate(runs[:1], EvalConfig(**common, sampling={"stepz": 1}))
    flow.save_pretrained(tmp_path / "flow")
    data = {"kind": "photos", "size": 8, "val_count": 4}
    with fails(ConfigError, "use decoder_sampling.steps=1"):
        evaluate([tmp_path / "flow"], EvalConfig(**common, data=data, sampling={"steps": 1}))


def test_speed_is_measured_with_the_settings_that_are_asked_for(flow, tmp_path, monkeypatch, fails):
    monkeypatch.setattr("vistok.eval.speed.clock._SIDE", 64)
    flow.save_pretrained(tmp_path / "flow")
    steps, velocity = [], FakeFlow.velocity
    seen = lambda self, noisy, *rest: (steps.append(1), velocity(self, noisy, *rest))[1]
    monkeypatch.setattr(FakeFlow, "velocity", seen)
    common = {"data": {"kind": "photos", "size": 8, "val_count": 4}, "batch": 2, "repeats": 1}
    calls = {}
    for count in (1, 5):
        steps.clear()
        asked = SpeedConfig(**common, decoder_sampling={"steps": count})
        rows = measure_speed([tmp_path / "flow"], asked).rows
        calls[count] = len(steps)
        told = {r.metric: r.sampling["decoder"]["steps"] for r in rows if r.sampling}
        assert told["decode-images/s"] == told["decoder-images/s"] == count
        assert not any(name.startswith("encode") for name in told)
    assert calls[5] > calls[1]
    with fails(ConfigError, "decoder_sampling: stepz", "steps"):
        measure_speed([tmp_path / "flow"], SpeedConfig(**common, decoder_sampling={"stepz": 1}))
    with fails(ConfigError, "no generator is measured", "decoder_sampling"):
        measure_speed([tmp_path / "flow"], SpeedConfig(**common, sampling={"steps": 1}))
