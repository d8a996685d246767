"""What is typed counts: decimals are numbers, words are text, in files and in key=value."""

import copy
import pickle

import pytest
import yaml

from vistok.config import Config, ConfigError, InputError, read_yaml, to_yaml, validate
from vistok.config.overrides import parse, text_of, value_of
from vistok.config.yaml_files import read_plain_yaml
from vistok.config.yaml_text import dump_yaml, parse_yaml
from vistok.train.config import TrainConfig

# As typed -> its value.
PLAIN = {
    "10": 10,
    "010": 10,  # not eight
    "0100": 100,
    "+5": 5,
    "1e3": 1000.0,
    "1e-4": 1e-4,
    ".5": 0.5,
    "1.50": 1.5,
    "null": None,
    "~": None,
    "": None,
    "true": True,
    "false": False,
    **{
        word: word
        for word in (
            *("yes", "no", "on", "off", "True", "NULL", "1_000", "0x10", "0o10", "0b1", "08:30"),
            *("12:30:00", "2024-01-01", "2024-01-01 10:00:00", "nan", "inf", "=", "1,000"),
        )
    },
}


@pytest.mark.parametrize("text", PLAIN)
def test_plain_text_is_read_as_it_is_typed(text):
    for value in (value_of(text), parse_yaml(f"a: {text}")["a"], parse_yaml(f"- {text}")[0]):
        assert value == PLAIN[text] and isinstance(value, type(PLAIN[text]))
    assert parse_yaml(f"a: '{text}'") == {"a": text}


class Typed(Config):
    word: str = "run"
    words: tuple[str, ...] = ()
    maybe: str | None = "x"
    whole: int = 1
    number: float = 1.0
    flag: bool = False
    either: int | tuple[str, ...] | str = 1


def typed(tmp_path, way: str, key: str, text: str) -> Typed:
    """The config in which `key` was typed as `text`: in a file, or on the command line."""
    if way == "line":
        return validate(Typed, parse([f"{key}={text}"]), "run.yaml")
    (tmp_path / "run.yaml").write_text(f"{key}: {text}\n")
    return validate(Typed, read_yaml(tmp_path / "run.yaml"), "run.yaml")


ways = pytest.mark.parametrize("way", ["file", "line"])


@ways
@pytest.mark.parametrize(
    "text",
    [
        *("0042", "42", "yes", "on", "1_000", "1e3", "1.50", "12:30:00", "0x10", "2024-01-01"),
        *("true", "True", "false", ".inf", "+7", "-0", "0o17"),
    ],
)
def test_text_fields_keep_what_is_typed(tmp_path, way, text):
    assert typed(tmp_path, way, "word", text).word == text
    assert typed(tmp_path, way, "maybe", text).maybe == text
    assert typed(tmp_path, way, "words", f"[{text}, b]").words == (text, "b")


@ways
def test_number_fields_take_decimals_alone(tmp_path, way, fails):
    for text, whole in (("010", 10), ("0100", 100), ("+7", 7), ("-3", -3)):
        assert typed(tmp_path, way, "whole", text).whole == whole
        assert type(typed(tmp_path, way, "whole", text).whole) is int
    for text, number in (("1e3", 1000.0), ("010", 10.0), (".5", 0.5), ("1e-4", 1e-4)):
        assert typed(tmp_path, way, "number", text).number == number
        assert type(typed(tmp_path, way, "number", text).number) is float
    for text in ("1_000", "0x10", "12:30:00", "2024-01-01", "'100'", "yes", "9" * 2000):
        for key in ("whole", "number"):
            with fails(ConfigError, f"run.yaml: {key}: got .*; expected a (whole )?number"):
                typed(tmp_path, way, key, text)
    for text in ("1e3", "3.0", "true", "null", "[1]"):
        with fails(ConfigError, "run.yaml: whole: got .*a whole number"):
            typed(tmp_path, way, "whole", text)
    for text in ("true", "null", ".nan", "nan", "inf", "1e999"):
        with fails(ConfigError, "run.yaml: number: got .*number"):
            typed(tmp_path, way, "number", text)
    with fails(ConfigError, "whole: got 99.*of at most 9,007,199,254,740,992"):
        typed(tmp_path, way, "whole", "9" * 20)


