"""VFRTok against KwaiVGI/VFRTok: rotary tables, latents of two rates, all four reconstructions."""

import torch

from tests.support.parity_family import built
from vistok.core.records import Batch, Condition
from vistok.core.shapes import Shape

CASE = "vfrtok"
RATES = ("a", "b")


def rate(recording, name):
    """Frames per second of a recorded clip, [B]; and its condition."""
    fps = recording.config.get(f"fps_{name}")
    fps = None if fps is None else torch.full((len(recording.io["video_a"]),), float(fps))
    return Condition(fps=fps)


def test_vfrtok(recording):
    io, tokenizer = recording.io, built(recording, "vfrtok").eval()
    names = [name for name in RATES if f"video_{name}" in io]
    for name in names:
        video, condition = io[f"video_{name}"], rate(recording, name)
        pixels = (video + 1) / 2
        if f"rope_angle_{name}" in io:
            shape, encoder = Shape(3, tuple(video.shape[2:])), tokenizer.encoder
            for part in (encoder, tokenizer.decoder):
                grid = part.config.patches.grid(shape)
                if grid != encoder.config.patches.grid(shape):
                    continue  # tables are recorded of the encoder's patches
                angles = part.rotary.angles(
                    grid, None if condition.fps is None else condition.fps[0]
                )
                found = torch.stack([angles.cos(), angles.sin()], -1)
                recording.close(found, f"rope_angle_{name}")
        with torch.no_grad():
            latents = tokenizer.quantize(tokenizer.latents(pixels, condition)).values
        recording.close(latents, f"latent_{name}")
        # Other inputs are beyond 0..1, which `encode` refuses.
        if pixels.amin() >= 0 and pixels.amax() <= 1:
            recording.close(tokenizer.encode(pixels, condition=condition).values, f"latent_{name}")
        for other in names:
            target = f"recon_{name}_to_{other}"
            if target not in io:
                continue
            asked = Condition(fps=rate(recording, other).fps, sides=tuple(io[target].shape[2:]))
            with torch.no_grad():
                recording.close(
                    tokenizer.reconstruct(io[f"latent_{name}"], None, asked).estimate, target
                )
                # End to end, as training does it where the target has another rate.
                goal = (io[f"video_{other}"] + 1) / 2
                batch = Batch(torch.arange(len(pixels)), pixels, goal, target_fps=asked.fps)
                found = tokenizer(batch, condition=condition)
                recording.close(found.decoded.estimate, target)
