"""Typed configs: pydantic models that refuse unknown keys, YAML files, and `key=value`.

A field typed `Annotated[Any, PartOf("quantizer")]` takes the config of any registered quantizer;
its `kind` picks which. OmegaConf reads our own YAML and overrides only; text that came with
downloaded weights is read by `json` and never resolved. Every mistake becomes one line: path,
value, what was expected.
"""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import core_schema

from vistok.config.registry import entries


class ConfigError(ValueError):
    """A config that cannot be used; the message is one line."""


_WITH_PARTS: list[type[Config]] = []


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

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        _WITH_PARTS.append(cls)


class PartOf:
    """Marks a config field that takes the config of any part of a family.

    It becomes a tagged union of all configs registered by the time the schema is built.
    """

    def __init__(self, family: str) -> None:
        self.family = family

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        choices = {
            kind: handler.generate_schema(entry.config)
            for kind, entry in entries(self.family).items()
        }
        if not choices:
            raise TypeError(
                f"no {self.family} is registered yet: import its package before this config"
            )
        return core_schema.tagged_union_schema(choices, discriminator="kind")


def load_plugins(modules: Iterable[str]) -> None:
    """Import the user's own parts (named on the command line only) and let configs know them."""
    modules = list(modules)
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ConfigError(
                f"plugins: cannot import '{name}' ({error}); expected a Python module on the path"
            ) from None
    if modules:
        for model in _WITH_PARTS:  # in order of definition: inner configs come first
            model.model_rebuild(force=True)


M = TypeVar("M", bound=BaseModel)


def validate(model: type[M], data: Any, source: str = "config", path: Sequence[str] = ()) -> M:
    """`model.model_validate` whose error is a `ConfigError` of one line.

    The line explains the first mistake and names the places of the others; `path` is where `data`
    lies inside the whole config.
    """
    # One unknown key is a slip of the pen; several and no known one are another file.
    if isinstance(data, dict) and len(data) > 1 and not set(data) & set(model.model_fields):
        raise ConfigError(
            f"{source}: another kind of config: its keys are {_short(', '.join(map(str, data)))}; "
            f"expected keys of {model.__name__}: {', '.join(model.model_fields)}"
        )
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first, *others = error.errors()
        line = f"{source}: {_explain(model, first, tuple(path))}"
        if others:
            places = ", ".join(_place(model, item, tuple(path))[0] for item in others)
            line += f" (and {len(others)} more: {places})"
        raise ConfigError(line) from None


def validate_part(family: str, data: Any, source: str = "config") -> Any:
    """The config of whichever part of `family` the data's `kind` names; ConfigError otherwise."""
    known = entries(family)
    kind = data.get("kind") if isinstance(data, dict) else None
    if kind not in known:
        raise ConfigError(
            f"{source}: kind: unknown {family} {kind!r}; {_nearest(str(kind), list(known))}"
        )
    return validate(known[kind].config, data, source)


def _place(model: type, item: Any, prefix: tuple[str, ...]) -> tuple[str, list[str]]:
    """Where an error is, as a user would write it, and the names that are valid there."""
    names, fields = _walk(model, tuple(item["loc"]))
    path = ".".join((*prefix, *(str(name) for name in names if name != "[key]")))
    return path or "(top level)", fields


def _explain(model: type, item: Any, prefix: tuple[str, ...]) -> str:
    loc = tuple(item["loc"])
    where, fields = _place(model, item, prefix)
    kind, value = item["type"], _short(item["input"])
    if kind == "extra_forbidden":
        return f"{where}: unknown key, value {value}; {_nearest(str(loc[-1]), fields)}"
    if kind == "missing":
        return f"{where}: missing; expected a value of type {_expected(model, loc)}"
    if kind == "union_tag_not_found":
        return f"{where}: no 'kind' given in {value}; expected one of {', '.join(fields)}"
    if kind == "union_tag_invalid":
        tags = [t.strip(" '") for t in item["ctx"]["expected_tags"].split(",")]
        tag = item["ctx"]["tag"]
        return f"{where}.kind: unknown kind '{tag}'; {_nearest(tag, tags)}"
    message = item["msg"].removeprefix("Value error, ")
    return f"{where}: got {value}; {message[0].lower() + message[1:]}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _nearest(name: str, valid: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}valid: {', '.join(valid)}"


