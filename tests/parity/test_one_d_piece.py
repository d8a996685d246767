"""One-D-Piece against turingmotors/One-D-Piece: any prefix decodes, training drops the tail."""

import torch

from tests.support.parity_family import built, check_codes, check_encoder, flat
from vistok.core.draws import Draws
from vistok.core.records import Batch

CASE = "one_d_piece"


def test_prefixes(recording):
    io = recording.io
    tokenizer = built(recording, "one_d_piece")
    check_encoder(recording, tokenizer)
    check_codes(recording, tokenizer)
    values, count = flat(io["z_quantized"]), tokenizer.spec().length
    tokens = tokenizer.encode(io["image"])
    for length in recording.case["run"]["lengths"]:
        present = (torch.arange(count) < length).expand(len(values), -1)
        decoded = tokenizer.reconstruct(values, present)
        recording.close(decoded.prediction, f"decoder_out_len{length}")
        recording.close(tokenizer.output_space.inverse(decoded.estimate), f"recon_len{length}")
        decoded = tokenizer.decode(tokens.prefix(length))
        recording.close(decoded, io[f"recon_len{length}"].clamp(0, 1), f"recon_len{length}")
        name = f"recon_sliced_tokens_len{length}"
        if name in io:
            recording.close(decoded, io[name].clamp(0, 1), name)


def test_tail_token_drop(recording):
    io = recording.io
    tokenizer = built(recording, "one_d_piece").train()
    batch = Batch(index=torch.arange(len(io["image"])), pixels=io["image"])
    for call in range(recording.case["run"]["train_calls"]):
        keep = io[f"draw_{call}_randint"].expand(len(batch.index))
        assert int(keep[0]) == int(io[f"train_kept_len_{call}"])
        result = tokenizer(batch, Draws(keep=keep))
        recording.close(result.pixels, f"train_recon_{call}")
