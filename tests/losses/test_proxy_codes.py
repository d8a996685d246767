"""Proxy codes on hand-made numbers, and what a teacher may and may not do."""

import math

import pytest
import torch
from torch import nn

from vistok.config import ConfigError
from vistok.config.registry import build
from vistok.core.records import Batch, Decoded, Reconstruction
from vistok.core.schedules import Progress
from vistok.core.shapes import Shape
from vistok.losses.proxy_codes import ProxyCodesConfig

BATCH, NOW = Batch(index=torch.arange(2)), Progress(0, 10)


def taught(tokenizer, **options):
    loss = build(ProxyCodesConfig(teacher="here", **options))
    loss.teach(tokenizer, "abc")
    return loss


def decoded(logits, target) -> Reconstruction:
    return Reconstruction(None, target, Decoded(logits, logits), None, None)


@pytest.fixture
def teacher(make_tokenizer):
    return make_tokenizer("vq")


def test_cross_entropy_by_hand(teacher):
    pixels = torch.rand(2, 3, 8, 8)
    codes = teacher.encode(pixels).indices[..., 0].long()  # [2, 4], of 12 codes
    loss = taught(teacher, weight=0.5)
    # log 12 for flat logits; the right code ahead by log 11 has probability 11 / 22 there.
    flat = torch.zeros(2, 12, 2, 2, requires_grad=True)
    term = loss(decoded(flat, pixels), BATCH, NOW)["proxy_codes"]
    assert term.item() == pytest.approx(math.log(12))
    right = torch.zeros(2, 12, 4).scatter(1, codes[:, None], math.log(11)).view(2, 12, 2, 2)
    term = loss(decoded(right, pixels), BATCH, NOW)["proxy_codes"]
    assert term.item() == pytest.approx(math.log(2), rel=1e-6)
    assert loss.weights(NOW) == {"proxy_codes": 0.5}
    # Its gradient is (softmax - one hot) / positions, row by row of the image.
    loss(decoded(flat, pixels), BATCH, NOW)["proxy_codes"].backward()
    one_hot = torch.zeros(2, 12, 4).scatter(1, codes[:, None], 1.0).view(2, 12, 2, 2)
    torch.testing.assert_close(flat.grad, (1 / 12 - one_hot) / 8)


def test_a_teacher_rests(make_tokenizer):
    tokenizer = make_tokenizer("vq_ema").train()
    loss = taught(tokenizer).train()
    before = {key: value.clone() for key, value in tokenizer.state_dict().items()}
    logits = torch.zeros(2, 12, 2, 2, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = loss.teacher(torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(3)))
        term = loss(decoded(logits, torch.rand(2, 3, 8, 8)), BATCH, NOW)["proxy_codes"]
    term.backward()
    plain = loss.teacher(torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(3)))
    assert torch.equal(cast, plain) and term.dtype == torch.float32
    assert not any(module.training for module in loss.teacher.modules())
    assert not any(parameter.requires_grad for parameter in loss.parameters())
    assert all(torch.equal(before[k], v) for k, v in tokenizer.state_dict().items())
    assert not tokenizer.quantizer._hits.any()
    assert loss.teacher.sha256 == "abc"


def test_what_does_not_fit(make_tokenizer, teacher, fails):
    with fails(ConfigError, "teacher here", r"\(2, 2, 2", "one code per position"):
        taught(make_tokenizer("binary"))
    loss = build(ProxyCodesConfig(teacher="here"))
    with fails(ConfigError, "has not been given its teacher here"):
        loss.bind(teacher)
    loss = taught(teacher)
    loss.bind(teacher)
    other = nn.Module()
    other.shape = Shape(3, (16, 16))
    with fails(ConfigError, r"reads images of \(8, 8\)", r"rebuilds \(16, 16\)"):
        loss.bind(other)
    for shape in ((2, 11, 2, 2), (2, 12, 3, 2)):
        with fails(ValueError, "12 codes at 4 positions", "expected logits"):
            loss(decoded(torch.zeros(shape), torch.rand(2, 3, 8, 8)), BATCH, NOW)
