"""The user's own parts: modules that register them, named on the command line only."""

from __future__ import annotations

import importlib
from collections.abc import Iterable

from vistok.config.errors import ConfigError


def load_plugins(modules: Iterable[str]) -> None:
    """Import modules; the parts that they register are then valid in every config.

    Raises ConfigError for a module that cannot be imported.
    """
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ConfigError(
                f"plugins: cannot import '{name}' ({error}); expected a Python module on the path"
            ) from None
