"""Contexts without training: photos of a few pixels, and two saved runs."""

import json
from types import SimpleNamespace

import pytest
import yaml

from tests.support.eval_browser import Browser, chromium
from tests.support.training import count_no_flop
from vistok.data import Photos, PhotosConfig
from vistok.eval.config import PROTOCOLS
from vistok.eval.context import Context
from vistok.eval.images import Views, exact
from vistok.eval.protocols.base import Job
from vistok.frozen import feature_network, perceptual_network


@pytest.fixture(scope="session")
def features():
    return feature_network("vistok-cnn")


@pytest.fixture(scope="session")
def perceptual():
    return perceptual_network("vistok-cnn")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium, which all tests of a file share."""
    chromium()
    with Browser(tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.fixture
def context(features, perceptual):
    """context(tokenizer, count, batch) -> a context on `count` photos of the tokenizer's size."""

    def make(tokenizer, count=24, batch=16, name="tiny"):
        size = tokenizer.config.image_size[0]
        data = Photos(PhotosConfig(size=size, val_count=count)).open("val")
        run = SimpleNamespace(name=name, sha256="0" * 64, tokenizer=tokenizer)
        return Context(run, Views(data, batch), features, perceptual)

    return make


@pytest.fixture
def measure():
    """measure(context, protocol, data, **config) -> rows of one protocol, in no evaluation."""

    def run(context, name, data=None, **config):
        protocol = PROTOCOLS[name]
        context.job = Job(protocol, protocol.Config(**config), data=data)
        with exact():
            return protocol.run(context, context.job.config)

    return run


@pytest.fixture
def runs(tmp_path, make_tokenizer):
    """A tokenizer's run folder and that of a generator of its tokens."""
    from vistok.generators import autoregressive
    from vistok.storage.weights import sha256

    tokenizer = make_tokenizer("fsq")
    first, second = tmp_path / "tok", tmp_path / "gen"
    tokenizer.save_pretrained(first / "model")
    config = {"name": "tok", "data": {"kind": "photos", "size": 8, "val_count": 24}}
    (first / "config.yaml").write_text(yaml.safe_dump(config))
    lines = [
        {"step": s, "split": split, "loss": 1 / s, "l2": 0.5 / s, "psnr": 10.0 + s, "psnr@1": 9.0}
        for s in (1, 2, 3)
        for split in ("train", "val")
    ]
    (first / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    transformer = {"width": 16, "depth": 1, "heads": 2}
    model = autoregressive.Autoregressive(
        autoregressive.AutoregressiveConfig(transformer=transformer, condition={"classes": 7}),
        tokenizer.spec(),
    )
    model.classes = ("astronaut", "chelsea", "coffee", "hubble", "ihc", "retina", "rocket")
    model.tokenizer = {"name": "tok", "sha256": sha256(first / "model" / "model.safetensors")}
    model.save_pretrained(second / "model")
    (second / "config.yaml").write_text(yaml.safe_dump({"name": "gen"}))
    return first, second


@pytest.fixture
def config():
    """config("limit=12", "pfid.mode=quick") -> an evaluation's config, on the CPU."""

    def make(*overrides):
        from vistok.eval.config import EvalConfig, read_config

        return read_config(EvalConfig, ["device=cpu", *overrides])

    return make


@pytest.fixture
def small_probe(tmp_path):
    """The recipe of a probe that trains in a moment."""
    path = tmp_path / "small.yaml"
    generator = {"kind": "autoregressive", "transformer": {"width": 16, "depth": 1, "heads": 2}}
    recipe = {"task": {"kind": "generator", "generator": generator}, "steps": 2, "batch_size": 8}
    path.write_text(yaml.safe_dump({**recipe, "ema": None, "trackers": []}))
    return path


@pytest.fixture
def in_process(monkeypatch):
    """Trainings run in this process, which saves the start of one; the names of those that ran."""
    from vistok.config import read_yaml, validate
    from vistok.train.config import TrainConfig
    from vistok.train.loop import train

    count_no_flop(monkeypatch)
    ran = []

    def work(command, lock, on_cpu):
        for name, value in lock.lend().items():
            monkeypatch.setenv(name, value)
        config = validate(TrainConfig, read_yaml(command[-1]))
        train(config)
        ran.append(config.name)
        return 0, ""

    monkeypatch.setattr("vistok.eval.systems.training._run", work)
    return ran
