"""The VAE space: borrowed by name or the model's own, frozen, shared by two spaces."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.latent_flow import VAE, latent_tree
from vistok.config import validate
from vistok.core.records import Batch
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.core.shapes import Shape
from vistok.frozen.files import BadWeights, MissingWeights
from vistok.frozen.vae import VAENetworkConfig
from vistok.spaces.vae import VAEConfig, VAESpace
from vistok.tokenizer import Tokenizer, TokenizerConfig

pytest.importorskip("diffusers")
SHAPE = Shape(3, (32, 32))


@pytest.fixture
def folder(tmp_path):
    """A VAE as the library saves it."""
    torch.manual_seed(0)
    network = validate(VAENetworkConfig, VAE["network"]).build()
    network.register_to_config(scaling_factor=0.7, shift_factor=0.1)
    network.save_pretrained(tmp_path / "small_vae")
    return tmp_path / "small_vae"


def borrowed(folder) -> dict:
    return {"kind": "vae", "weights": str(folder), "network": VAE["network"]}


def made(**changes) -> Tokenizer:
    torch.manual_seed(0)
    return Tokenizer(validate(TokenizerConfig, latent_tree() | changes))


def test_a_borrowed_one_is_no_part_of_the_model(folder, tmp_path, monkeypatch):
    space = borrowed(folder)
    tokenizer = made(input_space=space, output_space=space)
    assert tokenizer.input_space.network is tokenizer.output_space.network
    assert not any(
        key.startswith(("input_space", "output_space")) for key in tokenizer.state_dict()
    )
    assert not any(p.requires_grad for p in tokenizer.input_space.parameters())
    record = tokenizer.frozen_record()
    assert list(record) == ["vae small_vae"] and len(record["vae small_vae"]) == 64
    tokenizer.save_pretrained(tmp_path / "model")
    pixels = torch.rand(2, 3, 32, 32)
    x = tokenizer.input_space(pixels)
    mean = tokenizer.input_space.posterior(pixels).mean
    torch.testing.assert_close(x, (mean - 0.1) * 0.7)  # as its own config says
    again = Tokenizer.from_pretrained(tmp_path / "model")
    assert torch.equal(again.input_space(pixels), x)
    # Below $VISTOK_WEIGHTS it is found by its last name.
    monkeypatch.setenv("VISTOK_WEIGHTS", str(folder.parent))
    found = VAESpace(VAEConfig(weights="owner/small_vae", network=VAE["network"]), SHAPE)
    assert torch.equal(found(pixels), x)


def test_an_own_one_is_saved_once(tmp_path):
    tokenizer = made()
    keys = [key for key in tokenizer.state_dict() if "space" in key]
    assert keys and all(key.startswith("input_space.vae.network.") for key in keys)
    assert tokenizer.output_space.network is tokenizer.input_space.vae
    tokenizer.save_pretrained(tmp_path / "model")
    again = Tokenizer.from_pretrained(tmp_path / "model")
    pixels = torch.rand(1, 3, 32, 32)
    assert torch.equal(again.input_space(pixels), tokenizer.input_space(pixels))
    assert torch.equal(
        again.output_space.inverse(x := again.input_space(pixels)),
        tokenizer.output_space.inverse(x),
    )
    other = copy.deepcopy(tokenizer)  # an average of weights
    assert other.output_space.network is other.input_space.vae
    assert other.input_space.vae is not tokenizer.input_space.vae
    assert not tokenizer.train().input_space.vae.training
    assert tokenizer.part_parameters()["input_space"] > 0


def test_it_runs_once_per_pass():
    """Input and target are one image in one space."""
    tokenizer, calls = made(), []
    tokenizer.input_space.vae.network.encoder.register_forward_hook(lambda *_: calls.append(1))
    batch = Batch(torch.arange(2), pixels=torch.rand(2, 3, 32, 32))
    draws = tokenizer.draw(batch.index, 0, Progress(0, 1))
    result = tokenizer(batch, draws, pixels=False)
    expected = tokenizer.input_space(batch.pixels)
    assert torch.equal(result.target_in_space, expected) and len(calls) == 2  # that one too


def test_a_posterior_is_sampled_in_training_alone():
    space = VAESpace(validate(VAEConfig, {**VAE, "sample_posterior": True}), SHAPE)
    pixels, index = torch.rand(2, 3, 32, 32), torch.tensor([3, 5])
    draws = space.draw(index, Rng(0, "input_space"), Progress(0, 1))
    posterior = space.posterior(pixels)
    sampled = 0.5 * (posterior.mean + (0.5 * posterior.logvar).exp() * draws.noise)
    torch.testing.assert_close(space(pixels, draws), sampled)
    torch.testing.assert_close(space(pixels), 0.5 * posterior.mean)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(posterior.mean, (0.5 * posterior.logvar).exp()),
        torch.distributions.Normal(0.0, 1.0),
    )
    torch.testing.assert_close(posterior.kl(), expected.flatten(1).sum(1))
    assert VAESpace(validate(VAEConfig, VAE), SHAPE).draw(index, Rng(0), Progress(0, 1)) is None


def test_latents_are_fp32_under_autocast():
    space = VAESpace(validate(VAEConfig, VAE), SHAPE)
    pixels = torch.rand(1, 3, 32, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x = space(pixels)
        assert x.dtype == torch.float32 and torch.equal(x, space(pixels))
    torch.testing.assert_close(x, space(pixels))


def test_old_names_of_attention_layers(folder):
    file = folder / "diffusion_pytorch_model.safetensors"
    new = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = load_file(file)
    x = VAESpace(validate(VAEConfig, borrowed(folder)), SHAPE)(torch.full((1, 3, 32, 32), 0.3))
    for name, old in new.items():
        for key in [k for k in state if f".attentions.0.{name}." in k]:
            value = state.pop(key)
            state[key.replace(name, old)] = value[..., None, None] if value.ndim == 2 else value
    save_file(state, file)
    again = VAESpace(validate(VAEConfig, borrowed(folder)), SHAPE)
    assert torch.equal(again(torch.full((1, 3, 32, 32), 0.3)), x)


def test_what_does_not_fit_is_one_line(folder, tmp_path, fails, monkeypatch):
    build = lambda tree, shape=SHAPE: VAESpace(validate(VAEConfig, tree), shape)
    with fails(ValueError, "weights=own needs a scaling_factor"):
        build({"kind": "vae", "weights": "own"})
    with fails(ValueError, "no multiples of 2"):
        build(VAE, Shape(3, (33, 32)))
    with fails(ValueError, "images only"):
        build(VAE, Shape(3, (2, 32, 32)))
    with fails(MissingWeights, "no_such_folder", "config.json"):
        build(borrowed(tmp_path / "no_such_folder"))
    wide = {**VAE["network"], "latent_channels": 8}
    with fails(BadWeights, "latent_channels=4", "says 8"):
        build({**borrowed(folder), "network": wide})
    with fails(ValueError, "block_out_channels has 6", "norm_num_groups=4"):
        build({**VAE, "network": {**VAE["network"], "block_out_channels": [6, 8]}})
    file = folder / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    save_file({k: v for k, v in state.items() if k != "quant_conv.bias"}, file)
    with fails(BadWeights, "lacks 'quant_conv.bias'"):
        build(borrowed(folder))
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**described, "_class_name": "os.system"}))
    with fails(BadWeights, "_class_name='os.system'", "AutoencoderKL"):
        build(borrowed(folder))


def test_a_clip_is_coded_frame_by_frame():
    space = VAESpace(VAEConfig.tiny(), Shape(3, (3, 16, 16)))
    clips = torch.rand(2, 3, 3, 16, 16)
    found = space(clips)
    assert found.shape == (2, *(space.shape.channels, *space.shape.sides))
    images = space(clips[:, :, 1])
    torch.testing.assert_close(found[:, :, 1], images)
    torch.testing.assert_close(space.inverse(found)[:, :, 1], space.inverse(images))
