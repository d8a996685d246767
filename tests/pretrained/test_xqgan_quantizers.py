"""Configs of XQ-GAN's quantizers, both ways: which class, which options, what is refused."""

import pytest

from vistok.config import ConfigError, validate
from vistok.pretrained.table import family_of
from vistok.pretrained.tokenizers import xqgan_quantizers as classes
from vistok.tokenizer import TokenizerConfig

MODEL = {
    "enc_type": "dinov2",
    "dec_type": "dinov2",
    "codebook_size": 4096,
    "codebook_embed_dim": 12,
    "v_patch_nums": [1, 2, 4],
    "num_latent_tokens": 16,
    "product_quant": 2,
    "abs_pos_embed": True,
}


def read(**changes):
    tree = family_of("xqgan").config(MODEL | changes)
    return validate(TokenizerConfig, tree)


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({}, ["product", "multi_scale", "vq"]),
        ({"lfq": True}, ["product", "multi_scale", "lfq"]),
        ({"product_quant": 1}, ["multi_scale", "vq"]),
        ({"product_quant": 1, "lfq": True}, ["multi_scale", "lfq"]),
        ({"v_patch_nums": [4]}, ["product", "vq"]),
        ({"v_patch_nums": [4], "lfq": True}, ["product", "vq"]),  # one scale is always VQ
        ({"v_patch_nums": [4], "product_quant": 1}, ["vq"]),
    ],
)
def test_a_config_names_its_quantizer_and_comes_back(changes, kinds):
    config = read(**changes)
    found, part = [], config.quantizer
    while part is not None:
        found.append(part.kind)
        part = getattr(part, "quantizer", None)
    assert found == kinds
    again = family_of("xqgan").config(family_of("xqgan").official(config))
    assert validate(TokenizerConfig, again) == config


def test_options_of_the_scales():
    scales = read(share_quant_resi=0, lfq=True, scale=0.5, entropy_loss_ratio=0.2).quantizer
    assert scales.quantizer.phi.count is None and scales.quantizer.magnitude == 0.5
    atom = scales.quantizer.quantizer
    assert atom.loss_weights["entropy_batch"] == -0.2 and atom.entropy_group == 1
    hard = read(lfq=True, soft_entropy=False).quantizer.quantizer.quantizer
    assert (hard.entropy_group, hard.temperature, hard.entropy_eps) == (12, 0.01, 1e-5)
    summed = read().quantizer.quantizer.quantizer  # commitment losses, over three scales
    assert summed.loss_weights["commitment"] == 0.75
    assert read(dependency_loss_weight=0.3).quantizer.dependency == 0.3
    assert classes.phi({"quant_resi": 0.0}) is None


def test_level_dropout_reaches_whom_the_original_tells():
    drop = {"codebook_drop": 0.2, "start_drop": 2}
    (found,) = read(**drop).regularizers
    assert (found.kind, found.proportion, found.start) == ("level_dropout", 0.2, 2)
    assert read(**drop, product_quant=1, lfq=True).regularizers
    assert not read(**drop, product_quant=1).regularizers
    assert not read(**drop, v_patch_nums=[4]).regularizers


def test_what_does_not_fit_is_refused(fails):
    with fails(ConfigError, "codebook_size=1000", "12 channels", "expected 4096"):
        read(lfq=True, codebook_size=1000)
    with fails(ConfigError, "LFQ divides by the number of scales", "two scales"):
        classes.lookup_free({"codebook_size": 16, "Cvae": 4, "v_patch_nums": [4]})
    with fails(ConfigError, "lfq", "true or false"):
        read(lfq="yes")
    config = read()
    other = config.quantizer.model_copy(
        update={"quantizer": config.quantizer.quantizer.model_copy(update={"phi": None})}
    )
    with fails(ConfigError, "quantizer 'multi_scale'", "phi.ratio=0.5"):
        family_of("xqgan").official(config.model_copy(update={"quantizer": other}))
