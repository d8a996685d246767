"""Plans against what is really built, counted and kept in memory."""

from __future__ import annotations

import copy
import importlib
import json
import re
import sys
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner

from tests.support.recipes import TRAINING, read_config
from tests.support.training import STATEFUL, TINY, cache_tree
from vistok.config import ConfigError, read_yaml, validate
from vistok.config.registry import build
from vistok.core.records import Batch
from vistok.core.schedules import Progress
from vistok.data.token_cache_writer import TokenCacheWriter
from vistok.eval.speed.clock import flops
from vistok.frozen.vit import FrozenViTConfig
from vistok.tokenizer import Tokenizer
from vistok.tokens import Tokens, TokenSpec
from vistok.train.config import TrainConfig
from vistok.train.cost.plan import make_plan, stages_of
from vistok.train.cost.planned import JobPlan
from vistok.train.cost.trace import CostTrace, build_hollow
from vistok.train.optim.optimizers import make_optimizers, with_lr

ROOT = Path(__file__).parents[3]

_written: list[str] | None = None


def _watch_disk(event: str, args: tuple) -> None:
    if _written is None:
        return
    if event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        if "__pycache__" not in str(args[0]) and not isinstance(args[0], int):  # no pipe
            _written.append(str(args[0]))
    elif event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"):
        if "__pycache__" not in str(args[0]):
            _written.append(f"{event} {args[0]}")


sys.addaudithook(_watch_disk)


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """An empty folder as the working directory, without data or weights; nothing may be written."""
    global _written
    importlib.import_module("torch._dynamo")  # makes a folder for its cache when it is imported
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "none"))
    monkeypatch.delenv("VISTOK_WEIGHTS", raising=False)
    _written = []
    yield tmp_path
    written, _written = _written, None
    assert written == []
    assert not list(tmp_path.iterdir())


def config_of(tree: dict, **overrides) -> TrainConfig:
    return validate(TrainConfig, {**copy.deepcopy(tree), **overrides})


def real(config: TrainConfig, data=None):
    """(task, batch, draws, progress) as a step of training has them, on this CPU."""
    torch.manual_seed(0)
    task = build(config.task, data)
    count = config.batch_size // config.accumulate
    progress = Progress(config.steps, config.steps)
    if data is None:
        pixels = torch.rand(count, 3, *config.task.tokenizer.image_size)
        batch = Batch(torch.arange(count), pixels=pixels)
    else:
        rows = torch.stack([data[i].tokens for i in range(count)])
        labels = torch.tensor([data[i].label for i in range(count)])
        batch = Batch(torch.arange(count), tokens=Tokens(data.spec, indices=rows), label=labels)
    from vistok.core.rng import Rng

    task.prepare(batch, Rng(0, "step"))
    for module in [*task.modules.values(), *task.buffers.helpers]:
        module.train()
    return task, batch, task.draw(batch.index, config.seed, progress), progress


def saved_bytes(task, batch, draws, progress, bf16: bool) -> int:
    """What saved_tensors_hooks sees in a real step: the worst phase, each storage once."""
    modules = [*task.modules.values(), *task.buffers.helpers]
    known = {
        t.untyped_storage().data_ptr() for m in modules for t in (*m.parameters(), *m.buffers())
    }
    worst, handed = 0, {}
    for phase in task.phases:
        kept = {}

        def pack(tensor, kept=kept):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in known:
                kept[storage.data_ptr()] = storage
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                handed |= task.step(phase, batch, draws, progress, handed).handed
        worst = max(worst, sum(storage.nbytes() for storage in kept.values()))
    return worst


# Recipes that differ in the size of the codebook alone cost alike: the second of each is planned.
LARGER = {
    f"tokenizers/{name}_{size}.yaml": f"tokenizers/{name}_4096.yaml"
    for name, sizes in {
        "imagefolder/msbr10p2": (16384,),
        "imagefolder/msvr10p2": (8192, 16384),
        "xqgan/vp2": (16384,),
    }.items()
    for size in sizes
}


