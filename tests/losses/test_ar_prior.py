"""The autoregressive prior on hand-made numbers: sampled positions, rounds, gradients."""

import math

import pytest
import torch
import torch.nn.functional as F

from tests.losses.test_losses import BATCH, at
from vistok.config import ConfigError
from vistok.config.registry import build
from vistok.contracts.case import small, tiny
from vistok.core.draws import Draws, PartDraws, picked
from vistok.core.records import Decoded, Reconstruction
from vistok.core.rng import Rng
from vistok.losses.ar_prior import ARPriorConfig

CODES = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])


def prior(**settings):
    """A prior over three codes, and the reconstruction of one clip of the codes 0, 1, 2, 0."""
    quantizer = small("quantizer", "vq") | {"codebook_size": 3, "dim": 2, "l2_norm": True}
    tokenizer = tiny(quantizer=quantizer)
    tokenizer.quantizer.codebook.data.copy_(2 * CODES)
    loss = build(ARPriorConfig.tiny().model_copy(update=settings))
    loss.bind(tokenizer)
    indices = torch.tensor([[0, 1, 2, 0]])[..., None]
    values = tokenizer.quantizer.lookup(indices).detach().requires_grad_()
    quantized = type("Q", (), {"clean": values, "values": values, "indices": indices})()
    return loss.eval(), Reconstruction(None, None, Decoded(None, None), quantized, None)


def says(loss, vectors):
    """Let the prior predict these vectors [n, 2] whatever it reads; what it read is returned."""
    seen = []
    loss.prior.forward = lambda x: seen.append(x) or torch.tensor(vectors)[None].float()
    return seen


def test_cross_entropy_by_hand():
    loss, reconstruction = prior()
    says(loss, [[0.0, 3.0], [5.0, 0.0], [1.0, 1.0]])  # 1 is right, 0 is wrong, 0 | 1 are even
    terms = loss(reconstruction, BATCH, at(0))
    half = math.sqrt(0.5)
    expected = [
        -1 + math.log(math.e + 2),
        1 + math.log(math.e + 1 + 1 / math.e),
        -half + math.log(2 * math.exp(half) + math.exp(-half)),
    ]
    assert terms["prior"].item() == pytest.approx(sum(expected) / 3, abs=1e-6)
    assert terms["prior_top1"].item() == pytest.approx(2 / 3)
    assert loss.weights(at(0)) == {"prior": 0.06}


def test_plain_logits_and_temperature():
    loss, reconstruction = prior(l2_norm=False, temperature=0.5)
    says(loss, [[0.0, 3.0], [5.0, 0.0], [1.0, 1.0]])
    logits = loss.rounds(reconstruction.quantized.clean, PartDraws())
    expected = torch.tensor([[0.0, 6.0, 0.0], [10.0, 0.0, -10.0], [2.0, 2.0, -2.0]])
    torch.testing.assert_close(logits[0][0], expected)


def test_masked_positions_read_samples_and_the_first_never_does():
    loss, reconstruction = prior(rounds=3)
    seen = says(loss, [[0.0, 1.0], [-1.0, 0.0], [1.0, 0.0]])
    mask = torch.tensor([[True, False, True]])
    chosen = torch.tensor([[[2, 1], [0, 0], [1, 2]]])  # [B, L-1, R-1]
    values = reconstruction.quantized.clean
    assert len(loss.rounds(values, PartDraws(mask=mask, chosen=chosen))) == 3
    torch.testing.assert_close(seen[0][0], CODES[[0, 1, 2]])
    torch.testing.assert_close(seen[1][0], CODES[[0, 2, 2]])  # what is not sampled stays true
    torch.testing.assert_close(seen[2][0], CODES[[0, 1, 2]])
    # Of numbers the code is that whose cumulated share holds them.
    shares = torch.tensor([[0.25, 0.5, 0.25]]).expand(5, -1)
    places = torch.tensor([0.0, 0.2499, 0.25, 0.7499, 0.9999])
    assert picked(shares, places).tolist() == [0, 0, 1, 1, 2]


def test_the_share_of_samples_grows_to_its_largest():
    loss, _ = prior()
    assert [round(loss.share(at(step)), 4) for step in (0, 15, 30, 90)] == [0.0, 0.25, 0.5, 0.5]
    assert prior(sampled_ramp=0.0, sampled=1.0)[0].share(at(0)) == 1.0
    index = torch.arange(400)
    draws = loss.draw(index, Rng(0, "loss.ar_prior", 15), at(15))
    assert draws.mask.shape == (400, 3) and draws.uniform.shape == (400, 3, 1)
    assert abs(draws.mask.float().mean().item() - 0.25) < 0.04
    again = loss.draw(index[7:9], Rng(0, "loss.ar_prior", 15), at(15))
    assert torch.equal(again.mask, draws.mask[7:9])
    assert prior(rounds=1)[0].draw(index, Rng(0, "x", 0), at(50)) is None


@pytest.mark.parametrize(("average", "gradient"), [(True, "all"), (False, "all"), (True, "last")])
def test_rounds_that_count(average, gradient):
    gradient = "last_round" if gradient == "last" else gradient
    loss, reconstruction = prior(average_rounds=average, gradient=gradient)
    mask, chosen = torch.ones(1, 3, dtype=torch.bool), torch.tensor([[[2], [0], [1]]])
    own = Draws(parts={"loss.ar_prior": PartDraws(mask=mask, chosen=chosen)})
    found = loss(Reconstruction(**{**vars(reconstruction), "draws": own}), BATCH, at(50))["prior"]
    values, targets = reconstruction.quantized.clean, torch.tensor([1, 2, 0])
    rounds = loss.rounds(values, own.part("loss.ar_prior"))
    each = [F.cross_entropy(logits[0], targets) for logits in rounds]
    whole = average and gradient == "all"
    assert found.item() == pytest.approx((sum(each) / 2 if whole else each[1]).item(), abs=1e-6)
    found.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in loss.prior.parameters())
    # In the last round all but the first position read samples, which carry no gradient.
    assert (values.grad[0, 1:].abs().sum() > 0) == whole
    assert loss._quantizer[0].codebook.grad is None


def test_quantizers_without_codes_are_refused():
    loss = build(ARPriorConfig.tiny())
    with pytest.raises(ConfigError, match="quantizer fsq has none; expected vq or stochastic_vq"):
        loss.bind(tiny())
    loss = build(ARPriorConfig(transformer={"width": 16, "depth": 1, "heads": 2}, positions=2))
    with pytest.raises(ConfigError, match=r"ar_prior\.positions=2, but 3 tokens are read"):
        loss.bind(tiny(quantizer=small("quantizer", "vq")))
