"""Long clips whose windows are given the last decoded frames of the one before."""

import pytest
import torch

from vistok import chunking
from vistok.chunking import Chunking
from vistok.config import ConfigError, read_yaml, validate
from vistok.core.chunks import Chunks
from vistok.core.errors import InputError
from vistok.core.records import Condition
from vistok.tokenizer import Tokenizer, TokenizerConfig
from vistok.tokens import Tokens


def tree(**chunks):
    found = read_yaml("tiny/videoflextok")["task"]["tokenizer"] | {"image_size": 16}
    found["chunks"] = {"frames": 5, "overlap": 1, "join": "condition", **chunks}
    found["decoder"] |= {"sampling": {"steps": 2}}
    return found


def built(**chunks):
    torch.manual_seed(0)
    tokenizer = Tokenizer(validate(TokenizerConfig, tree(**chunks))).eval()
    for parameter in tokenizer.decoder.parameters():  # else its output is zero at first
        torch.nn.init.normal_(parameter, std=0.2)
    return tokenizer


def frames(count):
    generator = torch.Generator().manual_seed(1)
    return list(torch.rand(count, 3, 16, 16, generator=generator))


@pytest.mark.parametrize("overlap", [1, 2])
def test_windows_are_those_of_the_papers_chunks(overlap):
    """Its tokens of given time steps are re-encoded, and hidden from the decoder."""
    tokenizer, count = built(overlap=overlap), 5 + 2 * (5 - overlap)
    places = Chunking.of(tokenizer, count)
    assert (len(places), places.join, places.padding) == (3, "condition", 0)
    tokens = chunking.encode(tokenizer, frames(count), places)
    found = torch.stack(list(chunking.decode(tokenizer, tokens, places)), 1)
    assert found.shape == (3, count, 16, 16)

    chunks, spec, number = Chunks(5, overlap, 1, causal=False), tokenizer.spec(), iter(range(3))
    clip = torch.stack(frames(count), 1)[None]
    steps = lambda window: tokenizer.encode(window).indices.unflatten(1, (5, -1))

    def encode(known):  # of the overlap alone: the tokenizer takes whole windows
        return steps(torch.cat([known, known[:, :, -1:].expand(-1, -1, 5 - overlap, -1, -1)], 2))

    def decode(window, known):
        condition = None if known is None else Condition(frames=known)
        index = torch.tensor([next(number)])
        return tokenizer.decode(Tokens(spec, window.flatten(1, 2)), condition, index=index)

    stored = chunks.encode(clip, steps)
    assert stored.shape[1] == count  # a time step for each frame, once
    shown = chunks.decode(stored, decode, lambda known: encode(known)[:, :overlap])
    torch.testing.assert_close(found, shown[0].float(), atol=1e-5, rtol=0)
    assert torch.equal(found[:, :5], tokenizer.decode(tokens.select(slice(0, 1)))[0])


def test_the_last_window_is_padded_and_cut():
    tokenizer = built()
    places = Chunking.of(tokenizer, 7)
    with pytest.raises(InputError, match=r"windows take 5 \+ 4 k \(5 or 9\)"):
        chunking.encode(tokenizer, frames(7), places)
    tokens = chunking.encode(tokenizer, frames(7), places, "repeat")
    assert len(list(chunking.decode(tokenizer, tokens, places))) == 7


def test_decoders_that_are_given_nothing_are_refused_in_one_line():
    plain = tree()
    plain["decoder"] = {**plain["decoder"], "given": None}
    with pytest.raises(ConfigError, match=r"chunks\.join=condition: decoder flow_vit is given no"):
        validate(TokenizerConfig, plain)
    with pytest.raises(ConfigError, match=r"chunks\.join=condition with overlap=0"):
        validate(TokenizerConfig, tree(overlap=0))
    with pytest.raises(InputError, match="overlap=0: this tokenizer's windows are given frames"):
        Chunking.of(built(), 9, 0)
