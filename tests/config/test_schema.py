"""JSON schema of configs: true to the code, and as strict as the loader."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import jsonschema
import pytest
import yaml
from click.testing import CliRunner

from tests.support import processes
from tests.support.recipes import CONFIGS, FILES, what_it_is
from vistok.cli.schema import schema
from vistok.config import Config, PartOf, registry
from vistok.config.schema import document
from vistok.config.schema_files import FOLDER, PROGRAMS, _field_lines, file_name
from vistok.config.yaml_text import parse_yaml

PROGRAM = {"train": "train", "study": "study"}
SHIPPED = [name for name, path in FILES.items() if what_it_is(path) in PROGRAM]


@pytest.fixture(scope="module")
def validators():
    texts = {one: (CONFIGS / FOLDER / file_name(one)).read_text("utf-8") for one in PROGRAMS}
    return {one: jsonschema.Draft7Validator(json.loads(text)) for one, text in texts.items()}


def test_the_shipped_schema_is_that_of_the_code(tmp_path):
    # In a process of its own: parts that other tests register are no parts of vistok.
    assert processes.run("vistok.cli", "schema", "--write", tmp_path).returncode == 0
    for program in PROGRAMS:
        there = (CONFIGS / FOLDER / file_name(program)).read_text("utf-8")
        made = (tmp_path / FOLDER / file_name(program)).read_text("utf-8")
        assert there == made, "run: vistok schema --write configs"
        jsonschema.Draft7Validator.check_schema(json.loads(there))


def test_every_shipped_config_names_its_schema_and_keeps_it(validators):
    for name in SHIPPED:
        text = FILES[name].read_text("utf-8")
        line = text.splitlines()[0]
        where = line.removeprefix("# yaml-language-server: $schema=")
        program = what_it_is(FILES[name])
        expected = CONFIGS / FOLDER / file_name(program)
        assert (FILES[name].parent / where).resolve() == expected.resolve(), name
        wrong = list(validators[program].iter_errors(yaml.safe_load(text)))
        assert not wrong, (name, [error.message[:200] for error in wrong])


TOKENIZER = """
task:
  kind: tokenizer
  tokenizer:
    encoder: {kind: vit}
    quantizer: {kind: fsq}
    decoder: {kind: vit}
