"""What each number is called, its unit, which way is better, and one sentence about it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Word:
    title: str
    better: str  # "higher", "lower" or ""
    digits: int
    explained: str


WORDS = {
    "rFID": Word(
        "rFID",
        "lower",
        2,
        "Fréchet distance between features of the reconstructions and of the same real images; "
        "0 means that the network cannot tell the two sets apart.",
    ),
    "PSNR": Word(
        "PSNR (dB)",
        "higher",
        2,
        "Peak signal-to-noise ratio of the squared error pooled over all pixels of all images.",
    ),
    "PSNR-mean": Word(
        "PSNR, mean (dB)", "higher", 2, "The PSNR of each image, averaged over images."
    ),
    "PSNR-mean-color": Word(
        "PSNR of mean color (dB)",
        "",
        2,
        "The floor: every image decoded in its own mean color.",
    ),
    "SSIM": Word(
        "SSIM",
        "higher",
        3,
        "Structural similarity (11x11 Gaussian window), 1 for identical images.",
    ),
    "MS-SSIM": Word("MS-SSIM", "higher", 3, "SSIM over five scales; sides of 176 pixels or more."),
    "sFID": Word(
        "sFID",
        "lower",
        2,
        "The Fréchet distance of spatial features (ADM's 17x17 positions, 7 channels).",
    ),
    "KID": Word(
        "KID",
        "lower",
        5,
        "Kernel distance of the features, a mean over random subsets; unbiased, so it may be a "
        "little below 0.",
    ),
    "IS": Word(
        "IS",
        "higher",
        2,
        "Inception Score of the decoded images: how sure the network is of each and how varied "
        "the whole set; it never looks at real ones.",
    ),
    "precision": Word(
        "precision",
        "higher",
        3,
        "Share of decoded images in the neighbourhoods of real ones.",
    ),
    "recall": Word(
        "recall", "higher", 3, "Share of real images in the neighbourhoods of decoded ones."
    ),
    "density": Word(
        "density",
        "higher",
        3,
        "How many real neighbourhoods a decoded image lies in, over k = 5; may exceed 1.",
    ),
    "coverage": Word(
        "coverage", "higher", 3, "Share of real neighbourhoods (k = 5) that hold a decoded image."
    ),
    "perceptual": Word(
        "perceptual distance",
        "lower",
        4,
        "Squared difference of unit-normalized maps of the embedded network; not LPIPS.",
    ),
    "LPIPS": Word("LPIPS", "lower", 4, "Learned perceptual distance of the lpips package."),
    "bits/image": Word("bits/image", "", 0, "Stored bits of the kept codes."),
    "bits/pixel": Word("bits/pixel", "", 4, "Stored bits of the kept codes over the pixels."),
    "bytes/image": Word(
        "bytes/image", "", 1, "Size of the packed tokens of a image with their small header."
    ),
    "codebook-usage": Word(
        "codebook usage", "higher", 3, "Share of all codes that occur somewhere in the set."
    ),
    "codebook-perplexity": Word(
        "codebook perplexity",
        "higher",
        1,
        "Two to the entropy: how many equally frequent codes would be as varied.",
    ),
    "codebook-entropy": Word(
        "codebook entropy (bits)", "higher", 2, "Entropy of the code frequencies over the set."
    ),
    "slot-redundancy": Word(
        "slot redundancy",
        "lower",
        3,
        "Share of pairs of token positions of one image that hold the same code.",
    ),
    "pFID-v1": Word(
        "pFID-v1",
        "lower",
        2,
        "Mean Fréchet distance after a share α of the tokens was replaced by one of its δ nearest "
        "codes (15 cells): how much the decoder suffers from near misses. Our own exact "
        "protocol, not comparable with published pFID. Where reconstructions are blurry, noise "
        "adds texture and can even lower it.",
    ),
    "pFID-v1-rel": Word(
        "pFID-v1-rel",
        "lower",
        2,
        "pFID-v1 with δ scaled to the codebook (δ K/4096), since a fixed δ is harsher on small "
        "codebooks.",
    ),
    "pFID-v1-quick": Word(
        "pFID-v1-quick",
        "lower",
        2,
        "Three cells of pFID-v1, at each prefix length; not comparable with the full one.",
    ),
    "gFID": Word(
        "gFID",
        "lower",
        2,
        "Fréchet distance between generated images and real training images (or those of a "
        "reference file), as papers give it; with and without guidance.",
    ),
    "gFID-val": Word(
        "gFID, validation images",
        "lower",
        2,
        "The same samples against the validation images that rFID uses, not the training ones.",
    ),
    "probe-top1": Word(
        "linear probe, top-1",
        "higher",
        3,
        "Share of the validation images whose class a logistic regression finds from frozen "
        "features of the named tap, fitted to training images. Read it beside its baselines: "
        "raw pixels, and the commonest class (chance).",
    ),
    "order-correlation": Word(
        "order correlation",
        "",
        3,
        "Rank correlation of a token's position with how much the image changes when its code "
        "is drawn anew: -1 if each token matters less than the one before, 0 without an order.",
    ),
    "gFID-untrained": Word(
        "gFID, untrained",
        "",
        2,
        "The same for a generator of the same config that never learned: the baseline.",
    ),
}
for _name, _title in (
    ("factor-usage", "factor usage"),
    ("factor-perplexity", "factor perplexity"),
    ("factor-entropy", "factor entropy (bits)"),
):
    WORDS[f"codebook-{_name}"] = Word(
        _title, "higher", 3, "Mean over the factors of a code too large to count as one."
    )


def word(metric: str) -> Word:
    return WORDS.get(metric, Word(metric, "", 4, ""))


def shown(value: float | None, metric: str) -> str:
    """A value as tables print it."""
    if value is None:
        return "∞"
    digits = word(metric).digits
    if value != 0 and abs(value) < 0.5 * 10**-digits:
        return f"{value:.1e}"
    return f"{value:,.{digits}f}" if abs(value) < 1e6 else f"{value:.3g}"
