"""Evaluating tokenizers that read text: with the texts of the data, and rows that say so."""

import json

import pytest
import torch
import yaml

from tests.support import tiny_text
from vistok.config import ConfigError, validate
from vistok.config.registry import build
from vistok.data import PhotosConfig
from vistok.eval.context import Context
from vistok.eval.images import Views, exact
from vistok.eval.protocols import generated, gfid, image_grids
from vistok.eval.protocols import linear_probe as linear
from vistok.eval.protocols.base import Job
from vistok.eval.systems.runs import RunError, open_data, read_run
from vistok.tokenizer import Tokenizer, TokenizerConfig

READS = {"dim": tiny_text.WIDTH, "length": tiny_text.LENGTH}
NAME = "text: caption a {class}."


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return tiny_text.clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def reader(tree, clip):
    """reader(encoder's text, decoder's text) -> a tokenizer."""

    def make(encoder=None, decoder=None) -> Tokenizer:
        config = tree("fsq")
        config["text"] = {"path": clip, "length": tiny_text.LENGTH}
        for part, text in (("encoder", encoder), ("decoder", decoder)):
            if text is not None:
                config[part]["text"] = {**READS, **text}
        torch.manual_seed(1)
        return Tokenizer(validate(TokenizerConfig, config)).eval()

    return make


@pytest.fixture
def captioned(context):
    def make(tokenizer, caption="a {class}.", count=16) -> Context:
        found = context(tokenizer, count)
        config = validate(PhotosConfig, {"size": 8, "val_count": count, "caption": caption})
        found.views = Views(build(config).open("val"), 16)
        return found

    return make


def values(rows):
    return {(row.metric, row.length, json.dumps(row.point)): row.value for row in rows}


def test_numbers_are_taken_with_the_texts_of_the_data(reader, captioned, measure):
    tokenizer = reader({}, {"optional": False})
    texts = ("a {class}.", "zzzz")
    one, other = (measure(captioned(tokenizer, text), "rfid") for text in texts)
    assert {row.condition for row in one} == {NAME}
    assert {row.condition for row in other} == {"text: caption zzzz"}
    by, others = values(one), values(other)
    assert by["PSNR", 4, "{}"] != others["PSNR", 4, "{}"]
    assert by["PSNR-mean-color", None, "{}"] == others["PSNR-mean-color", None, "{}"]


def test_every_protocol_gives_the_decoder_its_text(reader, captioned, measure):
    context = captioned(reader({}, {"optional": False}), count=6)
    rows = measure(context, "pfid", mode="quick") + measure(context, "robust")
    rows += measure(context, "order") + measure(context, "rate_distortion")
    with exact():
        taps = linear.collect(context, context.views, "probe")[0]
    grids = [image_grids.reconstructions(context), image_grids.perturbed(context)]
    assert all(len(grid["rows"]) > 1 for grid in grids)
    assert {row.condition for row in rows if row.protocol != "codec"} >= {NAME}
    assert taps["latents/mean"].shape[0] == 6
    exact_rows = [r for r in rows if r.metric == "PSNR" and r.point.get("share") == 0]
    plain = values(measure(context, "rfid"))
    assert exact_rows[0].value == pytest.approx(plain["PSNR", 4, "{}"], rel=1e-6)


def test_text_that_may_be_missing_is_measured_without_where_there_is_none(
    reader, context, captioned, measure
):
    tokenizer = reader({}, {})
    plain = context(tokenizer, 16)
    rows, read = measure(plain, "rfid"), measure(captioned(tokenizer), "rfid")
    assert {row.condition for row in rows} == {"none"} and {r.condition for r in read} == {NAME}
    assert values(rows)["PSNR", 4, "{}"] != values(read)["PSNR", 4, "{}"]


def test_text_that_must_be_given_is_asked_for_before_anything_is_measured(
    reader, context, measure, tmp_path, fails
):
    tokenizer = reader(None, {"optional": False})
    tokenizer.save_pretrained(tmp_path / "run/model")
    config = {"name": "run", "data": {"kind": "photos", "size": 8, "val_count": 8}}
    (tmp_path / "run/config.yaml").write_text(yaml.safe_dump(config))
    run = read_run(tmp_path / "run", "run")
    with fails(RunError, "reads text, and the data give none: use 'data.caption="):
        open_data(run)
    data = open_data(run, {"caption": "A photo of a {class}."})
    assert data[0].text == f"A photo of a {data.classes[data[0].label]}."
    assert open_data(run, {"caption": ""})[0].text == ""
    with fails(ConfigError, "the data give none"):
        measure(context(tokenizer, 8), "rfid")


def test_samples_of_classes_are_decoded_under_their_captions(reader, context, captioned, runs):
    tokenizer = reader(None, {"optional": False})
    generator = read_run(runs[1], "gen")
    model, index = generator.generator, torch.arange(7)
    found = captioned(tokenizer)
    with exact():
        tokens = generated.sample(found, model, index, generated.Pass(length=4))
        made = generated.decoded(found, model, index, generated.Pass(length=4))
        texts = [f"a {name}." for name in found.views.dataset.classes]
        wanted = tokenizer.decode(tokens, tokenizer.condition(texts))
    assert torch.equal(made, (wanted * 255 + 0.5).clamp(0, 255).to(torch.uint8))
    one = generated.Pass(length=4, samples=8)
    job = Job(gfid.GFID(), one, generator, "no training images")
    found.job = job
    with exact():
        rows = job.protocol.run(found, one)
        assert {row.condition for row in rows} == {f"class, {NAME}"}
        told = context(reader(None, {"optional": False}), 8)
        told.views.dataset.texts = True  # texts of its own: none that fits a sample
        told.job = job
        assert job.protocol.run(told, one) == []
    assert "samples have none" in told.skipped[0]["reason"]
