"""Stochastic VQ: draws by cumulated shares, argmax without them, the stored temperature."""

import pytest
import torch

from vistok.config import ConfigError
from vistok.config.registry import build
from vistok.core.draws import Draws, PartDraws
from vistok.core.records import Latents
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.quantizers.atoms.stochastic_vq import StochasticVQConfig
from vistok.quantizers.compose.residual import ResidualConfig

CODES = torch.tensor([[2.0, 0.0], [0.0, 0.5], [-1.0, 0.0]])


def quantizer(**settings):
    made = build(StochasticVQConfig(codebook_size=3, dim=2, **settings))
    made.codebook.data.copy_(CODES)
    return made.train()


def latents(rows) -> Latents:
    return Latents(torch.tensor([rows]), ((len(rows),),))


def with_draws(**fields) -> Draws:
    return Draws(parts={"quantizer": PartDraws(**fields)})


def test_shares_and_draws_by_hand():
    made = quantizer(temperature=0.5)
    cosines = torch.tensor([[0.6, 0.8, -0.6]])
    expected = torch.exp(2 * cosines) / torch.exp(2 * cosines).sum()
    torch.testing.assert_close(made.shares(torch.tensor([[3.0, 4.0]])), expected)
    z, edge = latents([[3.0, 4.0]] * 4), expected[0, 0].item()
    uniform = torch.tensor([[edge - 1e-4, edge + 1e-4, 1 - 1e-6, 0.0]])
    drawn = made(z, with_draws(uniform=uniform))
    assert drawn.indices[0, :, 0].tolist() == [0, 1, 2, 0]
    torch.testing.assert_close(drawn.values[0, 1], torch.tensor([0.0, 1.0]))
    # |z - e|^2 = 2 - 2 cos, a mean over two channels
    distance = (2 - 2 * cosines[0][[0, 1, 2, 0]]).mean() / 2
    for name in ("codebook", "commitment"):
        torch.testing.assert_close(drawn.losses[name], distance)


def test_without_draws_it_is_the_nearest_and_codes_can_be_imposed():
    made, z = quantizer(), latents([[3.0, 4.0], [-1.0, 0.1]])
    assert made(z).indices[0, :, 0].tolist() == [1, 2]
    imposed = made(z, with_draws(chosen=torch.tensor([[[2], [0]]])))
    assert imposed.indices[0, :, 0].tolist() == [2, 0]
    made.after_step(Rng(0))
    torch.testing.assert_close(made.usage.sum(), torch.tensor(1.0))


def test_draws_are_keyed_by_sample():
    made = quantizer()
    layout = made.layout(((5,),))
    whole, part = (
        made.draw(layout, index, Rng(0, "quantizer", 3), Progress(3, 9)).uniform
        for index in (torch.arange(4), torch.tensor([2]))
    )
    assert whole.shape == (4, 5) and torch.equal(whole[2:3], part)


def test_a_stored_temperature_lies_among_the_weights():
    made = quantizer(temperature="stored")
    assert made.state_dict()["inverse_temperature"].item() == 10.0
    assert not made.inverse_temperature.requires_grad  # a drawn index passes no gradient on
    z = torch.tensor([[3.0, 4.0]])
    torch.testing.assert_close(made.shares(z), quantizer(temperature=0.1).shares(z))
    with pytest.raises(ValueError, match="l2_norm=false: stochastic_vq draws by the cosine"):
        StochasticVQConfig(l2_norm=False)


def test_levels_whose_draws_nothing_would_obey_are_refused(fails):
    with fails(ConfigError, "'stochastic_vq'"):
        build(ResidualConfig(quantizer=StochasticVQConfig.tiny()))
