"""Typed configs, the registry of parts, YAML files with overrides, and one-line errors."""

from vistok.config.base import (
    Config,
    ConfigError,
    PartOf,
    load_plugins,
    read_yaml,
    to_yaml,
    validate,
    validate_part,
)

__all__ = [
    "Config",
    "ConfigError",
    "PartOf",
    "load_plugins",
    "read_yaml",
    "to_yaml",
    "validate",
    "validate_part",
]
