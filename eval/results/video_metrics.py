"""Records of the metrics of clips; `metrics.py` has the table, and says where they stand in it."""

from __future__ import annotations

from vistok.eval.results.metric import Metric

RECONSTRUCTION = (
    Metric(
        "rFID-frame",
        "rFID of a tokenizer of clips, over all frames of the clips as single images.",
        "rFID per frame",
        better="lower",
        digits=2,
        tile=3,
        curve=3,
        framewise=True,
    ),
    Metric(
        "rFVD",
        "Fréchet distance between features of whole clips, reconstructed and real; the network "
        "in brackets says which features.",
        better="lower",
        digits=2,
        tile=4,
        curve=4,
    ),
    Metric(
        "PSNR-clip",
        "The PSNR of each clip as a whole, averaged over clips, as LARP reports it.",
        "PSNR of clips (dB)",
        "dB",
        better="higher",
        digits=2,
    ),
    Metric(
        "PSNR-change",
        "PSNR of the changes from each frame to the next, decoded against real: what flickers "
        "lowers it, a steady error does not.",
        "PSNR of changes (dB)",
        "dB",
        better="higher",
        digits=2,
        curve=12,
    ),
    Metric(
        "flicker",
        "Mean absolute error of the changes from each frame to the next, decoded against real, "
        "in gray levels of 255; 0 for an error that stays the same over time.",
        better="lower",
        digits=3,
        tile=14,
        curve=13,
    ),
)

SIZE = (
    Metric("bits/clip", "Stored bits of the kept codes of a clip.", digits=0, exact=True),
    Metric(
        "bytes/clip",
        "Size of the packed tokens of a clip with their small header.",
        digits=1,
        tile=20,
        exact=True,
    ),
)

PERTURBED = (
    Metric(
        "pFID-v1-quick-frame",
        "Three cells of pFID-v1-frame, at each prefix length; not comparable with the full one.",
        "pFID-v1-quick per frame",
        better="lower",
        digits=2,
        curve=15,
        framewise=True,
    ),
    Metric(
        "pFID-v1-frame",
        "pFID-v1 of a tokenizer of clips: a share of each clip's tokens is replaced by near codes, "
        "and the frames of the decoded clips are compared as single images.",
        "pFID-v1 per frame",
        better="lower",
        digits=2,
        tile=19,
        cells=True,
        framewise=True,
    ),
    Metric(
        "pFID-v1-rel-frame",
        "pFID-v1-frame with δ scaled to the codebook (δ K/4096).",
        "pFID-v1-rel per frame",
        better="lower",
        digits=2,
        cells=True,
        framewise=True,
    ),
    Metric(
        "pFID-v1-rel-quick-frame",
        "Three cells of pFID-v1-rel-frame.",
        "pFID-v1-rel-quick per frame",
        better="lower",
        digits=2,
        framewise=True,
    ),
)

GENERATION = (
    Metric(
        "gFID-frame",
        "gFID of a generator of clips, over all frames of its clips as single images.",
        "gFID per frame",
        better="lower",
        digits=2,
        tile=16,
        curve=14,
        generated=True,
        framewise=True,
    ),
    Metric(
        "gFID-val-frame",
        "The same frames against those of the validation clips.",
        "gFID per frame, validation clips",
        better="lower",
        digits=2,
        generated=True,
        framewise=True,
    ),
    Metric(
        "gFVD",
        "Fréchet distance between features of generated and of real training clips; the name "
        "in brackets says which features, and which conventions where they are a program's.",
        better="lower",
        digits=2,
        tile=15,
        generated=True,
    ),
    Metric(
        "gFVD-val",
        "The same samples against the validation clips that rFVD uses, not the training ones.",
        "gFVD, validation clips",
        better="lower",
        digits=2,
        tile=17,
        generated=True,
    ),
)

UNTRAINED = (
    Metric(
        "gFID-untrained-frame",
        "The same of a generator of clips, over single frames.",
        "gFID per frame, untrained",
        digits=2,
        table="whole",
        baseline=True,
        generated=True,
        framewise=True,
    ),
    Metric(
        "gFVD-untrained",
        "gFVD of a generator of the same config that never learned: the baseline.",
        "gFVD, untrained",
        digits=2,
        table="whole",
        tile=18,
        baseline=True,
        generated=True,
    ),
)
