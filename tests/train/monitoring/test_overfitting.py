"""A validation metric that falls while the loss falls is told in the log and in the summary."""

from __future__ import annotations

import json

import pytest

from tests.support.training import TINY, alarms
from vistok.train.monitoring.overfitting import warning
from vistok.train.tasks.tokenizer import TokenizerTask


def rows_of(*pairs: tuple[float | None, float | None]) -> list[dict]:
    """metrics.jsonl of (loss, psnr) each 10 steps; None = no such line, or a number not finite."""
    rows = []
    for number, (loss, psnr) in enumerate(pairs, 1):
        if loss is not None:
            rows.append({"step": 10 * number, "split": "train", "loss": loss})
        rows.append({"step": 10 * number, "split": "val", "psnr": psnr})
    return rows


def told(*pairs, metric="psnr", higher=True) -> str | None:
    return warning(rows_of(*pairs), metric, higher)


def test_falling_psnr_with_a_falling_loss_is_one_line():
    text = told((0.5, 18.0), (0.3, 20.0), (0.2, 19.0), (0.1, 15.25))
    assert text.startswith(
        "validation psnr fell from 20 (step 20) to 15.25 (step 40) while the training loss fell "
        "from 0.3 to 0.1:"
    )
    assert "\n" not in text and "keep_best=1" in text


@pytest.mark.parametrize(
    "pairs",
    [
        (),
        ((0.5, 18.0),),
        ((0.5, 18.0), (0.3, 20.0)),  # rises
        ((0.5, 18.0), (0.3, 20.0), (0.4, 15.0)),  # the loss rose too: a term has begun, or a jump
        ((0.5, 20.0), (0.3, 19.81)),  # less than a hundredth of the best
        ((0.5, 20.0), (0.3, 15.0), (0.2, 20.5)),  # over again
        ((None, 20.0), (None, 15.0)),  # no loss is known
        ((0.5, None), (0.3, None)),
    ],
)
def test_silence(pairs):
    assert told(*pairs) is None


def test_lower_may_be_better():
    assert "validation psnr rose from 2 (step 10) to 3 (step 20)" in told(
        (0.5, 2.0), (0.3, 3.0), higher=False
    )
    assert told((0.5, 3.0), (0.3, 2.0), higher=False) is None


def test_lines_between_two_validations_count_together():
    rows = [{"step": s, "split": "train", "loss": loss} for s, loss in ((1, 0.4), (2, 0.2))]
    rows += [{"step": 2, "split": "val", "psnr": 20.0}]
    rows += [{"step": 3, "split": "train", "loss": 0.31}]
    rows += [{"step": 3, "split": "val", "psnr": 10.0}]
    assert warning(rows, "psnr", True) is None  # 0.31 is above the mean of 0.3
    rows[-2]["loss"] = 0.29
    assert "from 0.3 to 0.29" in warning(rows, "psnr", True)


def test_a_run_says_it_in_its_log_its_alarms_and_its_summary(run, monkeypatch, capsys):
    values = iter([20.0, 19.0, 12.0])
    monkeypatch.setattr(TokenizerTask, "validate", lambda *_: {"psnr": next(values)})
    optimizer = {"kind": "adamw", "lr": 5e-3}
    folder = run(TINY, steps=60, validate_every=20, save_every=0, warmup=0, optimizer=optimizer)
    words = "validation psnr fell from 20 (step 20) to 12 (step 60) while the training loss fell"
    said = capsys.readouterr().out
    assert f"step 60: {words}" in said and "step 40: validation psnr fell from 20" in said
    assert [alarm["step"] for alarm in alarms(folder)] == [40, 60]
    told = json.loads((folder / "summary.json").read_text())["warnings"]
    assert sum(line.startswith(words) for line in told) == 1  # of the last validation alone
    assert not any("from 20 (step 20) to 19" in line for line in told)
