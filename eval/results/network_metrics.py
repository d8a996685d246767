"""Metrics that stand on networks of their own: CMMD, and Fréchet distances over six networks."""

from __future__ import annotations

from vistok.eval.results.metric import Metric

RECONSTRUCTION = (
    Metric(
        "rCMMD",
        "Kernel distance (CMMD) of unit CLIP embeddings between the reconstructions and the same "
        "real images, times 1000; no Gaussian is fitted to them.",
        better="lower",
        digits=3,
        framewise=True,
    ),
)

GENERATION = (
    Metric(
        "gCMMD",
        "The same kernel distance between generated and reference images. Two sets of one "
        "distribution are a little above 0.",
        better="lower",
        digits=3,
        generated=True,
        framewise=True,
    ),
    Metric(
        "gCMMD-val",
        "The same samples against the validation images.",
        "gCMMD, validation images",
        better="lower",
        digits=3,
        generated=True,
        framewise=True,
    ),
    Metric(
        "FDr",
        "gFID over the distance of as many real validation images to the same reference: at 1 the "
        "samples are as far from the training images as those are.",
        better="lower",
        digits=3,
        generated=True,
    ),
    Metric(
        "FDr6",
        "Mean of FDr over six feature networks (Inception, ConvNeXt V2, DINOv2, MAE, SigLIP 2, "
        "CLIP), so that no single network decides.",
        better="lower",
        digits=3,
        generated=True,
    ),
)
