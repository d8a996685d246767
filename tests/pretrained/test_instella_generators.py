"""Instella-T2I's generators come in as they were released and go out again; errors are one line."""

from __future__ import annotations

import pytest
import torch

from tests.support.instella import official_instella
from vistok import pretrained
from vistok.config import ConfigError, UserError, read_yaml, validate
from vistok.config.registry import build
from vistok.core.records import Condition
from vistok.generators import Generator
from vistok.pretrained import FAMILIES, from_official, to_official
from vistok.storage.weights import WeightsError
from vistok.tokens import TokenSpec
from vistok.train.config import TrainConfig

FAMILY = "instella_t2i"
KINDS = ("ar", "diff")
INDEX = torch.arange(2)


def text(model: Generator, count: int = 2) -> Condition:
    torch.manual_seed(1)
    shape = model.config.condition.text.shape
    mask = torch.tensor([[False, True, True], [True, True, True]])[:count]
    return Condition(text=torch.randn(count, *shape), text_mask=mask)


@pytest.mark.parametrize("kind", KINDS)
def test_files_as_they_were_released(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state, config = official_instella(kind)
    torch.save({"module": {k: t.bfloat16() for k, t in state.items()}, "epoch": 3}, "weights.pt")
    model = pretrained.open("weights.pt", expect="generator")
    assert model.config.condition.text.length == 128  # of the scripts; no tensor tells it
    assert model.sampling.guidance == 8.5  # 1 + 7.5
    again, _ = to_official(model)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[key], state[key].bfloat16()) for key in state)
    known = from_official(FAMILY, state, config)
    assert known.spec == model.spec and known.spec.vocab == (2,) * 6


@pytest.mark.parametrize("kind", KINDS)
def test_text_decides_and_the_empty_text_can_be_set(kind, fails):
    model = from_official(FAMILY, *official_instella(kind))
    given = text(model)
    sampled = model.sample(given, index=INDEX).check().indices
    free = {"guidance": 0.0}
    none = model.sample(given, index=INDEX, sampling=free).indices
    assert torch.equal(none, model.sample(index=INDEX, sampling={"guidance": 1.0}).indices)
    padded = given.text.clone()
    padded[0, :, 0] = 9.0  # behind the mask
    hidden = Condition(text=padded, text_mask=given.text_mask)
    assert torch.equal(model.sample(hidden, index=INDEX).indices, sampled)
    model.texts.fill(5 * given.text[1], given.text_mask[1])
    assert not torch.equal(model.sample(given, index=INDEX, sampling=free).indices, none)
    with fails(ValueError, r"condition.text has shape \[2, 3, 5\]; expected \[2, 2, 3, 5\]"):
        model.sample(Condition(text=given.text[:, 0]), index=INDEX)
    with fails(ValueError, r"condition.text_mask has shape \[2, 2\]; expected \[2, 3\]"):
        wrong = Condition(text=given.text, text_mask=given.text_mask[:, :2])
        model.sample(wrong, index=INDEX)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda s: s.pop("proj_out.bias"), "missing proj_out.bias"),
        (lambda s: s.update(other=torch.ones(2)), "unexpected other"),
        (lambda s: s.update({"x_embedder.bias": torch.ones(3)}), "x_embedder.bias has shape"),
        (lambda s: s["proj_out.bias"].fill_(torch.nan), "proj_out.bias has values that are not"),
    ],
)
def test_wrong_weights_are_one_line(kind, damage, words, fails):
    state, config = official_instella(kind)
    damage(state)
    with fails(WeightsError, words):
        from_official(FAMILY, state, config)


def test_layers_that_do_not_run_are_inert(fails):
    state, config = official_instella("ar")
    kept = {key: tensor for key, tensor in state.items() if not key.startswith("time_embed")}
    one, other = (from_official(FAMILY, each, config) for each in (state, kept))
    given = text(one)
    assert torch.equal(*(m.sample(given, index=INDEX).indices for m in (one, other)))
    state, config = official_instella("diff")
    state.pop("time_embed.linear_1.bias")
    with fails(WeightsError, "missing time_embed.linear_1.bias"):
        from_official(FAMILY, state, config)


def test_options_of_the_official_config(fails):
    """Every one is obeyed, has no effect, or is named."""
    tree = lambda kind, **changes: FAMILIES[FAMILY].config(official_instella(kind)[1] | changes)
    assert tree("diff", axes_dims_rope=[16, 56, 56]) == tree("diff")  # nobody reads it
    assert tree("diff", guidance_scale=0.0)["sampling"]["guidance"] == 1.0
    assert tree("diff", temp=0.0)["sampling"]["temperature"] == 0.0
    changed = tree("diff", rho=2.0, num_sampling_steps=50, sampling_protocal="protocal_2")
    assert changed["sampling"] == {
        **{"guidance": 8.5, "temperature": 1.0},
        **{"steps": 50, "rho": 2.0, "protocol": "posterior"},
    }
    assert tree("diff", prediction_target="x")["target"] == "x"
    assert tree("diff", non_uniform_t=False)["times"] == "uniform"
    assert tree("ar", text_max_length=9)["condition"]["text"]["length"] == 9
    assert tree("ar", text_drop_prob=0.2)["condition"]["dropout"] == 0.2
    with fails(ConfigError, "sampling_protocal=protocal_3; expected one of protocal_1, protocal_2"):
        tree("diff", sampling_protocal="protocal_3")
    with fails(ConfigError, "prediction_target=v; expected one of epsilon, x"):
        tree("diff", prediction_target="v")
    with fails(ConfigError, "model=mar; expected ar or diff"):
        tree("diff", model="mar")
    with pytest.warns(UserWarning, match="config key depth is not known and changes nothing"):
        tree("ar", depth=3)


@pytest.mark.parametrize("key", ["in_channels", "num_layers", "text_cond_dim", "temp", "model"])
def test_values_of_wrong_types_are_one_line(key):
    state, config = official_instella("diff")
    for value in (None, "many", [], -1):
        with pytest.raises(UserError) as told:
            from_official(FAMILY, state, config | {key: value}, "somewhere")
        assert "\n" not in str(told.value)


def test_what_the_layout_cannot_hold_is_named(fails):
    model = from_official(FAMILY, *official_instella("ar"))
    tree = model.describe() | {"bit_values": "signs"}
    with fails(ConfigError, "bit_values=signs has no place in the official layout"):
        to_official(Generator.from_description(tree, "tiny"), FAMILY)
    tree = model.describe()
    tree["transformer"] = tree["transformer"] | {"mlp": "swiglu"}
    with fails(ConfigError, "transformer.mlp=swiglu has no place in the official layout"):
        to_official(Generator.from_description(tree, "tiny"), FAMILY)


@pytest.mark.parametrize(("name", "millions"), [("diffusion", 1292.5), ("ar", 877.2)])
def test_recipes_train_what_was_released(name, millions):
    family, release = pretrained.releases()[f"instella-{name}"]
    described = family.config(release.config)
    config = validate(TrainConfig, read_yaml(release.recipe[0]))
    with torch.device("meta"):
        model = build(config.task.generator, validate(TokenSpec, described["spec"]))
        released = Generator.from_description(described, name)
    assert model.config == released.config
    assert release.research_only and "research" in release.license
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=1e-3)
