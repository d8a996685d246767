"""Cosmos's image tokenizers against NVIDIA/Cosmos-Tokenizer: stages, end to end, weights, for every
quantizer that their config names; what a recording has is compared."""

import torch

from tests.support.parity_family import built, flat
from vistok.core.records import Latents
from vistok.quantizers.atoms.fsq import FSQ
from vistok.tokenizer import Tokenizer

CASE = "cosmos_di"


def test_cosmos_di(recording):
    io, config = recording.io, recording.config
    image = (io["image"] + 1) / 2
    tokenizer = sized(built(recording, "cosmos_image"), image)
    quantizer, grids = tokenizer.quantizer, tokenizer.encoder.grids
    assert grids[0] == tuple(io["z"].shape[2:])

    # Stage by stage, each from the recorded input.
    recording.close(tokenizer.input_space(image), "patched")
    back = tokenizer.output_space.inverse(io["patched"]) * 2 - 1
    if "unpatched_roundtrip" in io:
        recording.close(back, "unpatched_roundtrip")
    recording.close(back, io["image"], "unpatched_roundtrip")
    latents = tokenizer.encoder(io["patched"])
    recording.close(latents.features["z"], flat(io["enc_out"]), "enc_out")
    # Bits of LFQ are counted from the other end there.
    turn = (lambda x: x.flip(-1)) if config.get("quantizer") == "LFQ" else (lambda x: x)
    z = turn(flat(io["z"]))
    recording.close(latents.values, z, "z")
    found = tokenizer.quantize(Latents(z, grids))
    if "quantized" in io:
        recording.close(found.values, turn(flat(io["quantized"])), "quantized")
    atom = fsq_of(quantizer)
    if "bounded" in io:
        bounded = atom.bound(z.unflatten(-1, (-1, atom.latent_dim))).flatten(-2)
        recording.close(bounded, flat(io["bounded"]), "bounded")
    indices = None
    if "indices" in io:
        indices = like(io["indices"], found.indices)
        assert torch.equal(found.indices.long(), indices)
    if "codes_from_indices" in io:
        looked = turn(flat(io["codes_from_indices"]))
        recording.close(quantizer.lookup(indices), looked, "codes_from_indices")
    if "codebook" in io:
        rows = torch.arange(len(io["codebook"]))[None, :, None]
        recording.close(turn(atom.lookup(rows)[0]), "codebook")
    if "quant_loss" in io:
        weights = quantizer.loss_weights
        loss = sum(
            (found.losses[name] * weight for name, weight in weights.items()), z.new_zeros(())
        )
        recording.close(loss, io["quant_loss"].mean(), "quant_loss")
    values = turn(flat(io["quantized"])) if "quantized" in io else found.values
    decoded = tokenizer.output_space.inverse(tokenizer.reconstruct(values).estimate) * 2 - 1
    recording.close(decoded, "decoded")

    # End to end.
    tokens = tokenizer.encode(image)
    if indices is not None:
        assert torch.equal(tokens.indices.long(), indices)
    shown = io.get("decoded_from_indices", io["decoded"]).clamp(-1, 1)
    recording.close(tokenizer.decode(tokens) * 2 - 1, shown, "decoded_from_indices")


def fsq_of(quantizer):
    """The quantizer of a residual level, or of a branch."""
    return next((one for one in quantizer.modules() if isinstance(one, FSQ)), quantizer)


def like(recorded, ours):
    """Their [B, h, w], [B, levels, h, w] (blocks of tokens) or [B, h, w, codebooks] (factors)."""
    return recorded.reshape(len(ours), -1, ours.shape[-1]).long()


def sized(tokenizer, image):
    """The same weights for the recorded sides, which the official config does not say."""
    config = tokenizer.config.model_copy(update={"image_size": tuple(image.shape[2:])})
    again = Tokenizer(config).eval()
    again.load_state_dict(tokenizer.state_dict())
    return again
