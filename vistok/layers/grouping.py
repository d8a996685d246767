"""Groups of cells, found from the cells themselves: clusters of a clip, tracks through its frames.

Nothing here learns and nothing is drawn: k-means starts at the point nearest to the mean and goes
on with the farthest ones, so that a sample's groups depend on that sample alone.
Letters: B batch, M cells, T frames, n cells of a frame, K groups, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def farthest_first(rows: Tensor, count: int) -> Tensor:
    """[B, M, D] -> [B, count, D]: the row nearest to the mean, then each time the row whose nearest
    chosen one is farthest (the greedy form of k-means++)."""
    first = distances(rows, rows.mean(1, keepdim=True))[..., 0].argmin(1)
    chosen = [_row(rows, first)]
    near = distances(rows, chosen[0])[..., 0]  # [B, M]
    for _ in range(count - 1):
        chosen.append(_row(rows, near.argmax(1)))
        near = torch.minimum(near, distances(rows, chosen[-1])[..., 0])
    return torch.cat(chosen, dim=1)


def cosine_kmeans(rows: Tensor, start: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Clusters of unit rows [B, M, D] by their cosine: (ids [B, M], mean distance 1 - cos [B]).

    A cluster without members keeps its center.

    Args:
        start: [B, K, D] unit centers.
    """
    centers, count = start, start.shape[1]
    for _ in range(steps):
        ids = (rows @ centers.transpose(1, 2)).argmax(-1)
        sums, sizes = gathered(rows, ids, count)
        fresh = F.normalize(sums, dim=-1)
        centers = torch.where(sizes[..., None] > 0, fresh, centers)
    best, ids = (rows @ centers.transpose(1, 2)).max(-1)
    return ids, 1 - best.mean(-1)


def elbow(costs: Tensor, least: int) -> Tensor:
    """Costs [B, n] of least - 1, least, ... clusters -> [B] the number at which they bend most,
    which has the largest second difference; n - 2 numbers are compared, from `least` on."""
    bend = costs[:, :-2] - 2 * costs[:, 1:-1] + costs[:, 2:]
    return least + bend.argmax(1)


def clusters(rows: Tensor, count: int, least: int | None, steps: int) -> Tensor:
    """Ids [B, M] of clusters of rows [B, M, D].

    Args:
        least: the number is chosen for each sample by `elbow` of least..count; None = count.
    """
    rows = F.normalize(rows, dim=-1)
    start = farthest_first(rows, count)
    if least is None or least == count:
        return cosine_kmeans(rows, start, steps)[0]
    low = max(least - 1, 1)
    found = [cosine_kmeans(rows, start[:, :k], steps) for k in range(low, count + 1)]
    costs = torch.stack([cost for _, cost in found], dim=1)
    if low == least:  # least = 1: nothing has a cost below it, so that 1 cannot be the bend
        costs = torch.cat([costs[:, :1], costs], dim=1)
    costs = torch.cat([costs, costs[:, -1:]], dim=1)  # more than `count` would gain nothing
    chosen = elbow(costs, least) - low
    ids = torch.stack([one for one, _ in found], dim=1)
    return ids[torch.arange(len(rows), device=rows.device), chosen]


def tracks(rows: Tensor, count: int, threshold: float, key_every: int, momentum: float) -> Tensor:
    """Ids [B, T, n] of tracks of rows [B, T, n, D], at most `count`.

    In each `key_every`-th frame the row farthest from all tracks begins a new one, as long as its
    squared distance is above the threshold. In every frame a cell goes to the nearest track, whose
    center then moves to its members' mean: center <- momentum center + (1 - momentum) mean.
    """
    batch, frames, _, width = rows.shape
    centers, alive = rows.new_zeros(batch, count, width), rows.new_zeros(batch, 1).long()
    slots, ids = torch.arange(count, device=rows.device), []
    for frame in range(frames):
        seen = rows[:, frame]
        if frame % key_every == 0:
            far = distances(seen, centers).masked_fill(slots >= alive[..., None], torch.inf)
            near = far.amin(-1)  # [B, n]
            for _ in range(count):
                most, place = near.max(1, keepdim=True)
                begins = (most > threshold) & (alive < count)  # [B, 1]
                fresh = _row(seen, place[:, 0])
                here = begins & (slots == alive)  # [B, K]
                centers = torch.where(here[..., None], fresh, centers)
                closer = torch.minimum(near, distances(seen, fresh)[..., 0])
                near, alive = torch.where(begins, closer, near), alive + begins
        far = distances(seen, centers).masked_fill(slots >= alive[..., None], torch.inf)
        ids.append(far.argmin(-1))
        sums, sizes = gathered(seen, ids[-1], count)
        moved = momentum * centers + (1 - momentum) * sums / sizes.clamp_min(1)[..., None]
        centers = torch.where(sizes[..., None] > 0, moved, centers)
    return torch.stack(ids, dim=1)


def by_size(ids: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Ids [B, M] numbered anew, the largest group first, and how many there are [B]."""
    sizes = F.one_hot(ids, count).sum(1)
    order = sizes.argsort(dim=1, descending=True, stable=True)
    return order.argsort(dim=1).gather(1, ids), (sizes > 0).sum(1)


def gathered(rows: Tensor, ids: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Sums [B, K, D] of the rows [B, M, D] of each group, and their numbers [B, K]."""
    member = F.one_hot(ids, count).to(rows.dtype)
    return member.transpose(1, 2) @ rows, member.sum(1)


def distances(rows: Tensor, centers: Tensor) -> Tensor:
    """Squared distances [B, M, K] of rows [B, M, D] and centers [B, K, D]."""
    squares = rows.square().sum(-1)[..., None] + centers.square().sum(-1)[:, None]
    return (squares - 2 * rows @ centers.transpose(1, 2)).clamp_min(0)


def _row(rows: Tensor, at: Tensor) -> Tensor:
    """Rows [B, 1, D] of [B, M, D] at places [B]."""
    return rows[torch.arange(len(rows), device=rows.device), at][:, None]
