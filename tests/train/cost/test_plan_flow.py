"""The plan of a flow decoder's training: one velocity per image, whatever its sampling takes."""

from click.testing import CliRunner

from tests.support.recipes import TINY
from tests.support.training import forget_accelerate
from vistok.train.__main__ import main


def test_a_flow_decoder_is_planned(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = []
    for steps in (8, 64):
        forget_accelerate()
        changes = f"task.tokenizer.decoder.sampling.steps={steps}"
        done = CliRunner().invoke(main, [str(TINY["flextok"]), "--dry-run", changes])
        assert done.exit_code == 0, done.output
        shown.append([line for line in done.output.splitlines() if "forward" in line])
    assert shown[0] and shown[0] == shown[1]