@ways
def test_other_fields(tmp_path, way, fails):
    assert typed(tmp_path, way, "maybe", "null").maybe is None
    for text in ("null", ""):
        with fails(ConfigError, "word: got null; expected text"):
            typed(tmp_path, way, "word", text)
    assert [typed(tmp_path, way, "flag", t).flag for t in ("yes", "true", "off")] == [1, 1, 0]
    assert typed(tmp_path, way, "either", "7").either == 7
    assert typed(tmp_path, way, "either", "names.txt").either == "names.txt"
    assert typed(tmp_path, way, "either", "[1, 02]").either == ("1", "02")


def test_a_run_with_numbers_for_names(tmp_path):
    config = validate(TrainConfig, read_yaml("quickstart", ["name=0042", "seed=010", "steps=0300"]))
    assert (config.name, config.folder, config.seed, config.steps) == ("0042", "runs/0042", 10, 300)
    (tmp_path / "again.yaml").write_text(to_yaml(config))
    assert validate(TrainConfig, read_yaml(tmp_path / "again.yaml")) == config
    assert yaml.safe_load(to_yaml(config))["name"] == "0042"  # others read it too


def test_a_whole_override_is_one_value():
    assert value_of("my #1 folder: a, b") == "my #1 folder: a, b"
    assert value_of("*.tar") == "*.tar" and value_of("@x") == "@x" and value_of("!x") == "!x"
    assert value_of(" 5 ") == 5 and value_of('"5"') == "5"


WORDS = [
    *PLAIN,
    ".inf",
    "-.inf",
    ".nan",
    "a: b",
    "#x",
    "-",
    "*x",
    "'q'",
    " x ",
    "é\nü",
    "${x",
    "a,b",
    "[x",
    'say "so"',
    "\\",
]


@pytest.mark.parametrize("text", WORDS, ids=repr)
def test_text_survives_every_way_out(text):
    for value in (text, [text], {"k": text, text: [text, 1.5, None, True]}):
        assert value_of(text_of(value)) == value
        assert parse_yaml(dump_yaml({"a": value})) == {"a": value}
    assert yaml.safe_load(dump_yaml([text])) == [text]


