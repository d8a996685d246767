import pytest
import torch

from vistok.core.chunks import Chunks
from vistok.core.errors import InputError


@pytest.mark.parametrize(("overlap", "causal"), [(0, True), (1, True), (5, True), (4, False)])
def test_windows_join_to_the_whole(overlap, causal):
    """A tokenizer without losses gets every frame back, once, whatever the overlap."""
    chunks = Chunks(8 + causal, overlap, 4, causal)
    frames = chunks.frames + 2 * chunks.hop
    clip = torch.arange(frames).float()[None, None, :, None, None]

    def encode(window):
        lead = window[0, 0, :1, 0, 0].expand(4 if causal else 0)
        return torch.cat([lead, window[0, 0, causal:, 0, 0]]).reshape(1, -1, 4)

    def decode(tokens, known):
        window = tokens.flatten(1)[:, 3 * causal :][:, None, :, None, None]
        if known is not None:
            assert torch.equal(window[:, :, :overlap], known)
        return window

    tokens = chunks.encode(clip, encode)
    assert tokens.shape[1] == chunks.steps + 2 * (chunks.steps - chunks.shared_steps)
    assert torch.equal(chunks.decode(tokens, decode, encode), clip)


def test_left_over_frames_are_refused():
    chunks = Chunks(17, 1, 4)
    assert [chunks.count(n) for n in (17, 33, 49)] == [1, 2, 3]
    assert [chunks.padded(n) for n in (1, 17, 18, 33, 34)] == [17, 17, 33, 33, 49]
    with pytest.raises(InputError, match="expected 33 or 49 frames"):
        chunks.count(40)
    with pytest.raises(InputError, match="expected 17 frames"):
        chunks.count(5)
    with pytest.raises(InputError, match="8 time steps do not fill"):
        chunks.decode(torch.zeros(1, 8), lambda tokens, known: tokens, lambda clip: clip)
    with pytest.raises(InputError, match=r"overlap=17 .* expected 0 to 16"):
        Chunks(17, 17, 4)
    with pytest.raises(InputError, match="16 frames do not fill time steps"):
        Chunks(16, 1, 4)
