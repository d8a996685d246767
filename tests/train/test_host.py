"""A training step waits for the device once: to read whether it is finite.

The meta device stands in for a GPU: its tensors have no numbers, so that whoever asks for one is
caught, and so is a copy from the host that is not `non_blocking`.
"""

from __future__ import annotations

import copy
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.support.recipes import TINY as RECIPES
from tests.support.recipes import write_stand_ins
from tests.support.training import STATEFUL, TINY, forget_accelerate
from vistok.config import read_yaml, validate
from vistok.config.registry import build
from vistok.core.draws import Draws
from vistok.core.records import Latents
from vistok.core.rng import Rng
from vistok.data import TokenCacheWriter, to_device
from vistok.frozen import text
from vistok.quantizers.atoms.vq import VQ, VQConfig
from vistok.tokens import Tokens, TokenSpec, keep_mask
from vistok.train.config import TrainConfig
from vistok.train.cost.throughput import Throughput
from vistok.train.launch import make_accelerator
from vistok.train.loop import Loop
from vistok.train.monitoring.collapse import UsageWindow
from vistok.train.monitoring.logger import Logger
from vistok.train.optim.gradients import norms_and_clip

META = torch.device("meta")
ITEM = torch.ops.aten._local_scalar_dense.default
MOVES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class Waits(TorchDispatchMode):
    """Counts what would make the host wait: `.reads` of numbers, `.copies` (their operators)."""

    def __init__(self) -> None:
        super().__init__()
        self.reads, self.copies = 0, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        if func is ITEM and given[0].device == META:
            self.reads += 1
            return 0
        if func in MOVES and given[0].device == META and str(kwargs.get("device")) == "cpu":
            self.reads += 1
            return torch.zeros(given[0].shape)  # everything is finite
        out = func(*args, **kwargs)
        made = [x for x in tree_leaves(out) if isinstance(x, torch.Tensor)]
        # A pointwise kernel takes a number of the host along as an argument, and waits for nothing.
        free = torch.Tag.pointwise in func.tags
        host = [x for x in given if x.device.type == "cpu" and (x.ndim or not free)]
        if host and any(x.device == META for x in (*given, *made)) and not soon(func, args, kwargs):
            self.copies.append(str(func))
        return out


def soon(func, args, kwargs) -> bool:
    """Whether the copy is asked for without waiting."""
    return func in MOVES and bool(kwargs.get("non_blocking", len(args) > 2 and args[2]))


@pytest.fixture
def watched(tmp_path, monkeypatch):
    """watched(tree, steps) trains on the meta device; (steps, Waits)."""
    real = torch.autocast
    on_cpu = lambda device_type, *args, **kwargs: real(
        "cpu" if device_type == "meta" else device_type, *args, **kwargs
    )
    monkeypatch.setattr(torch, "autocast", on_cpu)

    def go(tree: dict, steps: int = 4) -> tuple[int, Waits]:
        forget_accelerate()
        tree = {**copy.deepcopy(tree), "out": str(tmp_path / "run"), "log_every": 1000}
        config = validate(TrainConfig, {**tree, "save_every": 0, "grid_every": 0})
        accelerator = make_accelerator(config)
        accelerator.state.device = META
        folder = Path(config.folder)
        folder.mkdir(parents=True)
        data = build(config.data)
        task = build(config.task, data.open("train"))
        # Nothing before the first step is tested, and codebooks need no data here.
        monkeypatch.setattr(type(task), "wants_data", False)
        loop = Loop(config, task, data.open("train"), data.open("val"), accelerator, folder)
        loop._begin()
        loop.logger = Logger(accelerator, folder, config, 0, Throughput())
        loader = iter(source := loop._loader(workers=0))
        for count in (1, steps):  # the first step is not looked at: it fetches text encoders
            first = loop.state.step
            with Waits() as waits:
                for batch in islice(loader, count):
                    loop._train_step(to_device(batch, loop.device), source)
        loop.logger.close()
        assert loop.state.skipped == 0
        return loop.state.step - first, waits

    yield go
    forget_accelerate()


def check(steps: int, waits: Waits) -> None:
    assert waits.reads == steps == 4
    assert not waits.copies, waits.copies


def with_parts(top: dict | None = None, **parts) -> dict:
    tree = copy.deepcopy(TINY)
    tree["task"]["tokenizer"] |= parts
    return tree | (top or {})


