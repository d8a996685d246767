"""Relations of a codebook against hand-made numbers, and its files."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vistok.config import ConfigError, validate
from vistok.core.schedules import Progress
from vistok.frozen import BadWeights, MissingWeights
from vistok.losses.codebook_relations import (
    CodebookRelationsConfig,
    CodebookRelationsLoss,
    log_histograms,
    relation_distance,
)

# Cosines between (1, 0), (0, 1) and (1, 1) / sqrt(2).
HALF = 2**-0.5
COSINES = torch.tensor([[1, 0, HALF], [0, 1, HALF], [HALF, HALF, 1]])
VECTORS = torch.tensor([[2.0, 0.0], [0.0, 5.0], [3.0, 3.0]])


class Book(nn.Module):
    """Stands for a tokenizer."""

    def __init__(self, rows: torch.Tensor) -> None:
        super().__init__()
        self.quantizer = nn.Module()
        self.quantizer.codebook = nn.Parameter(rows.clone())
        self.regularizers = []
        self.shape = SimpleNamespace(is_clip=False)


def bound(rows=VECTORS, **options) -> CodebookRelationsLoss:
    loss = CodebookRelationsLoss(validate(CodebookRelationsConfig, options))
    loss.bind(Book(rows))
    return loss


def test_histograms_leave_out_a_code_itself():
    e = torch.tensor(HALF).exp() / (torch.tensor(HALF).exp() + 1)  # at T = 1
    expected = torch.stack(
        [torch.stack([1 - e, e]), torch.stack([1 - e, e]), torch.full((2,), 0.5)]
    )
    torch.testing.assert_close(log_histograms(COSINES, 1.0).exp(), expected)
    sharp = log_histograms(COSINES, 0.01).exp()
    torch.testing.assert_close(sharp[0], torch.tensor([0.0, 1.0]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("distance", ["kl", "l1"])
def test_distance_by_hand(distance):
    # Every code as near as every other: histograms (1/2, 1/2).
    even = torch.zeros(3, 3)
    e = (torch.tensor(HALF).exp() / (torch.tensor(HALF).exp() + 1)).item()
    own = torch.tensor([[1 - e, e], [1 - e, e], [0.5, 0.5]])
    by_hand = {
        "kl": (0.5 * (0.5 / own).log()).sum(1).mean(),
        "l1": (own - 0.5).abs().sum(1).mean() / 2,
    }
    found = relation_distance(VECTORS, even, 1.0, distance)
    torch.testing.assert_close(found, by_hand[distance])
    same = relation_distance(VECTORS, COSINES, 1.0, distance)
    assert same.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("of", ["cosines", "vectors"])
def test_a_codebook_learns_the_relations_of_a_file(of, tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"given": COSINES if of == "cosines" else VECTORS}, path)
    torch.manual_seed(0)
    loss = bound(torch.randn(3, 4), path=str(path), tensor="given", of=of, temperature=0.5)
    (codebook,) = loss.borrowed
    optimizer = torch.optim.Adam([codebook], lr=0.05)
    for step in range(200):
        term = loss(None, None, Progress(step, 200))["codebook_relations"]
        if step == 0:
            first = term.item()
        optimizer.zero_grad()
        term.backward()
        optimizer.step()
    assert first > 0.02 and term.item() < 1e-4
    units = nn.functional.normalize(codebook.detach(), dim=1)
    # Adding a constant to a row of cosines changes no histogram: differences must agree.
    found = units @ units.T
    assert (found[0, 2] - found[0, 1]).item() == pytest.approx(HALF, abs=0.02)
    assert len(loss.relations.sha256) == 64 and not list(loss.state_dict())


def test_what_is_refused_in_one_line(fails, tmp_path):
    path = tmp_path / "a.safetensors"
    with fails(MissingWeights, "no relations at .*none.safetensors; make them with"):
        bound(path=str(tmp_path / "none.safetensors"))
    save_file({"relations": torch.zeros(4, 4), "hits": torch.zeros(4)}, path)
    with fails(BadWeights, r"gives relations \(4, 4\); expected finite ones between the 3 codes"):
        bound(path=str(path))
    with fails(BadWeights, "holds no matrix 'hits'; it has hits, relations"):
        bound(path=str(path), tensor="hits")
    with fails(ConfigError, "'quantizer.other', which is no matrix .* quantizer.codebook"):
        bound(codebook="quantizer.other")
