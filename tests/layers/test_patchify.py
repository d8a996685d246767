"""Patches and back."""

import torch

from vistok.layers.patchify import PatchEmbed, Unpatchify, patch_grid


def test_patches_are_row_major_and_come_back():
    # An embedding that copies the patch, (row, column, color), and a head that copies it back.
    p, width = 2, 12
    embed = PatchEmbed(p, width)
    with torch.no_grad():
        embed.proj.weight.zero_()
        embed.proj.bias.zero_()
        for row in range(p):
            for column in range(p):
                for color in range(3):
                    embed.proj.weight[(row * p + column) * 3 + color, color, row, column] = 1
    head = Unpatchify(p, width, (2, 3))
    with torch.no_grad():
        head.proj.weight.copy_(torch.eye(width))
        head.proj.bias.zero_()
    image = torch.rand(2, 3, 4, 6)
    patches = embed(image)
    assert patches.shape == (2, 6, 12)
    assert torch.allclose(patches[0, 1, :3], image[0, :, 0, 2])  # second patch, its first pixel
    assert torch.allclose(head(patches), image, atol=1e-6)


def test_overlapping_patches_keep_the_grid_and_see_neighbours():
    embed = PatchEmbed(4, 8, overlap=2)
    image = torch.rand(1, 3, 8, 8)
    changed = image.clone()
    changed[:, :, 0, 5] += 1  # inside patch (0, 1), two pixels from patch (0, 0)
    difference = (embed(image) - embed(changed)).abs().sum(-1)[0]
    assert embed(image).shape == (1, 4, 8)
    assert (difference > 0).tolist() == [True, True, False, False]


def test_smoothing_starts_as_the_identity_of_a_zero_layer():
    head = Unpatchify(2, 8, (2, 2), smooth=4)
    torch.nn.init.zeros_(head.smooth[-1].weight)
    torch.nn.init.zeros_(head.smooth[-1].bias)
    plain = Unpatchify(2, 8, (2, 2))
    plain.proj.load_state_dict(head.proj.state_dict())
    x = torch.randn(1, 4, 8)
    assert torch.equal(head(x), plain(x))
    assert head.last_layer is head.smooth[-1].weight and plain.last_layer is plain.proj.weight


def test_images_that_do_not_divide(fails):
    assert patch_grid((8, 12), 4) == (2, 3)
    with fails(ValueError, r"image_size=\(8, 10\).*patch_size=4"):
        patch_grid((8, 10), 4)