def _walk(model: type, loc: tuple) -> tuple[list, list[str]]:
    """Follow an error's location: (its path without union tags, valid names where it ends)."""
    names: list = []
    current: Any = model
    for step in loc:
        family = _family(current)
        if family is not None and step in entries(family):
            current = entries(family)[step].config
            continue
        if isinstance(current, type) and issubclass(current, BaseModel):
            names.append(step)
            info = current.model_fields.get(step)
            if info is None:
                return names, list(current.model_fields)
            current = (
                Annotated[info.annotation, *info.metadata] if info.metadata else (info.annotation)
            )
            current = _strip_optional(current)
        elif isinstance(step, int):
            names.append(step)
            args = [a for a in get_args(_bare(current)) if a is not Ellipsis]
            current = _strip_optional(args[0]) if args else Any
        else:
            names.append(step)
            args = get_args(_bare(current))
            current = _strip_optional(args[-1]) if args else Any
    family = _family(current)
    if family is not None:
        return names, list(entries(family))
    if isinstance(current, type) and issubclass(current, BaseModel):
        return names, list(current.model_fields)
    return names, []


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _family(annotation: Any) -> str | None:
    if get_origin(annotation) is Annotated:
        for extra in get_args(annotation)[1:]:
            if isinstance(extra, PartOf):
                return extra.family
    return None


def _strip_optional(annotation: Any) -> Any:
    """`X | None` -> X; `Annotated[...]` and everything else unchanged."""
    if get_origin(annotation) is Annotated:
        return annotation
    args = [a for a in get_args(annotation) if a is not type(None)]
    if len(args) == 1 and type(None) in get_args(annotation):
        return args[0]
    return annotation


def _expected(model: type, loc: tuple) -> str:
    current: Any = model
    for step in loc:
        family = _family(current)
        if family is not None and step in entries(family):
            current = entries(family)[step].config
        elif isinstance(current, type) and issubclass(current, BaseModel):
            info = current.model_fields[step]
            current = _strip_optional(
                Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation
            )
        else:
            args = [a for a in get_args(_bare(current)) if a is not Ellipsis]
            current = _strip_optional(args[-1]) if args else Any
    family = _family(current)
    if family is not None:
        return f"{family} (kind: {' | '.join(entries(family))})"
    return getattr(current, "__name__", str(current))


def read_yaml(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read one of our YAML files and lay `key.sub=value` overrides over it.

    A file may name a `base: other.yaml` beside it, which it is laid over: mappings are merged, all
    else (lists too) is replaced, and a mapping that changes its `kind` starts anew. Raises
    `ConfigError` when a file is missing or broken, or an override is not `key=value`.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    path = Path(path)
    try:
        tree = _load(path, ())
        for override in overrides:
            key, equals, text = override.partition("=")
            if not equals or not key:
                raise ConfigError(f"'{override}': expected an override of the form key.sub=value")
            value = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))["value"]
            OmegaConf.update(tree, key, value, merge=False, force_add=True)
        return OmegaConf.to_container(tree, resolve=True)
    except (
        yaml.YAMLError,
        OmegaConfBaseException,
        OSError,
        TypeError,
        IndexError,
        UnicodeDecodeError,
    ) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path}: cannot be read: {reason}") from None


_REFERENCE = re.compile(r"\$\{[\w.\[\]-]*\}")  # ${a}, ${a.b[0]}


def _check_references(tree: Any, path: Path, place: str = "") -> None:
    """ConfigError for `${resolver:...}`: a file may have come with a run of somebody else, and only
    its own keys are put into it, never the environment."""
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            _check_references(value, path, f"{place}.{key}" if place else str(key))
    elif isinstance(tree, str):
        rest, before = tree, ""
        while rest != before:
            before, rest = rest, _REFERENCE.sub("", rest)
        if "${" in rest:
            raise ConfigError(
                f"{path}: {place}: got {_short(tree)}; only references to other keys like "
                f"${{name}} are followed: give the value as {place}=... on the command line"
            )


def _load(path: Path, inside: tuple[Path, ...]) -> Any:
    """The OmegaConf tree of a file over that of its base, nothing resolved yet."""
    from omegaconf import OmegaConf

    if not path.is_file():
        raise ConfigError(f"{path}: no such config file; expected the path of a YAML file")
    if path.resolve() in inside:
        raise ConfigError(f"{path}: is its own base; expected a chain of files that ends")
    tree = OmegaConf.load(path)
    if not OmegaConf.is_dict(tree):
        raise ConfigError(f"{path}: expected `key: value` lines at the top level")
    _check_references(OmegaConf.to_container(tree), path)
    base = OmegaConf.to_container(tree, resolve=False).get("base")
    if base is None:
        return tree
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base: got {base!r}; expected the name of a YAML file")
    del tree["base"]
    below = _load(path.parent / base, (*inside, path.resolve()))
    plain = lambda one: OmegaConf.to_container(one, resolve=False)
    return OmegaConf.create(_over(plain(below), plain(tree)))


def _over(below: Any, above: Any) -> Any:
    """`above` laid over `below`."""
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    if "kind" in above and above["kind"] != below.get("kind"):
        return above
    both = {**below, **above}
    shared = below.keys() & above.keys()
    return {k: _over(below[k], above[k]) if k in shared else v for k, v in both.items()}


def to_yaml(config: BaseModel) -> str:
    """The resolved config as YAML; reading it back gives an equal config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
