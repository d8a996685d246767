"""LlamaGen's GPT comes in as it was released and goes out again; errors are one line."""

from __future__ import annotations

from argparse import Namespace

import pytest
import torch

from tests.support.llamagen_gpt import CAPTIONS, official_gpt
from tests.support.tiny_text import t5
from vistok import pretrained
from vistok.config import ConfigError, UserError, read_yaml, validate
from vistok.config.registry import build
from vistok.core.records import Condition
from vistok.frozen.text import TextEncoder, TextEncoderConfig
from vistok.generators import Generator
from vistok.pretrained import FAMILIES, from_official, to_official
from vistok.pretrained.generators import gpt_layout
from vistok.storage.weights import WeightsError
from vistok.tokens import TokenSpec
from vistok.train.config import TrainConfig

FAMILY = "llamagen_gpt"
INDEX = torch.arange(2)
CARD = {"b": 111, "l": 343, "xl": 775, "xxl": 1411, "3b": 3100}  # millions


def equal(state, again) -> bool:
    return again.keys() == state.keys() and all(torch.equal(again[k], state[k]) for k in state)


def shapes(name: str) -> dict[str, torch.Tensor]:
    """The official state dict of a release, on the meta device."""
    family, release = pretrained.releases()[name]
    with torch.device("meta"):
        model = Generator.from_description(family.config(release.config), name)
    own = model.state_dict()
    return {entry.theirs[0]: own[entry.ours] for entry in family.entries(model)}


