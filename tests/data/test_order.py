from collections import Counter

import pytest

from vistok.data import Order, eval_indices


def test_each_epoch_is_a_permutation_and_nothing_is_dropped():
    order = Order(count=23, batch_size=5, seed=1)
    rows = [row for step in range(23) for row in order.indices(step)]  # five epochs
    assert Counter(rows) == Counter((e, i) for e in range(5) for i in range(23))
    epochs = [[i for e, i in rows if e == epoch] for epoch in range(5)]
    assert len({tuple(e) for e in epochs}) == 5 and epochs[0] != sorted(epochs[0])


def test_batches_larger_than_an_epoch():
    rows = Order(count=3, batch_size=8, seed=0).indices(1)
    assert [e for e, _ in rows] == [2, 3, 3, 3, 4, 4, 4, 5]


@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_share_the_same_global_batch(world):
    whole = Order(100, 12, seed=7)
    for step in (0, 3, 8, 9):
        shares = [Order(100, 12, seed=7).indices(step, r, world) for r in range(world)]
        assert [row for share in shares for row in share] == whole.indices(step)
        assert {len(share) for share in shares} == {12 // world}


def test_any_step_first():
    fresh, used = Order(50, 4, seed=3), Order(50, 4, seed=3)
    walked = [used.indices(step) for step in range(60)]
    assert fresh.indices(59) == walked[59] and fresh.indices(2) == walked[2]
    assert fresh.epoch(25) == 2.0


def test_seed_and_shuffle():
    assert Order(50, 50, seed=1).indices(0) != Order(50, 50, seed=2).indices(0)
    assert Order(50, 5, 0, shuffle=False).indices(11) == [(1, i) for i in range(5, 10)]


def test_the_order_is_pinned():
    """A changed order would silently change what a resumed run sees."""
    assert [i for _, i in Order(10, 10, seed=0).indices(0)] == [2, 1, 7, 9, 0, 3, 5, 4, 8, 6]


def test_errors():
    with pytest.raises(ValueError, match="does not split over 3 processes"):
        Order(10, 4, 0).indices(0, 0, 3)
    with pytest.raises(ValueError, match="count=0"):
        Order(0, 4, 0)


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize(("count", "size"), [(23, 5), (20, 5), (21, 5), (3, 8)])
def test_evaluation_visits_each_once(count, size, world):
    batches = [b for rank in range(world) for b in eval_indices(count, size, rank, world)]
    assert sorted(i for b in batches for i in b) == list(range(count))
    assert sorted(batches) == eval_indices(count, size)  # the same batches whatever the world
