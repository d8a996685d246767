"""IBQ's tokenizer against TencentARC/SEED-Voken: stages, end to end, losses, weights."""

import torch

from tests.support.parity_family import flat
from vistok.core.records import Latents
from vistok.pretrained import from_official, to_official

CASE = "ibq_image"
ENTROPIES = {"entropy_sample": 1.0, "entropy_batch": -1.0}


def test_ibq_image(recording):
    io, config = recording.io, recording.config
    tokenizer = from_official("ibq", recording.weights, config)
    state, official = to_official(tokenizer)
    assert set(state) == set(recording.weights)
    assert all(torch.equal(state[key], tensor) for key, tensor in recording.weights.items())
    for key, value in official.items():
        assert value == (config.get(key, value) if key != "ddconfig" else value)
    assert {k: official["ddconfig"][k] for k in config["ddconfig"]} == config["ddconfig"]
    if config.get("use_entropy_loss"):  # terms are there of weights of 0 as well
        quantizer = tokenizer.quantizer
        quantizer.loss_weights = quantizer.loss_weights | ENTROPIES
    images, indices = (io["image"] + 1) / 2, io["indices"].view(len(io["image"]), -1)
    with torch.no_grad():
        latents = tokenizer.latents(images)
        recording.close(latents.values, flat(io["z"]), "z")
        quantized = tokenizer.quantize(Latents(flat(io["z"]), latents.grids))
        assert torch.equal(quantized.indices[..., 0], indices)
        recording.close(quantized.values, flat(io["quantized"]), "quantized")
        decoded = tokenizer.reconstruct(flat(io["quantized"])).estimate
        recording.close(decoded, "decoded")
        tokens = tokenizer.encode(images)
        assert torch.equal(tokens.indices[..., 0].long(), indices)
        shown = (io["decoded_from_indices"] / 2 + 0.5).clamp(0, 1)
        recording.close(tokenizer.decode(tokens), shown, "decoded_from_indices")
    losses = quantized.losses
    weights = {"quantize": 1.0, "commitment": 1.0, "codebook": config.get("beta", 0.25)}
    recording.close(sum(losses[k] * w for k, w in weights.items()), "quant_loss")
    if config.get("use_entropy_loss"):
        recording.close(losses["entropy_sample"], "sample_entropy")
        recording.close(losses["entropy_batch"], "avg_entropy")
        names = "sample_minimization_weight", "batch_maximization_weight"
        shares = [config.get(name, 1.0) for name in names]
        loss = shares[0] * losses["entropy_sample"] - shares[1] * losses["entropy_batch"]
        recording.close(loss, "entropy_loss")