def test_files_of_all_trainers(tmp_path, monkeypatch, fails):
    """Under model, module or state_dict, or bare; compiled or not; with the trainer's arguments or
    an older table."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(pretrained.generators.gpt_layout.MODELS, "B", (16, 2, 2))
    state, config = official_gpt(vocab_size=12, block_size=16)
    told = {"gpt_model": "GPT-B", "gpt_type": "c2i", "image_size": 64, "dropout_p": 0.2}
    args = Namespace(**told, num_classes=3, multiple_of=16, lr=1e-4, data_path="elsewhere")
    compiled = {f"_orig_mod.{key}": tensor for key, tensor in state.items()}
    torch.save({"model": compiled, "optimizer": {}, "steps": 3, "args": args}, "ddp.pt")
    model = pretrained.open("ddp.pt", expect="generator")
    assert model.spec.blocks == ((4, 4),) and model.config.transformer.dropout == 0.2
    assert model.num_classes == 3 and equal(state, to_official(model)[0])
    held = {"module": {"module": state}, "dict": {"state_dict": state}, "bare": state}
    for name, file in held.items():
        torch.save(file, f"{name}.pt")
        found = pretrained.load(f"{name}.pt", config=config)
        assert equal(state, to_official(found)[0])
    with fails(ConfigError, "the weights do not tell n_head and block_size", "give a config"):
        pretrained.open("module.pt")
    old = state | {"freqs_cis": torch.rand(17, 4, 2)}
    assert equal(old, to_official(from_official(FAMILY, old, config))[0])
    assert equal(state, to_official(from_official(FAMILY, compiled, config))[0])


def test_sizes_are_those_of_the_tensors():
    family = FAMILIES[FAMILY]
    state, texts = (shapes(name) for name in ("llamagen-gpt-xl-384", "llamagen-gpt-t2i-xl-256"))
    told = family.constants(state)
    assert (told["n_head"], told["block_size"], told["cfg_scale"]) == (20, 576, 1.75)
    with pytest.raises(ConfigError, match="llamagen-gpt-t2i-xl-256 or llamagen-gpt-t2i-xl-512"):
        family.constants(texts)
    table = {"freqs_cis": torch.empty(120 + 1024, 32, 2, device="meta")}
    assert family.constants(texts | table)["block_size"] == 1024


def test_options_of_the_official_config(fails):
    tree = lambda **changes: FAMILIES[FAMILY].config(official_gpt()[1] | changes)
    trunk = lambda **changes: tree(**changes)["transformer"]
    assert trunk(n_kv_head=1)["kv_heads"] == 1 and trunk(n_kv_head=2)["kv_heads"] is None
    assert trunk(norm_eps=0.1)["norm_eps"] == 0.1 and trunk(multiple_of=7)["mlp_multiple"] == 7
    assert trunk(initializer_range=0.1)["init_std"] == 0.1
    drops = trunk(resid_dropout_p=0.3, ffn_dropout_p=0.2, attn_dropout_p=0.4, drop_path_rate=0.5)
    assert (drops["dropout"], drops["mlp_out_dropout"]) == (0.3, 0.2)
    assert (drops["attention_dropout"], drops["drop_path"]) == (0.4, 0.5)
    assert tree(token_dropout_p=0.6)["token_dropout"] == 0.6 and tree(rope_base=9)["rope_base"] == 9
    assert tree(max_seq_len=3) == tree()
    assert tree(class_dropout_prob=0.0)["condition"]["null_class"] is False
    interval = lambda value: tree(cfg_interval=value)["sampling"]["guidance_interval"]
    assert (interval(-1), interval(2), interval(7)) == ((0.0, 1.0), (0.0, 4 / 9), (0.0, 1.0))
    assert tree(cfg_scale=0.5)["sampling"]["guidance"] == 1.0
    text = tree(model_type="t2i", cls_token_num=4, no_left_padding=True)["condition"]["text"]
    assert (text["length"], text["align"], text["dim"]) == (4, "given", 2048)
    with fails(ConfigError, "cls_token_num=3 with model_type=c2i; expected 1"):
        tree(cls_token_num=3)
    with fails(ConfigError, "model_type=i2i; expected c2i or t2i"):
        tree(model_type="i2i")
    with fails(ConfigError, "block_size=8; expected a square"):
        tree(block_size=8)
    with fails(ConfigError, "gpt_model=GPT-Z; expected one of GPT-B"):
        tree(gpt_model="GPT-Z")
    with pytest.warns(UserWarning, match="config key depth is not known and changes nothing"):
        tree(depth=3)


@pytest.mark.parametrize("key", ["dim", "n_head", "block_size", "multiple_of", "top_p"])
def test_values_of_wrong_types_are_one_line(key):
    state, config = official_gpt()
    for value in (None, "many", [], -1):
        with pytest.raises(UserError) as told:
            from_official(FAMILY, state, config | {key: value}, "somewhere")
        assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda s: s.pop("norm.weight"), "missing norm.weight"),
        (lambda s: s.update(other=torch.ones(2)), "unexpected other"),
        (lambda s: s.update({"output.weight": torch.ones(3, 16)}), "output.weight has shape"),
        (lambda s: s["norm.weight"].fill_(torch.nan), "norm.weight has values that are not"),
        (lambda s: s.pop("cls_embedding.embedding_table.weight"), "missing cls_embedding"),
    ],
)
def test_wrong_weights_are_one_line(damage, words, fails):
    state, config = official_gpt()
    damage(state)
    with fails(WeightsError, words):
        from_official(FAMILY, state, config)


def test_a_model_without_a_null_class_has_no_guidance(fails):
    state, config = official_gpt(class_dropout_prob=0.0)
    assert state["cls_embedding.embedding_table.weight"].shape == (3, 16)
    model = from_official(FAMILY, state, config)
    assert equal(state, to_official(model)[0])
    label = Condition(label=INDEX)
    model.sample(label, index=INDEX)
    unknown = Condition(label=INDEX - 1)
    for given, settings in ((label, {"guidance": 2.0}), (None, {}), (unknown, {})):
        with fails(ValueError, "null_class=false: this generator knows no sample without a class"):
            model.sample(given, index=INDEX, sampling=settings)


def test_what_the_layout_cannot_hold_is_named(fails):
    model = from_official(FAMILY, *official_gpt(ffn_dim_multiplier=0.77, n_kv_head=1))
    twin = from_official(FAMILY, *to_official(model, FAMILY))
    assert twin.config.transformer.hidden == model.config.transformer.hidden
    for changes, words in (
        ({"condition_positions": "before"}, "condition_positions=before has no place"),
        ({"regroup": [4, 3]}, r"vocab=\(4, 3\) have no place in the official layout"),
    ):
        tree = model.describe() | {"head": None} | changes
        with fails(ConfigError, words):
            to_official(Generator.from_description(tree, "tiny"), FAMILY)
    tree = model.describe()
    tree["transformer"] = tree["transformer"] | {"mlp": "geglu"}
    with fails(ConfigError, "transformer.mlp=geglu has no place in the official layout"):
        to_official(Generator.from_description(tree, "tiny"), FAMILY)


@pytest.mark.parametrize("name", [r.name for r in FAMILIES[FAMILY].releases])
def test_recipes_train_what_was_released(name):
    """The recipe's generator, sampling settings too, is the importer's; counts are the card's."""
    family, release = pretrained.releases()[name]
    described = family.config(release.config)
    config = validate(TrainConfig, read_yaml(release.recipe[0]))
    with torch.device("meta"):
        model = build(config.task.generator, validate(TokenSpec, described["spec"]))
        released = Generator.from_description(described, name)
    assert model.config == released.config
    assert release.research_only and "research" in release.license
    count = sum(p.numel() for p in model.parameters()) / 1e6
    assert count == pytest.approx(CARD[name.split("-")[-2]], rel=5e-3)


def test_captions_name_their_text_encoder(tmp_path, fails, monkeypatch):
    """The released sizes read FLAN-T5-XL's features; another encoder is refused."""
    family = FAMILIES[FAMILY]
    tree = family.config(family.releases[-1].config)["text_encoder"]["config"]
    path = "hf:google/flan-t5-xl"
    assert tree == {"network": "t5", "path": path, "length": 120, "padding": "left"}
    assert "text_encoder" not in family.config(CAPTIONS)  # features of another width
    assert "text_encoder" not in family.config(family.releases[0].config)
    monkeypatch.setattr(gpt_layout, "_T5_WIDTH", 8)  # as of a tiny encoder
    given = {"model_type": "t2i", "cls_token_num": 120, "caption_dim": 8}
    state, config = official_gpt(**given, no_left_padding=True)
    model = from_official(FAMILY, state, config)
    assert model.text_record["config"]["padding"] is None
    encoder = TextEncoder(TextEncoderConfig(network="t5", path=t5(tmp_path), length=120))
    model.use_text_encoder(encoder)
    features = model.text_condition(["a cat"])
    assert model.sample(features, index=torch.arange(1)).indices.shape == (1, 9, 1)
    model = from_official(FAMILY, state, config | {"no_left_padding": False})
    with fails(ConfigError, "text.padding=None: this generator was trained with padding=left"):
        model.use_text_encoder(encoder)
