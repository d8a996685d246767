"""docTR's PARSeq, which reads the words of TokBench (package python-doctr, Apache-2.0).

Crops keep their proportions: they are scaled to fit 32 x 128 pixels (bilinear, antialiased, sides
rounded down) and filled up with black at the right and below.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vistok.eval.tokbench.readers import PARSEQ, find
from vistok.frozen.files import MissingWeights, Source, fitted, read_state
from vistok.layers.resize import resize
from vistok.storage.weights import sha256

SOURCE = Source(
    network=PARSEQ,
    file="parseq-56125471.pt",
    project="docTR",
    url="https://doctr-static.mindee.com/models?id=v0.7.0/parseq-56125471.pt",
    fetched=False,
)
_BATCH = 64
_HEIGHT, _WIDTH = 32, 128
_MEAN, _STD = (0.694, 0.695, 0.693), (0.299, 0.296, 0.301)
# The order of the letters is that of the weights, whatever the package's own list says today.
LETTERS = (
    f"{string.digits}{string.ascii_letters}{string.punctuation}°£€¥¢฿àâéèêëîïôùûüçÀÂÉÈÊËÎÏÔÙÛÜÇ"
)


class PARSeq:
    """The reader; UserError, one line, without the package or the weights."""

    name = PARSEQ
    preprocess = f"docTR: to {_HEIGHT}x{_WIDTH}, proportions kept, bilinear antialias"
    letters = LETTERS
    note = ""

    def __init__(self, weights: str | Path | None, device: torch.device) -> None:
        try:
            from doctr.models import parseq
        except ImportError as error:
            raise MissingWeights(
                f"{self.name}: needs docTR ({error}); pip install python-doctr"
            ) from None
        path = find(SOURCE, weights, "tokbench.text_weights")
        self.sha256, self.device = sha256(path), device
        model = parseq(pretrained=False, vocab=LETTERS, input_shape=(3, _HEIGHT, _WIDTH))
        model.load_state_dict(fitted(model.state_dict(), read_state(path, self.name), self.name))
        self.model = model.eval().requires_grad_(False).to(device)

    def __call__(self, crops: Sequence[np.ndarray], longest: Sequence[int | None]) -> list[str]:
        words = [""] * len(crops)
        for limit in set(longest):
            chosen = [i for i, one in enumerate(longest) if one == limit]
            for start in range(0, len(chosen), _BATCH):
                part = chosen[start : start + _BATCH]
                found = self._read([crops[i] for i in part], limit)
                for i, word in zip(part, found, strict=True):
                    words[i] = word
        return words

    def _read(self, crops: Sequence[np.ndarray], limit: int | None) -> list[str]:
        mean, std = (torch.tensor(one).view(3, 1, 1) for one in (_MEAN, _STD))
        images = torch.stack([(fit(crop) - mean) / std for crop in crops]).to(self.device)
        # Decoding stops after as many letters as the longest target has; nothing else of the
        # targets reaches the words.
        targets = None if limit is None else ["0" * limit] * len(crops)
        found = self.model(images, targets, return_preds=True)["preds"]
        return [word for word, _ in found]


def fit(crop: np.ndarray) -> Tensor:
    """[h, w, 3] uint8 -> [3, 32, 128] in 0..1, proportions kept, black at the right and below."""
    image = torch.from_numpy(np.ascontiguousarray(crop)).permute(2, 0, 1).float() / 255
    shape = crop.shape[0] / crop.shape[1]
    if shape > _HEIGHT / _WIDTH:
        size = (_HEIGHT, max(int(_HEIGHT / shape), 1))
    else:
        size = (max(int(_WIDTH * shape), 1), _WIDTH)
    scaled = resize(image[None], size)[0]
    return F.pad(scaled, (0, _WIDTH - size[1], 0, _HEIGHT - size[0]))
