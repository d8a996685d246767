"""LlamaGen's VQ against FoundationVision/LlamaGen: stage by stage, end to end, and its weights."""

import torch

from tests.support.parity_family import built, flat
from vistok.core.records import Latents

CASE = "llamagen_vq"


def pixels(recording):
    return (recording.io["image"] + 1) / 2


def test_llamagen_vq(recording):
    io, tokenizer = recording.io, built(recording, "llamagen")
    grid = tuple(io["pre_quant"].shape[2:])
    indices = io["indices"].view(len(io["image"]), -1)

    # Stage by stage, each from the recorded input.
    latents = tokenizer.latents(pixels(recording))
    assert latents.grids == (grid,) == (tokenizer.decoder.grid,)
    recording.close(latents.features["z"], flat(io["encoder_out"]), "encoder_out")
    recording.close(latents.values, flat(io["pre_quant"]), "pre_quant")
    recorded = tokenizer.encoder.proj(flat(io["encoder_out"]))
    recording.close(recorded, flat(io["pre_quant"]), "pre_quant")
    tokenizer.quantizer.train()  # its losses are those of training
    quantized = tokenizer.quantize(Latents(flat(io["pre_quant"]), (grid,)))
    assert torch.equal(quantized.indices[..., 0], indices)
    recording.close(quantized.values, flat(io["quant"]), "quant")
    losses, weights = quantized.losses, tokenizer.quantizer.loss_weights
    recording.close(losses["codebook"] * weights["codebook"], "vq_loss")
    recording.close(losses["commitment"] * weights["commitment"], "commit_loss")
    entropy = sum(weights.get(n, 0) * v for n, v in losses.items() if n.startswith("entropy"))
    recording.close(torch.as_tensor(entropy), "entropy_loss")
    decoded = tokenizer.reconstruct(flat(io["quant"])).estimate
    recording.close(decoded, "decoded")

    # End to end.
    tokens = tokenizer.encode(pixels(recording))
    assert torch.equal(tokens.indices[..., 0].long(), indices)
    recording.close(
        tokenizer.reconstruct(tokenizer.values(tokens)).estimate, "decoded_from_indices"
    )
    shown = (io["decoded_from_indices"] / 2 + 0.5).clamp(0, 1)
    recording.close(tokenizer.decode(tokens), shown, "decoded_from_indices")
