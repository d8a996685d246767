"""LFQ's token factors, its schedule of the entropies, and the memory of 2^18 codes."""

import pytest
import torch

from tests.quantizers.test_vq_memory import Largest
from vistok.config.registry import build
from vistok.core.records import Latents
from vistok.core.schedules import Progress
from vistok.quantizers.atoms.lfq import LFQ, LFQConfig
from vistok.quantizers.compose.multi_scale import MultiScaleConfig
from vistok.quantizers.compose.product import ProductConfig


def latents(z):
    return Latents(z, ((z.shape[1],),))


def test_factors_of_unequal_bits_take_them_in_order():
    quantizer = LFQ(LFQConfig(bits=5, factor_bits=[2, 3]))
    z = torch.tensor([[[1.0, -1.0, -1.0, 1.0, 1.0]]])
    result = quantizer(latents(z))
    assert quantizer.vocab == (4, 8) and result.indices.tolist() == [[[1, 6]]]
    assert torch.equal(quantizer.lookup(result.indices), z)
    whole = LFQ(LFQConfig(bits=5))
    z = torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(0))
    pairs, numbers = quantizer(latents(z)), whole(latents(z))
    joined = pairs.indices[..., 0] + 4 * pairs.indices[..., 1]
    assert torch.equal(joined, numbers.indices[..., 0])
    near, wide = (q.neighbours(r.queries, 9) for q, r in ((quantizer, pairs), (whole, numbers)))
    assert torch.equal(near[..., 0] + 4 * near[..., 1], wide[..., 0])
    with pytest.raises(ValueError, match=r"factor_bits=\[2, 2\] has 4 bits; expected the bits=5"):
        LFQConfig(bits=5, factor_bits=[2, 2])


def test_entropies_weigh_more_at_first_in_compositions_too():
    weights = {"commitment": 0.25, "entropy_sample": 0.1, "entropy_batch": -0.2}
    atom = LFQConfig(bits=4, entropy_boost=3, entropy_boost_steps=10, loss_weights=weights)
    made = [
        build(atom),
        build(ProductConfig(quantizer=atom)),
        build(MultiScaleConfig(quantizer=atom, scales=(1, 2))),
    ]
    for quantizer in made:
        for step, factor in ((0, 4.0), (5, 2.5), (10, 1.0), (99, 1.0)):
            found = quantizer.weights_at(Progress(step, 100))
            assert found["commitment"] == 0.25
            assert found["entropy_sample"] == pytest.approx(0.1 * factor)
            assert found["entropy_batch"] == pytest.approx(-0.2 * factor)
        assert set(found) == set(quantizer.loss_weights)


def test_262144_codes_train_without_a_table_of_latents_by_codes():
    quantizer = LFQ(LFQConfig(bits=18, temperature=0.01, entropy_group=18, entropy_eps=1e-5))
    z = (torch.randn(2, 128, 18) * 0.01).requires_grad_()
    with Largest() as largest:
        losses = quantizer.train()(latents(z)).losses
        (losses["entropy_sample"] - losses["entropy_batch"] + losses["commitment"]).backward()
    codes, count = 2**18 * 4, 2 * 128
    # Of codes there is one vector, of latents those of two halves by 512; all were 268 MB.
    assert codes <= largest.bytes <= 16 * max(codes, count * 512 * 4) < codes * count / 10
    assert z.grad.abs().sum() > 0


@pytest.mark.parametrize("over", ["global", "local"])
def test_the_mean_of_the_batch_entropy_is_that_of_all_processes_or_of_one(monkeypatch, over):
    asked = []
    monkeypatch.setattr(
        "vistok.runtime.distributed.mean", lambda tensor: (asked.append(tensor), tensor)[1]
    )
    quantizer = LFQ(LFQConfig(bits=4, entropy_over=over)).train()
    quantizer(latents(torch.randn(1, 6, 4)))
    assert len(asked) == (over == "global")
