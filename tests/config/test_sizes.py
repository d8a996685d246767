"""Absurd sizes, names and kinds: one line from the schema, or from the estimate before building."""

import copy

import pytest
import torch

from tests.support.training import TINY
from vistok.config import ConfigError, InputError, read_yaml, validate
from vistok.config.registry import build
from vistok.generators import Generator
from vistok.tokenizer import Tokenizer
from vistok.tokens import TokenSpec
from vistok.train.config import TrainConfig
from vistok.train.cost import room


@pytest.mark.parametrize(
    "word",
    [
        "task.tokenizer.image_size=1000000",
        "task.tokenizer.image_size=0",
        "task.tokenizer.image_size=[8,-8]",
        "task.tokenizer.frames=1000000000",
        "task.tokenizer.encoder.latents.count=1000000000",
        "task.tokenizer.encoder.transformer.depth=1000000000",
        "task.tokenizer.encoder.transformer.width=1099511627776",
        "task.tokenizer.encoder.patches.size=1000000",
        "task.tokenizer.quantizer={kind: vq, codebook_size: 1099511627776}",
        "task.tokenizer.quantizer={kind: vq, dim: 1000000000}",
        "task.tokenizer.quantizer={kind: lfq, bits: 40}",
        "task.tokenizer.quantizer={kind: binary, bits: 1000000000}",
        "task.tokenizer.quantizer={kind: kl, dim: 1000000000}",
        "task.tokenizer.quantizer={kind: fsq, levels: [1099511627776]}",
        "task.tokenizer.decoder={kind: cnn, conv: {channel_mult: [1, -1]}}",
        "task.tokenizer.decoder={kind: cnn, conv: {blocks: 1000000000}}",
        "task.tokenizer.regularizers=[{kind: latent_perturbation, neighbours: 1000000000}]",
        "data.size=1000000",
        "data={kind: folder, path: x, size: 1000000}",
        "batch_size=1000000000",
        "steps=99999999999999999999",
        "out=runs/{foo}",
        "out=runs/{name",
        "out=runs/{name.__class__}",
        "out=runs/{0}",
        'out="runs/\\0"',
        "out=",
        "name=''",
        "seed=4294967296",
    ],
)
def test_the_schema_refuses_it_in_one_line(word, fails):
    key = word.partition("=")[0].split(".")[-1].replace("quantizer", "")
    with fails(ConfigError, f"q: .*{key}"):
        validate(TrainConfig, read_yaml("quickstart", [word]), "q")


def test_only_the_name_is_filled_into_the_folder():
    config = validate(TrainConfig, {**TINY, "out": "out/{name}/a", "name": "b{0}"})
    assert config.folder == "out/b{0}/a"


def test_too_many_patches_are_one_line(tree, fails):
    from vistok.tokenizer import TokenizerConfig

    data = {**tree(), "image_size": 16384}
    with fails(InputError, r"patches.size=4: 16,777,216 patches .* 262,144 or fewer"):
        Tokenizer(validate(TokenizerConfig, data))


@pytest.mark.parametrize("kind", [["gpt"], {"a": 1}, 5, None, True])
@pytest.mark.parametrize("place", ["task", "tokenizer", "loss"])
def test_a_kind_that_is_no_text(kind, place, fails):
    run = copy.deepcopy(TINY)
    where = {
        "task": run["task"],
        "tokenizer": run["task"]["tokenizer"]["quantizer"],
        "loss": run["task"].setdefault("losses", [{}])[0],
    }[place]
    where["kind"] = kind
    with fails(ConfigError, "c: .*kind"):
        validate(TrainConfig, run, "c")


# Within the schema, and beyond any machine: 35 billion weights in each of 32 layers.
HUGE = {"width": 2**14, "depth": 32, "heads": 64, "mlp_ratio": 64}


def test_networks_beyond_the_memory_are_told_before_they_are_built(monkeypatch, fails):
    run = copy.deepcopy(TINY)
    config = validate(TrainConfig, run)
    room.check_room(config.task, None, torch.device("cpu"))
    monkeypatch.setattr(room, "memory_of", lambda device: 2**16)
    with fails(
        ConfigError, r"task: weights and gradients take .* KiB, .*tokenizer.*64 KiB of memory"
    ):
        room.check_room(config.task, None, torch.device("cpu"))
    room.check_room(config.task, None, torch.device("cpu"), shares=100)


def test_a_run_beyond_the_memory_ends_in_one_line(tmp_path, monkeypatch, fails):
    from vistok.train.loop import train

    monkeypatch.chdir(tmp_path)
    run = copy.deepcopy(TINY)
    run["task"]["tokenizer"]["encoder"]["transformer"] = HUGE
    with fails(ConfigError, "task: weights and gradients take .* TiB"):
        train(validate(TrainConfig, run))


def test_a_generator_of_too_many_codes_makes_no_table_first(fails):
    spec = TokenSpec(blocks=((4,),), vocab=(2**30,), dim=30)
    task = {"kind": "generator", "generator": {"kind": "autoregressive"}}
    config = validate(TrainConfig, {"task": task}).task.generator
    with fails(InputError, r"a softmax over 1073741824 codes is too wide .*regroup"):
        build(config, spec)
    small = config.model_copy(update={"regroup": (2**15, 2**15)})
    with torch.device("meta"):
        assert isinstance(build(small, spec), Generator)
