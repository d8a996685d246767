"""Open-MAGVIT2's video tokenizer as it is released: a Lightning checkpoint with averaged weights,
its YAML beside it; damage, options, and export."""

from __future__ import annotations

import pytest
import torch
import yaml
from click.testing import CliRunner

from tests.test_malicious import MARK, Bomb
from vistok import pretrained
from vistok.cli import main
from vistok.config import ConfigError, validate
from vistok.core.errors import InputError
from vistok.pretrained import from_official, to_official
from vistok.pretrained.tokenizers.open_magvit2_video import EMA
from vistok.storage.weights import WeightsError
from vistok.tokenizer import Tokenizer, TokenizerConfig

NAME = "open_magvit2_video"
NETWORK = {"double_z": False, "z_channels": 6, "resolution": 8, "in_channels": 3, "out_ch": 3,
           "ch": 32, "ch_mult": [1, 2], "num_res_blocks": 1}  # fmt: skip
KEY = "decoder.up.1.upsample.conv1.conv_1.weight"


def settings(**changes) -> dict:
    """Arguments of the Lightning module, as its YAML has them."""
    network = NETWORK | changes.pop("network", {})
    loss = {"disc_start": 0, "codebook_weight": 0.1, "commit_weight": 0.25}
    given = {"ddconfig": network, "embed_dim": 6, "n_embed": 64, "use_ema": True, "wp0": 0.0,
             "lossconfig": {"target": "some.Class", "params": loss}, "learning_rate": 1e-4,
             "sample_minimization_weight": 1.0, "batch_maximization_weight": 1.0}  # fmt: skip
    return given | changes


@pytest.fixture(scope="module")
def plain() -> dict[str, torch.Tensor]:
    """Random weights under the official keys of the networks."""
    torch.manual_seed(0)
    tree = pretrained.FAMILIES[NAME].config(settings())
    state, _ = to_official(Tokenizer(validate(TokenizerConfig, tree)), NAME)
    return {key: torch.randn_like(tensor) for key, tensor in state.items()}


def trained(plain: dict, by: float = 1.0) -> dict[str, torch.Tensor]:
    """The state dict of the Lightning module: the networks, their averages, the losses."""
    averages = {f"{EMA}{key.replace('.', '')}": tensor + by for key, tensor in plain.items()}
    more = {f"{EMA}decay": torch.tensor(0.999), f"{EMA}num_updates": torch.tensor(-1)}
    loss = {"loss.discriminator.main.0.weight": torch.randn(4, 3, 3, 3, 3)}
    return {**plain, **averages, **more, **loss}


def lightning(state: dict) -> dict:
    """All that a checkpoint holds beside it."""
    moments = {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(2)}}
    optimizer = {"state": moments, "param_groups": [{"lr": 1e-4, "betas": (0.5, 0.9)}]}
    return {"epoch": 1999, "global_step": 7, "pytorch-lightning_version": "2.4.0",
            "state_dict": state, "loops": {"fit_loop": {}}, "callbacks": {"ModelCheckpoint": {}},
            "optimizer_states": [optimizer], "lr_schedulers": []}  # fmt: skip


@pytest.fixture
def write(tmp_path, monkeypatch):
    """write(state, given, name) puts a checkpoint and its YAML into the current folder."""
    monkeypatch.chdir(tmp_path)

    def write(state, given=None, name="video.ckpt"):
        torch.save(lightning(state), name)
        model = {"class_path": "src.Open_MAGVIT2.VQModel", "init_args": given or settings()}
        text = yaml.safe_dump({"model": model, "trainer": {"max_epochs": 2000}})
        (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


def test_a_checkpoint_goes_both_ways(write, plain):
    state = trained(plain)
    write(state)
    model = pretrained.open("video.ckpt", expect="tokenizer")
    assert (model.origin.family, model.origin.inside) == (NAME, "state_dict")
    assert model.shape.sides == (17, 8, 8) and model.frame_stride == 1
    assert torch.equal(model.decoder.conv_out.bias, plain["decoder.conv_out.conv_1.bias"] + 1)
    model.save_pretrained("ours")
    clip = torch.rand(1, 3, 17, 8, 8)
    tokens = model.encode(clip)
    for one in (model, Tokenizer.from_pretrained("ours")):
        assert torch.equal(one.encode(clip).indices, tokens.indices)
        back, written = to_official(one)
        assert back.keys() == state.keys() and written["model"]["init_args"] == settings()
        for key, tensor in state.items():  # averages come back, and take the place of the others
            kept = tensor + 1 if key in plain else tensor
            assert torch.equal(back[key], kept), key
    torch.save(lightning(back), "again.ckpt")
    again = pretrained.open("again.ckpt")
    assert torch.equal(again.encode(clip).indices, tokens.indices)
    assert again.encode(clip[:, :, 0]).spec.blocks == ((4, 4),)  # an image


def test_commands_take_it(write, plain):
    write(trained(plain))
    done = CliRunner().invoke(main, ["import", "video.ckpt", "ours"])
    assert done.exit_code == 0 and f"video.ckpt ({NAME}) -> ours" in done.output
    done = CliRunner().invoke(main, ["info", "ours"])
    assert "17 x 8 x 8" in done.output and "causal_resnet" in done.output


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda s: s.pop(f"{EMA}{KEY.replace('.', '')}"), f"missing {EMA}decoderup1upsampleconv1"),
        (lambda s: s.pop(KEY), f"missing {KEY}"),
        (lambda s: s.update({"encoder.other": torch.ones(2), f"{EMA}encoderother": torch.ones(2)}),
         "unexpected encoder.other"),
        (lambda s: s.update({f"{EMA}{KEY.replace('.', '')}": torch.ones(4)}),
         rf"{KEY} has shape \(4,\)"),
        (lambda s: s[f"{EMA}{KEY.replace('.', '')}"].fill_(torch.nan), f"{KEY} has values"),
        (lambda s: s.update({f"{EMA}{KEY.replace('.', '')}": s[KEY].long()}), f"{KEY}.*int64"),
    ],
)  # fmt: skip
def test_damage_is_one_line_with_file_and_key(write, plain, damage, words, fails):
    state = trained(plain)
    damage(state)
    write(state)
    with fails(WeightsError, "video.ckpt", words):
        pretrained.open("video.ckpt")


