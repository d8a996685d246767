"""Next-scale prediction on tokens of TokenFlow: sums of unit codes, one index for two tables."""

import torch

from vistok.config import validate, validate_part
from vistok.config.registry import build
from vistok.core.records import Condition, Latents
from vistok.generators.next_scale import NextScale, NextScaleConfig
from vistok.quantizers import Quantizer
from vistok.tokens import Tokens

ATOM = {"kind": "dual", "codebook_size": 16, "parts": [3, 2]}
TREE = {"kind": "multi_scale", "scales": [1, 2, 3], "phi": None, "learn": "levels"}
TREE |= {"dropped": "skip", "quantizer": ATOM}


def test_it_learns_and_samples_tokens_of_two_tables():
    torch.manual_seed(0)
    quantizer: Quantizer = build(validate_part("quantizer", TREE)).eval()
    layout = quantizer.layout(((3, 3),))
    with torch.no_grad():
        indices = quantizer(Latents(torch.randn(8, 9, 5), ((3, 3),))).indices
    tokens = Tokens(layout.spec, indices=indices.to(Tokens.dtype(layout.spec)))
    trunk = {"width": 32, "depth": 2, "heads": 2}
    config = validate(NextScaleConfig, {"transformer": trunk, "condition": {"classes": 2}})
    model: NextScale = build(config, layout.spec, quantizer)
    given = Condition(label=torch.arange(8) % 2)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(15):
        loss = model(tokens, given)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    sampled = model.eval().sample(given, index=torch.arange(8), seed=1)
    assert sampled.spec == layout.spec and sampled.indices.shape == (8, 14, 1)
    values = quantizer.lookup(sampled.indices.long())
    assert values.shape == (8, 9, 5) and bool(values.isfinite().all())
