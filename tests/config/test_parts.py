"""Parts that contain parts, of any family, registered in any order."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest

from vistok.config import Config, ConfigError, PartOf, registry, to_yaml, validate


class LeafConfig(Config):
    kind: Literal["leaf"] = "leaf"
    size: int = 1


class InnerConfig(Config):
    kind: Literal["inner"] = "inner"
    outer: Annotated[Any, PartOf("test_outer")] | None = None


class OuterConfig(Config):
    kind: Literal["outer"] = "outer"
    inner: Annotated[Any, PartOf("test_inner")]
    own: tuple[Annotated[Any, PartOf("test_outer")], ...] = ()


class Root(Config):
    part: Annotated[Any, PartOf("test_outer")]


@pytest.fixture
def add(monkeypatch):
    """Registers parts for one test; the registry is as before afterwards."""
    monkeypatch.setattr(registry, "_ENTRIES", {k: dict(v) for k, v in registry._ENTRIES.items()})

    def register(family: str, config: type) -> None:
        registry.register(family, config)(type(f"Part{config.__name__}", (), {}))

    return register


ORDERS = [("inner", "outer"), ("outer", "inner")]


@pytest.mark.parametrize("order", ORDERS)
def test_two_parts_that_contain_each_others_family(add, fails, order):
    parts = {"inner": InnerConfig, "outer": OuterConfig}
    for name in order:
        add(f"test_{name}", parts[name])
    deep = {"kind": "outer", "inner": {"kind": "inner"}}
    tree = {"kind": "outer", "inner": {"kind": "inner", "outer": deep}, "own": [deep, deep]}
    root = validate(Root, {"part": tree})
    assert root.part.inner.outer.inner == InnerConfig() and len(root.part.own) == 2
    assert Root.model_validate(root.model_dump(mode="json")) == root
    assert "outer:\n      kind: outer" in to_yaml(root)
    tree["inner"]["outer"] = {"kind": "outer", "iner": {}}
    with fails(ConfigError, r"part.inner.outer.inner: missing; .*part.inner.outer.iner\)$"):
        validate(Root, {"part": tree}, "c")
    tree["inner"]["outer"] = {"kind": "outr"}
    with fails(ConfigError, r"part.inner.outer.kind: unknown kind 'outr'; did you mean 'outer'"):
        validate(Root, {"part": tree}, "c")


def test_a_part_registered_after_a_config_was_used(add, fails):
    add("test_outer", OuterConfig)
    add("test_inner", InnerConfig)
    data = {"part": {"kind": "outer", "inner": {"kind": "leaf", "size": 3}}}
    with fails(ConfigError, "part.inner.kind: unknown kind 'leaf'; valid: inner"):
        validate(Root, data)
    add("test_inner", LeafConfig)
    assert validate(Root, data).part.inner == LeafConfig(size=3)
    with fails(ConfigError, "part.inner.size: got 'many'"):
        validate(Root, {"part": {"kind": "outer", "inner": {"kind": "leaf", "size": "many"}}})


def test_a_family_without_parts_is_named():
    with pytest.raises(TypeError, match="no test_outer is registered"):
        Root(part={"kind": "outer"})
