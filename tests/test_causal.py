"""Causal tokenizers: images as clips of one frame, other counts of frames, clips in pieces."""

import pytest
import torch

from vistok.adaptive import Goal, choose, psnr_of_each
from vistok.config import validate
from vistok.core.errors import InputError
from vistok.core.records import Batch
from vistok.core.schedules import Progress
from vistok.data.batch import to_uint8
from vistok.tokenizer import Tokenizer, TokenizerConfig
from vistok.tokens import Tokens

SPACE = {"kind": "haar", "patch": 2}
NET = {"channels": 8, "channel_mult": [1, 2], "blocks": 1, "resolution": 4, "space_levels": 1,
       "attention_resolutions": [4], "time_levels": 1}  # fmt: skip


def built(frames=9, more=None, **net):
    net = NET | net
    tree = {
        "image_size": 8,
        "frames": frames,
        "input_space": SPACE,
        "output_space": SPACE,
        "encoder": {"kind": "causal_cnn", "net": net, "z_channels": 8},
        "quantizer": {"kind": "fsq", "levels": [8, 5]},
        "decoder": {"kind": "causal_cnn", "net": net, "z_channels": 8, "time_first": True},
        **(more or {}),
    }
    torch.manual_seed(0)
    return Tokenizer(validate(TokenizerConfig, tree)).eval()


def clip(frames, batch=1):
    return torch.rand(batch, 3, frames, 8, 8, generator=torch.Generator().manual_seed(1))


def test_an_image_is_a_clip_of_one_frame():
    tokenizer, pixels = built(), clip(9, 2)
    tokens = tokenizer.encode(pixels)
    assert tokens.spec.blocks == ((2, 2),) * 3 and tokens.spec.prefix == "block"
    image = tokenizer.encode(pixels[:, :, 0])
    assert torch.equal(image.indices, tokens.indices[:, :4]) and image.size == (1, 8, 8)
    first = tokenizer.decode(image)
    torch.testing.assert_close(first, tokenizer.decode(tokens)[:, :, :1], atol=1e-5, rtol=0)
    # A prefix of blocks shows their frames, and then the last one still.
    prefix = tokenizer.decode(tokenizer.encode(pixels, length=1))
    torch.testing.assert_close(prefix[:, :, :1], first, atol=1e-5, rtol=0)
    trained = tokenizer(Batch(torch.arange(2), pixels[:, :, 0]))
    assert trained.pixels.shape == trained.target.shape == (2, 3, 1, 8, 8)


def test_counts_of_frames():
    tokenizer = built()
    for frames in (1, 5, 17):
        tokens = tokenizer.encode(clip(frames))
        assert tokens.spec == tokenizer.spec_of(frames)
        assert tokenizer.decode(tokens).shape[2] == frames
    with pytest.raises(InputError, match=r"takes 1 . k x 4; 5, 9, 13, ... frames work"):
        tokenizer.encode(clip(8))
    assert tokenizer.encode(clip(17), length=4).keep.tolist() == [4]
    with pytest.raises(InputError, match=r"length=4: expected 1\.\.2"):
        tokenizer.encode(clip(5), length=4)


def test_shorter_clips_train_with_the_draws_of_whole_ones():
    tokenizer = built(more={"regularizers": [{"kind": "nested_dropout", "lengths": "uniform"}]})
    index = torch.arange(3)
    draws = tokenizer.draw(index, 0, Progress(0, 1))
    for frames in (1, 5):
        found = tokenizer(Batch(index, clip(frames, 3)), draws)
        assert found.pixels.shape[2] == frames
    image = clip(1, 2)[:, :, 0]
    latents = tokenizer.latents(image)
    assert torch.equal(tokenizer.quantize(latents).indices, tokenizer.encode(image).indices)


def test_pieces_that_do_not_fit_are_refused_in_one_line(fails):
    tokenizer, pixels = built(), clip(9)
    for pieces, words in {
        (pixels[:, :, 0],): r"pixels have shape \(1, 3, 8, 8\); .* takes clips",
        (pixels[..., :4],): r"pixels have shape \(1, 3, 9, 8, 4\)",
        ((pixels * 255).byte(),): "divide uint8 by 255",
        (pixels[:, :, :2], clip(2, 2)): "a piece of 2 clips behind one of 1",
    }.items():
        with fails(InputError, words):
            list(tokenizer.encode_stream(pieces))
    with fails(InputError, "these tokens are a prefix of their blocks"):
        list(tokenizer.decode_stream([tokenizer.encode(pixels, length=1)]))
    grouped = tokenizer.encode(pixels).regroup((40,))
    found = torch.cat(list(tokenizer.decode_stream([grouped])), 2)
    torch.testing.assert_close(found, tokenizer.decode(grouped), atol=1e-5, rtol=0)


@pytest.mark.parametrize("window", [None, 2])
def test_pieces_equal_the_whole(window):
    tokenizer, pixels = built(time_window=window), clip(25)
    whole = tokenizer.encode(pixels)
    pieces = list(tokenizer.encode_stream(pixels.split((2, 9, 1, 13), 2), blocks=2))
    assert torch.equal(torch.cat([piece.indices for piece in pieces], 1), whole.indices)
    frames = torch.cat(list(tokenizer.decode_stream(pieces)), 2)
    torch.testing.assert_close(frames, tokenizer.decode(whole), atol=1e-5, rtol=0)
    with pytest.raises(InputError, match="a clip of 26 frames"):
        list(tokenizer.encode_stream(clip(26).split(5, 2)))


