"""MC-SJD against junhyukso/SCD: one step over a window, with and without maximal coupling."""

import torch

from vistok.generators.coupling import first_change, keeps, residual, settle

CASE = "mc_sjd"
EPSILON = 1e-10  # of the original; ours is 0


def test_one_step_over_a_window(recording):
    """Row i - 1 of the target is for draft i: draft 0 is final already, the last row has none."""
    io = recording.io
    drafts, q = io["draft_tokens"][:, 1:], io["draft_probability"][:, 1:]
    p, fresh = io["target_probability"][:, :-1], io["advanced_tokens"][:, :-1]
    kept = keeps(drafts, p, q, io["uniform"], EPSILON)
    assert torch.equal(kept, io["accept"])
    recording.close(residual(p, q, EPSILON), "residual_probability")
    for name in ("first_mismatch", "first_mismatch_plain"):  # counted from draft 0
        assert torch.equal(first_change(kept) + 1, io[name]), name
    coupled = settle(drafts, kept, io["residual_draw"], fresh, "maximal")
    plain = settle(drafts, kept, io["residual_draw"], fresh, "none", exact=False)
    last = io["advanced_tokens"][:, -1:]
    assert torch.equal(torch.cat([coupled, last], dim=1), io["tokens_coupled"])
    assert torch.equal(torch.cat([plain, last], dim=1), io["tokens_plain"])
