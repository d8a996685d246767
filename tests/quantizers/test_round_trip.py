"""Every code is the code of its own value, for whatever sizes a config may have."""

import pytest
import torch

from vistok.config import ConfigError, validate
from vistok.core.records import Latents
from vistok.quantizers.atoms.binary import Binary, BinaryConfig
from vistok.quantizers.atoms.lfq import LFQ, LFQConfig
from vistok.quantizers.atoms.vq import VQ, VQConfig


def found(quantizer, z):
    """Indices [n, F] and values [n, d] of latents z [n, D]."""
    result = quantizer.eval()(Latents(z[None], ((len(z),),)))
    return result.indices[0], result.values[0]


@pytest.mark.parametrize("sphere", [False, True], ids=["lfq", "bsq"])
@pytest.mark.parametrize("bits", [1, 2, 13, 24, 25, 30])
def test_sign_codes(bits, sphere):
    """Beyond 2**24 fp32 has no place for an index: the first, the last and some between."""
    quantizer = LFQ(LFQConfig(bits=bits, sphere=sphere))
    last = 2**bits - 1
    codes = torch.tensor(sorted({0, 1, last // 3, last // 2, last - 1, last}))
    values = quantizer.lookup(codes[None, :, None])[0]
    assert len(values.unique(dim=0)) == len(codes)
    for scale in (1e-30, 1.0, 1e30):
        indices, again = found(quantizer, values * scale)
        assert torch.equal(indices[:, 0], codes) and torch.equal(again, values)
    ends, _ = found(quantizer, torch.tensor([[-torch.inf] * bits, [torch.inf] * bits]))
    if not sphere:
        assert ends.flatten().tolist() == [0, last]


@pytest.mark.parametrize("bits", [1, 64, 1024])
def test_bits_of_binary_latents(bits):
    quantizer = Binary(BinaryConfig(bits=bits, dim=bits))
    with torch.no_grad():  # logits = z
        quantizer.proj.weight.copy_(torch.eye(bits))
        quantizer.proj.bias.zero_()
    codes = torch.randint(0, 2, (6, bits), generator=torch.Generator().manual_seed(0))
    indices, values = found(quantizer, (codes * 2.0 - 1) * 1e30)
    assert torch.equal(indices, codes)
    assert torch.equal(values, quantizer.lookup(codes[None])[0])


@pytest.mark.parametrize("l2_norm", [False, True])
@pytest.mark.parametrize("init", ["uniform", "normal"])
@pytest.mark.parametrize(("dim", "size"), [(1, 4096), (2, 4096), (3, 4096), (4, 4096), (12, 4096)])
def test_each_row_of_a_codebook_is_its_own_nearest(dim, size, init, l2_norm):
    """In one to three numbers rows lie so near each other that a product of matrices swaps them."""
    if l2_norm and dim == 1:
        return
    torch.manual_seed(0)
    quantizer = VQ(VQConfig(codebook_size=size, dim=dim, init=init, l2_norm=l2_norm)).eval()
    codes = quantizer.codes().detach()
    rows = torch.arange(0, size, 3)
    near = quantizer.neighbours(codes[rows][None, :, None], 2)[0, :, 0, :, 0]
    indices, _ = found(quantizer, codes[rows])
    same = (codes[indices[:, 0]] == codes[rows]).all(-1)  # two rows may be equal
    assert same.all() and torch.equal(near[:, 0], indices[:, 0])
    assert (near[:, 0] != near[:, 1]).all()


def test_directions_of_one_number_are_two(fails):
    VQ(validate(VQConfig, {"codebook_size": 2, "dim": 1}))
    with fails(ConfigError, "two directions of dim=1, and codebook_size is 3"):
        validate(VQConfig, {"codebook_size": 3, "dim": 1})
