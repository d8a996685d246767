"""IBQ's quantizer against TencentARC/SEED-Voken: codes, losses, and the gradient of every row."""

import torch

from tests.support.parity_family import flat
from vistok.config import validate_part
from vistok.config.registry import build
from vistok.core.records import Latents
from vistok.pretrained.tokenizers.ibq import quantizer_tree

CASE = "ibq_quantizer"
ENTROPIES = {"entropy_sample": 1.0, "entropy_batch": -1.0}


def test_ibq_quantizer(recording):
    io, config = recording.io, recording.config
    quantizer = build(validate_part("quantizer", quantizer_tree(config)))
    (weight,) = recording.weights.values()
    if config.get("use_entropy_loss"):  # terms are there of weights of 0 as well
        quantizer.loss_weights = quantizer.loss_weights | ENTROPIES
    quantizer.load_state_dict({"codebook": weight})
    z = io["z"].clone().requires_grad_()
    result = quantizer.train()(Latents(flat(z), (tuple(z.shape[2:]),)))
    assert torch.equal(result.indices.flatten(), io["indices"])
    recording.close(result.values, flat(io["quantized"]), "quantized")
    recording.close(quantizer.lookup(result.indices), flat(io["codes_from_indices"]))
    weights = {"quantize": 1.0, "commitment": 1.0, "codebook": config.get("beta", 0.25)}
    losses = {name: result.losses[name] * weight for name, weight in weights.items()}
    quant = sum(losses.values())
    recording.close(quant, "quant_loss")
    out = result.values.transpose(1, 2).reshape(z.shape)
    wanted = {"quant_loss": quant, "output": (out * _ramp(out)).sum()}
    if config.get("use_entropy_loss"):
        recording.close(result.losses["entropy_sample"], "sample_entropy")
        recording.close(result.losses["entropy_batch"], "avg_entropy")
        names = "sample_minimization_weight", "batch_maximization_weight"
        shares = [config.get(name, 1.0) for name in names]
        sample, batch = result.losses["entropy_sample"], result.losses["entropy_batch"]
        wanted["entropy"] = shares[0] * sample - shares[1] * batch
        recording.close(wanted["entropy"], "entropy_loss")
    for name, scalar in wanted.items():
        grads = torch.autograd.grad(scalar, [z, quantizer.codebook], retain_graph=True)
        recording.close(grads[0], f"grad_z_{name}")
        recording.close(grads[1], f"grad_emb_{name}")


def _ramp(like):
    return torch.linspace(-1, 1, like.numel()).view_as(like)
