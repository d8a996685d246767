"""Networks of losses that train beside the tokenizer have learning-rate factors of their own."""

import pytest
from torch import nn

from vistok.train.optim.optimizers import AdamWConfig, MuonConfig, optimizers_of
from vistok.train.tasks.base import Phase


@pytest.mark.parametrize("config", [AdamWConfig(lr=1e-4), MuonConfig(lr=1e-4)])
def test_a_factor_of_a_network_beside(config):
    phase = Phase("tokenizer", beside=("prior", "other"), lr_factors={"0": 0.5, "prior": 50.0})
    modules = {"tokenizer": nn.Sequential(nn.Linear(2, 2)), "prior": nn.Linear(2, 2)}
    found = optimizers_of(config, phase, {**modules, "other": nn.Linear(2, 2)})
    rest = config.lr if config.kind == "adamw" else config.rest.lr
    rates = {
        name: max(group["lr"] for one in optimizers for group in one.param_groups)
        for name, optimizers in found.items()
    }
    assert rates == pytest.approx({"tokenizer": rest * 0.5, "prior": rest * 50, "other": rest})
