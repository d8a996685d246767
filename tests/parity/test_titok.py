"""TiTok against bytedance/1d-tokenizer: two-stage with proxy codes and pixel decoder."""

import torch.nn.functional as F

from tests.support.parity_family import built, check_codes, check_decoder, check_encoder

CASE = "titok_vq"


def test_titok_two_stage(recording):
    io = recording.io
    tokenizer = built(recording, "titok")
    check_encoder(recording, tokenizer)
    quantized = check_codes(recording, tokenizer)
    decoded = check_decoder(recording, tokenizer)
    soft = tokenizer.output_space.expected(io["decoder_out"])
    recording.close(soft, io["soft_pixel_latents"].flatten(2).transpose(1, 2), "soft_pixel_latents")
    cross_entropy = F.cross_entropy(decoded.prediction.flatten(2), io["proxy_codes"])
    recording.close(cross_entropy, "stage1_ce_loss")
    weights = tokenizer.quantizer.loss_weights
    total = cross_entropy + sum(weights[k] * v for k, v in quantized.losses.items())
    recording.close(total, "stage1_total_loss")
