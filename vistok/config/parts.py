"""Fields that take the config of any registered part.

A field typed `Annotated[Any, PartOf("quantizer")]` takes the config of any quantizer; its `kind`
picks which. The choices are those registered at the moment a value is validated, so neither the
order of imports nor a family that contains itself (a product of quantizers) needs care.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import TypeAdapter
from pydantic_core import core_schema

from vistok.config.registry import entries

FAMILY = "vistok_family"  # key of a core schema's metadata: the family of a field's parts


class PartOf:
    """Marks a config field that takes the config of any part of a family, as a mapping with a
    `kind` or as the config object itself."""

    def __init__(self, family: str) -> None:
        self.family = family

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self._validate, metadata={FAMILY: self.family}
        )

    def _validate(self, value: Any) -> Any:
        # pydantic puts the errors of this inner validation at the field's own place.
        return _adapter(self.family).validate_python(value)


class _Union:
    """The tagged union of some configs, by their `kind`."""

    def __init__(self, choices: dict[str, type]) -> None:
        self.choices = choices

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        schemas = {kind: handler.generate_schema(config) for kind, config in self.choices.items()}
        return core_schema.tagged_union_schema(schemas, discriminator="kind")


_ADAPTERS: dict[str, tuple[dict[str, type], TypeAdapter]] = {}


def _adapter(family: str) -> TypeAdapter:
    """Validates the config of any part of a family; made anew when a part was registered."""
    choices = {kind: entry.config for kind, entry in entries(family).items()}
    if not choices:
        raise TypeError(f"no {family} is registered: import the package that holds them first")
    made_for, adapter = _ADAPTERS.get(family, (None, None))
    if adapter is None or made_for != choices:
        adapter = TypeAdapter(Annotated[Any, _Union(choices)])
        _ADAPTERS[family] = (choices, adapter)
    return adapter
