"""Post-training quantization: any continuous tokenizer, any quantizer with codes, by one config."""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner

from vistok import pretrained
from vistok.config import ConfigError, read_yaml, validate, validate_part
from vistok.config.registry import build
from vistok.contracts.case import tiny
from vistok.data.loading.loader import EvalLoader
from vistok.quantizers.atoms.fsq import FSQConfig
from vistok.tokens import Tokens
from vistok.train.__main__ import main
from vistok.train.config import TrainConfig
from vistok.train.jobs.base import looked_at
from vistok.train.jobs.quantize import fitted
from vistok.train.loop import train

CONV = {"channels": 8, "channel_mult": [1, 2], "blocks": 1, "mid_blocks": 1, "norm_groups": 4}
CNN = {"encoder": {"kind": "cnn", "conv": CONV}, "decoder": {"kind": "cnn", "conv": CONV}}
VIT = {"kind": "vit", "patches": {"size": 4}, "transformer": {"width": 16, "depth": 1, "heads": 2}}
LINE = {
    "encoder": VIT | {"latents": {"count": 4}},
    "decoder": VIT | {"missing": "mask_token"},
    "regularizers": [{"kind": "nested_dropout", "lengths": "pow2"}],
}
CLIP = {"patches": {"size": 4, "frames": 2}}
SOURCES = {
    "grid of posteriors (KL-16)": {"image_size": 8, **CNN, "quantizer": {"kind": "kl", "dim": 6}},
    "prefixes of posteriors (TiTok's VAE)": {
        "image_size": 8, **LINE, "quantizer": {"kind": "kl", "dim": 6},
    },
    "clips without a bottleneck (VFRTok)": {
        "image_size": 8,
        "frames": 4,
        "encoder": VIT | CLIP | {"latents": {"count": 4}},
        "decoder": VIT | CLIP | {"missing": "mask_token"},
        "quantizer": {"kind": "none", "dim": 6},
    },
}  # fmt: skip
KMEANS = {"l2_norm": False, "init": "kmeans"}
NAMES = ("scalar", "fsq", "kmeans_vq", "residual_vq")
SMALL = {
    "scalar": ["task.quantizer.levels=5"],
    "fsq": ["task.quantizer.quantizer.levels=[5]"],
    "kmeans_vq": ["task.quantizer.codebook_size=16"],
    "residual_vq": ["task.quantizer.quantizer.codebook_size=8", "task.quantizer.levels=3"],
}
VOCAB = {"scalar": (5,) * 6, "fsq": (5,) * 6, "kmeans_vq": (16,), "residual_vq": (8,) * 3}


