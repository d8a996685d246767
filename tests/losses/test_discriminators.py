"""DINO and StyleGAN discriminators, spectral norm, and what the adversarial loss does with them."""

import itertools

import pytest
import torch
from torch import nn

from vistok.config import ConfigError, validate
from vistok.config.registry import build
from vistok.core.draws import Draws, PartDraws
from vistok.core.records import Batch, Decoded, Reconstruction
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.frozen.vit import FrozenViTConfig
from vistok.losses.adversarial import AdversarialConfig, AdversarialLoss
from vistok.losses.discriminators import (
    ClipViTConfig,
    DinoDiscriminator,
    DinoDiscriminatorConfig,
    StyleGANDiscriminatorConfig,
)
from vistok.losses.discriminators.dino import VirtualBatchNorm, crops
from vistok.losses.discriminators.spectral import SpectralConv1d
from vistok.losses.probe import passed, shapes_alone

BATCH = Batch(index=torch.arange(4))


def at(step: int) -> Progress:
    return Progress(step, 100)


def rebuilt(pixels, draws=None) -> Reconstruction:
    return Reconstruction(pixels, pixels, Decoded(pixels, pixels), None, None, draws)


def dino(**options) -> DinoDiscriminator:
    return DinoDiscriminator(DinoDiscriminatorConfig.tiny().model_copy(update=options))


def gan(**options) -> AdversarialLoss:
    tiny = DinoDiscriminatorConfig.tiny().model_dump(mode="json")
    return build(
        validate(
            AdversarialConfig, {"kind": "adversarial", "start": 0, "discriminator": tiny} | options
        )
    )


# -- spectral norm -------------------------------------------------------------------------------


def test_spectral_norm_iterates_in_training_only():
    conv, theirs = SpectralConv1d(5, 4, 3), nn.Conv1d(5, 4, 3, padding=1, padding_mode="circular")
    theirs.load_state_dict({"weight": conv.weight_orig.detach(), "bias": conv.bias.detach()})
    theirs = nn.utils.spectral_norm(theirs, n_power_iterations=1, eps=1e-12)
    theirs.load_state_dict(conv.state_dict())
    x = torch.randn(2, 5, 7)
    for module in (conv, theirs):
        module.train()
    for _ in range(3):
        a, b = conv(x), theirs(x)
        torch.testing.assert_close(a, b)
    a.square().sum().backward()
    b.square().sum().backward()
    torch.testing.assert_close(conv.weight_orig.grad, theirs.weight_orig.grad)
    before = {name: tensor.clone() for name, tensor in conv.state_dict().items()}
    torch.testing.assert_close(conv.eval()(x), theirs.eval()(x))
    assert all(torch.equal(before[name], tensor) for name, tensor in conv.state_dict().items())
    conv.train()
    for _ in range(50):
        conv(x)
    largest = torch.linalg.svdvals(conv.weight().flatten(1))[0]
    assert largest.item() == pytest.approx(1, abs=1e-4)


def test_two_passes_before_one_backward():
    conv = SpectralConv1d(3, 3).train()
    (conv(torch.randn(1, 3, 4)).sum() + conv(torch.randn(1, 3, 4)).sum()).backward()
    assert conv.weight_orig.grad.isfinite().all()


def test_virtual_batch_norm_by_groups():
    norm = VirtualBatchNorm(2, 3, 1e-6)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([2.0, 3.0]))
    x = torch.randn(7, 2, 5)  # three groups: of 3, 2 and 2
    for part, out in zip(x.split([3, 2, 2]), norm(x).split([3, 2, 2]), strict=True):
        mean, var = part.mean((0, 2), keepdim=True), part.var((0, 2), correction=0, keepdim=True)
        expected = (part - mean) / (var + 1e-6).sqrt() * torch.tensor([2.0, 3.0])[:, None]
        torch.testing.assert_close(out, expected)


# -- DINO ------------------------------------------------------------------------------------------


