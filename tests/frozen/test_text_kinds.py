"""Text encoders: pooled features, and padding on the left."""

import pytest
import torch

from tests.support import tiny_text
from vistok.config import ConfigError, validate
from vistok.frozen.files import MissingWeights
from vistok.frozen.text import TextEncoder, TextEncoderConfig

TEXTS = ["ab", "", "abcdefghij"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("text")
    return {
        "clip": tiny_text.clip(place / "clip", projection=5),
        "t5": tiny_text.t5(place / "t5"),
        "causal": tiny_text.causal(place / "causal"),
    }


@pytest.fixture
def encoder(folders):
    def make(kind="clip", **options) -> TextEncoder:
        tree = {"network": kind, "path": folders[kind], "length": 6, **options}
        return TextEncoder(validate(TextEncoderConfig, tree))

    return make


@pytest.mark.parametrize("pad_id", [None, 0])
def test_pooled_features_are_those_of_clip(encoder, folders, pad_id):
    transformers = pytest.importorskip("transformers")
    whole = transformers.CLIPTextModelWithProjection.from_pretrained(folders["clip"]).eval()
    one = encoder(pooled="projected", layer="penultimate", pad_id=pad_id)
    found = one.condition(TEXTS)
    for row, text in enumerate(TEXTS):
        ids = one.text_tokenizer(text, truncation=True, max_length=6, return_tensors="pt")
        with torch.no_grad():
            out = whole(**ids, output_hidden_states=True)
        torch.testing.assert_close(found.pooled[row], out.text_embeds[0], atol=1e-5, rtol=1e-5)
        count = ids["input_ids"].shape[1]
        before = out.hidden_states[-2][0]
        torch.testing.assert_close(found.text[row, :count], before, atol=1e-5, rtol=1e-5)
    assert found.pooled.shape == (3, 5) and one.pooled_dim == 5
    assert torch.equal(one(TEXTS)[0], found.text)  # the sequence and the pooled vector at once
    last = encoder(pooled="end")
    assert last.pooled_dim == 8 and encoder().pooled_dim is None
    ends = last.condition(TEXTS)
    places = ends.text_mask.sum(1) - 1
    assert torch.equal(ends.pooled, ends.text[torch.arange(3), places])


@pytest.mark.parametrize("kind", ["t5", "clip"])
def test_padding_on_the_left(encoder, kind):
    right, left = encoder(kind).condition(TEXTS), encoder(kind, padding="left").condition(TEXTS)
    for row, count in enumerate(right.text_mask.sum(1).tolist()):
        assert left.text_mask[row].tolist() == [False] * (6 - count) + [True] * count
        assert torch.equal(left.text[row, 6 - count :], right.text[row, :count])
        assert not left.text[row, : 6 - count].any()
    pooled = encoder(kind, padding="left", pooled="end").condition(TEXTS).pooled
    assert torch.equal(pooled, left.text[:, -1])


def test_a_causal_model_may_pad_on_the_right(encoder):
    left, right = encoder("causal").condition(TEXTS), encoder("causal", padding="right")
    found = right.condition(TEXTS)
    for row, count in enumerate(found.text_mask.sum(1).tolist()):
        assert found.text_mask[row, :count].all() and not found.text[row, count:].any()
        theirs = left.text[row, 6 - count :]
        torch.testing.assert_close(found.text[row, :count], theirs, atol=1e-4, rtol=1e-4)
    pooled = [
        encoder("causal", padding=side, pooled="end").condition(TEXTS).pooled
        for side in ("left", "right")
    ]
    torch.testing.assert_close(*pooled, atol=1e-4, rtol=1e-4)


def test_what_has_no_projection_is_one_line(encoder, tmp_path, fails):
    with fails(MissingWeights, "no text_projection.weight", "pooled=end"):
        encoder(pooled="projected", path=tiny_text.clip(tmp_path / "plain"))
    with fails(ConfigError, "pooled=projected with network=t5"):
        encoder("t5", pooled="projected")
