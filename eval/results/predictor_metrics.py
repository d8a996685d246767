"""Records of metrics that say how a generator may fare on a tokenizer; `metrics.py` has the table,
and says where they stand in it."""

from __future__ import annotations

from vistok.eval.results.metric import Metric

SCALED = (
    Metric(
        "pFID-v1-rel-quick",
        "Three cells of pFID-v1-rel, over the images of pFID-v1-quick: to compare tokenizers with "
        "codebooks of different sizes.",
        better="lower",
        digits=2,
        predicts="x",
    ),
)

INTERPOLATED = (
    Metric(
        "iFID-discrete-v1-quick",
        "One cell of iFID-discrete-v1 (half of the tokens) at each prefix length, with fewer "
        "images; not comparable with the full one.",
        better="lower",
        digits=2,
        curve=31,
        predicts="x",
    ),
    Metric(
        "iFID-discrete-v1",
        "Mean Fréchet distance after a share of each image's tokens (an eighth, a quarter, a half) "
        "was taken from its nearest training image: how well the decoder copes with sequences "
        "between those it knows, where a generator's samples lie. Our own exact protocol.",
        better="lower",
        digits=2,
        tile=31,
        predicts="x",
    ),
    Metric(
        "iFID-v1-quick",
        "iFID-v1 with fewer images; not comparable with the full one.",
        better="lower",
        digits=2,
        predicts="x",
    ),
    Metric(
        "iFID-v1",
        "Fréchet distance of images decoded halfway between each image's continuous latents and "
        "those of a near training image. Our exact form of the published iFID, not comparable "
        "with its numbers.",
        better="lower",
        digits=2,
        tile=32,
        predicts="x",
    ),
    Metric(
        "iFID-discrete-v1-quick-frame",
        "The same of a tokenizer of clips, over all frames of the clips as single images.",
        "iFID-discrete-v1-quick per frame",
        better="lower",
        digits=2,
        framewise=True,
    ),
    Metric(
        "iFID-discrete-v1-frame",
        "iFID-discrete-v1 of a tokenizer of clips: tokens of whole clips are mixed, and the frames "
        "of the decoded clips are compared as single images.",
        "iFID-discrete-v1 per frame",
        better="lower",
        digits=2,
        framewise=True,
    ),
    Metric(
        "iFID-v1-quick-frame",
        "iFID-v1-quick of a tokenizer of clips, over all frames of the clips.",
        "iFID-v1-quick per frame",
        better="lower",
        digits=2,
        framewise=True,
    ),
    Metric(
        "iFID-v1-frame",
        "iFID-v1 of a tokenizer of clips, over all frames of the clips.",
        "iFID-v1 per frame",
        better="lower",
        digits=2,
        framewise=True,
    ),
)

ALIGNMENT = (
    Metric(
        "CKNNA",
        "How far images with near codes are also near to a frozen network (k nearest neighbors, "
        "cosine): 1 if the neighborhoods agree, about 0 by chance.",
        better="higher",
        digits=3,
        table="whole",
        predicts="x",
    ),
)

_JOINT = "over all positions; compare it with its floor, the same between two sets of real tokens."
_EACH = "at each position, averaged; its floor is higher, since each position has fewer tokens."

CODE_DISTANCES = (
    Metric(
        "code-TV",
        "Total variation between the code frequencies of generated and of real tokens " + _JOINT,
        "code usage, total variation",
        better="lower",
        digits=4,
        generated=True,
    ),
    Metric(
        "code-JSD",
        "Jensen-Shannon divergence between the code frequencies of generated and of real tokens "
        + _JOINT,
        "code usage, Jensen-Shannon (bits)",
        "bits",
        better="lower",
        digits=4,
        generated=True,
    ),
    Metric(
        "code-TV-position",
        "Total variation between the code frequencies of generated and of real tokens " + _EACH,
        "code usage by position, total variation",
        better="lower",
        digits=4,
        generated=True,
    ),
    Metric(
        "code-JSD-position",
        "Jensen-Shannon divergence between the code frequencies of generated and of real tokens "
        + _EACH,
        "code usage by position, Jensen-Shannon (bits)",
        "bits",
        better="lower",
        digits=4,
        generated=True,
    ),
)
