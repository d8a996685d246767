"""Replays recordings of FID, KID, Inception Score, precision/recall, PSNR and SSIM as the usual
programs compute them."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vistok.metrics import PSNR, SSIM, FeatureStats, InceptionScore, frechet_distance, prdc
from vistok.metrics.kernel import polynomial_mmd

ROOT = Path(
    os.environ.get("VISTOK_PARITY_DIR", Path(__file__).parents[2].parent / "shared" / "parity")
)


def _recordings() -> list[Path]:
    found = sorted(ROOT.glob("*/case.json"))
    return [p.parent for p in found if json.loads(p.read_text())["case"] == "frechet"]


FOLDERS = _recordings()


@pytest.fixture(params=FOLDERS or [None], ids=lambda f: f.name if f else "none")
def recording(request):
    if request.param is None:
        pytest.skip(f"no frechet recording under {ROOT}; set VISTOK_PARITY_DIR")
    case = json.loads((request.param / "case.json").read_text())
    return case, load_file(request.param / "io.safetensors")


def _stats(features: torch.Tensor, batch: int) -> FeatureStats:
    stats = FeatureStats(features.shape[1])
    for part in features.split(batch):
        stats.update(part)
    return stats


@pytest.mark.parametrize("batch", [7, 256, 10**6])
def test_mean_and_covariance(recording, batch):
    case, io = recording
    names = [key.removeprefix("features.") for key in io if key.startswith("features.")]
    assert names
    atol = case["tolerance"]["mean_cov"]
    for name in names:
        stats = _stats(io[f"features.{name}"], batch)
        for part in ("mean", "cov"):
            ours = torch.from_numpy(getattr(stats, part))
            torch.testing.assert_close(ours, io[f"{part}.{name}"], rtol=0, atol=atol)


def test_fid(recording):
    case, io = recording
    assert case["config"]["fid"]["ddof"] == 1
    stats = {}
    for row in case["fid"]:
        for name in (row["x"], row["y"]):
            stats.setdefault(name, _stats(io[f"features.{name}"], 64))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # few samples on purpose
            ours = frechet_distance(stats[row["x"]], stats[row["y"]])
        kind = "fid_rank_deficient_abs" if row["singular"] else "fid_abs"
        assert abs(ours - row["fid"]) <= case["tolerance"][kind], (row["x"], row["y"])
        assert ours >= 0


def test_kid(recording):
    case, io = recording
    atol = case["tolerance"]["kid_abs"]
    for row in case["kid"]:
        key = f"kid.{row['x']}{row['y']}"
        x, y = (io[f"features.{row[name]}"] for name in "xy")
        drawn = zip(io[f"{key}.idx_x"], io[f"{key}.idx_y"], strict=True)
        ours = torch.tensor([polynomial_mmd(x[i], y[j]) for i, j in drawn], dtype=torch.float64)
        torch.testing.assert_close(ours, io[f"{key}.values"], rtol=0, atol=atol)
        assert abs(float(ours.mean()) - row["mean"]) <= atol
        assert abs(float(ours.std(correction=0)) - row["std"]) <= atol


def test_inception_score(recording):
    case, io = recording
    logits, atol = io["is.logits"], case["tolerance"]["is_abs"]
    order = torch.randperm(len(logits))  # the order of arrival does not matter
    for row in case["inception_score"]:
        assert not row["shuffle"]
        score = InceptionScore(logits.shape[1], len(logits), row["splits"], seed=None)
        for index in order.split(77):
            score.update(logits[index], index)
        mean, std, _ = score.compute()
        assert abs(mean - row["mean"]) <= atol and abs(std - row["std"]) <= atol


def test_precision_and_recall(recording):
    case, io = recording
    assert case["tolerance"]["precision_recall"] == "exact"
    for row in case["precision_recall"]:
        generated, real = (io[f"features.{row[name]}"] for name in ("generated", "real"))
        ours = prdc(generated, real, row["k"])
        assert (ours.precision, ours.recall) == (row["precision"], row["recall"]), row


def test_psnr(recording):
    case, io = recording
    pred, target = io["image.pred"], io["image.target"]
    atol, truth = case["tolerance"]["psnr_abs"], case["image_quality"]
    whole = PSNR()
    for i, each in enumerate(io["psnr.each"].tolist()):
        single = PSNR()
        single.update(pred[i : i + 1], target[i : i + 1])
        assert abs(single.compute().mean - each) <= atol
        whole.update(pred[i : i + 1], target[i : i + 1])
    result = whole.compute()
    assert result.images == len(pred)
    assert abs(result.mean - truth["psnr_mean_of_images"]) <= atol
    assert abs(result.pooled - truth["psnr_of_pooled_mse"]) <= atol
    same = PSNR()
    same.update(target, target)
    assert same.compute()[:2] == (float(truth["psnr_identical"]),) * 2


def test_ssim(recording):
    case, io = recording
    pred, target = io["image.pred"], io["image.target"]
    atol, truth = case["tolerance"]["ssim_abs"], case["image_quality"]
    for i, each in enumerate(io["ssim.each"].tolist()):
        single = SSIM()
        single.update(pred[i : i + 1], target[i : i + 1])
        assert abs(single.compute() - each) <= atol
    whole, same = SSIM(), SSIM()
    whole.update(pred, target)
    same.update(target, target)
    assert abs(whole.compute() - truth["ssim_mean"]) <= atol
    assert abs(same.compute() - truth["ssim_identical"]) <= atol
