"""The rotation trick against its formula, written out and differentiated by autograd."""

import math

import pytest
import torch

from vistok.core.records import Latents
from vistok.quantizers.atoms.vq import VQ, VQConfig
from vistok.quantizers.rotation import rotate


def written_out(e, q):
    """The matrix |q|/|e| (I - 2 w w^T + 2 v u^T) of each pair, applied to e."""
    u, v = e.detach() / e.detach().norm(dim=-1, keepdim=True), q / q.norm(dim=-1, keepdim=True)
    w = (u + v) / (u + v).norm(dim=-1, keepdim=True)
    outer = lambda a, b: a[..., :, None] * b[..., None, :]
    matrix = torch.eye(e.shape[-1]).to(e) - 2 * outer(w, w) + 2 * outer(v, u)
    scale = q.norm(dim=-1, keepdim=True) / e.detach().norm(dim=-1, keepdim=True)
    return scale * (matrix @ e[..., None])[..., 0]


@pytest.mark.parametrize("length", [1.0, 3.0])
def test_gradient_is_that_of_the_formula(length):
    generator = torch.Generator().manual_seed(0)
    e, q, g = torch.randn(3, 50, 6, generator=generator, dtype=torch.float64).unbind(0)
    q = length * q
    e1, e2 = e.clone().requires_grad_(), e.clone().requires_grad_()
    expected = written_out(e1, q)
    assert torch.allclose(expected, q, atol=1e-12)
    found = rotate(q.requires_grad_(), e2)
    assert torch.equal(found, q)
    (expected * g).sum().backward()
    (found * g).sum().backward()
    assert torch.allclose(e1.grad, e2.grad, atol=1e-12) and q.grad is None


def test_a_quarter_turn_by_hand():
    e, q = torch.tensor([[2.0, 0.0]], requires_grad=True), torch.tensor([[0.0, 4.0]])
    (rotate(q, e) * torch.tensor([[1.0, 3.0]])).sum().backward()
    # The gradient is turned back by 90 degrees and doubled: (1, 3) -> 2 (3, -1).
    assert torch.allclose(e.grad, torch.tensor([[6.0, -2.0]]), atol=1e-6)


def test_opposite_and_zero_vectors_stay_finite():
    e = torch.tensor([[1.0, 0.0], [0.0, 0.0]], requires_grad=True)
    q = torch.tensor([[-1.0, 0.0], [0.0, 1.0]])
    values = rotate(q, e)
    values.sum().backward()
    assert torch.equal(values, q) and e.grad.isfinite().all()


def test_a_quantizer_turns_the_gradient_of_its_values():
    quantizer = VQ(VQConfig(codebook_size=2, dim=2, gradient="rotation"))
    with torch.no_grad():
        quantizer.codebook.copy_(torch.tensor([[0.0, 5.0], [-1.0, 0.0]]))
    angle = math.pi / 4
    z = 3 * torch.tensor([[[math.cos(angle), math.sin(angle)]]])
    z.requires_grad_()
    result = quantizer(Latents(z, ((1,),)))
    assert result.values.tolist() == [[[0.0, 1.0]]]
    (result.values * torch.tensor([1.0, 0.0])).sum().backward()
    # Turned by -45 degrees, then through the norm (1/3): tangential already, so nothing is lost.
    turned = torch.tensor([math.cos(angle), -math.sin(angle)]) / 3
    assert torch.allclose(z.grad[0, 0], turned, atol=1e-6)
    assert quantizer.codebook.grad is None
