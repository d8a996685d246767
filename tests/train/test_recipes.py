"""The tiny recipes, trained by the commands that their comments name, one stage after the other."""

from __future__ import annotations

import pytest
import torch
from click.testing import CliRunner

from tests.recipes import TINY, write_clip
from tests.train.conftest import lines
from train.__main__ import main
from vistok.tokenizer import Tokenizer

pytestmark = pytest.mark.slow
BEFORE = {
    "titok_stage1": "maskgit_vqgan",
    "titok_stage2": "titok_stage1",
    "one_d_piece_stage1": "maskgit_vqgan",
    "one_d_piece_stage2": "one_d_piece_stage1",
}
TERM = {"maskgit_vqgan": "l1", "titok_stage1": "proxy_codes", "one_d_piece_stage1": "proxy_codes"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    write_clip(folder / "runs/tiny_clip")
    return folder


@pytest.fixture
def trained(place, monkeypatch):
    """trained(name) -> the run's folder, after it and what it starts from were trained, once."""
    from accelerate.state import AcceleratorState, GradientState, PartialState

    monkeypatch.chdir(place)

    def go(name: str):
        folder = place / f"runs/tiny_{name}"
        if name in BEFORE:
            go(BEFORE[name])
        if not folder.exists():
            for state in (AcceleratorState, GradientState, PartialState):
                state._reset_state()
            arguments = [str(TINY[name]), "log_every=1", "trackers=[]"]
            done = CliRunner().invoke(main, arguments, catch_exceptions=False)
            assert done.exit_code == 0, done.output
        return folder

    return go


@pytest.mark.parametrize("name", TINY)
def test_the_loss_falls(trained, name):
    folder = trained(name)
    term = [row[TERM.get(name, "l2")] for row in lines(folder)]
    first, last = (sum(part) / len(part) for part in (term[:5], term[-10:]))
    assert last < 0.8 * first, (first, last)


@pytest.mark.parametrize("name", BEFORE)
def test_a_stage_goes_on_from_the_one_before(trained, name):
    now, before = (trained(one) / "model" for one in (name, BEFORE[name]))
    ours, theirs = (Tokenizer.from_pretrained(one).state_dict() for one in (now, before))
    if name.endswith("stage1"):  # the teacher's half rests
        pairs = {"paints.decoder.": "decoder.", "paints.codebook": "quantizer.codebook"}
    else:
        pairs = {"encoder.": "encoder.", "quantizer.": "quantizer."}
        learned = [key for key in ours if key.startswith(("decoder.", "paints."))]
        assert any(key.startswith("paints.") for key in learned)
        assert not any(torch.equal(ours[key], theirs[key]) for key in learned)
    for mine, given in pairs.items():
        keys = [key for key in theirs if key.startswith(given)]
        assert keys
        for key in keys:
            assert torch.equal(ours[mine + key.removeprefix(given)], theirs[key]), key
