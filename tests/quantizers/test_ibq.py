"""Index backpropagation: inner products, a gradient for every code, and no table of all of them."""

import pytest
import torch

from tests.quantizers.test_vq_memory import Largest
from vistok.core.records import Latents
from vistok.quantizers import index_softmax
from vistok.quantizers.atoms.ibq import IBQ, IBQConfig


def latents(z):
    return Latents(z, ((z.shape[1],),))


def made(rows, **options) -> IBQ:
    quantizer = IBQ(IBQConfig(codebook_size=len(rows), dim=rows.shape[1], **options))
    quantizer.load_state_dict({"codebook": rows})
    return quantizer


def test_the_largest_inner_product_wins_and_ties_go_to_the_first():
    rows = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    result = made(rows)(latents(torch.tensor([[[1.0, 0.1], [0.1, 1.0], [-1.0, 0.0]]])))
    assert result.indices.flatten().tolist() == [1, 2, 2]  # not the nearest of the first: code 0
    assert torch.equal(result.values[0], rows[[1, 2, 2]])
    near = made(rows).neighbours(result.queries, 4)[0, :, 0, :, 0]
    assert near[0].tolist() == [1, 3, 0, 2] and near[2].tolist() == [2, 0, 1, 3]


@pytest.mark.parametrize("held", [1, 40, 2**24])
def test_gradients_are_those_of_the_plain_formula(monkeypatch, held):
    monkeypatch.setattr(index_softmax, "_HELD", held)
    draws = torch.Generator().manual_seed(0)
    rows = torch.randn(11, 3, generator=draws)
    z = torch.randn(2, 5, 3, generator=draws, requires_grad=True)
    quantizer = made(rows, entropy_temperature=0.1).train()
    result = quantizer(latents(z))
    ramp = torch.arange(30.0).view(2, 5, 3).sin()
    found = torch.autograd.grad(
        (result.values * ramp).sum() + sum(result.losses.values()), [z, quantizer.codebook]
    )
    codes = rows.clone().requires_grad_()
    logits = z.flatten(0, 1) @ codes.T
    p, hard = logits.softmax(-1), torch.nn.functional.one_hot(logits.argmax(-1), 11).float()
    values = ((hard - p.detach() + p) @ codes).view_as(z)
    row = (hard @ codes).view_as(z)
    q, log_q = (logits / 0.1).softmax(-1), (logits / 0.1).log_softmax(-1)
    mean = q.mean(0)
    total = (values - z).square().mean() + (row.detach() - z).square().mean()
    total = total + (row - z.detach()).square().mean() - (q * log_q).sum(-1).mean()
    total = total - (mean * (mean + 1e-5).log()).sum() + (values * ramp).sum()
    wanted = torch.autograd.grad(total, [z, codes])
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)
    assert (found[1].abs().sum(-1) > 0).all()  # every code


def test_262144_codes_train_without_a_table_of_vectors_by_codes(monkeypatch):
    monkeypatch.setattr(index_softmax, "_HELD", 2**21)
    rows, vectors = 262_144, 64
    quantizer = IBQ(IBQConfig(codebook_size=rows, dim=4)).train()
    z = torch.randn(1, vectors, 4, requires_grad=True)
    with Largest() as largest:
        result = quantizer(latents(z))
        weights = quantizer.loss_weights
        sum(result.losses[name] * weight for name, weight in weights.items()).backward()
    # A chunk of logits and a tile of scores are 8 MB or less; all of them are 67 MB.
    assert largest.bytes <= 4 * index_softmax._HELD < vectors * rows * 4
    assert z.grad.abs().sum() > 0 and (quantizer.codebook.grad.abs().sum(-1) > 0).all()


def test_codes_alone_are_those_of_a_pass_with_losses():
    rows, z = torch.randn(40, 3), latents(torch.randn(2, 5, 3))
    quantizer = made(rows).eval()
    whole, alone = quantizer(z), quantizer.coded(z)
    assert torch.equal(whole.indices, alone.indices) and torch.equal(whole.values, alone.values)
    assert whole.losses and not alone.losses  # an entropy reads all codes once more


def test_thousands_of_neighbors_among_262144_codes_keep_to_tiles():
    rows = torch.randint(-9, 9, (262_144, 4)).float()  # many ties
    z = torch.randint(-9, 9, (1, 3, 1, 4)).float()
    with Largest() as largest:
        near = made(rows).neighbours(z, 23_040)[0, :, 0, :, 0]
    products = (z.view(3, 4) @ rows.T).sort(dim=1, descending=True, stable=True)
    assert torch.equal(near, products.indices[:, :23_040])
    assert largest.bytes <= max(rows.numel() * 4, 3 * (2 * 23_040 + 4096) * 8)
