"""MaskGIT on TiTok's tokens comes in and goes out: both networks, names, options, errors."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from tests.support.maskgit import official_maskgit
from vistok import pretrained
from vistok.cli import main
from vistok.config import ConfigError, UserError, read_yaml, validate
from vistok.config.registry import build
from vistok.core.records import Condition
from vistok.generators import Generator
from vistok.pretrained import FAMILIES, from_official, to_official
from vistok.storage.weights import WeightsError
from vistok.tokenizer import Tokenizer, TokenizerConfig
from vistok.tokens import TokenSpec
from vistok.train.config import TrainConfig

# Millions of parameters of the authors' own classes. Their paper says 287 for the last, which is
# what U-ViT's paper says of a network of this size without a vocabulary.
COUNTS = {"maskgit-titok-l32": 177.20, "maskgit-titok-b64": 177.23, "maskgit-titok-s128": 294.99}


@pytest.fixture(params=["ViT", "UViT"])
def kind(request):
    return request.param


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a
    )


def samples(model: Generator, **sampling) -> torch.Tensor:
    condition = Condition(label=torch.tensor([0, 1, 2, -1]))
    index = torch.arange(4)
    return model.sample(condition, index=index, seed=3, sampling=sampling).check().indices


# -- both ways -------------------------------------------------------------------------------------


def test_both_ways_bit_for_bit_with_what_nobody_reads(kind, tmp_path):
    state, config = official_maskgit(kind)
    table = "embeddings.weight"
    if kind == "ViT":
        state["model.embeddings.position_ids"] = torch.arange(9)[None]
        state["model.embeddings.token_type_ids"] = torch.zeros(1, 9, dtype=torch.long)
        table = "model.embeddings.word_embeddings.weight"
    state[table] = state[table].bfloat16()
    model = from_official("maskgit", state, config, "somewhere")
    assert torch.equal(model.embed[0].weight, state[table][:24].float())
    assert torch.equal(model.mask_token, state[table][24:25].float())
    assert torch.equal(model.condition.tokens.label.weight, state[table][25:].float())
    model.save_pretrained(tmp_path)
    for one in (model, Generator.from_pretrained(tmp_path)):
        back, written = to_official(one)
        assert equal(back, state) and written == config


def test_a_generator_that_was_trained_here_goes_out(kind):
    config = FAMILIES["maskgit"].config(official_maskgit(kind, num_hidden_layers=3)[1])
    model = Generator.from_description(config, "here").eval()
    torch.nn.init.normal_(model.head.weight)
    state, written = to_official(model, "maskgit")
    twin = from_official("maskgit", state, written)
    assert torch.equal(samples(twin), samples(model))
    known = twin.config.model_dump()
    assert known["sampling"] == model.config.sampling.model_dump()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tied": True}, "tied=true has no place"),
        ({"trunk": {"mlp": "swiglu"}}, "trunk.mlp=swiglu has no place"),
        ({"trunk": {"norm_eps": 1e-6}}, "trunk.norm_eps=1e-06 has no place"),
        ({"condition": {"classes": 3, "pooled": 4}}, "condition.pooled=4 has no place"),
        ({"condition": {"null_class": False, "dropout": 0.0}}, "condition.null_class=false has no"),
        ({"regroup": (4, 6)}, "vocabulary .* has no place.*one code per position"),
    ],
)
def test_what_the_official_layout_cannot_say_is_refused(fails, kind, change, words):
    config = FAMILIES["maskgit"].config(official_maskgit(kind)[1])
    for key, value in change.items():
        config[key] = {**config.get(key, {}), **value} if isinstance(value, dict) else value
    model = Generator.from_description(config, "here")
    with fails(ConfigError, words):
        to_official(model, "maskgit")


# -- names and files -------------------------------------------------------------------------------


def test_any_name_opens_it(kind, tmp_path, monkeypatch, fails):
    monkeypatch.chdir(tmp_path)
    state, config = official_maskgit(kind)
    expected = samples(from_official("maskgit", state, config))
    torch.save(state, "bare.bin")
    with fails(ConfigError, "config.json: no such config"):  # tensors do not tell heads
        pretrained.open("bare.bin")
    (tmp_path / "hub").mkdir()
    save_file(state, "hub/model.safetensors")
    (tmp_path / "hub/config.json").write_text(json.dumps(config))
    torch.save(state, "hub/generator_titok_l32.bin")
    for name in ("hub/model.safetensors", "hub/generator_titok_l32.bin"):
        model = pretrained.open(name, expect="generator")
        assert torch.equal(samples(model), expected) and model.tokenizer["name"] == "titok-l32"
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **o: str(tmp_path / "hub"))
    family, release = pretrained.releases()["maskgit-titok-l32"]
    small = replace(release, config=config)
    kept = tuple(small if one == release else one for one in family.releases)
    monkeypatch.setattr(type(family), "releases", kept)
    model = pretrained.open("maskgit-titok-l32", expect="generator")
    assert torch.equal(samples(model), expected) and "research" in model.licenses[0]
    info = CliRunner().invoke(main, ["info", "hub/generator_titok_l32.bin"])
    assert info.exit_code == 0 and "masked" in info.output and "titok-l32" in info.output


@pytest.mark.parametrize("name", COUNTS)
def test_releases_and_recipes(name):
    """The recipe's generator is the importer's, with its settings; bare weights tell which."""
    assert {release.name for release in FAMILIES["maskgit"].releases} == set(COUNTS)
    family, release = pretrained.releases()[name]
    config = validate(TrainConfig, read_yaml(release.recipe[0]))
    described = family.config(release.config)
    with torch.device("meta"):
        model = build(config.task.generator, validate(TokenSpec, described["spec"]))
        released = Generator.from_description(described, name)
    assert model.config == released.config
    assert release.gfid and release.license and release.research_only
    own, state, count = model.state_dict(), {}, 0
    for entry in family.entries(model):
        parts = entry.write(own, {})
        empty = (torch.empty(part.shape, device="meta") for part in parts)
        state.update(zip(entry.theirs, empty, strict=True))
        count += sum(part.numel() for part in parts)
    assert count / 1e6 == pytest.approx(COUNTS[name], rel=1e-4)
    assert family.constants(state) == release.config
    assert model.presets["unguided"]["guidance"] == 1.0 and model.sampling.guided
    _, tokens = pretrained.releases()[described["tokenizer"]["name"]]
    assert tokens.gfid == release.gfid
    assert f"runs/titok_{name.split('-')[-1]}_tokens" == str(config.data.path)


# -- options and damage ----------------------------------------------------------------------------


def test_options_of_the_official_config(fails):
    """Every one is obeyed, has no effect, or is named."""
    map_ = FAMILIES["maskgit"].config

    def changed(kind="ViT", top=None, **changes):
        config = official_maskgit(kind)[1]
        config["model"]["generator"].update(changes)
        return map_(config | (top or {}))

    base = changed()
    assert base["sampling"]["guidance"] == 4.0 and base["sampling"]["temperature"] == 0.5
    assert changed(image_seq_len="${model.vq_model.num_latent_tokens}") == base
    assert changed(image_seq_len=5)["spec"]["blocks"] == [[5]]
    assert changed(dropout=0.3)["trunk"]["dropout"] == 0.3
    assert changed(attn_drop=0.4)["trunk"]["attention_dropout"] == 0.4
    assert changed("UViT", dropout=0.3, attn_drop=0.4) == changed("UViT")  # these blocks drop none
    assert changed(class_label_dropout=0.4)["condition"]["dropout"] == 0.4
    assert changed(num_steps=9)["sampling"]["steps"] == 9
    cosine = changed(guidance_decay="power-cosine", guidance_scale=6.9, guidance_scale_pow=2.0)
    assert cosine["sampling"]["guidance"] == 6.9 and cosine["sampling"]["guidance_power"] == 2.0
    off = changed(guidance_decay="power-cosine", guidance_scale=0, guidance_scale_pow=0)
    assert off["sampling"]["guidance"] == 1.0
    losses = changed(top={"losses": {"label_smoothing": 0.3, "loss_weight_unmasked_token": 0.5}})
    assert (losses["label_smoothing"], losses["unmasked_weight"]) == (0.3, 0.5)
    with fails(ConfigError, "guidance_decay: got 'cosine'; expected one of constant, linear"):
        changed(guidance_decay="cosine")
    with fails(ConfigError, "guidance_scale=-2 with guidance_decay=constant"):
        changed(guidance_decay="constant", guidance_scale=-2)
    with fails(ConfigError, "model_type: got 'DiT'; expected one of ViT, UViT"):
        changed(model_type="DiT")
    with pytest.warns(UserWarning, match="model.generator.rotary is not known"):
        changed(rotary=True)


@pytest.mark.parametrize(
    "key",
    "hidden_size num_hidden_layers num_attention_heads intermediate_size dropout model_type "
    "image_seq_len condition_num_classes guidance_scale guidance_decay num_steps "
    "randomize_temperature".split(),
)
def test_values_of_wrong_types_are_one_line(kind, key):
    state, good = official_maskgit(kind)
    for value in ("many", [], {}, -1, 0):
        config = json.loads(json.dumps(good))
        config["model"]["generator"][key] = value
        try:
            from_official("maskgit", state, config, "somewhere")
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000, (key, value)
        else:  # numbers that are fine, or that this network does not read
            assert (value in (0, -1) and "_" in key) or key == "dropout", (key, value)


@pytest.mark.parametrize("key", ["position_embeddings", "word_embeddings", "token_type_embeddings"])
def test_wrong_weights_are_one_line(fails, key):
    name = f"model.embeddings.{key}.weight"
    for damage, words in (
        (lambda s: s.pop(name), f"missing {name}|no family"),
        (lambda s: s.update({name: s[name][:-1]}), f"{name}"),
        (lambda s: s[name][-1].fill_(torch.nan), f"{name} has values that are not finite"),
        (lambda s: s.update(other=s[name]), "unexpected other"),
    ):
        state, config = official_maskgit()
        damage(state)
        with fails(WeightsError, words):
            from_official("maskgit", state, config, "somewhere")


def test_its_tokens_are_those_of_the_tokenizer():
    known = pretrained.releases()
    for name in COUNTS:
        family, release = known[name]
        described = family.config(release.config)
        trained = read_yaml(known[described["tokenizer"]["name"]][1].recipe[-1])
        with torch.device("meta"):
            tokenizer = Tokenizer(validate(TokenizerConfig, trained["task"]["tokenizer"]))
        assert tokenizer.spec() == validate(TokenSpec, described["spec"])
