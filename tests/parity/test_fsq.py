"""FSQ against apple/ml-flextok: bound, codes, indices, gradient, lookup."""

import torch

from vistok.core.records import Latents
from vistok.quantizers.atoms.fsq import FSQ, FSQConfig

CASE = "fsq"


def test_fsq(recording):
    close = {"atol": recording.tolerance("float", "float_abs"), "rtol": 0}
    assert recording.config["level_sets"]
    for levels in recording.config["level_sets"]:
        name = "_".join(map(str, levels))
        expected = {
            key.removeprefix(f"{name}."): value
            for key, value in recording.io.items()
            if key.startswith(f"{name}.")
        }
        quantizer = FSQ(FSQConfig(levels=levels))
        z = expected["z"].requires_grad_()
        torch.testing.assert_close(quantizer.bound(z), expected["bounded"], **close)
        result = quantizer(Latents(z, ((z.shape[1],),)))
        torch.testing.assert_close(result.values, expected["codes"], **close)
        assert torch.equal(result.indices[..., 0], expected["indices"])
        (result.values * expected["cotangent"]).sum().backward()
        torch.testing.assert_close(z.grad, expected["grad_z"], **close)
        ids = expected["lookup_ids"]
        looked = quantizer.lookup(ids[None, :, None])[0]
        torch.testing.assert_close(looked, expected["lookup_codes"], **close)
        # And back: the codes of all ids are themselves again.
        assert torch.equal(quantizer.lookup(result.indices), result.values)
