"""Open-MAGVIT2's generators come in and go out: checkpoints of Lightning, options, errors."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from vistok import pretrained
from vistok.config import ConfigError, UserError, read_yaml, validate
from vistok.core.records import Condition
from vistok.generators import Generator
from vistok.pretrained import FAMILIES, from_official, to_official
from vistok.pretrained.generators.open_magvit2 import PREFIX
from vistok.storage.origin import Origin
from vistok.storage.weights import WeightsError
from vistok.train.config import TrainConfig

NAME = "open_magvit2_ar"
# Parameters of the release, in millions: those of the authors' table, whose last digit is given.
TABLE = {
    "open-magvit2-ar-b": (343, 1),
    "open-magvit2-ar-l": (804, 1),
    "open-magvit2-ar-xl": (1500, 50),
}


def params(**changes) -> dict:
    return {
        "vocab_size": 64,
        "block_size": 4,
        "spatial_n_layer": 2,
        "factorized_n_layer": 1,
        "factorized_bits": [2, 4],
        "n_head": 2,
        "dim": 16,
        "cond_dim": 16,
        "multiple_of": 8,
        "token_drop": 0.1,
        "resid_dropout_p": 0.1,
        "token_factorization": True,
        "class_num": 3,
        **changes,
    }


def tiny(**changes) -> tuple[dict[str, torch.Tensor], dict]:
    """(state, config) in the official layout, with random weights."""
    given = params(**changes)
    config = {"model": {"init_args": {"transformer_config": {"params": given}}}}
    config["sampling"] = {"temperature": [1.1, 1.0], "top_k": [0, 0], "cfg_scale": [1.9, 2.0]}
    model = Generator.from_description(FAMILIES[NAME].config(config), "tiny")
    state, _ = to_official(model, NAME)
    torch.manual_seed(0)
    return {key: torch.randn_like(tensor) for key, tensor in state.items()}, config


def samples(model: Generator) -> torch.Tensor:
    condition = Condition(label=torch.tensor([0, 1, 2, -1]))
    return model.sample(condition, index=torch.arange(4), seed=3).check().indices


def test_a_whole_checkpoint_goes_both_ways_bit_for_bit(tmp_path):
    state, config = tiny()
    state["first_stage_model.encoder.conv_in.weight"] = torch.randn(2, 3)
    state[f"{PREFIX}norm.weight"] = state[f"{PREFIX}norm.weight"].bfloat16()
    model = from_official(NAME, state, config)
    model.save_pretrained(tmp_path)
    for one in (model, Generator.from_pretrained(tmp_path)):
        back, written = to_official(one)
        assert back.keys() == state.keys() and written == config
        assert all(torch.equal(back[key], state[key]) for key in state)
        assert all(back[key].dtype == state[key].dtype for key in state)
    assert set(Origin.load(tmp_path).inert) == {"first_stage_model.encoder.conv_in.weight"}
    bare = {key.removeprefix(PREFIX): t for key, t in state.items() if key.startswith(PREFIX)}
    alone = from_official(NAME, bare, params())  # the network's arguments alone say no settings
    assert not alone.sampling.guided and model.sampling.guidance == (1.9, 2.0)
    assert model.sampling.temperature == (1.1, 1.0) and model.sampling.top_k == 0
    labels = Condition(label=torch.tensor([0, 1, 2, -1]))
    told = model.sampling
    again = alone.sample(labels, index=torch.arange(4), seed=3, sampling=told.model_dump())
    assert torch.equal(again.indices, samples(model))


def test_lightning_files_open_by_any_name(tmp_path, monkeypatch, fails):
    monkeypatch.chdir(tmp_path)
    state, config = tiny()
    held = {"epoch": 299, "state_dict": state, "hyper_parameters": {}, "callbacks": {}}
    torch.save(held, "AR.ckpt")
    (tmp_path / "config.json").write_text(json.dumps(config))
    expected = samples(from_official(NAME, state, config))
    model = pretrained.open("AR.ckpt", expect="generator")
    assert torch.equal(samples(model), expected) and model.origin.inside == "state_dict"
    save_file(state, "ar.safetensors")
    assert torch.equal(samples(pretrained.open("ar.safetensors")), expected)
    (tmp_path / "config.json").unlink()
    with fails(ConfigError, "config.json: no such config; these weights came"):
        pretrained.open("AR.ckpt")  # of no release's width: its heads are not known


@pytest.mark.parametrize("name", TABLE)
def test_recipes_train_what_was_released(name):
    family, release = pretrained.releases()[name]
    (recipe,) = release.recipe
    trained = validate(TrainConfig, read_yaml(recipe)).task.generator
    with torch.device("meta"):
        model = Generator.from_description(family.config(release.config), name)
    assert trained == model.config
    width = trained.transformer.width  # tells weights without a config
    heads = {f"{PREFIX}{key}.weight": torch.ones(1, width) for key in ("post_emb", "head.1")}
    state = {f"{PREFIX}pre_emb.weight": torch.ones(64, width), **heads}
    assert family.constants(state) == release.config
    assert release.gfid and release.research_only and model.spec.bits == 256 * 18
    count, (published, digit) = sum(p.numel() for p in model.parameters()) / 1e6, TABLE[name]
    assert abs(count - published) < digit


# -- damage and options ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda s: s.pop(f"{PREFIX}norm.weight"), "missing transformer.norm.weight"),
        (lambda s: s.update(other=torch.ones(2)), "unexpected other"),
        (lambda s: s.update({f"{PREFIX}head.2.weight": torch.ones(2)}), "unexpected .*head.2"),
        (lambda s: s.update({f"{PREFIX}head.1.weight": torch.ones(4, 16)}), r"expected \(16, 16\)"),
        (lambda s: s[f"{PREFIX}pre_emb.weight"].fill_(torch.nan), "pre_emb.weight has values"),
        (lambda s: s.update({f"{PREFIX}pre_emb.weight": torch.ones(4, 16).long()}), "type int64"),
    ],
)
def test_wrong_weights_are_one_line(damage, words, fails):
    state, config = tiny()
    damage(state)
    with fails(WeightsError, "AR.ckpt", words):
        from_official(NAME, state, config, "AR.ckpt")


def test_broken_and_malicious_files(tmp_path, broken, fails):
    for bad in sorted([*broken.glob("*.safetensors"), *broken.glob("malicious.*")]):
        if bad.suffix not in (".safetensors", ".bin", ".pt", ".pth", ".ckpt"):
            continue
        place = tmp_path / bad.name
        shutil.copy(bad, place)
        with fails((WeightsError, ConfigError), place.name.replace(".", r"\.")):
            pretrained.load(place, family=NAME, config=params())
        place.unlink()
    assert not list(tmp_path.iterdir()), "a file was made while loading"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"token_factorization": False}, "token_factorization=false: the original has no network"),
        ({"factorized_k": 3}, "factorized_k=3: expected 2"),
        ({"factorized_bits": [2, 2, 2]}, r"factorized_bits=\[2, 2, 2\]: expected the bits of two"),
        ({"cls_token_num": 2}, "cls_token_num=2: expected 1"),
        ({"block_size": 12}, "block_size=12: expected a square"),
        ({"dim": 12}, "dim=12, n_head=2: .* a width of heads that four divides"),
        ({"n_kv_head": 3, "dim": 32, "n_head": 4}, "kv_heads=3: expected a divisor of heads=4"),
        ({"factorized_n_layer": 0}, "intra.depth: got 0"),
    ],
)
def test_what_the_network_does_not_run_with_is_named(changes, words, fails):
    state, _ = tiny()
    with fails(ConfigError, words):
        from_official(NAME, state, params(**changes), "here")


def test_options_of_the_official_config():
    """Every one is obeyed or has no effect."""
    map_ = FAMILIES[NAME].config
    base = map_(params())
    trunk = lambda **changes: map_(params(**changes))["transformer"]
    for name in ("vocab_size", "cond_dim", "embd_pdrop", "n_unmasked", "max_batch_size"):
        assert map_(params(**{name: 7})) == base
    assert trunk(resid_dropout_p=0.3)["dropout"] == 0.3
    assert trunk(ffn_dropout_p=0.4)["mlp_out_dropout"] == 0.4
    assert trunk(attn_dropout_p=0.2)["attention_dropout"] == 0.2
    assert trunk(drop_path_rate=0.2)["drop_path"] == 0.2
    assert trunk(norm_eps=1e-3)["norm_eps"] == 1e-3
    assert trunk(initalizer_range=0.1)["init_std"] == 0.1
    assert trunk(n_kv_head=1)["kv_heads"] == 1 and trunk(n_kv_head=2)["kv_heads"] is None
    assert map_(params(token_drop=0.5))["token_dropout"] == 0.5
    assert map_(params(rope_base=99))["rope_base"] == 99
    assert map_(params(factorized_bits=[6, 12]))["regroup"] == [64, 4096]
    with pytest.warns(UserWarning, match="config key rotary is not known"):
        map_(params(rotary=True))
    for flags in ({"cfg_scale": [0.5, 0.5]}, {"cfg_scale": 1.0}):  # the script's "none"
        assert map_({**params(), "sampling": flags})["sampling"] == {"guidance": 1.0}
    for multiplier in (0.77, 1.3):  # the width of the gated layers, there and back
        state, config = tiny(ffn_dim_multiplier=multiplier, multiple_of=1)
        model = from_official(NAME, state, config)
        model.origin = None
        again, written = to_official(model, NAME)
        assert from_official(NAME, again, written).config.transformer.hidden == len(
            state[f"{PREFIX}spatial_blocks.0.feed_forward.w1.weight"]
        )


WRONG = (None, "many", [], {}, -1, 1.5)


@pytest.mark.parametrize("key", [*params(), "rope_base", "norm_eps", "ffn_dim_multiplier"])
def test_values_of_wrong_types_are_one_line(key):
    state, _ = tiny()
    for value in WRONG:
        try:
            from_official(NAME, state, params(**{key: value}), "somewhere")
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000, (key, value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"condition_positions": "before"}, "condition_positions=before"),
        ({"intra": {"positions": "rope", "context_norm": False}}, "intra.positions=rope"),
        ({"intra": {"positions": "shared_rope"}}, "intra.context_norm=True"),
        ({"head": "causal"}, "head=causal"),
        ({"regroup": (4, 4, 4)}, r"over vocabulary \(4, 4, 4\) has no place"),
        ({"transformer": {"qk_norm": True}}, "transformer.qk_norm=True"),
        ({"condition": {"classes": 3, "pooled": 4}}, "condition.pooled=4"),
        ({"spec": {"blocks": [[4]], "vocab": [64]}}, r"tokens of blocks=\(\(4,\),\)"),
    ],
)
def test_what_the_official_layout_cannot_say_is_refused(changes, words, fails):
    tree = FAMILIES[NAME].config(params())
    for key, value in changes.items():
        tree[key] = {**tree[key], **value} if key == "transformer" else value
    with fails(ConfigError, words, "no place in the official layout"):
        to_official(Generator.from_description(tree, "here"), NAME)
