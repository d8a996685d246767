"""Images of any kind -> the pixels that a tokenizer takes, and pixels -> images.

`crop` cuts the largest window of the tokenizer's shape out of the center, `stretch` gives up the
proportions, `pad` shows the whole image on a white ground. All resize with PIL's antialiased
bicubic filter; files are decoded as training decodes them (`decode.images`).
Letters: B batch, H W pixels, T frames; *sides is H, W of images and T, H, W of clips.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from vistok.core.errors import InputError
from vistok.core.shapes import Shape
from vistok.data.decode.images import opened, read, to_tensor
from vistok.data.decode.transforms import Transform, TransformConfig

if TYPE_CHECKING:
    from PIL.Image import Image

Resize = Literal["crop", "stretch", "pad"]
_EXPECTED = "expected an image of PIL, a path, a numpy array [H, W, 3] of uint8, or a list of them"
_VIDEO = "a path of a video, or a numpy array [T, H, W, 3] of uint8"


def preprocess(
    images: Any, shape: Shape, resize: Resize = "crop", *, stills: bool = False
) -> Tensor:
    """Images, or clips, -> pixels [B, 3, *sides] in 0..1, float32 on the CPU.

    Args:
        images: an image of PIL, a path, a numpy array [H, W, 3] of uint8 (gray [H, W] and RGBA
            [H, W, 4] too), or a list of such. For a shape of clips: a path of a video, whose first
            frames are taken, an array [T, H, W, 3], or a list of such.
        shape: of a sample. resize: see above.
        stills: images are clips of one frame, for a shape of clips: [B, 3, 1, H, W].

    The orientation that a camera noted is obeyed; transparent images lie on white.
    Raises InputError for anything else, BadSample for files that cannot be read.
    """
    if resize not in get_args(Resize):
        raise InputError(f"resize={resize!r}: expected {', '.join(get_args(Resize))}")
    many = list(images) if isinstance(images, list | tuple) else [images]
    if not many:
        raise InputError("images=[]: expected at least one image")
    pixels = [_sample(one, f"images[{i}]", shape, resize, stills) for i, one in enumerate(many)]
    if len({one.shape for one in pixels}) > 1:
        raise InputError("images and clips in one batch; give them one after the other")
    return torch.stack(pixels).float() / 255


def to_pil(pixels: Tensor) -> list[Any]:
    """pixels [B, 3, H, W] or [3, H, W] in 0..1 -> images of PIL, values beyond 0..1 clamped.

    Clips [B, 3, T, H, W] give a list of frames each. Raises InputError for other shapes and for
    values that are not finite.
    """
    from PIL import Image

    if pixels.ndim == 3:
        pixels = pixels[None]
    if pixels.ndim not in (4, 5) or pixels.shape[1] != 3 or not pixels.is_floating_point():
        raise InputError(
            f"pixels have shape {tuple(pixels.shape)} and type {pixels.dtype}; expected floats "
            "[B, 3, H, W] in 0..1"
        )
    pixels = pixels.detach().float()
    if not bool(pixels.isfinite().all()):
        raise InputError("pixels are not finite; look at the model's weights and at their type")
    bytes_ = (pixels.clamp(0, 1) * 255).round().byte().cpu().movedim(1, -1).numpy()
    if bytes_.ndim == 4:
        return [Image.fromarray(one) for one in bytes_]
    return [[Image.fromarray(frame) for frame in clip] for clip in bytes_]


def fit(image: Image, hw: tuple[int, int], resize: Resize) -> Image:
    """An image of PIL, mode RGB, as (height, width) pixels."""
    from PIL import Image as PIL

    if resize == "crop":
        return Transform(TransformConfig(size=hw), augment=False).prepare(image)
    height, width = hw
    if resize == "stretch":
        return image.resize((width, height), PIL.Resampling.BICUBIC)
    scale = min(height / image.height, width / image.width)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    ground = PIL.new("RGB", (width, height), (255, 255, 255))
    inside = image if image.size == size else image.resize(size, PIL.Resampling.BICUBIC)
    ground.paste(inside, ((width - size[0]) // 2, (height - size[1]) // 2))
    return ground


def is_still(one: Any) -> bool:
    """True for one image, by the ending of its name where it is a path; a .gif may move."""
    from vistok.data.kinds.folder import ENDINGS

    if isinstance(one, str | os.PathLike):
        return os.path.splitext(one)[1].lower() in ENDINGS[:-1]
    return not isinstance(one, np.ndarray) or one.ndim < 4


def _sample(one: Any, name: str, shape: Shape, resize: Resize, stills: bool) -> Tensor:
    """uint8 [3, *sides] of one image or clip."""
    if shape.is_clip and stills and is_still(one):
        return to_tensor(fit(_image(one, name), shape.image_size, resize))[:, None]
    if shape.is_clip:
        frames = [_image(frame, name) for frame in _frames(one, name, shape.frames)]
        return torch.stack([to_tensor(fit(f, shape.image_size, resize)) for f in frames], dim=1)
    return to_tensor(fit(_image(one, name), shape.image_size, resize))


def _image(one: Any, name: str) -> Image:
    """The upright RGB image of one input."""
    from PIL import Image

    if isinstance(one, str | os.PathLike):
        return read(one)
    if isinstance(one, Image.Image):
        return opened(one, name)
    if isinstance(one, np.ndarray):
        return opened(Image.fromarray(_bytes(one, name)), name)
    if isinstance(one, Tensor):
        raise InputError(
            f"{name}: a tensor of shape {tuple(one.shape)}; {_EXPECTED}; pixels [B, 3, H, W] in "
            "0..1 of the tokenizer's size go into `encode` as they are"
        )
    raise InputError(f"{name}: a {type(one).__name__}; {_EXPECTED}")


def _bytes(array: np.ndarray, name: str) -> np.ndarray:
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (3, 4))
    if array.dtype != np.uint8 or not fits or not array.size:
        raise InputError(
            f"{name}: an array of shape {array.shape} and type {array.dtype}; expected uint8 "
            "[H, W, 3] in 0..255"
        )
    return np.ascontiguousarray(array)


def _frames(one: Any, name: str, count: int) -> Sequence[np.ndarray]:
    """The first `count` frames of a clip."""
    if isinstance(one, str | os.PathLike):
        from vistok.data.decode.video import clips

        name, (found, _) = os.fspath(one), clips.beginning(one, count)
    elif isinstance(one, np.ndarray) and one.ndim == 4:
        found = one[:count]
    else:
        raise InputError(f"{name}: this tokenizer takes clips; expected {_VIDEO}")
    if len(found) < count:
        raise InputError(
            f"{name}: {len(found)} frames; this tokenizer takes clips of {count}: give a longer "
            "video"
        )
    return found
