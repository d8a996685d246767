"""Readers by name: what is said where a package or its weights are not there; how crops are fitted;
how the packages are called."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from vistok.eval.config import EvalConfig, read_config
from vistok.eval.tokbench import arcface, parseq
from vistok.eval.tokbench.readers import FACE_READERS, TEXT_READERS
from vistok.frozen.files import BadWeights, MissingWeights

CPU = torch.device("cpu")


def package(monkeypatch, name, **content):
    """An importable module of that name, and its parents."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        monkeypatch.setitem(sys.modules, ".".join(parts[:end]), ModuleType(parts[end - 1]))
    for key, value in content.items():
        setattr(sys.modules[name], key, value)


@pytest.mark.parametrize(
    ("readers", "name", "module", "install"),
    [
        (TEXT_READERS, "doctr-parseq", "doctr.models", "pip install python-doctr"),
        (
            FACE_READERS,
            "antelopev2",
            "insightface.model_zoo",
            "pip install insightface onnxruntime",
        ),
    ],
)
def test_a_package_that_is_not_there(monkeypatch, readers, name, module, install):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingWeights, match=install) as caught:
        readers[name](None, CPU)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(f"{name}: needs")


@pytest.mark.parametrize(
    ("readers", "name", "module", "attribute", "file", "key"),
    [
        (TEXT_READERS, "doctr-parseq", "doctr.models", "parseq", parseq.SOURCE.file, "text"),
        (
            *(FACE_READERS, "antelopev2", "insightface.model_zoo", "get_model"),
            *(arcface.SOURCE.file, "face"),
        ),
    ],
)
def test_weights_that_are_not_there(
    monkeypatch, tmp_path, readers, name, module, attribute, file, key
):
    package(monkeypatch, module, **{attribute: None})
    monkeypatch.setenv("VISTOK_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for weights in (None, tmp_path / "none"):
        with pytest.raises(MissingWeights) as caught:
            readers[name](weights, CPU)
        line = str(caught.value)
        assert file in line and f"(tokbench.{key}_weights)" in line and "\n" not in line


def test_names_of_readers():
    for key in ("text_reader", "face_reader"):
        with pytest.raises(ValueError, match="unknown reader 'doctr'"):
            read_config(EvalConfig, [f"tokbench.{key}=doctr"])


def test_letters_are_those_of_the_weights():
    """126 letters, the order of docTR's list `french`; the head of the weights has one more."""
    assert len(parseq.LETTERS) == len(set(parseq.LETTERS)) == 126
    assert parseq.LETTERS[:11] == "0123456789a" and parseq.LETTERS[-1] == "Ç"
    assert parseq.LETTERS[62] == "!" and parseq.LETTERS[94:99] == "°£€¥¢"


@pytest.mark.parametrize(
    ("sides", "inside"),
    [((16, 64), (32, 128)), ((20, 40), (32, 64)), ((10, 100), (12, 128)), ((300, 2), (32, 1))],
)
def test_crops_keep_their_proportions(sides, inside):
    """Sides (height, width) -> the part of 32 x 128 that is not black; rounded down."""
    fitted = parseq.fit(np.full((*sides, 3), 255, np.uint8))
    assert fitted.shape == (3, 32, 128)
    expected = torch.zeros(3, 32, 128)
    expected[:, : inside[0], : inside[1]] = 1
    torch.testing.assert_close(fitted, expected)


class Reads(torch.nn.Module):
    """In the place of docTR's network: a letter of its weights for each letter that it may write;
    keeps what it was called with."""

    def __init__(self, vocab):
        super().__init__()
        self.vocab, self.calls = vocab, []
        self.letter = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images, targets=None, return_preds=False):
        self.calls.append((images, targets))
        count = 5 if targets is None else max(map(len, targets)) + 1
        word = self.vocab[int(self.letter)] * count
        return {"preds": [(word, 1.0)] * len(images), "loss": None}


@pytest.fixture
def reads(monkeypatch, tmp_path):
    def make(pretrained, vocab, input_shape):
        assert not pretrained and input_shape == (3, 32, 128)
        return Reads(vocab)

    package(monkeypatch, "doctr.models", parseq=make)
    torch.save({"letter": torch.tensor([12.0])}, tmp_path / parseq.SOURCE.file)
    return parseq.PARSeq(tmp_path, CPU)


def test_words_are_read_at_one_limit_at_a_time_and_come_back_in_order(reads):
    crops = [np.full((8, 32, 3), value, np.uint8) for value in (0, 255, 0, 255)]
    assert reads(crops, [3, None, 1, 3]) == ["cccc", "ccccc", "cc", "cccc"]
    shapes = {None if t is None else t[0]: len(images) for images, t in reads.model.calls}
    assert shapes == {None: 1, "0": 1, "000": 2}
    images = next(images for images, targets in reads.model.calls if targets is None)
    mean, std = torch.tensor([0.694, 0.695, 0.693]), torch.tensor([0.299, 0.296, 0.301])
    torch.testing.assert_close(images[0].flatten(1).mean(1), (1 - mean) / std)
    assert not any(one.requires_grad for one in reads.model.parameters())


def test_weights_of_another_network(monkeypatch, tmp_path):
    package(monkeypatch, "doctr.models", parseq=lambda pretrained, vocab, input_shape: Reads(vocab))
    torch.save({"other": torch.zeros(1)}, tmp_path / "w.pt")
    with pytest.raises(BadWeights, match="lacks 'letter'"):
        parseq.PARSeq(tmp_path / "w.pt", CPU)


def test_faces_are_given_blue_first_with_their_points(monkeypatch, tmp_path):
    made = []

    def get_model(path, providers):
        made.append((path, providers))
        if "bad" in path:
            raise RuntimeError("not\nONNX")
        kind = "detection" if "other" in path else "recognition"
        return SimpleNamespace(
            taskname=kind, get=lambda image, face: np.array([*image[0, 0], *face.kps[0]])
        )

    package(monkeypatch, "insightface.model_zoo", get_model=get_model)
    for name in ("glintr100.onnx", "other.onnx", "bad.onnx"):
        (tmp_path / name).write_bytes(name.encode())
    reader = arcface.ArcFace(tmp_path, CPU)
    assert made == [(str(tmp_path / "glintr100.onnx"), ["CPUExecutionProvider"])]
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[0, 0] = (1, 2, 3)
    assert reader(pixels, np.full((5, 2), 7)).tolist() == [3, 2, 1, 7, 7]
    assert "non-commercial" in reader.note and len(reader.sha256) == 64
    for name, why in (("other", "no network of recognition"), ("bad", r"\(not ONNX\)")):
        with pytest.raises(BadWeights, match=why):
            arcface.ArcFace(tmp_path / f"{name}.onnx", CPU)
