"""Every file of examples/ runs as its header says, on tiny models."""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from skimage import data

from tests.support import processes
from vistok.cli import main
from vistok.config import validate
from vistok.tokenizer import Tokenizer, TokenizerConfig

EXAMPLES = Path(__file__).parents[1] / "examples"
SHORT = ("steps=2", "warmup=0", "batch_size=4", "data.val_count=4", "trackers=[]")
SHORT += ("task.tokenizer.encoder.transformer.depth=1", "precision=fp32")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A copy of the folder, which is the current one."""
    shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(tmp_path / "examples")
    monkeypatch.setattr("sys.path", list(sys.path))
    return tmp_path / "examples"


@pytest.fixture
def model(tree, place):
    """A saved tokenizer of 32 x 32 images, untrained."""
    torch.manual_seed(0)
    config = validate(TokenizerConfig, tree("vq") | {"image_size": 32})
    Tokenizer(config).save_pretrained("tiny")
    return "tiny"


def example(name: str) -> dict:
    """What a file of the folder defines."""
    return runpy.run_path(f"{name}.py", run_name="example")


def test_each_file_is_here():
    files = {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".yaml")}
    tested = {"compare_models", "differentiable_loop", "language_model_data", "own_images"}
    parts = {"simvq", "residual_vq"}
    assert files == {f"{name}.py" for name in tested | parts} | {f"{name}.yaml" for name in parts}


@pytest.mark.parametrize(
    ("part", "run", "kind"),
    [("simvq", "simvq", "simvq"), ("residual_vq", "my_residual", "my_residual")],
)
def test_a_quantizer_of_ones_own_trains_and_opens(part, run, kind, tmp_path):
    folder = tmp_path / "examples"
    shutil.copytree(EXAMPLES, folder)
    words = (f"{part}.yaml", f"plugins={part}", *SHORT)
    trained = processes.run("vistok.train", *words, folder=folder)
    assert trained.returncode == 0, trained.stderr
    assert f"plugins={part}" in trained.stdout.splitlines()[-1]  # of the command to run next
    saved = folder / "runs" / run
    assert f"plugins:\n- {part}\n" in (saved / "config.yaml").read_text("utf-8")
    assert json.loads((saved / "model/config.json").read_text("utf-8"))["plugins"] == [part]
    refused = CliRunner().invoke(main, ["info", str(saved)])
    assert refused.exit_code == 1 and f"add plugins={part}" in refused.stderr


def test_fine_tuning_on_own_images(model):
    from PIL import Image

    Path("images").mkdir()
    for number in range(20):
        size = (40, 32 + number)
        Image.effect_noise(size, 60).convert("RGB").save(f"images/{number}.png")
    words = ("steps=2", "warmup=0", "batch_size=4", "trackers=[]", "data.val_share=0.5")
    words += ("precision=fp32",)
    example("own_images")["main"]("images", *words, start=model)
    tuned = Tokenizer.from_pretrained("runs/own_images")
    start = Tokenizer.from_pretrained(model)
    assert tuned.config == start.config
    assert not torch.equal(tuned.decoder.last_layer, start.decoder.last_layer)
    assert tuned.lineage and "tiny" in tuned.lineage[-1].parents[0].name


def test_the_differentiable_loop_learns(model):
    losses = example("differentiable_loop")["main"](model, 4)
    assert len(losses) == 4 and losses[-1] < losses[0]


def test_ids_of_a_language_model_and_back(model):
    own = example("language_model_data")
    tokenizer = Tokenizer.from_pretrained(model)
    words = own["ImageWords"](tokenizer, 256)
    assert (words.begin, words.end, words.size) == (256, 257, 14)
    photographs = [data.chelsea(), data.coffee()]
    for length in (None, 2):
        lines = own["sequences"](tokenizer, photographs, ["a cat", "a cup"], length)
        wanted = tokenizer.encode(tokenizer.preprocess(photographs), length)
        for place, line in enumerate(lines):
            assert bytes(line["ids"][:5]).decode() == line["text"]
            assert max(line["ids"]) < 256 + words.size
            assert len(line["ids"]) == 7 + (4 if length is None else 2)
            back = words.to_tokens(line["ids"])
            one = wanted.select(slice(place, place + 1))
            assert torch.equal(tokenizer.decode(back), tokenizer.decode(one))
    with pytest.raises(ValueError, match="ids of another kind"):
        words.to_tokens([256, 3, 3, 3, 3, 257])
    assert len(own["main"](model=model).read_text("utf-8").splitlines()) == 2
    assert Path("first_image.png").exists()


def test_models_side_by_side(model):
    rows = example("compare_models")["rows"](model, model)
    assert [row[1:3] for row in rows] == 2 * [(1, 4), (2, 8), (4, 16)]
    assert rows[0] == rows[3] and all(0 < row[3] < 60 for row in rows)
