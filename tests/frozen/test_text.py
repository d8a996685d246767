"""Text encoders: what comes out, that keeping changes nothing, what is refused."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from tests.support import tiny_text
from vistok.config import validate
from vistok.frozen import text
from vistok.frozen.files import MissingWeights
from vistok.frozen.text import TextEncoder, TextEncoderConfig

KINDS = ("clip", "t5")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("text")
    return {kind: getattr(tiny_text, kind)(place / kind) for kind in KINDS}


@pytest.fixture
def encoder(folders):
    def make(kind="clip", **options) -> TextEncoder:
        tree = {"network": kind, "path": folders[kind], "length": 6, **options}
        return TextEncoder(validate(TextEncoderConfig, tree))

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_features_and_which_of_them_are_text(encoder, kind):
    one = encoder(kind)
    features, mask = one(["ab", "", "abcdefghij"])
    assert features.shape == (3, 6, 8) and features.dtype == torch.float32 and one.dim == 8
    assert mask.dtype == torch.bool and not features.requires_grad
    ends = mask.sum(1).tolist()
    assert ends[2] == 6 and ends[1] < ends[0] < 6  # cut to the length; '' has its marks alone
    assert ends[1] >= 1
    assert all(row[:n].all() for row, n in zip(mask, ends, strict=True))
    again = one(["abcdefghijkl"])[0]
    if kind == "clip":  # causal: what was cut off cannot have been seen
        assert torch.equal(again[:, :5], features[2:, :5])
    assert not torch.equal(features[0], features[1])


def test_all_layers_of_a_causal_model(tmp_path):
    import transformers

    path = tiny_text.causal(tmp_path / "causal")
    tree = {"network": "causal", "path": path, "length": 6, "layer": "all"}
    one = TextEncoder(validate(TextEncoderConfig, tree))
    features, mask = one(["ab", "", "abcdefghij"])
    assert features.shape == (3, 3, 6, 8) and one.dim == 8
    ends = mask.sum(1).tolist()
    assert ends[1] < ends[0] < ends[2] == 6
    for row, text_mask, n in zip(features, mask, ends, strict=True):
        assert text_mask[6 - n :].all() and not row[:, : 6 - n].any()  # padded on the left
    whole = transformers.LlamaForCausalLM.from_pretrained(path).eval()
    ids = one.text_tokenizer("ab", return_tensors="pt")["input_ids"]
    with torch.no_grad():  # without padding: the same, whatever stands in front
        expected = whole(ids, output_hidden_states=True).hidden_states[1:]
    found = features[0, :, 6 - ends[0] :]
    torch.testing.assert_close(found, torch.cat(expected), atol=1e-4, rtol=1e-4)
    last = TextEncoder(validate(TextEncoderConfig, tree | {"layer": "last"}))(["ab"])[0]
    assert torch.equal(last[0], features[0, -1])


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_layer_and_the_one_before_it(encoder, kind):
    last, before = encoder(kind), encoder(kind, layer="penultimate")
    seen = {}
    network = before.network
    if kind == "clip":
        inner = getattr(network, "text_model", network)
        block, norm = inner.encoder.layers[-1], inner.final_layer_norm
    else:
        block, norm = network.encoder.block[-1], network.encoder.final_layer_norm

    def enters(module, args, kwargs):
        seen["into"] = (args[0] if args else kwargs["hidden_states"]).clone()

    block.register_forward_pre_hook(enters, with_kwargs=True)
    norm.register_forward_hook(lambda module, args, out: seen.update(out=out.clone()))
    features = before(["ab", "c"])[0]
    assert torch.equal(features, seen["into"][:2])
    assert torch.equal(last(["ab", "c"])[0], seen["out"][:2])
    assert not torch.allclose(features, seen["out"][:2], atol=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_kept_features_are_those_made_afresh_bit_for_bit(encoder, kind, monkeypatch):
    words = ["".join(chr(97 + (i * k) % 26) for k in range(i % 5)) for i in range(40)]
    used = encoder(kind)
    monkeypatch.setattr(text, "_KEPT", 5 * used(["a"])[0].nbytes)
    for start in range(0, 40, 7):
        used(words[start : start + 7])
    assert len(used._kept) <= 5
    features, mask = used(words)  # some are kept, some were dropped, some are there twice
    for number in (0, 3, 11, 39):
        fresh, seen = encoder(kind)([words[number]])
        assert torch.equal(features[number], fresh[0]) and torch.equal(mask[number], seen[0])


def test_a_text_that_is_kept_is_not_read_again(encoder, monkeypatch):
    one = encoder()
    features = one(["ab", "c"])[0]
    monkeypatch.setattr(one, "_encode", lambda texts: pytest.fail(f"read again: {texts}"))
    assert torch.equal(one(["c", "ab", "c"])[0], features[[1, 0, 1]])


def test_padding_may_be_filled_as_open_clip_does(encoder):
    own, zero = encoder(), encoder(pad_id=0)
    (a, mask), (b, same) = own(["ab"]), zero(["ab"])
    assert torch.equal(mask, same) and mask.sum() == 4
    assert torch.equal(a[:, :4], b[:, :4])  # causal: the text itself does not look ahead
    assert not torch.allclose(a[:, 4:], b[:, 4:], atol=0.01)
    end = own.text_tokenizer.convert_tokens_to_ids("<|endoftext|>")
    assert torch.equal(a, encoder(pad_id=end)(["ab"])[0])


def test_it_is_frozen_exact_and_known_by_its_weights(encoder, tmp_path):
    one = encoder().train()
    assert not one.network.training and not any(p.requires_grad for p in one.parameters())
    features = one(["ab"])[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(encoder()(["ab"])[0], features)
    assert one.sha256 == encoder().sha256
    assert one.sha256 != encoder(path=tiny_text.clip(tmp_path / "b", seed=1)).sha256


def test_what_is_not_there_is_one_line(encoder, folders, tmp_path, fails):
    with fails(MissingWeights, "clip:.*nowhere: not available", "as text.path"):
        encoder(path=str(tmp_path / "nowhere"))
    with fails(MissingWeights, "clip:someone/nothing: not available"):
        encoder(path="someone/nothing")
    shutil.copytree(folders["clip"], tmp_path / "no_words")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "no_words" / name).unlink()
    with fails(MissingWeights, "not available"):
        encoder(path=str(tmp_path / "no_words"))


def test_pickled_weights_are_refused(encoder, folders, tmp_path, fails):
    folder = tmp_path / "pickled"
    shutil.copytree(folders["clip"], folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with fails(MissingWeights, "not available"):
        encoder(path=str(folder))


def test_code_in_the_folder_is_never_run(encoder, folders, tmp_path):
    folder = tmp_path / "code"
    shutil.copytree(folders["clip"], folder)
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n")
    for name, key in (("config.json", "AutoModel"), ("tokenizer_config.json", "AutoTokenizer")):
        tree = json.loads((folder / name).read_text())
        value = "own.Own" if key == "AutoModel" else ["own.Own", None]
        (folder / name).write_text(json.dumps({**tree, "auto_map": {key: value}}))
    try:
        encoder(path=str(folder))(["ab"])
    except MissingWeights as error:
        assert "\n" not in str(error)
    assert not (tmp_path / "ran").exists()


def test_texts_always_go_in_by_the_same_number(encoder, monkeypatch):
    """Products of another shape may round otherwise, and a resumed run must repeat every bit."""
    one, sizes = encoder(), []
    features = one._features
    monkeypatch.setattr(one, "_features", lambda texts: sizes.append(len(texts)) or features(texts))
    one(["a"])
    one(["a", "b", "c"])
    one([f"{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(40)])
    assert sizes == [text._TOGETHER] * 5
