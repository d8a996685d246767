"""The user's own parts: modules that register them, imported at the user's word only.

On the command line that word is `plugins=my.module` (or `plugins=a,b`) among the others of any
command, in Python the argument `plugins=` of whatever opens a model, or a plain `import`. Configs
and saved models hold the names of the modules whose parts they need, so that an error can say what
to add; no file ever makes vistok import one.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from vistok.config import own_code
from vistok.config.errors import ConfigError, UserError
from vistok.config.overrides import value_of
from vistok.config.registry import Entry, entries, families

_taken: list[str] = []  # modules that `load_plugins` was asked for, in order
_owners: dict[type, str] = {}  # class of a part -> the module that was asked for when it came
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
    load_plugins(modules)
    return left


def plugin_words() -> list[str]:
    """The words with which a command that this process starts loads the same modules."""
    return [f"plugins={','.join(_taken)}"] if _taken else []


def taken() -> tuple[str, ...]:
    """Names of the modules that were asked for in this process."""
    return tuple(_taken)


def load_plugins(modules: str | Iterable[str]) -> None:
    """Import modules (one name, or several); the parts that they register are then valid in every
    config. The current folder is searched, too, and first.

    Raises ConfigError, one line, for a module that is not there, that fails while it is imported
    (with its file and line), or whose name Python or a package has already.
    """
    for name in [modules] if isinstance(modules, str) else modules:
        if name in _taken:
            continue
        before = {entry.part for entry in _all_entries()}
        own_code.note(_imported(name))
        _taken.append(name)
        for entry in _all_entries():
            if entry.part not in before and not _ships(entry):
                _owners[entry.part] = name


# -- what a config or a model needs ---------------------------------------------------------------


def modules_of(config: BaseModel) -> list[str]:
    """Names of the user's own modules whose parts a config holds, each once; [] for a config of
    parts that come with vistok."""
    return list(dict.fromkeys(_named(config)))


def listed(names: Any) -> list[Any]:
    """The modules that a file names under `plugins`: a list, one name, or nothing."""
    if isinstance(names, list | tuple):
        return list(names)
    return [] if names is None else [names]


def check_recorded(names: Any, source: str) -> None:
    """ConfigError that says what to add if own modules which a file names are not loaded.

    Called where a config turns out not to be valid: a part may have moved to another module.
    """
    names = listed(names)
    if not all(isinstance(name, str) and _MODULE.fullmatch(name) for name in names):
        raise ConfigError(f"{source}: plugins: got {str(names)[:80]}; expected a list of modules")
    missing = [name for name in names if name not in _taken and name not in sys.modules]
    if missing:
        said = ",".join(missing)
        raise ConfigError(
            f"{source}: it needs parts of your own from {', '.join(missing)}, which no file makes "
            f"vistok import: add plugins={said} (in Python: plugins='{said}', or import it first)"
        )


@contextmanager
def recorded(names: Any, source: str) -> Iterator[None]:
    """A ConfigError inside the block says first which of the recorded modules are not loaded."""
    try:
        yield
    except ConfigError:
        check_recorded(names, source)
        raise


# -- inside ---------------------------------------------------------------------------------------


def _modules(text: str) -> list[str]:
    value = value_of(text)
    if isinstance(value, str):
        value = [name.strip() for name in value.split(",")]
    names = value if isinstance(value, list) else [value]
    if not names or not all(isinstance(name, str) and _MODULE.fullmatch(name) for name in names):
        dotted = text.removesuffix(".py").replace("/", ".")
        meant = f"plugins={dotted}" if text.endswith(".py") and _MODULE.fullmatch(dotted) else None
        raise ConfigError(
            f"plugins={text}: expected a Python module or a list of them, such as "
            f"{meant or 'plugins=my.module or plugins=my.module,another'}"
        )
    return names


def _imported(name: str) -> Any:
    """The module `name`, that of the current folder before any other."""
    here, first = os.getcwd(), name.partition(".")[0]
    local = next((p for p in (Path(here, first), Path(here, f"{first}.py")) if p.exists()), None)
    if here not in sys.path:  # an installed command does not look there
        sys.path.append(here)
    if local is not None:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(name)
    except UserError:  # it says by itself what to mend: a kind that is taken, say
        raise
    except Exception as error:
        raise _failed(name, error) from error
    finally:
        if local is not None:
            sys.path.remove(here)
            sys.path.append(here) if here not in sys.path else None
    _check_place(name, module, local)
    return module


def _failed(name: str, error: Exception) -> ConfigError:
    line = own_code.own_line(error)
    absent = isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}.")
    if absent and line is None:
        return ConfigError(
            f"plugins: cannot import '{name}' ({error}); expected a Python module in the current "
            f"folder ({os.getcwd()}) or on Python's path"
        )
    where = "" if line is None else f"{line}: "
    reason = error.msg if isinstance(error, SyntaxError) else str(error)
    return ConfigError(
        f"plugins: {where}{type(error).__name__}: {reason} (while importing '{name}'; "
        "VISTOK_DEBUG=1 shows the traceback)"
    )


def _check_place(name: str, module: Any, local: Path | None) -> None:
    """ConfigError if a file of the current folder was named and another module has its name."""
    file = getattr(module, "__file__", None)
    if local is None or local.is_dir() or file is None:
        return
    if name == local.stem and not os.path.samefile(file, local):
        raise ConfigError(
            f"plugins={name}: Python has another module of this name already ({file}); rename "
            f"{local.name}"
        )


def _all_entries() -> list[Entry]:
    return [entry for family in families() for entry in entries(family).values()]


def _ships(entry: Entry) -> bool:
    return entry.part.__module__.partition(".")[0] == "vistok"


def owner_of(part: type) -> str:
    """The module to name for a part: the one that was asked for when it was registered, else its
    own."""
    return _owners.get(part) or _module_of(part)


def _named(value: Any) -> Iterator[str]:
    if isinstance(value, BaseModel):
        for entry in _all_entries():
            if entry.config is type(value) and not _ships(entry):
                yield owner_of(entry.part)
        for name in type(value).model_fields:
            yield from _named(getattr(value, name))
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _named(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _named(inner)


def _module_of(part: type) -> str:
    """The name by which a class's module is imported; of a script, its file's."""
    if part.__module__ != "__main__":
        return part.__module__
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    return spec.name if spec is not None else Path(getattr(main, "__file__", "main")).stem
