"""Projectors between features: their layers, by hand."""

import torch

from vistok.losses.projector import ProjectorConfig, projector


def test_a_normed_projector_by_hand():
    """Linear, LayerNorm, ReLU, Linear: the layers of Instella-T2I's repa_proj."""
    made = projector(ProjectorConfig(kind="normed"), 3, 5)
    assert {k: tuple(v.shape) for k, v in made.state_dict().items()} == {
        "0.weight": (3, 3), "0.bias": (3,), "1.weight": (3,), "1.bias": (3,),
        "3.weight": (5, 3), "3.bias": (5,),
    }  # fmt: skip
    with torch.no_grad():
        for parameter, value in zip(
            (made[0].weight, made[0].bias, made[3].weight, made[3].bias),
            (torch.eye(3), torch.zeros(3), torch.ones(5, 3), torch.ones(5)),
            strict=True,
        ):
            parameter.copy_(value)
    # Of 1, 2, 3 the norm makes -a, 0, a with a = (1 / (2/3 + 1e-5)) ** 0.5; the sum of what is
    # positive is a.
    found = made(torch.tensor([[1.0, 2.0, 3.0]]))
    assert torch.allclose(found, torch.full((1, 5), 1 + (1 / (2 / 3 + 1e-5)) ** 0.5), atol=1e-6)
