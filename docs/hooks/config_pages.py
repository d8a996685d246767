"""Pages of config keys, from the pydantic models: every key, its type, default and docstring."""

from __future__ import annotations

import enum
import inspect
import re
import types
import typing
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from vistok.config.parts import PartOf
from vistok.config.registry import Entry, entries
from vistok.eval.config import EvalConfig
from vistok.eval.speed.config import SpeedConfig
from vistok.eval.study.study import StudyConfig
from vistok.tokenizer import TokenizerConfig
from vistok.train.config import TrainConfig

INDEX = "reference/config/index.md"
INDEX_TEXT = """# Config keys

Every key of every config, with its type, its default and one sentence. These pages are made from
the classes that check configs, so they cannot be out of date.

A training config is a YAML file; `vistok train CONFIG KEY=VALUE` lays keys over it. A part is a
mapping with a `kind`; the keys that it takes are those of that kind. Keys without a default must be
given. In text, `null` is no value.

<!-- generated: config-index -->
"""


@dataclass(frozen=True)
class Page:
    """One page: configs that stand alone, and all kinds of some families of parts."""

    path: str
    title: str
    about: str
    roots: tuple[type[BaseModel], ...] = ()
    families: tuple[str, ...] = ()


def _page(name: str, title: str, about: str, roots: tuple = (), families: tuple = ()) -> Page:
    return Page(f"reference/config/{name}.md", title, about, roots, families)


PAGES = (
    _page(
        "train",
        "Training run",
        "The whole of a training config; `vistok train CONFIG`.",
        (TrainConfig,),
        ("optimizer",),
    ),
    _page(
        "tasks",
        "Tasks and jobs",
        "What a run trains, or which files it writes.",
        (),
        ("task", "classifier"),
    ),
    _page(
        "tokenizer",
        "Tokenizer",
        "The parts of a tokenizer, and its spaces.",
        (TokenizerConfig,),
        ("space",),
    ),
    _page("encoders", "Encoders", "From the input space to latents.", (), ("encoder",)),
    _page("quantizers", "Quantizers", "From latents to codes.", (), ("quantizer",)),
    _page(
        "regularizers",
        "Regularizers",
        "What of a sequence is dropped or perturbed in training.",
        (),
        ("regularizer",),
    ),
    _page(
        "decoders", "Decoders and heads", "From codes to the output space.", (), ("decoder", "head")
    ),
    _page(
        "losses",
        "Losses",
        "Terms of a loss, and the networks behind them.",
        (),
        ("loss", "discriminator", "vision"),
    ),
    _page(
        "generators",
        "Generators",
        "Models of token sequences.",
        (),
        ("generator", "trunk", "token_head"),
    ),
    _page("data", "Data", "Where samples come from.", (), ("data",)),
    _page(
        "eval", "Evaluation", "Keys of `vistok eval`, one group for each protocol.", (EvalConfig,)
    ),
    _page(
        "speed",
        "Speed and studies",
        "Keys of `vistok eval speed`, of a study, and of the claims that it tests.",
        (SpeedConfig, StudyConfig),
        ("claim",),
    ),
)

# Of fields whose names say it all in the code, and not to everybody who reads a page.
_UNDESCRIBED = {
    "act_fn": "Activation.",
    "base": "Base of the rotary frequencies.",
    "condition": "How classes and texts enter the network.",
    "conv": "Widths, depth and norms of the convolutions.",
    "decoder": "From codes to the output space.",
    "depth": "Number of blocks.",
    "discriminator": "Network that tells real images from reconstructions.",
    "distill": "Teacher of the decoder's features; null = none.",
    "encoder": "From the input space to latents.",
    "generator": "The generator that learns the tokens.",
    "guidance": "Guidance of a decoder that samples.",
    "heads": "Attention heads of each block.",
    "iterations": "Rounds of the clustering.",
    "label_smoothing": "Share of the target that is spread over all codes.",
    "latent_channels": "Channels of the latents.",
    "latents": "Latent tokens: their number and how they start.",
    "layers_per_block": "Residual layers of a block.",
    "lengths": "Distribution of the kept length.",
    "loss_weights": "Weights of the quantizer's own losses.",
    "mean": "Subtracted from pixels before they are divided.",
    "mid_block_add_attention": "True: attention in the middle block.",
    "mlp": "Activation of the feed-forward layers.",
    "mlp_bias": "Biases of the feed-forward layers; null = as the blocks.",
    "mlp_ratio": "Width of the feed-forward layers over that of the block.",
    "norm": "Kind of normalization.",
    "norm_eps": "Added to the variance in normalizations.",
    "norm_num_groups": "Groups of the group norms.",
    "patches": "Size of patches and their positions.",
    "per": "What shares one draw.",
    "projector": "Network between own features and the teacher's.",
    "qformer": "Size and details of the Q-Former.",
    "qkv_bias": "Biases of queries, keys and values; null = as the blocks.",
    "quantizer": "From latents to codes.",
    "regularizers": "What is dropped or perturbed in training.",
    "rope_base": "Base of the rotary frequencies.",
    "rope_extent": "Extent of the rotary positions.",
    "rotary": "Rotary positions.",
    "scale_epochs": "Passes over the data until the scale is reached.",
    "spectral_norm": "True: weights are divided by their largest singular value.",
    "tokenizer": "The tokenizer that is trained.",
    "transformer": "Size and details of the transformer.",
    "up_block_types": "Kinds of the decoder's blocks; null = the plain ones.",
    "use_post_quant_conv": "True: a 1x1 convolution before the decoder.",
    "use_quant_conv": "True: a 1x1 convolution behind the encoder.",
    "weight": "Factor of the loss.",
}

