"""Cosmos DV against NVIDIA/Cosmos-Tokenizer: stage by stage, end to end, one frame, its weights."""

import torch

from tests.support.parity_family import built, flat
from vistok.core.records import Latents

CASE = "cosmos_dv"


def test_cosmos_dv(recording):
    io = recording.io
    frames, *sides = io["video"].shape[2:]
    tokenizer = sized(recording, frames, sides)
    clip, blocks = (io["video"] + 1) / 2, tokenizer.encoder.grids
    assert tokenizer.spec().blocks == blocks and tokenizer.spec().prefix == "block"
    assert (len(blocks), *blocks[0]) == tuple(io["z"].shape[2:])

    # Stage by stage, each from the recorded input.
    recording.close(tokenizer.input_space(clip), "patched")
    back = tokenizer.output_space.inverse(io["patched"]) * 2 - 1
    recording.close(back, "unpatched_roundtrip")
    latents = tokenizer.encoder(io["patched"])
    recording.close(latents.features["z"], flat(io["enc_out"]), "enc_out")
    recording.close(latents.values, flat(io["z"]), "z")
    quantizer, z = tokenizer.quantizer, flat(io["z"])
    quantized = tokenizer.quantize(Latents(z, blocks))
    indices = io["indices"].flatten(1)
    assert torch.equal(quantized.indices[..., 0], indices)
    recording.close(quantized.values, flat(io["quantized"]), "quantized")
    recording.close(quantizer.bound(z), flat(io["bounded"]), "bounded")
    looked = quantizer.lookup(indices[..., None])
    recording.close(looked, flat(io["codes_from_indices"]), "codes_from_indices")
    rows = torch.arange(len(io["codebook"]))[None, :, None]
    recording.close(quantizer.lookup(rows)[0], "codebook")
    decoded = tokenizer.output_space.inverse(tokenizer.reconstruct(flat(io["quantized"])).estimate)
    recording.close(decoded * 2 - 1, "decoded")

    # End to end.
    tokens = tokenizer.encode(clip)
    assert torch.equal(tokens.indices[..., 0].long(), indices)
    recording.close(
        tokenizer.decode(tokens) * 2 - 1, io["decoded_from_indices"].clamp(-1, 1), "abs"
    )

    # An image is a clip of one frame: the first block of the clip's tokens.
    image = tokenizer.encode(clip[:, :, 0])
    assert torch.equal(image.indices[..., 0].long(), io["single_indices"].flatten(1))
    recording.close(tokenizer.latents(clip[:, :, :1]).values, flat(io["single_z"]), "single_z")
    shown = tokenizer.decode(image) * 2 - 1
    recording.close(shown, io["single_decoded"].clamp(-1, 1), "abs")
    first = tokens.indices[:, : image.spec.length]
    assert torch.equal(image.indices, first)


def sized(recording, frames, sides):
    """The tokenizer for clips of the recorded size, which the official config does not say."""
    from vistok.tokenizer import Tokenizer

    tokenizer = built(recording, "cosmos")
    config = tokenizer.config.model_copy(update={"frames": frames, "image_size": tuple(sides)})
    again = Tokenizer(config).eval()
    again.load_state_dict(tokenizer.state_dict())
    return again
