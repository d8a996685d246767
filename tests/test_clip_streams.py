"""Whole clips of causal tokenizers in one stream: exact, padded or refused, and files of them."""

import gc

import numpy as np
import pytest
import torch
from PIL import Image

from tests.cli.test_cli import call, mistake
from tests.test_causal import built, clip
from vistok import clip_streams
from vistok.core.errors import InputError
from vistok.tokens.codec import Codec
from vistok.tokens.labels import Chunked, Label, Record


def test_a_stream_is_the_whole_clip():
    tokenizer, pixels = built(time_window=2), clip(21)
    whole = tokenizer.encode(pixels)
    tokens = clip_streams.encode(tokenizer, pixels[0].unbind(1), 21)
    assert len(tokens) == 6 and torch.equal(tokens.indices.flatten(0, 1), whole.indices[0])
    back = torch.stack(list(clip_streams.decode(tokenizer, tokens, 21)), 1)
    torch.testing.assert_close(back, tokenizer.decode(whole)[0], atol=1e-5, rtol=0)
    for batch in (2, 4, 9):  # blocks at a time change nothing
        more = clip_streams.encode(tokenizer, pixels[0].unbind(1), 21, batch=batch)
        assert torch.equal(more.indices, tokens.indices) and more.spec == tokens.spec
        shown = torch.stack(list(clip_streams.decode(tokenizer, tokens, 21, batch)), 1)
        torch.testing.assert_close(shown, back, atol=1e-5, rtol=0)
    with pytest.raises(InputError, match="6 blocks of a clip of 22 frames: they make 21"):
        list(clip_streams.decode(tokenizer, tokens, 22))


@pytest.mark.parametrize(("pad", "places"), [("repeat", [6] * 2), ("reflect", [5, 4])])
def test_the_last_block_is_padded_and_cut(pad, places):
    tokenizer, pixels = built(), clip(7)
    frames = pixels[0].unbind(1)
    tokens = clip_streams.encode(tokenizer, frames, 7, pad)
    filled = torch.stack([*frames, *(frames[n] for n in places)], 1)[None]
    assert torch.equal(tokens.indices.flatten(0, 1), tokenizer.encode(filled).indices[0])
    assert len(list(clip_streams.decode(tokenizer, tokens, 7))) == 7
    with pytest.raises(InputError, match=r"7 frames: .*5, 9, 13, ... frames work; give --pad"):
        clip_streams.encode(tokenizer, frames, 7)
    with pytest.raises(InputError, match="6 frames came; expected 7"):
        clip_streams.encode(tokenizer, frames[:6], 7, pad)


def test_files_of_streams():
    tokenizer = built()
    tokens = clip_streams.encode(tokenizer, clip(17)[0].unbind(1), 17)
    made_by = tokenizer.codes_sha256()
    codec = Codec(tokenizer.spec(), made_by, block=tokenizer.spec_of(1))
    record = Record(tokens, "a.mp4", chunks=Chunked(17, 0, 5, stream=True))
    data = codec.write_record(record)
    found = codec.record(data)
    assert found.chunks == record.chunks and torch.equal(found.tokens.indices, tokens.indices)
    with pytest.raises(InputError, match="a stream of a causal tokenizer; this one is not causal"):
        Codec(tokenizer.spec(), made_by).record(data)
    with pytest.raises(InputError, match=r"label 12; expected 1\.\.5, 8 or 9"):
        Label.read(bytes([12, 17, 0, 5]))


def test_streams_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tokenizer = built()
    tokenizer.save_pretrained("model")
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)) for _ in range(14)]
    images[0].save("film.gif", save_all=True, append_images=images[1:], duration=100)
    assert "13, 17, 21, ... frames work; give --pad repeat" in mistake(
        "encode", "model", "film.gif", "--whole"
    )
    assert "14 frames in 5 blocks" in call("encode", "model", "film.gif", "--pad", "repeat")
    said = call("decode", "model", "film.vtk", "--out", "film.frames")
    assert "14 frames of 8x8" in said and len(list((tmp_path / "film.frames").iterdir())) == 14
    assert "windows" in call("encode", "model", "film.gif", "--overlap", "4", "--overwrite")
    named = ("--frequencies", "counts.vtf")
    said = mistake("encode", "model", "film.gif", "--whole", *named)
    assert "--frequencies counts.vtf: it counts the codes of clips of 9 frames" in said
    assert "--length 1: a stream" in mistake(
        "encode", "model", "film.gif", "--whole", "--length", "1"
    )


@pytest.fixture
def young():
    """The collector passes over what was there before: a search of it all takes seconds here."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def live_bytes():
    """Bytes of all tensors since `young` that are reachable now, each storage once."""
    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        if type(thing) in (torch.Tensor, torch.nn.Parameter) and thing.device.type == "cpu":
            storage = thing.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def test_memory_is_flat_from_200_frames_to_1000(young):
    """Encoding and decoding; only the tokens grow, 4 bytes a block and what holds them."""
    tokenizer, peaks = built(time_window=2), {}
    made = tokenizer.encode(clip(5)).indices[0, :4].numel()

    def frames(count, seen):
        generator = torch.Generator().manual_seed(0)
        for number in range(count):
            if number % (count // 3) == count // 4:
                seen.append(live_bytes() - made * (number // 4))
            yield torch.rand(3, 8, 8, generator=generator)

    for count in (201, 1001):
        seen = []
        tokens = clip_streams.encode(tokenizer, frames(count, seen), count, batch=8)
        before = max(seen)
        for number, frame in enumerate(clip_streams.decode(tokenizer, tokens, count, batch=8)):
            assert frame.shape == (3, 8, 8)
            if number % (count // 3) == count // 4:
                seen.append(live_bytes() - tokens.indices.numel())
        assert number == count - 1
        peaks[count] = before, max(seen)
        del tokens, frame
    for short, long in zip(peaks[201], peaks[1001], strict=True):
        assert long - short < 2**13, peaks  # a clip of 1,001 such frames has 768,768 bytes


def test_a_table_beside_the_weights_is_said_to_be_left_out(capsys):
    from vistok.cli.encoding import say_packed

    tokenizer = built()
    codec = Codec(tokenizer.spec(), tokenizer.codes_sha256(), block=tokenizer.block_spec)
    say_packed(tokenizer, codec, None)
    assert capsys.readouterr() == ("", "")
    codec.table = object()  # any
    say_packed(tokenizer, codec, 4)  # windows
    assert capsys.readouterr() == ("", "")
    say_packed(tokenizer, codec, None)
    assert "only packed: the frequency table is of clips of 9 frames" in "".join(
        capsys.readouterr()
    )
