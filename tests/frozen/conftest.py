"""What tests of weights from elsewhere share."""

import urllib.error

import pytest
import torch

from vistok.frozen.files import FOLDER


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No folder of weights, an empty cache, and no network."""

    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network in tests")

    monkeypatch.delenv(FOLDER, raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