def test_numbers_survive_copies():
    for text in ("010", "1e-4"):
        value = value_of(text)
        for again in (copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
            assert again == value and str(again) == text
        assert dump_yaml({"a": value}) == dump_yaml({"a": type(value).__bases__[1](text)})


def test_files_of_runs_are_read_as_plain_types(tmp_path):
    """They go on into results.json and its report, whose writers know plain numbers alone."""
    (tmp_path / "config.yaml").write_text("lr: 1.0e-06\nlist: [010, {a: 1e-4}]\nname: yes\n")
    tree = read_plain_yaml(tmp_path / "config.yaml")
    assert tree == {"lr": 1e-6, "list": [10, {"a": 1e-4}], "name": "yes"}
    assert type(tree["lr"]) is float and type(tree["list"][0]) is int
    assert yaml.safe_load(yaml.safe_dump(tree)) == tree


# -- bounds ---------------------------------------------------------------------------------------
def laughs(first: str, line: str) -> str:
    """Nine lines, each of which holds the one before it nine times."""
    more = (line.replace("I", str(i)).replace("J", str(i - 1)) for i in range(1, 9))
    return "\n".join([first, *more])


LAUGHS = laughs("a0: &a0 [x, x]", f"aI: &aI [{'*aJ, ' * 9}]")
TEXTS = laughs("a0: xxxxxxxx", f"aI: {'${aJ}' * 9}")
LISTS = laughs("a0: [x]", "aI: [" + "'${aJ}', " * 9 + "]")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 5000, "nested more than 64 deep"),
        ("a: " + "{b: " * 70 + "1" + "}" * 70, "nested more than 64 deep"),
        ("\n".join("  " * i + f"k{i}:" for i in range(70)), "nested more than 64 deep"),
        (LAUGHS, "its anchors unfold to more than 200,000 values"),
        ("a: &a [*a]", "an anchor holds itself"),
        ("a: &a {<<: *a}", "an anchor holds itself"),
        ("a: !!python/object:os.system x", "python/object.*expected plain"),
        ("a: !!binary eHg=", "!!binary"),
        ("a: !!set {x, y}", "tag.*in line 1"),
        ("a: !!int 0x10", "got '0x10' as !!int"),
        ("? [1, 2]\n: x", "a key that is no plain text in line 1"),
        ("a: 1\nb: {c: 1, c: 2}", "duplicate key c in line 2"),
        ("a: {<<: 3}", "'<<' of something that is no mapping"),
        ("a: 1\n---\nb: 2", "single document"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_files_beyond_the_bounds_are_one_line(tmp_path, fails, text, words):
    with fails(InputError, words):
        parse_yaml(text)
    (tmp_path / "run.yaml").write_text(text)
    with fails(ConfigError, f"run.yaml: cannot be read: .*{words}"):
        read_yaml(tmp_path / "run.yaml")


def test_a_giant_file_is_not_read(tmp_path, fails):
    with (tmp_path / "run.yaml").open("wb") as file:
        file.truncate(2**40)  # of nothing: it takes no disk
    with fails(ConfigError, r"run.yaml: cannot be read: 1,099,511,627,776 bytes; expected at most"):
        read_yaml(tmp_path / "run.yaml")


def test_anchors_and_merges_that_are_meant():
    text = "a: &a {x: 1, y: [2]}\nb: {<<: *a, y: 3}\nc: {<<: [{x: 5}, *a]}\nd: [*a, *a]"
    tree = parse_yaml(text)
    assert tree["b"] == {"x": 1, "y": 3} and tree["c"] == {"x": 5, "y": [2]}
    tree["d"][0]["y"].append(3)  # nothing is shared
    assert tree["d"][1] == tree["a"] == {"x": 1, "y": [2]}
    assert parse_yaml("1: a\nyes: b\n0042: c") == {"1": "a", "yes": "b", "0042": "c"}
    assert parse_yaml("a: !!str 010\nb: !!float 3\nc: !!null null") == {
        "a": "010",
        "b": 3.0,
        "c": None,
    }


# -- references -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: ${a}", "refers to itself"),
        ("a: ${b}\nb: [1, '${a}']", "refers to itself"),
        ("a: ${b.c}\nb: 3", "'b.c' not found"),
        ("a: ${b[7]}\nb: [3]", r"'b\[7\]' not found"),
        ("a: {b: '${..c}'}", "'..c' not found"),
        ("a: ${..c}", "more dots than keys"),
        ("a: {b: '${.b}'}", "refers to itself"),
        ("a: ${oc.env:HOME}", "only references to other keys"),
        (TEXTS, "references unfold to more than .* characters"),
        (LISTS, "references unfold to more than .* values"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_references_that_lead_nowhere_or_too_far(tmp_path, fails, text, words):
    (tmp_path / "run.yaml").write_text(text)
    with fails(ConfigError, f"run.yaml: .*{words}"):
        read_yaml(tmp_path / "run.yaml")


def test_references_from_where_they_stand(tmp_path):
    (tmp_path / "run.yaml").write_text("a: {b: [x, '${.0}'], c: '${.b[1]}${..d}'}\nd: ${.a.b[0]}\n")
    assert read_yaml(tmp_path / "run.yaml") == {"a": {"b": ["x", "x"], "c": "xx"}, "d": "x"}


def test_references_give_values_and_text(tmp_path):
    (tmp_path / "run.yaml").write_text(
        "seed: 010\nlist: [1, {b: 2}]\nsame: ${seed}\ntext: runs/${seed}-${list[1].b}\n"
        "both: ${list}\n"
    )
    tree = read_yaml(tmp_path / "run.yaml", ["more=${text}/x", "seed=0042"])
    assert tree["same"] == 42 and tree["text"] == "runs/0042-2" and tree["more"] == "runs/0042-2/x"
    assert tree["both"] == tree["list"] and tree["both"] is not tree["list"]
