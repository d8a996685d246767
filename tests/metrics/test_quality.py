"""PSNR and SSIM: hand-made numbers, both conventions, merging, refusals."""

from __future__ import annotations

import math

import pytest
import torch

from vistok.metrics import MSSSIM, PSNR, SSIM, MeanColorPSNR
from vistok.metrics.structural import ssim


def _images(count: int = 6, side: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def test_psnr_by_hand():
    target = torch.zeros(2, 3, 4, 4)
    pred = target.clone()
    pred[0] += 0.1  # squared error 0.01: 20 dB
    pred[1, :, :2] += 0.5  # half the pixels at 0.25: 0.125
    psnr = PSNR()
    psnr.update(pred, target)
    result = psnr.compute()
    second = 10 * math.log10(8)
    assert result.mean == pytest.approx((20 + second) / 2, abs=1e-5)
    assert result.pooled == pytest.approx(-10 * math.log10((0.01 + 0.125) / 2), abs=1e-5)
    assert result.images == 2


def test_pooled_weighs_images_by_their_size():
    psnr = PSNR()
    psnr.update(torch.full((1, 3, 2, 2), 0.1), torch.zeros(1, 3, 2, 2))
    psnr.update(torch.full((1, 3, 4, 4), 0.2), torch.zeros(1, 3, 4, 4))
    assert psnr.compute().pooled == pytest.approx(-10 * math.log10((0.01 + 4 * 0.04) / 5), abs=1e-5)


def test_bytes_and_floats_agree():
    a, b = ((_images(seed=s) * 255).byte() for s in (0, 1))
    one, two = PSNR(), PSNR()
    one.update(a, b)
    two.update(a.double() / 255, b.double() / 255)
    assert one.compute() == two.compute()


def test_mean_color():
    target = torch.zeros(1, 3, 2, 2)
    target[0, 0, 0] = 1.0  # red: half ones, error 0.25; the other colors are flat
    floor = MeanColorPSNR()
    floor.update(target)
    assert floor.compute().mean == pytest.approx(-10 * math.log10(0.25 / 3), abs=1e-5)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")  # torchmetrics, before our error
@pytest.mark.parametrize("kind", [PSNR, SSIM])
def test_merge_is_a_single_pass(kind):
    pred, target = _images(seed=0), _images(seed=1)
    whole, left, right = kind(), kind(), kind()
    whole.update(pred, target)
    left.update(pred[:1], target[:1])
    left.compute()  # a cached result must not survive the merge
    right.update(pred[1:4], target[1:4])
    right.update(pred[4:], target[4:])
    assert left.merge(right).compute() == pytest.approx(whole.compute(), abs=1e-12)
    left.reset()
    with pytest.raises(ValueError, match="has seen no image"):
        left.compute()


def test_ssim_orders_damage():
    target = _images(4, 32)
    values = []
    for strength in (0.0, 0.1, 0.5):
        ssim = SSIM()
        ssim.update((1 - strength) * target + strength * 0.5, target)
        values.append(ssim.compute())
    assert values[0] == pytest.approx(1)
    assert values[0] > values[1] > values[2]


def test_ms_ssim_is_torchmetrics_mean_over_images():
    from torchmetrics.image import MultiScaleStructuralSimilarityIndexMeasure

    target = _images(3, 176)
    pred = (0.7 * target + 0.3 * _images(3, 176, seed=1)).clamp(0, 1)
    theirs = MultiScaleStructuralSimilarityIndexMeasure(data_range=1.0, reduction="none")
    each = [float(theirs(pred[i : i + 1].double(), target[i : i + 1].double())) for i in range(3)]
    ours = MSSSIM()
    ours.update(pred[:1], target[:1])
    ours.update(pred[1:], target[1:])
    assert ours.compute() == pytest.approx(sum(each) / 3, rel=1e-6) and 0.5 < ours.compute() < 1
    with pytest.raises(ValueError, match=r"MSSSIM of 175x176 pixels: .* sides of 176"):
        MSSSIM().update(pred[:, :, 1:], target[:, :, 1:])


def test_refusals_are_one_line():
    image = _images(1)
    for metric in (PSNR(), SSIM()):
        with pytest.raises(ValueError, match="clamp reconstructions"):
            metric.update(image * 2 - 1, image)
        with pytest.raises(ValueError, match="target has values from nan"):
            metric.update(image, image * math.nan)
        with pytest.raises(ValueError, match="expected equal shapes"):
            metric.update(image, image[..., :4])
        with pytest.raises(ValueError, match="expected uint8, or float"):
            metric.update(image.long(), image.long())
    with pytest.raises(ValueError, match="sides of 6 or more"):
        SSIM().update(image[..., :5], image[..., :5])


def test_standard_errors_of_means():
    draws = torch.Generator().manual_seed(0)
    target = torch.rand(12, 3, 16, 16, generator=draws)
    noise = torch.rand(12, 1, 1, 1, generator=draws) * torch.randn(target.shape, generator=draws)
    pred = (target + 0.2 * noise).clamp(0, 1)
    psnr, ssim = PSNR(), SSIM()
    for part in (slice(0, 5), slice(5, 12)):
        psnr.update(pred[part], target[part])
        ssim.update(pred[part], target[part])
    squares = ((pred - target).double() ** 2).flatten(1).mean(1)
    each = -10 * squares.log10()
    found = psnr.compute()
    error = lambda values: float(values.std()) / len(values) ** 0.5
    assert found.mean_error == pytest.approx(error(each), rel=1e-5)
    share = error(squares) / float(squares.mean())
    assert found.pooled_error == pytest.approx(share * 10 / math.log(10), rel=1e-5)
    ssim.compute()
    assert ssim.mean_error == pytest.approx(error(ssim.each(pred.double(), target.double())))
    clips = PSNR(together=3)  # three images are one sample
    clips.update(pred, target)
    assert clips.compute().mean == pytest.approx(found.mean)
    assert clips.compute().mean_error == pytest.approx(error(each.view(4, 3).mean(1)), rel=1e-5)
    one = PSNR()
    one.update(pred[:1], target[:1])
    assert math.isnan(one.compute().mean_error)


@pytest.mark.parametrize("sides", [(6, 7), (32, 32), (64, 65), (150, 20)])
def test_ssim_is_torchmetrics(sides):
    from torchmetrics.functional.image import structural_similarity_index_measure

    target = torch.rand(3, 3, *sides, generator=torch.Generator().manual_seed(0)).double()
    pred = (target + 0.1 * torch.randn(target.shape, generator=torch.Generator())).clamp(0, 1)
    pred[2] = target[2]
    theirs = structural_similarity_index_measure(
        pred, target, sigma=1.5, kernel_size=11, reduction="none", data_range=1.0
    )
    assert ssim(pred, target).tolist() == pytest.approx(theirs.tolist(), abs=1e-12)
    assert ssim(pred, target)[2] == pytest.approx(1, abs=1e-12)