PERTURBED = [{"kind": "latent_perturbation", "neighbours": 4, "proportion": 0.5}]
PERCEPTUAL = [
    {"kind": "reconstruction", "l1": 1.0},
    {"kind": "perceptual", "network": "vistok-cnn", "weight": 0.1},
]
TREES = {
    "vq-ema-revival-perturbation-gan": STATEFUL | {"ema": 0.9, "clip": 1.0},
    "vq-clustering": with_parts(
        quantizer={"kind": "vq", "codebook_size": 16, "dim": 4, "cluster": True, "l2_norm": True}
    ),
    "fsq": with_parts(regularizers=PERTURBED),
    "lfq": with_parts(quantizer={"kind": "lfq"}, regularizers=PERTURBED),
    "binary": with_parts(quantizer={"kind": "binary"}, regularizers=PERTURBED),
    "kl": with_parts(quantizer={"kind": "kl"}),
    "accumulated-muon": with_parts({"accumulate": 2, "optimizer": {"kind": "muon"}, "ema": 0.9}),
    "bf16-perceptual": with_parts({"precision": "bf16", "task": {**TINY["task"]}}),
}
TREES["bf16-perceptual"]["task"]["losses"] = PERCEPTUAL


@pytest.mark.parametrize("name", TREES)
def test_a_tokenizer(watched, name):
    check(*watched(TREES[name]))


@pytest.mark.parametrize("name", ["titok_stage1", "titok_stage2", "tatitok_vq"])
def test_a_recipe(watched, tmp_path, monkeypatch, name):
    """Proxy codes and a teacher, a frozen encoder, and CLIP in every step."""
    tree = read_yaml(RECIPES[name])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(text, "_KEPT", 0)
    write_stand_ins(tmp_path / "runs")
    check(*watched(tree))


def test_a_generator(watched, tmp_path):
    spec = TokenSpec(blocks=((6,),), vocab=(16,), dim=4)
    about = {"source": {}, "tokenizer": "t", "sha256": "0", "classes": ("a", "b")}
    with TokenCacheWriter(tmp_path / "tokens", spec, 24, **about) as writer:
        writer.write(
            Tokens.of(spec, torch.zeros(24, 6, 1, dtype=torch.int64)), torch.arange(24) % 2
        )
    width = {"width": 16, "depth": 1, "heads": 2}
    tree = TINY | {
        "task": {
            "kind": "generator",
            "generator": {"kind": "autoregressive", "transformer": width},
        },
        "data": {"kind": "tokens", "path": str(tmp_path / "tokens"), "val_share": 0.2},
    }
    check(*watched(tree))


def test_a_classifier(watched):
    network = {"kind": "resnet9", "widths": [8, 8, 8, 8], "classes": 7}
    tree = TINY | {
        "task": {"kind": "classifier", "network": network},
        "optimizer": {"kind": "sgd"},
        "ema": None,
    }
    check(*watched(tree))


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="a torch without CUDA")
def test_what_torch_does_otherwise_on_cuda(monkeypatch):
    """Fake tensors say "cuda" without a GPU, but have no backward pass. Unlike meta's, `x[i] = 1`
    and `torch.tensor(1, device=...)` are seen to wait."""
    cuda = torch.device("cuda", 0)
    monkeypatch.setattr("tests.train.test_host.META", cuda)
    spec = TokenSpec(blocks=((2,), (3,)), vocab=(16,), prefix="block")
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), Waits() as waits:
        with cuda:
            config = VQConfig(codebook_size=16, dim=4, update="ema", revive_below=0.5)
            quantizer, window = VQ(config).train(), UsageWindow(spec)
            z = torch.empty(3, 5, 4)
            weight = torch.nn.Linear(4, 4)
        waits.copies.clear()
        move = lambda tensor: tensor.to(cuda, non_blocking=True)
        draws = Draws(ranks=torch.zeros(3, 5, 1, dtype=torch.int64), top_rank=3).map(move)
        quantized = quantizer(Latents(z, ((5,),)), draws)
        quantizer.remember(quantized)
        window.add(quantized.indices)
        keep_mask(spec, z[:, 0, 0].long(), 3, cuda)
        quantizer.after_step(Rng(0))
        weight.weight.grad = torch.empty_like(weight.weight)
        norms_and_clip(weight, 1.0)
        assert not waits.copies and not waits.reads
        window.seen[quantized.indices.flatten()] = True
        torch.tensor([1.0], device=cuda)
        assert len(waits.copies) == 2


def test_who_asks_is_caught(watched, monkeypatch):
    """The witness itself: a number that is read, and copies that wait."""
    from vistok.train.tasks.losses import Losses

    given = Losses.terms

    def curious(self, reconstruction, batch, progress):
        terms = given(self, reconstruction, batch, progress)
        float(terms["loss"].detach())
        torch.ones(2).to(META)
        reconstruction.target[torch.arange(2)]
        return terms

    monkeypatch.setattr(Losses, "terms", curious)
    steps, waits = watched(TINY)
    assert waits.reads == 2 * steps
    assert {name.split(".")[1] for name in waits.copies} == {"_to_copy", "index"}
