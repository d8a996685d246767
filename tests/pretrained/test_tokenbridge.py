"""TokenBridge's generators come in and go out: checkpoints, options, errors, recipes."""

from __future__ import annotations

import json
import re

import pytest
import torch

from vistok import pretrained
from vistok.config import ConfigError, UserError, read_yaml, validate, validate_part
from vistok.config.registry import build
from vistok.core.records import Condition
from vistok.generators import Generator
from vistok.pretrained import FAMILIES, from_official, to_official
from vistok.storage.weights import WeightsError
from vistok.tokens import TokenSpec
from vistok.train.config import TrainConfig

NAME = "tokenbridge_ar"
FAMILY = FAMILIES[NAME]
BUFFERS = {"reconstruction_values", "boundaries", "channel_mask"}
TABLE = {"tokenbridge-l": 486, "tokenbridge-h": 910}  # millions, of the authors' table
CONFIG = {
    "img_size": 32,
    "encoder_embed_dim": 16,
    "encoder_depth": 1,
    "encoder_num_heads": 2,
    "decoder_embed_dim": 24,
    "decoder_depth": 2,
    "decoder_num_heads": 2,
    "channel_embed_dim": 18,
    "channel_depth": 1,
    "channel_heads": 2,
    "quant_bits": 2,
    "class_num": 3,
    "buffer_size": 2,
    "channel_order": [2, 0, 1],
    "vae_embed_dim": 3,
    "num_iter": 3,
    "cfg": 2.0,
}


def tiny(**changes) -> tuple[dict[str, torch.Tensor], dict]:
    """(state, config) in the official layout, with random weights."""
    config = {**CONFIG, **changes}
    torch.manual_seed(0)
    model = Generator.from_description(FAMILY.config(config), "tiny")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return to_official(model, NAME)[0], config


def samples(model: Generator) -> torch.Tensor:
    condition = Condition(label=torch.tensor([0, 1, 2, -1]))
    return model.sample(condition, index=torch.arange(4), seed=3).check().indices


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a
    )


def test_both_ways_bit_for_bit(tmp_path):
    state, config = tiny(quant_min=-3.0, quant_max=4.0, std_range=2.5)
    state["decoder_norm.weight"] = state["decoder_norm.weight"].bfloat16()
    state["reconstruction_values"] = state["reconstruction_values"] * (1 + 2e-7)  # of another chip
    model = from_official(NAME, state, config)
    model.save_pretrained(tmp_path)
    for one in (model, Generator.from_pretrained(tmp_path)):
        back, written = to_official(one)
        assert equal(back, state) and written == config
    assert torch.equal(samples(Generator.from_pretrained(tmp_path)), samples(model))
    values = model.embed.table
    assert values.shape == (3, 4) and -3 < values.min() < 0 < values.max() < 4


