"""Tokenizers side by side: bits and quality on the same images, in twenty lines.

    python compare_models.py vistok-128 runs/mine titok-l32

Each tokenizer reconstructs scikit-image's photographs at every length that its evaluation visits.
For numbers to publish (rFID, pFID, gFID, with their protocol) use `vistok eval A B report=r.html`.
"""

import sys

from skimage import data

from vistok import Tokenizer

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")


def rows(*names: str) -> list[tuple[str, int, int, float]]:
    """(model, tokens, bits, PSNR in dB averaged over the photographs) of every length."""
    found = []
    for name in names:
        tokenizer = Tokenizer.from_pretrained(name)
        pixels = tokenizer.preprocess([getattr(data, one)() for one in PHOTOGRAPHS])
        spec = tokenizer.spec()
        whole = tokenizer.encode(pixels)
        for length in spec.eval_lengths:
            image = tokenizer.decode(whole.prefix(length) if length < spec.max_prefix else whole)
            psnr = -10 * (image - pixels).square().flatten(1).mean(1).log10()
            tokens = spec.positions_in(length)
            found.append((name, tokens, tokens * sum(spec.factor_bits), float(psnr.mean())))
    return found


if __name__ == "__main__":
    print(f"{'model':24} {'tokens':>6} {'bits':>8} {'PSNR':>6}")
    for name, tokens, bits, psnr in rows(*(sys.argv[1:] or ["vistok-128"])):
        print(f"{name:24} {tokens:6} {bits:8,} {psnr:6.2f}")
