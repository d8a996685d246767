"""TA-TiTok (VQ) against bytedance/1d-tokenizer: text in the decoder, online clustering."""

import torch

from tests.support.parity_family import built, check_codes, check_decoder, check_encoder, flat
from vistok.core.records import Latents
from vistok.core.rng import Rng

CASE = "tatitok_vq"


def test_tatitok(recording, fails):
    tokenizer = built(recording, "tatitok")
    check_encoder(recording, tokenizer)
    check_codes(recording, tokenizer)
    check_decoder(recording, tokenizer)
    with fails(ValueError, "reads text and got none"):
        tokenizer.decode(tokenizer.encode(recording.io["image"]))


def test_online_clustering(recording):
    """One training pass moves the codebook, from no usage and from a mixed one."""
    io = recording.io
    if "cvq_embedding_after1" not in io:
        return
    z = flat(io["z"])
    for run, start in (("cvq", "cvq_embed_prob_before"), ("cvqB", "cvqB_embed_prob_before")):
        quantizer = built(recording, "tatitok").quantizer.train()
        with torch.no_grad():
            quantizer.usage.copy_(io[start])
            quantizer.codebook.copy_(io["cvq_embedding_before"])
        before = quantizer(Latents(z, ((z.shape[1],),)))
        assert torch.equal(before.indices[..., 0], io["indices"].flatten(1))
        quantizer.after_step(Rng(0))
        recording.close(quantizer.usage, f"{run}_embed_prob_after1")
        recording.close(quantizer.codebook, f"{run}_embedding_after1")