_HOME = {family: page for page in PAGES for family in page.families}


def index() -> str:
    """The list of pages, each with its kinds."""
    lines = ['<div class="keys" markdown>', ""]
    for page in PAGES:
        kinds = [f"`{kind}`" for family in page.families for kind in entries(family)]
        name = page.path.rpartition("/")[2]
        lines += [f"[{page.title}]({name})", f":   {page.about} {', '.join(kinds)}", ""]
    return "\n".join([*lines, "</div>"])


def text(page: Page) -> str:
    """The whole of a page."""
    seen: set[type] = set()
    waiting: list[type[BaseModel]] = []
    lines = [f"# {page.title}", "", page.about, ""]
    for root in page.roots:
        title = "Keys" if len(page.roots) == 1 else _words(root)
        lines += _section(root, title, _sentence(root), 2, page, seen, waiting)
    for family in page.families:
        if len(page.families) + len(page.roots) > 1:
            lines += [f"## {_plural(family)} {{ #{family} }}", ""]
        for kind, entry in entries(family).items():
            about = _about(entry.part) or _about(entry.config)
            title = f"`{kind}` {{ #{family}-{kind} }}"
            lines += _section(entry.config, title, about, 3, page, seen, waiting)
    if waiting:
        lines += ["## Groups of keys", "", "Mappings that keys above take.", ""]
    while waiting:
        model = waiting.pop(0)
        title = f"{_words(model)} {{ #{_anchor(model)} }}"
        lines += _section(model, title, _sentence(model), 3, page, seen, waiting)
    return "\n".join(lines)


def _section(
    model: type[BaseModel],
    title: str,
    about: str,
    level: int,
    page: Page,
    seen: set[type],
    waiting: list[type[BaseModel]],
) -> list[str]:
    seen.add(model)
    lines = [f"{'#' * level} {title}", "", about, "", '<div class="keys" markdown>', ""]
    shown = {name: field for name, field in model.model_fields.items() if name != "kind"}
    for name, field in shown.items():
        for inner in _models(field.annotation):
            if _entry(inner) is None and inner not in seen and inner not in waiting:
                waiting.append(inner)
        kind = _type(field, page)
        lines += [f"**`{name}`** {kind}{_bounds(field)}{_default(field)}"]
        described = field.description or _UNDESCRIBED.get(name, "One of these.")
        lines += [f":   {_escaped(described)}", ""]
    if not shown:
        lines += ["It has no keys.", ""]
    return [*lines, "</div>", ""]


def _escaped(value: str) -> str:
    """A docstring as Markdown: what looks like emphasis or HTML is text."""
    value = " ".join(value.split())
    parts = re.split(r"(`[^`]*`)", value)
    plain = lambda part: re.sub(r"([*_<>\[\]{}#|])", r"\\\1", part)
    return "".join(part if part.startswith("`") else plain(part) for part in parts)


def _about(part: type) -> str:
    """First paragraph of a class's docstring, or of its module's."""
    own = part.__dict__.get("__doc__")
    module = inspect.getmodule(part)
    found = own or (module.__doc__ if module else "") or ""
    return _escaped(inspect.cleandoc(found).split("\n\n")[0])


