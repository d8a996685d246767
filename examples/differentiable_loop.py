"""A tokenizer in a training loop of one's own: gradients through latents, codes and images.

`encode` and `decode` are for use: no gradients, evaluation mode, rounded to tokens. The steps
inside are differentiable, whatever parts the tokenizer is made of:

    latents(pixels)        [B, 3, H, W] in 0..1 -> latents.values [B, N, D]
    quantize(latents)      -> values [B, M, D'] with straight-through gradients, indices, losses
    reconstruct(values)    -> estimate, in the output space, unclamped
    output_space.inverse   -> pixels [B, 3, H, W] around 0..1

Here the encoder and quantizer are frozen and the decoder learns to give sharper edges, with a loss
that vistok does not have.

    python differentiable_loop.py            # vistok-128 on scikit-image's photographs
    python differentiable_loop.py MODEL STEPS
"""

import sys

import torch
import torch.nn.functional as F
from skimage import data

from vistok import Tokenizer

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")


def edges(pixels: torch.Tensor) -> torch.Tensor:
    """Horizontal and vertical differences of neighbouring pixels, [B, 6, H - 1, W - 1]."""
    right = pixels[..., :-1, 1:] - pixels[..., :-1, :-1]
    down = pixels[..., 1:, :-1] - pixels[..., :-1, :-1]
    return torch.cat([right, down], dim=1)


def main(model: str = "vistok-128", steps: int = 20) -> list[float]:
    """Train the decoder; the loss of each step."""
    torch.manual_seed(0)
    tokenizer = Tokenizer.from_pretrained(model)
    pixels = tokenizer.preprocess([getattr(data, name)() for name in PHOTOGRAPHS])

    # -- the loop: ten lines -----------------------------------------------------------------------
    tokenizer.requires_grad_(False).decoder.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(tokenizer.decoder.parameters(), lr=1e-4)
    history = []
    for _ in range(steps):
        quantized = tokenizer.quantize(tokenizer.latents(pixels))
        decoded = tokenizer.reconstruct(quantized.values)
        image = tokenizer.output_space.inverse(decoded.estimate)
        loss = F.mse_loss(image, pixels) + F.l1_loss(edges(image), edges(pixels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    return history


if __name__ == "__main__":
    name, *rest = sys.argv[1:] or ["vistok-128"]
    losses = main(name, *map(int, rest[:1]))
    print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f} in {len(losses)} steps")
