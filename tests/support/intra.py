"""A small generator that predicts the factors of a token by a transformer, all weights moved."""

from __future__ import annotations

import torch

from vistok.config import validate
from vistok.core.records import Condition
from vistok.generators.autoregressive import Autoregressive, AutoregressiveConfig
from vistok.tokens import TokenSpec

SPEC = TokenSpec(blocks=((2, 3),), vocab=(64,))
LABEL = Condition(label=torch.tensor([0, 1, 2]))


def made(intra: dict, vocab=(4, 2, 8), spec: TokenSpec = SPEC, **changes) -> Autoregressive:
    tree = {
        "transformer": {"width": 16, "depth": 1, "heads": 2},
        "head": "intra",
        "intra": intra,
        "condition": {"classes": 3},
        "regroup": vocab,
        **changes,
    }
    torch.manual_seed(0)
    model = Autoregressive(validate(AutoregressiveConfig, tree), spec)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval()