def test_averaged_weights_of_a_checkpoint_come_without_constants(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state, config = tiny()
    averaged = {key: t for key, t in state.items() if key not in BUFFERS}
    plain = {key: t + 1 if key in averaged else t for key, t in state.items()}
    held = {"model": plain, "model_ema": averaged, "optimizer": {}, "epoch": 3, "scaler": {}}
    torch.save(held, "checkpoint-last.pth")
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = pretrained.open("checkpoint-last.pth", expect="generator")
    assert model.origin.inside == "model_ema" and equal(to_official(model)[0], state)
    assert torch.equal(samples(model), samples(from_official(NAME, state, config)))


def test_names_of_the_command_line():
    tree = FAMILY.config({"model": "tokenbridge_base", "quant_bits": 5, "cfg_schedule": "constant"})
    assert (tree["encoder"]["width"], tree["decoder"]["depth"]) == (768, 12)
    assert tree["head"]["transformer"]["width"] == 768 and tree["spec"]["vocab"] == [32] * 16
    assert tree["sampling"]["guidance_schedule"] == "constant"
    tree = FAMILY.config(
        {"sampling_iterations": 7, "guidance_scale": 3.0, "use_quantized_value": 1}
    )
    assert tree["sampling"]["steps"] == 7 and tree["sampling"]["guidance"] == 3.0
    with pytest.warns(UserWarning, match="config key blr is not known"):
        FAMILY.config({"blr": 1e-4})


@pytest.mark.parametrize("name", TABLE)
def test_recipes_train_what_was_released(name):
    family, release = pretrained.releases()[name]
    (recipe,) = release.recipe
    trained = validate(TrainConfig, read_yaml(recipe)).task.generator
    assert release.gfid and trained.head.sampled_start == "trained" and not trained.wants_codes
    with torch.device("meta"):
        model = Generator.from_description(family.config(release.config), name)
        own = build(trained, model.spec)
    # New models sample as they train; levels are computed in fp64.
    head = trained.head.model_copy(update={"sampled_start": "with_step"})
    changes = {"head": head, "quantizer": model.config.quantizer}
    assert trained.model_copy(update=changes) == model.config
    count = sum(p.numel() for p in own.parameters()) / 1e6
    assert count == pytest.approx(TABLE[name], rel=0.005)
    assert model.spec.bits == 256 * 16 * 6
    shapes = {key: torch.ones(1) for key in ("z_proj_ln", "condition_proj", "channel_blocks.0")}
    shapes |= {key: torch.ones(1) for key in ("token_embeddings.0", "channel_heads.0")}
    width = trained.encoder.width  # tells weights without a config
    found = family.constants({**shapes, "z_proj.weight": torch.ones(width, 16)})
    assert found == release.config
    assert family.constants({**shapes, "z_proj.weight": torch.ones(8, 16)}) is None


# -- damage and options ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda s: s.pop("z_proj_ln.bias"), "missing z_proj_ln.bias"),
        (lambda s: s.update(other=torch.ones(2)), "unexpected other"),
        (
            lambda s: s.update({"token_embeddings.2.weight": torch.ones(4, 18)}),
            "unexpected token_e",
        ),
        (lambda s: s.update(fake_latent=torch.ones(2, 16)), r"fake_latent has shape \(2, 16\)"),
        (lambda s: s.update(mask_token=torch.ones(24)), r"mask_token has shape \(24,\); expected"),
        (lambda s: s["channel_embed"].fill_(torch.nan), "channel_embed has values"),
        (lambda s: s["boundaries"].add_(0.1), r"boundaries has shape \(5,\) and not the numbers"),
        (lambda s: s["channel_mask"].zero_(), "channel_mask has shape .* and not the numbers"),
    ],
)
def test_wrong_weights_are_one_line(damage, words, fails):
    state, config = tiny()
    damage(state)
    with fails(UserError, "last.pth", words):
        from_official(NAME, state, config, "last.pth")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"patch_size": 2}, "patch_size=2: the original predicts the dimensions of one latent"),
        ({"vae_embed_dim": 8}, "vae_embed_dim=8: the original's order of channels has 3"),
        ({"buffer_size": 0}, "buffer_size=0: nothing would hold the class"),
        ({"img_size": 8}, "img_size=8, vae_stride=16: expected one token or more"),
        ({"model": "tokenbridge_giant"}, "model=tokenbridge_giant: expected one of"),
        ({"channel_order": [0, 1, 1]}, r"head: order=\[0, 1, 1\]: expected each of the numbers"),
        ({"encoder_num_heads": 3}, "encoder: width=16 must be a multiple of heads=3"),
        ({"quant_min": 7.0}, r"range=\(7.0, 5.0\)"),
    ],
)
def test_options_that_the_original_cannot_run(fails, change, words):
    state, config = tiny()
    with fails(ConfigError, "some.pt", words):
        from_official(NAME, state, {**config, **change}, "some.pt")


def test_every_tensor_is_looked_at():
    state, config = tiny()
    kinds = {re.sub(r"\d+", "0", key): key for key in state}  # the last one of each
    for i, key in enumerate(kinds.values()):
        tensor = state[key]
        wrong = (tensor[:-1], tensor[None], torch.zeros(()))[i % 3]
        with pytest.raises((WeightsError, ConfigError)) as caught:
            from_official(NAME, {**state, key: wrong}, config, "some.pt")
        message = str(caught.value)
        assert message.startswith("some.pt") and key in message and "\n" not in message


def test_a_generator_that_was_trained_here_goes_out():
    state, config = tiny()
    tree = FAMILY.config(config)
    quantizer = build(validate_part("quantizer", tree.pop("quantizer")))
    spec = TokenSpec(**tree.pop("spec"))
    tree.pop("tokenizer")
    generator = validate(type(from_official(NAME, state, config).config), tree)
    model = build(generator, spec, quantizer)  # values of the tokenizer that it learned from
    written, official = to_official(model, NAME)
    assert written.keys() == state.keys() and "quant_min" not in official
    twin = from_official(NAME, written, official)
    assert torch.equal(samples(twin), samples(model.eval()))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"encoder": {"qk_norm": True}}, "encoder.qk_norm=True"),
        ({"head": {"transformer": {"mlp_ratio": 2.0}}}, "head.transformer.mlp_ratio=2.0"),
        ({"norm_in_eps": 1e-5}, "norm_in_eps=1e-05"),
        ({"condition": {"pooled": 4}}, "condition.pooled=4"),
        ({"quantizer": {"range": [-5, 5], "levels": 4, "dim": 3, "std_range": 2.0}}, None),
        ({"spec": {"blocks": [[1, 2]]}}, r"blocks=\(\(1, 2\),\).* expected kind=masked_auto"),
    ],
)
def test_what_the_official_layout_cannot_say_is_refused(fails, change, words):
    def merged(base: dict, more: dict) -> dict:
        return base | {
            key: merged(base.get(key, {}), value) if isinstance(value, dict) else value
            for key, value in more.items()
        }

    model = Generator.from_description(merged(FAMILY.config(CONFIG), change), "here")
    if words is None:  # a range of its own has a place
        assert to_official(model, NAME)[1]["std_range"] == 2.0
        return
    with fails(ConfigError, words, "no place in the official layout"):
        to_official(model, NAME)
