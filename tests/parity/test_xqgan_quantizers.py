"""XQ-GAN's quantizers against lxa9867/ImageFolder: one scale, residual scales, binary scales."""

import torch

from tests.support.parity_family import flat
from tests.support.xqgan_family import official_entropies
from vistok.config import validate_part
from vistok.config.registry import build
from vistok.core.draws import Draws
from vistok.core.records import Latents
from vistok.core.shapes import cells
from vistok.pretrained.tokenizers import xqgan_quantizers as official
from vistok.quantizers.compose.levels import Levels

CASES = ("xqgan_vq_quantizer", "xqgan_ms_residual_quantizer", "xqgan_bsq_quantizer")
MAPPED = {
    "VectorQuantizer": official.vector_quantizer,
    "VectorQuantizer2": official.vector_quantizer_2,
    "LFQ": official.lookup_free,
}


def test_quantizer(recording):
    io, config = recording.io, recording.config
    quantizer, z = loaded(recording), io["z"]
    grid = tuple(z.shape[2:])
    assert quantizer.layout((grid,)).values == (grid,)
    with torch.no_grad():
        result = quantizer.eval()(latents(z))
        check_codes(recording, quantizer, result, grid)
    check_training(recording, quantizer.train(), levels(config, io, len(z)))


def loaded(recording):
    """The quantizer that the official arguments describe, with the recorded weights."""
    config = recording.config
    tree = official_entropies(MAPPED[config["class"]](config))
    quantizer = build(validate_part("quantizer", tree))
    state, weights = quantizer.state_dict(), recording.weights
    phis = [key for key in weights if key.startswith("quant_resi.")]
    known = {"embedding.weight", "ema_vocab_hit_SV", "scaler", *phis}
    assert set(weights) <= known | {"_none", "__none__"}
    for entry in official.entries(quantizer.config, "", ""):
        for key in entry.theirs:
            # The family's keys, but for a number of convolutions that only this class can be asked
            # for: they lie below `quant_resi` without a list in between.
            source = key if key in weights else key.replace("qresi_ls.", "")
            state[entry.ours] = entry.load(weights[source])
    quantizer.load_state_dict(state)
    return quantizer


def latents(z):
    return Latents(flat(z), (tuple(z.shape[2:]),))


def levels(config, io, batch):
    """[B, S] bool of the recorded draws; None if nothing was dropped."""
    if io.get("kept_scales") is None:
        return None
    keep = torch.full((batch,), len(config["v_patch_nums"]) + 1)
    dropped = int(batch * config.get("codebook_drop", 0.0))
    keep[:dropped] = io["kept_scales"][:dropped]
    return torch.arange(len(config["v_patch_nums"])) < keep[:, None]


def check_codes(recording, quantizer, result, grid):
    io = recording.io
    indices = result.indices
    if not isinstance(quantizer, Levels):
        assert torch.equal(indices[..., 0], io["indices"].flatten(1))
        recording.close(result.values, flat(io["quantised"]))
        recording.close(quantizer.lookup(indices), flat(io["quantised"]))
        return
    count, sizes = quantizer.count, [cells(block) for block in quantizer.blocks]
    for level, part in enumerate(indices.split(sizes, dim=1)):
        assert torch.equal(part[..., 0], io[f"indices.s{level}"])
        recording.close(quantizer.partial(indices, level + 1, grid), flat(io[f"f_hat.s{level}"]))
    recording.close(result.values, flat(io[f"f_hat.s{count - 1}"]))
    if "f_hat_from_indices" in io:
        recording.close(quantizer.lookup(indices), flat(io["f_hat_from_indices"]))
    if "var_input" in io:
        inputs = [
            quantizer.partial(indices, level, quantizer.blocks[level]) for level in range(1, count)
        ]
        recording.close(torch.cat(inputs, dim=1), "var_input")
    if "codebook" in io:
        atom = quantizer.atom(0)
        every = torch.arange(len(io["codebook"]))[None, :, None]
        recording.close(atom.lookup(every)[0] / atom.magnitude, "codebook")
        factors = [atom.magnitude * quantizer.config.magnitude**s for s in range(count)]
        recording.close(torch.tensor(factors), "scaler")


def check_training(recording, quantizer, levels):
    io = recording.io
    z = io["z"].clone().requires_grad_()
    result = quantizer(latents(z), None if levels is None else Draws(levels=levels))
    out = result.values.transpose(1, 2).reshape(z.shape)
    recording.close(out, "train.out")
    weighted = {n: result.losses[n] * w for n, w in quantizer.loss_weights.items()}
    recording.close(weighted["codebook"], "train.vq_loss")
    recording.close(weighted["commitment"], "train.commit_loss")
    entropy = sum(w for n, w in weighted.items() if n.startswith("entropy"))
    recording.close(torch.as_tensor(entropy), "train.entropy_loss")
    recording.close(usage(recording, quantizer, result.indices), "train.usage_percent")
    total = (out * torch.arange(out.numel()).view(out.shape).sin()).sum() + sum(weighted.values())
    total.backward()
    recording.close(z.grad, "train.grad_z")
    if "train.grad_codebook" in io:
        atom = quantizer.atom(0) if isinstance(quantizer, Levels) else quantizer
        recording.close(atom.codebook.grad, "train.grad_codebook")
    if "train.grad_phi0" in io:
        recording.close(quantizer.phis[0].weight.grad, "train.grad_phi0")


def usage(recording, quantizer, indices):
    """Percent of codes whose running hits reach 8 % of an equal share, after the first step.

    The original counts scales as steps: the first one's hits are taken over, the others' blended.
    """
    old = recording.weights["ema_vocab_hit_SV"]
    size, z = old.shape[-1], recording.io["z"]
    margin = z.numel() / z.shape[1] / size * 0.08
    blocks = quantizer.blocks if isinstance(quantizer, Levels) else (tuple(z.shape[2:]),)
    parts = indices.split([cells(block) for block in blocks], dim=1)
    rows = old.view(len(parts), size)
    hits = [part.flatten().bincount(minlength=size).float() for part in parts]
    running = [
        hits[0],
        *(0.9 * row + 0.1 * hit for row, hit in zip(rows[1:], hits[1:], strict=True)),
    ]
    return torch.stack([(row >= margin).float().mean() * 100 for row in running])
