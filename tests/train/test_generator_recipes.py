"""The tiny recipes of generators, by the commands that their comments name, on the tokens of
untrained tokenizers, whose neighbors depend on each other already."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner
from safetensors.torch import load_file

from tests.support.generators import held
from tests.support.recipes import TINY, TINY_GENERATORS, TRAINING, read_config, write_clip
from tests.support.training import command, count_no_flop, forget_accelerate, lines, rewound
from vistok.config.registry import build
from vistok.core.records import Condition
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.data import TokenCache
from vistok.data.batch import to_device
from vistok.data.loading.loader import EvalLoader
from vistok.generators import load_generator
from vistok.tokenizer import Tokenizer
from vistok.tokens import Tokens
from vistok.train.__main__ import main

MARGIN = 0.3  # nats per position by which a generator beats the frequencies of the codes
TEXT = "{network: clip, path: runs/tiny_clip, layer: penultimate, pooled: end, length: 12}"
STEPS = 70  # a third of the recipe's are enough
# Tokens of a scale know each other by earlier scales alone; those of tokenbridge have four numbers;
# a velocity first learns how far its noise is from zero, then what other cells say.
LONGER = {"xar": 140, "var": 150, "star": 150, "tokenbridge": 150}
# star trains on fewer positions, without a modulation; codes of a window of token_shuffle know
# nothing of each other, which is most of what there is to know here; the masks of tokenbridge hide
# most positions.
MARGINS = {"star": 0.1, "token_shuffle": 0.03, "tokenbridge": 0.1}
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _count_no_flop(monkeypatch):
    count_no_flop(monkeypatch)


def train(*words: object) -> None:
    forget_accelerate()
    done = CliRunner().invoke(main, list(map(str, words)), catch_exceptions=False)
    assert done.exit_code == 0, done.output


def run_of(name: str) -> str:
    """Name of the tokenizer's run whose tokens a tiny recipe learns: its data lie in
    runs/NAME/tokens/train, or runs/NAME/captioned/train."""
    return Path(read_config(TINY_GENERATORS[name]).data.path).parts[1]


def paths_of(run: str) -> list[str]:
    """The training data of the tiny recipes that learn the tokens of a tokenizer's run."""
    paths = (read_config(TINY_GENERATORS[name]).data.path for name in TINY_GENERATORS)
    return [path for path in paths if Path(path).parts[1] == run]


