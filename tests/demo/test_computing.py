"""Computations of the playground, without gradio: lengths, numbers, edits, models, errors."""

from __future__ import annotations

import math
import re

import pytest
import torch
from PIL import Image

from vistok.config import validate_part
from vistok.config.errors import InputError, UserError
from vistok.config.registry import build
from vistok.demo import cards, edits, images, lengths, measure, views
from vistok.demo.encoded import encode
from vistok.demo.models import Models
from vistok.demo.samples import class_names, sample
from vistok.demo.token_map import token_map
from vistok.demo.visit import FIRST, SECOND, Dial, Visit
from vistok.storage.weights import sha256
from vistok.tokens import TokenSpec
from vistok.tokens.codec import Codec


@pytest.fixture
def models(make_tokenizer, tmp_path, monkeypatch):
    """Tokenizers `line` (prefixes by token), `scales` (by block) and `kl` (continuous)."""
    monkeypatch.chdir(tmp_path)
    make_tokenizer("fsq").save_pretrained("line")
    make_tokenizer("scales").save_pretrained("scales")
    return Models(["line", "scales"])


@pytest.fixture
def photo():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (12, 10, 3), dtype=torch.uint8, generator=generator)
    return Image.fromarray(noise.numpy())


@pytest.fixture
def visit(photo, tmp_path):
    photo.save(tmp_path / "one.png")
    photo.rotate(90, expand=True).save(tmp_path / "two.png")
    visit = Visit()
    visit.take(FIRST, tmp_path / "one.png")
    visit.take(SECOND, tmp_path / "two.png")
    return visit


def test_one_slider_for_models_of_other_lengths():
    tokens = TokenSpec(blocks=((4,),), vocab=(16,), prefix="token")
    scales = TokenSpec(blocks=((1, 1), (2, 2)), vocab=(256,), prefix="block")
    whole = TokenSpec(blocks=((2, 2),), vocab=(8,))
    some = TokenSpec(blocks=((4,),), vocab=(16,), prefix="token", lengths=(1, 4))
    assert lengths.lengths_of(tokens) == (1, 2, 3, 4)
    assert lengths.lengths_of(scales) == (1, 2)
    assert lengths.lengths_of(whole) == (4,)
    assert lengths.lengths_of(some) == (1, 4)
    assert lengths.steps_of([tokens, scales, whole]) == (4, 8, 12, 16, 40)
    assert [lengths.length_at(tokens, bits) for bits in (1, 4, 11, 40)] == [1, 1, 2, 4]
    assert lengths.length_at(scales, 39) == 1
    assert lengths.nearest_step((4, 8, 12), 9) == 1
    assert lengths.nearest_step((4, 8, 12), None) == 2


def test_numbers_of_an_image():
    original = torch.rand(3, 16, 16)
    assert math.isinf(measure.quality(original, original).psnr)
    other = (original - 0.1).clamp(0, 1)
    found = measure.quality(other, original)
    assert 19 < found.psnr < 23
    assert 0 < found.ssim < 1
    assert measure.quality(original[:, :4], original[:, :4]).ssim is None
    assert torch.equal(measure.difference(original, original), torch.full((3, 16, 16), 0.5))
    assert measure.difference(other, original).max() <= 0.5


@pytest.mark.parametrize("format", ["JPEG", "WebP"])
def test_files_of_at_most_so_many_bytes(format):
    original = torch.rand(3, 32, 32)
    sizes = [measure.squeezed(original, most, format) for most in (600, 1200)]
    assert [one.bytes <= most for one, most in zip(sizes, (600, 1200), strict=True)] == [True, True]
    assert all(one.fits and one.pixels.shape == original.shape for one in sizes)
    psnr = [measure.quality(one.pixels, original).psnr for one in sizes]
    assert psnr[0] < psnr[1]
    assert not measure.squeezed(original, 10, format).fits


def test_an_image_is_encoded_once_and_decoded_once_for_each_length(models, photo, monkeypatch):
    model = models["line"]
    encoded = encode(model, photo)
    assert torch.equal(
        encoded.tokens.indices, model.tokenizer.encode(encoded.original[None]).indices
    )
    calls, decode = [], model.tokenizer.decode
    monkeypatch.setattr(model.tokenizer, "decode", lambda *a: calls.append(1) or decode(*a))
    for length in (4, 2, 4, 2):
        shown = encoded.at(length)
        assert shown.positions == length
    assert len(calls) == 2
    assert shown.bits == 2 * 4  # levels of 4 and 3
    read = Codec(model.spec, model.tokenizer.codes_sha256()).read(shown.file)
    assert torch.equal(read.indices, shown.tokens.indices)
    assert torch.equal(decode(read)[0], shown.pixels)


@pytest.mark.parametrize("name", ["line", "scales"])
@pytest.mark.parametrize("by", ["neighbours", "random"])
def test_replaced_tokens(models, photo, name, by):
    encoded = encode(models[name], photo)
    spec = models[name].spec
    longest = spec.max_prefix
    same, changed = edits.perturb(encoded, longest, 0.0, by)
    assert torch.equal(same.indices, encoded.tokens.indices)
    assert not changed.any()
    other, changed = edits.perturb(encoded, longest, 1.0, by, reach=12, seed=1)
    different = (other.indices != encoded.tokens.indices).any(-1)[0]
    assert torch.equal(changed, different)
    assert changed.any()
    again, _ = edits.perturb(encoded, longest, 1.0, by, reach=12, seed=1)
    assert torch.equal(again.indices, other.indices)
    short, changed = edits.perturb(encoded, 1, 1.0, by, reach=12, seed=1)
    assert not changed[spec.positions_in(1) :].any()
    assert int(short.kept().sum()) == spec.positions_in(1)


