"""The names that a user could have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def close(name: str, valid: Iterable[str], cutoff: float = 0.4) -> str | None:
    """The one valid name that looks most like `name`; None if none is at least `cutoff` like it."""
    found = difflib.get_close_matches(str(name), list(valid), n=1, cutoff=cutoff)
    return found[0] if found else None


def close_ones(name: str, valid: Iterable[str], cutoff: float = 0.5, most: int = 3) -> list[str]:
    """The valid names that look like `name`, the nearest first; one that fits well stands alone."""
    found = difflib.get_close_matches(str(name), list(valid), n=most, cutoff=cutoff)
    fits = difflib.SequenceMatcher(None, str(name), found[0]).ratio() if found else 0
    return found[:1] if fits > 0.8 else found


def nearest(name: str, valid: Iterable[str]) -> str:
    """The end of an error about an unknown name: "did you mean 'fsq'? valid: fsq, vq"."""
    valid = list(valid)
    like = close(name, valid)
    hint = f"did you mean '{like}'? " if like else ""
    return f"{hint}valid: {', '.join(valid)}"
