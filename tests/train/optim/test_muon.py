"""Muon: torch's own steps in bf16, singular values near one, matrices only."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vistok.train.optim.muon import Muon, orthogonal
from vistok.train.optim.optimizers import AdamWConfig, MuonConfig, make_optimizers


def test_bf16_takes_torchs_steps():
    torch.manual_seed(0)
    start = [torch.randn(shape) for shape in ((12, 8), (8, 12), (12, 8), (6, 6))]
    mine, theirs = ([nn.Parameter(s.clone()) for s in start] for _ in range(2))
    a = Muon(mine, lr=0.01, weight_decay=0.1, dtype=torch.bfloat16)
    b = torch.optim.Muon(theirs, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for step in range(3):
        for p, q in zip(mine, theirs, strict=True):
            p.grad = q.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(step))
        a.step()
        b.step()
    for p, q, s in zip(mine, theirs, start, strict=True):
        # Batched and single products may round differently: one bf16 step of an update.
        assert torch.allclose(p, q, atol=2e-4)
        assert (p - s).abs().max() > 1e-3


@pytest.mark.parametrize("shape", [(3, 16, 8), (2, 8, 16), (1, 8, 8)])
def test_updates_are_almost_orthogonal(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(orthogonal(matrices))
    assert values.min() > 0.6 and values.max() < 1.25
    # The same left and right directions: U V^T is the nearest orthogonal matrix.
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    assert (
        torch.nn.functional.cosine_similarity(
            orthogonal(matrices).flatten(), (u @ v).flatten(), dim=0
        )
        > 0.97
    )


def test_vectors_are_refused_and_left_to_adamw():
    with pytest.raises(ValueError, match="matrices"):
        Muon([nn.Parameter(torch.zeros(3))])
    module = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(4, 4)]), "head": nn.Linear(4, 2)})
    first, rest = make_optimizers(MuonConfig(rest=AdamWConfig(lr=1e-3)), module)
    assert [p.shape for g in first.param_groups for p in g["params"]] == [(4, 4)]
    assert sum(len(g["params"]) for g in rest.param_groups) == 3
