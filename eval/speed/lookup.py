"""The search of a codebook, against vector-quantize-pytorch where that is installed.

Both quantize the same vectors in training mode, without a running mean: `forward` without
gradients, `backward` with those of latents and, for euclid, of the codebook (the other library
does not learn a cosine codebook by gradients, so there both codebooks are fixed).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator

import torch
from torch import nn

from vistok.core.records import Latents
from vistok.eval.provenance import provenance
from vistok.eval.results.rows import Reference, Row
from vistok.eval.speed.clock import Clock
from vistok.quantizers.atoms.vq import VQ, VQConfig

VECTORS = (512, 4096)
SIZES = (1024, 4096, 16384, 262144)
DIMS = (8, 12, 64, 256)
PEER_GB = 2.0


def lookup_rows(clock: Clock, peer_gb: float = PEER_GB) -> Iterator[Row]:
    """Vectors/s and their ratio to the other library, for every size.

    Args:
        peer_gb: of scores, up to which the other library is run: it holds all of them, some in
            several copies.
    """
    for size in SIZES:
        for dim in DIMS:
            for cosine in (False, True):
                ours = _ours(size, dim, cosine).to(clock.device)
                theirs = _theirs(size, dim, cosine)
                theirs = None if theirs is None else theirs.to(clock.device)
                for count in VECTORS:
                    fits = 4 * count * size <= peer_gb * 2**30
                    yield from _compare(clock, ours, theirs, count, cosine, fits)


def _compare(
    clock: Clock, ours: VQ, theirs: nn.Module | None, count: int, cosine: bool, fits: bool
) -> Iterator[Row]:
    size, dim = ours.codebook.shape
    z = torch.randn(1, count, dim, device=clock.device)
    reason = "vector-quantize-pytorch is not installed"
    if theirs is not None and not fits:
        theirs, reason = None, "vector-quantize-pytorch would hold all scores: see peer_gb"
    for backward in (False, True):
        mine = _run(ours, lambda x: _our_loss(ours, x), z, backward)
        other = theirs and _run(theirs, lambda x: _their_loss(theirs, x), z, backward)
        mine(), other and other()
        pairs = [
            (clock.once(mine), clock.once(other) if other else 0.0) for _ in range(clock.repeats)
        ]
        seconds = statistics.median(first for first, _ in pairs)
        how = f"{'cosine' if cosine else 'euclid'} {'backward' if backward else 'forward'}"
        common = {
            "run": f"V={size} d={dim} {how}",
            "reference": Reference(name="noise", split="none", manifest="", count=count),
            "count": count,
            **provenance(),
        }
        yield Row(metric="vq-lookup-vectors/s", value=count / seconds, **common)
        ratio = statistics.median(b / a for a, b in pairs) if other else None
        note = reason
        if other:
            theirs_ms = 1e3 * statistics.median(second for _, second in pairs)
            note = f"{1e3 * seconds:.2f} ms against {theirs_ms:.2f}; above 1: faster"
        yield Row(metric="vq-lookup-ratio", value=ratio, note=note, **common)


def _run(
    module: nn.Module, loss: Callable[[torch.Tensor], torch.Tensor], z: torch.Tensor, backward: bool
) -> Callable[[], None]:
    def forward() -> None:
        with torch.no_grad():
            loss(z)

    def both() -> None:
        module.zero_grad(set_to_none=True)
        loss(z.clone().requires_grad_()).backward()

    return both if backward else forward


def _ours(size: int, dim: int, cosine: bool) -> VQ:
    quantizer = VQ(VQConfig(codebook_size=size, dim=dim, l2_norm=cosine, init="normal"))
    quantizer.codebook.requires_grad_(not cosine)
    return quantizer.train()


def _our_loss(quantizer: VQ, z: torch.Tensor) -> torch.Tensor:
    result = quantizer(Latents(z, ((z.shape[1],),)))
    return sum(result.losses.values()) + result.values.square().mean()


def _theirs(size: int, dim: int, cosine: bool) -> nn.Module | None:
    try:
        from vector_quantize_pytorch import VectorQuantize
    except ImportError:
        return None
    return VectorQuantize(
        dim=dim,
        codebook_size=size,
        use_cosine_sim=cosine,
        ema_update=False,
        learnable_codebook=not cosine,
        rotation_trick=False,
    ).train()


def _their_loss(quantizer: nn.Module, z: torch.Tensor) -> torch.Tensor:
    values, _, loss = quantizer(z)
    return loss.sum() + values.square().mean()
