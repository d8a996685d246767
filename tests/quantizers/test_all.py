"""What every quantizer promises, on every code of a small codebook."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from vistok.config.registry import build
from vistok.core.draws import Draws
from vistok.core.records import Latents
from vistok.quantizers.atoms.binary import BinaryConfig
from vistok.quantizers.atoms.fsq import FSQConfig
from vistok.quantizers.atoms.lfq import LFQConfig
from vistok.quantizers.atoms.scalar import ScalarConfig
from vistok.quantizers.atoms.vq import VQConfig
from vistok.quantizers.straight_through import straight_through

CONFIGS = {
    "vq_l2": VQConfig(codebook_size=13, dim=4),
    "vq": VQConfig(codebook_size=13, dim=4, l2_norm=False, init="normal"),
    "vq_ema": VQConfig(codebook_size=13, dim=4, update="ema"),
    "vq_ema_plain": VQConfig(codebook_size=13, dim=4, update="ema", l2_norm=False, init="normal"),
    "vq_rotation": VQConfig(codebook_size=13, dim=4, gradient="rotation"),
    "fsq": FSQConfig(levels=(4, 3, 5, 2)),
    "lfq": LFQConfig(bits=6),
    "bsq": LFQConfig(bits=6, sphere=True),
    "binary": BinaryConfig(bits=6, dim=6),
    "binary_sign": BinaryConfig(bits=6, dim=6, estimator="sign"),
    "scalar": ScalarConfig(dim=3, levels=5),
    "scalar_one_sided": ScalarConfig(dim=2, levels=16, range=(0.5, 2.0), std_range=2.0),
}
every = pytest.mark.parametrize("name", CONFIGS)


def make(name: str):
    torch.manual_seed(3)
    return build(CONFIGS[name])


def latents(quantizer, batch: int = 5, length: int = 7, seed: int = 0) -> Latents:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(batch, length, quantizer.latent_dim, generator=generator)
    return Latents(values, ((length,),))


def all_indices(quantizer) -> Tensor:
    """[1, V, F]: every code once."""
    digits = itertools.product(*(range(size) for size in reversed(quantizer.vocab)))
    return torch.tensor([row[::-1] for row in digits])[None]


def latents_of(quantizer, name: str, indices: Tensor) -> Tensor:
    """Latents whose code is `indices`, from the definition of the quantizer."""
    if name.startswith("binary"):
        with torch.no_grad():  # logits = z
            quantizer.proj.weight.copy_(torch.eye(6))
            quantizer.proj.bias.zero_()
        return indices.float() * 2 - 1
    codes = quantizer.lookup(indices)
    if name == "fsq":
        inside = (codes * quantizer.middle + quantizer.offset) / quantizer.scale
        return torch.atanh(inside) - quantizer.shift
    as_stored = name in ("vq", "vq_ema_plain") or name.startswith("scalar")
    return codes if as_stored else codes * 1.5


@every
def test_indices_and_codes_of_the_whole_codebook(name):
    quantizer = make(name).eval()
    indices = all_indices(quantizer)
    codes = quantizer.lookup(indices)
    assert len(codes[0].unique(dim=0)) == codes.shape[1]  # no two codes are equal
    z = latents_of(quantizer, name, indices).detach()
    result = quantizer(Latents(z, ((z.shape[1],),)))
    assert torch.equal(result.indices, indices)
    assert torch.equal(result.values, codes)


@every
def test_evaluation_gives_exactly_what_lookup_gives(name):
    quantizer = make(name).eval()
    result = quantizer(latents(quantizer, 30, 40))
    assert torch.equal(result.values, quantizer.lookup(result.indices))
    assert torch.equal(result.clean, result.values)
    assert result.indices.dtype == torch.int64
    assert result.indices.shape == (30, 40, len(quantizer.vocab))
    assert result.values.shape == (30, 40, quantizer.value_dim)
    assert result.queries.shape[:3] == (30, 40, 1) and not result.queries.requires_grad
    again = quantizer(latents(quantizer, 30, 40))
    assert torch.equal(again.values, result.values)


@every
def test_fp32_whatever_autocast_says(name):
    quantizer = make(name).eval()
    z = latents(quantizer)
    ranks = torch.full((5, 7, 1), 3)
    plain = quantizer(z, Draws(ranks=ranks))
    moved = quantizer.perturb(plain.queries, ranks)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = quantizer(z, Draws(ranks=ranks))
        assert torch.equal(quantizer.perturb(plain.queries, ranks), moved)
        assert torch.equal(quantizer.lookup(plain.indices), quantizer.lookup(cast.indices))
        looked = quantizer.lookup(moved)
    assert torch.equal(looked, quantizer.lookup(moved)) and looked.dtype == torch.float32
    assert cast.values.dtype == torch.float32
    for field in ("values", "clean", "indices", "queries"):
        assert torch.equal(getattr(cast, field), getattr(plain, field))
    for key, value in plain.losses.items():
        assert torch.equal(cast.losses[key], value)


@every
def test_half_precision_latents_are_quantized_in_fp32(name):
    quantizer = make(name).eval()
    z = latents(quantizer)
    rounded = Latents(z.values.bfloat16(), z.grids)
    expected = quantizer(Latents(rounded.values.float(), z.grids))
    result = quantizer(rounded)
    assert torch.equal(result.values, expected.values)


@every
def test_rank_zero_is_the_clean_code(name):
    quantizer = make(name).eval()
    z = latents(quantizer, 40, 250)
    # Tiny values must keep their sign, and zero its own code.
    z.values[0] *= 1e-9
    z.values[1] = 0
    result = quantizer(z)
    zero = torch.zeros(40, 250, 1, dtype=torch.long)
    clean = quantizer.perturb(result.queries, zero)
    if name.startswith("vq"):
        assert torch.equal(clean, result.indices)
    else:  # at exactly 0 FSQ's rounding may choose either of two equally near codes
        assert torch.equal(clean[2:], result.indices[2:]) and torch.equal(
            clean[0], result.indices[0]
        )
    nothing = quantizer(z, Draws(ranks=zero))
    assert torch.equal(nothing.values, result.values)


@every
def test_neighbours_are_all_codes_once(name):
    quantizer = make(name).eval()
    queries = quantizer(latents(quantizer, 2, 3)).queries
    size = len(all_indices(quantizer)[0])
    near = quantizer.neighbours(queries, 10**6)  # clipped to the number of codes
    assert near.shape == (2, 3, 1, size, len(quantizer.vocab))
    for rows in near.flatten(0, 2):
        assert len(rows.unique(dim=0)) == size
    assert torch.equal(quantizer.neighbours(queries, 4), near[:, :, :, :4])
    # Ranks beyond the last code give the last.
    far = quantizer.perturb(queries, torch.full((2, 3, 1), 10**6))
    assert torch.equal(far, near[:, :, 0, -1])


@every
def test_perturbed_values_with_clean_indices(name):
    quantizer = make(name).eval()
    z = latents(quantizer)
    clean = quantizer(z)
    ranks = torch.zeros(5, 7, 1, dtype=torch.long)
    ranks[1, 2], ranks[4, 6] = 1, 5
    result = quantizer(z, Draws(ranks=ranks))
    moved = quantizer.perturb(clean.queries, ranks)
    assert torch.equal(result.values, quantizer.lookup(moved))
    assert torch.equal(result.indices, clean.indices) and torch.equal(result.clean, clean.values)
    changed = (result.values != clean.values).any(-1)
    assert changed.nonzero().tolist() == [[1, 2], [4, 6]]
    assert result.losses.keys() == clean.losses.keys()
    for key, value in clean.losses.items():
        assert torch.equal(result.losses[key], value)


@every
def test_layout(name):
    """An atom's tokens and values lie as its latents do; which prefixes there are, others say."""
    quantizer = make(name)
    for grids in (((7,),), ((2, 3),), ((4,), (4,))):
        layout = quantizer.layout(grids)
        spec, count = layout.spec, sum(map(math.prod, grids))
        assert layout.values == spec.blocks == grids and layout.count == spec.length == count
        assert (spec.vocab, layout.dim) == (quantizer.vocab, quantizer.value_dim)
        assert spec.prefix == "none" and spec.branches == 1
    padded = quantizer.layout(((9,),), stored=6)
    assert padded.spec.length == 6 and padded.count == 9


def test_straight_through_is_exact_both_ways():
    values = torch.tensor([1.0, -0.1, 1e-8], requires_grad=True)
    through = torch.tensor([0.3, 1e8, 7.7], requires_grad=True)
    y = straight_through(values, through)
    assert torch.equal(y, values)
    (y * torch.tensor([2.0, 3.0, 4.0])).sum().backward()
    assert through.grad.tolist() == [2, 3, 4] and values.grad is None