def test_memory_of_a_long_clip_is_flat():
    """Tensors that a stream keeps are as large after 1,001 frames as after 41."""
    tokenizer, kept = built(time_window=4), []
    one = tokenizer.encode(clip(5))
    block = Tokens(one.spec.model_copy(update={"blocks": one.spec.blocks[:1]}), one.indices[:, 4:])
    streams = []
    import vistok.causal as causal

    class Watched(causal.Stream):
        def __init__(self):
            super().__init__()
            streams.append(self)

    original, causal.Stream = causal.Stream, Watched
    try:
        count = 0
        for frames in tokenizer.decode_stream(block for _ in range(251)):
            count += frames.shape[2]
            kept.append(sum(map(_numbers, streams[0]._kept.values())))
    finally:
        causal.Stream = original
    assert count == 1001 and kept[10] == kept[-1] > 0


def _numbers(memory):
    if isinstance(memory, tuple):
        return sum(map(_numbers, memory))
    return memory.untyped_storage().nbytes() if isinstance(memory, torch.Tensor) else 0


def whole_clip_tokenizer(frames=5, size=8):
    """Norms over time: any 1 + 2k frames, but no pieces."""
    net = {"channels": 4, "channel_mult": [1, 2], "halve_time": [True], "blocks": 1,
           "mid_blocks": 1, "norm_groups": 2}  # fmt: skip
    tree = {
        "image_size": size,
        "frames": frames,
        "encoder": {"kind": "causal_resnet", "net": net},
        "quantizer": {"kind": "lfq", "bits": 6},
        "decoder": {"kind": "causal_resnet", "net": net},
    }
    torch.manual_seed(0)
    return Tokenizer(validate(TokenizerConfig, tree)).eval()


def test_norms_over_time_take_any_count_but_no_pieces():
    tokenizer, pixels = whole_clip_tokenizer(), clip(9, 2)
    assert (tokenizer.frame_stride, tokenizer.streams, tokenizer.spec().prefix) == (
        2,
        False,
        "none",
    )
    for frames in (1, 3, 5, 9):
        alone = whole_clip_tokenizer(frames)
        alone.load_state_dict(tokenizer.state_dict())
        tokens = tokenizer.encode(pixels[:, :, :frames])
        assert tokens.spec == alone.spec() == tokenizer.spec_of(frames)
        assert tokens.size == (frames, 8, 8)
        assert torch.equal(tokens.indices, alone.encode(pixels[:, :, :frames]).indices)
        decoded = tokenizer.decode(tokens)
        assert torch.equal(decoded, alone.decode(tokens)) and decoded.shape[2] == frames
    image = tokenizer.encode(pixels[:, :, 0])
    assert torch.equal(image.indices, tokenizer.encode(pixels[:, :, :1]).indices)
    # The last frames change the tokens of the first one.
    assert not torch.equal(tokenizer.encode(pixels).indices[:, :16], image.indices)
    with pytest.raises(InputError, match=r"takes 1 . k x 2; 7, 9, 11, ... frames work"):
        tokenizer.encode(clip(8))
    for pieces in (tokenizer.encode_stream([pixels]), tokenizer.decode_stream([tokens])):
        with pytest.raises(InputError, match=r"depend on the whole clip.*cannot come in pieces"):
            next(pieces)


def test_a_map_of_one_position_has_no_spread():
    tokenizer = whole_clip_tokenizer(5, size=2)
    tokenizer.decode(tokenizer.encode(torch.rand(1, 3, 5, 2, 2)))
    image = tokenizer.encode(torch.rand(1, 3, 2, 2))
    with pytest.raises(InputError, match=r"a map of \(1, 1, 1\) has one; use more frames"):
        tokenizer.decode(image)


def test_the_quality_of_an_image_or_a_longer_clip_is_its_own():
    tokenizer = built()
    for pixels in (clip(1, 2)[:, :, 0], clip(17)):
        found = choose(tokenizer, pixels, Goal(target_psnr=100.0))
        decoded = tokenizer.decode(tokenizer.encode(pixels)).reshape(pixels.shape)
        expected = psnr_of_each(to_uint8(decoded), to_uint8(pixels))
        torch.testing.assert_close(found.psnr, expected)
        assert not found.met.any() and set(found.lengths.tolist()) == {
            len(found.tokens.spec.blocks)
        }


def test_continuous_latents_come_in_pieces_too():
    tokenizer, pixels = built(more={"quantizer": {"kind": "none", "dim": 4}}), clip(9)
    whole, pieces = tokenizer.encode(pixels), list(tokenizer.encode_stream(pixels.split(4, 2)))
    values = torch.cat([piece.values for piece in pieces], 1)
    torch.testing.assert_close(values, whole.values, atol=1e-5, rtol=0)
    frames = torch.cat(list(tokenizer.decode_stream(pieces)), 2)
    torch.testing.assert_close(frames, tokenizer.decode(whole), atol=1e-5, rtol=0)
