"""Contracts: every registered part keeps them. Add a part and it is tested here."""

import json
import sys
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

import vistok.generators
import vistok.losses  # noqa: F401  (registers the losses)
from tests.support.generators import spec_for
from vistok.config import Config, validate
from vistok.config.registry import build, entries
from vistok.core.draws import Draws
from vistok.core.records import Batch, Decoded, Latents
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.core.shapes import Shape
from vistok.generators.base import SavedCodes
from vistok.losses.adversarial import AdversarialLoss
from vistok.tokenizer import Tokenizer, TokenizerConfig
from vistok.tokens import Tokens

FAMILIES = (
    "space",
    "head",
    "encoder",
    "quantizer",
    "regularizer",
    "decoder",
    "loss",
    "discriminator",
    "generator",
)


def kinds(*families: str):
    cases = [(family, kind) for family in families for kind in entries(family)]
    ids = [f"{family}-{kind}" for family, kind in cases]
    return pytest.mark.parametrize(("family", "kind"), cases, ids=ids)


def small(family: str, kind: str) -> dict:
    """A part's tiny config as plain data."""
    return entries(family)[kind].config.tiny().model_dump(mode="json")


def tokenizer(seed: int = 0, **parts) -> Tokenizer:
    torch.manual_seed(seed)
    tree = {
        "image_size": 8,
        "encoder": small("encoder", "vit"),
        "quantizer": small("quantizer", "fsq"),
        "decoder": small("decoder", "vit"),
    }
    return Tokenizer(validate(TokenizerConfig, tree | parts))


def tokenizer_with(family: str, kind: str, **options) -> Tokenizer:
    part = small(family, kind)
    if family == "head":
        codes = small("space", "codes") if kind == "codes" else {"kind": "pixels"}
        patches = {"size": 1} if kind == "codes" else {"size": 4}
        decoder = small("decoder", "vit") | {"head": part, "patches": patches}
        return tokenizer(decoder=decoder, output_space=codes, **options)
    if family == "regularizer":
        if "null" in entries(family)[kind].part.fills:  # there must be something to leave out
            text = {"text": {"dim": 4, "length": 3}}
            options["decoder"] = small("decoder", "vit") | text
        if "levels" in entries(family)[kind].part.fills:  # and levels to drop
            options["quantizer"] = small("quantizer", "multi_scale")
        return tokenizer(regularizers=[part], **options)
    return tokenizer(**{family: part}, **options)


def batch(size: int = 4) -> Batch:
    pixels = torch.rand(size, 3, 8, 8, generator=torch.Generator().manual_seed(7))
    return Batch(index=torch.arange(size), pixels=pixels)


def all_learn(module: torch.nn.Module) -> None:
    """Every parameter that asks for a gradient has a finite one."""
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{name} gets no gradient"
            assert parameter.grad.isfinite().all(), f"{name} has a gradient that is not finite"


# -- configs and documentation ---------------------------------------------------------------------


@kinds(*FAMILIES)
def test_a_part_says_what_it_is(family, kind):
    entry = entries(family)[kind]
    assert entry.part.__module__.startswith("vistok.")
    assert (sys.modules[entry.part.__module__].__doc__ or "").strip()
    assert issubclass(entry.config, Config)
    assert entry.config.model_fields["kind"].default == kind == entry.kind


@kinds(*FAMILIES)
def test_configs_survive_json(family, kind):
    config = entries(family)[kind].config
    for given in (config(), validate(config, small(family, kind))):
        text = json.dumps(given.model_dump(mode="json"))
        assert validate(config, json.loads(text)) == given


@kinds(*FAMILIES)
def test_configs_refuse_unknown_keys(fails, family, kind):
    with fails(ValueError, "no_such_key: unknown key"):
        validate(entries(family)[kind].config, {"no_such_key": 1})


# -- building and training -------------------------------------------------------------------------


@kinds("space", "encoder", "quantizer", "decoder", "discriminator", "generator")
def test_parts_are_built_on_the_meta_device(family, kind):
    config = entries(family)[kind].config()
    extra = {
        "encoder": (Shape(3, (32, 32)), 4),
        "decoder": (Shape(3, (32, 32)), ((2, 2),), 4),
        "space": (Shape(3, (32, 32)),),
    }
    if family == "generator":
        extra[family] = (spec_for(kind, vocab=(8,)), SavedCodes())
    with torch.device("meta"):
        part = build(config, *extra.get(family, ()))
    assert all(p.device.type == "meta" for p in part.parameters())


@kinds("head", "encoder", "quantizer", "decoder", "regularizer")
@pytest.mark.parametrize("draws", [False, True])
def test_forward_and_backward(family, kind, draws):
    model = tokenizer_with(family, kind).train()
    rows = torch.randn(1, 50, model.quantizer.latent_dim)
    model.quantizer.initialize(Latents(rows, ((50,),)), Rng(0))
    draws = model.draw(batch().index, 0, Progress(0, 10)) if draws else None
    result = model(batch(), draws)
    assert result.pixels.shape == (4, 3, 8, 8) and result.pixels.isfinite().all()
    assert result.pixels.dtype == torch.float32
    loss = (result.pixels - result.target).square().mean()
    loss = loss + sum(result.quantized.losses.values())
    loss.backward()
    all_learn(model)
    events = model.quantizer.after_step(Rng(0))
    assert all(torch.as_tensor(value).ndim == 0 for value in events.values())


