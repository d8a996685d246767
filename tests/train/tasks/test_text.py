"""Training tokenizers that read text: TexTok (both ends) and TA-TiTok (the decoder alone)."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file

from tests.support import tiny_text
from tests.support.training import TINY, lines, rewound
from vistok.config import ConfigError, validate
from vistok.config.registry import build
from vistok.data import CachedTokensConfig, EvalLoader, PhotosConfig, TokenCache, to_device
from vistok.frozen.files import MissingWeights
from vistok.tokenizer import Tokenizer, TokenizerConfig
from vistok.train.config import TrainConfig
from vistok.train.cost.plan import make_plan

CAPTION = "a {class}."
READS = {"dim": tiny_text.WIDTH, "length": tiny_text.LENGTH}


def texted(path, encoder=None, decoder=None, dropout=0.5) -> dict:
    """TINY with text in these parts."""
    tree = copy.deepcopy(TINY)
    tree["data"] |= {"caption": CAPTION}
    tokenizer = tree["task"]["tokenizer"]
    tokenizer["text"] = {"path": str(path), "length": tiny_text.LENGTH}
    for name, text in (("encoder", encoder), ("decoder", decoder)):
        if text is not None:
            tokenizer[name]["text"] = {**READS, **text}
    if dropout:
        tokenizer["regularizers"].append({"kind": "condition_dropout", "share": dropout})
    return tree


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return tiny_text.clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def textok(clip):
    return texted(clip, {}, {})


@pytest.fixture
def tatitok(clip):
    """Text must be given, and its padding is looked at."""
    return texted(clip, None, {"padding": "attended", "optional": False}, dropout=0.0)


def files(folder, step):
    checkpoint = folder / "checkpoints" / f"step_{step:08d}"
    return {path.name: path.read_bytes() for path in checkpoint.iterdir()}


@pytest.mark.parametrize("kind", ["textok", "tatitok"])
def test_the_loss_falls_and_texts_matter(run, request, kind):
    tree = request.getfixturevalue(kind)
    options = {"steps": 90, "save_every": 0, "validate_every": 90, "grid_every": 90}
    optimizer = {"kind": "adamw", "lr": 5e-3}
    folder = run(tree, warmup=5, ema=None, optimizer=optimizer, **options)
    rows = lines(folder)
    first, last = (sum(r["loss"] for r in part) for part in (rows[:10], rows[-10:]))
    assert last < 0.85 * first
    assert lines(folder, "val")[-1]["psnr"] > 5
    tokenizer = Tokenizer.from_pretrained(folder / "model").eval()
    assert not any("text_encoder" in name for name in tokenizer.state_dict())
    data = build(validate(PhotosConfig, {**tree["data"], "val_count": 28})).open("val")
    batch = to_device(next(iter(EvalLoader(data, 28))), "cpu")
    moved = batch.text[1:] + batch.text[:1]  # some texts of other classes
    assert any(a != b for a, b in zip(batch.text, moved, strict=True))

    reconstruct = lambda texts: tokenizer.decode(tokens, tokenizer.condition(texts))
    tokens = tokenizer.encode(batch.pixels, condition=tokenizer.condition_of(batch))
    moves = (reconstruct(batch.text) - reconstruct(moved)).abs().amax((1, 2, 3))
    other = torch.tensor([a != b for a, b in zip(batch.text, moved, strict=True)])
    assert (moves[other] > 1e-6).all() and (moves[~other] == 0).all()


@pytest.mark.parametrize("kind", ["textok", "tatitok"])
def test_a_resumed_run_equals_one_that_never_stopped(run, request, kind):
    tree = request.getfixturevalue(kind)
    whole = run(tree, "whole", accumulate=2, workers=1)
    stopped = rewound(whole)
    run(tree, "stopped", accumulate=2)
    assert files(stopped, 12) == files(whole, 12)
    model = "model/model.safetensors"
    assert (stopped / model).read_bytes() == (whole / model).read_bytes()


def test_the_texts_are_what_it_reads(run, textok):
    one = run(textok, "one")
    textok["data"]["caption"] = "the {class}."
    other = run(textok, "other")
    weights = [load_file(f / "model/model.safetensors") for f in (one, other)]
    for part in ("encoder", "decoder"):
        name = f"{part}.text.proj.weight"
        assert not torch.equal(weights[0][name], weights[1][name])


def test_a_checkpoint_is_tied_to_texts_and_their_encoder(run, textok, clip, tmp_path, fails):
    stopped = rewound(run(textok, "whole"))
    with fails(ConfigError, "caption"):
        run({**textok, "data": {**textok["data"], "caption": "x"}}, "stopped")
    encoder = Tokenizer.from_pretrained(stopped.parent / "whole/model").text_encoder
    summary = (stopped.parent / "whole/summary.json").read_text()
    assert f"text encoder clip:{clip} (sha256)" in summary and encoder.sha256 in summary


def test_a_dry_run_needs_no_text_encoder(textok, tmp_path):
    textok["task"]["tokenizer"]["text"]["path"] = str(tmp_path / "nowhere")
    plan = make_plan(validate(TrainConfig, textok), 1)
    plain = make_plan(validate(TrainConfig, TINY), 1)
    per_part = tiny_text.WIDTH * 16 + 16 + tiny_text.LENGTH * 16  # projection, bias, table
    count = lambda made: {part.name: part.trained for part in made.parts}
    for part in ("encoder", "decoder"):
        assert count(plan)[part] == count(plain)[part] + per_part
    assert plan.forward > 1.05 * plain.forward
    textok["data"] = None  # and no data
    assert make_plan(validate(TrainConfig, textok), 1).forward == plan.forward


def test_mistakes_are_one_line(run, textok, tmp_path, fails):
    with fails(ConfigError, "data: this tokenizer reads text, and the data give none.*caption"):
        run({**textok, "data": TINY["data"]})
    textok["task"]["tokenizer"]["text"]["path"] = str(tmp_path / "nowhere")
    with fails(MissingWeights, "nowhere: not available"):
        run(textok)


def test_codes_of_a_cache_depend_on_texts_if_the_encoder_reads_them(run, clip, tmp_path):
    codes, optional = {}, {"optional": False}
    for kind, tree in (
        ("textok", texted(clip, {}, {}, 0.0)),
        ("tatitok", texted("nowhere", None, optional, 0.0)),  # its text is not even looked at
    ):
        config = validate(TokenizerConfig, tree["task"]["tokenizer"])
        Tokenizer(config).save_pretrained(tmp_path / kind)
        task = {"kind": "cache", "tokenizer": str(tmp_path / kind), "limit": 16}
        base = {**TINY, "task": task, "batch_size": 6}
        for caption in (CAPTION, "zzz"):
            data = {**tree["data"], "val_count": 4, "caption": caption}
            cache = TokenCache(run({**base, "data": data}, f"{kind}-{caption[0]}") / "train")
            assert cache.meta["source"]["text"] == {"caption": caption}
            codes[kind, caption] = torch.stack([cache.row(i)[0] for i in range(16)])
    tokenizer = Tokenizer.from_pretrained(tmp_path / "textok").eval()
    dataset = build(validate(PhotosConfig, texted(clip)["data"])).open("train")
    batch = to_device(next(iter(EvalLoader(dataset, 16))), "cpu")
    tokens = tokenizer.encode(batch.pixels, condition=tokenizer.condition_of(batch))
    assert torch.equal(tokens.indices, codes["textok", CAPTION])
    assert torch.equal(codes["tatitok", CAPTION], codes["tatitok", "zzz"])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_cache_keeps_text_features_and_latents_on_request(run, clip, tmp_path, fails, dtype):
    tree = texted(clip, None, {"optional": False}, 0.0)
    config = validate(TokenizerConfig, tree["task"]["tokenizer"])
    Tokenizer(config).save_pretrained(tmp_path / "tatitok")
    task = {"kind": "cache", "tokenizer": str(tmp_path / "tatitok"), "limit": 7, "crops": 2}
    task |= {"text": True, "latents": True, "dtype": dtype}
    data = {**tree["data"], "val_count": 4}
    folder = run({**TINY, "task": task, "batch_size": 5, "data": data}, "cache")
    cached = build(validate(CachedTokensConfig, {"path": str(folder / "train")})).open("train")
    shape = {"text": (tiny_text.LENGTH, tiny_text.WIDTH), "text_mask": (tiny_text.LENGTH,)}
    assert cached.features == {"latents": (4, 2), **shape}
    tokenizer = Tokenizer.from_pretrained(tmp_path / "tatitok").eval()
    images = build(validate(PhotosConfig, data)).open("train", augment=False)
    found = to_device(next(iter(EvalLoader(cached, 7))), "cpu")
    batch = to_device(next(iter(EvalLoader(images, 7))), "cpu")
    expected = tokenizer.condition_of(batch)
    with torch.no_grad():
        latents = tokenizer.latents(batch.pixels).values
    kind = getattr(torch, dtype)
    cached.augment = False  # the center: batches of another size, so equal up to rounding
    found = to_device(next(iter(EvalLoader(cached, 7))), "cpu")
    assert torch.equal(found.condition.text, expected.text.to(kind).float())
    assert torch.equal(found.condition.text_mask, expected.text_mask)
    assert torch.allclose(found.latents, latents.to(kind).float(), atol=1e-3)
    Tokenizer(validate(TokenizerConfig, TINY["task"]["tokenizer"])).save_pretrained(tmp_path / "t")
    with fails(ConfigError, "task.text=true: the tokenizer .* has no text encoder"):
        run({**TINY, "task": {**task, "tokenizer": str(tmp_path / "t")}, "data": data}, "none")
