"""FDr: Fréchet distances over the real validation images' own, and their mean over six networks.

FDr[network] = FD(generated, reference) / FD(validation, reference)
FDr6 = mean of FDr over Inception, ConvNeXt, DINOv2, MAE, SigLIP and CLIP
                                     (FDr^k of Yang et al. 2026, arXiv 2604.28190, with k = 6)

At 1 a set is as far from the reference (training) images as the validation images are. All
distances of a ratio have one network and one reference, and should have one number of images: the
paper takes 50,000 of each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from vistok.core.errors import InputError

FDR6 = ("inception", "convnext-fdr", "dinov2-fdr", "mae-fdr", "siglip-fdr", "clip-fdr")
"""Feature networks of FDr6, as their program has them."""

IMAGENET_FLOORS = {
    "inception": 1.68,
    "convnext-fdr": 56.87,
    "dinov2-fdr": 14.19,
    "mae-fdr": 0.04,
    "siglip-fdr": 0.60,
    "clip-fdr": 5.60,
}
"""Published FD of ImageNet's 50,000 validation images (256 pixels, center crops) to the paper's
reference statistics: of Inception those of ADM, else of all training images. Rounded as printed;
MAE's has one digit, so that FDr6 made with it is known to a few percent only."""


def ratio(distance: float, floor: float) -> float:
    """FDr of one network: its distance over that of the real validation images.

    Raises ValueError unless the floor is above 0 and both are finite.
    """
    if not (math.isfinite(distance) and math.isfinite(floor)) or distance < 0 or floor <= 0:
        raise InputError(
            f"FDr of the distance {distance:g} over the real images' {floor:g}; expected a finite "
            "distance of 0 or more, and one above 0 of the validation images to the reference"
        )
    return distance / floor


def fdr(
    distances: Mapping[str, float], floors: Mapping[str, float], networks: Sequence[str] = FDR6
) -> float:
    """Mean over `networks` of distance / floor, both given by network; the default is FDr6.

    Raises ValueError if a network lacks either: a mean over fewer networks is another number.
    """
    for what, given in (("distance", distances), ("distance of the real images", floors)):
        missing = [name for name in networks if name not in given]
        if missing or not networks:
            raise InputError(
                f"FDr over {len(networks)} networks: no {what} of {', '.join(missing) or 'any'}; "
                f"expected one of each of {', '.join(networks) or 'at least one network'}"
            )
    return math.fsum(ratio(distances[one], floors[one]) for one in networks) / len(networks)
