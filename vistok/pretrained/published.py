"""Published figures of released models: a number, its tolerance, and how its authors measured it.

`vistok eval verify` measures a release by the same protocol and compares. A field of a protocol
that the authors do not state is None: it cannot differ, and is listed as not stated.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from vistok.core.errors import InputError

ADM_BATCH = "VIRTUAL_imagenet256_labeled.npz"
"""ADM's reference batch: statistics of ImageNet training images, which published gFIDs use."""


@dataclass(frozen=True)
class PublishedProtocol:
    """How a published figure was measured."""

    described: str
    """One sentence for tables."""
    source: str = ""
    """Where the figure and the protocol stand: a paper, a repository."""
    network: str | None = "inception"
    """Feature network, by vistok's name."""
    split: str | None = "val"
    """Split of the real images; None where they are a file of statistics."""
    count: int | None = 50_000
    """Number of reconstructions, or of samples."""
    size: tuple[int, ...] | None = (256, 256)
    """Sides (H, W) of the images that the network looked at."""
    crop: str | None = None
    """Crop of the real images, as the data key `crop` names it."""
    filter: str | None = None
    """Resampling filter of that crop."""
    condition: str | None = None
    """Condition of the model as rows name it: none, class, a text."""
    precision: str | None = None
    """Precision of the model's arithmetic."""
    latents: str | None = None
    """Continuous latents that were decoded: `samples` of the posterior, or its `means`, which
    vistok's evaluation decodes. None: codes, or not stated."""
    reference: str | None = None
    """File of statistics that samples were compared with."""
    settings: tuple[tuple[str, object], ...] = ()
    """Further keys of an evaluation that measures this way: (("gfid.labels", "random"),)."""
    samples: bool = False
    """True where the sampling settings are those that come with the release."""
    spread: float = 0.02
    """How far two honest measurements by this protocol may be apart: other builds of the same
    network, other hardware, other seeds. An assumption of vistok's, not of the authors."""
    unsure: str = ""
    """What about figure or protocol was not checked at its source; "" if nothing."""
    unknown: str = ""
    """Reason why no protocol is known: such a figure cannot be verified."""


@dataclass(frozen=True)
class Preset:
    """A published figure that can be verified."""

    name: str
    """Name of the release."""
    metric: str
    value: float
    protocol: PublishedProtocol
    digits: int = 2
    """Decimal places that were published."""

    @property
    def rounding(self) -> float:
        """Half a unit of the last published digit."""
        return 0.5 * 10**-self.digits

    @property
    def tolerance(self) -> float:
        """Largest difference that still agrees: the rounding of the figure and the spread."""
        return round(self.rounding + self.protocol.spread, 12)

    def __post_init__(self) -> None:
        if not self.value > 0:
            raise InputError(f"{self.name}: {self.metric}={self.value}; expected a positive number")


_SAME = "ImageNet val 256, 50,000 images against themselves"

PLAIN = PublishedProtocol(_SAME, condition="none")
"""rFID of ImageNet's validation images; crop and filter are not stated."""

TITOK = replace(PLAIN, crop="center", filter="bicubic", source="arXiv 2406.07550, 1d-tokenizer")
ONE_D_PIECE = replace(TITOK, source="arXiv 2501.10064, One-D-Piece")
TATITOK = replace(
    TITOK,
    described=f"{_SAME}, none of which it was trained on (DataComp), with the caption 'A photo "
    "of a {class}.'",
    source="arXiv 2501.07730, 1d-tokenizer",
    condition="text: caption A photo of a {class}.",
    settings=(("data.caption", "A photo of a {class}."),),
)
TATITOK_VAE = replace(TATITOK, latents="samples")
TITOK_VAE = replace(TITOK, latents="samples")

