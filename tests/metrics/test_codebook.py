"""Codebook use: hand-made numbers, factorized vocabularies, prefixes, merging."""

from __future__ import annotations

import pytest
import torch

from vistok.metrics import CodebookStats, codebook
from vistok.tokens import TokenSpec


def _use(spec: TokenSpec, rows: list, kept: list | None = None):
    stats = CodebookStats(spec)
    kept = None if kept is None else torch.tensor(kept)
    stats.update(torch.tensor(rows).view(len(rows), spec.length, len(spec.vocab)), kept)
    return stats.compute()


def test_by_hand():
    spec = TokenSpec(blocks=((2, 2),), vocab=(8,))
    use = _use(spec, [[0, 0, 1, 2], [0, 3, 3, 3]])  # counts 3, 1, 1, 3
    assert use.counts.tolist() == [3, 1, 1, 3, 0, 0, 0, 0]
    assert use.usage == 0.5 == use.factor_usage[0]
    entropy = -2 * (3 / 8 * torch.tensor(3 / 8).log2() + 1 / 8 * -3.0).item()
    assert use.entropy == pytest.approx(entropy)
    assert use.perplexity == pytest.approx(2**entropy)
    assert use.position_entropy.tolist() == [0.0, 1.0, 1.0, 1.0]
    assert use.redundancy == pytest.approx((1 + 3) / 12)  # equal pairs: 1 of 6, 3 of 6
    assert (use.images, use.positions) == (2, 8)


def test_redundancy_is_the_mean_over_slot_pairs():
    spec = TokenSpec(blocks=((6,),), vocab=(3,))
    rows = torch.randint(0, 3, (50, 6, 1), generator=torch.Generator().manual_seed(0))
    stats = CodebookStats(spec)
    stats.update(rows)
    pairs = [(a, b) for a in range(6) for b in range(a)]
    truth = sum((rows[:, a] == rows[:, b]).double().mean() for a, b in pairs) / len(pairs)
    assert stats.compute().redundancy == pytest.approx(float(truth), abs=1e-12)


def test_uniform_use_is_the_bound():
    spec = TokenSpec(blocks=((16,),), vocab=(16,))
    use = _use(spec, [list(range(16))])
    assert use.usage == 1 and use.redundancy == 0
    assert use.entropy == pytest.approx(4) and use.perplexity == pytest.approx(16)


def test_factors_and_joint():
    spec = TokenSpec(blocks=((2,),), vocab=(2, 3))
    use = _use(spec, [[[0, 0], [1, 2]], [[1, 2], [1, 2]]])  # codes 0, 5, 5, 5 (fastest first)
    assert use.counts.tolist() == [1, 0, 0, 0, 0, 3]
    assert use.usage == pytest.approx(2 / 6)
    assert use.factor_usage == (1.0, pytest.approx(2 / 3))
    assert [c.tolist() for c in use.factor_counts] == [[1, 3], [1, 0, 3]]
    assert use.factor_entropy[0] == pytest.approx(use.entropy)
    assert use.redundancy == 0.5


def test_vocabularies_beyond_counting_keep_their_factors():
    spec = TokenSpec(blocks=((3,),), vocab=(2,) * 70)
    rows = torch.zeros(2, 3, 70, dtype=torch.uint8)
    rows[0, 1:, 69] = 1  # slots 1 and 2 agree, and differ from 0 in the last bit alone
    rows[1, 1, 0] = 1
    stats = CodebookStats(spec)
    stats.update(rows)
    use = stats.compute()
    assert use.usage is use.entropy is use.counts is use.position_entropy is None
    assert use.factor_usage[0] == use.factor_usage[69] == 1 and use.factor_usage[1] == 0.5
    assert use.redundancy == pytest.approx(2 / 6)


def test_only_kept_positions_count():
    spec = TokenSpec(blocks=((3,),), vocab=(4,), prefix="token")
    use = _use(spec, [[1, 2, 0], [1, 1, 1]], [[True, True, False], [True, False, False]])
    assert use.counts.tolist() == [0, 2, 1, 0] and use.positions == 3
    assert use.redundancy == 0 and use.position_entropy.tolist() == [0, 0, 0]