def test_dino_judges_every_patch_at_every_depth():
    made = dino().train()
    logits = made(torch.rand(4, 3, 20, 20))
    assert logits.shape == (4, 2 * 4)
    logits.sum().backward()
    assert all(p.grad is not None for p in made.heads.parameters())
    assert not any(p.requires_grad for p in made.network.parameters())
    assert all(name.startswith("heads.") for name in made.state_dict())  # none of the borrowed
    names = {name.removeprefix("heads.0.") for name in made.state_dict() if "heads.0" in name}
    assert {"0.0.weight_orig", "0.0.weight_u", "0.1.weight", "1.fn.0.weight_v", "2.bias"} <= names


def test_heads_of_the_original_have_the_published_size():
    with torch.device("meta"):
        made = build(DinoDiscriminatorConfig())
    assert sum(p.numel() for p in made.heads.parameters()) == 7_386_245  # 7.39 M


def test_crops_are_pieces_of_the_image():
    x = torch.arange(2 * 3 * 6 * 8.0).view(2, 3, 6, 8)
    cropped = crops(x, 4, torch.tensor([0.0, 0.99]), torch.tensor([0.5, 0.99]))
    assert torch.equal(cropped[0], x[0, :, :4, 2:6]) and torch.equal(cropped[1], x[1, :, 2:, 4:])


def test_images_are_cropped_only_by_draws_and_when_larger():
    made = dino()
    x = torch.rand(2, 3, 24, 24)
    crop = torch.tensor([[0.5, 0.0, 0.0]]).expand(2, 3)
    square = made.square(x, crop)
    torch.testing.assert_close(square, ((x - made.network.mean) / made.network.std)[..., :16, :16])
    resized = made.square(x)
    assert torch.equal(made.square(x, torch.tensor([[0.51, 0, 0]]).expand(2, 3)), resized)
    assert not torch.allclose(square, resized)
    small = torch.rand(2, 3, 16, 16)
    assert torch.equal(made.square(small, crop), made.square(small))


@pytest.mark.parametrize("norm", ["virtual_batch", "batch", "group"])
@pytest.mark.parametrize("spectral", [True, False])
def test_options_of_the_heads(norm, spectral):
    wide = FrozenViTConfig.tiny().model_copy(update={"width": 32, "depth": 1})
    made = dino(network=wide, readouts=(1,), norm=norm, spectral_norm=spectral, kernel=5)
    assert made(torch.rand(3, 3, 16, 16)).shape == (3, 4)
    has = {name.rpartition(".")[2] for name in made.state_dict()}
    assert ("weight_orig" in has) == spectral and ("running_mean" in has) == (norm == "batch")


def test_what_a_dino_discriminator_refuses(fails):
    tiny = DinoDiscriminatorConfig.tiny().model_dump()
    for change, words in {
        "readouts": ([0, 3], r"readouts=\[0, 3\]: expected ascending numbers of blocks, 0\.\.2"),
        "kernel": (4, "kernel=4 is even"),
        "norm": ("group", "32 groups of 16 channels"),
    }.items():
        with fails(ValueError, words[1]):
            validate(DinoDiscriminatorConfig, tiny | {change: words[0]})


# -- StyleGAN --------------------------------------------------------------------------------------


def test_stylegan_halves_to_four_cells(fails):
    made = build(StyleGANDiscriminatorConfig(image_size=128, width=8, multiplier=2))
    sides = [layer.shortcut.weight.shape[:2] for layer in made.blocks]
    # Maps of 128, 64, 32, 16 and 8: 4, 8, 8, 8, 8 channels.
    assert sides == [(8, 4), (8, 8), (8, 8), (8, 8), (8, 8)]
    assert made(torch.rand(2, 3, 128, 128)).shape == (2, 1)
    with fails(ValueError, "made for images of 128 x 128, not \\(64, 64\\)"):
        made(torch.rand(2, 3, 64, 64))
    with fails(ValueError, "image_size=48 is no power of two"):
        validate(StyleGANDiscriminatorConfig, {"image_size": 48})


def test_stylegan_of_the_original_has_its_sizes():
    with torch.device("meta"):
        made = build(StyleGANDiscriminatorConfig())
    config = StyleGANDiscriminatorConfig()
    widths = [config.channels(256 >> i) for i in range(7)]
    assert widths == [64, 128, 256, 512, 512, 512, 512]
    count = 64 * 28 + sum(
        a * b + b + 9 * a * b + b + 2 * (9 * b * b + b) for a, b in itertools.pairwise(widths)
    )
    count += 9 * 512 * 512 + 512 + 512 * 16 * 512 + 512 + 513
    assert sum(p.numel() for p in made.parameters()) == count


