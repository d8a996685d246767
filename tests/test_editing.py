"""Edits through tokens: copies, optimization, inpainting, and the command."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from vistok.cli import main
from vistok.config.errors import NonFiniteError
from vistok.editing import (
    EditConfig,
    copy_tokens,
    inpaint,
    match,
    noise_scale,
    optimize,
    weighted,
)


@pytest.fixture
def images():
    return torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(5))


def test_copied_tokens_and_nothing_else(make_tokenizer, images, fails):
    tokenizer = make_tokenizer("vq")
    tokens = tokenizer.encode(images)
    other = tokenizer.encode(1 - images)
    edited = copy_tokens(tokens, other, [0, -1])
    assert torch.equal(edited.indices[:, [0, 3]], other.indices[:, [0, 3]])
    assert torch.equal(edited.indices[:, [1, 2]], tokens.indices[:, [1, 2]])
    one = copy_tokens(tokens, tokenizer.encode(1 - images[:1]), [2])
    assert (one.indices[:, 2] == other.indices[0, 2]).all()
    with fails(ValueError, "position 4", "0..3"):
        copy_tokens(tokens, other, [4])
    with fails(ValueError, "encode both with one tokenizer"):
        copy_tokens(tokens, make_tokenizer("fsq").encode(images), [0])


def test_noise_falls_to_zero_at_two_thirds():
    scales = [noise_scale(i, 10) for i in range(10)]
    assert scales[0] == 1 and scales[6:] == pytest.approx([0] * 4, abs=1e-12)
    assert scales == sorted(scales, reverse=True)
    assert noise_scale(3, 10) == pytest.approx(0.5)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("quantizer", ["vq", "fsq"])
def test_the_loss_falls_and_the_model_is_left_alone(make_tokenizer, images, quantizer, after):
    tokenizer = make_tokenizer(quantizer).train()
    before = {k: v.clone() for k, v in tokenizer.state_dict().items()}
    config = EditConfig(steps=40, lr=0.05, after_quantizer=after)
    tokens = tokenizer.encode(images)
    goal = tokenizer.decode(replace(tokens, indices=(tokens.indices + 5) % 12))
    found = optimize(tokenizer, match(goal), images, config)
    assert (found.losses[-5:].mean(0) < found.losses[0]).all()
    assert 0 <= found.pixels.min() and found.pixels.max() <= 1
    assert tokenizer.training and all(p.requires_grad for p in tokenizer.parameters())
    assert all(p.grad is None for p in tokenizer.parameters())
    assert all(torch.equal(before[k], v) for k, v in tokenizer.state_dict().items())
    if after:
        assert found.tokens is None
    else:  # an image of real codes
        assert torch.allclose(tokenizer.decode(found.tokens), found.pixels, atol=1e-6)


def test_images_do_not_see_each_other(make_tokenizer, images):
    tokenizer, config = make_tokenizer("vq"), EditConfig(steps=4, noise=0.1, seed=3)
    both = optimize(tokenizer, match(images.flip(0)), images, config)
    one = optimize(tokenizer, match(images[1:]), images[:1], config)
    assert torch.allclose(both.values[:1], one.values, atol=1e-5)


def test_pull_ema_reset_and_stop(make_tokenizer, images, fails):
    tokenizer = make_tokenizer("vq")
    start = tokenizer.latents(images).values.detach()
    far = lambda **k: (
        optimize(tokenizer, match(1 - images), images, EditConfig(steps=15, **k)).values
    )
    assert (far(pull=100.0) - start).norm() < (far() - start).norm()
    assert far(pull=100.0, pull_to="zero").norm() < far().norm()
    seen = []
    optimize(
        tokenizer,
        weighted((2.0, match(images))),
        images,
        EditConfig(steps=9),
        reset=lambda step: start * 0 if step.number == 1 else None,
        callback=lambda step: seen.append(step.tokens.norm()) or step.number == 3,
    )
    assert len(seen) == 4 and seen[2] < seen[1]
    with fails(ValueError, "one loss for each of 2 images"):
        optimize(tokenizer, lambda pixels: pixels.mean(), images, EditConfig(steps=1))


def test_inpainting_keeps_what_is_known(make_tokenizer, images, fails):
    tokenizer, mask = make_tokenizer("vq"), torch.ones(1, 1, 8, 8)
    mask[..., 2:5, 3:6] = 0
    found = inpaint(tokenizer, images, mask, EditConfig(steps=6), every=2)
    assert torch.equal(found.pixels * mask, images * mask)
    with fails(ValueError, "mask has shape", "1 for known"):
        inpaint(tokenizer, images, torch.ones(1, 1, 4, 4))


def test_the_command(make_tokenizer, tmp_path, monkeypatch):
    make_tokenizer("vq").save_pretrained(tmp_path / "model")
    for name, color in (("a", (250, 10, 90)), ("b", (10, 200, 30)), ("mask", (0, 0, 0))):
        Image.new("RGB", (8, 8), color).save(tmp_path / f"{name}.png")
    a, b, mask = (str(tmp_path / f"{n}.png") for n in ("a", "b", "mask"))
    out, model = str(tmp_path / "out.png"), str(tmp_path / "model")
    for given in (
        ["copy", model, a, b, "--positions", "0,2-3"],
        ["inpaint", model, a, mask, "--steps", "2"],
        ["match", model, a, b, "--steps", "2", "--noise", "0.1"],
    ):
        result = CliRunner().invoke(main, ["edit", *given, "--out", out, "--overwrite"])
        assert result.exit_code == 0, result.output
        assert Image.open(out).size == (8, 8)
    copy, match = ["copy", model, a, b, "--positions"], ["match", model, a, b]
    for given, said in (
        ([*copy, "0"], "out.png: exists already; give --overwrite"),
        ([*copy, "0-x", "--out", "new.png"], "--positions 0-x: expected numbers and ranges"),
        ([*copy, "\u00b2", "--out", "new.png"], "expected numbers and ranges"),
        ([*copy, "3-1", "--out", "new.png"], "3-1 runs backwards; expected 1-3"),
        ([*copy, "0-99999999999", "--out", "new.png"], "position 99999999999; expected 0..3"),
        ([*copy, "0", "--out", "new"], "new: no image by its name; expected a suffix"),
        ([*match, "--steps", "0"], "steps"),
        ([*match, "--lr", "inf"], "lr"),
        ([*match, "--noise", "nan"], "noise"),
        ([*match, "--lr", "1e38"], "lr"),
        (["inpaint", model, a, mask, "--every", "-1", "--out", "new.png"], "every=-1: expected 0"),
    ):
        monkeypatch.chdir(tmp_path)
        result = CliRunner().invoke(main, ["edit", *given[:1], "--out", out, *given[1:]])
        text = result.stderr.strip()
        assert result.exit_code == 1 and text.startswith("error: ") and "\n" not in text, text
        assert said in text
    assert not Path("new.png").exists()


def test_tokens_of_two_tokenizers_are_not_mixed(make_tokenizer, images, fails):
    tokens = make_tokenizer("vq").encode(images)
    mine, other = (replace(tokens, made_by=name) for name in ("aaaa", "bbbb"))
    assert torch.equal(copy_tokens(mine, mine, [0]).indices, mine.indices)
    assert torch.equal(copy_tokens(mine, replace(mine, made_by="aaaab"), [0]).indices, mine.indices)
    with fails(ValueError, "tokens made by other weights .bbbb. than the target's .aaaa."):
        copy_tokens(mine, other, [0])
    with fails(ValueError, "index .* of factor 0 is outside the codebook"):
        copy_tokens(mine, replace(mine, indices=mine.indices + 12), [0])


def test_an_edit_that_runs_away_is_an_error(make_tokenizer, images, fails):
    far = lambda pixels: pixels.flatten(1).mean(1) * 1e38 * 10
    with fails(NonFiniteError, "step 0 of the edit: numbers are not finite.*lower lr"):
        optimize(make_tokenizer("vq"), far, images, EditConfig(steps=2))