def test_merge_is_a_single_pass():
    spec = TokenSpec(blocks=((4,),), vocab=(5, 7))
    rows = torch.stack(
        [torch.randint(0, v, (20, 4), generator=torch.Generator().manual_seed(v)) for v in (5, 7)],
        -1,
    )
    whole, left, right = (CodebookStats(spec) for _ in range(3))
    whole.update(rows)
    left.update(rows[:3])
    right.update(rows[3:11])
    right.update(rows[11:])
    a, b = whole.compute(), left.merge(right).compute()
    assert torch.equal(a.counts, b.counts) and torch.equal(a.position_entropy, b.position_entropy)
    assert (a.entropy, a.redundancy, a.images) == (b.entropy, b.redundancy, b.images)


@pytest.mark.parametrize("size", [2**22 + 1, 2**30, 2**48], ids=str)
def test_vocabularies_beyond_a_table_are_counted_by_what_occurs(size, monkeypatch):
    """The numbers of the same codes in a small table, and no table as large as the vocabulary."""
    small, large = (TokenSpec(blocks=((6,),), vocab=(k,)) for k in (1000, size))
    codes = torch.randint(0, 1000, (40, 6, 1), generator=torch.Generator().manual_seed(1))
    places = torch.arange(1000) * ((size - 1) // 999)  # 0, ..., near the last
    monkeypatch.setattr(codebook, "_LATER", 50)
    one, left, right = CodebookStats(small), CodebookStats(large), CodebookStats(large)
    one.update(codes)
    for part in codes[:25].split(5):
        left.update(places[part])
    right.update(places[codes[25:]])
    a, b = one.compute(), left.merge(right).compute()
    assert max(t.numel() for t in left.metric_state.values() if isinstance(t, torch.Tensor)) < 10
    assert b.usage == a.usage * 1000 / size == b.factor_usage[0]
    assert b.entropy == pytest.approx(a.entropy, abs=1e-12) == b.factor_entropy[0]
    assert b.perplexity == pytest.approx(a.perplexity) and b.redundancy == a.redundancy
    assert b.counts is None and a.counts is not None and b.sizes == (size,)
    assert b.factor_counts[0].tolist() == a.counts[a.counts > 0].tolist()
    with pytest.raises(ValueError, match="expected each factor below"):
        left.update(torch.full((1, 6, 1), size))


def test_one_large_factor_among_small_ones():
    spec = TokenSpec(blocks=((2,),), vocab=(4, 2**30, 3))
    use = _use(spec, [[[0, 2**30 - 1, 2], [1, 5, 2]], [[0, 5, 1], [0, 5, 1]]])
    assert use.usage is None and use.redundancy == 0.5
    assert [c.tolist() for c in use.factor_counts] == [[3, 1, 0, 0], [3, 1], [0, 2, 2]]
    assert use.factor_usage == (0.5, 2 / 2**30, pytest.approx(2 / 3))
    assert use.factor_entropy[1] == pytest.approx(use.factor_entropy[0])
    nothing = CodebookStats(spec)
    nothing.update(torch.zeros(1, 2, 3, dtype=torch.long), torch.zeros(1, 2, dtype=torch.bool))
    assert nothing.compute().factor_usage == (0, 0, 0)


def test_refusals_are_one_line():
    with pytest.raises(ValueError, match="continuous tokens have no codebook"):
        CodebookStats(TokenSpec(blocks=((2,),), vocab=(), dim=4))
    stats = CodebookStats(TokenSpec(blocks=((2,),), vocab=(4, 2)))
    with pytest.raises(ValueError, match="expected \\[B, 2, 2\\]"):
        stats.update(torch.zeros(1, 3, 2, dtype=torch.long))
    with pytest.raises(ValueError, match="run from 0 to 2"):
        stats.update(torch.tensor([[[0, 2], [1, 1]]]))
    with pytest.raises(ValueError, match="seen no image"):
        stats.compute()
