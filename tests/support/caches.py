"""Token caches whose record is changed and sealed again, as another program could have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vistok.data.token_cache import META
from vistok.storage.sealed import read_sealed, sealed


def change_meta(folder: Path | str, **changes: Any) -> None:
    """Change keys of a cache's meta.json; its seal is right again."""
    path = Path(folder) / META
    path.write_text(sealed({**read_sealed(path), **changes}), encoding="utf-8")
