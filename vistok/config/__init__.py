"""Typed configs, the registry of parts, YAML files with overrides, and one-line errors."""

from vistok.config.base import Config
from vistok.config.errors import ConfigError, InputError, UserError
from vistok.config.parts import PartOf
from vistok.config.plugins import load_plugins, plugin_words, take_plugins
from vistok.config.validation import validate, validate_part
from vistok.config.yaml_files import read_yaml, to_yaml

__all__ = [
    "Config",
    "ConfigError",
    "InputError",
    "PartOf",
    "UserError",
    "load_plugins",
    "plugin_words",
    "read_yaml",
    "take_plugins",
    "to_yaml",
    "validate",
    "validate_part",
]
