"""Saved models that may hold weights of others: the record of their origin lies beside them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from vistok.core.errors import InputError
from vistok.storage.card import CARD, CardFacts, card_text, header, is_ours, read_notes, read_rows
from vistok.storage.hub import HUB, Saved
from vistok.storage.origin import RECORD, TENSORS, Origin
from vistok.storage.weights import file_sha256


class Imported(Saved):
    """`Saved` with the record of an import.

    Attributes:
        origin: of imported weights; None for those trained here.
    """

    origin: Origin | None = None
    notes: Mapping[str, str] = {}
    """What is known of the training, for the model card: `data`, `run`, `steps`."""

    def card_facts(self) -> CardFacts:
        """What the model card says of this model."""
        raise NotImplementedError

    def generate_model_card(
        self, name: str | None = None, results: str | Path | None = None
    ) -> ModelCard:
        """The card of this model, as `save_pretrained` writes it to README.md.

        Args:
            name: that opens the model ("hf:owner/name"); None = the folder of the card.
            results: results.json of `vistok eval`, whose numbers of these weights are shown.
        """
        facts = self.card_facts()
        rows = ()
        if results is not None:
            rows = read_rows(results, file_sha256(self.state_dict()), self.makes)
        head = ModelCardData(**header(facts)).to_yaml()
        return ModelCard(f"---\n{head}\n---\n\n{card_text(facts, name, rows)}")

    def save_pretrained(
        self, save_directory: str | Path, *, results: str | Path | None = None, **options: Any
    ) -> Any:
        """Write config.json, model.safetensors and a model card (README.md) into a folder.

        A card that vistok wrote is written anew; any other is kept.

        Args:
            results: results.json of `vistok eval`, whose numbers go into the card.
            options: of `huggingface_hub.ModelHubMixin.save_pretrained`.
        """
        given = dict(options.pop("model_card_kwargs", None) or {})
        if results is not None:
            given["results"] = results
        card = Path(save_directory, CARD)
        if is_ours(card):
            card.unlink()
        return super().save_pretrained(save_directory, model_card_kwargs=given, **options)

    def origin_lines(self) -> list[str]:
        """Sentences of a card on where the weights came from."""
        lines = []
        if self.origin is not None:
            named = f", released as {self.origin.release}" if self.origin.release else ""
            lines.append(
                f"Imported from official weights of the family {self.origin.family}{named}; "
                "`pretrained.to_official` gives the official layout back."
            )
        if self.notes.get("data"):
            lines.append(f"Trained on: {self.notes['data']}.")
        elif self.origin is None:
            lines.append("Training data: not recorded.")
        if self.notes.get("run"):
            steps = f", {self.notes['steps']} steps" if self.notes.get("steps") else ""
            lines.append(f"Training run: {self.notes['run']}{steps}.")
        return lines

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
        model.origin, model.notes = Origin.load(folder), read_notes(folder)
        return model

    def push_to_hub(
        self,
        repo_id: str,
        *,
        research_only: bool = False,
        results: str | Path | None = None,
        **options: Any,
    ) -> Any:
        """As in huggingface_hub; weights that are for research only need `research_only=True`.

        Args:
            results: as of `save_pretrained`.

        Raises ValueError without it, naming the license.
        """
        for_research = [one for one in self.licenses if "research" in one.lower()]
        if for_research and not research_only:
            raise InputError(
                f"these weights, or those they came from, are licensed '{for_research[0]}'; "
                "pushing them needs your explicit word: push_to_hub(..., research_only=True)"
            )
        given = {"name": f"{HUB}{repo_id}", **({} if results is None else {"results": results})}
        given |= options.pop("model_card_kwargs", None) or {}
        return super().push_to_hub(repo_id, model_card_kwargs=given, **options)