def test_broken_and_malicious_files_run_nothing(write, plain, tmp_path, fails):
    file = write(trained(plain))
    whole = file.read_bytes()
    for name, data in (("half", whole[: len(whole) // 2]), ("bytes", b"0" * 100), ("none", b"")):
        (tmp_path / f"{name}.ckpt").write_bytes(data)
        with fails(WeightsError, f"{name}.ckpt: not a readable|{name}.ckpt: holds more"):
            pretrained.open(f"{name}.ckpt")
    for place in ("hyper_parameters", "callbacks"):
        torch.save(lightning(trained(plain)) | {place: Bomb()}, "bomb.ckpt")
        with fails(WeightsError, "bomb.ckpt: holds more than tensors", "open"):
            pretrained.open("bomb.ckpt")
    assert not (tmp_path / MARK).exists()


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"network": {"in_channels": 1}}, ConfigError, "in_channels=1; expected 3"),
        ({"network": {"ch": 20}}, ConfigError, "channels=20 x channel_mult 1 .*norm_groups=32"),
        ({"network": {"ch_mult": [1, 1.5]}}, ConfigError, r"channel_mult\.1: got 1\.5"),
        ({"network": {"num_res_blocks": 0}}, ConfigError, "blocks: got 0"),
        ({"network": {"resolution": 9}}, InputError, r"image_size=\(9, 9\) is not a multiple of 2"),
        ({"network": {"attn_resolutions": [8]}}, ConfigError, "attn_resolutions.* is not known"),
        ({"network": {"z_channels": 5}}, ConfigError, "z_channels=5, n_embed=64"),
        ({"n_embed": 60}, ConfigError, "n_embed=60: expected .* 2.*bits codes"),
        ({"batch_maximization_weight": "a"}, ConfigError, "_weight='a'; expected a number"),
        ({"frames": 4, "network": {"ch_mult": [2, 2]}}, InputError, r"takes 1 \+ k x 2; 3, 5, 7"),
    ],
)
def test_options_that_cannot_be_are_one_line(plain, changes, kind, words, fails):
    with fails(kind, words):
        from_official(NAME, plain, settings(**changes), "video.ckpt")


def test_options_that_change_the_model(plain):
    losses = {"params": {"codebook_weight": 0.2, "commit_weight": 1.0}}
    network = {"resolution": [8, 12], "double_z": True}  # which the network does not read
    given = settings(lossconfig=losses, batch_maximization_weight=3.0, network=network, frames=5)
    given["embed_dim"] = 5  # nor this
    model = from_official(NAME, plain, given)
    weights = model.config.quantizer.loss_weights
    assert weights == {"commitment": 1.0, "entropy_sample": 0.2, "entropy_batch": -0.2 * 3}
    assert model.shape.sides == (5, 8, 12)
    model.origin = None  # as if it had been trained here: its config is written anew
    state, written = to_official(model, NAME)
    assert state.keys() == plain.keys() and written["ddconfig"]["resolution"] == [8, 12]
    again = from_official(NAME, state, written)
    assert again.config.encoder == model.config.encoder and again.shape == model.shape
    assert again.config.quantizer.loss_weights == pytest.approx(weights)
