"""Instella-T2I's tokenizer against AMD-AGI/Instella-T2I: 1D binary latents, two sizes."""

import torch

from tests.support.parity_family import built
from vistok.core.draws import Draws, PartDraws
from vistok.core.records import Condition, Latents
from vistok.losses.projector import ProjectorConfig, projector

CASE = "instella_bae"


def lat(z):
    return Latents(z, ((z.shape[1],),))


def test_instella_bae(recording):
    io = recording.io
    tokenizer = built(recording, "instella")
    quantizer, space = tokenizer.quantizer, tokenizer.output_space
    unit = (io["image"] + 1) / 2  # -1..1 there

    latents = tokenizer.latents(unit)
    recording.close(latents.values, "encoder_tokens")
    for z in (io["encoder_tokens"], latents.values):
        result = tokenizer.quantize(lat(z))
        assert torch.equal(result.indices.float(), io["binary_code"])
        recording.close(result.queries[:, :, 0], "bit_logits")
        recording.close(result.values, "quantized")
        recording.close(result.losses["code"], "code_loss")
    assert torch.equal(quantizer.lookup(result.indices), result.values)

    h, w = tokenizer.shape.image_size
    decoded = tokenizer.reconstruct(io["quantized"])
    recording.close(decoded.features["grid"], "decoder_hidden")
    recording.close(decoded.prediction, "reconstruction")
    twice = tokenizer.reconstruct(io["quantized"], condition=Condition(sides=(2 * h, 2 * w)))
    recording.close(twice.prediction, "reconstruction_2x")
    if "repa_feature" in io:
        align = projector(ProjectorConfig(kind="normed"), *align_widths(recording))
        weights = {k: v for k, v in recording.weights.items() if k.startswith("decoder.repa_proj")}
        align.load_state_dict({k.removeprefix("decoder.repa_proj."): v for k, v in weights.items()})
        recording.close(align(decoded.features["repa"]), "repa_feature")

    # End to end, from the image to bits, their bytes' tensor, and both sizes.
    tokens = tokenizer.encode(unit)
    assert torch.equal(tokens.indices.float(), io["binary_code"])
    within = space.inverse(io["reconstruction"]).clamp(0, 1)
    recording.close(tokenizer.decode(tokens), within, "reconstruction")
    within = space.inverse(io["reconstruction_2x"]).clamp(0, 1)
    pixels = tokenizer.decode(tokens, Condition(sides=(2 * h, 2 * w)))
    recording.close(pixels, within, "reconstruction_2x")


def align_widths(recording):
    last = recording.weights["decoder.repa_proj.3.weight"]
    return last.shape[1], last.shape[0]


def test_training_bits_and_their_gradients(recording):
    io = recording.io
    quantizer = built(recording, "instella").quantizer
    logits = io["bit_logits"].clone().requires_grad_()
    quantizer.proj = torch.nn.Identity()  # its input is then the logits

    def run(**fields):
        return quantizer(lat(logits), Draws(parts={"quantizer": PartDraws(**fields)}))

    result = run(chosen=io["train_binary_draw"].long())
    recording.close(result.values, "train_quantized")
    (found,) = torch.autograd.grad((result.values * io["grad_out"]).sum(), logits)
    recording.close(found, "grad_bit_logits_straight_through")
    (found,) = torch.autograd.grad(run().losses["code"], logits)
    recording.close(found, "grad_bit_logits_code_loss")
    # A bit is on where its uniform number lies below the recorded probability.
    p = io["train_bernoulli_probability"]
    recording.close((logits / quantizer.config.temperature).sigmoid(), p, "bernoulli")
    within = 1e-5
    assert run(uniform=p - within).indices.all()
    assert not run(uniform=p + within).indices.any()
