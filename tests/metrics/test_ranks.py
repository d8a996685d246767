"""Two and four processes: merged over ranks, every measure equals a single pass."""

from __future__ import annotations

import pytest

from tests.support.processes import run

START = """
import torch, numpy as np, torch.distributed as dist
torch.set_num_threads(1)
dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
"""

END = """
print("equal", flush=True)
dist.barrier()  # a rank that leaves early can abort its peer
dist.destroy_process_group()
"""

SETS = """
from vistok.metrics import FeatureStats, FeatureStore, InceptionScore, frechet_distance, kid, prdc
g = torch.Generator().manual_seed(0)
real, fake = torch.randn(2, 61, 16, generator=g) * 3 + 50
logits = 2 * torch.randn(61, 7, generator=g)

def numbers(rows, **alone):
    near, far = FeatureStats.of(real[rows]), FeatureStats.of(fake[rows])
    stores = [FeatureStore(16).update(x[rows], rows) for x in (real, fake)]
    score = InceptionScore(7, 61, **alone)
    for part in rows.split(9):
        score.update(logits[part], part)
    if not alone:
        near, far = near.reduce(), far.reduce()
        x, y = (store.gathered() for store in stores)
    else:
        x, y = real, fake
    found = [frechet_distance(near, far), *kid(y, x, 5, 30)[:2], *prdc(y, x), *score.compute()[:2]]
    return torch.tensor(found, dtype=torch.float64)

whole = numbers(torch.arange(61), sync_on_compute=False)
shared = numbers(torch.arange(61)[rank::world])
torch.testing.assert_close(shared, whole, rtol=1e-6, atol=1e-9)
assert torch.equal(shared[1:7], whole[1:7])  # of the same vectors in the same order
"""

IMAGES = """
from vistok.metrics import PSNR, SSIM, CodebookStats, FeatureStats
from vistok.tokens import TokenSpec
g = torch.Generator().manual_seed(0)
features = torch.randn(30, 5, generator=g) + 100
a, b = torch.rand(2, 5, 3, 8, 8, generator=g)
codes = torch.randint(0, 9, (5, 4, 1), generator=g)
spec = TokenSpec(blocks=((4,),), vocab=(9,))
mine = slice(0, 3) if rank == 0 else slice(3, 5)  # uneven shares
many = slice(0, 30) if rank == 0 else slice(30, 30)  # one rank has nothing

def fill(metric, *parts):
    metric.update(*parts)
    return metric

alone = [fill(PSNR(sync_on_compute=False), a, b), fill(SSIM(sync_on_compute=False), a, b)]
shared = [fill(PSNR(), a[mine], b[mine]), fill(SSIM(), a[mine], b[mine])]
for one, two in zip(alone, shared):
    np.testing.assert_allclose(one.compute(), two.compute(), rtol=1e-12)
whole = fill(CodebookStats(spec, sync_on_compute=False), codes).compute()
use = fill(CodebookStats(spec), codes[mine]).compute()
assert torch.equal(use.counts, whole.counts) and use.redundancy == whole.redundancy
assert use.images == 5
everything, part = FeatureStats.of(features), FeatureStats.of(features[many])
once = part.reduce()
assert once.count == 30 and part.reduce().count == 30  # asking twice counts nothing twice
np.testing.assert_allclose(once.mean, everything.mean, rtol=1e-13)
np.testing.assert_allclose(once.cov, everything.cov, rtol=1e-10, atol=1e-12)
half = FeatureStats.of(features[rank * 11 : 11 + rank * 19]).reduce()
np.testing.assert_allclose(half.cov, everything.cov, rtol=1e-10, atol=1e-12)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("script", "world"), [(IMAGES + SETS, 2), (SETS, 4)])
def test_ranks_equal_one(script, world, tmp_path):
    path = tmp_path / "ranks.py"
    path.write_text(START + script + END)
    done = run(str(path), processes=world)
    assert done.returncode == 0 and done.stdout.count("equal\n") == world, done.stderr
