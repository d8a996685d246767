"""The recognition network of insightface's antelopev2, which compares the faces of TokBench.

The package aligns a face by its five points (a similarity transform to 112 x 112 pixels) before the
network sees it. Its weights are for non-commercial research only.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from vistok.eval.tokbench.readers import ANTELOPE, find
from vistok.frozen.files import BadWeights, MissingWeights, Source
from vistok.storage.weights import sha256

SOURCE = Source(
    network=ANTELOPE,
    file="glintr100.onnx",
    project="insightface (antelopev2)",
    url="https://github.com/deepinsight/insightface/tree/master/python-package",
    fetched=False,
)


class ArcFace:
    """The reader; UserError, one line, without the package or the weights."""

    name = ANTELOPE
    preprocess = "insightface: five points to 112x112"
    note = "insightface's weights are for non-commercial research only"

    def __init__(self, weights: str | Path | None, device: torch.device) -> None:
        try:
            from insightface.model_zoo import get_model
        except ImportError as error:
            raise MissingWeights(
                f"{self.name}: needs insightface ({error}); pip install insightface onnxruntime"
            ) from None
        path = find(SOURCE, weights, "tokbench.face_weights")
        self.sha256 = sha256(path)
        runs_on = ["CUDAExecutionProvider"] if device.type == "cuda" else []
        try:
            self.model = get_model(str(path), providers=[*runs_on, "CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has kinds of its own
            reason = " ".join(str(error).split())[:160]
            raise BadWeights(f"{self.name}: {path} cannot be read ({reason})") from None
        if getattr(self.model, "taskname", "") != "recognition":
            raise BadWeights(f"{self.name}: {path} is no network of recognition; {SOURCE.file} is")

    def __call__(self, pixels: np.ndarray, points: np.ndarray) -> np.ndarray:
        # The package counts colors from blue, and asks a face for its points alone.
        blue_first = np.ascontiguousarray(pixels[..., ::-1])
        return self.model.get(blue_first, SimpleNamespace(kps=points))
