"""The record that binds a run's model to the checkpoint and the config that it was made from.

Training writes it beside the weights, in the same rename. A run that is made longer, or begun anew,
keeps the earlier model until it has one of its own; by the record everybody can tell the two apart.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path

from vistok.storage.files import write_text
from vistok.storage.hub import WEIGHTS
from vistok.storage.sealed import SealError, read_sealed, sealed
from vistok.storage.weights import sha256

RUN_CONFIG = "config.yaml"
_NAME = "training.json"


@dataclass(frozen=True)
class TrainingRecord:
    """Origin of a model that training wrote."""

    step: int
    """Optimizer steps done."""
    checkpoint: str
    """Hash of the checkpoint, as `files.identity` gives it."""
    weights: str
    """sha256 of model.safetensors."""
    config: str
    """sha256 of the run's config.yaml."""

    @classmethod
    def of(cls, run: Path, model: Path, step: int, checkpoint: str) -> TrainingRecord:
        """The record of the model that lies in `model`, of the run folder `run`."""
        return cls(step, checkpoint, sha256(model / WEIGHTS), sha256(run / RUN_CONFIG))

    def write(self, model: Path) -> None:
        """Put the record beside the weights."""
        write_text(model / _NAME, sealed(asdict(self)))

    @classmethod
    def read(cls, model: Path) -> TrainingRecord | None:
        """The record of a model folder; None = training did not write it. SealError if damaged."""
        path = model / _NAME
        if not path.is_file():
            return None
        facts = read_sealed(path)
        if set(facts) != {field.name for field in fields(cls)}:
            raise SealError(f"{path}: not a record of training; start the training command again")
        return cls(**facts)


def unlike_its_run(run: Path, weights: str) -> str | None:
    """Why the model of a run is not what the run's config.yaml trained; None if it is, or if
    nothing is known of it.

    Args:
        weights: sha256 of the model's weights.
    Raises SealError if the model's record is damaged.
    """
    record = TrainingRecord.read(run / "model")
    if record is None:
        return None
    if record.weights != weights:
        return f"model/{WEIGHTS} is not the file that training wrote"
    if sha256(run / RUN_CONFIG) != record.config:
        return (
            f"its model is that of step {record.step:,}, and {RUN_CONFIG} is not the config it was "
            "trained with: the run was made longer or begun anew and has not finished, or the file "
            "was edited"
        )
    return None
