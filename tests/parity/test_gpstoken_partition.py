"""GPSToken's partition by entropy: complexities, Gaussians and regions."""

import torch

from vistok.layers.regions import complexity, gaussians, partition

CASE = "gpstoken_partition"


def test_gpstoken_partition(recording):
    io, config = recording.io, recording.config
    grey = io["grey"][None]
    height, width = grey.shape[1:]
    boxes = partition(grey, config["num"], config["minhw"], config["weight"])
    found, corners = gaussians(boxes, height, width)
    assert torch.equal(found[0], io["gaussians"]) and torch.equal(corners[0], io["regions"])
    # The whole image, its upper half, its right half, the last 8 x 8 pixels.
    last = (0, height - 1, 0, width - 1)
    some = [
        last,
        (0, height // 2 - 1, 0, width - 1),
        (0, height - 1, width // 2, width - 1),
        (height - 8, height - 1, width - 8, width - 1),
    ]
    scores = complexity(grey, torch.tensor([some]), config["weight"])[0]
    torch.testing.assert_close(scores, io["complexity"], rtol=1e-12, atol=0)
