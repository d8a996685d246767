"""Two tables with one index, and scales that learn by themselves (TokenFlow)."""

import pytest
import torch
import torch.nn.functional as F

from vistok.config import ConfigError, validate_part
from vistok.config.registry import build
from vistok.core.draws import Draws
from vistok.core.records import Latents
from vistok.quantizers import Quantizer

WEIGHTS = {"codebook": 1.0, "commitment": 0.25, "entropy_sample": 0.1, "entropy_batch": -0.1}
ATOM = {"kind": "dual", "codebook_size": 24, "parts": [4, 3], "loss_weights": WEIGHTS}
SCALES = {"kind": "multi_scale", "scales": [1, 2, 3], "phi": None, "learn": "levels"}
SCALES |= {"dropped": "skip", "quantizer": ATOM}


def made(tree) -> Quantizer:
    torch.manual_seed(0)
    return build(validate_part("quantizer", tree))


def halves(rows):
    return [F.normalize(part, dim=-1) for part in rows.split((4, 3), -1)]


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.0, 6.0), (0.2, 1.0)])
def test_the_index_is_nearest_in_both_parts_together(weights):
    quantizer = made(ATOM | {"distance_weights": weights})
    z = torch.randn(2, 40, 7)
    found = quantizer(Latents(z, ((40,),)))
    pairs = zip(weights, halves(z), halves(quantizer.codebook), strict=True)
    far = sum(w * (a[:, :, None] - e).square().sum(-1) for w, a, e in pairs)
    assert torch.equal(found.indices[..., 0], far.argmin(-1))
    near = quantizer.neighbours(found.queries, 5)[:, :, 0, :, 0]
    assert torch.equal(near, far.topk(5, largest=False).indices)
    for part in found.values.split((4, 3), -1):
        torch.testing.assert_close(part.norm(dim=-1), torch.ones(2, 40))


def test_a_dropped_scale_leaves_its_share_to_the_later_ones():
    """A pass that skips a scale is that of a quantizer without it."""
    whole = made(SCALES).train()
    fewer = made(SCALES | {"scales": [1, 3]}).train()
    fewer.load_state_dict(whole.state_dict())
    z = torch.randn(2, 9, 7, requires_grad=True)
    levels = torch.tensor([True, False, True]).expand(2, -1)
    one = whole(Latents(z, ((3, 3),)), Draws(levels=levels))
    two = fewer(Latents(z, ((3, 3),)))
    kept = [0, *range(5, 14)]
    assert torch.equal(one.indices[:, kept], two.indices)
    torch.testing.assert_close(one.values, two.values)
    for name in WEIGHTS:
        torch.testing.assert_close(one.losses[name], two.losses[name])
    total = lambda found: sum(found.losses.values()) + found.values.square().sum()
    given = [torch.autograd.grad(total(found), z)[0] for found in (one, two)]
    torch.testing.assert_close(*given)
    clean = whole(Latents(z, ((3, 3),)))
    assert not torch.equal(clean.indices[:, kept], two.indices)


def test_images_that_drop_other_scales_are_averaged_one_by_one():
    tree = SCALES | {"quantizer": ATOM | {"loss_weights": {"codebook": 1.0, "commitment": 0.25}}}
    quantizer = made(tree).train()
    z = torch.randn(2, 9, 7)
    levels = torch.tensor([[True, True, True], [True, False, False]])
    both = quantizer(Latents(z, ((3, 3),)), Draws(levels=levels))
    alone = [
        quantizer(Latents(z[i : i + 1], ((3, 3),)), Draws(levels=levels[i : i + 1])) for i in (0, 1)
    ]
    torch.testing.assert_close(both.values, torch.cat([one.values for one in alone]))
    for name in ("codebook", "commitment"):
        mean = sum(one.losses[name] for one in alone) / 2
        torch.testing.assert_close(both.losses[name], mean)


def test_gradients_go_through_each_scale():
    """The straight-through of a scale is that of its normalized, pooled latents."""
    quantizer = made(SCALES | {"scales": [1, 2]})
    z = torch.randn(1, 4, 7, requires_grad=True)
    quantizer(Latents(z, ((2, 2),))).values.sum().backward()
    own = z.detach().requires_grad_()
    pooled = torch.cat(halves(own.mean(1, keepdim=True)), -1).expand(1, 4, 7)
    codes = quantizer.up(quantizer.atom(0).lookup(quantizer.atom(0).search(
        Latents(own.detach().mean(1, keepdim=True), ((1, 1),)))[0]), 0)  # fmt: skip
    fine = torch.cat(halves(own - codes.detach()), -1)
    (pooled + fine).sum().backward()
    torch.testing.assert_close(z.grad, own.grad)


def test_what_cannot_learn_so_is_told_in_one_line():
    with pytest.raises(ConfigError, match=r"learn=levels .*'lfq' has none; expected vq or dual"):
        made(SCALES | {"quantizer": {"kind": "lfq", "bits": 4}})
    with pytest.raises(ConfigError, match=r"dim=9, but parts=\[4, 3\] have 7 channels"):
        validate_part("quantizer", ATOM | {"dim": 9})