def recipe_of(run: str) -> Path:
    """The recipe of a tokenizer's run."""
    if run == "quickstart":
        return TRAINING["quickstart/tokenizer.yaml"]
    return next(path for path in TINY.values() if read_config(path).name == run)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with untrained tokenizers and their tokens, which the tiny recipes learn."""
    folder = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for run in sorted({run_of(name) for name in TINY_GENERATORS}):
            torch.manual_seed(0)
            config = read_config(recipe_of(run))
            tokenizer = Tokenizer(config.task.tokenizer).eval()
            if tokenizer.config.quantizer.kind == "vq":  # of which few codes would be in use
                batch = next(iter(EvalLoader(build(config.data).open("val"), 64)))
                with torch.no_grad():
                    latents = tokenizer.latents(to_device(batch, CPU).pixels)
                tokenizer.quantizer.initialize(latents, Rng(0))
            tokenizer.save_pretrained(f"runs/{run}/model")
            sides = config.task.tokenizer.image_size
            size = sides if isinstance(sides, int) else max(sides)
            frames = config.task.tokenizer.frames or "null"
            photos = f"data={{kind: photos, size: {size}, frames: {frames}, val_count: 128}}"
            places = (f"task.tokenizer={folder}/runs/{run}", f"out=runs/{run}/tokens")
            train("quickstart/tokens", "task.limit=1024", photos, *places)
            if any("captioned" in path for path in paths_of(run)):  # with features of captions
                write_clip(folder / "runs/tiny_clip")
                photos = photos[:-1] + ", caption: 'a photo of a {class}.'}"
                places = (places[0], f"out=runs/{run}/captioned", f"task.text={TEXT}")
                train("quickstart/tokens", "task.limit=1024", photos, *places)
            if any("first_frames" in path for path in paths_of(run)):
                places = (places[0], f"out=runs/{run}/first_frames", "task.first_frames=2")
                train("quickstart/tokens", "task.limit=1024", photos, *places)
    return folder


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.chdir(place)
    return place


def digits(path: str, bits: bool) -> torch.Tensor:
    """[B, L, F]: tokens as their factors, wide ones as digits of eight values, or as bits."""
    cache = TokenCache(path)
    codes = Tokens(cache.spec, indices=torch.stack([cache.row(i)[0] for i in range(len(cache))]))
    vocab = cache.spec.vocab
    if bits:
        vocab = (2,) * sum(cache.spec.factor_bits)
    elif max(vocab) > 256:
        vocab = (8,) * round(math.log(cache.spec.codebook_size, 8))
    return (codes if vocab == cache.spec.vocab else codes.regroup(vocab)).indices.long()


def unigram(run: str, bits: bool = False) -> float:
    """Nats per position of the held-out tokens by the frequencies of the training tokens, for each
    digit: of all positions together or of each by itself, whichever tells more."""
    known, asked = (digits(f"runs/{run}/tokens/{split}", bits) for split in ("train", "val"))
    one_hot = torch.nn.functional.one_hot(known, int(max(known.max(), asked.max())) + 1)
    found = []
    for counts in (one_hot.sum(0), one_hot.sum((0, 1), keepdim=True)[0]):
        log = ((counts + 1.0) / (counts + 1.0).sum(-1, keepdim=True)).log()
        log = log.expand(*asked.shape, -1)
        found.append(-float(log.gather(-1, asked[..., None]).sum((-2, -1)).mean()))
    return min(found)


@pytest.mark.parametrize("name", TINY_GENERATORS)
def test_it_learns_more_than_the_frequencies_of_codes(here, name):
    config, run = read_config(TINY_GENERATORS[name]), run_of(name)
    train(TINY_GENERATORS[name], "trackers=[]", "log_every=1", f"steps={LONGER.get(name, STEPS)}")
    rows, found = lines(here / config.folder), lines(here / config.folder, "val")[-1]
    spec = TokenCache(f"runs/{run}/tokens/train").spec
    if "nll" in found:
        assert rows[0]["loss"] == pytest.approx(math.log(spec.codebook_size), rel=1e-3)
        # Independent bits cannot know the levels of a digit: theirs are the frequencies of bits.
        bits = getattr(config.task.generator, "head", None) == "bernoulli"
        assert found["nll"] < unigram(run, bits) - MARGINS.get(name, MARGIN)
    elif "masked_nll" in found:  # a bound of the likelihood of positions in random order
        uniform, near = math.log(spec.codebook_size), 1e-3
        if config.task.generator.kind == "masked_autoregressive":  # nats per factor
            uniform /= len(spec.vocab)
        elif config.task.generator.tied:  # tied logits do not start at zero
            near = 2e-2
        assert rows[0]["loss"] == pytest.approx(uniform, rel=near)
        assert found["masked_nll"] < unigram(run) - MARGINS.get(name, MARGIN)
    elif "velocity_error" in found:  # what is not explained of independent normal numbers: pi / 2
        assert rows[-1]["loss"] < 0.75 * rows[0]["loss"]
        assert found["velocity_error"] < 0.85 * math.pi / 2
    else:  # diffusion has no likelihood: held-out bits at eight levels of noise
        assert rows[0]["loss"] == pytest.approx(math.log(2), rel=1e-3)
        assert found["bit_nats"] < math.log(2) - 0.2
    generator = load_generator(here / config.folder / "model")
    if generator.config.condition.first_frames is not None:
        return check_that_it_continues(generator, config)
    assert generator.classes and generator.tokenizer["name"].endswith(f"/runs/{run}")
    # A few steps give classes little of their own: guidance changes some choice of some sample.
    labels, index = Condition(label=torch.arange(48) % 3), torch.arange(48)
    sampled = generator.sample(labels, index=index).check()
    unguided = generator.sample(labels, index=index, sampling="unguided")
    assert not torch.equal(held(sampled), held(unguided))


def check_that_it_continues(generator, config) -> None:
    """What is sampled behind known frames is nearer to their clip than to others."""
    batch = next(iter(EvalLoader(build(config.data).open("val"), 48)))
    index = torch.arange(48)
    known = [
        Condition(prefix=prefix) for prefix in (batch.prefix, batch.prefix.select(index.flip(0)))
    ]
    sampled = generator.sample(known[0], index=index).check()
    other = generator.sample(known[1], index=index)
    assert not torch.equal(sampled.indices, other.indices)
    nats = [generator.evaluate(batch.tokens, one)["nll"][0] for one in known]
    assert nats[0] < nats[1]


# Orders of RAR are random in the beginning of a training and raster in the end.
@pytest.mark.parametrize(
    ("name", "done"), [*((name, 0.1) for name in TINY_GENERATORS), ("rar", 0.9)]
)
def test_every_parameter_has_a_gradient(here, name, done):
    config = read_config(TINY_GENERATORS[name])
    torch.manual_seed(0)
    data = build(config.data)
    task = build(config.task, data.open("train"))
    for parameter in task.generator.parameters():  # what starts from zero hands nothing on
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    batch = to_device(next(iter(EvalLoader(data.open("val"), 64))), CPU)
    progress = Progress(int(done * config.steps), config.steps)
    draws = task.draw(batch.index, 0, progress)
    task.step(task.phases[0], batch, draws, progress, {}).loss.backward()
    for key, parameter in task.generator.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
        assert parameter.grad.any(), key


def short_tree(name: str, place: Path, folder: str) -> dict:
    """A short run with every draw: orders, class dropout, three kinds of network dropout."""
    tokens = place / Path(read_config(TINY_GENERATORS[name]).data.path)
    dropped = {"dropout": 0.1, "attention_dropout": 0.1, "mlp_dropout": 0.1, "depth": 1}
    network = "transformer"
    if read_config(TINY_GENERATORS[name]).task.generator.kind == "masked":
        network, dropped = "trunk", {"dropout": 0.1, "attention_dropout": 0.1, "depth": 1}
        if read_config(TINY_GENERATORS[name]).task.generator.trunk.kind == "mmdit":
            dropped = {"depth": 2}  # it has no dropout
    elif read_config(TINY_GENERATORS[name]).task.generator.kind == "masked_autoregressive":
        network = "encoder"
    return {
        "base": str(TINY_GENERATORS[name]),
        "out": str(place / folder),
        "data": {"path": str(tokens / "train"), "val_path": str(tokens / "val")},
        "task": {"generator": {network: dropped}},
        "steps": 12,
        "save_every": 4,
        "keep_last": 9,
        "batch_size": 16,
        "warmup": 0,
        # Where a gradient is rounding noise alone, Adam would follow its sign.
        "optimizer": {"eps": 1e-4},
        "trackers": [],
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY_GENERATORS)
def test_two_processes_and_a_resume_train_like_one(place, name):
    files = {world: place / f"{name}-{world}.yaml" for world in (1, 2)}
    for world, file in files.items():
        file.write_text(yaml.safe_dump(short_tree(name, place, f"runs/{name}/{world}")))
    train(files[1])
    done = command(files[2], processes=2, module="tests.support.launched")
    assert done.returncode == 0, done.stderr[-3000:]
    whole, split = (place / f"runs/{name}/{world}" for world in (1, 2))
    state = json.loads((split / "checkpoints/step_00000012/state.json").read_text())
    assert state["world"] == 2
    weights = "checkpoints/step_00000012/generator.safetensors"
    one, two = (load_file(folder / weights) for folder in (whole, split))
    assert one.keys() == two.keys()
    assert max((one[key].float() - two[key].float()).abs().max().item() for key in one) <= 1e-5
    stopped = rewound(whole)
    train(files[1], f"out={stopped}")
    assert (whole / weights).read_bytes() == (stopped / weights).read_bytes()
