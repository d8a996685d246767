"""Saved models that may hold weights of others: the record of their origin lies beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vistok.core.errors import InputError
from vistok.storage.hub import Saved
from vistok.storage.origin import RECORD, TENSORS, Origin


class Imported(Saved):
    """`Saved` with the record of an import.

    Attributes:
        origin: of imported weights; None for those trained here.
    """

    origin: Origin | None = None

    @property
    def release(self) -> str | None:
        """Released name of imported weights, "" for official files that were not opened by name;
        None: not imported."""
        return None if self.origin is None else self.origin.release or ""

    @property
    def licenses(self) -> tuple[str, ...]:
        """Licenses of the weights and of those they came from, as far as they are known."""
        license = None if self.origin is None else self.origin.license
        return () if license is None else (license,)

    def _save_pretrained(self, save_directory: Path) -> None:
        super()._save_pretrained(save_directory)
        for name in (RECORD, TENSORS):  # of another model that was saved here before
            Path(save_directory, name).unlink(missing_ok=True)
        if self.origin is not None:
            self.origin.save(Path(save_directory))

    @classmethod
    def from_folder(cls, folder: Path, *args: Any, **options: Any) -> Any:
        model = super().from_folder(folder, *args, **options)
        model.origin = Origin.load(folder)
        return model

    def push_to_hub(self, *args: Any, research_only: bool = False, **options: Any) -> Any:
        """As in huggingface_hub; weights that are for research only need `research_only=True`.

        Raises ValueError without it, naming the license.
        """
        for_research = [one for one in self.licenses if "research" in one.lower()]
        if for_research and not research_only:
            raise InputError(
                f"these weights, or those they came from, are licensed '{for_research[0]}'; "
                "pushing them needs your explicit word: push_to_hub(..., research_only=True)"
            )
        return super().push_to_hub(*args, **options)
