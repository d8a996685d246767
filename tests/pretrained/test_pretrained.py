"""Importers: every key accounted for, files of every layout, and nothing that runs code."""

import argparse
import json
import shutil

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from tests.support.official import FLAT, MODELS, official, write_shards
from vistok.cli import main
from vistok.config import ConfigError
from vistok.pretrained import from_official, load, release_of, releases, to_official
from vistok.pretrained.find import find
from vistok.pretrained.table import FAMILIES
from vistok.storage.foreign import read_state
from vistok.storage.weights import WeightsError
from vistok.tokenizer import Tokenizer


@pytest.fixture
def folder(tmp_path):
    """A one-stage TiTok in its official layout."""
    _, state, config = official("titok-pixel")
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


@pytest.mark.parametrize("name", ["maskgit_vqgan", *MODELS, *FLAT])
def test_both_ways_bit_for_bit(name, tmp_path):
    family, state, config = official(name)
    names = ("quantize.embedding.weight", "latent_tokens", "encoder.latent_tokens")
    names += ("quant_conv.conv3d.weight", "quant_conv.weight")
    key = next(name for name in names if name in state)
    state[key] = state[key].half()
    tokenizer = from_official(family, state, config)
    tokenizer.save_pretrained(tmp_path / "ours")
    saved = Tokenizer.from_pretrained(tmp_path / "ours")
    for one in (tokenizer, saved):
        back, back_config = to_official(one)
        assert back_config == config and set(back) == set(state)
        assert all(back[k].dtype == v.dtype and torch.equal(back[k], v) for k, v in state.items())
    ours = FAMILIES[family].official(tokenizer.config)
    assert from_official(family, back, ours).config == tokenizer.config


@pytest.mark.parametrize(
    "name", ["titok", "titok-pixel", "tatitok", "one_d_piece", "maskgit_vqgan", *FLAT]
)
def test_the_family_is_recognized(name, tmp_path):
    family, state, config = official(name)
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load(tmp_path).origin.family == family


def test_every_key_is_accounted_for(fails):
    family, state, config = official("titok-pixel")
    key = "encoder.transformer.0.ln_1.weight"
    cases = [
        ({k: v for k, v in state.items() if k != key}, ["missing encoder.transformer.0.ln_1"]),
        ({**state, "stray": torch.zeros(1)}, ["unexpected stray"]),
        ({**state, key: state[key][:-1]}, [key, r"shape \(31,\)", r"expected \(32,\)"]),
        ({**state, key: state[key] * float("nan")}, [key, "not finite"]),
    ]
    for broken, words in cases:
        with fails(WeightsError, "somewhere", *words):
            from_official(family, broken, config, "somewhere")


def test_configs_that_cannot_be(fails):
    family, state, config = official("titok-pixel")
    vq = config["model"]["vq_model"]
    for change, word in (
        ({"quantize_mode": "vae", "finetune_decoder": True}, "finetune_decoder"),
        ({"finetune_decoder": True}, "is_legacy"),
        ({"vit_enc_model_size": "huge"}, "model size 'huge'"),
    ):
        with fails(ConfigError, word):
            from_official(family, state, {**config, "model": {"vq_model": {**vq, **change}}})
    with fails(ConfigError, "official config.json"):
        from_official(family, state, {"model": {}})
    with pytest.warns(UserWarning, match="brand_new"):
        from_official(family, state, {**config, "model": {"vq_model": {**vq, "brand_new": 1}}})
    with fails(ValueError, "unknown family 'titoc'; did you mean 'titok'"):
        from_official("titoc", state, config)


def test_stage_one_weights_have_no_pixels(fails):
    family, state, config = official("titok-stage1")
    tokenizer = from_official(family, state, config)
    tokens = tokenizer.encode(torch.rand(1, 3, 16, 16))
    with fails(ValueError, "output_space.decoder"):
        tokenizer.decode(tokens)


def test_checkpoints_of_trainers(folder):
    """Nested, prefixed, with configs as objects beside: averaged weights come first."""
    state = read_state(folder / "model.safetensors")
    wrapped = {f"module._orig_mod.{k}": v for k, v in state.items()}
    other = {k: v + 1 for k, v in wrapped.items()}
    saved = {
        "plain.pt": state,
        "nested.ckpt": {"state_dict": wrapped, "args": argparse.Namespace(lr=1), "step": 3},
        "averaged.pth": {"model": other, "ema": wrapped, "optimizer": {"state": {}}},
        "deep.bin": {"model": {"state_dict": wrapped}},
    }
    for name, data in saved.items():
        torch.save(data, folder / name)
        found = read_state(folder / name)
        assert set(found) == set(state) and all(torch.equal(found[k], state[k]) for k in state)