"""


@pytest.mark.parametrize(
    ("program", "text"),
    [
        ("train", TOKENIZER),
        ("train", TOKENIZER + "steps: ${warmup}\nwarmup: 010\nname: 0042\ncompile: yes"),
        ("train", TOKENIZER + "compile: off\nout: runs/${name}/x\nclip: null\nlr_drops: [0.5]"),
        ("train", TOKENIZER + "optimizer: ${.x}\ntrackers: ['${name}']\ndata: null"),
        ("train", TOKENIZER + "data: {kind: folder, path: x, size: 32}\nema: 1e-3"),
        ("train", TOKENIZER.replace("{kind: fsq}", "{kind: vq, codebook_size: 8}")),
        ("train", TOKENIZER.replace("encoder:", "image_size: 32\n    encoder:")),
        ("train", TOKENIZER.replace("encoder:", "image_size: [32, 64]\n    encoder:")),
        ("train", TOKENIZER + "  init: runs/a"),
        ("train", TOKENIZER + "  init: [{path: a, parts: [encoder]}, {network: dinov2-b}, b]"),
        ("train", TOKENIZER + "  losses: [{kind: alignment, network: dinov2-b, student: latents}]"),
        ("train", "base: other.yaml"),
        ("train", "base: other.yaml\ntask: {tokenizer: {encoder: {transformer: {width: 8}}}}"),
        ("train", "a: &a {kind: photos}\n".replace("a: &a", "data: &a") + "base: x.yaml"),
        ("eval", "protocols: rfid\nrfid: {metrics: all}\ngfid: {guidance: 2}\ndata: {size: 3}"),
        ("eval", "protocols: [rfid, pfid]\ngfid: {guidance: [1, 2.5]}\nlimit: null"),
        ("study", "train: quickstart\nonly: a\nruns: {a: {steps: 3}, b: {}}\nseeds: [0, 1]"),
    ],
)
def test_what_the_loader_takes_is_taken(validators, program, text):
    wrong = list(validators[program].iter_errors(parse_yaml(text)))
    assert not wrong, [error.message[:200] for error in wrong]


@pytest.mark.parametrize(
    ("program", "text"),
    [
        ("train", "steps: 3"),
        ("train", TOKENIZER + "lr: 3"),
        ("train", TOKENIZER + "steps: abc"),
        ("train", TOKENIZER + "steps: 0"),
        ("train", TOKENIZER + "steps: 1.5"),
        ("train", TOKENIZER + "name: null"),
        ("train", TOKENIZER + "ema: 1"),
        ("train", TOKENIZER + "compile: maybe"),
        ("train", TOKENIZER + "precision: fp16"),
        ("train", TOKENIZER + "trackers: wandb"),
        ("train", TOKENIZER + "data: {size: 32}"),
        ("train", TOKENIZER + "data: {kind: folders, path: x}"),
        ("train", TOKENIZER + "optimizer: adamw"),
        ("train", TOKENIZER.replace("{kind: fsq}", "{kind: vq, levels: [8]}")),
        ("train", TOKENIZER.replace("{kind: fsq}", "fsq")),
        ("train", TOKENIZER.replace("decoder:", "decodr:")),
        ("train", TOKENIZER + "  losses: {kind: reconstruction}"),
        ("train", TOKENIZER + "  init: 3.5.x: y".replace("3.5.x: y", "{paths: x}")),
        ("train", "base: other.yaml\ntask: {tokenizer: {encoder: {transformer: {wdith: 8}}}}"),
        ("train", "base: 3"),
        ("eval", "limit: 1"),
        ("eval", "rfid: {metric: kid}"),
        ("study", "train: quickstart"),
        ("study", "train: quickstart\nruns: {a: {}}\nevaluate: {limt: 3}"),
    ],
)
def test_what_the_loader_refuses_is_refused(validators, program, text):
    assert any(validators[program].iter_errors(parse_yaml(text)))


class OwnConfig(Config):
    kind: Literal["own"] = "own"
    depth: int = 2
    """Blocks of my own."""


class Root(Config):
    part: Annotated[Any, PartOf("test_schema")]


def test_parts_of_a_plugin_are_in_the_schema(monkeypatch):
    monkeypatch.setattr(registry, "_ENTRIES", {k: dict(v) for k, v in registry._ENTRIES.items()})
    part = type("Own", (), {"__doc__": "A part of my own.\n\nMore."})
    registry.register("test_schema", OwnConfig)(part)
    made = document(Root)
    keys = made["$defs"]["OwnConfig"]["properties"]
    assert keys["depth"]["description"] == "Blocks of my own." and keys["depth"]["default"] == 2
    assert made["$defs"]["OwnConfig"]["description"] == "A part of my own."
    own = jsonschema.Draft7Validator(made)
    assert own.is_valid({"part": {"kind": "own", "depth": 3}})
    assert not own.is_valid({"part": {"kind": "own", "dpth": 3}})


def test_the_command_prints_or_writes(tmp_path):
    printed = CliRunner().invoke(schema, ["study"])
    assert json.loads(printed.output)["title"] == "vistok study"
    done = CliRunner().invoke(schema, ["study", "--out", str(tmp_path / "s.json")])
    assert done.exit_code == 0 and (tmp_path / "s.json").read_text("utf-8") == printed.output
    wrong = CliRunner().invoke(schema, ["trian"])
    assert wrong.exit_code == 1 and "did you mean 'train'" in wrong.output


def test_files_of_ones_own_get_a_schema_beside_them(tmp_path):
    (tmp_path / "deep").mkdir()
    texts = {
        "mine.yaml": "# yaml-language-server: $schema=../gone.json\n# Mine.\nsteps: 3\ntask: {}\n",
        "deep/study.yaml": "train: quickstart\nruns: {a: {}}\n",
        "deep/other.yaml": "services: []\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text, "utf-8")
    done = CliRunner().invoke(schema, ["--write", str(tmp_path / "mine.yaml")])
    assert done.exit_code == 0, done.output
    head = "# yaml-language-server: $schema="
    mine = (tmp_path / "mine.yaml").read_text("utf-8")
    assert mine == f"{head}train.schema.json\n# Mine.\nsteps: 3\ntask: {{}}\n"
    assert (tmp_path / "train.schema.json").is_file()
    done = CliRunner().invoke(schema, ["--write", str(tmp_path)])
    assert done.exit_code == 0 and "other.yaml: not a config of vistok" in done.output
    study = (tmp_path / "deep/study.yaml").read_text("utf-8")
    assert study.startswith(f"{head}../schema/study.schema.json\n")
    assert {path.name for path in (tmp_path / "schema").iterdir()} == set(map(file_name, PROGRAMS))
    assert (tmp_path / "deep/other.yaml").read_text("utf-8") == texts["deep/other.yaml"]


def test_a_changed_field_changes_the_digest():
    code = 'class AConfig(Config):\n    x: int = Field(\n        ge=1\n    )\n    """Doc."""\n'
    rest = "    def f(self):\n        y: int = 3\n\n\nz: int = 1\n"
    lines = _field_lines(code + rest)
    assert lines == _field_lines(code + rest.replace("3", "4"))  # what it does is of no interest
    assert lines != _field_lines(code.replace("ge=1", "ge=2") + rest)
    assert lines != _field_lines(code.replace("x:", "y:") + rest)
