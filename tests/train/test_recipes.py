"""The tiny recipes, trained by the commands that their comments name, one stage after the other."""

from __future__ import annotations

import math

import pytest
import torch
from click.testing import CliRunner

from tests.support.recipes import TINY, read_config, write_clip
from tests.support.training import count_no_flop, forget_accelerate, lines
from vistok.config.registry import build
from vistok.core.draws import Draws
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.data.batch import to_device
from vistok.data.loading.loader import EvalLoader
from vistok.tokenizer import Tokenizer
from vistok.train.__main__ import main

pytestmark = pytest.mark.slow
BEFORE = {
    "titok_stage1": "maskgit_vqgan",
    "titok_stage2": "titok_stage1",
    "one_d_piece_stage1": "maskgit_vqgan",
    "one_d_piece_stage2": "one_d_piece_stage1",
    "decoder_finetune": "titok_vq",
    "retok_decoder": "retok",
    "seed_stage2": "seed_stage1",
    "seed_stage3": "seed_stage2",
    "tokenflow_decoder": "tokenflow",
}
JOBS = {"glotok": "jobs/codebook_relations_tiny"}
LAST = ("titok_stage2", "one_d_piece_stage2", "retok_decoder", "decoder_finetune", "seed_stage3")
STEPS = 50
LONGER = {"retok": 80, "ibq": 80}  # attention has to find its positions, codes their use
TERM = {
    "cosmos_di": "l1",
    "cosmos_dv": "l1",
    "ibq": "l1",
    "kl16": "l1",
    "maskgit_vqgan": "l1",
    "titok_stage1": "proxy_codes",
    "one_d_piece_stage1": "proxy_codes",
    "decoder_finetune": "perceptual",
    "flextok": "flow",
    "videoflextok": "flow",
    "larp": "l1",
    "open_magvit2": "l1",
    "open_magvit2_video": "l1",
    "mingtok": "l1",
    "divot": "flow",
    "epsilon_vae": "flow",
    "tokensgen": "flow",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    write_clip(folder / "runs/tiny_clip")
    return folder


@pytest.fixture
def trained(place, monkeypatch):
    """trained(name) -> the run's folder, after it and what it starts from were trained, once."""
    monkeypatch.chdir(place)
    count_no_flop(monkeypatch)

    def go(name: str):
        folder = place / f"runs/tiny_{name}"
        if name in BEFORE:
            go(BEFORE[name])
        if name in JOBS and not folder.exists():
            forget_accelerate()
            done = CliRunner().invoke(main, [JOBS[name]], catch_exceptions=False)
            assert done.exit_code == 0, done.output
        if not folder.exists():
            forget_accelerate()
            # Fewer than half of their steps show it.
            steps = LONGER.get(name, STEPS)
            arguments = [str(TINY[name]), f"steps={steps}", "log_every=1", "trackers=[]"]
            arguments.append("validate_limit=16")
            done = CliRunner().invoke(main, arguments, catch_exceptions=False)
            assert done.exit_code == 0, done.output
        return folder

    return go


@pytest.mark.parametrize("name", TINY)
def test_the_loss_falls(trained, name):
    """On held-out images, from where the run (or its stage) began to what it left."""
    folder, config = trained(name), read_config(TINY[name])
    data = build(config.data)
    task = build(config.task, data.open("train"))
    batch = to_device(next(iter(EvalLoader(data.open("val"), 64))), torch.device("cpu"))
    if name not in BEFORE:
        task.prepare(batch, Rng(0))
    term, progress = TERM.get(name, "l2"), Progress(1, config.steps)
    # Times and noise of a flow; nothing else is drawn.
    parts = task.draw(batch.index, 0, progress).parts if term == "flow" else {}

    def loss() -> float:
        task.tokenizer.eval()
        with torch.no_grad():
            draws = Draws(parts=parts)
            return float(task.step(task.phases[0], batch, draws, progress, {}).scalars[term])

    before = loss()
    task.tokenizer.load_state_dict(Tokenizer.from_pretrained(folder / "model").state_dict())
    after = loss()
    # The last stages begin where the others end.
    assert after < (1.0 if name in LAST else 0.6) * before, (before, after)
    rows = lines(folder)
    assert len(rows) == LONGER.get(name, STEPS) and all(math.isfinite(row["loss"]) for row in rows)


@pytest.mark.parametrize("name", BEFORE)
def test_a_stage_goes_on_from_the_one_before(trained, name):
    now, before = (trained(one) / "model" for one in (name, BEFORE[name]))
    ours, theirs = (Tokenizer.from_pretrained(one).state_dict() for one in (now, before))
    if name.endswith("stage1"):  # the teacher's half rests
        pairs = {"output_space.decoder.": "decoder.", "output_space.codebook": "quantizer.codebook"}
    else:
        pairs = {part: part for part in ("encoder.", "quantizer.")}
        parts = ("output_space.", "decoder.")
        if name == "retok_decoder":  # of its decoder the CNN alone goes on
            pairs["decoder.reader."], parts = "decoder.reader.", ("decoder.cnn.",)
        if name == "seed_stage2":  # what reads rests, and there were no codes before
            pairs, parts = {"encoder.queries.": "encoder.queries."}, ("encoder.proj.",)
        if name == "seed_stage3":  # pixels alone
            pairs["decoder."], parts = "decoder.", ("output_space.",)
        if name == "tokenflow_decoder":  # a wider one, all the rest of its decoder rests
            rest = ("decoder.semantic.", "decoder.pixels.embed.")
            pairs, parts = pairs | {one: one for one in rest}, ("decoder.pixels.levels.",)
        learned = [key for key in ours if key.startswith(parts) and key in theirs]
        assert any(key.startswith(parts[-1]) for key in learned)
        assert not any(torch.equal(ours[key], theirs[key]) for key in learned)
    for mine, given in pairs.items():
        keys = [key for key in theirs if key.startswith(given)]
        assert keys
        for key in keys:
            assert torch.equal(ours[mine + key.removeprefix(given)], theirs[key]), key
