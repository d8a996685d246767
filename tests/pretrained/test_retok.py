"""ReTok's and GigaTok's files: what configs say, what only the weights say, and what is refused."""

from __future__ import annotations

import pytest
import torch

from tests.support.official import FLAT, official
from vistok.config import ConfigError, UserError
from vistok.pretrained import from_official, load
from vistok.pretrained.find import find
from vistok.pretrained.table import FAMILIES
from vistok.pretrained.tokenizers.retok import SIZES
from vistok.storage.weights import WeightsError

RETOK = FAMILIES["retok"]


def test_weights_without_second_tables_are_gigatok():
    """M = 0, and whole sequences only, whatever the config leaves out."""
    family, state, config = official("retok")
    plain = {key: tensor for key, tensor in state.items() if not key.endswith("_comp")}
    config = {key: value for key, value in config.items() if key != "min_tokens"}
    tokenizer = from_official(family, plain, config)
    assert tokenizer.spec().prefix == "none" and tokenizer.layout.count == 4
    padded = from_official(family, state, {**config, "min_tokens": 1})
    assert padded.spec().prefix == "token" and padded.spec().length == 4
    assert padded.layout.count == 7 and padded.encoder.config.redundant == 3


def test_a_yaml_as_it_is_released(tmp_path):
    """The model's arguments lie deep in it; training's are not looked at."""
    family, state, config = official("retok")
    torch.save({"model": state, "steps": 1}, tmp_path / "VQ.pt")
    text = "\n    ".join(f"{key}: {str(value).lower()}" for key, value in config.items())
    whole = (
        f"model:\n  model_cls: VQVitModelPlus\n  init_args:\n    {text}\ntrainer: {{lr: 1e-4}}\n"
    )
    (tmp_path / "config.yaml").write_text(whole)
    assert load(tmp_path / "VQ.pt").config == from_official(family, state, config).config


@pytest.mark.parametrize("sides", [("tiny", "small"), ("small", "base"), ("xl", "xxl")])
def test_sizes_are_read_from_bare_weights(sides):
    state = {"quantize.embedding.weight": torch.zeros(1, 1)}
    for prefix, size in zip(("s2to1encoder", "s1to2decoder"), sides, strict=True):
        width, depth, _ = SIZES[size]
        state[f"{prefix}.latent_token_positional_embedding"] = torch.zeros(1, 1, 1)
        state[f"{prefix}.ln_post.weight"] = torch.zeros(width)
        state |= {f"{prefix}.transformer.{i}.norm1.weight": torch.zeros(1) for i in range(depth)}
    found = RETOK.constants(state)
    assert (found["encoder_size"], found["decoder_size"]) == sides
    state["s1to2decoder.transformer.99.norm1.weight"] = torch.zeros(1)
    assert RETOK.constants(state) is None  # of no named size
    assert RETOK.constants({"x": torch.zeros(1)}) is None


def test_bare_weights_need_a_config_unless_their_size_has_a_name(tmp_path, fails):
    _, state, config = official("retok")
    torch.save(state, tmp_path / "vq.pt")
    with fails(ConfigError, "config.json: no such config"):
        load(tmp_path / "vq.pt")
    assert find(tmp_path / "vq.pt", config=config).family.name == "retok"
    assert load(tmp_path / "vq.pt", config=config).origin.family == "retok"


@pytest.mark.parametrize("size", SIZES)
def test_named_sizes(size):
    tree = RETOK.config({"model_size": size})
    width, depth, heads = SIZES[size]
    for side in ("encoder", "decoder"):
        found = tree[side]["qformer"]
        assert (found["width"], found["depth"], found["heads"]) == (width, depth, heads)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"use_rope": True}, "use_rope=True: no release has it"),
        ({"last_level_2d_query_init": True}, "last_level_2d_query_init=True"),
        ({"multi_level_2d_query_init": True}, "multi_level_2d_query_init=True"),
        ({"use_flash_attn": True}, "use_flash_attn=True"),
        ({"use_lfq": True}, "use_lfq=True"),
        ({"res_up_down_sample": True}, "res_up_down_sample=True"),
        ({"codebook_transform": "mlp"}, "codebook_transform='mlp'"),
        ({"norm_type": "batch"}, "norm_type='batch'"),
        ({"encoder_size": "huge"}, "encoder_size='huge'"),
        ({"min_tokens": 5}, "min_tokens=5 is more than num_latent_tokens=4"),
        ({"patch_downsample": 4}, "patch_downsample=4"),
        ({"learnable_1d_query_init": True}, "exclude each other"),
        ({"num_latent_tokens": 5}, "power of two"),
        ({"num_latent_tokens": 512}, "count=512"),
        ({"model": {"model_cls": "VQVitModel2DPlus"}}, "model_cls='VQVitModel2DPlus'"),
        ({"adaptive_gn": "yes"}, "adaptive_gn: got 'yes'"),
    ],
)
def test_what_would_need_another_network_is_refused(change, words, fails):
    family, state, config = official("retok")
    if "encoder_size" in change:
        config = {key: value for key, value in config.items() if key != "width"}
    with fails(UserError, words):
        from_official(family, state, {**config, **change})


def test_tables_of_another_length_are_refused(fails):
    family, state, config = official("retok")
    for floor in (2, 4):
        with fails(WeightsError, "latent_token_positional_embedding"):
            from_official(family, state, {**config, "min_tokens": floor})


def test_what_the_layout_cannot_say_is_refused(fails):
    tokenizer = from_official(*official("retok"))
    changed = tokenizer.config.encoder.model_copy(update={"stored": 6})
    with fails(ConfigError, r"retok: encoder.stored=6 has no place in the official layout"):
        RETOK.official(tokenizer.config.model_copy(update={"encoder": changed}))


def test_unknown_keys_are_named():
    family, state, config = official("retok")
    with pytest.warns(UserWarning, match="config key brand_new is not known"):
        from_official(family, state, {**config, "brand_new": 1})
    assert "rot" in FLAT["retok"]