MASKGIT_VQGAN = replace(
    PLAIN,
    source="MaskGIT, as 1d-tokenizer gives it",
    unsure="crop and filter of the original measurement",
)
LLAMAGEN = replace(PLAIN, crop="adm", filter="bicubic", source="arXiv 2406.06525, LlamaGen")
LLAMAGEN_384 = replace(
    LLAMAGEN,
    described="ImageNet val at 384 pixels, 50,000 images against themselves",
    size=None,
    unsure="the size at which the network looked at images of 384 pixels",
)
XQGAN = replace(
    PLAIN,
    described="ImageNet val 256, 50,000 crops against their reconstructions, ADM evaluator",
    crop="adm",
    filter="bicubic",
    source="arXiv 2412.01762, 2410.01756 and 2503.08354",
)
FLEXTOK = replace(
    PLAIN,
    source="arXiv 2502.13967",
    spread=0.05,
    samples=True,
    unsure="figures and decoder settings were read in the paper and not checked again",
)
SEED_VOKEN = replace(
    PLAIN,
    crop="center",
    source="arXiv 2412.02692, SEED-Voken",
    unsure="the filter; images are not rounded to 8 bits there",
)
TOKENBRIDGE = replace(
    PLAIN,
    crop="adm",
    filter="bicubic",
    source="arXiv 2503.16430, TokenBridge",
    latents="samples",
    unsure="the statistics of validation images: the released script compares with those of "
    "training images, which gives 1.11",
)
OPEN_MAGVIT2 = replace(
    SEED_VOKEN,
    filter="bilinear",
    source="arXiv 2409.04410, SEED-Voken",
    unsure="images are not rounded to 8 bits there",
)
COSMOS_SEED_VOKEN = replace(
    SEED_VOKEN,
    described=f"{_SAME}; measured by SEED-Voken's authors, not by Cosmos's",
    source="SEED-Voken, a measurement of others",
    unsure="crop, filter and precision; the authors' own figures are of other sizes",
)
GPSTOKEN = replace(
    PLAIN,
    crop="center",
    source="arXiv 2509.01109, xtudbxk/GPSToken",
    unsure="the filter of the evaluation (the code resizes with OpenCV's bilinear filter, without "
    "antialiasing), and the program that measured it",
)
TOKENFLOW = replace(
    PLAIN,
    described="ImageNet val at 384 pixels, 50,000 images against themselves, pytorch-fid",
    size=(384, 384),
    crop="adm",
    filter="bicubic",
    source="arXiv 2412.03069, ByteFlow-AI/TokenFlow",
    unsure="whether the released file is the tokenizer of the paper's figure",
)
TOKENFLOW_256 = replace(
    TOKENFLOW,
    described="ImageNet val 256, 50,000 images against themselves, pytorch-fid",
    size=(256, 256),
    unsure="",
)
VAR = PublishedProtocol(
    "ImageNet val 256, as quoted by RobusTok; VAR itself states none",
    source="arXiv 2503.08354",
    unknown="VAR states no protocol; its own crop (288 pixels, Lanczos) is not that of those who "
    "measured it",
)

SAMPLED = PublishedProtocol(
    "50,000 samples against ADM's reference batch",
    split=None,
    reference=ADM_BATCH,
    condition="class",
    samples=True,
    spread=0.1,
)
"""gFID of class-conditional generators: 50 samples of each class, by the settings of the paper."""

MASKGIT_SAMPLED = replace(SAMPLED, source="arXiv 2406.07550, 1d-tokenizer")
RAR_SAMPLED = replace(SAMPLED, source="arXiv 2411.00776, 1d-tokenizer")
ROBUSTOK_SAMPLED = replace(SAMPLED, source="arXiv 2503.08354 and 2509.12474")
OPEN_MAGVIT2_SAMPLED = replace(SAMPLED, source="arXiv 2409.04410, SEED-Voken")
TOKENBRIDGE_SAMPLED = replace(SAMPLED, source="arXiv 2503.16430, TokenBridge")
IBQ_SAMPLED = replace(SAMPLED, source="arXiv 2412.02692, SEED-Voken")
VAR_SAMPLED = replace(SAMPLED, source="arXiv 2404.02905, VAR")
VAR_D16_SAMPLED = replace(VAR_SAMPLED, unsure="the paper gives 3.30, with other settings")
VAR_512_SAMPLED = replace(
    VAR_SAMPLED, size=(512, 512), reference=None, unsure="the reference of images of 512 pixels"
)

XAR_SAMPLED = replace(
    SAMPLED,
    described="50,000 samples against statistics of ADM's reference batch that come with the code",
    source="arXiv 2502.20388, xAR",
    unsure="figures of B and L were not read in the paper again",
)
XAR_H_SAMPLED = replace(XAR_SAMPLED, unsure="")

RANDOM_CLASSES = replace(
    SAMPLED,
    described="50,000 samples of random classes against ADM's reference batch",
    source="arXiv 2406.06525, LlamaGen",
    condition="class (random)",
    settings=(("gfid.labels", "random"), ("gfid.resize", 256)),
)
"""As LlamaGen samples: a class drawn uniformly for each image; images of 384 pixels are resized."""