def _sentence(model: type[BaseModel]) -> str:
    found = model.__dict__.get("__doc__") or ""
    return _escaped(inspect.cleandoc(found).split("\n\n")[0])


def _words(model: type) -> str:
    """TransformerConfig -> Transformer."""
    name = model.__name__.removesuffix("Config").lstrip("_") or model.__name__
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)


def _anchor(model: type) -> str:
    return f"group-{model.__name__.lower().lstrip('_')}"


def _entry(model: type) -> Entry | None:
    """The registered part whose config this class is; None for groups of keys."""
    found = (entry for family in _HOME for entry in entries(family).values())
    return next((entry for entry in found if entry.config is model), None)


def _target(model: type, page: Page) -> str:
    """Address of a config class's keys, from a page."""
    entry = _entry(model)
    if entry is None:
        return f"#{_anchor(model)}"
    home = _HOME[entry.family]
    file = "" if home is page else home.path.rpartition("/")[2]
    return f"{file}#{entry.family}-{entry.kind}"


def _plural(family: str) -> str:
    return {"vision": "Vision networks"}.get(family, f"{family}s".capitalize())


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The config classes inside of a type."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in typing.get_args(annotation) for model in _models(inner)]


def _type(field: FieldInfo, page: Page) -> str:
    for mark in field.metadata:
        if isinstance(mark, PartOf):
            return _part(mark.family, page)
    return _name(field.annotation, page)


def _part(family: str, page: Page) -> str:
    if family not in _HOME:
        return family
    home = _HOME[family]
    target = "" if home is page else home.path.rpartition("/")[2]
    alone = len(home.families) + len(home.roots) == 1
    anchor = "" if alone and target else f"#{family}" if not alone else ""
    return f"[{family}]({target}{anchor})" if target or anchor else family


_PLAIN = {int: "integer", float: "number", str: "text", bool: "true or false", Any: "any value"}


def _name(annotation: Any, page: Page) -> str:
    """A type in a user's words."""
    if annotation is None or annotation is type(None):
        return "null"
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        part = next((mark for mark in arguments[1:] if isinstance(mark, PartOf)), None)
        return _part(part.family, page) if part else _name(arguments[0], page)
    if origin is typing.Literal:
        return " \\| ".join(f"`{_value(value)}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        names = dict.fromkeys(_name(one, page) for one in arguments)
        return " or ".join(names)
    if origin in (tuple, list, set, frozenset) or annotation in (tuple, list):
        inner = [one for one in arguments if one is not Ellipsis]
        if not inner:
            return "list"
        if len(inner) > 1:
            return f"list of {len(inner)} ({', '.join(_name(one, page) for one in inner)})"
        return f"list of {_name(inner[0], page)}"
    if origin in (dict,) or annotation is dict:
        return "mapping"
    if inspect.isclass(annotation):
        if issubclass(annotation, BaseModel):
            return f"[{_words(annotation)}]({_target(annotation, page)})"
        if issubclass(annotation, enum.Enum):
            return " \\| ".join(f"`{one.value}`" for one in annotation)
        return annotation.__name__
    if origin is not None and arguments:  # a mapping or sequence of the abstract kinds
        return "mapping" if len(arguments) == 2 else f"list of {_name(arguments[0], page)}"
    value = getattr(annotation, "__value__", None)  # `type X = ...`
    return _name(value, page) if value is not None else str(annotation)


def _bounds(field: FieldInfo) -> str:
    signs = (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤"))
    found = []
    for mark in field.metadata:
        for name, sign in signs:
            value = getattr(mark, name, None)
            if value is not None:
                found.append(f"{sign} {value:,}" if isinstance(value, int) else f"{sign} {value}")
    return f", {' and '.join(found)}" if found else ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return ", **required**"
    value = field.default
    if value is PydanticUndefined:
        value = field.default_factory()
    if isinstance(value, BaseModel):
        kind = getattr(value, "kind", None)
        return f", default `{kind}`" if kind else ""
    return f", default `{_value(value)}`"


def _value(value: Any) -> str:
    """A value as YAML writes it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{', '.join(_value(one) for one in value)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_value(one)}" for key, one in value.items()) + "}"
    if isinstance(value, BaseModel):
        kind = getattr(value, "kind", None)
        return f"{{kind: {kind}}}" if kind else "{...}"
    if value == "":
        return '""'
    return str(value)
