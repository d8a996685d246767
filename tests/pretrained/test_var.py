"""VAR comes in beside its VQ-VAE and goes out alone: names, files, options, counts, errors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from tests.support.var import VAE_FILE, official_var, write_pair
from vistok import pretrained
from vistok.cli import main
from vistok.config import ConfigError, UserError, read_yaml, validate
from vistok.config.registry import build
from vistok.core.records import Condition
from vistok.generators import Generator
from vistok.generators.base import SavedCodes
from vistok.pretrained import FAMILIES, from_official, to_official
from vistok.storage.weights import WeightsError
from vistok.tokenizer import Tokenizer, TokenizerConfig
from vistok.tokens import TokenSpec
from vistok.train.config import TrainConfig

VAR = FAMILIES["var"]
# Of the card (shared/recipes) to the digits that the official code counts: millions.
CARD = {"var-d16": 310.28, "var-d20": 600.92, "var-d24": 1033.40, "var-d30": 2010.02,
        "var-d36": 2353.89}  # fmt: skip
FROZEN = (4096 * 32 + 4 * (9 * 32 * 32 + 32) + 4097) / 1e6  # codes and convolutions of the VQ-VAE


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state, config = write_pair(tmp_path)
    return tmp_path, state, config


def imported(**changes) -> tuple[Generator, dict, dict]:
    state, config, vae, _ = official_var(**changes)
    return from_official("var", VAR.completed(state, vae), config), state, config


def samples(model: Generator) -> torch.Tensor:
    condition = Condition(label=torch.tensor([0, 1, 2, -1]))
    return model.sample(condition, index=torch.arange(4), seed=3).check().indices


# -- files and names -------------------------------------------------------------------------------


def test_a_pair_of_files_makes_one_generator(files, fails):
    folder, state, _ = files
    model = pretrained.open("var_tiny.pth", expect="generator")
    assert pretrained.locate("var_tiny.pth").kind == "generator"
    assert torch.equal(samples(model), samples(imported()[0]))
    model.save_pretrained("ours")  # and needs its tokenizer never again
    (folder / VAE_FILE).rename(folder / "elsewhere.pth")
    again = pretrained.open("ours", expect="generator")
    assert torch.equal(samples(again), samples(model))
    for one in (model, again):
        back, _ = to_official(one)
        assert back.keys() == state.keys()
        assert all(torch.equal(back[key], tensor) for key, tensor in state.items())
    with fails(
        ConfigError, "var_tiny.pth: .*codes of its tokenizer var-vqvae", f"{VAE_FILE} besid"
    ):
        pretrained.open("var_tiny.pth")
    with fails(ConfigError, "var-d16", "by hand"):  # no network in tests
        pretrained.load("var-d16", local_files_only=True)


def test_released_names_find_both_files(files, monkeypatch):
    """Both are asked of the hub, which puts them into one folder."""
    folder, asked = files[0], []
    family, release = pretrained.releases()["var-d16"]
    (folder / "var_tiny.pth").rename(folder / release.file)

    def download(release, local_files_only):
        asked.append(release.name)
        return folder / release.file

    monkeypatch.setattr("vistok.pretrained.find._download", download)
    sizes = {"depth": 2, "patch_nums": [1, 2, 4]}
    found = pretrained.find.find("var-d16", config=sizes)
    assert asked == ["var-d16", "var-vqvae"] and found.family is family
    assert "vae.quantize.embedding.weight" in found.state


def test_another_vqvae_is_another_conversion(files):
    folder, _, _ = files
    one = pretrained.saved_folder("var_tiny.pth")
    vae = torch.load(folder / VAE_FILE)
    vae["quantize.embedding.weight"] += 1
    torch.save(vae, folder / VAE_FILE)
    assert pretrained.saved_folder("var_tiny.pth") != one


def test_commands_take_the_pair(files):
    result = CliRunner().invoke(main, ["import", "var_tiny.pth", "out"])
    assert result.exit_code == 0, result.output
    info = CliRunner().invoke(main, ["info", "out"])
    assert info.exit_code == 0 and "next_scale" in info.output


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda s: s.pop("pos_1LC"), "no family recognizes|no such config"),
        (lambda s: s.pop("head.bias"), "missing head.bias"),
        (lambda s: s.update(other=torch.ones(2)), "unexpected other"),
        (lambda s: s.update(pos_start=s["pos_start"][..., :8]), "has shape"),
        (lambda s: s["head.weight"].fill_(torch.nan), "head.weight has values that are not finite"),
        (lambda s: s["blocks.1.attn.zero_k_bias"].fill_(1), "blocks.1.attn.zero_k_bias"),
        (lambda s: s["attn_bias_for_masking"].fill_(0), "attn_bias_for_masking"),
    ],
)
def test_wrong_weights_are_one_line(files, fails, damage, words):
    _, state, _ = files
    damage(state)
    torch.save(state, "var_tiny.pth")
    with fails((WeightsError, ConfigError), words):
        pretrained.open("var_tiny.pth")


# -- options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [{"shared_aln": True}, {"attn_l2_norm": False}, {"mlp_ratio": 2.5, "norm_eps": 1e-3},
     {"cond_drop_rate": 0.0, "drop_rate": 0.1, "attn_drop_rate": 0.2, "drop_path_rate": 0.3}],
    ids=str,
)  # fmt: skip
def test_options_go_both_ways(changes):
    model, state, config = imported(**changes)
    back, written = to_official(model)
    assert written == config and back.keys() == state.keys()
    said = VAR.official(model)
    assert {key: said[key] for key in changes} == changes
    assert VAR.config(said)["transformer"] == VAR.config(config)["transformer"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"patch_nums": [1, 2, 3]}, r"patch_nums=\[1, 2, 3\] with vae_kwargs.v_patch_nums"),
        ({"attn_l2_norm": "yes"}, "attn_l2_norm: got 'yes'; expected true or false"),
        ({"shared_aln": 1}, "shared_aln: got 1; expected true or false"),
        ({"vae_kwargs": {"quant_resi": 2.0, "v_patch_nums": [1, 2, 4]}}, "quant_resi=2.0"),
        ({"vae_kwargs": {"v_patch_nums": [4]}, "patch_nums": [4]}, r"v_patch_nums=\[4\]"),
    ],
)
def test_what_cannot_be_is_one_line(fails, change, words):
    config = {**official_var()[1], **change}
    with fails(ConfigError, words):
        VAR.config(config)


def test_unknown_options_are_warned_of_and_kernels_are_not(recwarn):
    base = official_var()[1]
    VAR.config({**base, "flash_if_available": False, "fused_if_available": False})
    assert not recwarn.list
    with pytest.warns(UserWarning, match="rotary is not known"):
        VAR.config({**base, "rotary": True})


def test_what_the_official_layout_cannot_say_is_refused(fails):
    tree = VAR.config(official_var()[1])
    for change, words in (
        ({"positions": "rope"}, "positions=rope"),
        ({"max_length": 6}, "max_length=6"),
        ({"condition": {"classes": 3, "pooled": 4}}, "condition.pooled=4"),
        ({"transformer": {**tree["transformer"], "modulation": "none"}}, "modulation=none"),
    ):
        model = Generator.from_description({**tree, **change}, "here")
        with fails(ConfigError, words, "no place in the official layout"):
            to_official(model, "var")


@pytest.mark.parametrize("key", ["depth", "embed_dim", "num_heads", "patch_nums", "vae_kwargs",
                                 "num_classes", "mlp_ratio", "cond_drop_rate"])  # fmt: skip
def test_values_of_wrong_types_are_one_line(key):
    state, config, vae, _ = official_var()
    for value in (None, "many", [], {}, -1):
        try:
            from_official("var", VAR.completed(state, vae), {**config, key: value}, "somewhere")
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000, (key, value)


# -- releases --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CARD)
def test_recipes_train_what_was_released(name):
    assert {release.name for release in VAR.releases} == set(CARD)
    family, release = pretrained.releases()[name]
    (recipe,) = release.recipe
    config = validate(TrainConfig, read_yaml(recipe)).task.generator
    described = family.config(release.config)
    with torch.device("meta"):
        model = build(config, validate(TokenSpec, described["spec"]), SavedCodes())
        released = Generator.from_description(described, name)
    gain = {"gate_gain": released.config.transformer.gate_gain}  # how it starts alone
    trunk = config.transformer.model_copy(update=gain)
    assert model.config.model_copy(update={"transformer": trunk}) == released.config
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(CARD[name], rel=1e-4)
    held = sum(b.numel() for key, b in model.named_buffers() if key in model.state_dict())
    assert held / 1e6 == pytest.approx(FROZEN, rel=1e-6)
    owner, tokens = pretrained.releases()[described["tokenizer"]["name"]]
    with torch.device("meta"):
        tokenizer = Tokenizer(validate(TokenizerConfig, owner.config(tokens.config)))
    assert tokenizer.spec() == model.spec
    assert Path(release.file).suffix == ".pth" and release.research_only
