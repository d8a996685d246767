"""MC-SJD against junhyukso/SCD: one step over a window, with and without maximal coupling."""

import torch

from vistok.generators.coupling import behind_change, first_change, keeps, residual

CASE = "mc_sjd"
EPSILON = 1e-10  # of the original; ours is 0


def test_one_step_over_a_window(recording):
    """Row i - 1 of the target is for draft i: draft 0 is final already, the last row has none."""
    io = recording.io
    drafts, q = io["draft_tokens"][:, 1:], io["draft_probability"][:, 1:]
    p, fresh = io["target_probability"][:, :-1], io["advanced_tokens"]
    wanted, given = (one.gather(-1, drafts[..., None])[..., 0] for one in (p, q))
    kept = keeps(wanted, given, io["uniform"], EPSILON)
    assert torch.equal(kept, io["accept"])
    recording.close(residual(p, q, EPSILON), "residual_probability")
    for name in ("first_mismatch", "first_mismatch_plain"):  # counted from draft 0
        assert torch.equal(first_change(kept) + 1, io[name]), name
    coupled = torch.where(kept, drafts, io["residual_draw"])
    plain = torch.where(behind_change(kept, exact=False), fresh[:, :-1], coupled)
    for codes, name in ((coupled, "tokens_coupled"), (plain, "tokens_plain")):
        assert torch.equal(torch.cat([codes, fresh[:, -1:]], dim=1), io[name]), name
