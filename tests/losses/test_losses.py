"""Losses on hand-made numbers."""

from typing import Literal

import pytest
import torch
from torch import nn

from vistok.config.registry import build
from vistok.core.records import Batch, Decoded, Reconstruction
from vistok.core.schedules import Progress
from vistok.losses.adversarial import AdversarialConfig, AdversarialLoss
from vistok.losses.discriminators import BlurDiscriminatorConfig, PatchGAN, PatchGANConfig
from vistok.losses.perceptual import PerceptualConfig
from vistok.losses.reconstruction import ReconstructionConfig

BATCH = Batch(index=torch.arange(1))


def rebuilt(pixels, target) -> Reconstruction:
    return Reconstruction(pixels, target, Decoded(pixels, pixels), None, None)


def at(step: int) -> Progress:
    return Progress(step, 100)


# -- reconstruction --------------------------------------------------------------------------------


def test_reconstruction_terms_by_hand():
    loss = build(ReconstructionConfig(l1=0.5, l2=2.0, smooth_l1=1.0))
    # differences 0.5, -1, 0, 2
    pixels, target = torch.tensor([0.5, 0.0, 1.0, 3.0]), torch.tensor([0.0, 1.0, 1.0, 1.0])
    terms = loss(rebuilt(pixels, target), BATCH, at(0))
    assert terms["l1"].item() == pytest.approx(3.5 / 4)
    assert terms["l2"].item() == pytest.approx((0.25 + 1 + 4) / 4)
    # half squares below 1, |d| - 1/2 above
    assert terms["smooth_l1"].item() == pytest.approx((0.125 + 0.5 + 0 + 1.5) / 4)
    assert loss.weights(at(0)) == {"l1": 0.5, "l2": 2.0, "smooth_l1": 1.0}


def test_features_are_compared_in_the_output_space():
    loss = build(ReconstructionConfig(l2=0.5, cosine=2.0, in_space=True))
    assert loss.needs_target_in_space and not loss.needs_pixels
    # Of two places the channels are alike in direction, and at right angles.
    found = torch.tensor([[[3.0, 1.0], [4.0, 0.0]]])  # [B, C, places]
    target = torch.tensor([[[6.0, 0.0], [8.0, 2.0]]])
    made = Reconstruction(None, None, Decoded(found, found), None, None, target_in_space=target)
    terms = loss(made, BATCH, at(0))
    assert terms["cosine"].item() == pytest.approx(0.5, abs=1e-6)
    assert terms["l2"].item() == pytest.approx((9 + 1 + 16 + 4) / 4)
    assert loss.weights(at(0)) == {"l2": 0.5, "cosine": 2.0}
    with pytest.raises(ValueError, match="set in_space=true"):
        ReconstructionConfig(cosine=1.0)


def test_terms_without_weight_are_not_computed():
    loss = build(ReconstructionConfig())
    assert set(loss(rebuilt(torch.ones(2), torch.zeros(2)), BATCH, at(0))) == {"l2"}
    with pytest.raises(ValueError, match="give one of them a weight"):
        ReconstructionConfig(l2=0)


def test_perceptual_distance_is_zero_for_equal_images():
    loss = build(PerceptualConfig(network="vistok-cnn", weight=0.3))
    x = torch.rand(2, 3, 32, 32)
    y = torch.rand(2, 3, 32, 32).requires_grad_()
    assert loss(rebuilt(x, x), BATCH, at(0))["perceptual"].item() == pytest.approx(0, abs=1e-6)
    far = loss(rebuilt(y, x), BATCH, at(0))["perceptual"]
    far.backward()
    assert far.item() > 0 and float(y.grad.abs().sum()) > 0
    assert loss.weights(at(0)) == {"perceptual": 0.3}
    assert not any(p.requires_grad for p in loss.parameters())


# -- the discriminator ------------------------------------------------------------------------


