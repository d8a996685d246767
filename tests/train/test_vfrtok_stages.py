"""The stages of VFRTok's recipes, shrunk: each takes what has the same shape in the one before."""

import shutil

import pytest
import torch

from tests.support.recipes import CONFIGS, read_config
from vistok.config import ConfigError, validate
from vistok.train.checkpoint.files import Keep, Snapshot, save
from vistok.train.tasks.tokenizer import TokenizerTask, TokenizerTaskConfig

PATCHGAN = {"kind": "patchgan", "width": 8, "layers": 1}
FRESH = {  # by stage, the encoder's and decoder's tensors that have no equal in the stage before
    "vfrtok_l_stage2": {
        *("encoder.latent_tokens", "encoder.latent_positions", "encoder.patch_embed.proj.weight"),
        *("encoder.positions.table", "decoder.latent_positions"),
        *("decoder.head.proj.weight", "decoder.head.proj.bias"),
    },
    "vfrtok_l_stage3": set(),
    "discrete_fsq": {
        *("encoder.proj.weight", "encoder.proj.bias"),
        *("decoder.embed.weight", "decoder.embed.bias"),
    },
}


def shrunk(name: str, folder) -> dict:
    tree = read_config(CONFIGS / f"tokenizers/vfrtok/{name}.yaml").task.model_dump()
    tokenizer = tree["tokenizer"]
    tokenizer["image_size"] = [32, 32]
    tokenizer["encoder"]["latents"]["count"] //= 32
    for part in ("encoder", "decoder"):
        tokenizer[part]["transformer"] |= {"width": 24, "depth": 1, "heads": 2}
        if tokenizer[part]["rotary"]["heads"]:
            tokenizer[part]["rotary"]["heads"] = 1
    gan = tree["losses"][-1]
    tree["losses"] = [tree["losses"][0], {**gan, "discriminator": PATCHGAN}]
    for init in tree["init"]:
        init["path"] = str(folder / init["path"].removeprefix("runs/"))
    return tree


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("runs"), {}
    for seed, name in enumerate(("vfrtok_l_stage1", *FRESH)):
        torch.manual_seed(seed)
        tree = shrunk(name, folder)
        task = made[name] = TokenizerTask(validate(TokenizerTaskConfig, tree), None)
        before = {key: one.clone() for key, one in task.modules["discriminator"].named_parameters()}
        made[f"{name}/discriminator"] = before
        task.tokenizer.save_pretrained(folder / name)
        tensors = {"discriminator": task.modules["discriminator"].state_dict()}
        save(folder / name / "checkpoints", Snapshot(1, tensors, {}), Keep(1, 0, 0))
    return made, folder


@pytest.mark.parametrize("name", FRESH)
def test_a_stage_takes_what_fits(tasks, name):
    made, _ = tasks
    names = ["vfrtok_l_stage1", *FRESH]
    before = names[names.index(name) - 1]
    old, new = (made[one].tokenizer.state_dict() for one in (before, name))
    equal = {key for key in new if key in old and torch.equal(old[key], new[key])}
    constant = {key for key in new if new[key].unique().numel() == 1}  # biases and scales
    assert set(new) - equal - constant == FRESH[name] - constant
    last, now = made[f"{before}/discriminator"], made[f"{name}/discriminator"]
    alike = all(torch.equal(last[key], now[key]) for key in now)
    assert alike == (name != "vfrtok_l_stage2")  # the second stage has a discriminator of its own
    if alike:
        assert "discriminator.discriminator from" in "\n".join(made[name].started)


def test_networks_that_do_not_fit_are_one_line(tasks, fails):
    _, folder = tasks
    tree = shrunk("vfrtok_l_stage3", folder)
    for networks, gan, message in (
        (["teach"], {}, "'teach' names no network of task.losses; expected one of discriminator"),
        (["discriminator.head"], {}, "does not fit discriminator.head: there is nothing"),
        (["discriminator"], {**PATCHGAN, "width": 16}, "does not fit discriminator: .* has shape"),
    ):
        tree["init"][0]["networks"] = networks
        tree["losses"][-1]["discriminator"] = gan or PATCHGAN
        with fails(ConfigError, message):
            TokenizerTask(validate(TokenizerTaskConfig, tree), None)
    stage1 = str(folder / "vfrtok_l_stage1")
    shutil.rmtree(folder / "vfrtok_l_stage1/checkpoints")
    tree["init"] = [{"path": stage1, "parts": ["encoder.transformer"], "networks": ["x"]}]
    with fails(ConfigError, "checkpoints holds no checkpoint to take x from; expected the folder"):
        TokenizerTask(validate(TokenizerTaskConfig, tree), None)