def test_mixed_tokens(models, photo):
    one, other = encode(models["scales"], photo), encode(models["scales"], photo.rotate(180))
    spec = models["scales"].spec
    assert edits.places(spec, None, [1]) == [1, 2, 3, 4]
    assert edits.places(spec, 2, []) == [0, 1]
    whole = [encoded.at(spec.max_prefix).pixels for encoded in (one, other)]
    for taken, expected in (([], whole), (list(range(5)), whole[::-1])):
        for made, image in zip(edits.mix(one, other, taken), expected, strict=True):
            assert torch.allclose(made, image, atol=1e-5)
    first, _ = edits.mix(one, other, [0])
    codes = one.tokens.indices.clone()
    codes[:, 0] = other.tokens.indices[:, 0]
    tokens = type(one.tokens).of(spec, codes)
    assert torch.allclose(first, models["scales"].tokenizer.decode(tokens)[0], atol=1e-5)


def test_the_map_has_a_cell_for_every_token(models, photo):
    encoded = encode(models["scales"], photo)
    changed = torch.zeros(5, dtype=torch.bool)
    changed[0] = True
    drawn = token_map(encoded.at(1).tokens, changed)
    assert drawn.count("<rect") == 5
    assert drawn.count('class="off"') == 4
    assert drawn.count('class="moved"') == 1
    assert drawn.count("<svg") == 2


def test_panels(models, visit):
    names = models.names
    dial = Dial(models, names)
    last = len(dial.steps) - 1
    shown = views.reconstructions(models, visit, names, last)
    assert shown.count("<section") == 2
    assert shown.count("data:image/png") == 2 * 4  # three images and a download
    assert shown.count('download="line-4.vtk"') == 1
    assert views.comparison(models, visit, ["line"], last).count("<img") == 3
    assert views.tokens(models, visit, names, last, 50, "random", 2, 0).count("<img") == 6
    assert views.mixed(models, visit, names, 50, [0]).count("<img") == 8
    assert "Choose a model" in views.reconstructions(models, visit, [], 0)


def test_mistakes_are_one_line_in_the_page(models, visit, tmp_path, fails):
    assert 'role="alert"' in views.reconstructions(models, Visit(), ["line"], 0)
    found = views.reconstructions(models, visit, ["<b>/etc/passwd"], 0)
    assert "not one of the models of this page" in found
    assert "<b>" not in found
    (tmp_path / "not.png").write_text("no image", encoding="utf-8")
    with fails(UserError, "^not.png: not an image"):
        Visit().take(FIRST, tmp_path / "not.png")
    assert str(tmp_path) not in cards.message("x")
    with fails(InputError, "encode both images with one"):
        edits.mix(visit.encoded(FIRST, models["line"]), visit.encoded(SECOND, models["scales"]), [])


def test_what_is_no_mistake_of_the_visitor_is_logged(models, visit, monkeypatch, caplog):
    monkeypatch.setattr(Visit, "encoded", lambda *_: 1 / 0)
    found = views.reconstructions(models, visit, ["line"], 0)
    assert "ZeroDivisionError" in found
    assert "Traceback" not in found
    assert "ZeroDivisionError" in caplog.text


def test_visitors_add_models_only_where_they_may(models, make_tokenizer, fails):
    make_tokenizer("vq").save_pretrained("more")
    assert models.add(" more ") == "more"
    assert models.names == ["line", "scales", "more"]
    with fails(UserError, "nowhere"):
        models.add("./nowhere")
    closed = Models(["line"], typed=False)
    with fails(InputError, "named at its start only"):
        closed.add("more")
    with fails(InputError, "not one of the models"):
        closed["more"]


def test_samples_of_a_generator(make_tokenizer, models, fails):
    config = {
        "kind": "autoregressive",
        "transformer": {"width": 16, "depth": 1, "heads": 2},
        "condition": {"classes": 2},
    }
    generator = build(validate_part("generator", config), models["line"].spec)
    generator.classes = ("cat", "dog")
    generator.tokenizer = {"name": "gone", "sha256": sha256("line/model.safetensors")}
    generator.save_pretrained("gen")
    sampler = Models(["scales", "line"], ["gen"]).sampler("gen")  # its record leads nowhere
    assert class_names(sampler) == ["cat", "dog"]
    told = []
    made = sample(sampler, 1, 5, 3, 2.0, 0.9, lambda done, total: told.append((done, total)))
    assert made.shape == (5, 3, 8, 8)
    assert told == [(4, 5), (5, 5)]
    assert torch.equal(made[:2], sample(sampler, 1, 2, 3, 2.0, 0.9))
    assert not torch.equal(made[:2], sample(sampler, 1, 2, 4, 2.0, 0.9))
    with fails(InputError, "class 2"):
        sample(sampler, 2, 1, 0)
    with fails(InputError, "17 images"):
        sample(sampler, 0, 17, 0)
    page = views.samples(Models(["line"], ["gen"]), "gen", "dog", 3, 0, 1.5, 1.0)
    assert re.search("3 samples of dog", page)


def test_a_grid_of_images():
    sheet = images.grid(torch.zeros(3, 3, 4, 4), columns=2)
    assert sheet.shape == (3, 10, 10)
    assert float(sheet[:, :4, :4].max()) == 0
    assert float(sheet[:, 6:, 6:].min()) == 1
