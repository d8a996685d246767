"""What every generator offers, and how it is saved.

Letters: B batch, L positions, F factors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vistok.config import ConfigError, validate, validate_part
from vistok.config.registry import build
from vistok.core.draws import Draws
from vistok.core.records import Condition
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.storage.hub import CONFIG, Saved, read_json
from vistok.tokens import Tokens, TokenSpec


class Generator(nn.Module, Saved, library_name="vistok", tags=["image-generator"]):
    """Models the tokens that a spec describes; never holds an encoder or decoder.

    Attributes:
        spec: of the tokens it is trained on and gives.
        classes: names of its classes; () = unconditional.
        tokenizer: {"name", "sha256"} of the tokenizer whose tokens it learned; may be empty.
    """

    spec: TokenSpec

    def __init__(self) -> None:
        super().__init__()
        self.classes: tuple[str, ...] = ()
        self.tokenizer: dict[str, str] = {}

    def draw(self, index: Tensor, rng: Rng, progress: Progress) -> Draws:
        """Draws of a training step."""
        return Draws()

    def loss(
        self, tokens: Tokens, condition: Condition, draws: Draws | None = None
    ) -> dict[str, Tensor]:
        """{"nll": mean nats a position, ...}; the first is what training minimizes."""
        raise NotImplementedError

    def sample(self, labels: Tensor | None, length: int | None = None, **settings: Any) -> Tokens:
        """New tokens, [B] of them; `length` stops at a prefix that the spec allows."""
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        return {
            **self.config.model_dump(mode="json"),
            "spec": self.spec.model_dump(mode="json"),
            "class_names": list(self.classes),
            "tokenizer": self.tokenizer,
        }

    @classmethod
    def from_description(cls, data: dict[str, Any], source: str) -> Generator:
        data = dict(data)
        facts = {name: data.pop(name, None) for name in ("spec", "class_names", "tokenizer")}
        if facts["spec"] is None:
            raise ConfigError(f"{source}: no 'spec'; expected the config of a generator")
        config = validate_part("generator", data, source)
        generator = build(config, validate(TokenSpec, facts["spec"], source))
        generator.classes = tuple(facts["class_names"] or ())
        generator.tokenizer = dict(facts["tokenizer"] or {})
        return generator


def load_generator(folder: str | Path) -> Generator:
    """A saved generator of any kind; ConfigError if the folder holds something else."""
    folder = Path(folder)
    if folder.is_dir() and "spec" not in read_json(folder / CONFIG):
        raise ConfigError(f"{folder}: not a generator (its {CONFIG} has no 'spec')")
    return Generator.from_pretrained(str(folder))
