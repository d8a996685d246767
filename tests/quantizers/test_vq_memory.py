"""A codebook of 262,144 rows is searched and trained without a table of vectors x rows."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vistok.core.draws import Draws
from vistok.core.records import Latents
from vistok.quantizers import nearest
from vistok.quantizers.atoms.vq import VQ, VQConfig

ROWS, DIM, VECTORS = 262_144, 4, 1200


class Largest(TorchDispatchMode):
    """The most bytes of any one tensor that an operation gave, forward or backward."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.bytes = max([self.bytes, *(t.numel() * t.element_size() for t in tensors)])
        return result


def test_no_table_of_vectors_by_rows_forward_or_backward():
    quantizer = VQ(VQConfig(codebook_size=ROWS, dim=DIM)).train()
    z = torch.randn(2, VECTORS // 2, DIM, requires_grad=True)
    with Largest() as largest:
        result = quantizer(Latents(z, ((VECTORS // 2,),)))
        (sum(result.losses.values()) + result.values.square().sum()).backward()
    # The gradient is as large as the codebook, a tile of scores is 16 MB; all scores are 1.2 GB.
    assert ROWS * DIM * 4 <= largest.bytes <= 4 * nearest._ROWS * nearest._CODES == 2**24
    assert z.grad.abs().sum() > 0
    hit = quantizer.codebook.grad.abs().sum(-1).nonzero().flatten()
    assert torch.equal(hit, result.indices.unique())


def test_perturbation_keeps_to_tiles_too():
    quantizer = VQ(VQConfig(codebook_size=ROWS, dim=DIM)).train()
    z = torch.randn(1, 48, DIM)
    ranks = torch.full((1, 48, 1), 5)
    with Largest() as largest:
        result = quantizer(Latents(z, ((48,),)), Draws(ranks=ranks))
    assert largest.bytes <= 2**24 < 48 * ROWS * 4
    assert not torch.equal(result.values, result.clean)
