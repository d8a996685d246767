"""A tokenizer that learns another one's codes: TiTok's first stage in small."""

from __future__ import annotations

import json
from copy import deepcopy

import pytest
import torch

from tests.support.training import TINY, lines
from vistok.config import ConfigError, validate
from vistok.storage.weights import content_sha256, read_safetensors
from vistok.tokenizer import Tokenizer, TokenizerConfig
from vistok.train.config import TrainConfig
from vistok.train.cost.plan import make_plan
from vistok.train.tasks.teachers import load_teacher

CONV = {
    "channels": 4,
    "channel_mult": [1, 1, 1, 2],
    "blocks": 1,
    "mid_blocks": 1,
    "norm_groups": 2,
}


@pytest.fixture
def teacher(tmp_path):
    """Folder of a CNN tokenizer of 4x4 codes, 16 of them."""
    tree = {
        "image_size": 32,
        "encoder": {"kind": "cnn", "conv": CONV},
        "quantizer": {"kind": "vq", "codebook_size": 16, "dim": 4, "init": "normal"},
        "decoder": {"kind": "cnn", "conv": CONV},
    }
    torch.manual_seed(0)
    Tokenizer(validate(TokenizerConfig, tree)).save_pretrained(tmp_path / "teacher")
    return tmp_path / "teacher"


def student(teacher) -> dict:
    tree = deepcopy(TINY)
    tokenizer = tree["task"]["tokenizer"]
    tokenizer["decoder"] |= {"head": {"kind": "codes"}, "patches": {"size": 1}}
    tokenizer["output_space"] = {
        "kind": "codes",
        "codebook_size": 16,
        "dim": 4,
        "patch_size": 8,
        "decoder": {"kind": "cnn", "conv": CONV},
    }
    tree["task"]["losses"] = [{"kind": "proxy_codes", "teacher": str(teacher)}]
    tree["task"]["freeze"] = ["output_space"]
    return tree | {"steps": 12, "optimizer": {"kind": "adamw", "lr": 1e-2}}


def test_a_run_learns_the_codes_and_leaves_the_teacher_behind(run, teacher, capsys):
    folder = run(student(teacher))
    sha256 = content_sha256(read_safetensors(teacher / "model.safetensors"))
    assert f"sha256 {sha256}" in capsys.readouterr().out
    rows = [row["proxy_codes"] for row in lines(folder)]
    assert rows[0] == pytest.approx(2.77, abs=0.6)  # log 16
    assert sum(rows[-3:]) / 3 < rows[0] - 0.2
    summary = json.loads((folder / "summary.json").read_text())
    assert summary[f"teacher {teacher} (sha256)"] == sha256
    for file in folder.rglob("*.safetensors"):
        assert not any("teacher" in key for key in read_safetensors(file)), file


def test_another_teacher_is_no_continuation(run, teacher, fails):
    tree = student(teacher)
    run(tree, steps=4, warmup=0)
    other = Tokenizer.from_pretrained(teacher)
    with torch.no_grad():
        other.quantizer.codebook.add_(0.1)
    other.save_pretrained(teacher)
    with fails(ConfigError, "teacher", "sha256", "was trained with"):
        run(tree, steps=8, warmup=0)


def test_a_plan_needs_the_shape_alone(teacher):
    (teacher / "model.safetensors").write_bytes(b"")
    plan = make_plan(validate(TrainConfig, student(teacher)))
    named = {part.name: part for part in plan.parts}
    part = named["teacher"]
    assert part.trained == 0 and part.frozen > 500 and part.flops > 0
    with torch.device("meta"):
        hollow, sha256 = load_teacher("maskgit-vqgan")
    assert sha256 == "" and hollow.spec().vocab == (1024,)


def test_a_teacher_that_is_not_there(tmp_path, fails):
    with fails(ConfigError, "teacher", "unknown release 'maskgit-vqgen'", "maskgit-vqgan"):
        load_teacher("maskgit-vqgen")
    with fails(ConfigError, "teacher: .*nothing: no such file or folder"):
        load_teacher(str(tmp_path / "nothing"))


def test_a_term_has_one_owner(run, fails):
    tree = deepcopy(TINY)
    tree["task"]["losses"] = [{"kind": "reconstruction"}, {"kind": "reconstruction", "l2": 0.5}]
    with fails(ConfigError, "'reconstruction' gives the term 'l2'", "keep one"):
        run(tree)


def test_a_wrong_name_is_told_where_it_was_given(fails):
    from vistok.train.tasks.teachers import open_tokenizer

    with fails(ConfigError, "^task.losses: teacher: unknown release 'maskgit'"):
        open_tokenizer("maskgit")
    with fails(ConfigError, "^task.init: unknown release 'maskgit'"):
        open_tokenizer("maskgit", "task.init")
