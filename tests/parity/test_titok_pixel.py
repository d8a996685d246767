"""One-stage TiTok against bytedance/1d-tokenizer: the decoder predicts pixels."""

from tests.support.parity_family import built, check_codes, check_decoder, check_encoder

CASE = "titok_vq_pixel"


def test_titok_one_stage(recording):
    tokenizer = built(recording, "titok")
    check_encoder(recording, tokenizer)
    check_codes(recording, tokenizer)
    check_decoder(recording, tokenizer)
