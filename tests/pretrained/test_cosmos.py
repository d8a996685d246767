"""Cosmos DV's files: native keys of several wrappers, options, damage, and code that is refused."""

from __future__ import annotations

import shutil

import pytest
import torch

from tests.support.official import official
from vistok import pretrained
from vistok.config import ConfigError, UserError
from vistok.pretrained import FAMILIES, from_official, load, to_official
from vistok.storage.origin import Origin
from vistok.storage.weights import WeightsError
from vistok.tokenizer import Tokenizer

COSMOS = FAMILIES["cosmos"]


def clips() -> torch.Tensor:
    return torch.rand(1, 3, 5, 32, 32, generator=torch.Generator().manual_seed(1))


def test_a_file_of_any_wrapper_with_buffers_opens(tmp_path):
    """Buffers of patches and quantizer are carried along; a trainer's prefix is cut off."""
    family, state, config = official("cosmos")
    expected = from_official(family, state, config)
    buffers = {
        "encoder.patcher3d.wavelets": torch.ones(2),
        "decoder.unpatcher3d._arange": torch.arange(2),
        "quantizer._levels": torch.tensor([5, 3], dtype=torch.int32),
    }
    for prefix in ("", "network."):
        given = {f"{prefix}{key}": tensor for key, tensor in (state | buffers).items()}
        torch.save({"model": given, "iteration": 7}, tmp_path / "model.pt")
        tokenizer = load(tmp_path / "model.pt", family=family, config=config)
        assert tokenizer.config == expected.config
        wanted = expected.encode(clips())
        assert torch.equal(tokenizer.encode(clips()).indices, wanted.indices)
        assert torch.equal(tokenizer.decode(wanted), expected.decode(wanted))
    tokenizer.save_pretrained(tmp_path / "ours")
    assert set(Origin.load(tmp_path / "ours").inert) == set(buffers)
    back, written = to_official(Tokenizer.from_pretrained(tmp_path / "ours"))
    assert written == config and back.keys() == (state | buffers).keys()
    assert all(torch.equal(back[key], tensor) for key, tensor in (state | buffers).items())


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda s: s.pop("decoder.norm_out.norm.bias"), "missing decoder.norm_out.norm.bias"),
        (lambda s: s.update(other=torch.ones(2)), "unexpected other"),
        (
            lambda s: s.update({"quant_conv.conv3d.weight": torch.ones(3, 4, 1, 1, 1)}),
            "quant_conv.conv3d.weight",
        ),
        (lambda s: s["quant_conv.conv3d.bias"].fill_(torch.nan), "proj.bias|quant_conv.*finite"),
    ],
)
def test_wrong_weights_are_one_line(damage, words, fails):
    family, state, config = official("cosmos")
    damage(state)
    with fails(WeightsError, "model.pt", words):
        from_official(family, state, config, "model.pt")


@pytest.mark.parametrize("family", ["cosmos", "cosmos_image"])
def test_broken_and_malicious_files(family, tmp_path, broken, fails):
    _, _, config = official(family)
    for bad in sorted([*broken.glob("*.safetensors"), *broken.glob("malicious.*")]):
        place = tmp_path / bad.name
        shutil.copy(bad, place)
        with fails((WeightsError, ConfigError), place.name.replace(".", r"\.")):
            load(place, family=family, config=config)
        place.unlink()
    assert not list(tmp_path.iterdir()), "a file was made while loading"


def test_torchscript_is_code(tmp_path, fails):
    """Archives, whatever their suffix, and a folder as it lies on the hub."""
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "encoder.jit"))
    shutil.copy(tmp_path / "encoder.jit", tmp_path / "moved.pt")
    _, _, config = official("cosmos")
    for name in ("encoder.jit", "moved.pt"):
        with fails(WeightsError, f"{name}: it is TorchScript, which is code"):
            load(tmp_path / name, family="cosmos", config=config)
    with fails(UserError, "encoder.jit: it is TorchScript, which is code"):
        pretrained.open(tmp_path / "encoder.jit")
    (tmp_path / "moved.pt").unlink()
    for opened in (lambda: load(tmp_path, family="cosmos", config=config),
                   lambda: pretrained.open(tmp_path)):  # fmt: skip
        with fails(WeightsError, "encoder.jit: it is TorchScript, which is code"):
            opened()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"quantizer": "RESFSQ"}, "quantizer='RESFSQ' is not supported; expected 'FSQ'"),
        ({"encoder": "BASE"}, "encoder='BASE' is not supported; expected 'FACTORIZED'"),
        ({"decoder": "BASE"}, "decoder='BASE'"),
        ({"in_channels": 1}, "in_channels=1"),
        ({"patch_method": "db2"}, "db2"),
        ({"patch_size": 3}, "spatial_compression=8 is not patch_size=3 times a power of two"),
        ({"temporal_compression": 1}, "temporal_compression=1 is not patch_size=2 times"),
        ({"embedding_dim": 3}, "embedding_dim=3 but 2 levels"),
        ({"channels_mult": [1, 2]}, r"channels_mult=\[1, 2\], legacy_mode=False: .* enlarges"),
        ({"temporal_compression": 16}, "temporal_compression=16, .* enlarges latents"),
    ],
)
def test_what_needs_another_network_is_named(change, words, fails):
    family, state, config = official("cosmos")
    with fails(ConfigError, words):
        from_official(family, state, {**config, **change}, "here")


WRONG = (None, "many", [], {}, -1, 1.5)


@pytest.mark.parametrize("key", [*official("cosmos")[2], "dropout", "legacy_mode", "z_factor"])
def test_values_of_wrong_types_are_one_line(key):
    family, state, config = official("cosmos")
    for value in WRONG:
        try:
            from_official(family, state, {**config, key: value}, "somewhere")
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000, (key, value)


def test_options_of_the_official_config():
    """Every one is obeyed or has no effect."""
    _, _, config = official("cosmos")
    found = lambda **changes: COSMOS.config({**config, **changes})
    base = found()
    for name, value in {"num_groups": 32, "name": "x", "num_quantizers": 2, "dtype": "x"}.items():
        assert found(**{name: value}) == base
    assert found(dropout=0.2)["decoder"]["net"]["dropout"] == 0.2
    assert found(z_factor=2)["encoder"]["z_channels"] == 8 == 2 * found()["decoder"]["z_channels"]
    assert found(legacy_mode=True)["decoder"]["time_first"]
    assert found(resolution=42)["image_size"] == 40  # it places attention, and needs no size
    assert found(patch_method="rearrange")["output_space"]["method"] == "rearrange"
    with pytest.warns(UserWarning, match="config key interpolation is not known"):
        found(interpolation="nearest")


def test_what_the_official_layout_cannot_say_is_refused(fails):
    """First weights are no matter; a window of attention is."""
    family, state, config = official("cosmos")
    tokenizer = from_official(family, state, config)
    said = []
    for change in ({"init": "fan_in", "branch_gain": 0.1}, {"time_window": 3}):
        net = tokenizer.config.encoder.net.model_copy(update=change)
        parts = {
            part: getattr(tokenizer.config, part).model_copy(update={"net": net})
            for part in ("encoder", "decoder")
        }
        said.append(tokenizer.config.model_copy(update=parts))
    assert COSMOS.official(said[0]) == COSMOS.official(tokenizer.config)
    with fails(ConfigError, r"cosmos: encoder\.net=.*'time_window': 3.* has no place"):
        COSMOS.official(said[1])
