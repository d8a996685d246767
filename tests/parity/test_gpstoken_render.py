"""GPSToken's renderer against its kernel: the map, and gradients of every number of a token."""

import torch

from vistok.layers.splat import render

CASE = "gpstoken_render"


def test_gpstoken_render(recording):
    io, config = recording.io, recording.config
    parts = [io[name].clone().requires_grad_() for name in ("sigmas", "centres", "features")]
    tokens = torch.cat(parts, dim=-1)[None]
    found = render(tokens, (config["h"], config["w"]), config["dmax"])[0]
    recording.close(found, "feature_map")
    (found * io["grad_out"]).sum().backward()
    for part, name in zip(parts, ("sigmas", "centres", "features"), strict=True):
        recording.close(part.grad, f"grad_{name}")
