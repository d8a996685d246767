"""Saved models that may hold weights of others: the record of their origin lies beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vistok.core.errors import InputError
from vistok.storage.hub import Saved, local_path
from vistok.storage.origin import RECORD, TENSORS, Origin


class Imported(Saved):
    """`Saved` with the record of an import.

    Attributes:
        origin: of imported weights; None for those trained here.
    """

    origin: Origin | None = None

    @property
    def license(self) -> str | None:
        """License of the weights, if it is known."""
        return None if self.origin is None else self.origin.license

    def _save_pretrained(self, save_directory: Path) -> None:
        super()._save_pretrained(save_directory)
        for name in (RECORD, TENSORS):  # of another model that was saved here before
            Path(save_directory, name).unlink(missing_ok=True)
        if self.origin is not None:
            self.origin.save(Path(save_directory))

    @classmethod
    def from_pretrained(cls, name: str | Path, **options: Any) -> Any:
        model = super().from_pretrained(name, **options)
        folder = local_path(name)
        model.origin = Origin.load(folder) if folder.is_dir() else None
        return model

    def push_to_hub(self, *args: Any, research_only: bool = False, **options: Any) -> Any:
        """As in huggingface_hub; weights that are for research only need `research_only=True`.

        Raises ValueError without it, naming the license.
        """
        if "research" in (self.license or "").lower() and not research_only:
            raise InputError(
                f"these weights are licensed '{self.license}'; pushing them needs your explicit "
                "word: push_to_hub(..., research_only=True)"
            )
        return super().push_to_hub(*args, **options)