def but_for_the_codebook(name: str) -> str:
    text = read_config(TRAINING[name]).model_dump_json(exclude={"name", "out"})
    return re.sub(r'"(codebook_size|bits)":\d+', "", text)


@pytest.mark.parametrize("name", LARGER)
def test_recipes_of_other_codebooks_are_otherwise_equal(name):
    assert but_for_the_codebook(name) == but_for_the_codebook(LARGER[name])


def shallow(task) -> list[str]:
    """Changes that leave a block or two of each network: all parts of a long search for the nearest
    codes are alike, and so are all blocks, scales and bits, and nothing here is said of their
    number."""
    changes = ["batch_size=4", "accumulate=1"]
    for side in ("encoder", "decoder"):
        part = getattr(task.tokenizer, side)
        if part.kind in ("vit", "flow_vit", "tracks"):
            blocks = max(getattr(part, "taps", {}).values(), default=1)
            changes.append(f"task.tokenizer.{side}.transformer.depth={blocks}")
        if part.kind == "pyramid" and not part.taps:
            grids = len(part.resample_after)
            after = ",".join(str(block) for block in range(1, grids + 1))
            changes.append(f"task.tokenizer.{side}.transformer.depth={grids + 1}")
            changes.append(f"task.tokenizer.{side}.resample_after=[{after}]")
        if part.kind == "tracks":
            changes += [f"task.tokenizer.{side}.count=8"]
        if part.kind == "clusters":
            changes += [
                f"task.tokenizer.{side}.{word}" for word in ("steps=1", "count=3", "least=2")
            ]
        if part.kind == "qformer":
            distilled = getattr(part, "distill", None)
            blocks = 1 if distilled is None else distilled.depth
            changes.append(f"task.tokenizer.{side}.qformer.depth={blocks}")
    if task.tokenizer.input_space.kind == "features":
        changes.append("task.tokenizer.input_space.depth=1")
    path, quantizer = "task.tokenizer.quantizer", task.tokenizer.quantizer
    while hasattr(quantizer, "quantizer"):
        if quantizer.kind == "multi_scale":  # what level dropout always keeps, and the last
            scales = [*quantizer.scales[:3], quantizer.scales[-1]]
            changes.append(f"{path}.scales={json.dumps(scales)}")
        path, quantizer = f"{path}.quantizer", quantizer.quantizer
    if getattr(quantizer, "entropy_group", None) == 1:  # all bits at once, not one after the other
        changes.append(f"{path}.entropy_group={quantizer.bits}")
    for place, loss in enumerate(task.losses):
        if isinstance(getattr(loss, "network", None), FrozenViTConfig):
            kind = f"task.losses.{place}.network.kind=vit"
            changes += [kind, f"task.losses.{place}.network.depth=1"]
        if loss.kind == "ar_prior":
            changes.append(f"task.losses.{place}.transformer.depth=1")
        if getattr(getattr(loss, "discriminator", None), "kind", "") == "clip_vit":
            changes.append(f"task.losses.{place}.discriminator.depth=1")
        if getattr(getattr(loss, "discriminator", None), "kind", "") == "dino":
            dino = f"task.losses.{place}.discriminator"
            changes += [f"{dino}.network.depth=1", f"{dino}.readouts=[0,1]"]
    return changes


