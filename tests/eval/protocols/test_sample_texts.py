"""gFID of generators that read text: the texts of the data, and what is missing without them."""

from types import SimpleNamespace

import pytest
import torch

from tests.support import tiny_text
from vistok.config import validate
from vistok.data import Photos, PhotosConfig
from vistok.eval.context import Context
from vistok.eval.images import Views, exact
from vistok.eval.protocols import generated, gfid, sample_texts
from vistok.eval.protocols.base import Job
from vistok.frozen.text import TextEncoder, TextEncoderConfig
from vistok.generators.masked import Masked, MaskedConfig


@pytest.fixture
def generator(make_tokenizer, tmp_path):
    """A generator of a tokenizer's tokens that reads text, and that tokenizer."""
    tokenizer = make_tokenizer("fsq")
    condition = {"classes": 0, "text": {"dim": tiny_text.WIDTH, "length": 6}, "pooled": 8}
    trunk = {"kind": "mmdit", "width": 16, "depth": 1, "heads": 2}
    tree = {"kind": "masked", "trunk": trunk, "condition": condition}
    tree["sampling"] = {"steps": 2, "guidance": 3.0}
    model = Masked(validate(MaskedConfig, tree), tokenizer.spec()).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    path = tiny_text.clip(tmp_path / "clip")
    encoder = {"path": path, "length": 6, "layer": "penultimate", "pooled": "end"}
    model.use_text_encoder(TextEncoder(validate(TextEncoderConfig, encoder)))
    return tokenizer, model


@pytest.fixture
def make(generator, features):
    tokenizer, _ = generator

    def context(**data):
        images = Photos(PhotosConfig(size=tokenizer.config.image_size[0], val_count=24, **data))
        run = SimpleNamespace(name="tok", sha256="0" * 64, tokenizer=tokenizer)
        return Context(run, Views(images.open("val"), 8), features)

    return context


def rows(context, model, **one):
    job = SimpleNamespace(name="gen", generator=model, sha256="1" * 64, fit="")
    context.job = Job(gfid.GFID(), generated.Pass(length=4, samples=9, **one), job, "none")
    with exact():
        return gfid.GFID().run(context, context.job.config)


def test_samples_have_the_texts_of_the_data(make, generator):
    _, model = generator
    context = make(caption="a {class}.")
    names = context.views.dataset.classes
    found = sample_texts.texts_of(context, torch.tensor([0, len(names) + 1]), None)
    assert found == (f"a {names[0]}.", f"a {names[1]}.")
    assert sample_texts.texts_of(context, torch.tensor([5]), torch.tensor([2])) == (
        f"a {names[2]}.",
    )
    assert generated.scales_of(model, None) == (1.0, 3.0)
    (row,) = rows(context, model, guidance=3.0)
    assert row.metric == "gFID-val" and row.condition == "text: caption a {class}."
    index = torch.arange(3)
    given = generated.sample(context, model, index, generated.Pass(length=4, guidance=3.0))
    texts = sample_texts.texts_of(context, index, None)
    expected = model.sample(model.text_condition(texts), index=index, seed=context.seed)
    assert torch.equal(given.indices, expected.indices)


def test_what_is_missing_is_said(make, generator):
    _, model = generator
    context = make()
    assert sample_texts.texts_of(context, torch.arange(2), None) is None
    assert rows(context, model) == []
    assert any(sample_texts.NO_TEXTS in one["reason"] for one in context.skipped)
    model._text_encoder, model.text_record = (), {}
    assert "does not say which text encoder" in sample_texts.texts_missing(
        make(caption="a {class}."), model
    )
