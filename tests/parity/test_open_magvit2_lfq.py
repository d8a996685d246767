"""Open-MAGVIT2's quantizer against TencentARC/SEED-Voken: codes, entropies over all codes, and
gradients."""

import torch

from tests.support.open_magvit2 import recorded_indices
from vistok.config import validate_part
from vistok.config.registry import build
from vistok.core.records import Latents
from vistok.pretrained.tokenizers.open_magvit2_layout import quantizer_tree

CASE = "open_magvit2_lfq"
_SHARES = ("sample_minimization", "batch_maximization")
_PLAIN = {"codebook_weight": 1.0, "commit_weight": 1.0}


def rows(maps, books):
    """[B, C d, h, w] -> [B, h w C, d]: several codebooks in one latent are as many latents."""
    return maps.flatten(2).transpose(1, 2).unflatten(-1, (books, -1)).flatten(1, 2)


def maps(values, books, shape):
    return values.unflatten(1, (-1, books)).flatten(2).transpose(1, 2).reshape(shape)


def test_open_magvit2_lfq(recording):
    io, config = recording.io, recording.config
    shares = [config.get(f"{name}_weight", 1.0) for name in _SHARES]
    given = {**config, "n_embed": config.get("codebook_size") or 2 ** config["dim"]}
    tree = quantizer_tree("open_magvit2", {**given, "lossconfig": {"params": _PLAIN}})
    quantizer = build(validate_part("quantizer", tree)).train()
    books = config.get("num_codebooks", 1)
    z = io["z"].clone().requires_grad_()
    flat = rows(z, books)
    result = quantizer(Latents(flat, ((flat.shape[1],),)))
    assert torch.equal(result.indices, recorded_indices(io, quantizer.config.bits))
    recording.close(result.values, rows(io["quantized"], books), "quantized")
    found = quantizer.lookup(result.indices)
    if "codes_from_indices" in io:
        recording.close(found, rows(io["codes_from_indices"], books), "codes_from_indices")
    if "codebook" in io:
        bits = quantizer.config.bits
        every = torch.arange(2**bits)
        split, start = [], 0
        for count in quantizer.config.factors:
            split.append(every >> start & 2**count - 1)
            start += count
        recording.close(quantizer.lookup(torch.stack(split, -1)[None])[0], "codebook")
    sample, batch = result.losses["entropy_sample"], result.losses["entropy_batch"]
    recording.close(sample, "per_sample_entropy")
    recording.close(batch, "codebook_entropy")
    recording.close(result.losses["commitment"], "commitment")
    weights = quantizer.loss_weights
    entropy = weights["entropy_sample"] * sample + weights["entropy_batch"] * batch
    assert (weights["entropy_sample"], -weights["entropy_batch"]) == tuple(shares)
    recording.close(entropy, "entropy_aux_loss")
    total = entropy + result.losses["commitment"]
    (grad,) = torch.autograd.grad(total, z, retain_graph=True)
    recording.close(grad, "grad_losses")
    out = maps(result.values, books, z.shape)
    ramp = torch.linspace(-1, 1, out.numel()).view_as(out)
    (grad,) = torch.autograd.grad((out * ramp).sum(), z)
    recording.close(grad, "grad_ste")