# -- the adversarial loss --------------------------------------------------------------------------


def test_frozen_networks_stay_frozen():
    loss = gan()
    fake = torch.rand(4, 3, 16, 16, requires_grad=True)
    loss(rebuilt(fake), BATCH, at(0))["adversarial"].backward()
    assert fake.grad.abs().sum() > 0
    inner = loss.discriminator.discriminator
    assert not any(p.requires_grad for p in inner.network.parameters())
    assert all(p.requires_grad and p.grad is None for p in inner.heads.parameters())


def test_real_and_rebuilt_images_are_never_normed_together():
    loss = gan()
    loss.discriminator.eval()  # no power iteration in between
    real, fake = torch.rand(4, 3, 16, 16), torch.rand(4, 3, 16, 16)
    _, logged = loss.discriminate(loss.discriminator, real, fake)
    inner = loss.discriminator.discriminator
    torch.testing.assert_close(logged["logits_real"], inner(real).mean())
    torch.testing.assert_close(logged["logits_fake"], inner(fake).mean())
    patch = {"kind": "patchgan", "width": 8, "layers": 1, "norm": "batch"}
    images = torch.rand(4, 3, 16, 16) * torch.tensor([0.1, 1, 1, 0.1]).view(4, 1, 1, 1)
    found = {}
    for passes in ("one", "two"):
        torch.manual_seed(0)
        loss = gan(discriminator=patch, passes=passes)
        found[passes] = loss.discriminate(loss.discriminator, images[:2], images[2:])[0]
        torch.manual_seed(0)
        apart = gan(discriminator=patch).discriminator.discriminator
        means = [apart(images[2:]).mean(), apart(images[:2]).mean()]
        if passes == "two":
            _, logged = loss.discriminate(loss.discriminator, images[:2], images[2:])
            torch.testing.assert_close(logged["logits_fake"], means[0])
            torch.testing.assert_close(logged["logits_real"], means[1])
    assert found["one"].item() != pytest.approx(found["two"].item(), abs=1e-6)


def test_draws_are_keyed_and_shared_where_they_decide_for_a_batch():
    loss = gan(augment={}, name="second")
    index = torch.tensor([5, 2, 9])
    drawn = loss.draw(index, Rng(1, "loss.second", 3), at(3)).uniform
    assert drawn.shape == (3, 3, 13)
    assert torch.equal(drawn[:, :, :3], drawn[:1, :, :3].expand(3, 3, 3))  # gates
    assert torch.equal(drawn[:, :, 10:], drawn[:1, :, 10:].expand(3, 3, 3))  # crops
    assert drawn[:, :, 3:10].unique().numel() == 3 * 3 * 7
    again = loss.draw(index[1:], Rng(1, "loss.second", 3), at(3)).uniform
    assert torch.equal(again, drawn[1:])
    assert gan(discriminator={"kind": "patchgan"}).draw(index, Rng(0), at(0)) is None


