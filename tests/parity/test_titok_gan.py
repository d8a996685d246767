"""TiTok's discriminator, hinge, LeCam and start step against bytedance/1d-tokenizer."""

import torch
from safetensors.torch import load_file

from vistok.config.registry import build
from vistok.core.records import Batch, Decoded, Reconstruction
from vistok.core.schedules import Progress
from vistok.losses.adversarial import AdversarialConfig, AdversarialLoss
from vistok.losses.discriminators import BlurDiscriminatorConfig
from vistok.losses.reconstruction import ReconstructionConfig

CASE = "titok_gan"


def discriminator_state(weights: dict) -> dict:
    """The official keys under ours; its blur kernels are constants here."""
    names = {"block_in": "enter", "blocks": "stages", "to_logits": "to_logits"}
    state = {}
    for key, tensor in weights.items():
        first, _, rest = key.removeprefix("discriminator.").partition(".")
        if not rest.endswith(".kernel"):
            state[f"{names[first]}.{rest}"] = tensor.float()
    return state


def losses_of(recording) -> tuple[AdversarialLoss, torch.nn.Module]:
    official, shape = recording.config["losses"], recording.config["discriminator"]
    factor, blurs = official["discriminator_factor"], shape.get("blur_resample", True)
    gan = build(
        AdversarialConfig(
            discriminator=BlurDiscriminatorConfig(
                width=shape["hidden_channels"],
                layers=shape["num_stages"],
                blur=shape.get("blur_kernel_size", 4) if blurs else None,
            ),
            weight=official["discriminator_weight"] * factor,
            start=official["discriminator_start"],
            adaptive=False,
            # The original's factor leaves LeCam out.
            lecam=official["lecam_regularization_weight"] / factor,
            lecam_decay=official.get("lecam_ema_decay", 0.999),
            discriminator_weight=factor,
        )
    )
    weights = load_file(recording.folder / "weights.safetensors")
    gan.discriminator.discriminator.load_state_dict(discriminator_state(weights))
    for key, kernel in weights.items():
        if key.endswith(".kernel"):
            assert torch.equal(gan.discriminator.discriminator.stages[0][1].kernel, kernel.float())
    weight = {official["reconstruction_loss"]: official["reconstruction_weight"]}
    return gan, build(ReconstructionConfig(**{"l2": 0.0} | weight))


def generator_terms(losses, fake, real, step: int) -> dict[str, torch.Tensor]:
    """All terms, and "total": their sum as the tokenizer task weighs them."""
    batch, progress = Batch(torch.arange(len(real))), Progress(step, 100)
    gan, pixels = losses
    result = Reconstruction(fake, real, Decoded(fake, fake), None, None)
    terms = pixels(result, batch, progress)
    total = sum(pixels.weights(progress)[name] * term for name, term in terms.items())
    terms |= gan(result, batch, progress)
    if "adversarial" in terms:
        factor = gan.balance(
            total, terms["adversarial"], None
        )  # constant: no last layer is looked at
        terms["weighted"] = gan.weights(progress)["adversarial"] * factor * terms["adversarial"]
        total = total + terms["weighted"]
    return {**terms, "total": total}


def test_titok_gan(recording):
    io = recording.io
    close = {"atol": recording.tolerance("atol"), "rtol": recording.tolerance("rtol")}
    # Scalars of this size would pass any absolute bound: LeCam's are 1e-4.
    near = {"atol": 1e-9, "rtol": 1e-4}
    losses = losses_of(recording)
    gan, start = losses[0], losses[0].config.start
    assert gan.discriminator_start == start
    steps = sum(name.startswith("real_") for name in io)
    assert steps
    for i in range(steps):
        real, fake = io[f"real_{i}"], io[f"fake_{i}"].requires_grad_()
        with torch.no_grad():
            logits = gan.discriminator(real)
        if f"disc_logits_real_{i}" in io:
            torch.testing.assert_close(logits, io[f"disc_logits_real_{i}"], **close)

        terms = generator_terms(losses, fake, real, start)
        before = generator_terms(losses, fake, real, start - 1)
        assert "adversarial" not in before
        for name, value in {
            "gen_total": terms["total"],
            "gen_recon": terms[recording.config["losses"]["reconstruction_loss"]],
            "gen_gan_unweighted": terms["adversarial"],
            "gen_gan_weighted": terms["weighted"],
            "gen_total_before_start": before["total"],
        }.items():
            torch.testing.assert_close(value, io[f"{name}_{i}"], **near)
        terms["total"].backward()
        assert fake.grad.isfinite().all() and fake.grad.abs().sum() > 0
        assert all(p.grad is None for p in gan.discriminator.parameters())

        loss, logged = gan.discriminate(gan.discriminator, real, fake.detach())
        loss = loss * gan.config.discriminator_weight
        for name, value in {
            "disc_total": loss,
            "disc_lecam": gan.config.lecam * gan.config.discriminator_weight * logged["lecam"],
            "disc_mean_real": logged["logits_real"],
            "disc_mean_fake": logged["logits_fake"],
        }.items():
            torch.testing.assert_close(value, io[f"{name}_{i}"], **near)
        loss.backward()
        assert all(p.grad.abs().sum() > 0 for p in gan.discriminator.parameters())
        gan.discriminator.zero_grad(set_to_none=True)
        gan.after_step()
        for side in ("real", "fake"):
            ema = getattr(gan.discriminator, f"ema_{side}")[None]
            torch.testing.assert_close(ema, io[f"lecam_ema_{side}_after_{i}"], **near)
