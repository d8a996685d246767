"""The user's own parts: modules that register them, named on the command line only.

There `plugins=my.module` or `plugins=[my.module, another]` stands among the other words of any
command.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterable

from vistok.config.errors import ConfigError, UserError
from vistok.config.overrides import value_of

_taken: list[str] = []
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")  # a.b, not .b: there is no package to start from


def take_plugins(words: Iterable[str]) -> list[str]:
    """Load the modules that `plugins=...` among the words names; the other words, in order.

    Raises ConfigError for a value that names no modules, and as `load_plugins` does.
    """
    left, modules = [], []
    for word in words:
        key, equals, text = word.partition("=")
        if equals and key.strip() == "plugins":
            modules += _modules(text)
        else:
            left.append(word)
    if modules and os.getcwd() not in sys.path:  # an installed command does not look there
        sys.path.append(os.getcwd())
    load_plugins(modules)
    _taken.extend(modules)
    return left


def plugin_words() -> list[str]:
    """The words with which a command that this process starts loads the same modules."""
    return [f"plugins={module}" for module in _taken]


def _modules(text: str) -> list[str]:
    value = value_of(text)
    names = value if isinstance(value, list) else [value]
    if not names or not all(isinstance(name, str) and _MODULE.fullmatch(name) for name in names):
        raise ConfigError(
            f"plugins={text}: expected a Python module or a list of them, such as "
            "plugins=my.module or plugins=[my.module,another]"
        )
    return names


def load_plugins(modules: Iterable[str]) -> None:
    """Import modules; the parts that they register are then valid in every config.

    Raises ConfigError for a module that cannot be imported, or that fails while it is.
    """
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ConfigError(
                f"plugins: cannot import '{name}' ({error}); expected a Python module on the path"
            ) from None
        except UserError:  # it says by itself what to mend: a kind that is taken, say
            raise
        except Exception as error:  # the user's own code fails in its own way
            raise ConfigError(
                f"plugins: '{name}' fails while it is imported ({type(error).__name__}: {error}); "
                "mend it, VISTOK_DEBUG=1 shows where"
            ) from error
