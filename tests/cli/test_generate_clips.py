"""`vistok generate` with tokenizers of clips: files that play, and clips that are continued."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tests.cli.test_cli import call, mistake
from tests.support.recipes import TINY, read_config
from vistok.config import validate, validate_part
from vistok.config.registry import build
from vistok.core.records import Condition
from vistok.generators import Generator
from vistok.layers.frames import hold
from vistok.storage.weights import sha256
from vistok.tokenizer import Tokenizer, TokenizerConfig

TRUNK = {"width": 16, "depth": 1, "heads": 2}


def save(name: str, condition: dict, spec) -> None:
    config = {"kind": "autoregressive", "transformer": TRUNK, "condition": condition}
    torch.manual_seed(0)
    generator = build(validate_part("generator", config), spec)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    generator.tokenizer = {"name": "tok", "sha256": sha256("tok/model.safetensors")}
    generator.save_pretrained(name)


@pytest.fixture
def place(tree, tmp_path, monkeypatch):
    """The current folder: a tokenizer `tok` of clips of 4 frames, a generator `two` of two classes
    and one, `next`, that continues 2 frames; two gifs of 3 frames."""
    monkeypatch.chdir(tmp_path)
    config = tree()
    config["frames"] = 4
    for part in ("encoder", "decoder"):
        config[part]["patches"] = {**config[part].get("patches", {}), "frames": 2}
    tokenizer = Tokenizer(validate(TokenizerConfig, config)).eval()
    tokenizer.save_pretrained("tok")
    save("two", {"classes": 2}, tokenizer.spec())
    save("next", {"classes": 0, "dropout": 0.0, "first_frames": 2}, tokenizer.spec())
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        frames = [Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)) for _ in range(3)]
        frames[0].save(f"{name}.gif", save_all=True, append_images=frames[1:], duration=100)
    return tmp_path


def played(name: str) -> tuple[np.ndarray, float]:
    """(frames [T, H, W, 3], frames per second) of a file."""
    import av

    with av.open(name) as file:
        rate = float(file.streams.video[0].average_rate)
        return np.stack([f.to_ndarray(format="rgb24") for f in file.decode(video=0)]), rate


def test_clips_are_written_as_a_grid_that_plays(place):
    assert "generated.mp4: 4 frames of 32x22" in call("generate", "two", "--count", 3)
    frames, rate = played("generated.mp4")
    assert frames.shape == (4, 22, 32, 3) and rate == 8
    call("generate", "two", "--count", 3, "--out", "one.gif", "--fps", 20)
    frames, rate = played("one.gif")
    assert frames.shape == (4, 22, 32, 3) and rate == 20
    with Image.open("one.gif") as file:
        assert file.n_frames == 4
    call("generate", "two", "--count", 1, "--out", "row.png")  # as ever: a row for each clip
    assert Image.open("row.png").size == (4 * 10 + 2, 2 * 10 + 2)
    assert "row.png does not play" in mistake(
        *("generate", "two", "--out", "row.png", "--fps", 3, "--overwrite")
    )


def test_clips_are_continued(place):
    words = ("generate", "next", "--frames", "a.gif", "--frames", "b.gif", "--count", 2)
    assert "4 frames of" in call(*words, "--out", "on.gif")
    frames, rate = played("on.gif")
    assert rate == 10 and frames.shape == (4, 22, 22, 3)  # two rows, one for each clip
    tokenizer, model = Tokenizer.from_pretrained("tok"), Generator.from_pretrained("next")
    with Image.open("a.gif") as file:
        known = [np.asarray(file.convert("RGB")) for _ in (file.seek(i) for i in range(2))]
    known = torch.from_numpy(np.stack(known)).permute(3, 0, 1, 2)[None].float() / 255
    prefix = tokenizer.encode(hold(known, 2, 4)).select(torch.zeros(2, dtype=torch.long))
    tokens = model.sample(Condition(prefix=prefix), index=torch.arange(2))
    wanted = (tokenizer.decode(tokens)[0, :, 0].clamp(0, 1) * 255).permute(1, 2, 0)
    assert np.abs(frames[0, 2:10, 2:10].astype(float) - wanted.numpy()).mean() < 8  # of a palette


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("next",), "this generator continues clips: give one of 2 frames or more, --frames"),
        (("two", "--frames", "a.gif"), "a.gif: this generator continues no clips; leave it out"),
        (("next", "--frames", "still.gif"), "still.gif: 1 frames; the first 2 are continued"),
        (("next", "--frames", "none.mp4"), "none.mp4"),
        (("two", "--out", "x.avi"), "x.avi: no image by its name"),
        (("two", "--fps", 0), "--fps 0: expected 0.01..1000 frames per second"),
        (
            ("next", "--frames", "a.gif", "--frames", "fast.gif"),
            "--frames of 10 and 20 frames per second: give one rate for all with --fps",
        ),
    ],
)
def test_slips_are_one_line(place, words, says):
    Image.new("RGB", (8, 8)).save("still.gif")
    frames = [Image.new("RGB", (8, 8), (40 * i, 0, 0)) for i in range(3)]
    frames[0].save("fast.gif", save_all=True, append_images=frames[1:], duration=50)
    assert says in mistake("generate", *words)


def test_clips_of_any_rate_play_at_that_of_their_tokenizer(place):
    """Eight frames make its second at the anchor's 8 a second, sixteen at 16."""
    config = read_config(TINY["vfrtok"]).task.tokenizer
    tokenizer = Tokenizer(config).eval()
    tokenizer.save_pretrained("tok")
    save("any", {"classes": 0, "dropout": 0.0}, tokenizer.spec())
    for words, count, rate in (((), 8, 8), (("--fps", 16), 16, 16)):
        call("generate", "any", "--count", 1, "--overwrite", *words)
        frames, played_at = played("generated.mp4")
        assert (len(frames), played_at) == (count, rate)


def test_held_frames():
    clips = torch.arange(5.0).view(1, 1, 5, 1, 1)
    assert hold(clips, 2).flatten().tolist() == [0, 1, 1, 1, 1]
    assert hold(clips[:, :, :3], 3, 5).flatten().tolist() == [0, 1, 2, 2, 2]
    with pytest.raises(ValueError, match=r"first_frames=5 of clips of 5 frames; expected 1\.\.4"):
        hold(clips, 5)
