"""Configs: one readable line for every mistake, YAML and overrides, round trips, plugins."""

import copy
import sys

import pytest
import yaml

from vistok.config import ConfigError, load_plugins, read_yaml, to_yaml, validate
from vistok.tokenizer import Tokenizer, TokenizerConfig


def put(tree: dict, path: str, value) -> dict:
    tree = copy.deepcopy(tree)
    *parents, last = path.split(".")
    inner = tree
    for name in parents:
        inner = inner[int(name) if isinstance(inner, list) else name]
    inner[last] = value
    return tree


DROPOUT = ({"kind": "nested_dropout"},)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("imagesize", 8, "run.yaml: imagesize: unknown key, value 8; did you mean 'image_size'"),
        ("encoder.patchs", 4, "encoder.patchs: unknown key, value 4; .*'patches'"),
        ("encoder.transformer.wdith", 3, "encoder.transformer.wdith: unknown .*'width'"),
        ("regularizers.0.lenghts", "pow2", "regularizers.0.lenghts: unknown .*'lengths'"),
        ("quantizer.kind", "fsqq", "quantizer.kind: unknown kind 'fsqq'; did you mean 'fsq'.*vq"),
        (
            "quantizer",
            {"levels": [3]},
            "quantizer: no 'kind' given .*binary, .*dual, fsq, ibq, lfq, scalar, .*kl",
        ),
        ("quantizer", "fsq", "quantizer: got 'fsq'; expected a mapping .*write {kind: fsq}"),
        ("regularizers.0.lengths", "pow3", "lengths: got 'pow3'; expected one of: .*uniform_pow2"),
        ("regularizers", {"kind": "nested_dropout"}, "regularizers: got .*; .*a list"),
        ("encoder.latents.count", 0, "encoder.latents.count: got 0; .*a whole number from 1 to"),
        ("encoder.latents.count", "many", "encoder.latents.count: got 'many'; .*a whole number"),
        ("encoder.transformer.width", 10, "encoder.transformer: width=10.*heads=2"),
        ("quantizer.levels", [4, 1], "quantizer.levels.1: got 1; .*a whole number from 2 to"),
        ("quantizer.eps", "a", "quantizer.eps: got 'a'; .*number"),
        ("image_size", "big", "image_size: got 'big'"),
    ],
)
def test_a_mistake_is_one_line_with_path_value_and_nearest_name(fails, tree, path, value, words):
    data = tree(regularizers=copy.deepcopy(DROPOUT))
    validate(TokenizerConfig, data)  # right without the mistake
    data = put(data, path, value)
    with fails(ConfigError, words):
        validate(TokenizerConfig, data, "run.yaml")


def test_names_of_losses_are_checked(fails, tree):
    data = put(tree("vq"), "quantizer.loss_weights", {"comitment": 1.0})
    with fails(ConfigError, "quantizer.loss_weights.comitment: got .*codebook, commitment"):
        validate(TokenizerConfig, data)


def test_missing_parts_name_what_is_expected(fails, tree):
    data = tree()
    del data["encoder"]
    with fails(ConfigError, r"c: task.encoder: missing; .*kind is one of: .*cnn, .*vit"):
        validate(TokenizerConfig, data, "c", path=("task",))
    with fails(ConfigError, r"c: \(top level\): got 5"):
        validate(TokenizerConfig, 5, "c")


def test_the_first_mistake_is_explained_and_the_others_are_named(fails, tree):
    data = put(put(tree(), "encoder.a", 1), "decoder.b", 2)
    with fails(ConfigError, r"encoder.a: unknown key.*\(and 1 more: decoder.b\)$"):
        validate(TokenizerConfig, data, "c")


def test_a_config_of_another_kind_says_so(fails):
    other = {"num_processes": 8, "use_cpu": False}
    with fails(ConfigError, "c: another kind.*num_processes, use_cpu.*expected.*encoder"):
        validate(TokenizerConfig, other, "c")


def test_configs_are_frozen(tree):
    config = validate(TokenizerConfig, tree())
    with pytest.raises(ValueError):
        config.image_size = (4, 4)


def test_yaml_round_trip(tmp_path, tree):
    config = validate(TokenizerConfig, tree("vq", regularizers=DROPOUT))
    (tmp_path / "c.yaml").write_text(to_yaml(config))
    assert validate(TokenizerConfig, read_yaml(tmp_path / "c.yaml")) == config
    assert yaml.safe_load(to_yaml(config))["image_size"] == [8, 8]


# -- files and overrides --------------------------------------------------------------------------
@pytest.fixture
def read(tmp_path):
    def run(text: str | bytes, *overrides: str):
        path = tmp_path / "run.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_yaml(path, overrides)

    return run


def test_overrides_take_yaml_values_at_any_depth(read):
    tree = read(
        "a: {b: 1, c: 2}\nparts: [{k: 1}, {k: 2}]",
        "a.b=1e-4",
        "a.new.deep=[1, 2]",
        "parts.1.k=true",
        "text=x=y",
        "none=null",
        "quoted='3'",
        "a.c={only: 1}",
    )
    assert tree == {
        "a": {"b": 1e-4, "c": {"only": 1}, "new": {"deep": [1, 2]}},
        "parts": [{"k": 1}, {"k": True}],
        "text": "x=y",
        "none": None,
        "quoted": "3",
    }