@pytest.mark.parametrize("name", [name for name in TRAINING if name not in LARGER])
def test_every_recipe_has_a_plan_without_data_and_weights(name, empty, fails):
    config = read_config(TRAINING[name])
    if config.task.kind == "tokenizer":
        config = read_config(TRAINING[name], *shallow(config.task))
    teachers = [loss for loss in getattr(config.task, "losses", ()) if loss.kind == "proxy_codes"]
    if teachers and teachers[0].teacher.startswith("runs/"):
        with fails(ConfigError, "runs/tiny_maskgit_vqgan", "expected a"):
            make_plan(config)
        return
    if config.task.kind in ("classifier", "generator"):
        with fails(ConfigError, "^data: ", "takes its shape from its data"):
            make_plan(config)
        return
    plan = make_plan(config)
    if config.task.kind == "cache" and config.task.tokenizer == "runs/quickstart":
        assert "task.tokenizer: runs/quickstart is not here" in plan.notes[0]
    elif isinstance(plan, JobPlan):
        assert plan.folder == config.folder
    else:
        assert plan.flops > 0 and plan.memory.total > 0
        assert (plan.schedule.epochs is None) == (config.data.kind != "photos")


def test_foreign_weights_and_data_that_are_not_here(empty):
    tree = copy.deepcopy(TINY)
    tree["data"] = {"kind": "folder", "path": "nowhere", "val_share": 0.1, "size": 64}
    tree["task"]["tokenizer"]["image_size"] = 64
    tree["task"]["losses"] = [
        {"kind": "reconstruction"},
        {"kind": "perceptual", "network": "lpips-vgg"},
    ]
    tree["task"]["init"] = {"path": "runs/elsewhere"}
    plan = make_plan(config_of(tree))
    vgg = next(part for part in plan.parts if part.name == "lpips-vgg")
    assert (vgg.trained, vgg.frozen) == (0, 14_716_160)  # 14,714,688 of VGG-16, 1,472 of the heads
    assert vgg.flops > 1e9
    assert len(plan.notes) == 2
    assert plan.notes[0].startswith("data: not found here (") and "epochs unknown" in plan.notes[0]
    assert "runs/elsewhere" in plan.notes[1]


def test_parameters_are_those_of_the_real_quickstart():
    config = validate(TrainConfig, read_yaml(TRAINING["quickstart/tokenizer.yaml"]))
    task = build(config.task, None)
    plan = make_plan(config)
    parts = {part.name: part for part in plan.parts}
    assert {n: parts[n].trained for n in task.tokenizer.part_parameters()} == (
        task.tokenizer.part_parameters()
    )
    frozen = sum(p.numel() for p in task.losses.parameters())
    assert parts["vistok-cnn"].frozen == frozen > 0
    spec = task.tokenizer.spec()
    assert (plan.spec.length, plan.spec.bits) == (spec.length, spec.bits) == (16, 192)


@pytest.mark.parametrize("tree", [TINY, STATEFUL], ids=["tiny", "stateful"])
def test_flops_are_those_of_real_steps(tree):
    config = config_of(tree)
    task, batch, draws, progress = real(config)
    plan, handed = make_plan(config), {}
    for phase in task.phases:

        def step(phase=phase):
            outcome = task.step(phase, batch, draws, progress, handed)
            outcome.loss.backward()
            handed.update(outcome.handed)

        work = plan.work[phase.module]
        counted = flops(step) / len(batch.index)
        assert work.forward + work.backward == pytest.approx(counted, rel=1e-9)
    tokenizer = task.tokenizer.requires_grad_(False)
    forward = flops(lambda: tokenizer(batch, draws)) / len(batch.index)
    assert plan.forward == pytest.approx(forward, rel=1e-9)


