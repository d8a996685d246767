"""The notebook runs from its first cell to its last, and is committed as a reader should see it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "quick_tour.ipynb"


@pytest.fixture
def notebook():
    nbformat = pytest.importorskip("nbformat")
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.mark.slow
def test_every_cell_runs(notebook, tmp_path, monkeypatch):
    pytest.importorskip("ipykernel")
    from nbclient import NotebookClient

    monkeypatch.setenv("VISTOK_FAST", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for cell in notebook.cells:
        cell.pop("outputs", None)
        if cell.cell_type == "code":
            cell.outputs = []
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    kinds = [output.output_type for cell in code for output in cell.outputs]
    assert kinds.count("display_data") == 3  # images: lengths, mixtures, samples
    assert "error" not in kinds


def test_it_is_committed_with_its_output(notebook):
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert not re.search(r'"(/[a-z]+){2,}|Traceback|stderr|Warning:', text)
    assert text.count('"image/png"') == 3
    assert len(text) < 1_500_000
