"""The flow loss: mean squared error of velocities, and where there are none."""

import torch

from tests.support.latent_flow import latent_tree, wake
from vistok.config import ConfigError, validate
from vistok.core.records import Batch
from vistok.core.schedules import Progress
from vistok.losses.flow import FlowConfig, FlowLoss
from vistok.tokenizer import Tokenizer, TokenizerConfig


def test_the_loss_by_hand(fails):
    tokenizer = wake(Tokenizer(validate(TokenizerConfig, latent_tree(pixels=True))))
    batch = Batch(torch.arange(3), pixels=torch.rand(3, 3, 32, 32))
    draws = tokenizer.draw(batch.index, 0, Progress(0, 1))
    result = tokenizer(batch, draws, in_space=True)
    loss = FlowLoss(FlowConfig(weight=0.5))
    loss.bind(tokenizer)
    noise, clean = draws.part("decoder").noise, 2 * batch.pixels - 1
    expected = (result.decoded.prediction - (noise - clean)).square().mean()
    torch.testing.assert_close(loss(result, batch, Progress(0, 1))["flow"], expected)
    assert loss.weights(Progress(0, 1)) == {"flow": 0.5} and not loss.needs_pixels
    assert loss(tokenizer(batch, in_space=True), batch, Progress(0, 1)) == {}  # it samples
    vit = latent_tree(pixels=True) | {"decoder": {"kind": "vit", "patches": {"size": 8}}}
    vit["regularizers"] = []
    with fails(ConfigError, "this decoder predicts none", "flow_vit"):
        loss.bind(Tokenizer(validate(TokenizerConfig, vit)))