def test_a_generator_is_counted_like_a_real_one(tmp_path):
    spec = TokenSpec(blocks=((6,),), vocab=(16,), dim=4)
    rows = torch.randint(0, 16, (24, 6, 1), generator=torch.Generator().manual_seed(0))
    with TokenCacheWriter(
        tmp_path / "tokens", spec, 24, source={}, tokenizer="t", sha256="0", classes=("a", "b")
    ) as writer:
        writer.write(Tokens.of(spec, rows), torch.arange(24) % 2)
    width = {"width": 16, "depth": 2, "heads": 2}
    config = config_of(
        TINY,
        task={"kind": "generator", "generator": {"kind": "autoregressive", "transformer": width}},
        data={"kind": "tokens", "path": str(tmp_path / "tokens"), "val_share": 0.2},
    )
    data = build(config.data).open("train")
    task, batch, draws, progress = real(config, data)
    plan = make_plan(config)
    assert plan.parts[0].trained == sum(p.numel() for p in task.generator.parameters())
    step = lambda: task.step(task.phases[0], batch, draws, progress, {}).loss.backward()
    assert plan.stages[0].flops * len(batch.index) == pytest.approx(flops(step), rel=1e-9)
    assert plan.sides is None and plan.spec == spec
    assert plan.schedule.epochs == 12 * 8 / len(data)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["quickstart", "stateful"])
def test_activations_are_what_a_real_step_keeps(name, precision):
    tree = STATEFUL if name == "stateful" else read_yaml(TRAINING["quickstart/tokenizer.yaml"])
    config = config_of(tree, precision=precision, batch_size=8)
    measured = saved_bytes(*real(config), precision == "bf16")
    memory = make_plan(config).memory
    assert memory.activations_plain == pytest.approx(measured, rel=0.2)
    assert memory.activations <= memory.activations_plain


@pytest.mark.parametrize("kind", ["adamw", "sgd", "muon"])
def test_weights_gradients_optimizer_and_ema_are_counted_exactly(kind):
    config = config_of(STATEFUL, optimizer={"kind": kind})
    task, batch, draws, progress = real(config)
    size = lambda tensors: sum(t.numel() * t.element_size() for t in tensors)
    state, gradients, handed = 0, 0, {}
    for phase in task.phases:
        module = task.modules[phase.module]
        outcome = task.step(phase, batch, draws, progress, handed)
        outcome.loss.backward()
        handed |= outcome.handed
        made = make_optimizers(with_lr(config.optimizer, phase.lr), module, phase.lr_factors)
        for optimizer in made:
            optimizer.step()
        state += size(
            t
            for optimizer in made
            for held in optimizer.state.values()
            for t in held.values()
            if isinstance(t, torch.Tensor)
        )
        gradients += size(p for p in module.parameters() if p.requires_grad)
    memory = make_plan(config).memory
    assert memory.optimizer == state
    assert memory.gradients == gradients
    everything = [t for m in task.modules.values() for t in (*m.parameters(), *m.buffers())]
    assert memory.weights == size(everything)
    assert memory.ema == size([*task.tokenizer.parameters(), *task.tokenizer.buffers()])


def test_a_checkpoint_is_as_large_as_planned(run):
    folder = run(STATEFUL)
    files = (folder / "checkpoints" / "step_00000012").glob("*.safetensors")
    written = sum(file.stat().st_size for file in files)
    planned = make_plan(config_of(STATEFUL)).memory.checkpoint
    assert planned == pytest.approx(written, rel=0.15)  # headers: large beside tiny weights
    assert planned < written


def test_titok_s_costs_what_it_should():
    """117 GFLOP in its layers' products and 14.5 in attention's own two, less what the last blocks
    leave out: they make the positions that are wanted alone, 128 latents and 256 patches of 384."""
    transformer = {"width": 512, "depth": 8, "heads": 8}
    both = {"kind": "vit", "patches": {"size": 16}, "transformer": transformer}
    tree = copy.deepcopy(TINY)
    tree["task"]["tokenizer"] = {
        "image_size": 256,
        "encoder": {**both, "latents": {"count": 128}},
        "quantizer": {"kind": "vq", "codebook_size": 4096, "dim": 12},
        "decoder": both,
    }
    config = config_of(tree)
    (stage,) = stages_of(config, None)
    length, width, layers = 256 + 128, 512, 16
    attention = 3 * layers * 4 * length**2 * width
    layer = 3 * layers * 2 * length * 12 * width**2
    unwanted = 3 * 2 * length * 9 * width**2 + attention / layers
    assert stage.flops == pytest.approx(125.15e9, rel=0.01)
    assert stage.flops + unwanted - attention == pytest.approx(119e9, rel=0.02)
    assert stage.flops + unwanted - attention == pytest.approx(layer, rel=0.01)


