"""MaskGen-VQ: recipes of the released sizes, files of the hub, and what is refused."""

import copy

import pytest
import torch
from safetensors.torch import save_file

from vistok import pretrained
from vistok.config import ConfigError, UserError, read_yaml, validate
from vistok.config.registry import build
from vistok.core.errors import InputError
from vistok.core.records import Condition
from vistok.generators.base import SavedCodes
from vistok.pretrained import from_official, releases, to_official
from vistok.storage.weights import WeightsError
from vistok.tokens import TokenSpec
from vistok.train.config import TrainConfig

# Millions of parameters, counted with the official code (the paper has 568 and 1,100).
COUNTS = {"maskgen-vq-l": 604.31, "maskgen-vq-xl": 1176.61}
SIZES = {
    "vq_model": {
        "codebook_size": 12,
        "num_latent_tokens": 4,
        "text_embed_dim": 6,
        "text_context_length": 5,
    },
    "maskgen": {
        "decoder_embed_dim": 8,
        "decoder_depth": 2,
        "decoder_num_heads": 2,
        "micro_condition": True,
        "micro_condition_embed_dim": 6,
        "text_drop_prob": 0.1,
        "condition_num_classes": 3,
        "num_iter": 2,
    },
}


def official(**changes):
    """(state, config) of a tiny model with random weights, the table under both of its names."""
    config = {"model": {**SIZES, "maskgen": {**SIZES["maskgen"], **changes}}}
    family = releases()["maskgen-vq-l"][0]
    own = pretrained.exchange.Generator.from_description(family.config(config), "made here")
    state, _ = to_official(own, "maskgen")
    numbers = {k: torch.randn_like(v) for k, v in state.items()}
    numbers["embeddings.weight"] = torch.randn(12 + 1 + 3 + 1, 8)
    if changes.get("weight_tying", True):
        numbers["lm_head.weight"] = numbers["embeddings.weight"].clone()
    return numbers, config


@pytest.mark.parametrize("name", COUNTS)
def test_recipes_train_what_was_released(name):
    family, release = releases()[name]
    first, second = (validate(TrainConfig, read_yaml(file)) for file in release.recipe)
    assert second.task.init == first.folder
    spec = TokenSpec(blocks=((128,),), vocab=(8192,), dim=64)
    with torch.device("meta"):
        made = build(second.task.generator, spec, SavedCodes())
    count = sum(parameter.numel() for parameter in made.parameters()) / 1e6
    assert count == pytest.approx(COUNTS[name], rel=0.005)
    trained = family.config(family.official(made))
    published = family.config(release.config)
    assert trained | {"tokenizer": published["tokenizer"]} == published


def test_the_hub_keeps_one_name_of_the_table(tmp_path):
    state, config = official()
    expected = from_official("maskgen", state, config)
    for dropped in ("lm_head.weight", "embeddings.weight"):
        one = from_official("maskgen", {k: v for k, v in state.items() if k != dropped}, config)
        assert torch.equal(one.mask_token, expected.mask_token)
        assert to_official(one)[0].keys() == state.keys()
    save_file({k: v for k, v in state.items() if k != "lm_head.weight"}, tmp_path / "m.safetensors")
    (tmp_path / "config.json").write_text(str(config).replace("'", '"').replace("True", "true"))
    assert pretrained.open(tmp_path).origin.family == "maskgen"
    untied, config = official(weight_tying=False)
    assert from_official("maskgen", untied, config).head is not None


def test_guidance_needs_the_empty_text(fails):
    state, config = official()
    model = from_official("maskgen", state, config)
    given = Condition(text=torch.randn(2, 5, 6), pooled=torch.randn(2, 6))
    with fails(InputError, "empty text", "use_text_encoder", "guidance=1"):
        model.sample(given, index=torch.arange(2))
    free = model.sample(given, index=torch.arange(2), sampling="unguided").check()
    scores = Condition(text=given.text, pooled=given.pooled, score=torch.tensor([1.0, 9.0]))
    index = torch.arange(2)
    other = model.sample(scores, index=index, sampling={"preset": "unguided", "noise": 0.0})
    assert free.spec == other.spec
    with fails(InputError, "condition.score is of 3 samples"):
        model.sample(Condition(text=given.text, score=torch.ones(3)), index=index)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"decoder_num_heads": 3}, "width=8 must be a multiple of heads=3"),
        ({"mask_schedule_strategy": "sine"}, "mask_schedule_strategy: got 'sine'"),
        ({"cfg_schedule": "flippedcosine"}, "cfg_schedule: got 'flippedcosine'"),
        ({"prob_sorting": False}, "prob_sorting=false is not supported"),
        ({"weight_tying": "no"}, "weight_tying: got 'no'; expected true or false"),
        ({"condition_num_classes": 4}, "embeddings.weight has 17 rows, the config makes it 18"),
    ],
)
def test_what_is_not_supported_is_one_line(fails, change, words):
    state, config = official()
    config = copy.deepcopy(config)
    config["model"]["maskgen"] |= change
    with fails(UserError, words):
        from_official("maskgen", state, config, "somewhere")


def test_wrong_weights_are_one_line(fails):
    state, config = official()
    with fails(WeightsError, "somewhere: embeddings.weight: differs from lm_head.weight"):
        from_official(
            "maskgen", state | {"lm_head.weight": state["pos_embed"]}, config, "somewhere"
        )
    with fails(WeightsError, "somewhere", "missing blocks.0.attn.add_q_proj.weight"):
        lacking = {k: v for k, v in state.items() if "blocks.0.attn.add_q" not in k}
        from_official("maskgen", lacking, config, "somewhere")
    continuous = {
        "text_pooled_emb.weight": torch.zeros(2),
        "diffusion_pos_embed_learned": state["pos_embed"],
    }
    with fails(ConfigError, "MaskGen-KL", "maskgen-vq-l"):
        from_official("maskgen", continuous, config, "somewhere")
    model = from_official("maskgen", state, config)
    model.config = model.config.model_copy(update={"regroup": (2, 6)})
    model.origin = None
    with fails(ConfigError, "regroup=.* has no place in the official layout"):
        to_official(model, "maskgen")
