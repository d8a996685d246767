"""YAML text -> plain data, and back; read as it is typed (`scalars`) and within bounds.

The text may come with a run of somebody else. It is nested at most DEEPEST deep, its anchors
unfold to at most MOST_VALUES values, a key stands once in a mapping, and no tag makes anything
but plain data. PyYAML parses; what it would make of the values (YAML 1.1: `010` is eight, `yes` is
true, `12:30` a number) is decided here.
"""

from __future__ import annotations

from typing import Any

import yaml

from vistok.config.bounded import DEEPEST
from vistok.config.scalars import TypedFloat, TypedInt, plain, scalar, tagged
from vistok.core.errors import InputError

MOST_VALUES = 200_000  # of one file, its anchors unfolded: a list of class names has 21,841
_TAG = "tag:yaml.org,2002:"
_PLAIN = "plain"  # the tag of scalars without quotes and without a tag of their own


def parse_yaml(text: str) -> Any:
    """The value of a YAML document; InputError, one line, if it is none or beyond the bounds."""
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise InputError(" ".join(str(error).split())) from None
    return None if node is None else _Builder().value(node, 0)


def dump_yaml(tree: Any, **style: Any) -> str:
    """Plain data as YAML; `parse_yaml` gives it back, and so does any reader of YAML 1.1 or 1.2.

    Args:
        style: options of PyYAML's dump, such as default_flow_style and width.
    """
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, **style)


class _Loader(yaml.SafeLoader):
    """Composes nodes alone; plain scalars are left for `scalar` to read."""

    depth = 0

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode and implicit[0]:
            return _PLAIN
        return f"{_TAG}str" if kind is yaml.ScalarNode else super().resolve(kind, value, implicit)

    def compose_node(self, parent: Any, index: Any) -> yaml.Node:
        self.depth += 1
        if self.depth > DEEPEST:
            raise yaml.YAMLError(f"nested more than {DEEPEST} deep")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Builder:
    """Nodes -> data. What an anchor names is made anew at each place, and counted."""

    def __init__(self) -> None:
        self.made = 0

    def value(self, node: yaml.Node, depth: int) -> Any:
        self.made += 1
        if self.made > MOST_VALUES:
            raise InputError(f"its anchors unfold to more than {MOST_VALUES:,} values")
        if depth > DEEPEST:
            raise InputError(f"nested more than {DEEPEST} deep, or an anchor holds itself")
        kind = node.tag.removeprefix(_TAG)
        if isinstance(node, yaml.MappingNode) and kind == "map":
            return self._mapping(node, depth)
        if isinstance(node, yaml.SequenceNode) and kind == "seq":
            return [self.value(inner, depth + 1) for inner in node.value]
        if isinstance(node, yaml.ScalarNode):
            return scalar(node.value) if node.tag == _PLAIN else tagged(node.value, kind)
        raise InputError(f"the tag {node.tag}{_where(node)}; expected plain values")

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Any]:
        own: dict[str, Any] = {}
        below: dict[str, Any] = {}
        for key, inner in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise InputError(f"a key that is no plain text{_where(key)}")
            if key.value == "<<" and key.tag == _PLAIN:
                sources = inner.value if isinstance(inner, yaml.SequenceNode) else [inner]
                for source in sources:
                    laid = self.value(source, depth + 1)
                    if not isinstance(laid, dict):
                        raise InputError(f"'<<' of something that is no mapping{_where(source)}")
                    below = {**laid, **below}
            elif key.value in own:
                raise InputError(f"duplicate key {key.value}{_where(key)}")
            else:
                own[key.value] = self.value(inner, depth + 1)
        return {**below, **own}


class _Dumper(yaml.SafeDumper):
    """Quotes text that a reader of either version of YAML would take for something else."""

    def represent_str(self, text: str) -> yaml.Node:
        style = None if isinstance(scalar(text), str) else "'"
        return self.represent_scalar(f"{_TAG}str", text, style=style)

    def represent_number(self, number: TypedInt | TypedFloat) -> yaml.Node:
        return self.represent_data(plain(number))

    yaml_representers = {
        **yaml.SafeDumper.yaml_representers,
        str: represent_str,
        TypedInt: represent_number,
        TypedFloat: represent_number,
    }

    def ignore_aliases(self, data: Any) -> bool:
        return True  # the same text twice, rather than anchors


def _where(node: yaml.Node) -> str:
    return f" in line {node.start_mark.line + 1}"