def test_stages_follow_what_starts_late():
    plan = make_plan(config_of(STATEFUL))
    assert [stage.start for stage in plan.stages] == [0, 2, 3]
    costs = [stage.flops for stage in plan.stages]
    assert costs == sorted(costs)
    assert plan.flops == (2 * costs[0] + costs[1] + 9 * costs[2]) * 8
    short = make_plan(config_of(STATEFUL, steps=3, warmup=1))
    assert [stage.start for stage in short.stages] == [0, 2]
    assert short.notes == ("task.losses.1.start=3 is never reached: the run has 3 steps",)


def test_the_arithmetic_of_steps(fails):
    config = config_of(TINY, batch_size=16, accumulate=2, validate_every=5, save_every=4)
    plan = make_plan(config, world=4)
    s = plan.schedule
    assert (s.samples, s.epochs, s.per_process, s.micro) == (192, 1.92, 4, 2)
    assert (s.validations, s.checkpoints, s.kept, s.val_count) == (3, 3, 3, 16)
    alone, cut = make_plan(config).memory, make_plan(config, world=4, sharded=True).memory
    assert plan.memory.gradients == 2 * alone.gradients
    assert cut.gradients == -(-alone.gradients // 4) and cut.optimizer < alone.optimizer / 3.9
    assert cut.weights == alone.weights - alone.gradients + cut.gradients
    assert (cut.ema, cut.checkpoint) == (alone.ema, alone.checkpoint)
    with fails(ConfigError, "batch_size=16", "3 processes", "multiple of 6"):
        make_plan(config, world=3)


def test_what_cannot_run_is_refused_dry_too(fails):
    tree = copy.deepcopy(TINY)
    tree["task"]["losses"] = [{"kind": "adversarial", "discriminator": {"kind": "patchgan"}}] * 2
    tree["task"]["tokenizer"]["image_size"] = tree["data"]["size"] = 64
    with fails(ConfigError, "gives the term 'adversarial', which another loss gives"):
        make_plan(config_of(tree))


def test_a_cache_of_data_of_another_size_is_refused_dry_too(tmp_path, fails):
    tokenizer = Tokenizer(validate(TrainConfig, TINY).task.tokenizer)
    tokenizer.save_pretrained(tmp_path / "model")
    tree = cache_tree(tmp_path / "model") | {"data": {**TINY["data"], "size": 64}}
    with fails(ConfigError, "data: gives images of 64x64", "takes images of 32x32"):
        make_plan(validate(TrainConfig, tree))


def test_a_cost_trace_leaves_generators_and_the_task_alone():
    config = config_of(STATEFUL)
    before = torch.get_rng_state()
    stages_of(config, None)
    assert torch.equal(torch.get_rng_state(), before)
    task = build_hollow(config.task, None)
    assert all(p.is_meta for m in task.modules.values() for p in m.parameters())
    CostTrace(task, 0)
    assert build(config.task, None).tokenizer.encoder.latent_tokens.device.type == "cpu"


def test_the_command_prints_config_and_plan_and_stops(empty, tmp_path_factory):
    from vistok.train.__main__ import main

    path = tmp_path_factory.mktemp("configs") / "tiny.yaml"
    global _written
    _written = None
    path.write_text(yaml.safe_dump(TINY))
    _written = []
    result = CliRunner().invoke(main, [str(path), "steps=24", "--dry-run"], env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    text, _, plan = result.output.partition("\n\n")
    assert validate(TrainConfig, yaml.safe_load(text)) == config_of(TINY, steps=24)
    assert "192 = 24 steps x 8" in plan
    assert max(map(len, result.output.splitlines())) <= 80
