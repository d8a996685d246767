"""The tokenizer task: clips, lengths and sampling of validation, image grids."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.support.training import STATEFUL, TINY, lines, rewound
from vistok.config import ConfigError, load_plugins, validate
from vistok.config.registry import build
from vistok.core.records import Batch
from vistok.train.config import TrainConfig
from vistok.train.cost.plan import make_plan
from vistok.train.cost.plan_text import plan_text
from vistok.train.monitoring.grids import Grid, labeled
from vistok.train.tasks.tokenizer import TokenizerTask

LOSSES = [
    {"kind": "reconstruction"},
    {"kind": "perceptual", "network": "vistok-cnn", "weight": 0.1},
    {
        "kind": "adversarial",
        "start": 3,
        "discriminator": {"kind": "patchgan", "width": 8, "layers": 1},
    },
]


def clips(frames: int = 4) -> dict:
    """TINY on clips of photos, with patches of two frames and every loss that folds frames."""
    tree = copy.deepcopy(TINY)
    tree["task"]["tokenizer"]["frames"] = frames
    for part in ("encoder", "decoder"):
        tree["task"]["tokenizer"][part]["patches"] = {"size": 8, "frames": 2}
    tree["task"]["losses"] = LOSSES
    tree["data"]["frames"] = frames
    return tree


def task_of(tree: dict) -> TokenizerTask:
    torch.manual_seed(0)
    return build(validate(TrainConfig, tree).task, None)


def grid(folder: Path) -> tuple[int, int]:
    return Image.open(folder / "images/reconstructions_00000012.png").size


def test_a_video_tokenizer_trains_and_resumes(run, capsys):
    whole = run(clips(), "whole")
    rows = lines(whole)
    assert {"l2", "perceptual", "adversarial", "discriminator", "images_per_s"} <= set(rows[-1])
    assert rows[-1]["perceptual"] < rows[0]["perceptual"]
    assert {"psnr", "psnr@1", "codebook_usage"} <= set(lines(whole, "val")[-1])
    said = capsys.readouterr().out
    assert "tokens/clip: 4" in said and "clips/s" in said and "images/s" not in said
    stopped = rewound(whole)
    run(clips(), "stopped")
    for name in ("tokenizer", "discriminator", "ema.tokenizer"):
        path = f"checkpoints/step_00000012/{name}.safetensors"
        assert (stopped / path).read_bytes() == (whole / path).read_bytes()


def test_a_grid_shows_frames_of_clips(run):
    """Two clips of four frames side by side, held out and then trained on; a row of originals, then
    one for each length; names above and on the left."""
    width, height = grid(run(clips() | {"steps": 12, "save_every": 0}))
    columns, rows, scale, head = 2 * 4, 1 + 3, 2, 31
    assert height == head + scale * (rows * 34 + 2)
    pixels = 2 * scale * (columns * 34 + 2) + 16
    assert pixels + 60 < width < pixels + 150
    assert grid(run(TINY, "images"))[0] > 800


def test_a_grid_names_its_rows_and_sets():
    cells = torch.zeros(3, 2 * 8, 4 * 8)
    one = Grid(cells, ("original", "4 tokens"))
    shown = labeled({"held out": one, "seen in training": Grid(cells + 0.5, one.rows)})
    height, width = shown.shape[1:]
    scale = round(1024 / 64)
    left, top = width - 2 * scale * 32 - 16, height - scale * 16
    dark = lambda part: bool((part < 0.3).any())
    paper = lambda part: bool((part > 0.9).all())
    assert dark(shown[:, :top, left : left + 60]) and dark(shown[:, :top, -scale * 32 :])
    assert all(dark(rows[:, :, :left]) for rows in shown[:, top:].chunk(2, 1))
    assert torch.equal(shown[:, top:, left : left + scale * 32], torch.zeros(3, 256, 512))
    assert paper(shown[:, top:, -scale * 32 - 16 : -scale * 32])


def test_frames_of_a_grid_are_in_order(monkeypatch):
    from vistok.train.tasks.reconstructions import image_grid

    task = task_of(clips())
    pixels = torch.rand(3, 3, 4, 32, 32)
    batch = Batch(torch.arange(3), pixels)
    shown = image_grid(task.tokenizer.eval(), batch, task._decoding)
    for clip in range(2):
        for frame in range(4):
            left = 2 + 34 * (4 * clip + frame)
            torch.testing.assert_close(shown[:, 2:34, left : left + 32], pixels[clip, :, frame])


def test_a_plan_speaks_of_clips():
    config = validate(TrainConfig, clips())
    plan = make_plan(config)
    assert plan.sides == (4, 32, 32) and plan.flops > 0
    text = plan_text(plan)
    assert "clip            4 x 32 x 32" in text and "tokens/clip" in text
    assert "FLOP/clip" in text and "image" not in text


@pytest.mark.parametrize(
    ("own", "given", "words"),
    [
        (4, None, r"gives images of .*; this tokenizer takes clips of 4 frames.*data\.frames=4"),
        (4, 8, r"gives clips of 8 frames.*; this tokenizer takes clips of 4 frames"),
        (None, 4, r"gives clips of 4 frames.*; this tokenizer takes images"),
    ],
)
def test_media_must_fit(run, own, given, words):
    tree = clips(own) if own else copy.deepcopy(TINY)
    tree["data"] = {**TINY["data"], **({"frames": given} if given else {})}
    with pytest.raises(ConfigError, match=words):
        run(tree)


def test_validation_decodes_the_lengths_it_is_told(run):
    tree = copy.deepcopy(TINY)
    tree["task"]["validate_lengths"] = [1]
    row = lines(run(tree), "val")[-1]
    assert {name for name in row if name.startswith("psnr")} == {"psnr", "psnr@1"}
    tree["task"]["validate_lengths"] = []
    row = lines(run(tree, "whole"), "val")[-1]
    assert {name for name in row if name.startswith("psnr")} == {"psnr"}
    assert grid(tree_folder := run(tree, "whole"))[0] > 3 * grid(tree_folder)[1]  # two rows


@pytest.mark.parametrize("length", [0, 5])
def test_lengths_that_the_tokens_do_not_have_are_refused(length):
    tree = copy.deepcopy(TINY)
    tree["task"]["validate_lengths"] = [length]
    with pytest.raises(ConfigError, match=f"task.validate_lengths: length={length}"):
        task_of(tree)


def test_sampling_is_for_decoders_that_sample():
    tree = copy.deepcopy(TINY)
    tree["task"]["sampling"] = {"steps": 3}
    with pytest.raises(ConfigError, match=r"^task.sampling=.*does not sample; leave it out"):
        task_of(tree)


def test_a_change_inside_sampling_leaves_the_rest(fails):
    load_plugins(["tests.support.fake_parts"])
    tree = copy.deepcopy(TINY)
    guidance = {"kind": "apg", "scale": 2.0}
    tree["task"]["tokenizer"]["decoder"] = {
        "kind": "fake_flow",
        "sampling": {"steps": 4, "guidance": guidance},
    }
    tree["task"]["tokenizer"]["regularizers"] = []
    own = task_of(tree).tokenizer.sampling
    tree["task"]["sampling"] = {"guidance": {"scale": 3.0}}
    changed = task_of(tree).sampling
    assert changed.guidance == own.guidance.model_copy(update={"scale": 3.0})
    assert changed.steps == 4 and changed.guidance.kind == "apg"
    tree["task"]["sampling"] = {"guidance": {"scal": 3.0}}
    with fails(ConfigError, r"^task\.sampling: .*scal.*unknown key"):
        task_of(tree)


def test_reconstructions_are_compared_with_the_target():
    task = task_of(TINY)
    pixels = torch.rand(2, 3, 32, 32)
    plain = Batch(torch.arange(2), pixels)
    made = task._decoding.reconstructions(task.tokenizer.eval(), plain)[1][-1]
    batch = Batch(torch.arange(2), pixels, target=made)
    modules = {"tokenizer": task.tokenizer}
    assert task.validate([batch], modules)["psnr"] > task.validate([plain], modules)["psnr"] + 40
    shown = task._images(batch, modules)["reconstructions"].image
    rows = shown[:, 2 : 2 + 32], shown[:, 36 : 36 + 32]  # of the grid, two pixels apart
    assert torch.allclose(*rows, atol=1e-5)


def test_each_term_is_weighed_at_the_last_layer(run):
    rows = lines(run({**STATEFUL, "task": {**STATEFUL["task"], "term_gradients_every": 5}}))
    shown = [row["step"] for row in rows if "last_layer_grad/l2" in row]
    assert shown == [1, 6, 11]
    assert rows[0]["last_layer_grad/l2"] > 0 and "last_layer_grad/adversarial" not in rows[0]
    assert rows[5]["last_layer_grad/adversarial"] > 0  # the GAN starts at step 3
    assert not any("commitment" in name for name in rows[5] if name.startswith("last_layer"))
    assert {"discriminator_accuracy", "adaptive_weight"} <= set(rows[5])
    assert {"tokenizer_grad_norm", "tokenizer_grad_norm/encoder"} <= set(rows[5])
