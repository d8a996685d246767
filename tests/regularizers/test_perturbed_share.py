"""Latent perturbation as a whole: how many codes change, in how many images, in which epoch."""

import math

import pytest
import torch

from vistok.config.registry import build
from vistok.core.draws import Draws
from vistok.core.records import Latents
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.quantizers.atoms.vq import VQ, VQConfig
from vistok.regularizers.latent_perturbation import LatentPerturbation, LatentPerturbationConfig
from vistok.tokens import TokenSpec

SPEC = TokenSpec(blocks=((16, 16),), vocab=(128,))


def draws_of(part: LatentPerturbation, batch: int, epoch: float = 0.0) -> Draws:
    return part.draw(SPEC, torch.arange(batch), Rng(0, "p"), Progress(0, 1, epoch))


@pytest.mark.parametrize(
    ("alpha", "delta", "epoch", "expected"),
    [
        (1.0, 100, 0, 0.99),
        (0.6, 10, 0, 0.6 * 9 / 10),
        (0.9, 2, 0, 0.45),
        (1.0, 100, 80, 0.75 * 74 / 75),  # halfway through the annealing
        (1.0, 100, 150, 0.5 * 49 / 50),
    ],
)
def test_the_effective_rate_of_changed_codes(alpha, delta, epoch, expected):
    """alpha (delta - 1) / delta within half a percent: rank 0 is the clean code."""
    torch.manual_seed(0)
    part = build(LatentPerturbationConfig(rate=alpha, neighbours=delta, proportion=1.0))
    draws = draws_of(part, 1600, epoch)
    moved = draws.ranks > 0
    assert moved.float().mean().item() == pytest.approx(expected, rel=0.005)
    # Every other rank is another code.
    quantizer, few = VQ(VQConfig(codebook_size=128, dim=4)).eval(), draws.ranks[:40]
    queries = torch.nn.functional.normalize(torch.randn(40, 256, 1, 4), dim=-1)
    clean = quantizer.perturb(queries, torch.zeros_like(few), 0)
    assert torch.equal(quantizer.perturb(queries, few, draws.top_rank) != clean, moved[:40])


@pytest.mark.parametrize("batch", [7, 10, 33])
@pytest.mark.parametrize("proportion", [0.1, 0.25, 0.5, 0.99, 1.0])
def test_decoded_values_change_in_exactly_the_floor_of_the_share(batch, proportion):
    torch.manual_seed(0)
    quantizer = VQ(VQConfig(codebook_size=128, dim=4)).train()
    latents = Latents(torch.randn(batch, 256, 4), ((16, 16),))
    part = build(LatentPerturbationConfig(proportion=proportion))
    result = quantizer(latents, draws_of(part, batch))
    moved = (result.values - result.clean).abs().amax(dim=(1, 2)) > 1e-6
    assert int(moved.sum()) == math.floor(proportion * batch)
    assert torch.equal(result.indices, quantizer(latents).indices)  # of the clean codes


# Epoch, ratio, delta of the published settings: start 40, end 120, end_ratio 0.5, delta 100.
TABLE = [
    (0, 1.0, 100),
    (39, 1.0, 100),
    (40, 1.0, 100),
    (48, 0.95, 95),
    (50, 0.9375, 93),
    (60, 0.875, 87),
    (80, 0.75, 75),
    (100, 0.625, 62),
    (119, 0.50625, 50),
    (120, 0.5, 50),
    (121, 0.5, 50),
    (199, 0.5, 50),
]


@pytest.mark.parametrize(("epoch", "ratio", "delta"), TABLE)
def test_the_published_annealing(epoch, ratio, delta):
    part = build(LatentPerturbationConfig())
    rate, neighbours = part.strength(epoch)
    assert rate == pytest.approx(ratio, abs=1e-12) and neighbours == delta
    assert draws_of(part, 20, epoch).ranks.max() < delta


@pytest.mark.parametrize(
    ("end_ratio", "epoch", "ratio"),
    [(0.0, 119, 1.0), (0.0, 121, 0.0), (0.2, 120, 0.8), (0.2, 121, 0.2)],
)
def test_the_original_formula_jumps_at_other_ends(end_ratio, epoch, ratio):
    """Its slope is end_ratio, so it is continuous at one half alone."""
    part = build(LatentPerturbationConfig(end_ratio=end_ratio))
    assert part.strength(epoch)[0] == pytest.approx(ratio, abs=1e-12)
