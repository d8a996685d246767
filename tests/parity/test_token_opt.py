"""Token optimization against lukaslaobeyer/token-opt: both kinds of tokens, noise, pull, EMA."""

import torch

from tests.support.parity_family import built, flat
from vistok.editing import EditConfig, match, optimize

CASE = "token_opt"


def test_variants(recording):
    io = recording.io
    tokenizer = built(recording, "titok")
    objective = match(io["target_image"], io["mask"])
    for number, variant in enumerate(recording.case["run"]["variants"]):
        name = f"v{number}"
        config = EditConfig(
            after_quantizer=variant["optimize_post_quantization_tokens"],
            lr=variant["lr"],
            steps=variant["num_iter"],
            ema=variant.get("ema_decay", 0.0),
            noise=variant.get("token_noise") or 0.0,
            pull=variant.get("reg_weight") or 0.0,
            pull_to=variant.get("reg_type") or "seed",
        )
        noise = None
        if config.noise:
            noise = [flat(io[f"{name}_noise_{i}"]) for i in range(config.steps)]
        seen = []
        found = optimize(
            tokenizer, objective, io["seed_image"], config, noise=noise, callback=seen.append
        )
        expected = torch.stack([flat(step) for step in io[f"{name}_tokens_after_step"]])
        recording.close(torch.stack([step.tokens for step in seen]), expected, f"{name}_tokens")
        recording.close(found.losses, f"{name}_loss_per_step")
        recording.close(found.pixels, f"{name}_final_image")
        latents = tokenizer.latents(io["seed_image"])
        start = tokenizer.quantize(latents).values if config.after_quantizer else latents.values
        recording.close(start, flat(io[f"{name}_init_tokens"]), f"{name}_init_tokens")