class Value(nn.Module):
    """A discriminator whose logit is scale x the first pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, pixels):
        return pixels[:, :1] * self.scale


def gan(**options) -> AdversarialLoss:
    loss = AdversarialLoss(AdversarialConfig(**{"start": 0} | options))
    loss.discriminator.discriminator = Value()
    return loss


def column(*values) -> torch.Tensor:
    return torch.tensor(values)[:, None]


def test_hinge_by_hand():
    loss = gan()
    # real logits 4 and 1, fake -3 and 0.5
    total, logged = loss.discriminate(loss.discriminator, column(2.0, 0.5), column(-1.5, 0.25))
    # (relu(1 - 4) + relu(1 - 1)) / 2 = 0; (relu(1 - 3) + relu(1 + 0.5)) / 2 = 0.75; half of it
    assert total.item() == logged["discriminator"].item() == pytest.approx(0.375)
    assert logged["logits_real"].item() == 2.5 and logged["logits_fake"].item() == -1.25
    assert logged["discriminator_accuracy"].item() == 0.75  # one of two fakes is taken for real
    fake = torch.tensor([[-1.5], [0.25]], requires_grad=True)
    term = loss(rebuilt(fake, fake), BATCH, at(0))["adversarial"]
    assert term.item() == pytest.approx(1.25)  # - mean(-3, 0.5)
    term.backward()
    assert fake.grad.flatten().tolist() == [-1, -1]  # - scale / 2


def test_generator_phase_leaves_nothing_in_the_discriminator():
    loss = AdversarialLoss(AdversarialConfig(start=0, discriminator=PatchGANConfig(width=8)))
    fake = torch.rand(2, 3, 32, 32, requires_grad=True)
    loss(rebuilt(fake, fake), BATCH, at(0))["adversarial"].backward()
    assert float(fake.grad.abs().sum()) > 0
    assert all(p.grad is None and p.requires_grad for p in loss.discriminator.parameters())
    # In its own phase it learns, and the images do not.
    total, _ = loss.discriminate(loss.discriminator, torch.rand(2, 3, 32, 32), fake.detach())
    total.backward()
    assert all(p.grad is not None for p in loss.discriminator.parameters())


def test_start_ramp_and_weight():
    loss = gan(start=3, ramp=4, weight=0.8)
    fake = column(1.0)
    assert [bool(loss(rebuilt(fake, fake), BATCH, at(s))) for s in (0, 2, 3, 50)] == [
        False,
        False,
        True,
        True,
    ]
    weights = [loss.weights(at(step))["adversarial"] for step in (2, 3, 4, 6, 50)]
    assert weights == pytest.approx([0, 0.2, 0.4, 0.8, 0.8])
    assert (
        loss.discriminator_start == 3
        and gan(start=3, discriminator_start=1).discriminator_start == 1
    )
    assert gan(start=3, discriminator_start=0).discriminator_start == 0
    assert gan(weight=0.0)(rebuilt(fake, fake), BATCH, at(5)) == {}


def test_adaptive_weight_by_hand():
    layer = nn.Parameter(torch.tensor([1.0, 1.0]))
    others = (layer * torch.tensor([3.0, 4.0])).sum()  # gradient of norm 5
    small = (layer * torch.tensor([0.0, 2.0])).sum()
    loss = gan(adaptive_max=1e4)
    weight = loss.balance(others, small, layer)
    assert weight.item() == pytest.approx(5 / 2.0001) and not weight.requires_grad
    assert loss.balance(others, 0 * small, layer).item() == 1e4  # 5 / 1e-4, clamped
    assert gan(adaptive_max=1.5).balance(others, small, layer).item() == 1.5
    assert gan(adaptive=False).balance(others, small, layer).item() == 1.0
    others.backward()  # the graph is still there


def test_lecam_by_hand_over_two_steps():
    loss = gan(lecam=0.5, lecam_decay=0.9)
    # Step 1, EMAs 0: real mean logit 3, fake mean -1.
    total, logged = loss.discriminate(loss.discriminator, column(1.0, 2.0), column(-0.5, -0.5))
    # relu(3 - 0)^2 + relu(0 + 1)^2
    assert logged["lecam"].item() == pytest.approx(10.0)
    assert total.item() == pytest.approx(logged["discriminator"].item() + 0.5 * 10.0)
    assert loss.discriminator.ema_real.item() == 0  # used before it is moved
    loss.after_step()
    assert loss.discriminator.ema_real.item() == pytest.approx(0.3)
    assert loss.discriminator.ema_fake.item() == pytest.approx(-0.1)
    # Step 2 in two micro-batches: real means 2 and 4, fake means 0 and 1.
    _, first = loss.discriminate(loss.discriminator, column(1.0), column(0.0))
    _, second = loss.discriminate(loss.discriminator, column(2.0), column(0.5))
    assert first["lecam"].item() == pytest.approx((2 + 0.1) ** 2 + 0.3**2)
    assert second["lecam"].item() == pytest.approx((4 + 0.1) ** 2)  # relu(0.3 - 1) = 0
    loss.after_step()
    assert loss.discriminator.ema_real.item() == pytest.approx(0.9 * 0.3 + 0.1 * 3)
    assert loss.discriminator.ema_fake.item() == pytest.approx(0.9 * -0.1 + 0.1 * 0.5)
    before = loss.discriminator.ema_real.clone()
    loss.after_step()  # nothing happened since
    assert torch.equal(loss.discriminator.ema_real, before)
    assert {"ema_real", "ema_fake"} <= set(loss.discriminator.state_dict())


def test_lecam_off_leaves_no_trace():
    loss = gan()
    _, logged = loss.discriminate(loss.discriminator, column(1.0), column(0.0))
    loss.after_step()
    assert "lecam" not in logged and loss.discriminator.ema_real.item() == 0


# -- PatchGAN --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layers", "side"), [(1, 14), (2, 6), (3, 2)])
def test_patchgan_gives_a_map(layers, side):
    # 32 halves `layers` times, then two 4x4 convolutions of stride 1 take one each.
    net = PatchGAN(PatchGANConfig(width=8, layers=layers))
    assert net(torch.rand(2, 3, 32, 32)).shape == (2, 1, side, side)


@pytest.mark.parametrize("norm", ["group", "batch", "none"])
def test_patchgan_norms(norm: Literal["group", "batch", "none"]):
    net = PatchGAN(PatchGANConfig(width=8, layers=2, norm=norm))
    kinds = {type(layer) for layer in net.layers}
    assert (nn.GroupNorm in kinds) == (norm == "group")
    assert (nn.BatchNorm2d in kinds) == (norm == "batch")
    weight = net.layers[2].weight.detach()
    assert float(weight.std()) == pytest.approx(0.02, rel=0.1)
    x = torch.rand(2, 3, 16, 16)
    # Images are shifted to -1..1 inside: grey is zero.
    with torch.no_grad():
        grey = net.layers[0](torch.zeros_like(x))
        assert torch.allclose(net.layers[0](torch.full_like(x, 0.5) * 2 - 1), grey)
        assert torch.equal(net(x), net.layers(x * 2 - 1))


# -- the blurring discriminator ---------------------------------------------------------------


@pytest.mark.parametrize("side", [16, 33, 64])
def test_blur_discriminator_pools_to_a_fixed_grid(side):
    net = build(BlurDiscriminatorConfig(width=8, norm_groups=4, layers=2, pool=4))
    x = torch.rand(2, 3, side, side + 2)
    assert net(x).shape == (2, 1, 4, 4)
    assert [stage[0].weight.shape[:2] for stage in net.stages] == [(8, 8), (16, 8)]
    assert {layer.negative_slope for layer in net.modules() if isinstance(layer, nn.LeakyReLU)} == {
        0.1
    }


@pytest.mark.parametrize(("blur", "size"), [(3, 8), (4, 8), (5, 7), (None, 8)])
def test_blurs_of_other_sizes_are_padded_for_four_taps(blur, size):
    net = build(BlurDiscriminatorConfig(width=8, norm_groups=4, layers=1, pool=2, blur=blur))
    half, x = net.stages[0][1], torch.rand(1, 8, 16, 16)
    assert half(x).shape == (1, 8, size, size)
    taps = {3: (1, 2, 1), 4: (1, 3, 3, 1), 5: (1, 4, 6, 4, 1)}.get(blur)
    if taps is not None:
        line = torch.tensor(taps).float() / sum(taps)
        assert torch.allclose(half.kernel[0, 0], line[:, None] * line)
        padded = nn.functional.pad(x, (1, 1, 1, 1))
        corner = (padded[0, 0, : len(taps), : len(taps)] * line[:, None] * line).sum()
        torch.testing.assert_close(half(x)[0, 0, 0, 0], corner)


@pytest.mark.parametrize("blur", [3, 4, 5, None])
def test_blur_discriminator_without_pooling_halves_every_map(blur):
    """Open-MAGVIT2's: borders are padded for the taps, images are shifted to -1..1 inside."""
    options = {"blur_padding": "own", "pool": None, "reads": "signed", "blur": blur}
    net = build(BlurDiscriminatorConfig(width=8, norm_groups=4, layers=2, **options))
    x = torch.rand(2, 3, 32, 48)
    assert net(x).shape == (2, 1, 8, 12)
    assert torch.equal(net(x), net.to_logits(net.stages(net.enter(x * 2 - 1))))


def test_blur_discriminator_sees_pixels_as_they_are():
    net = build(BlurDiscriminatorConfig(width=8, norm_groups=4, layers=1, pool=2))
    x = torch.rand(1, 3, 16, 16)
    maps = net.stages(net.enter(x))
    assert torch.equal(net(x), net.to_logits(nn.functional.adaptive_max_pool2d(maps, 2)))
    with pytest.raises(ValueError, match="width=12 must be a multiple of norm_groups=8"):
        BlurDiscriminatorConfig(width=12, norm_groups=8)
