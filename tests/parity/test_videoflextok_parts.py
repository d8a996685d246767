"""VideoFlexTok's parts against apple/ml-videoflextok: masks, kept lengths, prefixes, chunks."""

import ast

import torch

from vistok.core.chunks import Chunks
from vistok.layers.flow.prefix import given, interpolate_prefixed
from vistok.layers.time_masks import EarlierBlocks, time_mask

CASE = "videoflextok_parts"
NAMES = {
    "prefix2prefix": "patches_to_patches",
    "prefix2nonprefix": "patches_to_registers",
    "nonprefix2prefix": "registers_to_patches",
    "nonprefix2nonprefix": "registers_to_registers",
}


def said(recording, name: str) -> dict:
    """The options that a tensor's meaning quotes as a Python literal."""
    text = recording.case["tensors"][name]["meaning"]
    return ast.literal_eval(text[text.index("{") : text.rindex("}") + 1])


def test_masks(recording):
    config = recording.config
    sizes = config["time"], config["patches"], config["registers"]
    names = [name for name in recording.io if name.startswith("mask.")]
    assert names
    for name in names:
        kind, earlier = name.removeprefix("mask."), None
        if kind.startswith("flexible"):
            options = said(recording, name)
            earlier = EarlierBlocks(**{NAMES[key]: value for key, value in options.items()})
            kind = "flexible_time_block_causal_last"
        found = time_mask(kind, *sizes, earlier)
        theirs = recording.io[name].bool()
        assert torch.equal(theirs[: len(found), : len(found)], found), name
        assert not theirs[len(found) :].any() and not theirs[:, len(found) :].any()


def test_kept_lengths_of_time_steps(recording):
    io = recording.io
    x, places = io["tnd.x"], torch.arange(io["tnd.x"].shape[2])
    text = recording.case["tensors"]["tnd.eval_out"]["meaning"]
    lists = ast.literal_eval(text[text.index("[[") : text.index("]]") + 2])
    keeps = torch.tensor([row * x.shape[1] if len(row) == 1 else row for row in lists])
    for keep, name in ((keeps, "tnd.eval_out"), (io["tnd.train_keep"], "tnd.train_out")):
        shown = (places < keep[..., None])[..., None]
        recording.close(torch.where(shown, x, io["tnd.mask_token"]), name)


def test_prefixes(recording):
    io = recording.io
    text = recording.case["tensors"]["prefix.out"]["meaning"]
    lengths = torch.tensor(ast.literal_eval(text[text.rindex("[") :]))
    known = given(lengths, io["tnd.x"].shape[1])[..., None, None]
    recording.close(torch.where(known, io["prefix.mask_token"], io["tnd.x"]), "prefix.out")
    found = interpolate_prefixed(
        io["pn.clean"],
        io["pn.noise"],
        io["pn.sigma"],
        io["pn.prefix_len"],
        io["pn.cond_sigma"],
    )
    recording.close(found.noised, "pn.noised")
    assert torch.equal(found.counts, io["pn.loss_mask"].bool())


def test_chunks(recording):
    """The recorded tokenizer gives each time step the mean index of the frames that it covers."""
    io, config = recording.io, recording.config
    chunks = Chunks(config["chunk"], config["overlap"], config["tdown"])
    calls = []

    def encode(clip):
        frames = clip[0, 0, :, 0, 0]
        later = frames[1:].reshape(-1, chunks.stride).mean(1)
        return torch.cat([frames[:1], later])[None]

    def decode(tokens, known):
        i = len(calls)
        calls.append(i)
        recording.close(tokens[0], f"chunk.call{i}_tokens")
        if known is not None:
            recording.close(known[0, 0, :, 0, 0], f"chunk.call{i}_cond_frames")
        first = i * chunks.hop
        return torch.arange(first, first + chunks.frames).float()[None, None, :, None, None]

    total = int(io["chunk.video_frames"])
    clip = torch.arange(total).float()[None, None, :, None, None]
    tokens = chunks.encode(clip, encode)
    recording.close(tokens[0], "chunk.tokens")
    decoded = chunks.decode(tokens, decode, encode)
    recording.close(decoded[0, 0, :, 0, 0], "chunk.reconstruction")
    assert len(calls) == chunks.count(total)