def photos(source: dict) -> list[str]:
    frames = f", frames: {source['frames']}" if "frames" in source else ""
    return [f"data={{kind: photos, size: 8, count: 32, val_count: 4{frames}}}"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """saved(name) -> folder of an untrained continuous tokenizer."""
    folder, made = tmp_path_factory.mktemp("continuous"), {}

    def save(name):
        if name not in made:
            made[name] = folder / str(len(made))
            tiny(3, **SOURCES[name]).save_pretrained(made[name])
        return made[name]

    return save


def run(name: str, init, out, *words: str) -> str:
    given = [f"task.init={init}", f"out={out}", "batch_size=8", *words]
    done = CliRunner().invoke(main, [f"jobs/quantize/{name}", *given])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", NAMES)
def test_one_config_makes_any_of_them_discrete(saved, tmp_path, name, source):
    tree, init = SOURCES[source], saved(source)
    said = run(name, init, tmp_path, *photos(tree), *SMALL[name])
    assert "signal to noise" in said and "bits per sample" in said
    before, after = pretrained.open(init), pretrained.open(tmp_path)
    spec = after.spec()
    assert spec.vocab == VOCAB[name] and spec.blocks == before.spec().blocks
    assert (spec.prefix, spec.lengths) == (before.spec().prefix, before.spec().lengths)
    old, new = before.state_dict(), after.state_dict()
    assert all(torch.equal(new[key], tensor) for key, tensor in old.items())  # the networks
    pixels = torch.rand(3, 3, *after.shape.sides)
    tokens = after.encode(pixels)
    assert torch.equal(Tokens.from_bytes(tokens.to_bytes(), spec).indices, tokens.indices)
    # Codes lie near the latents, in the units of the untouched decoder.
    z, values = before.encode(pixels).values, after.quantizer.lookup(tokens.indices.long())
    lost = (values - z).square().mean() / (z - z.mean((0, 1))).square().mean()
    assert lost < 0.8  # of noise, which the codebooks are not made for
    whole = after.reconstruct(values).estimate
    assert torch.equal(after.output_space.inverse(whole).clamp(0, 1), after.decode(tokens))
    for length in spec.eval_lengths[:1]:
        assert after.decode(tokens.prefix(length)).shape == pixels.shape
    near = after.quantizer.neighbours(after.quantize(after.latents(pixels)).queries, 2)
    assert torch.equal(near[:, :, :, 0].flatten(2).int(), tokens.indices.int())
    assert after.lineage[-1].changed == ("quantizer",)


def test_more_bits_lose_less(saved, tmp_path):
    source = "grid of posteriors (KL-16)"
    found = {}
    for name, key, values in (
        ("scalar", "levels", (2, 4, 16)),
        ("residual_vq", "levels", (1, 2, 4)),
        ("kmeans_vq", "codebook_size", (4, 16, 64)),
    ):
        for value in values:
            out = tmp_path / f"{name}{value}"
            small = [word for word in SMALL[name] if f"quantizer.{key}=" not in word]
            small += [f"task.quantizer.{key}={value}"]
            said = run(name, saved(source), out, *photos(SOURCES[source]), *small)
            found.setdefault(name, []).append(float(said.split("latents ")[1].split(" dB")[0]))
    for losses in found.values():
        assert losses == sorted(losses) and losses[-1] > losses[0] + 3


def test_scale_and_shift_are_those_of_the_latents(saved, tmp_path):
    source = "clips without a bottleneck (VFRTok)"
    data = photos(SOURCES[source])
    tokenizer = pretrained.open(saved(source))
    views = validate(TrainConfig, read_yaml("jobs/quantize/scalar", data)).data
    dataset = build(views).open("train", augment=False)
    z = torch.cat([tokenizer.encode(b.pixels.float() / 255).values for b in EvalLoader(dataset, 8)])
    for normalize, over in (("channel", (0, 1)), ("global", (0, 1, 2))):
        out = tmp_path / normalize
        run("scalar", saved(source), out, *data, f"task.normalize={normalize}")
        quantizer = pretrained.open(out).quantizer
        shift, scale = (one.expand(6) for one in (z.mean(over), 1 / z.std(over, correction=0)))
        torch.testing.assert_close(quantizer.shift, shift, atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(quantizer.scale, scale, atol=1e-6, rtol=1e-4)


def test_given_levels_and_scale_read_no_data(saved, tmp_path):
    given = ["task.normalize=given", "task.scale=0.2325", "task.quantizer.range=5.0"]
    said = run("scalar", saved("grid of posteriors (KL-16)"), tmp_path, *given)
    assert "signal" not in said
    config = json.loads((tmp_path / "model/config.json").read_text())
    assert config["quantizer"]["scale"] == 0.2325
    assert config["quantizer"]["quantizer"]["dim"] == 6
    state = pretrained.open(tmp_path).state_dict()
    assert not any(key.startswith("quantizer.") for key in state)


def test_the_same_seed_gives_the_same_codebooks(saved, tmp_path):
    source = "prefixes of posteriors (TiTok's VAE)"
    for out in ("a", "b"):
        data = photos(SOURCES[source])
        run("residual_vq", saved(source), tmp_path / out, *data, *SMALL["residual_vq"])
    states = [pretrained.open(tmp_path / out).state_dict() for out in ("a", "b")]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize(
    ("quantizer", "said"),
    [
        (
            {"kind": "vq", "codebook_size": 8, "l2_norm": False},
            "init=uniform makes codes that only",
        ),
        ({"kind": "vq", "codebook_size": 8, "init": "kmeans"}, "keeps the direction of a latent"),
        ({"kind": "binary", "bits": 4}, "do not give its latents back"),
        ({"kind": "vq", "codebook_size": 1000, **KMEANS}, "1,000 codes, but there are 512 latents"),
        ({"kind": "scalar", "dim": 7}, "quantizes 7 channels, and 'kl' gives 6"),
        ({"kind": "kl"}, "expected a continuous one .none, kl., and one with codes"),
        (
            {"kind": "product", "branches": 4, "quantizer": {"kind": "scalar"}},
            "branches=4 does not",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_is_one_line(saved, tmp_path, fails, quantizer, said):
    source = "grid of posteriors (KL-16)"
    tree = read_yaml("jobs/quantize/scalar", [f"task.init={saved(source)}", f"out={tmp_path}"])
    tree["task"]["quantizer"] = quantizer
    tree["data"] = {"kind": "photos", "size": 8, "count": 32, "val_count": 4}
    with fails(ConfigError, said):
        train(validate(TrainConfig, tree))


def test_a_discrete_tokenizer_is_refused(tmp_path, fails):
    tiny().save_pretrained(tmp_path / "fsq")
    tree = read_yaml("jobs/quantize/scalar", [f"task.init={tmp_path / 'fsq'}", f"out={tmp_path}"])
    with fails(ConfigError, "has codes already .fsq.; expected a continuous tokenizer"):
        train(validate(TrainConfig, tree))


def test_images_to_look_at_are_spread_over_all_of_them():
    some = looked_at(1000, 100, 0)
    assert some == sorted(set(some)) and len(some) == 100 and some == looked_at(1000, 100, 0)
    assert some != looked_at(1000, 100, 1)
    assert all(any(first <= one < first + 200 for one in some) for first in range(0, 1000, 200))
    assert looked_at(7, 7, 0) == list(range(7))


def test_latents_that_a_sample_does_not_have_are_not_measured(tmp_path):
    encoder = {"kind": "clusters", "patches": {"size": 2}, "width": 8, "count": 12, "least": 1}
    source = tiny(
        3, image_size=8, encoder=encoder, quantizer={"kind": "none", "dim": 3},
        decoder=VIT | {"missing": "mask_token"},
    ).eval()  # fmt: skip
    source.save_pretrained(tmp_path / "source")
    data = "data={kind: photos, size: 8, count: 16, val_count: 4}"  # all are looked at
    run("scalar", tmp_path / "source", tmp_path / "out", data, "task.quantizer.levels=5")
    made = pretrained.open(tmp_path / "out").quantizer
    config = {"kind": "photos", "size": 8, "count": 16, "val_count": 4}
    dataset = build(validate_part("data", config)).open("train", augment=False)
    (batch,) = EvalLoader(dataset, 16)
    with torch.no_grad():
        latents = source.latents(batch.pixels.float() / 255)
    assert latents.counts.min() < 12
    rows = torch.cat([row[:n] for row, n in zip(latents.values, latents.counts, strict=True)])
    torch.testing.assert_close(made.shift, rows.mean(0), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(1 / made.scale, rows.std(0, correction=0), atol=1e-5, rtol=1e-5)


def test_a_width_that_does_not_fit_is_one_line(saved, tmp_path, fails):
    source = saved("grid of posteriors (KL-16)")
    tree = read_yaml("jobs/quantize/scalar", [f"task.init={source}", f"out={tmp_path}"])
    tree["task"]["quantizer"] = {"kind": "dual", **KMEANS}
    tree["data"] = {"kind": "photos", "size": 8, "count": 32, "val_count": 4}
    with fails(ConfigError, "'dual' quantizes 40 channels, and 'kl' gives 6"):
        train(validate(TrainConfig, tree))


def test_widths_at_their_defaults_follow_the_tokenizer():
    tree = {"kind": "product", "quantizer": {"kind": "fsq", "levels": [4, 4, 4]}}
    product = fitted(validate_part("quantizer", tree), 12)
    assert product.branches == 4 and product.quantizer == FSQConfig(levels=(4, 4, 4))
    inner = {"kind": "vq", **KMEANS}
    product = fitted(validate_part("quantizer", {"kind": "product", "quantizer": inner}), 8)
    assert product.branches == 2 and product.quantizer.dim == 4