def test_sharded_folders(folder, fails):
    state = read_state(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    index = write_shards(folder, state)
    assert set(read_state(folder)) == set(state)
    index["weight_map"][min(state)] = "../outside.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with fails(WeightsError, "outside its folder"):
        read_state(folder)


def test_broken_and_malicious_files(folder, broken, tmp_path, fails, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.rglob("*"))
    for bad in sorted([*broken.glob("*.safetensors"), *broken.glob("malicious.*")]):
        if bad.suffix not in (".safetensors", ".bin", ".pt", ".pth", ".ckpt"):
            continue
        place = folder / "model.safetensors" if bad.suffix == ".safetensors" else folder / bad.name
        kept = (folder / "model.safetensors").read_bytes()
        shutil.copy(bad, place)
        with fails((WeightsError, ConfigError), place.name.replace(".", r"\.")):
            load(place, config=folder / "config.json")
        # Even a pickle that calls itself safetensors.
        shutil.copy(bad, folder / "model.safetensors")
        with fails((WeightsError, ConfigError), folder.name):
            load(folder)
        (folder / "model.safetensors").write_bytes(kept)
        if place.name != "model.safetensors":
            place.unlink()
    assert set(tmp_path.rglob("*")) == before, "a file was made while loading"
    assert not list(tmp_path.glob("*pwned*"))


def test_releases_are_named(fails):
    assert {"titok-l32", "titok-bl64-vq8k", "tatitok-bl32-vq", "one-d-piece-s256",
            "maskgit-vqgan"} <= set(releases())  # fmt: skip
    for family, release in releases().values():
        assert release.license and (release.hub.count("/") == 1) != (release.page is not None)
        # None where the authors published no figure of these weights.
        assert release.rfid is None or 0 < release.rfid < 10
        assert family.name in FAMILIES
    with fails(ValueError, "hf:FoundationVision/LlamaGen: holds several", "vq_ds16_c2i, vq_ds8"):
        release_of("hf:FoundationVision/LlamaGen")
    with fails(ValueError, "unknown release 'titok-l33'; did you mean 'titok-l32'"):
        release_of("titok-l33")
    with fails(ConfigError, "retok-sb256: its weights lie where only people", "VQ_SB256_e250.pt"):
        load("retok-sb256")
    with fails(ConfigError, "titok-l32", "by hand"):  # no network in tests
        load("titok-l32", local_files_only=True)


def test_import_command(folder, tmp_path):
    out = tmp_path / "ours"
    result = CliRunner().invoke(main, ["import", str(folder), str(out)])
    assert result.exit_code == 0, result.output
    assert "license" in result.output
    tokenizer = Tokenizer.from_pretrained(out)
    assert tokenizer.origin.family == "titok"
    info = CliRunner().invoke(main, ["info", str(out)])
    assert info.exit_code == 0 and "tokens/image" in info.output
    result = CliRunner().invoke(main, ["import", str(tmp_path / "no.safetensors"), str(out)])
    assert result.exit_code == 1 and result.stderr.startswith("error: ")


def test_research_weights_are_not_pushed_by_accident(fails):
    family, state, config = official("titok-pixel")
    tokenizer = from_official(family, state, config)
    object.__setattr__(tokenizer, "config", tokenizer.config.model_copy(
        update={"license": "Apache-2.0 (research purposes)"}))  # fmt: skip
    with fails(ValueError, "explicit word", "research_only=True"):
        tokenizer.push_to_hub("someone/something")


def test_bare_weights_of_known_constants(tmp_path, fails):
    from vistok.pretrained.tokenizers.maskgit_vqgan import NETWORK

    _, state, _ = official("maskgit_vqgan")
    torch.save(state, tmp_path / "maskgit-vqgan.bin")
    # Recognised by its keys; the released sizes do not fit these small ones.
    with fails(WeightsError, "maskgit-vqgan.bin", "maskgit_vqgan config"):
        load(tmp_path / "maskgit-vqgan.bin")
    assert NETWORK["resolution"] == 256
    # As its trainers wrap it; five levels are VQ-16, four VQ-8, others nobody's.
    for levels, key in ((5, "model"), (4, "module"), (4, "state_dict"), (3, None)):
        mult = [1] * levels
        small = {**FLAT["llamagen"], "encoder_ch_mult": mult, "decoder_ch_mult": mult}
        state = {f"_orig_mod.{k}": v for k, v in official(small)[1].items()}
        torch.save(state if key is None else {key: state, "steps": 3}, tmp_path / "vq.pt")
        known = [
            r for r in FAMILIES["llamagen"].releases if len(r.config["encoder_ch_mult"]) == levels
        ]
        if known:
            assert find(tmp_path / "vq.pt").config == known[0].config
            assert load(tmp_path / "vq.pt", config=small).origin.family == "llamagen"
        else:
            with fails(ConfigError, "config.json: no such config"):
                load(tmp_path / "vq.pt")
    # The trainer's own arguments beside the weights.
    args = argparse.Namespace(vq_model="VQ-8", codebook_size=8, image_size=64, lr=1e-4)
    torch.save({"model": official("llamagen")[1], "args": args}, tmp_path / "vq.pt")
    found = find(tmp_path / "vq.pt")
    tree = found.family.config(found.config)
    assert tree["image_size"] == 64 and tree["quantizer"]["codebook_size"] == 8
    assert tree["decoder"]["conv"]["channel_mult"] == [1, 2, 2, 4]
    with fails(ConfigError, "vq_model='VQ-9'; expected one of VQ-16, VQ-8"):
        found.family.config({"vq_model": "VQ-9"})
    _, state, _ = official("titok-pixel")
    torch.save(state, tmp_path / "titok.bin")
    with fails(ConfigError, "config.json: no such config"):
        load(tmp_path / "titok.bin")
