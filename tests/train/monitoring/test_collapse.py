"""The collapse alarm."""

from __future__ import annotations

import copy

import pytest
import torch

from tests.support.training import TINY, alarms, lines
from vistok.tokens import TokenSpec
from vistok.train.monitoring.collapse import UsageWindow, expected_codes


def test_a_single_used_code_raises_the_alarm_with_remedies(run, capsys):
    tree = copy.deepcopy(TINY)
    tree["task"]["tokenizer"]["quantizer"] = {"kind": "vq", "codebook_size": 64, "dim": 4}
    # All codes but one lie far away, and nothing moves them.
    tree["task"]["tokenizer"]["quantizer"] |= {"l2_norm": False, "init": "normal"}
    tree["task"]["collapse"] = {"below": 0.3, "steps": 4}
    tree["optimizer"] = {"kind": "adamw", "lr": 1e-12}
    folder = run(tree)
    usage = [row["window_usage"] for row in lines(folder) if "window_usage" in row]
    assert len(usage) == 3
    raised = alarms(folder)
    assert [alarm["step"] for alarm in raised] == [4, 8, 12]
    assert raised[0]["usage"] == pytest.approx(usage[0])
    said = capsys.readouterr().out
    assert "below 30%: the codebook is collapsing; try quantizer.init=kmeans" in said


def test_no_alarm_above_the_share_and_none_if_switched_off(run):
    tree = copy.deepcopy(TINY)
    tree["task"]["collapse"] = {"below": 0.01, "steps": 4}
    assert not (run(tree, "a") / "alarms.jsonl").exists()
    tree["task"]["collapse"] = None
    assert "window_usage" not in lines(run(tree, "b"))[-1]


def test_usage_by_hand():
    assert expected_codes(4, 1) == pytest.approx(1.0)
    assert expected_codes(2, 2) == pytest.approx(1.5)
    window = UsageWindow(TokenSpec(blocks=((3,),), vocab=(4, 2)))
    window.add(torch.tensor([[[0, 1], [0, 1], [3, 1]]]))
    # 3 draws: 2 of 4 codes where 2.3125 are expected, 1 of 2 where 1.75 are
    assert window.usage() == pytest.approx((2 / 2.3125 + 1 / 1.75) / 2)
    window.begin()
    assert window.usage.__self__.tokens == 0 and not window.seen.any()


def test_codes_beyond_a_table_are_estimated_and_not_listed():
    """2**30 codes in 4 MB; the estimate is near what an exact count would give."""
    spec = TokenSpec(blocks=((500,),), vocab=(2**30,))
    draws = torch.randint(0, 2**30, (64, 500, 1), generator=torch.Generator().manual_seed(0))
    few = 7 * 2**20 + torch.arange(64)[:, None, None].expand(64, 500, 1) // 4  # near each other
    for codes in (draws, few):
        window = UsageWindow(spec)
        window.add(codes)
        assert window.seen.numel() == 2**22 and int(window.tokens) == 32_000
        exact = len(codes.unique()) / expected_codes(2**30, 32_000)
        assert window.usage() == pytest.approx(min(1.0, exact), rel=0.01)
    full = UsageWindow(TokenSpec(blocks=((1,),), vocab=(2**26,)))
    full.seen.fill_(True)
    full.tokens += 2**26
    assert full.usage() == 1.0  # no alarm of a table that is too small
