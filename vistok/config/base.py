"""The base of every config: a frozen pydantic model that refuses unknown keys."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """Base of every config: frozen, unknown keys refused, one docstring line under each field."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )

    @classmethod
    def tiny(cls) -> Self:
        """The smallest config of its kind that is worth a test: what takes a second on a CPU."""
        return cls()