@pytest.mark.parametrize("override", ["abc", "=1"])
def test_an_override_that_is_none(fails, read, override):
    with fails(ConfigError, f"'{override}'.*key.sub=value"):
        read("a: 1", override)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1", "run.yaml: cannot be read"),
        ("a:\n\tb: 1", "run.yaml: cannot be read.*line 2"),
        ("a: 1\na: 2", "duplicate key a"),
        ("[1, 2]", "run.yaml: expected `key: value` lines"),
        ("a: ${b}", "run.yaml: cannot be read.*'b' not found"),
        (b"\xff\xfe\x00a", "run.yaml: cannot be read"),
    ],
    ids=["open", "tab", "twice", "list", "interpolation", "binary"],
)
def test_broken_yaml_is_one_line(fails, read, text, words):
    with fails(ConfigError, words):
        read(text)


def test_missing_file_and_index(fails, read, tmp_path):
    with fails(ConfigError, "none.yaml: no such config file"):
        read_yaml(tmp_path / "none.yaml")
    with fails(ConfigError, "no such config file"):
        read_yaml(tmp_path)
    with fails(ConfigError, r"'a.7.b=5': place 7 is out of range, a has 1 entries; expected 0"):
        read("a: [{b: 1}]", "a.7.b=5")
    with fails(ConfigError, r"'a.x=5': a is a list; expected a place 0\.\.0 after it, got 'x'"):
        read("a: [{b: 1}]", "a.x=5")


# -- plugins --------------------------------------------------------------------------------------
PLUGIN = '''
from typing import Literal

from vistok.config import Config
from vistok.quantizers.atoms.fsq import FSQ, FSQConfig
from vistok.config.registry import register


class CoarseConfig(FSQConfig):
    kind: Literal["coarse"] = "coarse"
    levels: tuple[int, ...] = (3, 3)


@register("quantizer", CoarseConfig)
class Coarse(FSQ):
    """A quantizer of a user's own."""
'''


@pytest.fixture
def own_parts(tmp_path, monkeypatch):
    """Write modules that register parts."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(text)

    yield write
    for name in {path.stem for path in tmp_path.glob("*.py")}:
        sys.modules.pop(name, None)


def test_a_plugin_becomes_a_part(own_parts, tree, fails):
    own_parts("my_coarse_parts", PLUGIN)
    data = put(tree(), "quantizer", {"kind": "coarse"})
    with fails(ConfigError, "unknown kind 'coarse'"):
        validate(TokenizerConfig, data)
    load_plugins(["my_coarse_parts"])
    config = validate(TokenizerConfig, data)
    assert Tokenizer(config).spec().vocab == (9,)
    data["quantizer"]["levls"] = [3]
    with fails(ConfigError, "quantizer.levls: unknown key.*'levels'"):
        validate(TokenizerConfig, data)
    # Nested one deeper: in the config of the tokenizer task.
    from vistok.train.config import TrainConfig

    run = {"task": {"kind": "tokenizer", "tokenizer": put(tree(), "quantizer", {"kind": "coarse"})}}
    assert validate(TrainConfig, run).task.tokenizer.quantizer.kind == "coarse"


def test_a_plugin_that_cannot_be_imported(fails):
    with fails(ConfigError, "plugins: cannot import 'no_such_module_of_mine'"):
        load_plugins(["no_such_module_of_mine"])


def test_two_parts_of_one_kind_name_both_files(own_parts):
    # The same class name in another file is another part too.
    own_parts("my_fsq_parts", PLUGIN.replace('"coarse"', '"fsq"').replace("Coarse", "FSQ2"))
    own_parts(
        "my_second_fsq",
        PLUGIN.replace('"coarse"', '"fsq"').replace("class Coarse(FSQ)", ("class FSQ(FSQ)")),
    )
    for name in ("my_fsq_parts", "my_second_fsq"):
        with pytest.raises(ValueError, match=rf"'fsq' is registered twice: .*fsq\.py.*{name}\.py"):
            load_plugins([name])


def test_a_base_is_laid_under(tmp_path, fails):
    (tmp_path / "low.yaml").write_text(
        "a: 1\npart: {kind: x, size: 3, deep: {u: 1}}\nlist: [1, 2]\n"
    )
    (tmp_path / "sub").mkdir()
    top = tmp_path / "sub" / "top.yaml"
    top.write_text("base: ../low.yaml\npart: {deep: {v: 2}}\nlist: [3]\nb: ${a}\n")
    part = {"kind": "x", "size": 3, "deep": {"u": 1, "v": 2}}
    assert read_yaml(top, ["a=5"]) == {"a": 5, "part": part, "list": [3], "b": 5}
    top.write_text("base: ../low.yaml\npart: {kind: y}\n")
    assert read_yaml(top)["part"] == {"kind": "y"}
    (tmp_path / "low.yaml").write_text("base: sub/top.yaml\n")
    with fails(ConfigError, "is its own base"):
        read_yaml(top)
    top.write_text("base: nowhere.yaml\n")
    with fails(ConfigError, "nowhere.yaml: no such config file"):
        read_yaml(top)
    top.write_text("base: [1]\n")
    with fails(ConfigError, "base: got"):
        read_yaml(top)
