"""LlamaGen's CNN, ReTok's Q-Former and Instella's bits, untrained, through protocols and commands
like any other."""

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from tests.support.recipes import TINY, read_config
from vistok.cli import main
from vistok.core.rng import Rng
from vistok.tokenizer import Tokenizer

pytestmark = pytest.mark.filterwarnings("ignore:Fréchet")
LENGTHS = {"llamagen_vq": (64,), "instella": (8,), "retok": (1, 2, 4, 8, 16)}


def made(name: str) -> Tokenizer:
    torch.manual_seed(0)
    tokenizer = Tokenizer(read_config(TINY[name]).task.tokenizer).eval()
    with torch.no_grad():
        tokenizer.quantizer.initialize(tokenizer.latents(torch.rand(8, 3, 32, 32)), Rng(0))
    return tokenizer


@pytest.mark.parametrize("name", LENGTHS)
def test_protocols(name, context, measure):
    found = context(made(name), count=4, batch=4)
    rows = measure(found, "rfid")
    assert tuple(row.length for row in rows if row.metric == "rFID") == LENGTHS[name]
    rows = measure(found, "pfid", mode="quick")
    assert {row.length for row in rows if row.metric == "pFID-v1-quick"} == set(LENGTHS[name])
    assert measure(found, "robust", flips=(0.1,), losses=(0.5,))


@pytest.mark.parametrize("name", LENGTHS)
def test_commands(name, tmp_path):
    def call(*arguments):
        result = CliRunner().invoke(main, [str(one) for one in arguments])
        assert result.exit_code == 0, result.output
        return result.output

    model, image = tmp_path / "model", tmp_path / "image.png"
    made(name).save_pretrained(model)
    Image.effect_noise((32, 32), 60).convert("RGB").save(image)
    assert f"tokens/image             {LENGTHS[name][-1]}" in call("info", model)
    for length in LENGTHS[name][-2:]:
        codes, back = tmp_path / f"codes{length}", tmp_path / f"back{length}"
        call("encode", model, image, "--length", length, "--out", codes)
        call("decode", model, codes / "image.vtk", "--out", back)
        assert Image.open(back / "image.png").size == (32, 32)
