"""LARP's tokenizer against hywang66/LARP: every stage, both rounds of its prior, and end to end."""

from dataclasses import replace

import torch

from tests.support.larp import prior_loss
from tests.support.parity_family import built
from vistok.core.draws import Draws, PartDraws
from vistok.core.records import Batch, Latents
from vistok.core.schedules import Progress
from vistok.pretrained.tokenizers.larp_quantizer import LOSS_SCALE

CASE = "larp_tokenizer"
STEP = Progress(300, 2000)  # of the recorded ratio of sampled positions


def test_larp_tokenizer(recording):
    io, tokenizer = recording.io, built(recording, "larp").eval()
    with torch.no_grad():
        check_encoder(recording, tokenizer)
        check_codes(recording, tokenizer)
        check_decoder(recording, tokenizer)
        prior = recording.config["prior_model"]
        if "prior_ce_r1" in io:
            check_prior(recording, tokenizer, prior_loss(prior, recording.weights, tokenizer))


def check_encoder(recording, tokenizer):
    """Patches, positions, latents and their projection."""
    io, encoder = recording.io, tokenizer.encoder
    patches = encoder.patch_embed(tokenizer.input_space(io["video"]))
    recording.close(patches, "patch_tokens")
    placed = encoder.positions(patches)
    if encoder.config.latents.levels in (True, "patches"):
        placed = placed + encoder.levels[0]
    recording.close(placed, "patch_tokens_pe")
    latents = tokenizer.latents(io["video"])
    recording.close(latents.features["latents"], "encoder_latents")
    recording.close(latents.values, "projected_z")
    values = encoder.latent_norm(encoder.proj(io["encoder_latents"]).float())
    recording.close(values, "projected_z")


def check_codes(recording, tokenizer):
    """From the recorded latents and from the clip: indices, values, losses, shares."""
    io, quantizer = recording.io, tokenizer.quantizer
    recorded = Latents(io["projected_z"], tokenizer.encoder.grids)
    for latents in (recorded, tokenizer.latents(io["video"])):
        found = tokenizer.quantize(latents)
        assert torch.equal(found.indices[..., 0], io["indices"])
        recording.close(found.queries[:, :, 0], "unit_z")
        recording.close(found.values, "quantized")
        recording.close(found.losses["commitment"], "loss_commit")
        recording.close(found.losses["codebook"], "loss_codebook")
        total = sum(w * found.losses[name] for name, w in quantizer.loss_weights.items())
        recording.close(total / LOSS_SCALE, "loss_q")
    if "code_probs" in io:
        shares = quantizer.shares(io["projected_z"])
        recording.close(shares, "code_probs")
        # A number in the middle of a code's share draws that code.
        edges = shares.cumsum(-1).gather(2, io["indices"][..., None])[..., 0]
        middle = edges - shares.gather(2, io["indices"][..., None])[..., 0] / 2
        draws = Draws(parts={"quantizer": PartDraws(uniform=middle)})
        assert torch.equal(quantizer(recorded, draws).indices[..., 0], io["indices"])


def check_decoder(recording, tokenizer):
    """From the recorded values, from the indices, and from the clip."""
    io = recording.io
    recording.close(tokenizer.decoder.embed(io["quantized"]), "encoded")
    recording.close(tokenizer.reconstruct(io["quantized"]).estimate, "decoded")
    values = tokenizer.quantizer.lookup(io["indices"][..., None])
    recording.close(tokenizer.reconstruct(values).estimate, "decoded_from_indices")
    whole = tokenizer(Batch(torch.arange(len(io["video"])), io["video"]))
    recording.close(whole.pixels, "decoded")
    tokens = tokenizer.encode(io["video"])
    assert torch.equal(tokens.indices[..., 0], io["indices"].to(tokens.indices.dtype))
    recording.close(tokenizer.decode(tokens), io["decoded"].clamp(0, 1), "decoded")


def check_prior(recording, tokenizer, loss):
    """Predictions, logits and cross-entropies of both rounds, with the recorded samples."""
    io, config = recording.io, loss.config
    predictions = loss.predictions(io["quantized"])
    recording.close(predictions, "prior_pred_r1")
    recording.close(loss.logits(predictions), "prior_logits_r1")
    batch = Batch(torch.arange(len(io["video"])), io["video"])
    whole = tokenizer(batch)
    recording.close(loss(whole, batch, STEP)["prior"], "prior_ce_r1")
    if "ss_mask" not in io:
        return recording.close(loss(whole, batch, STEP)["prior"], "loss_latent_ce")
    recording.close(torch.tensor(loss.share(STEP)), "ss_ratio")
    assert bool((io["ss_mask"] == io["ss_mask"][..., :1]).all()), "one draw for each token"
    own = PartDraws(mask=io["ss_mask"][..., 0], chosen=io["ss_sampled"][..., None])
    read = loss.mixed(io["quantized"], io["prior_logits_r1"], own, 0)
    recording.close(read, "ss_next_input")
    recording.close(loss.logits(loss.predictions(io["ss_next_input"])), "prior_logits_r2")
    # Recorded whatever the config says of rounds, as both rounds' mean.
    draws = Draws(parts={"loss.ar_prior": own})
    usual = {"rounds": 2, "average_rounds": True, "gradient": "all"}
    for name, changes in (("prior_ce_two_rounds", usual), ("loss_latent_ce", {})):
        loss.config = config.model_copy(update=changes)
        found = loss(replace(whole, draws=draws), batch, STEP)["prior"]
        recording.close(found, name)
    loss.config = config
    return None
