"""Recordings of the original implementations: $VISTOK_PARITY_DIR, else ../shared/parity."""

import json
import os
from pathlib import Path

import pytest
import torch

FOLDER = Path(os.environ.get("VISTOK_PARITY_DIR", Path(__file__).parents[3] / "shared" / "parity"))


class Recording:
    """One folder: `case` (the JSON) and `io` (its tensors)."""

    def __init__(self, folder: Path) -> None:
        from safetensors.torch import load_file

        self.folder = folder
        self.case = json.loads((folder / "case.json").read_text())
        self.config = self.case["config"]
        self.io = load_file(folder / "io.safetensors")

    @property
    def weights(self):
        """The official state dict, under the official names."""
        from safetensors.torch import load_file

        return load_file(self.folder / "weights.safetensors")

    def close(self, found, name, within=None):
        """Equal to a recorded tensor within the recording's tolerance for it.

        `name` is that of the tensor, or the tensor itself, `within` then naming the tolerance.
        """
        expected = self.io[name] if isinstance(name, str) else name
        torch.testing.assert_close(
            found.detach().float(),
            expected.float().reshape(found.shape),
            **self.allowed(name, within),
        )

    def allowed(self, name, within):
        """atol and rtol: the tensor's own, else the general ones."""
        stated = self.case["tolerance"]
        own = stated.get(within or name if isinstance(name, str) or within else "")
        if own is not None:
            return {"atol": own, "rtol": 0.0}
        general = next((stated[n] for n in ("atol", "abs", "float", "float_abs") if n in stated), 0)
        return {"atol": general, "rtol": stated.get("rtol", stated.get("rel", 0.0))}

    def tolerance(self, *names: str) -> float:
        """The first of these tolerances that the recording states."""
        return next(self.case["tolerance"][n] for n in names if n in self.case["tolerance"])


def folders(case: str) -> list[Path]:
    """Every folder whose case.json names this case; a folder's own name says nothing."""
    found = []
    for path in sorted(FOLDER.glob("*/case.json")):
        if json.loads(path.read_text())["case"] == case:
            found.append(path.parent)
    return found


def pytest_generate_tests(metafunc):
    """A test of a module with `CASE = "..."` that asks for `recording` runs on each recording."""
    case = getattr(metafunc.module, "CASE", None)
    cases = getattr(metafunc.module, "CASES", () if case is None else (case,))
    if not cases or "recording" not in metafunc.fixturenames:
        return
    found = [folder for case in cases for folder in folders(case)]
    reason = f"no recording of case {', '.join(cases)} in {FOLDER}; set VISTOK_PARITY_DIR"
    values = found or [pytest.param(None, marks=pytest.mark.skip(reason=reason))]
    metafunc.parametrize("recording", values, indirect=True, ids=lambda p: getattr(p, "name", "-"))


@pytest.fixture
def recording(request) -> Recording:
    return Recording(request.param)
