"""Models that come inside the wheel: a folder of config.json, weights and card under each name."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent / "weights"
EMBEDDED = {"vistok-128": _HERE / "vistok-128"}
"""Folder by name; a file or folder of the user's with that name comes first."""
SIZES = {"vistok-128": ("1..256", 4096)}
"""Tokens and bits of an image, by name."""
