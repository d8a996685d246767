"""Recordings of RobusTok, XQ-GAN and ImageFolder: stage by stage, and once end to end."""

from __future__ import annotations

import torch

from tests.support.parity_family import built, flat
from vistok.config import validate, validate_part
from vistok.config.registry import build
from vistok.core.draws import Draws
from vistok.core.records import Batch, Latents, Reconstruction
from vistok.core.schedules import Progress
from vistok.losses.alignment import AlignmentConfig
from vistok.regularizers.latent_perturbation import perturbation_ranks


def pixels_of(recording):
    """The recorded image as pixels in 0..1."""
    return recording.io["image"] / 2 + 0.5


def in_range(pixels):
    """Our pixels in 0..1 in the official range -1..1."""
    return pixels * 2 - 1


def recorded_indices(recording, branches: int):
    """[B, L, P]: `indices.b<branch>`, or `indices.b<branch>.s<scale>` scale after scale."""
    io, found = recording.io, []
    for branch in range(branches):
        name = f"indices.b{branch}"
        scales = [io[name]] if name in io else []
        while f"{name}.s{len(scales)}" in io:
            scales.append(io[f"{name}.s{len(scales)}"])
        found.append(torch.cat([scale.flatten(1) for scale in scales], dim=1))
    return torch.stack(found, dim=-1)


def check_system(recording):
    """The import and its way back, every stage from recorded inputs, the whole from the image."""
    io, tokenizer = recording.io, built(recording, "xqgan")
    image = pixels_of(recording)
    latents = tokenizer.latents(image)
    recording.close(latents.features["latents"], "encoder_tokens")
    recording.close(latents.values, flat(io["latents"]), "latents")

    indices = recorded_indices(recording, tokenizer.quantizer.branches)
    quantized = tokenizer.quantize(Latents(flat(io["latents"]), latents.grids))
    tokens = tokenizer.encode(image)
    for found in (quantized.indices, tokens.indices.long()):
        assert torch.equal(found, indices)
    recording.close(quantized.values, flat(io["quantised"]), "quantised")
    recording.close(tokenizer.quantizer.lookup(indices), flat(io["quantised"]), "quantised")

    recording.close(tokenizer.decoder.embed(flat(io["quantised"])), "decoder_input")
    decoded = tokenizer.reconstruct(flat(io["quantised"]))
    recording.close(decoded.prediction, "decoded_raw")
    recording.close(in_range(tokenizer.decode(tokens)), "recon")
    if "recon_from_indices" in io:
        again = tokenizer.reconstruct(tokenizer.quantizer.lookup(indices)).prediction
        recording.close(again, "recon_from_indices")
    return tokenizer


def recorded_draws(recording, tokenizer) -> Draws:
    """The draws of the training pass, which only the first images of the batch obey: kept scales,
    or the numbers of latent perturbation."""
    io, config = recording.io, recording.config
    model, batch = config["model_args"], len(io["image"])
    scales, branches = model["v_patch_nums"], model.get("product_quant", 1)
    if len(scales) > 1:
        # One branch of VectorQuantizer2 is not told how many images lose scales: none does.
        told = branches > 1 or model.get("lfq", False)
        dropped = int(batch * model.get("codebook_drop", 0.0)) if told else 0
        keep = torch.full((batch,), len(scales))
        keep[:dropped] = io["draw0.randint"][:dropped]
        return Draws(levels=torch.arange(len(scales)) < keep[:, None])
    numbers = config["train"]["perturb_alpha_beta_delta"]
    if numbers is None or branches > 1:
        return Draws()
    alpha, beta, delta = numbers
    shape = (batch, tokenizer.spec().length, 1)
    u, rank = (io[name].view(shape) for name in ("draw0.rand", "draw1.randint"))
    ranks = perturbation_ranks(u, rank, alpha)
    ranks[int(batch * beta) :] = 0
    return Draws(ranks=ranks, top_rank=delta - 1)


def official_entropies(tree: dict) -> dict:
    """A quantizer's config with the entropies of a scale as XQ-GAN takes them: over two images if
    they are soft, and once more divided by the share of images that keep the scale."""
    if tree["kind"] == "product":
        return tree | {"quantizer": official_entropies(tree["quantizer"])}
    if tree["kind"] != "multi_scale" or tree["quantizer"]["kind"] != "lfq":
        return tree
    soft = tree["quantizer"]["entropy_group"] == 1
    return tree | {
        "entropy_images": "first_two" if soft else "active",
        "entropy_by_share": True,
    }


def check_training(recording, tokenizer):
    """One training pass without stochastic depth."""
    tree = official_entropies(tokenizer.quantizer.config.model_dump(mode="json"))
    quantizer = build(validate_part("quantizer", tree))
    quantizer.layout(tokenizer.encoder.grids)
    quantizer.load_state_dict(tokenizer.quantizer.state_dict())
    tokenizer.quantizer = quantizer.train()
    draws = recorded_draws(recording, tokenizer)
    latents = tokenizer.latents(pixels_of(recording))
    quantized = tokenizer.quantize(latents, draws)
    recording.close(tokenizer.reconstruct(quantized.values).prediction, "train.decoded")
    weights, losses = tokenizer.quantizer.loss_weights, quantized.losses
    named = {
        "vq": ("codebook",),
        "commit": ("commitment",),
        "entropy": ("entropy_sample", "entropy_batch"),
        "dependency": ("dependency",),
    }
    for theirs, ours in named.items():
        terms = [losses[name] * weights[name] for name in ours if name in losses]
        if (name := f"train.{theirs}_loss") in recording.io:
            recording.close(sum(terms, torch.zeros(())), recording.io[name], "loss_abs")
    if "train.sem_loss" in recording.io:
        found = semantic_loss(recording, tokenizer, latents, quantized)
        recording.close(found, recording.io["train.sem_loss"], "loss_abs")


def semantic_loss(recording, tokenizer, latents, quantized):
    """InfoNCE between the last branch and the frozen ViT's class token, or the mean of its patches,
    with its weight."""
    model, backbone = recording.config["model_args"], recording.config["backbone"]
    of_class = model.get("guide_type_1", "class") == "class"
    sizes = {"width": "embed_dim", "depth": "depth", "heads": "num_heads", "patch": "patch_size"}
    growing = {"normalize": True, "scale": model.get("sem_loss_scale", 1.0), "scale_end": 100.0}
    loss = build(
        validate(
            AlignmentConfig,
            {
                "network": {
                    "kind": "vit",
                    "network": "vit",
                    "weights": "random",
                    "image_size": backbone["image_size"],
                    **{ours: backbone[theirs] for ours, theirs in sizes.items()},
                },
                "features": "pooled" if of_class else "patches",
                "how": "infonce",
                "through": "encoder.proj",
                "branch": -1 if model.get("product_quant", 1) > 1 else None,
                "leave_out": "first_local",
                "leave_out_share": model.get("codebook_drop", 0.0),
                "weight": model.get("sem_loss_weight", 0.1),
                **(growing if model.get("clip_norm") else {}),
            },
        )
    )
    prefix = "semantic_model."
    teacher = {k.removeprefix(prefix): v for k, v in recording.weights.items() if prefix in k}
    loss.network.load_official(teacher)
    loss.bind(tokenizer)
    image, progress = pixels_of(recording), Progress(0, 1, recording.config["train"]["epoch"])
    batch = Batch(index=torch.arange(len(image)), pixels=image)
    result = Reconstruction(None, image, None, quantized, latents, Draws())
    term = loss(result, batch, progress)["alignment"]
    return term * loss.weights(progress)["alignment"]
