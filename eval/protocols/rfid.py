"""Reconstruction at every prefix length of the sweep, and how the codebook is used.

Pictures are rounded to 8 bits before any metric sees them, as a file would hold them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from eval.bench import Bench
from eval.images import network_of, to_uint8
from eval.jobs import Job
from eval.options import Options
from eval.rows import Row
from eval.runs import Pair
from vistok.distributed import sum_
from vistok.metrics import PSNR, SSIM, CodebookStats, CodebookUse, MeanColourPSNR
from vistok.metrics.accumulator import Accumulator
from vistok.tokens import Tokens

_SSIM_SIDE = 6  # pixels that its reflected 11x11 window needs
_CURVE = 512  # points of the sorted histogram that are kept for drawing


class MeanDistance(Accumulator):
    """`update(distances [B])`; `compute()`: mean over images and ranks."""

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("total", torch.zeros((), dtype=torch.float64))

    def update(self, distances: Tensor) -> None:
        self.total += distances.double().sum().to(self.total.device)
        self.images += len(distances)

    def compute(self) -> float:
        return float(self.total) / self.seen()


class Measures:
    """All measures of one prefix length."""

    def __init__(self, bench: Bench, length: int) -> None:
        self.bench, self.length = bench, length
        self.stats = bench.new_stats()
        self.psnr = PSNR().to(bench.device)
        small = min(bench.tokenizer.config.image_size) < _SSIM_SIDE
        self.ssim = None if small else SSIM().to(bench.device)
        self.perceptual = None if bench.perceptual is None else MeanDistance().to(bench.device)
        self.bytes = torch.zeros((), dtype=torch.float64, device=bench.device)

    def update(self, tokens: Tokens, pixels: Tensor) -> None:
        """Tokens of the prefix and the real pixels [B, 3, H, W] in 0..1 they came from."""
        painted = to_uint8(self.bench.tokenizer.decode(tokens))
        self.stats.update(self.bench.features(painted))
        real = to_uint8(pixels)
        self.psnr.update(painted, real)
        if self.ssim is not None:
            self.ssim.update(painted, real)
        if self.perceptual is not None:
            self.perceptual.update(self.bench.perceptual(painted.float() / 255, pixels))
        if tokens.indices is not None:
            self.bytes += sum(map(len, tokens.to_bytes()))

    def rows(self) -> list[Row]:
        bench, spec, at = self.bench, self.bench.spec, {"length": self.length}
        psnr = self.psnr.compute()
        rows = [
            bench.frechet_row("rFID", self.stats.reduce(), **at),
            bench.row("PSNR", psnr.pooled, note="of the squared error over all pixels", **at),
            bench.row("PSNR-mean", psnr.mean, note="mean over images", **at),
        ]
        if self.ssim is not None:
            rows.append(bench.row("SSIM", self.ssim.compute(), **at))
        if self.perceptual is not None:
            lpips = bench.perceptual.name.startswith("lpips")
            rows.append(
                bench.row(
                    "LPIPS" if lpips else "perceptual",
                    self.perceptual.compute(),
                    features=network_of(bench.perceptual),
                    **at,
                )
            )
        if spec.vocab:
            bits = spec.positions(self.length) * sum(spec.factor_bits)
            total = float(sum_(self.bytes)) / len(bench.views)
            rows.append(bench.row("bits/image", bits, note="codes alone", **at))
            rows.append(bench.row("bytes/image", total, note="packed, with the header", **at))
        return rows


def jobs(pair: Pair, options: Options) -> list[Job]:
    return [Job("rfid", run)]


def run(bench: Bench) -> list[Row]:
    """rFID, PSNR, SSIM, perceptual distance, bytes at each length; codebook use at full length."""
    spec, tokenizer = bench.spec, bench.tokenizer
    lengths = {length: Measures(bench, length) for length in spec.sweep}
    floor = MeanColourPSNR().to(bench.device)
    codes = CodebookStats(spec).to(bench.device) if spec.vocab else None
    for batch in bench.views.batches(f"{bench.run.name}: reconstruct"):
        tokens = tokenizer.encode(batch.pixels)
        floor.update(to_uint8(batch.pixels))
        if codes is not None:
            codes.update(tokens.indices)
        for length, measures in lengths.items():
            cut = tokens if length == spec.steps else tokens.prefix(length)
            measures.update(cut, batch.pixels)
    rows = [row for measures in lengths.values() for row in measures.rows()]
    if any(measures.ssim is None for measures in lengths.values()):
        bench.skip("SSIM", "its 11x11 window needs pictures with sides of 6 pixels or more")
    note = "each picture's own mean colour: what 0 tokens of detail give"
    rows.append(bench.row("PSNR-mean-colour", floor.compute().pooled, length=None, note=note))
    if codes is None:
        bench.skip("codebook", "continuous tokens have no codebook")
        return rows
    use = codes.compute()
    bench.facts["codebook"] = codebook_facts(use)
    return rows + codebook_rows(bench, use)


def codebook_rows(bench: Bench, use: CodebookUse) -> list[Row]:
    parts = " x ".join(map(str, bench.spec.vocab))
    note = f"{use.positions} tokens, vocabulary {parts}"
    values = {"usage": use.usage, "perplexity": use.perplexity, "entropy": use.entropy}
    if use.usage is None:  # too large to count jointly: the mean of the factors, under its own name
        mean = lambda numbers: sum(numbers) / len(numbers)
        values = {
            "factor-usage": mean(use.factor_usage),
            "factor-perplexity": mean(use.factor_perplexity),
            "factor-entropy": mean(use.factor_entropy),
        }
        note += "; too many codes to count jointly, mean over factors"
    rows = [bench.row(f"codebook-{name}", value, note=note) for name, value in values.items()]
    return [*rows, bench.row("slot-redundancy", use.redundancy, note=note)]


def codebook_facts(use: CodebookUse) -> dict[str, Any]:
    """The sorted histogram (thinned to some points) and the entropies per position."""
    counts = use.counts if use.counts is not None else torch.cat(use.factor_counts)
    ordered = counts.sort(descending=True).values.tolist()
    step = max(1, len(ordered) // _CURVE)
    kept = sorted({*range(0, len(ordered), step), len(ordered) - 1})
    entropy = use.position_entropy
    return {
        "codes": len(ordered),
        "joint": use.counts is not None,
        "used": int((counts > 0).sum()),
        "tokens": use.positions,
        "sorted_counts": [[rank, ordered[rank]] for rank in kept],
        "position_entropy": None if entropy is None else entropy.tolist(),
        "factor_usage": list(use.factor_usage),
        "factor_entropy": list(use.factor_entropy),
    }
