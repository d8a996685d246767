"""Recordings of the original implementations: $VISTOK_PARITY_DIR, else ../shared/parity."""

import json
import os
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("VISTOK_PARITY_DIR", Path(__file__).parents[3] / "shared" / "parity"))


class Recording:
    """One folder: `case` (the JSON) and `io` (its tensors)."""

    def __init__(self, folder: Path) -> None:
        from safetensors.torch import load_file

        self.folder = folder
        self.case = json.loads((folder / "case.json").read_text())
        self.config = self.case["config"]
        self.io = load_file(folder / "io.safetensors")

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
    if case is None or "recording" not in metafunc.fixturenames:
        return
    found = folders(case)
    reason = f"no recording of case '{case}' in {FOLDER}; set VISTOK_PARITY_DIR"
    values = found or [pytest.param(None, marks=pytest.mark.skip(reason=reason))]
    metafunc.parametrize("recording", values, indirect=True, ids=lambda p: getattr(p, "name", "-"))


@pytest.fixture
def recording(request) -> Recording:
    return Recording(request.param)
