"""Images in and out of a tokenizer: files, arrays and images of PIL -> pixels, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from vistok.core.shapes import Shape

if TYPE_CHECKING:
    from vistok.data.preprocessing import Resize


class TakesImages(nn.Module):
    """Part of a tokenizer: `preprocess` and `to_pil`."""

    shape: Shape
    frame_stride: int | None

    def preprocess(self, images: Any, resize: Resize = "crop") -> Tensor:
        """Images -> pixels [B, 3, *sides] in 0..1 of this tokenizer's size, on its device.

            tokens = tokenizer.encode(tokenizer.preprocess("cat.jpg"))

        Args:
            images: an image of PIL, a path, a numpy array [H, W, 3] of uint8, or a list of such;
                a tokenizer of clips takes paths of videos and arrays [T, H, W, 3], a causal one
                images too, as clips of one frame [B, 3, 1, H, W].
            resize: "crop" cuts the largest window out of the center, "stretch" gives up the
                proportions, "pad" shows the whole image on a white ground.

        The orientation that a camera noted is obeyed; transparent images lie on white.
        Raises a UserError of one line for anything else, and for files that cannot be read.
        """
        from vistok.data.preprocessing import preprocess

        pixels = preprocess(images, self.shape, resize, stills=self.frame_stride is not None)
        return pixels.to(next(self.parameters()).device)

    def to_pil(self, pixels: Tensor) -> list[Any]:
        """pixels [B, 3, H, W] in 0..1 -> a list of B images of PIL; values beyond are clamped.

            tokenizer.to_pil(tokenizer.decode(tokens))[0].save("cat.png")

        Clips [B, 3, T, H, W] give a list of T images each.
        """
        from vistok.data.preprocessing import to_pil

        return to_pil(pixels)
