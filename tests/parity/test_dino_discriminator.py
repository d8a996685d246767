"""The DINO discriminator and DiffAug of lxa9867/ImageFolder (from VAR and StyleGAN-T)."""

import torch

from vistok.config import validate
from vistok.losses.diffaug import GATES, STRENGTHS, DiffAugConfig, augment, blurred
from vistok.losses.discriminators import DinoDiscriminator, DinoDiscriminatorConfig

CASE = "dino_discriminator"
NORMS = {"bn": "virtual_batch", "sbn": "batch", "lbn": "batch", "hbn": "batch", "gn": "group"}


def discriminator_of(recording) -> DinoDiscriminator:
    config = recording.config
    depth = config["depth"]
    # Officially numbered from 0, and those beyond the depth are left out.
    blocks = sorted(number + 1 for number in config["kd"] if number < depth)
    tree = {
        "network": {
            "network": "vit",
            "weights": "random",  # replaced below
            "width": config["embed"],
            "depth": depth,
            "heads": config["heads"],
            "patch": config.get("patch_size", 16),
            "image_size": config.get("img_size", 224),
            "mlp": "gelu_tanh",
            "mlp_ratio": config.get("mlp_ratio", 4.0),
            "layer_scale": False,
            "norm_eps": config.get("norm_eps", 1e-6),
        },
        "readouts": [0, *blocks],
        "kernel": config["ks"],
        "norm": NORMS[config.get("norm_type", "bn")],
        "norm_eps": config.get("norm_eps", 1e-6),
        "group": config.get("virtual_bs", 8),
        "spectral_norm": config.get("using_spec_norm", True),
    }
    made = DinoDiscriminator(validate(DinoDiscriminatorConfig, tree)).eval()
    state = {name: tensor.float() for name, tensor in recording.weights.items()}
    split = lambda prefix: {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith(prefix)
    }
    made.network.load_official(split("dino."))
    made.heads.load_state_dict(split("heads."))  # the official names are ours
    return made


def test_logits_and_readouts(recording):
    made, io = discriminator_of(recording), recording.io
    images = {name.removeprefix("image."): x for name, x in io.items() if name.startswith("image.")}
    assert images
    for name, image in images.items():
        pixels = (image + 1) / 2
        with torch.no_grad():
            logits = made(pixels)
            recording.close(logits, f"logits.{name}")
            # Far nearer than the tolerance, which an error of an epsilon could hide in.
            expected = io[f"logits.{name}"]
            near = 2e-5 * max(1.0, float(expected.abs().max()))
            torch.testing.assert_close(logits, expected, atol=near, rtol=0)
    first = images.get("small", next(iter(images.values())))
    acts = made.readouts(made.square((first + 1) / 2))
    assert len(acts) == sum(name.startswith("act") for name in io)
    for number, act in enumerate(acts):
        recording.close(act.mean(-1), f"act{number}.mean")


def test_diffaug_with_recorded_numbers(recording):
    io, config = recording.io, recording.config
    if "aug.in" not in io:
        return
    prob, share = config.get("aug_prob", 1.0), config.get("cutout", 0.2)
    options = {"prob": abs(prob), "cutout": share if prob > 0 else 0.0}
    x = blurred(io["aug.in"], config.get("fade", config.get("warmup_blur_schedule", 0.0)))
    gates = io["aug.draw0"].expand(len(x), GATES)
    strengths = io.get("aug.draw1", torch.zeros(STRENGTHS, len(x), 1, 1))  # no gate is open
    uniform = torch.cat([gates, strengths[..., 0, 0].T], dim=1)
    found = augment(x, uniform, validate(DiffAugConfig, options))
    recording.close(found, "aug.out")
    torch.testing.assert_close(found, io["aug.out"], atol=1e-5, rtol=1e-5)
