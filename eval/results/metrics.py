"""The table of metrics: name, title, unit, which way is better, digits, meaning, where it is shown.

Every table, chart and export asks this table; its order is the order of rows and columns. A new
metric is its record here and the protocol that measures it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from vistok.eval.results import network_metrics, predictor_metrics, speed_metrics, video_metrics
from vistok.eval.results.metric import Metric

_FACTORS = "Mean over the factors of a code too large to count as one."

METRICS: dict[str, Metric] = {
    one.name: one
    for one in (
        Metric(
            "rFID",
            "Fréchet distance between features of the reconstructions and of the same real images; "
            "0 means that the network cannot tell the two sets apart.",
            better="lower",
            digits=2,
            tile=2,
            curve=2,
            predicts="x",
        ),
        *video_metrics.RECONSTRUCTION,
        Metric(
            "sFID",
            "Fréchet distance of spatial features (ADM's 17x17 positions, 7 channels).",
            better="lower",
            digits=2,
            framewise=True,
        ),
        Metric(
            "KID",
            "Kernel distance of the features, a mean over random subsets; unbiased, so it may be "
            "a little below 0.",
            better="lower",
            digits=5,
            framewise=True,
        ),
        *network_metrics.RECONSTRUCTION,
        Metric(
            "IS",
            "Inception Score of the decoded images: how sure the network is of each and how varied "
            "the whole set; it never looks at real ones.",
            better="higher",
            digits=2,
            framewise=True,
        ),
        Metric(
            "precision",
            "Share of decoded images in the neighborhoods of real ones.",
            better="higher",
            digits=3,
            framewise=True,
        ),
        Metric(
            "recall",
            "Share of real images in the neighborhoods of decoded ones.",
            better="higher",
            digits=3,
            framewise=True,
        ),
        Metric(
            "density",
            "How many real neighborhoods a decoded image lies in, over k = 5; may exceed 1.",
            better="higher",
            digits=3,
            framewise=True,
        ),
        Metric(
            "coverage",
            "Share of real neighborhoods (k = 5) that hold a decoded image.",
            better="higher",
            digits=3,
            framewise=True,
        ),
        Metric(
            "PSNR",
            "Peak signal-to-noise ratio of the squared error pooled over all pixels of all images.",
            unit="dB",
            better="higher",
            digits=2,
            tile=1,
            curve=1,
            framewise=True,
        ),
        Metric(
            "PSNR-mean",
            "The PSNR of each image (of clips, of each frame), averaged over all.",
            "PSNR, mean (dB)",
            "dB",
            better="higher",
            digits=2,
            framewise=True,
        ),
        Metric(
            "SSIM",
            "Structural similarity (11x11 Gaussian window), 1 for identical images.",
            better="higher",
            digits=3,
            tile=8,
            curve=7,
            framewise=True,
        ),
        Metric(
            "MS-SSIM",
            "SSIM over five scales; sides of 176 pixels or more.",
            better="higher",
            digits=3,
            curve=8,
            framewise=True,
        ),
        Metric(
            "perceptual",
            "Squared difference of unit-normalized maps of the embedded network; not LPIPS.",
            "perceptual distance",
            better="lower",
            tile=6,
            curve=5,
            framewise=True,
        ),
        Metric(
            "LPIPS",
            "Learned perceptual distance of the lpips package.",
            better="lower",
            tile=7,
            curve=6,
            framewise=True,
        ),
        Metric(
            "pFID-v1-quick",
            "Three cells of pFID-v1, at each prefix length; not comparable with the full one.",
            better="lower",
            digits=2,
            curve=9,
            predicts="x",
        ),
        Metric(
            "pFID-v1",
            "Mean Fréchet distance after a share α of the tokens was replaced by one of its δ "
            "nearest codes (15 cells): how much the decoder suffers from near misses. Our own "
            "exact protocol, not comparable with published pFID. Where reconstructions are blurry, "
            "noise adds texture and can even lower it.",
            better="lower",
            digits=2,
            tile=5,
            predicts="x",
            cells=True,
        ),
        Metric(
            "pFID-v1-rel",
            "pFID-v1 with δ scaled to the codebook (δ K/4096), since a fixed δ is harsher on small "
            "codebooks.",
            better="lower",
            digits=2,
            predicts="x",
            cells=True,
        ),
        *predictor_metrics.SCALED,
        *video_metrics.PERTURBED,
        *predictor_metrics.INTERPOLATED,
        Metric(
            "gFID",
            "Fréchet distance between generated images and real training images (or those of a "
            "reference file), as papers give it; with and without guidance.",
            better="lower",
            digits=2,
            tile=11,
            curve=10,
            predicts="y",
            generated=True,
        ),
        Metric(
            "gFID-val",
            "The same samples against the validation images that rFID uses, not the training ones.",
            "gFID, validation images",
            better="lower",
            digits=2,
            tile=12,
            predicts="y",
            generated=True,
        ),
        *network_metrics.GENERATION,
        *video_metrics.GENERATION,
        *predictor_metrics.CODE_DISTANCES,
        Metric("bits/image", "Stored bits of the kept codes.", digits=0, exact=True),
        Metric(
            "bits/pixel", "Stored bits of the kept codes over the pixels.", digits=4, exact=True
        ),
        Metric(
            "bytes/image",
            "Size of the packed tokens of an image with their small header.",
            digits=1,
            tile=9,
            exact=True,
        ),
        *video_metrics.SIZE,
        *predictor_metrics.ALIGNMENT,
        Metric(
            "probe-top1",
            "Share of the validation images whose class a logistic regression finds from frozen "
            "features of the named tap, fitted to training images. Read it beside its baselines: "
            "raw pixels, and the commonest class (chance).",
            "linear probe, top-1",
            better="higher",
            digits=3,
        ),
        Metric(
            "T-ACC",
            "Share of the words of TokBench that a reader reads without a mistake on the "
            "reconstruction: the mean of three groups of relative size, as published.",
            "text accuracy",
            "%",
            better="higher",
            digits=2,
            scale=0.01,
        ),
        Metric(
            "T-NED",
            "The same of 1 - edit distance / length of the longer of word and reading.",
            "text similarity",
            "%",
            better="higher",
            digits=2,
            scale=0.01,
        ),
        Metric(
            "F-Sim",
            "Cosine similarity of a face of TokBench and its reconstruction to a network of face "
            "recognition: the mean of three groups of relative size, as published.",
            "face similarity",
            better="higher",
            digits=3,
        ),
        Metric(
            "PSNR-mean-color",
            "The floor: every image decoded in its own mean color.",
            "PSNR of mean color (dB)",
            "dB",
            digits=2,
            table="whole",
            floor=True,
            framewise=True,
        ),
        Metric(
            "codebook-usage",
            "Share of all codes that occur somewhere in the set.",
            "codebook usage",
            better="higher",
            digits=3,
            table="whole",
            tile=10,
        ),
        Metric(
            "codebook-perplexity",
            "Two to the entropy: how many equally frequent codes would be as varied.",
            "codebook perplexity",
            better="higher",
            digits=1,
            table="whole",
        ),
        Metric(
            "codebook-entropy",
            "Entropy of the code frequencies over the set.",
            "codebook entropy (bits)",
            "bits",
            better="higher",
            digits=2,
            table="whole",
        ),
        Metric(
            "codebook-factor-usage",
            _FACTORS,
            "factor usage",
            better="higher",
            digits=3,
            table="whole",
        ),
        Metric(
            "codebook-factor-perplexity",
            _FACTORS,
            "factor perplexity",
            better="higher",
            digits=3,
            table="whole",
        ),
        Metric(
            "codebook-factor-entropy",
            _FACTORS,
            "factor entropy (bits)",
            "bits",
            better="higher",
            digits=3,
            table="whole",
        ),
        Metric(
            "adaptive-gain",
            "PSNR of adaptive lengths (the shortest prefix of each image that reaches one PSNR) "
            "minus that of one length for all, where both take the same mean bytes.",
            "adaptive gain (dB)",
            "dB",
            better="higher",
            digits=2,
            table="whole",
        ),
        Metric(
            "slot-redundancy",
            "Share of pairs of token positions of one image that hold the same code.",
            "slot redundancy",
            better="lower",
            digits=3,
            table="whole",
        ),
        Metric(
            "order-correlation",
            "Rank correlation of a token's position with how much the image changes when its code "
            "is drawn anew: -1 if each token matters less than the one before, 0 without an order.",
            "order correlation",
            digits=3,
            table="whole",
        ),
        Metric(
            "gFID-untrained",
            "The same for a generator of the same config that never learned: the baseline.",
            "gFID, untrained",
            digits=2,
            table="whole",
            tile=13,
            baseline=True,
            generated=True,
        ),
        *video_metrics.UNTRAINED,
    )
}

_ORDER = {name: place for place, name in enumerate(METRICS)}


def metric(name: str) -> Metric:
    """The record of a metric; one without a meaning for a name that the table does not have."""
    if name in METRICS:
        return METRICS[name]
    return next((one for one in speed_metrics.ENDINGS if name.endswith(one.name)), Metric(name))


def counted(name: str, clips: bool) -> str:
    """Noun of what stands behind a number: images, or clips or their frames."""
    if not clips:
        return "images"
    return "frames" if metric(name.removesuffix("-cell")).framewise else "clips"


def order(name: str) -> int:
    """Place of a metric in tables; unknown names come last."""
    return _ORDER.get(name, len(_ORDER))


def names(wanted: Callable[[Metric], bool]) -> tuple[str, ...]:
    """Names of the metrics that `wanted` is true for, in the table's order."""
    return tuple(name for name, one in METRICS.items() if wanted(one))


def ranked(place: Literal["tile", "curve"]) -> tuple[str, ...]:
    """Names of the metrics that are shown there, in the order of their places."""
    shown_there = [one for one in METRICS.values() if getattr(one, place)]
    return tuple(one.name for one in sorted(shown_there, key=lambda one: getattr(one, place)))


def shown(value: float | None, name: str) -> str:
    """A value as tables print it, without its unit; None was not measured."""
    if value is None:
        return "n/a"
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "∞" if value > 0 else "-∞"
    found = metric(name)
    value, digits = value / found.scale, found.digits
    if value != 0 and abs(value) < 0.5 * 10**-digits:
        return f"{value:.1e}"
    return f"{value:,.{digits}f}" if abs(value) < 1e6 else f"{value:.3g}"
