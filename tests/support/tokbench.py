"""A small TokBench: images whose words and faces are flat colors, and readers that know them."""

import json

import numpy as np
from PIL import Image, ImageDraw

LETTERS = "abcdefgh"


class ColorReader:
    """Reads a crop as four letters, one for each quarter of its width: how red it is."""

    name, sha256, preprocess, note = "stub-colors", "1" * 64, "none", ""
    letters = LETTERS

    def __init__(self):
        self.asked = []

    def __call__(self, crops, longest):
        self.asked += list(zip([one.shape for one in crops], longest, strict=True))
        return [
            "".join(LETTERS[int(part[..., 0].mean()) // 32] for part in np.array_split(one, 4, 1))
            for one in crops
        ]


class MeanReader:
    """The color at the middle of five points, which is all that it sees of a face."""

    name, sha256, preprocess, note = "stub-mean", "2" * 64, "none", "terms of the stub"

    def __call__(self, pixels, points):
        x, y = points.mean(0).astype(int)
        return pixels[y, x].astype(np.float64)


def word_image(words, sides, where=None):
    """An image of `sides` (width, height) with each word as four colored quarters of its box."""
    image = Image.new("RGB", sides, (0, 0, 0))
    draw = ImageDraw.Draw(image)
    for text, (x0, y0, x1, y1) in words:
        step = (x1 - x0) // 4
        for i, letter in enumerate(text):
            color = (LETTERS.index(letter) * 32 + 16, 90, 200)
            draw.rectangle((x0 + i * step, y0, x0 + (i + 1) * step - 1, y1 - 1), fill=color)
    return image


def write_bench(root, text=(), faces=(), sets=("ic13",)):
    """A folder of TokBench.

    Args:
        text: (file name, sides, [(word that is drawn, its annotation, box, ratio)]).
        faces: (file name, image, [(five points, ratio)]).
    """
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    for name in sets:
        folder = root / "images" / "text_data" / name
        folder.mkdir(parents=True, exist_ok=True)
        found = []
        for file, sides, words in text:
            word_image([(drawn, box) for drawn, _, box, _ in words], sides).save(folder / file)
            marks = [{"rec": rec, "bbox": list(box), "ratio": r} for _, rec, box, r in words]
            found.append({"file_name": file, "annotations": marks})
        (root / "annotations" / f"text_{name}.json").write_text(json.dumps(found))
    folder = root / "images" / "face_data" / "wflw"
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for file, image, marks in faces:
        image.save(folder / file)
        marks = [{"kps": points, "ratio": ratio} for points, ratio in marks]
        found.append({"image_name": file, "faces": marks})
    (root / "annotations" / "face_meta.json").write_text(json.dumps(found))
    return root
