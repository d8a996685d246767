"""Feature alignment: its numbers, its sources, and what it refuses."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from tests.conftest import tokenizer_tree
from vistok.config import ConfigError, validate
from vistok.core.draws import Draws
from vistok.core.records import Batch, Decoded, Latents, Quantized, Reconstruction
from vistok.core.schedules import Progress
from vistok.frozen.network import VisionFeatures, VisionNetwork
from vistok.losses.alignment import AlignmentConfig, AlignmentLoss
from vistok.losses.similarity import global_mean, negative_cosine, symmetric_infonce
from vistok.losses.taper import TaperConfig
from vistok.tokenizer import Tokenizer, TokenizerConfig

BATCH = Batch(torch.arange(4), torch.rand(4, 3, 8, 8))


class Teacher(VisionNetwork):
    """Hand-made features: pooled [4, 2]; four patches of 3 channels on a grid of 2 x 2."""

    dim, pooled_dim, depth = 3, 2, 1

    def __init__(self) -> None:
        super().__init__("teacher", "")
        torch.manual_seed(3)
        self.pooled, self.patches = torch.randn(4, 2), torch.randn(4, 4, 3)

    def look(self, pixels, depth=None):
        return VisionFeatures(self.pooled, self.patches, (2, 2))


def result(values, draws=None, latents=None) -> Reconstruction:
    quantized = Quantized(values, values + 1, None, None)
    image = Decoded(BATCH.pixels, BATCH.pixels, {"grid": values * 2})
    latents = Latents(values - 1 if latents is None else latents, ((2, 2),), {"last": values * 3})
    return Reconstruction(None, BATCH.pixels, image, quantized, latents, draws)


def aligned(count: int = 4, branches: int = 1, grid=(2, 2), **options) -> AlignmentLoss:
    """A loss bound to a tokenizer whose features all have `count` channels."""
    tree = {"network": "vistok-cnn", "projector": {"kind": "none"}, **options}
    loss = AlignmentLoss(validate(AlignmentConfig, tree))
    loss.network = Teacher()
    values = torch.zeros(1, 4, count)
    tokenizer = torch.nn.Linear(2, count)  # stands for all parameters
    tokenizer.proj = torch.nn.Linear(2, count)
    for name, value in {
        "shape": SimpleNamespace(is_clip=False, image_size=(8, 8), sides=(8, 8)),
        "layout": SimpleNamespace(count=4, values=(grid,)),
        "encoder": SimpleNamespace(grids=(grid,)),
        "regularizers": [SimpleNamespace(fills=("keep",))],
        "sampling": None,
        "config": SimpleNamespace(reading={}),
        "spec": lambda: SimpleNamespace(branches=branches),
        "forward": lambda *args, **options: result(values),
    }.items():
        setattr(tokenizer, name, value)
    loss.bind(tokenizer)
    return loss


def term(loss, values, draws=None, progress=None) -> torch.Tensor:
    return loss(result(values, draws), BATCH, progress or Progress(0, 10))["alignment"]


# -- the formulas ----------------------------------------------------------------------------------


def test_cosine_by_hand():
    a = torch.tensor([[[1.0, 0.0], [3.0, 4.0]]])
    b = torch.tensor([[[2.0, 0.0], [4.0, 3.0]]])
    assert negative_cosine(a, b).tolist() == pytest.approx([-(1 + 24 / 25) / 2])


def test_infonce_by_hand_with_two_pairs():
    student = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    teacher = torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    # Inner products times 2: rows (2, 0) and (4, 4); columns (2, 4) and (0, 4).
    rows = [-F.log_softmax(torch.tensor(row), 0) for row in ((2.0, 0.0), (4.0, 4.0))]
    columns = [-F.log_softmax(torch.tensor(row), 0) for row in ((2.0, 4.0), (0.0, 4.0))]
    each = [(rows[i][i] + columns[i][i]) / 2 for i in range(2)]
    ones = torch.ones(2)
    found = symmetric_infonce(student, teacher, None, ones, 2.0)
    assert found.item() == pytest.approx(float(sum(each)) / 2)
    halved = symmetric_infonce(student, teacher, None, torch.tensor([1.0, 0.5]), 2.0)
    assert halved.item() == pytest.approx(float(each[0] + 0.5 * each[1]) / 2)


def test_a_pair_that_is_left_out_is_as_if_it_were_not_there():
    student, teacher = torch.randn(5, 3, requires_grad=True), torch.randn(5, 3)
    counts = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0])
    found = symmetric_infonce(student, teacher, counts, torch.ones(5), 1.5)
    left = [0, 2, 3]
    expected = symmetric_infonce(student[left], teacher[left], None, torch.ones(3), 1.5)
    torch.testing.assert_close(found, expected)
    found.backward()
    assert not student.grad[[1, 4]].any() and student.grad[left].all()
    nobody = symmetric_infonce(student, teacher, torch.zeros(5), torch.ones(5), 1.5)
    assert nobody.item() == 0
    terms = torch.tensor([1.0, 9.0, 3.0, 5.0, 9.0])
    assert global_mean(terms, counts, torch.ones(5)).item() == pytest.approx(3)
    assert global_mean(terms, torch.zeros(5), torch.ones(5)).item() == 0


def test_taper_falls_from_its_start_to_the_last_latent():
    keep = torch.tensor([1, 4, 8, 12, 16])
    linear = TaperConfig(shape="linear", start=4).factor(keep, 12)
    assert linear.tolist() == pytest.approx([1, 1, 0.5, 0, 0])
    cosine = TaperConfig(shape="cosine", start=4, stop=20).factor(keep, 12)
    assert cosine.tolist() == pytest.approx([1, 1, (1 + 2**-0.5) / 2, 0.5, (1 - 2**-0.5) / 2])
    blocks = TaperConfig(shape="linear", start=4).factor(torch.tensor([[4, 12]]), 12)
    assert blocks.tolist() == pytest.approx([0.5])


# -- the loss --------------------------------------------------------------------------------------


def test_sources_of_the_student():
    values = torch.randn(4, 4, 3)
    options = {"features": "patches", "projector": {"kind": "none"}}
    expected = {
        "quantized": values,
        "clean": values + 1,
        "latents": values - 1,
        "encoder": values * 3,
        "decoder": values * 2,
    }
    taps = {"encoder": {"tap": "last"}, "decoder": {"tap": "grid"}}
    for source, student in expected.items():
        loss = aligned(3, student=source, **options, **taps.get(source, {}))
        by_hand = negative_cosine(student, loss.network.patches).mean()
        torch.testing.assert_close(term(loss, values), by_hand)


def test_branches_lie_on_channels():
    values = torch.randn(4, 4, 6)
    for branch, own in ((0, values[..., :3]), (-1, values[..., 3:])):
        loss = aligned(6, branches=2, branch=branch)
        by_hand = negative_cosine(own, loss.network.patches).mean()
        torch.testing.assert_close(term(loss, values), by_hand)
    with pytest.raises(ConfigError, match="alignment of branch=2, but there are 2"):
        aligned(6, branches=2, branch=2)


def test_robustok_pools_both_sides_and_goes_through_the_tokenizer():
    values = torch.randn(4, 4, 5)
    options = {"features": "pooled", "how": "infonce", "through": "proj", "scale": 1.0}
    loss = aligned(5, **options)
    module = loss._through[0]
    teacher = module(loss.network.pooled)
    expected = symmetric_infonce(values.mean(1), teacher, None, torch.ones(4), 1.0)
    found = term(loss, values)
    torch.testing.assert_close(found, expected)
    found.backward()
    assert module.weight.grad.abs().sum() > 0 and loss.trained == ()
    assert {id(p) for p in loss.borrowed} == {id(p) for p in module.parameters()}
    unit = aligned(5, **options | {"normalize": True, "scale_end": 100.0})
    unit._through = [module]
    sides = (F.normalize(values.mean(1), dim=1), F.normalize(teacher, dim=1))
    # XQ-GAN's schedule: scale + (100 - scale) * epoch / 200, by whole epochs.
    for epoch, scale in ((0.0, 1.0), (50.9, 1 + 99 * 50 / 200), (300.0, 100.0)):
        expected = symmetric_infonce(*sides, None, torch.ones(4), scale)
        found = term(unit, values, progress=Progress(0, 10, epoch))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_positions_are_resized_to_the_grid_of_the_teacher():
    values = torch.randn(4, 16, 3)
    loss = aligned(3, student="decoder", tap="grid", features="patches")
    maps = (2 * values).mT.reshape(4, 3, 4, 4)
    small = F.interpolate(maps, (2, 2), mode="bilinear", antialias=True)
    by_hand = negative_cosine(small.flatten(2).mT, loss.network.patches).mean()
    torch.testing.assert_close(term(loss, values), by_hand)


def test_images_with_dropped_levels_are_left_out():
    values = torch.randn(4, 4, 3)
    levels = torch.tensor([[1, 1], [1, 0], [1, 1], [0, 0]], dtype=torch.bool)
    loss = aligned(3)
    terms = negative_cosine(values, loss.network.patches)
    torch.testing.assert_close(term(loss, values, Draws(levels=levels)), terms[[0, 2]].mean())
    everyone = aligned(3, leave_out="nothing")
    torch.testing.assert_close(term(everyone, values, Draws(levels=levels)), terms.mean())
    leading = aligned(3, leave_out="first_local", leave_out_share=0.6)
    torch.testing.assert_close(term(leading, values, Draws(levels=levels)), terms[2:].mean())


def test_taper_weighs_images_by_their_kept_length():
    values, keep = torch.randn(4, 4, 3), torch.tensor([1, 2, 3, 4])
    loss = aligned(3, taper={"shape": "linear", "start": 2})
    terms = negative_cosine(values, loss.network.patches)
    by_hand = (terms * torch.tensor([1, 1, 0.5, 0])).mean()
    torch.testing.assert_close(term(loss, values, Draws(keep=keep)), by_hand)
    torch.testing.assert_close(term(loss, values), terms.mean())  # evaluation


def test_start_and_stop():
    loss = aligned(3, start=2, stop=5)
    shown = [bool(loss(result(torch.randn(4, 4, 3)), BATCH, Progress(s, 9))) for s in range(7)]
    assert shown == [False, False, True, True, True, False, False]


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_projector_is_trained_beside_the_tokenizer(side):
    values = torch.randn(4, 4, 5, requires_grad=True)
    loss = aligned(5, projector={"kind": "mlp", "hidden": None, "layers": 3, "side": side})
    inside, outside = (5, 3) if side == "student" else (3, 5)
    widths = [layer.weight.shape[::-1] for layer in loss.projector if hasattr(layer, "weight")]
    assert widths == [(inside, 4 * inside), (4 * inside, 4 * inside), (4 * inside, outside)]
    assert loss.trained == ("projector",)
    term(loss, values).backward()
    assert all(p.grad.abs().sum() > 0 for p in loss.projector.parameters())
    assert values.grad.abs().sum() > 0 and not any(
        p.requires_grad for p in loss.network.parameters()
    )


def test_real_taps_and_widths_are_found_without_a_pass():
    tree = tokenizer_tree()
    tree["encoder"] |= {"taps": {"first": 1}}
    tokenizer = Tokenizer(validate(TokenizerConfig, tree))
    options = {"network": "vistok-cnn", "features": "pooled", "student": "encoder"}
    loss = AlignmentLoss(validate(AlignmentConfig, options | {"tap": "first"}))
    loss.bind(tokenizer)
    assert loss.projector[0].in_features == 16 and loss.projector[-1].out_features == 320
    assert all(p.device.type == "cpu" for p in loss.projector.parameters())
    with torch.device("meta"):  # as a dry run builds it
        hollow = AlignmentLoss(loss.config)
        hollow.bind(Tokenizer(tokenizer.config))
    assert hollow.projector[0].in_features == 16
    wrong = AlignmentLoss(validate(AlignmentConfig, options | {"tap": "frst"}))
    with pytest.raises(ConfigError, match=r"the encoder has no tap 'frst'.*first"):
        wrong.bind(tokenizer)
    with pytest.raises(ConfigError, match="which lie on no grid"):
        AlignmentLoss(
            validate(AlignmentConfig, options | {"tap": "first", "features": "patches"})
        ).bind(tokenizer)


def test_what_is_refused_in_one_line(fails):
    with fails(ConfigError, "features of 5 and 3 channels with projector.kind=none"):
        aligned(5)
    with fails(ConfigError, "through=other, which is no module; expected a linear layer"):
        aligned(5, through="other")
    with fails(ConfigError, "through=proj, which is a layer from 2 to 5 channels; .* from 3 "):
        aligned(5, through="proj")
    with fails(ConfigError, "taper.start=9 must lie below its stop 4"):
        aligned(3, taper={"start": 9})
    for words, tree in {
        "student=encoder needs the name of a `tap`": {"student": "encoder"},
        "student=latents has no `tap`": {"student": "latents", "tap": "a"},
        "a decoder has no branches": {"student": "decoder", "tap": "a", "branch": 0},
        "normalize=true belongs to infonce": {"normalize": True},
        "leave_out_share=0.5 belongs to": {"leave_out_share": 0.5},
        "'dino' is no vision network": {"network": "dino"},
    }.items():
        with fails(ValueError, words):
            validate(AlignmentConfig, tree)


def test_a_string_names_a_network():
    config = validate(AlignmentConfig, {"network": "dinov2-l"})
    assert config.network.kind == "vit" and config.network.network == "dinov2-l"
    assert validate(AlignmentConfig, {"network": "siglip"}).network.kind == "siglip"