class Seen(nn.Module):
    """A discriminator that remembers what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.images = nn.Parameter(torch.ones(())), []

    def forward(self, pixels):
        self.images.append(pixels.detach())
        return pixels.mean((1, 2, 3))[:, None] * self.scale


def test_every_pass_has_numbers_of_its_own():
    loss = gan(discriminator={"kind": "patchgan"}, augment={}, passes="two")
    loss.discriminator.discriminator = seen = Seen()
    x = torch.rand(4, 3, 16, 16)
    draws = loss.draw(BATCH.index, Rng(0), at(0))
    loss(rebuilt(x, Draws(parts={"loss.adversarial": draws})), BATCH, at(0))
    loss.step(loss.discriminator, (x, x), BATCH, draws, at(0))
    assert len(seen.images) == 3  # the tokenizer's, rebuilt, real
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(seen.images, 2))
    seen.images.clear()
    loss(rebuilt(x), BATCH, at(0))  # without draws: evaluation
    assert torch.equal(seen.images[0], x)


def test_consistency_compares_with_a_stronger_augmentation():
    loss = gan(
        discriminator={"kind": "patchgan"},
        augment={"first": "color", "cutout": 0.25},
        consistency=4.0,
        strong={"cutout": 0.5},
        discriminator_weight=0.2,
    )
    loss.discriminator.discriminator = seen = Seen()
    real, fake = torch.rand(2, 4, 3, 16, 16)
    draws = loss.draw(BATCH.index, Rng(0), at(0))
    assert draws.uniform.shape[1] == 5
    terms = loss.step(loss.discriminator, (real, fake), BATCH, draws, at(0))
    views = [
        loss.seen(x, n, draws, at(0))[0] for x, n in zip((fake, real) * 2, range(1, 5), strict=True)
    ]
    weak, strong = (torch.cat(pair).mean((1, 2, 3)) for pair in (views[:2], views[2:]))
    far = torch.nn.functional.mse_loss(weak, strong)
    hinge = (torch.relu(1 - weak[4:]).mean() + torch.relu(1 + weak[:4]).mean()) / 2
    torch.testing.assert_close(terms["consistency"], far)
    torch.testing.assert_close(terms["loss"], 0.2 * hinge + 4.0 * far)
    assert far > 1e-6 and len(seen.images) == 1


def test_blur_of_the_first_steps():
    loss = gan(discriminator={"kind": "patchgan"}, start=2, blur_steps=3)
    loss.discriminator.discriminator = seen = Seen()
    x = torch.rand(2, 3, 16, 16)
    for step in (2, 4, 6):
        loss.step(loss.discriminator, (x, x), BATCH, PartDraws(), at(step))
    first, later, sharp = (images[:2] for images in seen.images)
    assert first.var() < later.var() < x.var()
    assert torch.equal(sharp, x)


def test_losses_of_logits_by_hand():
    real, fake = torch.tensor([[2.0], [-1.0]]), torch.tensor([[0.5], [1.0]])
    softplus = torch.nn.functional.softplus
    cross = torch.nn.functional.binary_cross_entropy_with_logits
    vanilla = (softplus(-real).mean() + softplus(fake).mean()) / 2
    swapped = (cross(torch.ones(2, 1), real) + cross(torch.zeros(2, 1), fake)) / 2
    one = torch.tensor(1.0)
    means = softplus(-one / 2) + softplus(one * 0.75)  # of both patches of the one sample
    wide = real.view(1, 2), fake.view(1, 2)
    loss = gan(discriminator={"kind": "patchgan"}, discriminator_loss="non_saturating_mean")
    loss.discriminator.discriminator = nn.Identity()
    torch.testing.assert_close(loss.discriminate(loss.discriminator, *wide)[0], means)
    for kind, expected in {"vanilla": vanilla, "swapped": swapped}.items():
        loss = gan(discriminator={"kind": "patchgan"}, discriminator_loss=kind)
        loss.discriminator.discriminator = nn.Identity()
        found, _ = loss.discriminate(loss.discriminator, real, fake)
        torch.testing.assert_close(found, expected)
    for kind, expected in {
        "non_saturating": softplus(-fake).mean(),
        "swapped": cross(torch.ones(2, 1), fake),
    }.items():
        loss = gan(discriminator={"kind": "patchgan"}, generator_loss=kind)
        loss.discriminator.discriminator = nn.Identity()
        found = loss(rebuilt(fake[:, :, None, None]), BATCH, at(0))["adversarial"]
        torch.testing.assert_close(found, expected)


def test_lecam_of_imagefolder_by_hand():
    options = {"lecam": 0.1, "lecam_decay": 0.9, "lecam_form": "logits", "lecam_order": "before"}
    loss = gan(discriminator={"kind": "patchgan"}, **options)
    loss.discriminator.discriminator = nn.Identity()
    real, fake = torch.tensor([[2.0], [0.0]]), torch.tensor([[-2.0], [0.0]])
    _, logged = loss.discriminate(loss.discriminator, real, fake)
    # Running means after this step's entered: 0.1 and -0.1; relu(real + 0.1)^2 + relu(0.1 - fake)^2
    expected = (2.1**2 + 0.1**2) / 2 * 2
    assert logged["lecam"].item() == pytest.approx(expected)
    loss.after_step()
    assert loss.discriminator.ema_real.item() == pytest.approx(0.1)


def test_a_discriminator_of_another_size_is_refused(fails):
    loss = gan(discriminator={"kind": "stylegan", "image_size": 32, "width": 8})
    tokenizer = nn.Module()
    tokenizer.shape = type("Shape", (), {"image_size": (16, 16)})()
    with fails(ValueError, "stylegan is made for images of 32 x 32"):
        loss.bind(tokenizer)
    small = gan(discriminator={"kind": "patchgan", "layers": 6})
    with fails(ConfigError, "too small for layers=6"):
        small.bind(tokenizer)


# -- clips -----------------------------------------------------------------------------------------


def clip_gan(**options) -> AdversarialLoss:
    tree = {"kind": "adversarial", "start": 0, "discriminator": {"kind": "patchgan3d", "width": 8}}
    return build(validate(AdversarialConfig, tree | options))


def test_a_discriminator_of_clips_sees_them_whole():
    clips, loss = torch.rand(2, 3, 5, 32, 32), clip_gan(generator_loss="non_saturating_mean")
    real, fake = loss.hand_on(rebuilt(clips), BATCH, at(5))
    assert real.shape == fake.shape == clips.shape
    logits = loss.discriminator(clips)
    term = loss(rebuilt(clips), BATCH, at(5))["adversarial"]
    expected = torch.nn.functional.softplus(-logits.flatten(1).mean(1)).mean()
    assert torch.allclose(term, expected)
    assert not torch.allclose(logits, loss.discriminator(clips.flip(2)))  # order of frames
    assert gan().hand_on(rebuilt(clips), BATCH, at(5))[0].shape == (10, 3, 32, 32)


def test_augmentation_of_clips_is_one_line():
    with pytest.raises(ConfigError, match="patchgan3d sees whole clips"):
        clip_gan(blur_steps=10)


def test_clip_vit_sees_whole_clips_and_refuses_others(fails):
    torch.manual_seed(0)
    network = build(ClipViTConfig(size=4, frames=2, width=16, depth=1, heads=2))
    clips = torch.rand(2, 3, 4, 8, 8)
    logits = network(clips)
    assert logits.shape == (2, 1) and network.media == "clip"
    assert not torch.allclose(network(clips.flip(2)), logits)  # frames have places
    with shapes_alone():  # such a pass leaves nothing behind
        passed(network, torch.zeros(1, 3, 2, 8, 8))
    assert network(clips[:, :, :2]).isfinite().all()
    with fails(ValueError, r"clips of \(3, 8, 8\) are no multiples of its patches \(2, 4, 4\)"):
        network(clips[:, :, :3])
    spectral = build(
        ClipViTConfig(size=4, frames=2, width=16, depth=1, heads=2, spectral_norm=True)
    )
    for layer in (spectral.head, spectral.transformer.blocks[0].mlp.up):
        for _ in range(50):
            spectral(clips)
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, 1e-2)


def test_smoothed_targets_by_hand():
    loss = build(
        AdversarialConfig.tiny().model_copy(
            update={"discriminator_loss": "vanilla", "smoothing": 0.15, "every": 5}
        )
    )
    real, fake = torch.tensor([[2.0], [-1.0]]), torch.tensor([[0.5], [3.0]])
    seen = torch.cat([real, fake])
    noise = torch.tensor([[1.0, -2.0], [4.0, 0.0]])  # moves by 0.15, 0.3 | 0.3 (cut from 0.6), 0
    found, _ = loss.discriminate(lambda *given: seen, real, fake, None, noise)
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    expected = bce(real, torch.tensor([[0.85], [0.7]])) + bce(fake, torch.tensor([[0.3], [0.0]]))
    assert found.item() == pytest.approx(expected.item() / 2, abs=1e-6)
    assert loss.phase.every == 5
    drawn = loss.draw(torch.arange(3), Rng(0, "loss.adversarial", 1), Progress(1, 9))
    assert drawn.noise.shape == (3, 2) and drawn.uniform is None
    with pytest.raises(ValueError, match=r"smoothing=0\.1 moves the targets of a cross-entropy"):
        AdversarialConfig(smoothing=0.1)
