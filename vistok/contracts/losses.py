"""Checks of losses and discriminators."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F

from vistok.config import validate
from vistok.config.registry import build, entries
from vistok.contracts.case import HALFWAY, Case, images, small, tiny
from vistok.contracts.check import check, expect, expect_gradients, expect_shape
from vistok.core.records import Decoded


@check("loss", name="terms are finite scalars whose gradients reach the tokenizer; fp32 in bf16")
def terms(case: Case) -> None:
    loss = case.part()
    parts = {"decoder": small("decoder", "flow_vit")} if loss.needs_velocity else {}
    large = tiny(image_size=32, quantizer=small("quantizer", "vq"), **parts).train()
    if loss.wants_teacher is not None:
        loss.teach(large, "")
    loss.bind(large)
    batch = images(2, (32, 32))
    fake = torch.rand(2, 3, 32, 32, requires_grad=True)
    draws = large.draw(batch.index, 0, HALFWAY) if loss.needs_velocity else None
    result = large(batch, draws, in_space=loss.needs_target_in_space)
    decoded = result.decoded
    if loss.wants_teacher is not None:  # logits over the teacher's 16 codes at 4 positions
        logits = F.avg_pool2d(fake, 16).repeat(1, 6, 1, 1)[:, :16]
        decoded = Decoded(logits, logits)
    result = replace(result, pixels=fake, target=batch.pixels, decoded=decoded)
    found = loss(result, batch, HALFWAY)
    for name, term in found.items():
        expect_shape(f"term '{name}'", term, ())
        expect(bool(term.isfinite()), f"term '{name}' is {float(term)}; expected a number")
    unknown = set(loss.weights(HALFWAY)) - set(found)
    expect(not unknown, f"weights() names {sorted(unknown)}, which forward() does not give")
    if loss.phase is not None and not found:  # it trains apart, and asks nothing of the tokenizer
        return
    expect(bool(found), "forward() gives no terms at half of the training; expected some")
    sum(found.values()).backward()
    learn = [fake.grad, *(parameter.grad for parameter in large.parameters())]
    learn += [parameter.grad for name in loss.trained for parameter in _of(loss, name)]
    reaches = any(grad is not None and float(grad.abs().sum()) > 0 for grad in learn)
    expect(reaches, "no gradient reaches pixels, latents or codes; expected a loss that trains")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = loss(result, batch, HALFWAY)
    for name, term in cast.items():
        fine = bool(term.isfinite()) and term.dtype == torch.float32
        expect(fine, f"term '{name}' is {term.dtype} under bf16; expected finite fp32")


def _of(loss, name: str):
    return getattr(loss, name).parameters()


@check("discriminator", name="it learns: finite losses, gradients in every parameter")
def discriminators(case: Case) -> None:
    tree = {"kind": "adversarial", "start": 0, "lecam": 0.1, "discriminator": case.tree()}
    loss = build(validate(entries("loss")["adversarial"].config, tree))
    pixels = images(4, (32, 32)).pixels
    total, logged = loss.discriminate(loss.discriminator, pixels, 1 - pixels)
    total.backward()
    expect_gradients(loss.discriminator, "the discriminator's loss")
    for name, value in logged.items():
        expect(bool(value.isfinite()), f"'{name}' is {float(value)}; expected a number")
