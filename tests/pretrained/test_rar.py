"""Generators come in and go out as tokenizers do: RAR's bare files, released names, errors."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from tests.support.official import official
from tests.support.rar import official_rar
from vistok import pretrained
from vistok.cli import main
from vistok.config import ConfigError, UserError, read_yaml, validate, validate_part
from vistok.config.registry import build
from vistok.core.records import Condition
from vistok.generators import Generator
from vistok.pretrained import FAMILIES, from_official, load, to_official
from vistok.storage.origin import Origin
from vistok.storage.weights import WeightsError
from vistok.tokenizer import Tokenizer, TokenizerConfig
from vistok.tokens import TokenSpec
from vistok.train.config import TrainConfig

# Of the cards (shared/recipes): millions of parameters. RobusTok's four times as many codes are
# not in its card's 261M and 461M, which are those of the network alone.
CARD = {"rar-b": 261, "rar-l": 462, "rar-xl": 955, "rar-xxl": 1499,
        "robustok-rar-b": 261 + 2 * 3072 * 768 / 1e6,
        "robustok-rar-l": 461 + 2 * 3072 * 1024 / 1e6}  # fmt: skip


@pytest.fixture
def files(tmp_path, monkeypatch):
    """(the current folder with rar.bin and config.json, state, config)."""
    monkeypatch.chdir(tmp_path)
    state, config = official_rar()
    torch.save(state, "rar.bin")
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path, state, config


def samples(model: Generator) -> torch.Tensor:
    condition = Condition(label=torch.tensor([0, 1, 2, -1]))
    return model.sample(condition, index=torch.arange(4), seed=3).check().indices


def write_tokenizer(folder: Path) -> None:
    """A tiny MaskGIT-VQGAN in its official layout."""
    _, state, config = official("maskgit_vqgan")
    folder.mkdir()
    torch.save(state, folder / "tokens.bin")
    (folder / "config.json").write_text(json.dumps(config))


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a
    )


# -- both ways -------------------------------------------------------------------------------------


def test_both_ways_bit_for_bit_with_rows_that_nobody_reads(tmp_path):
    state, config = official_rar()
    state["attn_mask"] = torch.zeros(3, 3)  # not in the releases: a constant of the original
    state["blocks.1.mlp.fc2.weight"] = state["blocks.1.mlp.fc2.weight"].half()
    state["pos_embed"] = state["pos_embed"].bfloat16()
    model = from_official("rar", state, config, "somewhere")
    model.save_pretrained(tmp_path)
    for one in (model, Generator.from_pretrained(tmp_path)):
        back, written = to_official(one)
        assert equal(back, state) and written == config
    inert = Origin.load(tmp_path).inert
    assert set(inert) == {
        "attn_mask",
        "embeddings.weight[24:25]",
        "pos_embed[18:1040]",
        "target_aware_pos_embed[0:2]",
        "target_aware_pos_embed[18:1040]",
        "timesteps_embeddings[18:116]",
    }
    model.save_pretrained(tmp_path)
    build(model.config, model.spec).save_pretrained(tmp_path)  # nothing of the other is left behind
    assert Origin.load(tmp_path) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"transformer": {"qk_norm": False}}, "transformer.qk_norm=False"),
        ({"transformer": {"mlp": "swiglu"}}, "transformer.mlp=swiglu"),
        ({"transformer": {"layer_scale": 0.1}}, "transformer.layer_scale=0.1"),
        ({"condition": {"classes": 3, "pooled": 4}}, "condition.pooled=4"),
        ({"regroup": (4, 6)}, r"vocabulary \(4, 6\)"),
    ],
)
def test_what_the_official_layout_cannot_say_is_refused(fails, change, words):
    config = FAMILIES["rar"].config(official_rar()[1])
    for key, value in change.items():
        config[key] = {**config.get(key, {}), **value} if isinstance(value, dict) else value
    config.pop("head")
    model = Generator.from_description(config, "here")
    with fails(ConfigError, words, "no place in the official layout"):
        to_official(model, "rar")


def test_layouts_of_the_other_kind_are_refused(fails):
    state, config = official_rar()
    model = from_official("rar", state, config)
    with fails(UserError, "family=titok: a layout of tokenizers, not of a generator"):
        to_official(model, "titok")
    autoregressive = build(validate_part("generator", {"kind": "autoregressive"}), model.spec)
    with fails(ConfigError, "kind=autoregressive .*no place in the official layout"):
        to_official(autoregressive, "rar")


# -- names and files -------------------------------------------------------------------------------


def test_any_name_opens_a_generator(files, fails):
    folder, state, config = files
    save_file(state, folder / "rar.safetensors")
    other = folder / "alone"
    other.mkdir()
    shutil.copy("rar.bin", other)
    shutil.copy("config.json", other)
    expected = samples(from_official("rar", state, config))
    for name in ("rar.bin", "rar.safetensors", other, "alone/rar.bin"):
        model = pretrained.open(name, expect="generator")
        assert isinstance(model, Generator) and torch.equal(samples(model), expected)
        assert pretrained.locate(name).kind == "generator"
        with fails(UserError, "not a tokenizer but a generator; name the tokenizer whose tokens"):
            pretrained.open(name, expect="tokenizer")
    kept = pretrained.saved_folder("rar.bin")
    assert torch.equal(samples(pretrained.open(kept, expect="generator")), expected)
    assert pretrained.saved_folder("rar.bin", expect="generator") == kept
    write_tokenizer(folder / "tokens")
    assert pretrained.locate("tokens").kind == "tokenizer"
    with fails(UserError, "not a generator but a tokenizer; expected a run .* such as rar-b"):
        pretrained.open("tokens", expect="generator")


def test_bare_weights_are_read_by_their_shapes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state, config = official_rar(num_attention_heads=4)
    torch.save(state, "rar.bin")
    model = pretrained.open("rar.bin")
    own = model.config
    assert (own.transformer.width, own.transformer.depth, own.transformer.heads) == (16, 2, 4)
    assert model.spec.vocab == (24,) and model.spec.blocks == ((4, 4),) and model.num_classes == 3
    assert model.tokenizer == {} and not model.sampling.guided  # the sizes are no release's
    known = from_official("rar", state, config)
    told = known.settings({"guidance": 1.0, "temperature": 1.0})
    labels, index = Condition(label=torch.tensor([0, 1, 2])), torch.arange(3)
    sampled = [one.sample(labels, index=index, sampling=told).indices for one in (model, known)]
    assert torch.equal(*sampled)


@pytest.mark.parametrize("name", CARD)
def test_sizes_of_a_release_tell_its_config(name):
    """Of weights without numbers: codes and sizes find the settings, and whose tokens they are."""
    family, release = pretrained.releases()[name]
    with torch.device("meta"):
        model = Generator.from_description(family.config(release.config), name)
    own = model.state_dict()
    state = {
        key: torch.empty(entry.write(own, {})[0].shape, device="meta")
        for entry in family.entries(model)
        for key in entry.theirs
    }
    assert family.constants(state) == release.config
    assert model.tokenizer["name"] in pretrained.releases()
    owner = "robustok-main" if name.startswith("robustok") else "maskgit-vqgan"
    assert model.tokenizer["name"] == owner and model.spec.length == 256


def test_released_names_and_hub_ids(files, monkeypatch, fails):
    folder, state, config = files
    hub = folder / "hub"
    hub.mkdir()
    torch.save(state, hub / "rar_b.bin")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *args, **options: str(hub))
    family, release = pretrained.releases()["rar-b"]
    small = replace(release, config=config)
    kept = tuple(small if one == release else one for one in family.releases)
    monkeypatch.setattr(type(family), "releases", kept)
    model = pretrained.open("rar-b", expect="generator")
    assert model.origin.release == "rar-b" and "research" in model.licenses[0]
    assert torch.equal(samples(model), samples(from_official("rar", state, config)))
    with fails(UserError, "hf:yucornetto/RAR: holds several releases", "rar-b, rar-l, rar-xl"):
        pretrained.open("hf:yucornetto/RAR")
    with fails(UserError, "hf:qiuk6/RobusTok: holds several releases", "robustok-main.*-rar-l"):
        pretrained.open("hf:qiuk6/RobusTok")
    with fails(UserError, "rar-xl: not a tokenizer but a generator"):
        pretrained.open("rar-xl", expect="tokenizer")
    with fails(UserError, "unknown release 'rar-xs'; did you mean 'rar-xl'|'rar-xxl'"):
        pretrained.open("rar-xs")


def test_commands_take_official_files(files):
    folder, _, _ = files
    said = lambda *words: CliRunner().invoke(main, list(map(str, words)))
    done = said("import", "rar.bin", "ours")
    assert done.exit_code == 0, done.output
    assert "(rar) -> ours" in done.output and "license: not stated" in done.output
    for name in ("rar.bin", "ours"):
        info = said("info", name)
        assert info.exit_code == 0, info.output
        for words in ("random_order", "maskgit-vqgan", "sampling.guidance=4.0", "=cosine"):
            assert words in info.output
    write_tokenizer(folder / "tokens")
    for options in ((), ("sampling.guidance=1",)):
        done = said(
            *("generate", "rar.bin", "tokens", "--count", 1, "--class", 2, "--overwrite"), *options
        )
        assert done.exit_code == 0, done.output
    assert (folder / "generated.png").is_file()


def test_research_weights_are_not_pushed_by_accident(fails):
    model = from_official("rar", *official_rar())
    model.origin = Origin("rar", {}, license="Apache-2.0 (research purposes)")
    with fails(ValueError, "explicit word", "research_only=True"):
        model.push_to_hub("someone/something")


# -- damage ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda s: s.pop("pos_embed"), "missing pos_embed"),
        (lambda s: s.pop("embeddings.weight"), "missing embeddings.weight"),
        (lambda s: s.update(other=torch.ones(2)), "unexpected other"),
        (lambda s: s.update(pos_embed=s["pos_embed"][:, :99]), r"pos_embed.*expected 1040 rows"),
        (lambda s: s.update(pos_embed=s["pos_embed"][0]), r"pos_embed.*\(1040, 16\)"),
        (lambda s: s.update(cls_token=s["cls_token"][..., :8]), "cls_token has shape"),
        (lambda s: s["lm_head.bias"].fill_(torch.nan), "lm_head.bias has values that are not fin"),
        (lambda s: s["pos_embed"][0, 500].fill_(torch.inf), "pos_embed has values that are not"),
        (lambda s: s.update(cls_token=s["cls_token"].long()), "cls_token has type int64"),
    ],
)
def test_wrong_weights_are_one_line(files, fails, damage, words):
    _, state, _ = files
    damage(state)
    torch.save(state, "rar.bin")
    with fails(WeightsError, "rar.bin", words):
        pretrained.open("rar.bin")


def test_broken_and_malicious_files(files, broken, fails):
    folder, _, _ = files
    before = set(folder.rglob("*"))
    for bad in sorted([*broken.glob("*.safetensors"), *broken.glob("malicious.*")]):
        if bad.suffix not in (".safetensors", ".bin", ".pt", ".pth", ".ckpt"):
            continue
        place = folder / bad.name
        shutil.copy(bad, place)
        for read in (load, lambda name: pretrained.open(name, expect="generator")):
            with fails((WeightsError, ConfigError), place.name.replace(".", r"\.")):
                read(place)
        place.unlink()
    assert set(folder.rglob("*")) == before, "a file was made while loading"


WRONG = (None, "many", [], {}, -1, 1.5)
PLACES = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    *("image_seq_len", "condition_num_classes", "dropout", "attn_drop", "class_label_dropout"),
    *("guidance_scale", "guidance_scale_pow", "randomize_temperature"),
    *("randomness_anneal_start", "randomness_anneal_end"),
)


@pytest.mark.parametrize("key", PLACES)
def test_values_of_wrong_types_are_one_line(key):
    state, _ = official_rar()
    for value in WRONG:
        config = official_rar()[1]
        config["model"]["generator"][key] = value
        try:
            from_official("rar", state, config, "somewhere")
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000, (key, value)
        else:
            assert value in (None, 1.5), (key, value)
    for whole in ({"model": None}, {"model": {"generator": 3}}, {}, {"model": {"vq_model": {}}}):
        with pytest.raises(UserError, match=r"lacks model.generator or model.vq_model"):
            from_official("rar", state, whole, "somewhere")


def test_options_of_the_official_config(fails):
    """Every one is obeyed, has no effect, or is named."""
    map_ = FAMILIES["rar"].config
    base = map_(official_rar()[1])
    changed = lambda **changes: map_(official_rar()[1] | _generator(changes))
    assert changed(use_checkpoint=True) == base  # recomputes activations
    assert changed(guidance_scale=0.0)["sampling"]["guidance"] == 1.0  # no guidance
    assert changed(guidance_scale_pow=0.0)["sampling"]["guidance_power"] == 0.0
    assert changed(dropout=0.2)["transformer"]["mlp_dropout"] == 0.2
    assert changed(attn_drop=0.3)["transformer"]["attention_dropout"] == 0.3
    assert changed(class_label_dropout=0.4)["condition"]["dropout"] == 0.4
    assert changed(image_seq_len=12)["spec"]["blocks"] == [[12]]
    late = changed(randomness_anneal_start=100_000, randomness_anneal_end=500_000)
    assert late["randomness"] == {"start": 0.4, "end": 1.0}
    short = official_rar()[1] | {"training": {"max_train_steps": 400_000}}
    assert map_(short)["randomness"] == {"start": 0.3125, "end": 0.46875}
    with pytest.warns(UserWarning, match="model.generator.rotary is not known"):
        changed(rotary=True)


def _generator(changes: dict) -> dict:
    return {
        "model": {
            "vq_model": official_rar()[1]["model"]["vq_model"],
            "generator": official_rar()[1]["model"]["generator"] | changes,
        }
    }


# -- releases --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CARD)
def test_recipes_train_what_was_released(name):
    """The recipe's generator, sampling settings too, is the importer's; counts are the card's with
    the rows that nobody reads, which the original counts."""
    assert {release.name for release in FAMILIES["rar"].releases} == set(CARD)
    family, release = pretrained.releases()[name]
    (recipe,) = release.recipe
    config = validate(TrainConfig, read_yaml(recipe))
    described = family.config(release.config)
    with torch.device("meta"):
        model = build(config.task.generator, validate(TokenSpec, described["spec"]))
        released = Generator.from_description(described, name)
    assert model.config == released.config
    assert release.gfid and release.license and release.research_only
    unread = sum(
        rows
        for entry in family.entries(model)
        for ours, rows in getattr(entry, "pieces", ())
        if ours is None
    )
    width = model.config.transformer.width
    count = sum(p.numel() for p in model.parameters()) + unread * width
    assert count / 1e6 == pytest.approx(CARD[name], rel=0.005)


def test_a_release_of_tokens_and_its_generator_have_one_spec():
    for name in ("rar-b", "robustok-rar-b"):
        family, release = pretrained.releases()[name]
        described = family.config(release.config)
        owner, tokens = pretrained.releases()[described["tokenizer"]["name"]]
        tree = owner.config(tokens.config)
        with torch.device("meta"):
            tokenizer = Tokenizer(validate(TokenizerConfig, tree))
        assert tokenizer.spec() == validate(TokenSpec, described["spec"])
