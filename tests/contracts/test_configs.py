"""Every YAML of configs/ is known for what it is; what trains a tokenizer keeps the contracts."""

from __future__ import annotations

import pytest
import torch

from tests.support.loading import the_same
from tests.support.recipes import (
    FILES,
    TINY,
    TRAINING,
    read_config,
    what_it_is,
    write_stand_ins,
)
from vistok.config import read_yaml, to_yaml, validate
from vistok.config.registry import build
from vistok.core.draws import Draws
from vistok.core.records import Batch
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.eval.study.study import read_study, run_config
from vistok.frozen.network import Frozen
from vistok.tokenizer import Tokenizer
from vistok.tokens import Tokens
from vistok.train.config import TrainConfig

TOKENIZERS = [name for name in TRAINING if read_config(TRAINING[name]).task.kind == "tokenizer"]
DECODERS = {name: read_config(path).task.tokenizer.decoder for name, path in TINY.items()}
CUT = [name for name, decoder in DECODERS.items() if getattr(decoder, "missing", "") == "drop"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A working directory with what the tiny recipes start from, untrained."""
    folder = tmp_path_factory.mktemp("place")
    write_stand_ins(folder / "runs")
    return folder


@pytest.fixture
def place(runs, monkeypatch):
    monkeypatch.chdir(runs)
    return runs


TEXTS = ("a cat.", "a dog.", "", "a rocket.")


def samples(name: str, count: int = 4) -> Batch:
    """Images, or clips, as the recipe's tokenizer takes them."""
    sides = read_config(TINY[name]).task.tokenizer.shape.sides
    pixels = torch.rand(count, 3, *sides, generator=torch.Generator().manual_seed(3))
    fps = torch.full((count,), 24.0) if pixels.ndim == 5 else None
    return Batch(torch.arange(count), pixels=pixels, text=TEXTS[:count], fps=fps)


def made(name: str) -> Tokenizer:
    """The tiny tokenizer, its codes taken from data as training does."""
    torch.manual_seed(0)
    tokenizer = Tokenizer(read_config(TINY[name]).task.tokenizer).eval()
    if tokenizer.quantizer.wants_data:
        with torch.no_grad():
            latents = tokenizer.latents(samples(name).pixels)
        tokenizer.quantizer.initialize(latents, Rng(0))
    return tokenizer


def condition(tokenizer: Tokenizer):
    return tokenizer.condition(TEXTS) if tokenizer.config.text is not None else None


# -- all of them -----------------------------------------------------------------------------------


def test_every_file_is_known_and_there_are_some():
    assert {what_it_is(path) for path in FILES.values()} == {"train", "launch", "study"}
    assert {"quickstart/tokenizer.yaml", "jobs/feature_net.yaml"} <= set(TRAINING)
    assert {"studies/perturbation.yaml", "probes/probe-tiny.yaml"} <= set(FILES)
    assert len(TINY) >= 10 and len(CUT) >= 2


@pytest.mark.parametrize("name", TRAINING)
def test_a_config_is_valid_and_survives_yaml(name, tmp_path):
    config = read_config(TRAINING[name])
    (tmp_path / "again.yaml").write_text(to_yaml(config))
    assert validate(TrainConfig, read_yaml(tmp_path / "again.yaml")) == config


@pytest.mark.parametrize("name", [n for n, p in FILES.items() if what_it_is(p) == "study"])
def test_every_run_of_a_study_is_a_valid_config(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a study names its training config by its shipped name
    study = read_study(FILES[name])
    assert study.runs
    for run in study.runs:
        validate(TrainConfig, run_config(study, run).model_dump(mode="json"))


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_is_built_on_the_meta_device(name):
    with torch.device("meta"):
        tokenizer = Tokenizer(read_config(TRAINING[name]).task.tokenizer)
    assert all(p.is_meta for p in tokenizer.parameters())
    assert tokenizer.spec().length > 0


# -- the tiny ones ---------------------------------------------------------------------------------


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", TINY)
def test_all_that_is_not_frozen_learns(name, bf16, place):
    """Of the whole task with every loss on: finite gradients, none missing; none all zero either,
    but for the discriminator's (its hinges pull alike at both ends as long as it knows nothing)."""
    config = read_config(TINY[name])
    torch.manual_seed(0)
    task, batch = build(config.task, None), samples(name)
    progress = Progress(config.steps - 1, config.steps)
    task.prepare(batch, Rng(0))
    for parameter in task.tokenizer.quantizer.parameters():  # codes that are latents have no loss
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    draws, handed = task.draw(batch.index, 0, progress), {}
    for phase in task.phases:
        module = task.modules[phase.module].train()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            outcome = task.step(phase, batch, draws, progress, handed)
        assert all(torch.as_tensor(value).isfinite() for value in outcome.scalars.values())
        outcome.loss.backward()
        handed |= outcome.handed
        networks = [part for part in module.modules() if isinstance(part, Frozen)]
        borrowed = {parameter for network in networks for parameter in network.parameters()}
        for key, parameter in module.named_parameters():
            if parameter in borrowed:  # the network below the heads of a discriminator
                assert not parameter.requires_grad and parameter.grad is None, key
                continue
            frozen = any(f"{key}.".startswith(f"{part}.") for part in config.task.freeze)
            if phase.module == "tokenizer" and frozen:
                assert not parameter.requires_grad and parameter.grad is None, key
                continue
            assert parameter.requires_grad and parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
            assert parameter.grad.any() or phase.module == "discriminator", key


@pytest.mark.parametrize("name", TINY)
def test_saved_and_loaded_it_is_the_same(name, place, tmp_path):
    tokenizer = made(name)
    tokenizer.save_pretrained(tmp_path)
    again = Tokenizer.from_pretrained(tmp_path)
    assert again.config == tokenizer.config
    ours, theirs = tokenizer.state_dict(), again.state_dict()
    assert set(ours) == set(theirs) and all(torch.equal(ours[key], theirs[key]) for key in ours)
    said = condition(tokenizer)
    tokens = tokenizer.encode(samples(name).pixels, condition=said)
    assert torch.equal(tokenizer.decode(tokens, said), again.eval().decode(tokens, said))
    the_same(tokenizer, again)
    half = Tokenizer.from_pretrained(tmp_path, dtype="bf16")
    said = condition(half)
    found = half.decode(half.encode(samples(name).pixels, condition=said), said)
    assert found.isfinite().all() and found.dtype == torch.float32


@pytest.mark.parametrize("name", TINY)
def test_codes_and_images_are_deterministic_and_bytes_exact(name, place):
    tokenizer = made(name).train()  # encode and decode look past that
    said, pixels = condition(tokenizer), samples(name).pixels
    one, two = (tokenizer.encode(pixels, condition=said) for _ in range(2))
    assert torch.equal(tokenizer.decode(one, said), tokenizer.decode(two, said))
    if one.indices is None:
        assert torch.equal(one.values, two.values)
        return
    assert torch.equal(one.indices, two.indices)
    spec = tokenizer.spec()
    for cut in (
        one,
        *(one.prefix(length) for length in spec.eval_lengths if length < spec.max_prefix),
    ):
        back = Tokens.from_bytes(cut.to_bytes(), spec)
        assert torch.equal(back.indices, cut.indices)
        assert torch.equal(tokenizer.decode(back, said), tokenizer.decode(cut, said))


@pytest.mark.parametrize("name", CUT)
def test_a_masked_prefix_is_a_shorter_sequence(name):
    tokenizer = made(name)
    values = tokenizer.values(tokenizer.encode(samples(name).pixels))
    for length in range(1, values.shape[1] + 1):
        present = (torch.arange(values.shape[1]) < length).expand(len(values), -1)
        with torch.no_grad():
            masked = tokenizer.reconstruct(values, present).prediction
            cut = shorter(tokenizer, length)(values[:, :length]).prediction
        assert torch.allclose(masked, cut, atol=1e-5), length
        pixels = tokenizer.output_space.inverse(masked), tokenizer.output_space.inverse(cut)
        assert torch.allclose(*pixels, atol=1e-5), length


def shorter(tokenizer: Tokenizer, length: int) -> torch.nn.Module:
    """The same decoder made for `length` latents: tables of latents keep their first rows."""
    config = tokenizer.config
    space = tokenizer.output_space.shape
    short = build(config.decoder, space, ((length,),), tokenizer.layout.dim)
    shapes = {key: len(tensor) for key, tensor in short.state_dict().items()}
    whole = tokenizer.decoder.state_dict()
    short.load_state_dict({key: tensor[: shapes[key]] for key, tensor in whole.items()})
    return short.eval()


def test_a_draw_masks_as_a_length_does():
    """Training's way to a prefix and that of `prefix` are one."""
    name = CUT[0]
    tokenizer = made(name)
    tokens = tokenizer.encode(samples(name).pixels)
    keep = torch.tensor([1, 3, 5, 8])
    with torch.no_grad():
        drawn = tokenizer(samples(name), Draws(keep=keep)).pixels.clamp(0, 1)
    for row, length in enumerate(keep.tolist()):
        assert torch.allclose(drawn[row], tokenizer.decode(tokens.prefix(length))[row], atol=1e-5)