@kinds("regularizer")
def test_dice_are_keyed_by_the_seed(family, kind):
    model = tokenizer_with(family, kind)
    draw = lambda seed: vars(model.draw(torch.arange(32), seed, Progress(5, 10, 1.0)))
    sampled = {name for name, value in draw(0).items() if isinstance(value, torch.Tensor)}
    assert sampled == set(entries(family)[kind].part.fills)
    for name in sampled:
        assert len(draw(0)[name]) == 32 and torch.equal(draw(0)[name], draw(0)[name])
        assert any(not torch.equal(draw(0)[name], draw(seed)[name]) for seed in range(1, 9))


@kinds("encoder", "quantizer", "decoder")
def test_bf16_autocast_is_finite_and_near_fp32(family, kind):
    model = tokenizer_with(family, kind).train()
    keep = None if model.spec().prefix == "none" else torch.tensor([1, 2, 3, 4])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = model(batch(), Draws(keep=keep))
        loss = (result.pixels - result.target).square().mean()
        loss = loss + sum(result.quantized.losses.values())
    assert result.pixels.isfinite().all() and result.quantized.values.dtype == torch.float32
    loss.backward()
    all_learn(model)
    latents = tokenizer_with(family, kind).latents(batch().pixels).values
    assert torch.allclose(result.latents.values.float(), latents, atol=0.15)


@kinds("encoder", "quantizer", "decoder")
def test_tokens_are_deterministic_and_exact_as_bytes(family, kind):
    model = tokenizer_with(family, kind).eval()
    tokens = model.encode(batch().pixels)
    if tokens.indices is None:  # continuous: nothing to pack
        assert torch.equal(tokens.values, model.encode(batch().pixels).values)
        return
    assert torch.equal(tokens.indices, model.encode(batch().pixels).indices)
    assert torch.equal(model.decode(tokens), model.decode(tokens))
    for cut in (tokens, *(tokens.prefix(n) for n in model.spec().eval_lengths)):
        strings = cut.to_bytes()
        back = Tokens.from_bytes(strings, model.spec())
        assert torch.equal(back.indices, cut.indices)
        assert torch.equal(model.decode(back), model.decode(cut))
        bits = model.spec().bits // model.spec().length
        kept = int(cut.kept().sum(-1)[0])
        assert len(strings[0]) <= 3 + 1 + 3 + -(-kept * bits // 8)


@kinds("loss")
def test_losses_give_weighted_scalars_with_gradients(family, kind):
    loss = build(validate(entries(family)[kind].config, small(family, kind)))
    parts = {"decoder": small("decoder", "flow_vit")} if loss.needs_velocity else {}
    large = tokenizer(image_size=32, quantizer=small("quantizer", "vq"), **parts).train()
    if loss.wants_teacher is not None:
        loss.teach(large, "")
    loss.bind(large)
    pixels = torch.rand(2, 3, 32, 32)
    fake = torch.rand(2, 3, 32, 32, requires_grad=True)
    images = Batch(index=torch.arange(2), pixels=pixels)
    draws = large.draw(images.index, 0, Progress(5, 10)) if loss.needs_velocity else None
    result = large(images, draws)
    decoded = result.decoded
    if loss.wants_teacher is not None:  # logits over the teacher's 16 codes at 4 positions
        logits = F.avg_pool2d(fake, 16).repeat(1, 6, 1, 1)[:, :16]
        decoded = Decoded(logits, logits)
    result = replace(result, pixels=fake, target=pixels, decoded=decoded)
    terms = loss(result, images, Progress(5, 10))
    assert terms and all(t.ndim == 0 and t.isfinite() for t in terms.values())
    assert set(loss.weights(Progress(5, 10))) <= set(terms)
    sum(terms.values()).backward()
    # It reaches the pixels, or what they are made from: latents, values, the codebook.
    found = [fake.grad, *(parameter.grad for parameter in large.parameters())]
    assert any(grad is not None and float(grad.abs().sum()) > 0 for grad in found)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = loss(result, images, Progress(5, 10))
    assert all(t.isfinite() and t.dtype == torch.float32 for t in cast.values())


@kinds("discriminator")
def test_discriminators_learn(family, kind):
    config = validate(
        entries("loss")["adversarial"].config,
        {"kind": "adversarial", "start": 0, "lecam": 0.1, "discriminator": small(family, kind)},
    )
    loss = build(config)
    assert isinstance(loss, AdversarialLoss)
    pixels = torch.rand(4, 3, 32, 32)
    total, logged = loss.discriminate(loss.discriminator, pixels, 1 - pixels)
    total.backward()
    all_learn(loss.discriminator)
    assert all(value.isfinite() for value in logged.values())


def test_every_family_has_parts():
    assert all(entries(family) for family in FAMILIES)
