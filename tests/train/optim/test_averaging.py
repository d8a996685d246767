"""The average of weights against its closed form."""

from __future__ import annotations

import torch
from torch import nn

from vistok.train.optim.averaging import Average


def test_after_a_hundred_steps_it_is_the_closed_form():
    module = nn.Linear(3, 2)
    average = Average(module, decay=0.9, name="module")
    history = []
    for step in range(100):
        with torch.no_grad():
            module.weight.copy_(torch.sin(torch.arange(6.0) + step).view(2, 3))
        history.append(module.weight.detach().double().clone())
        average.update()
    # The weight of the k-th: its own share, times what every later update left of it.
    decays = [0.0] + [min(0.9, (1 + t) / (10 + t)) for t in range(1, 100)]
    expected = torch.zeros(2, 3, dtype=torch.float64)
    for k, value in enumerate(history):
        left = 1.0 - decays[k]
        for later in decays[k + 1 :]:
            left *= later
        expected += left * value
    assert (average.module.weight.double() - expected).abs().max() < 1e-6
